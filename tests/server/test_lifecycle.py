"""A worker's states in shared memory; which silence counts as a hang."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from sanic_proxy.server.lifecycle import (
    MAX_STEP_S,
    MAX_WORKERS,
    SETTLE_S,
    TRANSITIONS,
    HangDetector,
    SharedSlot,
    TickClock,
    Verdict,
    WorkerState,
    shared_slots,
    slot_of,
)

S = WorkerState
LIVES = {
    "normal": (S.READY, S.SERVING, S.DRAINING, S.CLOSING, S.STOPPED),
    "stopped by Sanic": (S.READY, S.SERVING, S.CLOSING, S.STOPPED),
    "stopped before it serves": (S.READY, S.DRAINING, S.CLOSING, S.STOPPED),
}


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES)
def test_a_life_goes_through_the_table(life: tuple[WorkerState, ...]) -> None:
    slot = SharedSlot()
    assert all(slot.advance(state) for state in life)
    assert slot.state == S.STOPPED
    assert not any(slot.advance(state) for state in S)
    slot.reset()
    assert (slot.state, slot.beats) == (S.STARTING, 0)


def test_no_state_leads_back() -> None:
    assert TRANSITIONS.keys() == set(S)
    assert all(to > state for state, allowed in TRANSITIONS.items() for to in allowed)
    slot = SharedSlot()
    slot.advance(S.READY)
    slot.advance(S.DRAINING)
    assert not slot.advance(S.SERVING)
    assert slot.state is S.DRAINING


def test_a_spawned_process_writes_its_slot_without_any_file(tmp_path: Path) -> None:
    code = (
        "import multiprocessing, os, sys\n"
        "from sanic_proxy.server.lifecycle import *\n"
        "def work(slots):\n"
        "    slot = slot_of(slots, 'Sanic-Server-3-0')\n"
        "    slot.advance(WorkerState.READY); slot.beat(); slot.beat()\n"
        "if __name__ == '__main__':\n"
        "    slots = shared_slots()\n"
        "    os.rmdir(os.environ['TMPDIR'])\n"
        "    process = multiprocessing.get_context('spawn').Process(target=work, args=(slots,))\n"
        "    process.start(); process.join()\n"
        "    print([(slot.state.name, slot.beats) for slot in slots[2:5]])\n"
    )
    (tmp_path / "main.py").write_text(code)
    (tmp_path / "tmp").mkdir()
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, tmp_path / "main.py"],
        env={"PYTHONPATH": root, "TMPDIR": str(tmp_path / "tmp")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[('STARTING', 0), ('READY', 2), ('STARTING', 0)]\n"


def test_each_worker_has_a_slot_of_its_own() -> None:
    slots = shared_slots()
    for number in range(MAX_WORKERS):
        slot_of(slots, f"Sanic-Server-{number}-0").beat()
    assert {slot.beats for slot in slots} == {1}


# (monotonic, wall) at each tick -> the seconds that count, and whether they are to be believed at the end
TICKS = {
    "regular": ([(0.1, 0.1), (0.2, 0.2), (0.3, 0.3)], 0.3, True),
    "late, on a busy machine": ([(0.1, 0.1), (3.1, 3.1)], 0.1 + MAX_STEP_S, True),
    "a suspended machine": ([(0.1, 3600.1), (0.2, 3600.2)], 0.2, False),
    "a paused container": ([(3600.0, 3600.0), (3600.1, 3600.1)], MAX_STEP_S + 0.1, False),
    "the wall clock set back": ([(0.1, -3600.0), (0.2, -3599.9)], 0.2, False),
    "the wall clock slewed": ([(0.1, 0.11), (0.2, 0.22)], 0.2, True),
}


@pytest.mark.parametrize(("ticks", "seconds", "is_settled"), TICKS.values(), ids=TICKS)
def test_time_counts_in_ticks(ticks: Iterable[tuple[float, float]], seconds: float, is_settled: bool) -> None:
    clock = TickClock(0.0, 0.0)
    assert sum(clock.tick(now, wall) for now, wall in ticks) == pytest.approx(seconds)
    assert clock.is_settled is is_settled


def test_a_clock_settles_after_as_much_counted_time() -> None:
    clock = TickClock(0.0, 0.0)
    clock.tick(1000.0, 1000.0)
    counted = next(
        number / 10
        for number in itertools.count(1)
        if clock.tick(1000 + number / 10, 1000 + number / 10) and clock.is_settled
    )
    assert SETTLE_S - MAX_STEP_S <= counted <= SETTLE_S + 0.2


def verdicts(
    beats: Iterable[int], *, timeout_s: float = 30.0, step_s: float = 0.5, is_settled: bool = True
) -> list[tuple[int, Verdict]]:
    """The ticks at which something is to be done."""
    detector = HangDetector()
    seen = [detector.observe(beat, step_s, timeout_s=timeout_s, is_settled=is_settled) for beat in beats]
    return [(tick, verdict) for tick, verdict in enumerate(seen) if verdict is not Verdict.RUNNING]


def test_a_silent_worker_dumps_its_stack_and_is_killed() -> None:
    assert verdicts([1] * 64)[:2] == [(60, Verdict.HUNG), (62, Verdict.KILL)]


@pytest.mark.parametrize(
    ("beats", "options"),
    [
        ([number // 59 + 1 for number in range(1000)], {}),  # slow, but turning
        ([0] * 1000, {}),  # not watched: it starts, or runs with --debug
        ([1] * 1000, {"timeout_s": 0.0}),
        ([1] * 1000, {"is_settled": False}),
        ([1] * 1000, {"step_s": 0.0}),
    ],
    ids=["slow", "unwatched", "off", "clock jumped", "no time"],
)
def test_no_other_worker_is_killed(beats: list[int], options: dict[str, float]) -> None:
    assert verdicts(beats, **options) == []  # type: ignore[arg-type]


def test_a_worker_that_goes_on_while_its_stack_is_logged_is_spared() -> None:
    assert verdicts([1] * 62 + [2] * 50) == [(60, Verdict.HUNG)]
