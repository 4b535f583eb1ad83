"""How slow a target is, for the strategy `least_latency`: a peak EWMA. Pure, times are handed in.

The time to first content depends on the request: a prompt of 100,000 tokens takes seconds to read, also where
nothing is wrong. So each time is divided by the one that a request of its size may take (`expected_s`). The
quotient, the slowness, compares targets: 1 is a usual one, 3 takes three times as long.

Two averages are kept of it. The *peak* jumps up to a worse value at once, and forgets it with a time constant
of 10 s: a target that has become slow is avoided with the first request that shows it (Finagle's
`PeakEwma`, linkerd). The *typical* slowness is the average of about a minute, into which failures
do not count. A value between two answers is the peak, on its way to the typical slowness. So a bad moment is
forgotten within half a minute, and a target that is always slower than another one stays known as such.
Without answers the typical slowness decays as well, in minutes, until the target is tried again: else
one that is avoided would keep its mark for ever. It is tried with one request at a time, as is a target of
which nothing is known: what decayed or was never seen counts only while nothing is in flight.
"""

from __future__ import annotations

import math

PEAK_TAU_S = 10.0
TYPICAL_TAU_S = 60.0
IDLE_TAU_S = 300.0
# The most that one answer counts in the typical slowness, however long ago the last one was.
MAX_STEP = 0.3
# Of a target without answers, while it has requests in flight; before, it is tried first.
UNKNOWN = 1.0
# Of a failure that came at once.
FAILED = 20.0
# A request that waited for minutes says no more than that.
MAX_SLOWNESS = 100.0
_LEAST = 1e-6

# The time to first content of a usual hosted model: 0.5 s and 10 ms per 1,000 bytes of input (about 40 ms per
# 1,000 tokens). A whole answer is there with its last token: 15 ms for each one more.
BASE_S = 0.5
INPUT_S_PER_BYTE = 10e-6
OUTPUT_S_PER_TOKEN = 0.015
# Larger inputs are images and files, whose bytes are few tokens.
MAX_INPUT_BYTES = 2**21


def expected_s(input_bytes: int, output_tokens: int = 0) -> float:
    """Seconds that a usual target takes until an answer can begin."""
    return BASE_S + INPUT_S_PER_BYTE * min(input_bytes, MAX_INPUT_BYTES) + OUTPUT_S_PER_TOKEN * output_tokens


class PeakEwma:
    """The slowness of one target; see the module. `now` is any clock of seconds that never goes back."""

    __slots__ = ("_at", "_peak", "_typical")

    def __init__(self) -> None:
        self._at = 0.0
        self._peak = 0.0
        self._typical: float | None = None

    def value(self, now: float, *, is_idle: bool = False) -> float:
        """The slowness to be expected of the next request; greater than 0.

        `is_idle`: the target has nothing in flight.
        """
        idle_s = max(0.0, now - self._at)
        excess = math.exp(-idle_s / PEAK_TAU_S)
        if self._typical is None:
            typical = 0.0 if is_idle else UNKNOWN
        else:
            typical = self._typical * (math.exp(-idle_s / IDLE_TAU_S) if is_idle else 1.0)
        return max(_LEAST, typical + (self._peak - typical) * excess)

    def cost(self, now: float, pending: int, *, is_idle: bool) -> float:
        """What sending one more request to the target costs, in comparison with others.

        `pending` requests wait for their first content.
        """
        return self.value(now, is_idle=is_idle) * (pending + 1)

    def observe(self, slowness: float, now: float) -> None:
        """A request has been answered."""
        slowness = min(slowness, MAX_SLOWNESS)
        if self._typical is None:
            self._typical = slowness
        else:
            step = min(MAX_STEP, 1 - math.exp(-max(0.0, now - self._at) / TYPICAL_TAU_S))
            self._typical += step * (slowness - self._typical)
        kept = math.exp(-max(0.0, now - self._at) / PEAK_TAU_S)
        self._peak = max(slowness, slowness + kept * (self._peak - slowness))
        self._at = now

    def punish(self, slowness: float, now: float) -> None:
        """A request has failed, or was given up: it would have taken at least this long."""
        slowness = min(slowness, MAX_SLOWNESS)
        if slowness > self.value(now):
            self._peak, self._at = slowness, now
