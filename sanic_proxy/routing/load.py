"""What one target of a `[models.NAME]` table has in flight, and its limits per minute. Times are handed in.

A target without limits whose model does not compare loads has no `TargetLoad`, and costs nothing.

The counts are one worker's. Each worker keeps to its share of a limit, rounded up, so that together they stay
within it as long as requests spread evenly; a limit below the number of workers is exceeded by as much.
"""

from __future__ import annotations

import math

from sanic_proxy.config.targets import TargetSettings
from sanic_proxy.errors import RateLimited
from sanic_proxy.observability.record import RequestRecord

MINUTE_S = 60.0
# When a slot may be free again; nobody knows.
RETRY_CONCURRENT_S = 1


class TargetLoad:
    """Requests in flight, and requests and tokens of the current minute."""

    __slots__ = ("_concurrent", "_minute", "_requests", "_rpm", "_tokens", "_tpm", "in_flight")

    def __init__(self, target: TargetSettings, workers: int = 1) -> None:
        self._rpm = _share(target.rpm, workers)
        self._tpm = _share(target.tpm, workers)
        self._concurrent = _share(target.concurrent, workers)
        self.in_flight = 0
        self._minute = 0
        self._requests = 0
        self._tokens = 0

    def refusal(self, now: float, label: str) -> RateLimited | None:
        """Why the target cannot take a request now; None if it can."""
        if self.in_flight >= self._concurrent:
            return _refusal(label, "requests in flight", RETRY_CONCURRENT_S)
        self._advance(now)
        wait_s = max(1, math.ceil((self._minute + 1) * MINUTE_S - now))
        if self._requests >= self._rpm:
            return _refusal(label, "requests per minute", wait_s)
        if self._tokens >= self._tpm:
            return _refusal(label, "tokens per minute", wait_s)
        return None

    def begin(self, now: float) -> None:
        """A request is sent to the target."""
        self._advance(now)
        self.in_flight += 1
        self._requests += 1

    def end(self) -> None:
        """A request has ended, in whatever way."""
        self.in_flight -= 1

    def observe(self, record: RequestRecord) -> None:
        """An answer has ended (an observer of its record). Its tokens count in the current minute."""
        self.end()
        tokens = (record.usage or {}).get("total_tokens")
        if isinstance(tokens, int) and not isinstance(tokens, bool):
            self._tokens += max(0, tokens)

    def _advance(self, now: float) -> None:
        minute = int(now // MINUTE_S)
        if minute != self._minute:
            self._minute = minute
            self._requests = self._tokens = 0


def _share(limit: int | None, workers: int) -> float:
    return math.inf if limit is None else math.ceil(limit / workers)


def _refusal(label: str, what: str, wait_s: int) -> RateLimited:
    return RateLimited(
        f"The proxy's own limit of {what} to {label} is reached; retry in {wait_s} s", retry_after_s=wait_s
    )
