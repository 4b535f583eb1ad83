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


class Rate(NamedTuple):
    """`limit` units per `period_s`, of which `burst` may come at once. All are above 0."""

    limit: float
    burst: float
    period_s: float = 60.0

    @property
    def interval_s(self) -> float:
        return self.period_s / self.limit


class State(NamedTuple):
    """What is kept of one limit; the initial state is that of an unused one."""

    due: float = 0.0
    seen: float = 0.0


class Decision(NamedTuple):
    """`state` replaces the one before. `wait_s` is 0 if the units are admitted, else when they would be.

    `remaining` units could follow at once; all of the burst could after `reset_s`.
    """

    state: State
    wait_s: float
    remaining: int
    reset_s: float

    @property
    def is_admitted(self) -> bool:
        return not self.wait_s


def admit(state: State, rate: Rate, now: float, units: float = 1) -> Decision:
    """Decide about `units` that come at `now`. A refusal uses nothing."""
    now = max(now, state.seen)
    window_s = rate.burst * rate.interval_s
    used_s = min(max(0.0, state.due - now), _most_s(rate))
    cost_s = units * rate.interval_s
    wait_s = used_s - max(0.0, window_s - cost_s)
    if wait_s > _EPSILON * window_s:
        return _decision(now, used_s, wait_s, rate)
    return _decision(now, used_s + cost_s, 0.0, rate)


def look(state: State, rate: Rate, now: float) -> Decision:
    """The state at `now`, with nothing used."""
    return admit(state, rate, now, 0)


def adjust(state: State, rate: Rate, now: float, units: float) -> State:
    """Use further `units`, or give back unused ones (below 0). They are admitted in any case."""
    now = max(now, state.seen)
    used_s = max(0.0, state.due - now) + units * rate.interval_s
    return State(now + min(max(0.0, used_s), _most_s(rate)), now)


# Sums of floating-point numbers: whoever waits exactly as long as was said is admitted.
_EPSILON = 1e-9
# Debts of more than so many bursts or periods are forgotten: one odd report blocks nobody for days.
_MAX_DEBT = 60


def _most_s(rate: Rate) -> float:
    return _MAX_DEBT * max(rate.burst * rate.interval_s, rate.period_s)


def _decision(now: float, used_s: float, wait_s: float, rate: Rate) -> Decision:
    left_s = rate.burst * rate.interval_s - used_s
    remaining = max(0, int(left_s / rate.interval_s + _EPSILON * rate.burst))
    return Decision(State(now + used_s, now), wait_s, remaining, used_s)
