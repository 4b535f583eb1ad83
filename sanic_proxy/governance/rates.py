"""The rates of clients over all workers: requests and tokens per minute, and requests in flight.

A request is in up to four scopes (`rules`). All of their limits must admit it, or none of them is used.

Requests and tokens are limited by the generic cell rate algorithm (`gcra`). Its states are in cells of the
shared memory, one per scope, and a decision is one critical section. Tokens are reserved by the estimate of
the request; the difference is settled when its usage is known. Requests in flight are gauges of that memory,
a number per scope and worker: those of a killed worker vanish with it.

A critical section costs two system calls, which a limit that is far away need not cost each request. So a
decision takes units for some further requests, too: a slice, which the worker uses without the lock. A slice
is at most 1/PART of what is left, so it shrinks as the limit comes near, and limits below PART are exact to
the unit. What is in a slice counts as used for all workers; what is left of it after SLICE_S is given back.
So no more is admitted than without slices, a request may be refused while other workers hold 1/PART of the
limit each, and a slice that is used late adds as much to a burst. Requests in flight are decided without the
lock while each worker could admit one more at the same moment.

While the memory is locked by a stopped process, or where it is full, each worker keeps to its share of a
limit by itself. A settlement that finds it locked is dropped: what it gives back returns within minutes.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from sanic_proxy.config.rules import ScopeLimits
from sanic_proxy.governance import gcra
from sanic_proxy.governance.gcra import Rate, State
from sanic_proxy.governance.rules import Scope, ScopedLimits
from sanic_proxy.state_store.shared import CELL_VALUES, KEPT_UNTIL, Gauge, SharedMemory, key_of

RateKind = Literal["requests", "tokens", "concurrent"]
MINUTE_S = 60.0
# When one of the requests in flight may have ended; nobody knows.
RETRY_CONCURRENT_S = 1.0
MAX_SCOPES = 4096
# The part of what is left of a limit that one worker takes ahead, at most for so many requests like the
# present one, and how long it keeps that.
PART = 64
AHEAD = 64
SLICE_S = 1.0
# Where in a cell the state of a rate begins: `due`, `seen`, and the limit in whose intervals they count.
_REQUESTS, _TOKENS = 1, 4


# A tuple's own constructor: that of a NamedTuple is a function in Python, which costs as much again.
_new = tuple.__new__


class Standing(NamedTuple):
    """How a limit stands, with the present request counted if it was admitted.

    All of `limit` is free again after `reset_s`.
    """

    scope: Scope
    limit: int
    remaining: int
    reset_s: float


class _Slice:
    """One rate of a scope in this worker.

    `ahead` are units that it has taken and not used, `most` is how many it may keep; `due` is when all of the
    limit is free again, as it was last seen. `workers` share `rate`.
    """

    __slots__ = ("ahead", "at", "due", "limit", "most", "own_rate", "rate", "shared_rate", "workers")

    def __init__(self, at: int, shared_rate: Rate, own_rate: Rate) -> None:
        self.at = at
        self.shared_rate = shared_rate
        self.own_rate = own_rate
        self.share(1)
        self.due = 0.0
        self.ahead = self.most = 0

    def share(self, workers: int) -> None:
        """Count by the limit of all (1), or by this worker's part of it."""
        self.workers = workers
        self.rate = self.shared_rate if workers == 1 else self.own_rate
        self.limit = round(self.rate.limit * workers)

    def standing(self, scope: Scope, now: float) -> Standing:
        """How the limit stands."""
        rate, ahead = self.rate, self.ahead
        used_s = self.due - now
        if used_s <= 0.0:
            used_s, ahead = 0.0, 0
        reset_s = used_s - ahead * rate.interval_s
        remaining = rate.remaining(used_s) * self.workers + ahead
        return _new(Standing, (scope, self.limit, remaining, reset_s if reset_s > 0.0 else 0.0))


class _Standings:
    """How the limits of a request stand: the tightest of each kind, computed when it is read."""

    __slots__ = ("_clock", "_limits")

    def __init__(self, limits: Sequence[Limited], clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock

    @property
    def requests(self) -> Standing | None:
        found, now = None, self._clock()
        for one in self._limits:
            if one.requests is not None:
                found = _tighter(found, one.requests.standing(one.scope, now))
        return found

    @property
    def tokens(self) -> Standing | None:
        found, now = None, self._clock()
        for one in self._limits:
            if one.tokens is not None:
                found = _tighter(found, one.tokens.standing(one.scope, now))
        return found


def _tighter(one: Standing | None, other: Standing) -> Standing:
    """The limit with the smaller part left."""
    return other if one is None or other[2] * one[1] < one[2] * other[1] else one


class RateRefusal(_Standings):
    """Which limit does not admit a request, and in how many seconds it will."""

    __slots__ = ("kind", "limit", "scope", "wait_s")

    def __init__(
        self,
        scope: Scope,
        kind: RateKind,
        limit: int,
        wait_s: float,
        limits: Sequence[Limited] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(limits, clock)
        self.scope = scope
        self.kind = kind
        self.limit = limit
        self.wait_s = wait_s


class Admission(_Standings):
    """An admitted request. `settle` is to be called when it ends; further calls do nothing."""

    __slots__ = ("_gauges", "_rates", "_reserved")

    def __init__(
        self,
        rates: Rates,
        limits: Sequence[Limited],
        clock: Callable[[], float],
        gauges: Sequence[Gauge],
        reserved: int,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._rates: Rates | None = rates
        self._gauges = gauges
        self._reserved = reserved

    def settle(self, tokens: int | None) -> None:
        """The request has ended and has used `tokens`; None: not known, as many as were reserved."""
        rates, self._rates = self._rates, None
        if rates is not None:
            for gauge in self._gauges:
                _count(gauge, -1)
            if tokens is not None and tokens != self._reserved:
                rates.settle(self._limits, tokens - self._reserved)


def _count(gauge: Gauge, change: int) -> None:
    """A request in flight has begun (1) or ended (-1)."""
    gauge.count += change
    if gauge.cell is not None:
        gauge.cell[0] = gauge.count


class Limited:
    """The limits of one scope, as they are needed for each request.

    `gauge` counts its requests in flight. `own` and `own_gauge` are its cell and its count in this worker,
    where there is no shared one.
    """

    __slots__ = ("concurrent", "gauge", "key", "limits", "own", "own_gauge", "requests", "scope", "tokens")

    def __init__(self, one: ScopedLimits, workers: int) -> None:
        self.scope = one.scope
        self.limits = one.limits
        self.key = key_of("rates", one.scope.kind, one.scope.name)
        self.concurrent = one.limits.concurrent
        self.gauge: Gauge | None = None
        self.own_gauge = Gauge()
        self.own = [0.0] * CELL_VALUES
        requests, tokens = _rates_of(one.limits, 1)
        own_requests, own_tokens = _rates_of(one.limits, workers)
        self.requests = self.tokens = None
        if requests is not None and own_requests is not None:
            self.requests = _Slice(_REQUESTS, requests, own_requests)
        if tokens is not None and own_tokens is not None:
            self.tokens = _Slice(_TOKENS, tokens, own_tokens)


def _rates_of(limits: ScopeLimits, workers: int) -> tuple[Rate | None, Rate | None]:
    """The rates of requests and of tokens, for one of `workers` that share them."""
    requests = tokens = None
    if limits.rpm is not None:
        burst = limits.burst or limits.rpm
        requests = Rate(limits.rpm / workers, max(1.0, burst / workers), MINUTE_S)
    if limits.tpm is not None:
        tokens = Rate(limits.tpm / workers, max(1.0, limits.tpm / workers), MINUTE_S)
    return requests, tokens


def _state(values: list[float] | memoryview[float], at: int, rate: Rate) -> State:
    """The state of a rate. What was used while the limit was another one stays used, in units."""
    due, seen, limit = values[at], values[at + 1], values[at + 2]
    if limit != rate.limit and limit:
        due = seen + (due - seen) * limit / rate.limit
    return State(due, seen)


def _write(values: list[float] | memoryview[float], at: int, rate: Rate, state: State) -> None:
    due, seen = state
    values[at], values[at + 1], values[at + 2] = due, seen, rate.limit
    values[KEPT_UNTIL] = max(values[KEPT_UNTIL], due + MINUTE_S)


class _Check(NamedTuple):
    """What one rate of one scope has decided; `before` is its state without the request."""

    one: Limited
    slice: _Slice
    values: list[float] | memoryview[float]
    units: int
    before: State
    decision: gcra.Decision


class Rates:
    """See the module. `workers` share the limits where memory cannot be shared. `clock` is monotonic.

    `later` calls a function after so many seconds; without it slices are given back by `give_back` alone.
    """

    def __init__(
        self,
        memory: SharedMemory,
        *,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        self._memory = memory
        self._workers = workers
        self._clock = clock
        self._later = later
        self._known: OrderedDict[Scope, Limited] = OrderedDict()
        self._ahead: set[Limited] = set()  # those with something in their slices
        self._is_waiting = False  # for the time to give it back

    def limits_of(self, scoped: Iterable[ScopedLimits]) -> tuple[Limited, ...]:
        """The limits of a request in these scopes, which `admit` takes. They may be kept."""
        return tuple(self._limited(one) for one in scoped)

    def admit(self, limits: Sequence[Limited], tokens: int) -> Admission | RateRefusal:
        """Decide about a request that uses `tokens` by its estimate."""
        for one in limits:
            requests, of_tokens = one.requests, one.tokens
            if (requests is not None and not requests.ahead) or (
                of_tokens is not None and of_tokens.ahead < (tokens or 1)
            ):
                return self._decide(limits, tokens)
            if one.concurrent is not None and (
                one.gauge is None or one.gauge.total() + self._memory.used_slots > one.concurrent
            ):
                return self._decide(limits, tokens)
        gauges = []
        for one in limits:
            requests, of_tokens = one.requests, one.tokens
            if requests is not None:
                requests.ahead -= 1
            if of_tokens is not None:
                of_tokens.ahead -= tokens
            if one.concurrent is not None:
                gauge = one.gauge or one.own_gauge
                _count(gauge, 1)
                gauges.append(gauge)
        return Admission(self, limits, self._clock, gauges, tokens)

    def _decide(self, limits: Sequence[Limited], tokens: int) -> Admission | RateRefusal:
        """The same in a critical section."""
        counted = [one for one in limits if one.concurrent is not None]
        for one in counted:
            if one.gauge is None:
                one.gauge = self._memory.gauges.gauge(one.key)
        with self._memory.lock as is_locked:
            now = self._clock()
            checks = [
                check for one in limits for check in self._checks(one, tokens, now, is_locked=is_locked)
            ]
            refusal = self._refusal(counted, checks, limits)
            for one, slice_, values, units, before, decision in checks:
                rate = slice_.rate
                state = before if refusal is not None else decision.state
                slice_.ahead = slice_.most = 0
                if refusal is None and values is not one.own:
                    left = rate.remaining(decision.used_s)
                    slice_.ahead = slice_.most = min(left // PART, AHEAD * (units or 1))
                    state = State(state.due + slice_.ahead * rate.interval_s, state.seen)
                    self._ahead.add(one)
                slice_.due = state.due
                _write(values, slice_.at, rate, state)
            if refusal is not None:
                return refusal
            gauges = [one.gauge or one.own_gauge for one in counted]
            for gauge in gauges:
                _count(gauge, 1)
        self._give_back_later()
        return Admission(self, limits, self._clock, gauges, tokens)

    def settle(self, limits: Iterable[Limited], more: int) -> None:
        """Use `more` tokens than were reserved, or give back the rest (below 0)."""
        left = []
        for one in limits:
            if (of_tokens := one.tokens) is not None:
                ahead = of_tokens.ahead - more
                if 0 <= ahead <= of_tokens.most:
                    of_tokens.ahead = ahead
                else:
                    left.append(one)
        if left:
            with self._memory.lock as is_locked:
                now = self._clock()
                for one in left:
                    if one.tokens is not None:
                        self._adjust(one, one.tokens, now, more, is_locked=is_locked)

    def give_back(self) -> None:
        """Give back what is left of all slices."""
        limits, self._ahead = self._ahead, set()
        if limits:
            self._give_back(limits)

    def _give_back(self, limits: Iterable[Limited]) -> None:
        with self._memory.lock as is_locked:
            now = self._clock()
            for one in limits:
                for slice_ in (one.requests, one.tokens):
                    if slice_ is not None and slice_.ahead:
                        self._adjust(one, slice_, now, 0, is_locked=is_locked)

    def _give_back_later(self) -> None:
        if self._later is not None and self._ahead and not self._is_waiting:
            self._is_waiting = True
            self._later(SLICE_S, self._strike)

    def _strike(self) -> None:
        self._is_waiting = False
        self.give_back()

    def _limited(self, one: ScopedLimits) -> Limited:
        """What is known of a scope; its limits may have changed."""
        found = self._known.get(one.scope)
        if found is None or found.limits != one.limits:
            old, found = found, Limited(one, self._workers)
            self._known[one.scope] = found
            if old is not None:
                self._give_back((old,))
                found.own, found.own_gauge = old.own, old.own_gauge
            if len(self._known) > MAX_SCOPES:
                self._known.popitem(last=False)
        return found

    def _checks(self, one: Limited, tokens: int, now: float, *, is_locked: bool) -> Iterator[_Check]:
        for slice_, units in ((one.requests, 1), (one.tokens, tokens)):
            if slice_ is not None:
                values, before = self._state(one, slice_, now, is_locked=is_locked)
                yield _Check(one, slice_, values, units, before, gcra.admit(before, slice_.rate, now, units))

    def _adjust(self, one: Limited, slice_: _Slice, now: float, more: float, *, is_locked: bool) -> None:
        """Use `more` tokens, and give back the slice."""
        values, state = self._state(one, slice_, now, is_locked=is_locked)
        state = gcra.adjust(state, slice_.rate, now, more)
        slice_.ahead = slice_.most = 0
        slice_.due = state.due
        _write(values, slice_.at, slice_.rate, state)

    def _state(
        self, one: Limited, slice_: _Slice, now: float, *, is_locked: bool
    ) -> tuple[list[float] | memoryview[float], State]:
        """The numbers of a scope, and the state of one of its rates if its slice were given back."""
        values = self._memory.cells.find(one.key, now) if is_locked else None
        if values is None:
            slice_.share(self._workers)
            return one.own, _state(one.own, slice_.at, slice_.rate)
        slice_.share(1)
        if values[KEPT_UNTIL] <= now:
            # Taken at once: the next scope of this request must not get the same place.
            values[KEPT_UNTIL] = now + MINUTE_S
        state = _state(values, slice_.at, slice_.rate)
        return values, gcra.adjust(state, slice_.rate, now, -slice_.ahead) if slice_.ahead else state

    def _refusal(
        self, counted: Iterable[Limited], checks: Iterable[_Check], limits: Sequence[Limited]
    ) -> RateRefusal | None:
        """The refusal with the longest wait; None if all limits admit the request."""
        longest_s = 0.0
        found: tuple[Scope, RateKind, int] | None = None
        for one, slice_, *_, decision in checks:
            if decision.wait_s > longest_s:
                longest_s = decision.wait_s
                kind: RateKind = "requests" if slice_.at == _REQUESTS else "tokens"
                found = one.scope, kind, slice_.limit
        for one in counted:
            if longest_s < RETRY_CONCURRENT_S and self._is_full(one):
                longest_s, found = RETRY_CONCURRENT_S, (one.scope, "concurrent", one.concurrent or 0)
        return None if found is None else RateRefusal(*found, longest_s, limits, self._clock)

    def _is_full(self, one: Limited) -> bool:
        """Whether the scope has as many requests in flight as it may."""
        limit = one.concurrent or 0
        if one.gauge is not None:
            return one.gauge.total() >= limit
        return one.own_gauge.count >= math.ceil(limit / self._workers)
