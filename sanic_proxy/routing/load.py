"""What one target of a `[models.NAME]` table has in flight, and its limits, counted over all workers.

A target without limits whose model does not compare loads has no `TargetLoad`, and costs nothing. Without a
limit nothing is locked: a worker writes its own count of requests in flight, and reads the sum.

With limits a request is admitted in a critical section of the shared memory, so that they are exact. Far from
a limit that would cost each request more than all the rest of routing, so a worker takes some requests and
tokens at once, an eighth of what is left for all workers together, and admits by them on its own. What it has
not used it gives back after five seconds, when a bucket of the window ends, or when it runs out of either;
near a limit the eighth is nothing, and each request is counted in the critical section. Requests in flight
need no such lease: while the sum is further below the limit than there are workers, they cannot exceed it
together.

A worker that cannot get the lock, or finds the memory full, keeps to its share of each limit. Requests in
flight of a worker that was killed vanish with it. Times are monotonic.
"""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Callable, Sequence
from typing import TypeAlias

from sanic_proxy.config.targets import TargetSettings
from sanic_proxy.errors import RateLimited
from sanic_proxy.json_types import JsonMapping
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.openai.usage import whole
from sanic_proxy.routing import window
from sanic_proxy.state_store.shared import KEPT_UNTIL, Gauge, SharedMemory, key_of

# When a slot may be free again nobody knows; a request in the proxy looks for it so often, a client later.
POLL_S = 0.05
# Clients give up on a longer wait. What a window takes beyond a minute, a request waits in the proxy.
MAX_RETRY_S = 60.0
# How long a worker may admit on its own by what it has taken, and the part of what is left that all take.
LEASE_S = 5.0
LEASED_PART = 8
# How soon a worker that keeps its count to itself looks for a shared one again.
RETRY_GAUGE_S = 1.0
# In place of a limit that there is not.
MANY = 2**62

Later: TypeAlias = Callable[[float, Callable[[], None]], object]


class _Rate:
    """A limit per minute.

    `share` and `own` are the worker's where nothing can be shared. `leased` is what has been taken from it at
    `leased_at`.
    """

    __slots__ = ("_cell", "_values", "_window", "leased", "leased_at", "limit", "own", "share", "what")

    def __init__(
        self, what: str, limit: int, workers: int, name: Sequence[str], memory: SharedMemory
    ) -> None:
        self.what = what
        self.limit = limit
        self.share = math.ceil(limit / workers)
        self.own = array("d", bytes(8 * window.SIZE))
        self.leased = 0
        self.leased_at = 0.0
        self._cell = memory.cells.cell(key_of(what, *name))
        self._values: memoryview[float] | None = None
        self._window: window.Window = self.own

    def shared(self, now: float, *, is_locked: bool) -> tuple[window.Window, int]:
        """The window that counts, and the limit in it. The shared one is kept for a minute from now."""
        values = self._cell.values(now) if is_locked else None
        if values is None:
            return self.own, self.share
        values[KEPT_UNTIL] = now + window.LENGTH_S
        if values is not self._values:
            self._values, self._window = values, values[KEPT_UNTIL + 1 :]
        return self._window, self.limit


# Each limit per minute with the window that counts, the limit in it, and its amount.
Counts: TypeAlias = "list[tuple[_Rate, window.Window, int, float]]"


class TargetLoad:
    """Requests in flight, and requests and tokens of the last minute.

    `name` tells the target from all others, in every worker that shares `memory`; `workers` is their number.
    `clock` has the time at which answers end. `later` is an event loop's `call_later`: without it nothing is
    leased.
    """

    __slots__ = (
        "_alone",
        "_clock",
        "_concurrent",
        "_is_due",
        "_is_limited",
        "_key",
        "_later",
        "_left",
        "_look_at",
        "_margin",
        "_memory",
        "_rates",
        "_requests",
        "_share",
        "_tokens",
        "_tokens_left",
        "_until",
        "_workers",
        "gauge",
        "listeners",
    )

    def __init__(
        self,
        target: TargetSettings,
        workers: int = 1,
        memory: SharedMemory | None = None,
        name: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
        later: Later | None = None,
    ) -> None:
        self._clock = clock
        self._later = later
        self._workers = workers
        self._memory = memory or SharedMemory()
        limits = {"requests": target.rpm, "tokens": target.tpm}
        rates = {
            what: _Rate(what, limit, workers, name, self._memory)
            for what, limit in limits.items()
            if limit is not None
        }
        self._requests, self._tokens = rates.get("requests"), rates.get("tokens")
        self._rates = tuple(rates.values())
        self._concurrent = MANY if target.concurrent is None else target.concurrent
        self._share = MANY if target.concurrent is None else math.ceil(target.concurrent / workers)
        self._is_limited = not (target.rpm is target.tpm is target.concurrent is None)
        self._key = key_of("in_flight", *name)
        # What is in flight: `_alone` until the shared gauge is found.
        self.gauge = self._alone = Gauge()
        self._look_at = -math.inf
        self._until = -math.inf  # the end of what is leased
        self._left = self._tokens_left = 0  # of it
        self._margin = 0  # from this number in flight on each request is counted in the critical section
        self._is_due = False  # whether it will be given back by a timer
        # To be called when a request of this worker has ended.
        self.listeners: list[Callable[[], None]] = []

    @property
    def in_flight(self) -> int:
        """Requests in flight, in all workers."""
        if self.gauge is self._alone:
            self._find_gauge(self._clock())
        return self.gauge.total()

    def take(self, now: float, label: str) -> RateLimited | None:
        """Count a request that is about to be sent, or return why the target cannot take it now."""
        if now < self._until:
            gauge = self.gauge
            count = gauge.count
            cell = gauge.cell
            if (count if cell is None else gauge.total()) < self._margin:
                gauge.count = count = count + 1
                if cell is not None:
                    cell[0] = count
                self._left = left = self._left - 1
                if not left:
                    self._until = -math.inf
                return None
        return self._take_exactly(now, label)

    def refusal(self, now: float, label: str, ahead: int = 0) -> RateLimited | None:
        """Why the target cannot take a request now, of which `ahead` others come first; None if it can."""
        if not self._is_limited:
            return None
        with self._memory.lock as is_locked:
            return self._refusal(now, label, ahead, self._settled(now, is_locked=is_locked))

    def begin(self, now: float) -> None:
        """A request is sent to the target whatever its limits."""
        self._count(1)
        if self._requests is not None:
            with self._memory.lock as is_locked:
                window.add(self._requests.shared(now, is_locked=is_locked)[0], now, 1)

    def end(self) -> None:
        """A request has ended without an answer."""
        self.record_answer(None)

    def observe(self, record: RequestRecord) -> None:
        """An answer has ended (an observer of its record)."""
        self.record_answer(record.usage)

    def record_answer(self, usage: JsonMapping | None) -> None:
        """A request has ended. The tokens of its answer count now."""
        gauge = self.gauge
        gauge.count = count = gauge.count - 1
        if (cell := gauge.cell) is not None:
            cell[0] = count
        if usage is not None:
            tokens, left = usage.get("total_tokens"), self._tokens_left
            if type(tokens) is int and 0 < (rest := left - tokens) <= left:
                self._tokens_left = rest
            elif self._tokens is not None and (used := whole(tokens)):
                self._tokens_left = left - used
                if left <= used:
                    self._give_back()
        if self.listeners:
            for listener in self.listeners:
                listener()

    def _count(self, change: int) -> None:
        gauge = self.gauge
        gauge.count += change
        if gauge.cell is not None:
            gauge.cell[0] = gauge.count

    def _take_exactly(self, now: float, label: str) -> RateLimited | None:
        if self.gauge is self._alone:
            self._find_gauge(now)
        if not self._is_limited:
            self._count(1)
            return None
        with self._memory.lock as is_locked:
            counts = self._settled(now, is_locked=is_locked)
            refusal = self._refusal(now, label, 0, counts)
            if refusal is None:
                self._count(1)
                self._lease(now, counts, may_lease=is_locked and self._later is not None)
            return refusal

    def _settled(self, now: float, *, is_locked: bool) -> Counts:
        """The limits per minute, after what is left of the lease was given back and the tokens that were used
        have been counted.
        """
        self._until = -math.inf
        counts = []
        for rate in self._rates:
            counted, limit = rate.shared(now, is_locked=is_locked)
            if rate is self._requests:
                amount = -self._left if rate.leased else 0
                self._left = 0
            else:
                amount = rate.leased - self._tokens_left
                self._tokens_left = 0
            rate.leased = 0
            counts.append((rate, counted, limit, window.settled(counted, now, amount, rate.leased_at)))
        return counts

    def _refusal(self, now: float, label: str, ahead: int, counts: Counts) -> RateLimited | None:
        limit = self._share if self.gauge is self._alone else self._concurrent
        if self.gauge.total() + ahead >= limit:
            return _refused(label, "requests in flight", POLL_S)
        latest, what = now, ""
        for rate, counted, most, used in counts:
            others = ahead if rate is self._requests else 0
            if used > most - 1 - others and (at := window.free_at(counted, now, most, others)) > latest:
                latest, what = at, rate.what
        return _refused(label, f"{what} per minute", latest - now) if what else None

    def _lease(self, now: float, counts: Counts, *, may_lease: bool) -> None:
        """Count one request, and take some more of what is left."""
        self._left = self._tokens_left = MANY
        part = LEASED_PART * self._workers
        for rate, counted, most, used in counts:
            rate.leased = leased = int(most - used) // part if may_lease else 0
            rate.leased_at = now
            if rate is self._requests:
                self._left = leased
                window.add(counted, now, 1 + leased)
            else:
                self._tokens_left = leased
        # Each has at least one more, and what is in flight is counted where all workers see it.
        if may_lease and self._left > 0 and self._tokens_left > 0 and self.gauge is not self._alone:
            slots = self._memory.used_slots
            self._margin = self._concurrent - 2 * (slots if slots > self._workers else self._workers)
            until, bucket_ends = now + LEASE_S, (now // window.BUCKET_S + 1) * window.BUCKET_S
            self._until = until if until < bucket_ends else bucket_ends
        if may_lease and not self._is_due and self._later is not None:
            self._is_due = True
            self._later(LEASE_S, self._on_timer)

    def _on_timer(self) -> None:
        self._is_due = False
        self._give_back()

    def _give_back(self) -> None:
        now = self._clock()
        with self._memory.lock as is_locked:
            self._settled(now, is_locked=is_locked)

    def _find_gauge(self, now: float) -> None:
        """Count in shared memory from now on, if there is room and nothing is counted elsewhere."""
        if self._alone.count or now < self._look_at:
            return
        self._look_at = now + RETRY_GAUGE_S
        self.gauge = self._memory.gauges.gauge(self._key) or self._alone


def _refused(label: str, what: str, wait_s: float) -> RateLimited:
    wait_s = min(wait_s, MAX_RETRY_S)
    retry_after_s = max(1, math.ceil(wait_s))
    return RateLimited(
        f"The proxy's own limit of {what} to {label} is reached; retry in {retry_after_s} s",
        retry_after_s=retry_after_s,
        wait_s=wait_s,
    )
