"""What one target of a `[models.NAME]` table has in flight, and its limits, counted over all workers.

A target without limits whose model does not compare loads has no `TargetLoad`, and costs nothing. Without a
limit nothing is locked: a worker writes its own count of requests in flight, and reads the sum. With limits a
request is admitted and counted in one critical section of the shared memory, so that they are exact. A worker
that cannot get the lock, or finds the memory full, keeps to its share of each limit. Requests in flight of a
worker that was killed vanish with it. Times are monotonic.
"""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Callable, Sequence

from sanic_proxy.config.targets import TargetSettings
from sanic_proxy.errors import RateLimited
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.openai.usage import whole
from sanic_proxy.routing import window
from sanic_proxy.state_store.shared import KEPT_UNTIL, SharedMemory, key_of

# When a slot may be free again; nobody knows.
RETRY_CONCURRENT_S = 1.0
# Clients give up on a longer wait. What a window takes beyond a minute, a request waits in the proxy.
MAX_RETRY_S = 60.0
# How soon a worker that keeps its count to itself looks for a shared one again.
RETRY_COLUMN_S = 1.0


class _Rate:
    """A limit per minute. `share` and `own` are the worker's where nothing can be shared."""

    __slots__ = ("key", "limit", "own", "share", "what")

    def __init__(self, what: str, limit: int, workers: int, name: Sequence[str]) -> None:
        self.what = what
        self.limit = limit
        self.share = math.ceil(limit / workers)
        self.key = key_of(what, *name)
        self.own = array("d", bytes(8 * window.SIZE))

    def shared(self, memory: SharedMemory, now: float, *, is_locked: bool) -> tuple[window.Window, int]:
        """The window that counts, and the limit in it. The shared one is kept for a minute from now."""
        cell = memory.cells.find(self.key, now) if is_locked else None
        if cell is None:
            return self.own, self.share
        cell[KEPT_UNTIL] = now + window.LENGTH_S
        return cell[KEPT_UNTIL + 1 :], self.limit


class TargetLoad:
    """Requests in flight, and requests and tokens of the last minute.

    `name` tells the target from all others, in every worker that shares `memory`; `workers` is their number.
    `clock` has the time at which answers end.
    """

    __slots__ = (
        "_clock",
        "_column",
        "_concurrent",
        "_is_limited",
        "_key",
        "_look_at",
        "_memory",
        "_own",
        "_requests",
        "_share",
        "_tokens",
        "_unshared",
    )

    def __init__(
        self,
        target: TargetSettings,
        workers: int = 1,
        memory: SharedMemory | None = None,
        name: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._memory = memory or SharedMemory()
        self._requests = None if target.rpm is None else _Rate("requests", target.rpm, workers, name)
        self._tokens = None if target.tpm is None else _Rate("tokens", target.tpm, workers, name)
        self._concurrent = math.inf if target.concurrent is None else target.concurrent
        self._share = math.inf if target.concurrent is None else math.ceil(target.concurrent / workers)
        self._is_limited = not (target.rpm is target.tpm is target.concurrent is None)
        self._key = key_of("in_flight", *name)
        self._unshared = 0
        self._column: int | None = None
        self._own: memoryview[int] | None = None
        self._look_at = -math.inf

    @property
    def in_flight(self) -> int:
        """Requests in flight, in all workers."""
        return self._unshared if self._column is None else self._memory.gauges.total(self._column)

    def take(self, now: float, label: str) -> RateLimited | None:
        """Count a request that is about to be sent, or return why the target cannot take it now."""
        if self._own is None:
            self._find_column(now)
        if not self._is_limited:
            self._count(1)
            return None
        with self._memory.lock as is_locked:
            refusal = self._refusal(now, label, 0, is_locked=is_locked)
            if refusal is None:
                self._begin(now, is_locked=is_locked)
            return refusal

    def refusal(self, now: float, label: str, ahead: int = 0) -> RateLimited | None:
        """Why the target cannot take a request now, of which `ahead` others come first; None if it can."""
        if not self._is_limited:
            return None
        with self._memory.lock as is_locked:
            return self._refusal(now, label, ahead, is_locked=is_locked)

    def begin(self, now: float) -> None:
        """A request is sent to the target whatever its limits."""
        if not self._is_limited:
            self._count(1)
            return
        with self._memory.lock as is_locked:
            self._begin(now, is_locked=is_locked)

    def end(self) -> None:
        """A request has ended, in whatever way."""
        self._count(-1)

    def observe(self, record: RequestRecord) -> None:
        """An answer has ended (an observer of its record). Its tokens count now."""
        self.end()
        if self._tokens is None or not (tokens := whole((record.usage or {}).get("total_tokens"))):
            return
        now = self._clock()
        with self._memory.lock as is_locked:
            window.add(self._tokens.shared(self._memory, now, is_locked=is_locked)[0], now, tokens)

    def _refusal(self, now: float, label: str, ahead: int, *, is_locked: bool) -> RateLimited | None:
        in_flight, limit = (
            (self._unshared, self._share)
            if self._column is None
            else (self._memory.gauges.total(self._column), self._concurrent)
        )
        if in_flight + ahead >= limit:
            return _refused(label, "requests in flight", RETRY_CONCURRENT_S)
        latest, what = now, ""
        for rate in (self._requests, self._tokens):
            if rate is not None:
                counted, most = rate.shared(self._memory, now, is_locked=is_locked)
                at = window.free_at(counted, now, most, ahead if rate is self._requests else 0)
                if at > latest:
                    latest, what = at, rate.what
        return _refused(label, f"{what} per minute", latest - now) if what else None

    def _begin(self, now: float, *, is_locked: bool) -> None:
        self._count(1)
        if self._requests is not None:
            window.add(self._requests.shared(self._memory, now, is_locked=is_locked)[0], now, 1)

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


def _refused(label: str, what: str, wait_s: float) -> RateLimited:
    wait_s = min(wait_s, MAX_RETRY_S)
    retry_after_s = max(1, math.ceil(wait_s))
    return RateLimited(
        f"The proxy's own limit of {what} to {label} is reached; retry in {retry_after_s} s",
        retry_after_s=retry_after_s,
        wait_s=wait_s,
    )
