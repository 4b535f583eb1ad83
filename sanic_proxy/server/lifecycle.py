"""The states of a worker, kept where the main process can read them, and when a worker counts as hung.

Each worker has a slot in a small array of shared memory: its state, and a number of heartbeats that grows
once a second while its event loop turns. The worker alone writes its slot while it lives, the main process
alone while it does not, and each field is one aligned machine word; so there is no lock that a killed worker
could keep, no socket, no file to be deleted, and neither side ever waits for the other.

    STARTING   imports, settings; takes no signals yet
    READY      takes signals: state built, handlers installed
    SERVING    accepts connections
    DRAINING   asked to stop; still serves, each answer the last of its connection (the lame duck)
    CLOSING    no longer listens; requests in flight finish
    STOPPED    all closed, the process ends

A hung worker is found by its silence, and silence is measured in the main process's own ticks (see
TickClock): time in which the main process did not run either, because the machine was suspended, the
container paused or the CPU overcommitted, is time in which the worker could not have run.
"""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Mapping, Sequence
from enum import IntEnum, auto
from typing import cast

# One slot for each worker that may be configured.
MAX_WORKERS = 1024
BEAT_S = 1.0
# A tick of the main process counts for no more than this, however late it comes.
MAX_STEP_S = 1.0
# A larger gap between two ticks, or between the clocks, is a jump. After one no worker is killed for a while.
JUMP_S = 5.0
SETTLE_S = 30.0
# Between the signal that has a hung worker log its stack and the one that kills it.
STACK_S = 1.0


class WorkerState(IntEnum):
    """In the order of a worker's life."""

    STARTING = 0
    READY = auto()
    SERVING = auto()
    DRAINING = auto()
    CLOSING = auto()
    STOPPED = auto()


# Sanic may close the listener by itself, and a worker may be asked to stop before it serves.
TRANSITIONS: Mapping[WorkerState, frozenset[WorkerState]] = {
    WorkerState.STARTING: frozenset({WorkerState.READY}),
    WorkerState.READY: frozenset({WorkerState.SERVING, WorkerState.DRAINING, WorkerState.CLOSING}),
    WorkerState.SERVING: frozenset({WorkerState.DRAINING, WorkerState.CLOSING}),
    WorkerState.DRAINING: frozenset({WorkerState.CLOSING}),
    WorkerState.CLOSING: frozenset({WorkerState.STOPPED}),
    WorkerState.STOPPED: frozenset(),
}


class SharedSlot(ctypes.Structure):
    """What a worker shows. `beats` is 0 while its event loop is not watched."""

    _fields_ = (("_state", ctypes.c_uint32), ("beats", ctypes.c_uint32))
    _state: int
    beats: int

    @property
    def state(self) -> WorkerState:
        return WorkerState(self._state)

    def advance(self, to: WorkerState) -> bool:
        """Go to a later state; False if the table does not allow it from here."""
        is_allowed = to in TRANSITIONS[self.state]
        if is_allowed:
            self._state = to
        return is_allowed

    def beat(self) -> None:
        """Show that the event loop turns."""
        self.beats += 1

    def reset(self) -> None:
        """Before a new process gets the slot."""
        self._state = WorkerState.STARTING
        self.beats = 0


def shared_slots() -> Sequence[SharedSlot]:
    """The slots of all workers, in memory that spawned processes inherit by its descriptor."""
    array = multiprocessing.get_context("spawn").RawArray(SharedSlot, MAX_WORKERS)
    return cast("Sequence[SharedSlot]", array)


def slot_of(slots: Sequence[SharedSlot], worker_name: str) -> SharedSlot:
    """The slot of a worker by Sanic's name for it, `Sanic-Server-3-0`."""
    return slots[int(worker_name.split("-")[2]) % MAX_WORKERS]


class TickClock:
    """Counts the seconds through which this process ran. `tick` must be called with the time at every tick.

    `now` is the monotonic clock, `wall` the wall clock; a suspended machine shows in the second, a paused
    container in the first.
    """

    def __init__(self, now: float, wall: float) -> None:
        self._now, self._wall = now, wall
        self._since_jump_s = SETTLE_S

    @property
    def is_settled(self) -> bool:
        """Whether the last jump is long enough ago to believe what was measured."""
        return self._since_jump_s >= SETTLE_S

    def tick(self, now: float, wall: float) -> float:
        """The seconds since the last tick that count."""
        gap_s, wall_gap_s = now - self._now, wall - self._wall
        self._now, self._wall = now, wall
        if gap_s > JUMP_S or abs(wall_gap_s - gap_s) > JUMP_S:
            self._since_jump_s = 0.0
        step_s = min(gap_s, MAX_STEP_S)
        self._since_jump_s += step_s
        return step_s


class Verdict(IntEnum):
    """What is to be done about a worker's event loop."""

    RUNNING = auto()
    HUNG = auto()
    KILL = auto()


class HangDetector:
    """Decides from a worker's heartbeats whether it hangs: first HUNG, once, and STACK_S later KILL."""

    def __init__(self) -> None:
        self._beats = 0
        self._hung_at_s: float | None = None
        self.silent_s = 0.0

    def observe(self, beats: int, step_s: float, *, timeout_s: float, is_settled: bool) -> Verdict:
        """To be called at each tick, `step_s` after the last. A `timeout_s` of 0 finds nothing."""
        if beats != self._beats or beats == 0 or timeout_s == 0:
            self._beats, self.silent_s, self._hung_at_s = beats, 0.0, None
            return Verdict.RUNNING
        self.silent_s += step_s
        if self.silent_s < timeout_s or not is_settled:
            return Verdict.RUNNING
        if self._hung_at_s is None:
            self._hung_at_s = self.silent_s
            return Verdict.HUNG
        return Verdict.KILL if self.silent_s - self._hung_at_s >= STACK_S else Verdict.RUNNING
