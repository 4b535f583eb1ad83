"""Samples of a soak, once a second -> whether anything grows. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import override

from loadtest.soak.starvation import STARVED_MS

# What is thrown away of the beginning: pools, caches and the allocator fill up. That takes a minute or
# more, but a short run has to leave something to judge.
WARM_UP_S = 90.0
LONGEST_WARM_UP_SHARE = 0.5
# A growth counts where it is past its bound by more than chance: so many standard errors.
ERRORS = 3.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What the workers hold together, and how they answer, at one moment."""

    at_s: float
    rss_mib: float
    descriptors: int
    threads: int
    in_flight: int
    p99_ms: float
    machine_ms: float  # the same without the proxy: what else runs here makes both slow
    health_ms: float
    lag_ms: float = 0.0  # the longest that the soak's own event loop was late

    @property
    def is_starved(self) -> bool:
        """Its times are those of the soak rather than of the proxy."""
        return self.lag_ms > STARVED_MS

    @property
    def added_ms(self) -> float:
        """What the proxy makes of the slowest answers."""
        return self.p99_ms - self.machine_ms


@dataclass(frozen=True, slots=True)
class Bound:
    """How much a figure may grow in a minute and still be flat."""

    field: str
    title: str
    unit: str
    per_minute: float
    is_time: bool = False


BOUNDS = (
    Bound("rss_mib", "Resident memory of the workers", "MiB", 0.5),
    Bound("descriptors", "Open descriptors of the workers", "descriptors", 2.0),
    Bound("threads", "Threads of the workers", "threads", 0.2),
    Bound("in_flight", "Requests in flight", "requests", 1.0),
    Bound("added_ms", "99th percentile of whole answers, less the upstream's own", "ms", 5.0, is_time=True),
    Bound("health_ms", "Time of GET /health", "ms", 2.0, is_time=True),
)


@dataclass(frozen=True, slots=True)
class Trend:
    """The straight line through one figure's samples."""

    bound: Bound
    per_minute: float
    error: float  # the standard error of that
    mean: float
    largest: float
    middle_minute: float = 0.0  # where the line has the mean

    def at(self, minute: float) -> float:
        """The line's value."""
        return self.mean + self.per_minute * (minute - self.middle_minute)

    @property
    def is_flat(self) -> bool:
        return self.per_minute - ERRORS * self.error <= self.bound.per_minute

    @override
    def __str__(self) -> str:
        shape = "flat" if self.is_flat else "GROWS"
        bound = self.bound
        return (
            f"{bound.field:12} {shape:6}{self.per_minute:+9.3f} {bound.unit}/min (error {self.error:.3f}, "
            f"may {bound.per_minute:g}), mean {self.mean:.1f}, largest {self.largest:.1f}"
        )


def warm(samples: Sequence[Sample]) -> list[Sample]:
    """Those behind the warm-up."""
    since_s = min(WARM_UP_S, samples[-1].at_s * LONGEST_WARM_UP_SHARE) if samples else 0.0
    return [sample for sample in samples if sample.at_s >= since_s]


def trend(samples: Sequence[Sample], bound: Bound) -> Trend:
    """The least-squares line through what `bound` is about; without starved samples where that is a time."""
    samples = [sample for sample in samples if not (bound.is_time and sample.is_starved)]
    values = [float(getattr(sample, bound.field)) for sample in samples]
    minutes = [sample.at_s / 60 for sample in samples]
    count = len(values)
    if count < 3:
        return Trend(bound, 0.0, math.inf, sum(values) / max(count, 1), max(values, default=0.0))
    middle, mean = sum(minutes) / count, sum(values) / count
    spread = sum((at - middle) ** 2 for at in minutes)
    slope = sum((at - middle) * (value - mean) for at, value in zip(minutes, values, strict=True)) / spread
    left = sum((value - mean - slope * (at - middle)) ** 2 for at, value in zip(minutes, values, strict=True))
    return Trend(bound, slope, math.sqrt(left / (count - 2) / spread), mean, max(values), middle)


def starved_share(samples: Sequence[Sample]) -> float:
    """The share of the settled samples that were taken while the soak itself was starved."""
    settled = warm(samples)
    return sum(sample.is_starved for sample in settled) / max(len(settled), 1)


def trends(samples: Sequence[Sample]) -> list[Trend]:
    settled = warm(samples)
    return [trend(settled, bound) for bound in BOUNDS]
