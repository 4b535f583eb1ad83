"""What one target of a `[models.NAME]` table has in flight, and its limits, counted over all workers.

A target without limits whose model does not compare loads has no `TargetLoad`, and costs nothing. Without a
limit nothing is locked: a worker writes its own count of requests in flight, and reads the sum.

With limits a request is admitted in a critical section of the shared memory, so that they are exact. Far from
a limit that would cost each request more than all the rest of routing, so a worker takes some requests and
tokens at once, an eighth of what is left for all workers together, and admits by them on its own. What it has
not used it gives back after two seconds, when a bucket of the window ends, or when it runs out of either;
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
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.openai.usage import whole
from sanic_proxy.routing import window
from sanic_proxy.state_store.shared import KEPT_UNTIL, SharedMemory, key_of

# When a slot may be free again nobody knows; a request in the proxy looks for it so often, a client later.
POLL_S = 0.05
# Clients give up on a longer wait. What a window takes beyond a minute, a request waits in the proxy.
MAX_RETRY_S = 60.0
# How long a worker may admit on its own by what it has taken, and the part of what is left that all take.
LEASE_S = 2.0
LEASED_PART = 8
# How soon a worker that keeps its count to itself looks for a shared one again.
RETRY_COLUMN_S = 1.0

Later: TypeAlias = Callable[[float, Callable[[], None]], object]


class _Rate:
    """A limit per minute.

    `share` and `own` are the worker's where nothing can be shared. `free` is what is left of its lease
    `leased`, taken at `leased_at`.
    """

    __slots__ = ("free", "key", "leased", "leased_at", "limit", "own", "share", "what")

    def __init__(self, what: str, limit: int, workers: int, name: Sequence[str]) -> None:
        self.what = what
        self.limit = limit
        self.share = math.ceil(limit / workers)
        self.key = key_of(what, *name)
        self.own = array("d", bytes(8 * window.SIZE))
        self.leased = self.free = 0
        self.leased_at = 0.0

    def shared(self, memory: SharedMemory, now: float, *, is_locked: bool) -> tuple[window.Window, int]:
        """The window that counts, and the limit in it. The shared one is kept for a minute from now."""
        cell = memory.cells.find(self.key, now) if is_locked else None
        if cell is None:
            return self.own, self.share
        cell[KEPT_UNTIL] = now + window.LENGTH_S
        return cell[KEPT_UNTIL + 1 :], self.limit


# Each limit per minute with the window that counts, and the limit in it.
Counts: TypeAlias = "list[tuple[_Rate, window.Window, int]]"


class TargetLoad:
    """Requests in flight, and requests and tokens of the last minute.

    `name` tells the target from all others, in every worker that shares `memory`; `workers` is their number.
    `clock` has the time at which answers end. `later` is an event loop's `call_later`: without it nothing is
    leased.
    """

    __slots__ = (
        "_clock",
        "_column",
        "_concurrent",
        "_is_alone",
        "_is_due",
        "_is_limited",
        "_key",
        "_later",
        "_look_at",
        "_margin",
        "_memory",
        "_own",
        "_rates",
        "_requests",
        "_share",
        "_tokens",
        "_unshared",
        "_until",
        "_workers",
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
        self._requests = None if target.rpm is None else _Rate("requests", target.rpm, workers, name)
        self._tokens = None if target.tpm is None else _Rate("tokens", target.tpm, workers, name)
        self._rates = tuple(rate for rate in (self._requests, self._tokens) if rate is not None)
        self._concurrent = math.inf if target.concurrent is None else target.concurrent
        self._share = math.inf if target.concurrent is None else math.ceil(target.concurrent / workers)
        self._is_limited = not (target.rpm is target.tpm is target.concurrent is None)
        self._key = key_of("in_flight", *name)
        self._unshared = 0
        self._column: int | None = None
        self._own: memoryview[int] | None = None
        self._look_at = -math.inf
        self._until = -math.inf  # the end of what is leased
        self._is_alone = False  # whether all that is in flight is this worker's
        self._is_due = False  # whether it will be given back by a timer
        self._margin = 0.0  # from this number in flight on each request is counted in the critical section
        # To be called when a request of this worker has ended.
        self.listeners: list[Callable[[], None]] = []

    @property
    def in_flight(self) -> int:
        """Requests in flight, in all workers."""
        if self._column is None:
            self._find_column(self._clock())
        return self._unshared if self._column is None else self._memory.gauges.total(self._column)

    def take(self, now: float, label: str) -> RateLimited | None:
        """Count a request that is about to be sent, or return why the target cannot take it now."""
        if now < self._until and (own := self._own) is not None and (column := self._column) is not None:
            requests, tokens = self._requests, self._tokens
            in_flight = own[column] if self._is_alone else self._memory.gauges.total(column)
            if (
                (requests is None or requests.free > 0)
                and (tokens is None or tokens.free > 0)
                and in_flight < self._margin
            ):
                if requests is not None:
                    requests.free -= 1
                own[column] += 1
                return None
        return self._take_exactly(now, label)

    def refusal(self, now: float, label: str, ahead: int = 0) -> RateLimited | None:
        """Why the target cannot take a request now, of which `ahead` others come first; None if it can."""
        if not self._is_limited:
            return None
        with self._memory.lock as is_locked:
            counts = self._counts(now, is_locked=is_locked)
            self._settle(now, counts)
            return self._refusal(now, label, ahead, counts)

    def begin(self, now: float) -> None:
        """A request is sent to the target whatever its limits."""
        self._count(1)
        if self._requests is not None:
            with self._memory.lock as is_locked:
                counted, _ = self._requests.shared(self._memory, now, is_locked=is_locked)
                window.add(counted, now, 1)

    def end(self) -> None:
        """A request has ended, in whatever way."""
        self._count(-1)
        for listener in self.listeners:
            listener()

    def observe(self, record: RequestRecord) -> None:
        """An answer has ended (an observer of its record). Its tokens count now."""
        if self._own is None or self._column is None:
            self._unshared -= 1
        else:
            self._own[self._column] -= 1
        usage = record.usage
        if (tokens := self._tokens) is not None and usage and (count := whole(usage.get("total_tokens"))):
            tokens.free -= count
            if tokens.free <= 0:
                self._give_back()
        if self.listeners:
            for listener in self.listeners:
                listener()

    def _take_exactly(self, now: float, label: str) -> RateLimited | None:
        if self._own is None:
            self._find_column(now)
        if not self._is_limited:
            self._count(1)
            return None
        with self._memory.lock as is_locked:
            counts = self._counts(now, is_locked=is_locked)
            self._settle(now, counts)
            refusal = self._refusal(now, label, 0, counts)
            if refusal is None:
                self._count(1)
                self._lease(now, counts, may_lease=is_locked and self._later is not None)
            return refusal

    def _counts(self, now: float, *, is_locked: bool) -> Counts:
        """The windows of the limits, and the limits in them."""
        return [(rate, *rate.shared(self._memory, now, is_locked=is_locked)) for rate in self._rates]

    def _refusal(self, now: float, label: str, ahead: int, counts: Counts) -> RateLimited | None:
        in_flight, limit = (
            (self._unshared, self._share) if self._column is None else (self.in_flight, self._concurrent)
        )
        if in_flight + ahead >= limit:
            return _refused(label, "requests in flight", POLL_S)
        latest, what = now, ""
        for rate, counted, most in counts:
            at = window.free_at(counted, now, most, ahead if rate is self._requests else 0)
            if at > latest:
                latest, what = at, rate.what
        return _refused(label, f"{what} per minute", latest - now) if what else None

    def _lease(self, now: float, counts: Counts, *, may_lease: bool) -> None:
        """Count one request, and take some more of what is left."""
        for rate, counted, most in counts:
            left = most - window.used(counted, now)
            rate.leased = rate.free = int(left) // (LEASED_PART * self._workers) if may_lease else 0
            rate.leased_at = now
            if rate is self._requests:
                window.add(counted, now, 1 + rate.leased)
        if may_lease:
            self._margin = self._concurrent - 2 * max(self._workers, self._memory.used_slots)
            self._until = min(now + LEASE_S, (now // window.BUCKET_S + 1) * window.BUCKET_S)
            if not self._is_due and self._later is not None:
                self._is_due = True
                self._later(LEASE_S, self._on_timer)

    def _on_timer(self) -> None:
        self._is_due = False
        self._give_back()

    def _give_back(self) -> None:
        now = self._clock()
        with self._memory.lock as is_locked:
            self._settle(now, self._counts(now, is_locked=is_locked))

    def _settle(self, now: float, counts: Counts) -> None:
        """Give back the requests that were not sent, and count the tokens that were used."""
        self._until = -math.inf
        for rate, counted, _ in counts:
            if rate.free == rate.leased == 0:
                continue
            if rate is self._requests:
                window.take_back(counted, rate.leased_at, rate.free)
            else:
                window.add(counted, now, rate.leased - rate.free)
            rate.leased = rate.free = 0

    def _count(self, change: int) -> None:
        if self._own is None or self._column is None:
            self._unshared += change
        else:
            self._own[self._column] += change

    def _find_column(self, now: float) -> None:
        """Count in shared memory from now on, if there is room and nothing is counted elsewhere."""
        if self._unshared or now < self._look_at:
            return
        self._look_at = now + RETRY_COLUMN_S
        self._column = self._memory.gauges.column(self._key)
        self._own = None if self._column is None else self._memory.gauges.own()
        if self._own is None:
            self._column = None
        self._is_alone = self._memory.is_private


def _refused(label: str, what: str, wait_s: float) -> RateLimited:
    wait_s = min(wait_s, MAX_RETRY_S)
    retry_after_s = max(1, math.ceil(wait_s))
    return RateLimited(
        f"The proxy's own limit of {what} to {label} is reached; retry in {retry_after_s} s",
        retry_after_s=retry_after_s,
        wait_s=wait_s,
    )
