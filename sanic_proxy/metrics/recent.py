"""What one worker has counted in the last minute, for the operator's page.

The counts come from `requests`, once a second and added up already, so a request costs nothing here.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence

from sanic_proxy.json_types import Json
from sanic_proxy.metrics import families as f
from sanic_proxy.metrics.series import LocalHistogram

WINDOW_S = 60
# The times of targets are kept longer, a minute at once.
TIMES_S = 300
_SPAN_S = 60
MAX_TARGETS = 250
# Ends of requests that are no failure.
_NO_ERROR = frozenset({"ok", "client_left", "cancelled"})
_BUCKETS = len(f.SECONDS) + 1


class _Second:
    """The counts of one second."""

    __slots__ = ("at", "errors", "first_content", "requests", "tokens")

    def __init__(self, at: int) -> None:
        self.at = at
        self.requests = self.tokens = 0
        self.errors: Counter[str] = Counter()
        self.first_content = [0] * _BUCKETS


class RecentCounts:
    """The counts of the last `WINDOW_S` seconds, and the `times` of targets. Times are monotonic."""

    def __init__(self) -> None:
        self.times = RecentTimes()
        self._seconds: deque[_Second] = deque(maxlen=WINDOW_S)

    def add(
        self, now: float, outcome: str, requests: int, tokens: int, first_content: LocalHistogram
    ) -> None:
        """Count requests with the same outcome."""
        if not self._seconds or self._seconds[-1].at != int(now):
            self._seconds.append(_Second(int(now)))
        second = self._seconds[-1]
        second.requests += requests
        second.tokens += tokens
        if outcome not in _NO_ERROR:
            second.errors[outcome] += requests
        for bucket, count in enumerate(first_content.counts):
            second.first_content[bucket] += count

    def sums(self, now: float) -> Json:
        """The sums of the last `WINDOW_S` seconds."""
        while self._seconds and self._seconds[0].at <= now - WINDOW_S:
            self._seconds.popleft()
        errors: Counter[str] = Counter()
        for second in self._seconds:
            errors.update(second.errors)
        return {
            "requests": sum(second.requests for second in self._seconds),
            "tokens": sum(second.tokens for second in self._seconds),
            "errors": errors,
            "first_content": added(second.first_content for second in self._seconds),
        }


class RecentTimes:
    """Times to the first content of streams by target, of the last `TIMES_S` seconds. Times are monotonic."""

    def __init__(self) -> None:
        self._spans: deque[tuple[int, dict[str, list[int]]]] = deque(maxlen=TIMES_S // _SPAN_S)

    def add(self, now: float, target: str, first_content: LocalHistogram) -> None:
        """Count streams of one target."""
        if not target or not any(first_content.counts):
            return
        at = int(now) // _SPAN_S
        if not self._spans or self._spans[-1][0] != at:
            self._spans.append((at, {}))
        counts = self._spans[-1][1]
        if target in counts or len(counts) < MAX_TARGETS:
            counts[target] = added([counts.get(target, ()), first_content.counts])

    def sums(self, now: float) -> dict[str, list[int]]:
        """The histograms of the last `TIMES_S` seconds."""
        while self._spans and self._spans[0][0] * _SPAN_S <= now - TIMES_S:
            self._spans.popleft()
        found: dict[str, list[int]] = {}
        for _, counts in self._spans:
            for target, histogram in counts.items():
                found[target] = added([found.get(target, ()), histogram])
        return found


def added(histograms: Iterable[Sequence[int]]) -> list[int]:
    """The sum of histograms with the bounds `SECONDS`."""
    return [sum(counts) for counts in zip([0] * _BUCKETS, *filter(None, histograms), strict=True)]


def percentiles_ms(counts: Sequence[int]) -> Json:
    """The median and the 95th percentile of a histogram with the bounds `SECONDS`, in milliseconds.

    Values are taken to be spread evenly within a bucket; those above the last bound count as that.
    """
    return {"p50": _percentile_ms(counts, 0.5), "p95": _percentile_ms(counts, 0.95)}


def _percentile_ms(counts: Sequence[int], share: float) -> float | None:
    wanted = share * sum(counts)
    below = 0.0
    for count, low, high in zip(counts, (0.0, *f.SECONDS), f.SECONDS, strict=False):
        if count and below + count >= wanted:
            return round(1000 * (low + (high - low) * (wanted - below) / count), 1)
        below += count
    return 1000 * f.SECONDS[-1] if wanted else None
