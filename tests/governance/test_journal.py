"""The journal of a worker: what is in it after any death of its process, and who may take it over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sanic_proxy.governance import journal
from sanic_proxy.governance.journal import Journal, JournalFull, Left, journals


def test_a_slot_is_open_settled_and_free_again(tmp_path: Path) -> None:
    made = Journal.create(tmp_path / "ledger", "w1")
    first, second = made.open(b"one"), made.open(b"two")
    made.settle(second, b"done")
    assert list(made.left()) == [Left(b"one", b""), Left(b"two", b"done")]
    made.release(second)
    assert list(made.left()) == [Left(b"one", b"")]
    made.settle(first, b"x")
    made.release(first)
    assert made.is_empty
    assert made.open(b"three") == first
    assert made.path.stat().st_mode & 0o777 == 0o600
    made.remove()
    made.remove()
    assert journals(tmp_path / "ledger") == []


def test_a_journal_grows_up_to_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_SLOTS", 2 * journal.FIRST_SLOTS)
    made = Journal.create(tmp_path, "w1")
    slots = [made.open(str(number).encode()) for number in range(2 * journal.FIRST_SLOTS)]
    assert sorted(slots) == list(range(2 * journal.FIRST_SLOTS))
    with pytest.raises(JournalFull):
        made.open(b"one too many")
    assert [left.reservation for left in made.left()] == [str(n).encode() for n in range(len(slots))]
    made.close()


def test_a_reservation_that_is_too_long_is_refused(tmp_path: Path) -> None:
    made = Journal.create(tmp_path, "w1")
    with pytest.raises(JournalFull):
        made.open(b"x" * (journal.MAX_RESERVATION_BYTES + 1))
    slot = made.open(b"x" * journal.MAX_RESERVATION_BYTES)
    made.settle(slot, b"y" * journal.SETTLEMENT_BYTES)
    assert [len(text) for left in made.left() for text in left] == [
        journal.MAX_RESERVATION_BYTES,
        journal.SETTLEMENT_BYTES,
    ]
    made.close()


def test_a_journal_is_adopted_when_its_owner_is_dead_and_only_once(tmp_path: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from sanic_proxy.governance.journal import Journal
made = Journal.create(Path(sys.argv[1]), "w1")
made.settle(made.open(b"a"), b"done")
made.open(b"b")
print("ready", flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (path,) = journals(tmp_path)
        try:
            assert [Journal.adopt(path)] == [None]
        finally:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        adopted = Journal.adopt(path)
        assert adopted is not None
        assert adopted.worker == "w1"
        assert list(adopted.left()) == [Left(b"a", b"done"), Left(b"b", b"")]
        assert Journal.adopt(path) is None
        adopted.remove()
        assert Journal.adopt(path) is None


def test_a_journal_that_is_being_made_is_not_seen(tmp_path: Path) -> None:
    (tmp_path / "w1.new").touch()
    assert journals(tmp_path) == []
    assert journals(tmp_path / "missing") == []


def test_two_journals_of_one_name_are_not_made_at_once(tmp_path: Path) -> None:
    (tmp_path / "w1.new").touch()
    with pytest.raises(FileExistsError):
        Journal.create(tmp_path, "w1")
