"""The rates of clients over all workers: requests and tokens per minute, and requests in flight.

A request is in up to four scopes (`rules`). All of their limits must admit it, or none of them is used.

Requests and tokens are limited by the generic cell rate algorithm (`gcra`). Its states are in cells of the
shared memory, one per scope, and a decision is one critical section. Tokens are reserved by the estimate of
the request; the difference is settled when its usage is known. Requests in flight are gauges of that memory,
a number per scope and worker: those of a killed worker vanish with it.

While the memory is locked by a stopped process, or where it is full, each worker keeps to its share of a
limit by itself. A settlement that finds it locked is dropped: what it gives back returns within minutes.
"""

from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

from sanic_proxy.config.rules import ScopeLimits
from sanic_proxy.governance import gcra
from sanic_proxy.governance.gcra import Rate, State
from sanic_proxy.governance.rules import Scope, ScopedLimits
from sanic_proxy.state_store.shared import CELL_VALUES, KEPT_UNTIL, SharedMemory, key_of

RateKind = Literal["requests", "tokens", "concurrent"]
MINUTE_S = 60.0
# When one of the requests in flight may have ended; nobody knows.
RETRY_CONCURRENT_S = 1.0
MAX_SCOPES = 4096
# Where in a cell the state of a rate begins: `due`, `seen`, and the limit in whose intervals they count.
_REQUESTS, _TOKENS = 1, 4


class Standing(NamedTuple):
    """How a limit stands, with the present request counted if it was admitted.

    All of `limit` is free again after `reset_s`.
    """

    scope: Scope
    limit: int
    remaining: int
    reset_s: float


class _Check(NamedTuple):
    """What one rate of one scope has decided. `workers` share the limit."""

    scope: Scope
    rate: Rate
    wait_s: float
    used_s: float
    workers: int

    @property
    def limit(self) -> int:
        return round(self.rate.limit * self.workers)

    @property
    def standing(self) -> Standing:
        remaining = self.rate.remaining(self.used_s) * self.workers
        return Standing(self.scope, self.limit, remaining, self.used_s)


def _tightest(checks: Iterable[_Check]) -> Standing | None:
    """The limit with the smallest part left."""
    standings = [check.standing for check in checks]
    return min(standings, key=lambda one: one.remaining / one.limit, default=None)


class _Standings:
    """How the limits of a request stand: the tightest of each kind, computed when it is read."""

    __slots__ = ("_requests", "_tokens")

    def __init__(self, requests: Sequence[_Check], tokens: Sequence[_Check]) -> None:
        self._requests = requests
        self._tokens = tokens

    @property
    def requests(self) -> Standing | None:
        return _tightest(self._requests)

    @property
    def tokens(self) -> Standing | None:
        return _tightest(self._tokens)


class RateRefusal(_Standings):
    """Which limit does not admit a request, and in how many seconds it will."""

    __slots__ = ("kind", "limit", "scope", "wait_s")

    def __init__(
        self,
        scope: Scope,
        kind: RateKind,
        limit: int,
        wait_s: float,
        checks: tuple[Sequence[_Check], Sequence[_Check]] = ((), ()),
    ) -> None:
        super().__init__(*checks)
        self.scope = scope
        self.kind = kind
        self.limit = limit
        self.wait_s = wait_s


class Admission(_Standings):
    """An admitted request. `settle` is to be called when it ends; further calls do nothing."""

    __slots__ = ("_places", "_rates", "_reserved", "_used")

    def __init__(
        self,
        rates: Rates,
        used: Sequence[_Limited],
        places: Sequence[_Place],
        reserved: int,
        checks: tuple[Sequence[_Check], Sequence[_Check]],
    ) -> None:
        super().__init__(*checks)
        self._rates: Rates | None = rates
        self._used = used
        self._places = places
        self._reserved = reserved

    def settle(self, tokens: int | None) -> None:
        """The request has ended and has used `tokens`; None: not known, as many as were reserved."""
        rates, self._rates = self._rates, None
        if rates is not None:
            if self._places:
                rates.leave(self._places)
            if self._used and tokens is not None and tokens != self._reserved:
                rates.settle(self._used, tokens - self._reserved)


class _Place(NamedTuple):
    """Where a request in flight is counted: the key of its scope, and the gauge, if there was one."""

    key: int
    column: int | None


class _Limited:
    """The limits of one scope, as they are needed for each request. `own` is its cell in this worker."""

    __slots__ = ("column", "concurrent", "key", "limits", "own", "own_rates", "rates", "scope")

    def __init__(self, one: ScopedLimits, workers: int, own: list[float]) -> None:
        self.scope = one.scope
        self.limits = one.limits
        self.key = key_of("rates", one.scope.kind, one.scope.name)
        self.concurrent = one.limits.concurrent
        self.rates = _rates_of(one.limits, 1)
        self.own = own
        self.own_rates = _rates_of(one.limits, workers)
        self.column: int | None = None


def _rates_of(limits: ScopeLimits, workers: int) -> tuple[Rate | None, Rate | None]:
    """The rates of requests and of tokens, for one of `workers` that share them."""
    requests = tokens = None
    if limits.rpm is not None:
        burst = limits.burst or limits.rpm
        requests = Rate(limits.rpm / workers, max(1.0, burst / workers), MINUTE_S)
    if limits.tpm is not None:
        tokens = Rate(limits.tpm / workers, max(1.0, limits.tpm / workers), MINUTE_S)
    return requests, tokens


class _Cell(NamedTuple):
    """The numbers of a scope, and its rates there."""

    values: list[float] | memoryview[float]
    requests: Rate | None
    tokens: Rate | None
    workers: int


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


class Rates:
    """See the module. `workers` share the limits where memory cannot be shared. `clock` is monotonic."""

    def __init__(
        self, memory: SharedMemory, *, workers: int = 1, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._memory = memory
        self._workers = workers
        self._clock = clock
        self._known: OrderedDict[Scope, _Limited] = OrderedDict()
        self._own_in_flight: Counter[int] = Counter()

    def admit(self, scoped: Iterable[ScopedLimits], tokens: int) -> Admission | RateRefusal:
        """Decide about a request that uses `tokens` by its estimate."""
        limited = [self._limited(one) for one in scoped]
        counted = [one for one in limited if one.concurrent is not None]
        for one in counted:
            if one.column is None:
                one.column = self._memory.gauges.column(one.key)
        rated = [one for one in limited if one.rates != (None, None)]
        with self._memory.lock as is_locked:
            now = self._clock()
            requests: list[_Check] = []
            tokens_left: list[_Check] = []
            writes = []
            for one in rated:
                cell = self._cell(one, now, is_locked=is_locked)
                for at, rate, units, checks in (
                    (_REQUESTS, cell.requests, 1, requests),
                    (_TOKENS, cell.tokens, tokens, tokens_left),
                ):
                    if rate is not None:
                        state, wait_s, used_s = gcra.admit(_state(cell.values, at, rate), rate, now, units)
                        checks.append(_Check(one.scope, rate, wait_s, used_s, cell.workers))
                        writes.append((cell.values, at, rate, state))
            refusal = self._refusal(counted, requests, tokens_left)
            if refusal is not None:
                return refusal
            for write in writes:
                _write(*write)
            places = [_Place(one.key, one.column) for one in counted]
            if places:
                self._count(places, 1)
        used = [one for one in rated if one.limits.tpm is not None]
        return Admission(self, used, places, tokens, (requests, tokens_left))

    def settle(self, used: Iterable[_Limited], more: int) -> None:
        """Use `more` tokens than were reserved, or give back the rest (below 0)."""
        with self._memory.lock as is_locked:
            now = self._clock()
            for one in used:
                values, _, rate, _ = self._cell(one, now, is_locked=is_locked)
                if rate is not None:
                    state = gcra.adjust(_state(values, _TOKENS, rate), rate, now, more)
                    _write(values, _TOKENS, rate, state)

    def leave(self, places: Iterable[_Place]) -> None:
        """A request in flight has ended."""
        self._count(places, -1)

    def _limited(self, one: ScopedLimits) -> _Limited:
        """What is known of a scope; its limits may have changed."""
        found = self._known.get(one.scope)
        if found is None or found.limits is not one.limits:
            own = [0.0] * CELL_VALUES if found is None else found.own
            found = self._known[one.scope] = _Limited(one, self._workers, own)
            if len(self._known) > MAX_SCOPES:
                self._known.popitem(last=False)
        return found

    def _cell(self, one: _Limited, now: float, *, is_locked: bool) -> _Cell:
        values = self._memory.cells.find(one.key, now) if is_locked else None
        if values is None:
            return _Cell(one.own, *one.own_rates, self._workers)
        if values[KEPT_UNTIL] <= now:
            # Taken at once: the next scope of this request must not get the same place.
            values[KEPT_UNTIL] = now + MINUTE_S
        return _Cell(values, *one.rates, 1)

    def _refusal(
        self, counted: Iterable[_Limited], requests: Sequence[_Check], tokens: Sequence[_Check]
    ) -> RateRefusal | None:
        """The refusal with the longest wait; None if all limits admit the request."""
        longest_s = 0.0
        found: tuple[Scope, RateKind, int] | None = None
        checked: tuple[tuple[RateKind, Sequence[_Check]], ...] = (("requests", requests), ("tokens", tokens))
        for kind, checks in checked:
            for check in checks:
                if check.wait_s > longest_s:
                    longest_s, found = check.wait_s, (check.scope, kind, check.limit)
        for one in counted:
            if longest_s < RETRY_CONCURRENT_S and self._is_full(one):
                longest_s, found = RETRY_CONCURRENT_S, (one.scope, "concurrent", one.concurrent or 0)
        return None if found is None else RateRefusal(*found, longest_s, (requests, tokens))

    def _is_full(self, one: _Limited) -> bool:
        """Whether the scope has as many requests in flight as it may."""
        limit = one.concurrent or 0
        if one.column is None:
            return self._own_in_flight[one.key] >= math.ceil(limit / self._workers)
        return self._memory.gauges.total(one.column) >= limit

    def _count(self, places: Iterable[_Place], change: int) -> None:
        own = self._memory.gauges.own()
        for key, column in places:
            if column is None:
                self._own_in_flight[key] += change
                if not self._own_in_flight[key]:
                    del self._own_in_flight[key]
            elif own is not None:
                own[column] += change
