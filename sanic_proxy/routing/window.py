"""Amounts per minute as a sliding window of buckets, in memory that workers may share. Pure.

A window is a sequence of doubles: the number of the newest bucket, then the amount of each bucket of five
seconds, `number % BUCKETS` being its place. The newest bucket and the twelve before it cover at least the
last 60 s and at most 65 s, so that no 60 s ever have more than the limit, whenever they begin. A fixed minute
would allow twice as much around its end, a leaky bucket (GCRA) a burst beside the steady rate.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import TypeAlias

BUCKET_S = 5.0
BUCKETS = 13
SIZE = 1 + BUCKETS
# As long as a window has to be remembered after its last change.
LENGTH_S = BUCKET_S * BUCKETS

Window: TypeAlias = "MutableSequence[float] | memoryview[float]"


def used(window: Window, now: float) -> float:
    """The amount of the last minute."""
    _advance(window, now)
    return sum(window[1:])


def add(window: Window, now: float, amount: float) -> None:
    """Count `amount`, which may be negative to take back what has been counted."""
    _advance(window, now)
    place = 1 + int(window[0]) % BUCKETS
    window[place] = max(0.0, window[place] + amount)


def free_at(window: Window, now: float, limit: float, ahead: int = 0) -> float:
    """When the amount is below `limit` by more than `ahead`; `now` or earlier if it is, infinity if never."""
    over = used(window, now) - (limit - 1 - ahead)
    newest = int(window[0])
    for number in range(newest - BUCKETS + 1, newest + 1):
        if over <= 0:
            break
        over -= window[1 + number % BUCKETS]
        now = (number + BUCKETS) * BUCKET_S
    return now if over <= 0 else float("inf")


def _advance(window: Window, now: float) -> None:
    number = int(now // BUCKET_S)
    newest = int(window[0])
    if number > newest:
        for gone in range(max(newest + 1, number - BUCKETS + 1), number + 1):
            window[1 + gone % BUCKETS] = 0.0
        window[0] = float(number)
