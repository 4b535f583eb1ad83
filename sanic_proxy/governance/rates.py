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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple

from sanic_proxy.governance import gcra
from sanic_proxy.governance.gcra import Decision, Rate, State
from sanic_proxy.governance.rules import Scope, ScopedLimits
from sanic_proxy.state_store.shared import CELL_VALUES, KEPT_UNTIL, SharedMemory, key_of

RateKind = Literal["requests", "tokens", "concurrent"]
MINUTE_S = 60.0
# When one of the requests in flight may have ended; nobody knows.
RETRY_CONCURRENT_S = 1.0
MAX_OWN_CELLS = 4096
# Where in a cell the state of a rate begins: `due`, `seen`, and the limit in whose intervals they count.
_PLACES: dict[RateKind, int] = {"requests": 1, "tokens": 4}


class Standing(NamedTuple):
    """How the tightest limit of one kind stands, with the present request counted if it was admitted.

    All of `limit` is free again after `reset_s`.
    """

    scope: Scope
    limit: int
    remaining: int
    reset_s: float


@dataclass(frozen=True, slots=True)
class RateRefusal:
    """Which limit does not admit a request, and in how many seconds it will."""

    scope: Scope
    kind: RateKind
    limit: int
    wait_s: float
    requests: Standing | None = None
    tokens: Standing | None = None


class Admission:
    """An admitted request. `settle` is to be called when it ends; further calls do nothing."""

    __slots__ = ("_entered", "_limited", "_rates", "_reserved", "requests", "tokens")

    def __init__(
        self,
        rates: Rates,
        limited: Sequence[ScopedLimits],
        entered: Sequence[_Place],
        reserved: int,
        standings: tuple[Standing | None, Standing | None],
    ) -> None:
        self._rates: Rates | None = rates
        self._limited = limited
        self._entered = entered
        self._reserved = reserved
        self.requests, self.tokens = standings

    def settle(self, tokens: int | None) -> None:
        """The request has ended and has used `tokens`; None: not known, as many as were reserved."""
        rates, self._rates = self._rates, None
        if rates is not None:
            rates.leave(self._entered)
            if tokens is not None and tokens != self._reserved:
                rates.settle(self._limited, tokens - self._reserved)


class _Place(NamedTuple):
    """Where a request in flight is counted: the key of its scope, and the gauge, if there is one."""

    key: int
    column: int | None


class _Cell(NamedTuple):
    """The numbers of a scope; `workers` share its limits: 1 where all workers see the same numbers."""

    values: list[float] | memoryview[float]
    workers: int

    def rate(self, kind: RateKind, limited: ScopedLimits) -> Rate | None:
        limits = limited.limits
        if kind == "requests":
            limit, burst = limits.rpm, limits.burst or limits.rpm
        else:
            limit = burst = limits.tpm
        if limit is None or burst is None:
            return None
        return Rate(limit / self.workers, max(1.0, burst / self.workers), MINUTE_S)

    def state(self, kind: RateKind, rate: Rate) -> State:
        """The state, with what was used by the units of another limit, if that has been changed since."""
        at = _PLACES[kind]
        due, seen, limit = self.values[at : at + 3]
        if limit and limit != rate.limit:
            due = seen + (due - seen) * limit / rate.limit
        return State(due, seen)

    def write(self, kind: RateKind, rate: Rate, state: State) -> None:
        at = _PLACES[kind]
        self.values[at], self.values[at + 1], self.values[at + 2] = state.due, state.seen, rate.limit
        self.values[KEPT_UNTIL] = max(self.values[KEPT_UNTIL], state.due + MINUTE_S, state.seen + MINUTE_S)


class _Check(NamedTuple):
    """What one rate of one scope decides."""

    scope: Scope
    kind: RateKind
    cell: _Cell
    rate: Rate
    decision: Decision

    @property
    def standing(self) -> Standing:
        shared, decision = self.cell.workers, self.decision
        limit = round(self.rate.limit * shared)
        return Standing(self.scope, limit, decision.remaining * shared, decision.reset_s)

    @property
    def refusal(self) -> RateRefusal | None:
        if self.decision.is_admitted:
            return None
        return RateRefusal(self.scope, self.kind, self.standing.limit, self.decision.wait_s)


class Rates:
    """See the module. `workers` share the limits where memory cannot be shared. `clock` is monotonic."""

    def __init__(
        self, memory: SharedMemory, *, workers: int = 1, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._memory = memory
        self._workers = workers
        self._clock = clock
        self._own_cells: OrderedDict[int, list[float]] = OrderedDict()
        self._own_in_flight: Counter[int] = Counter()

    def admit(self, scoped: Iterable[ScopedLimits], tokens: int) -> Admission | RateRefusal:
        """Decide about a request that uses `tokens` by its estimate."""
        used: dict[RateKind, int] = {"requests": 1, "tokens": tokens}
        limited = [one for one in scoped if _is_limited(one)]
        places = [self._place(one) for one in limited if one.limits.concurrent is not None]
        with self._memory.lock as is_locked:
            now = self._clock()
            checks = list(self._checks(limited, now, used, is_locked=is_locked))
            standings = _tightest(checks, "requests"), _tightest(checks, "tokens")
            refusals = [refusal for check in checks if (refusal := check.refusal) is not None]
            refusals += self._crowded(limited, places)
            if refusals:
                worst = max(refusals, key=lambda refusal: refusal.wait_s)
                return replace(worst, requests=standings[0], tokens=standings[1])
            for check in checks:
                check.cell.write(check.kind, check.rate, check.decision.state)
            self._count(places, 1)
        return Admission(self, limited, places, tokens, standings)

    def settle(self, limited: Iterable[ScopedLimits], more: int) -> None:
        """Use `more` tokens than were reserved, or give back the rest (below 0)."""
        with self._memory.lock as is_locked:
            now = self._clock()
            for one in limited:
                if one.limits.tpm is not None:
                    cell = self._cell(one.scope, now, is_locked=is_locked)
                    if (rate := cell.rate("tokens", one)) is not None:
                        state = gcra.adjust(cell.state("tokens", rate), rate, now, more)
                        cell.write("tokens", rate, state)

    def leave(self, places: Iterable[_Place]) -> None:
        """A request in flight has ended."""
        self._count(places, -1)

    def _checks(
        self, limited: Iterable[ScopedLimits], now: float, used: Mapping[RateKind, int], *, is_locked: bool
    ) -> Iterable[_Check]:
        for one in limited:
            cell = self._cell(one.scope, now, is_locked=is_locked)
            for kind, units in used.items():
                if (rate := cell.rate(kind, one)) is not None:
                    decision = gcra.admit(cell.state(kind, rate), rate, now, units)
                    yield _Check(one.scope, kind, cell, rate, decision)

    def _cell(self, scope: Scope, now: float, *, is_locked: bool) -> _Cell:
        key = _key(scope)
        values = self._memory.cells.find(key, now) if is_locked else None
        if values is not None:
            # Taken at once: the next scope of this request must not get the same place.
            values[KEPT_UNTIL] = max(values[KEPT_UNTIL], now + MINUTE_S)
            return _Cell(values, 1)
        own = self._own_cells.setdefault(key, [0.0] * CELL_VALUES)
        self._own_cells.move_to_end(key)
        if len(self._own_cells) > MAX_OWN_CELLS:
            self._own_cells.popitem(last=False)
        return _Cell(own, self._workers)

    def _place(self, one: ScopedLimits) -> _Place:
        key = _key(one.scope)
        return _Place(key, self._memory.gauges.column(key))

    def _crowded(self, limited: Iterable[ScopedLimits], places: Iterable[_Place]) -> list[RateRefusal]:
        """The scopes that have as many requests in flight as they may."""
        with_limit = (one for one in limited if one.limits.concurrent is not None)
        refusals = []
        for one, place in zip(with_limit, places, strict=True):
            limit = one.limits.concurrent or 0
            if place.column is None:
                is_full = self._own_in_flight[place.key] >= math.ceil(limit / self._workers)
            else:
                is_full = self._memory.gauges.total(place.column) >= limit
            if is_full:
                refusals.append(RateRefusal(one.scope, "concurrent", limit, RETRY_CONCURRENT_S))
        return refusals

    def _count(self, places: Iterable[_Place], change: int) -> None:
        for place in places:
            if place.column is None:
                self._own_in_flight[place.key] += change
                if not self._own_in_flight[place.key]:
                    del self._own_in_flight[place.key]
            elif (own := self._memory.gauges.own()) is not None:
                own[place.column] += change


@lru_cache(maxsize=4096)
def _key(scope: Scope) -> int:
    return key_of("rates", scope.kind, scope.name)


def _is_limited(one: ScopedLimits) -> bool:
    limits = one.limits
    return not (limits.rpm is None and limits.tpm is None and limits.concurrent is None)


def _tightest(checks: Iterable[_Check], kind: RateKind) -> Standing | None:
    """The limit with the smallest part left."""
    standings = [check.standing for check in checks if check.kind == kind]
    return min(standings, key=lambda one: one.remaining / one.limit, default=None)
