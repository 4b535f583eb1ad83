"""Children of the benchmark are found, measured and ended."""

from __future__ import annotations

import os
import time
from pathlib import Path

from loadtest.bench import processes
from loadtest.bench.processes import Command, Session


def started(script: str, folder: Path) -> Session:
    cores = frozenset(os.sched_getaffinity(0))
    command = Command(("sh", "-c", script), {"GIVEN": "yes"}, folder, folder / "log")
    return Session(command, cores)


def log_with(line: str, session: Session) -> str:
    """The log, once the process has written this line."""
    until = time.monotonic() + 60
    while line not in session.log_tail() and time.monotonic() < until:
        time.sleep(0.01)
    return session.log_tail()


def test_stopping_ends_children_whose_parent_cares_for_none(tmp_path: Path) -> None:
    session = started("sleep 60 & sleep 60 & echo ready; wait", tmp_path)
    log_with("ready", session)
    assert len(session.pids()) == 3
    session.stop()
    assert session.pids() == []
    assert not session.is_running


def test_a_child_sees_what_it_was_given_and_no_keys_of_ours(tmp_path: Path) -> None:
    os.environ["BENCH_CANARY_API_KEY"] = "canary"
    try:
        session = started("env; echo ready", tmp_path)
    finally:
        del os.environ["BENCH_CANARY_API_KEY"]
    log = log_with("ready", session)
    session.stop()
    assert "GIVEN=yes" in log
    assert "canary" not in log


def test_pinning_ends_with_its_block() -> None:
    before = os.sched_getaffinity(0)
    with processes.pinned(frozenset({min(before)})):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before


def test_a_process_that_is_gone_has_no_figures() -> None:
    assert processes.rss_mib(2**22 + 1) == 0


def test_our_own_memory_is_seen() -> None:
    assert 1 < processes.rss_mib(os.getpid()) <= processes.peak_mib(os.getpid())
