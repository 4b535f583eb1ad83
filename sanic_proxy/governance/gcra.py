"""The generic cell rate algorithm: a limit with a burst, of which two numbers are kept. Pure.

Theory: units arrive at best every `interval` seconds. `due` is the theoretical arrival time of the next unit,
if all before it had come at that pace. A unit that comes early is admitted as long as it is early by at most
`burst` intervals; so `due - now` is the part of the burst that is in use, as time, and it shrinks by itself.
A request of `n` units adds `n` intervals. What it must wait is exact, and nothing has to be reset at the end
of a window, so no window's seam admits twice the limit.

A request for more units than the burst could never be admitted; it is when nothing of the burst is in use,
and the next ones wait longer for it.

Times are seconds of any clock. `seen` is the latest time that was ever used: time before it does not count,
so a clock that is set back refills nothing, and refuses nobody longer than if it had stopped.
"""

from __future__ import annotations

from typing import NamedTuple


class Rate:
    """`limit` units per `period_s`, of which `burst` may come at once. All are above 0. Do not change it."""

    __slots__ = ("burst", "interval_s", "limit", "most_s", "period_s", "slack", "window_s")

    def __init__(self, limit: float, burst: float, period_s: float = 60.0) -> None:
        self.limit = limit
        self.burst = burst
        self.period_s = period_s
        self.interval_s = period_s / limit
        self.window_s = burst * self.interval_s
        # Debts of more than so many bursts or periods are forgotten: one odd report blocks nobody for days.
        self.most_s = _MAX_DEBT * max(self.window_s, period_s)
        self.slack = _EPSILON * burst

    def remaining(self, used_s: float) -> int:
        """How many units could come at once, where `used_s` of the burst are in use."""
        free = int((self.window_s - used_s) / self.interval_s + self.slack)
        return free if free > 0 else 0


_MAX_DEBT = 60
# Sums of floating-point numbers: whoever waits exactly as long as was said is admitted.
_EPSILON = 1e-9


class State(NamedTuple):
    """What is kept of one limit; the initial state is that of an unused one."""

    due: float = 0.0
    seen: float = 0.0


class Decision(NamedTuple):
    """`state` replaces the one before. `wait_s` is 0 if the units are admitted, else when they would be.

    `used_s` is the part of the burst that is in use now: all of it can come at once after that time.
    """

    state: State
    wait_s: float
    used_s: float


def admit(state: State, rate: Rate, now: float, units: float = 1) -> Decision:
    """Decide about `units` that come at `now`. A refusal uses nothing."""
    due, seen = state
    now = max(now, seen)
    used_s = due - now
    if used_s < 0:
        used_s = 0.0
    elif used_s > rate.most_s:
        used_s = rate.most_s
    cost_s, window_s = units * rate.interval_s, rate.window_s
    wait_s = used_s + cost_s - window_s if cost_s < window_s else used_s
    if wait_s > _EPSILON * window_s:
        return Decision(State(now + used_s, now), wait_s, used_s)
    return Decision(State(now + used_s + cost_s, now), 0.0, used_s + cost_s)


def look(state: State, rate: Rate, now: float) -> Decision:
    """The state at `now`, with nothing used."""
    return admit(state, rate, now, 0)


def adjust(state: State, rate: Rate, now: float, units: float) -> State:
    """Use further `units`, or give back unused ones (below 0). They are admitted in any case."""
    now = max(now, state.seen)
    used_s = max(0.0, state.due - now) + units * rate.interval_s
    return State(now + min(max(0.0, used_s), rate.most_s), now)
