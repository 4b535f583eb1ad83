"""Amounts per minute as a sliding window of buckets, in memory that workers may share. Pure.

A window is a sequence of doubles: the number of the newest bucket, the sum of all, then the amount of each
bucket of five seconds, `number % BUCKETS` being its place. The newest bucket and the twelve before it cover
at least the last 60 s and at most 65 s, so that no 60 s ever have more than the limit, whenever they begin. A
fixed minute would allow twice as much around its end, a leaky bucket (GCRA) a burst beside the steady rate.
"""

from __future__ import annotations

import math
from collections.abc import MutableSequence
from typing import TypeAlias

BUCKET_S = 5.0
BUCKETS = 13
SIZE = 2 + BUCKETS
# As long as a window has to be remembered after its last change.
LENGTH_S = BUCKET_S * BUCKETS
_NEWEST, _SUM, _FIRST = range(3)

Window: TypeAlias = "MutableSequence[float] | memoryview[float]"


def used(window: Window, now: float) -> float:
    """The amount of the last minute."""
    if now >= (window[_NEWEST] + 1) * BUCKET_S:
        _advance(window, int(now // BUCKET_S))
    return window[_SUM]


def add(window: Window, now: float, amount: float) -> None:
    """Count `amount`."""
    if now >= (window[_NEWEST] + 1) * BUCKET_S:
        _advance(window, int(now // BUCKET_S))
    window[_FIRST + int(window[_NEWEST]) % BUCKETS] += amount
    window[_SUM] += amount


def settled(window: Window, now: float, amount: float, counted_at: float) -> float:
    """The amount of the last minute after `amount` has been counted.

    If it is below 0, so much is taken back of what was counted at the earlier time `counted_at`, as far as
    that is still in the window.
    """
    newest = window[_NEWEST]
    if now >= (newest + 1) * BUCKET_S:
        _advance(window, int(now // BUCKET_S))
        newest = window[_NEWEST]
    used = window[_SUM]
    if not amount:
        return used
    number = newest if amount > 0 else counted_at // BUCKET_S
    if number <= newest - BUCKETS or number > newest:
        return used
    place = _FIRST + int(number) % BUCKETS
    counted = window[place]
    if counted + amount < 0:
        amount = -counted
    window[place] = counted + amount
    window[_SUM] = used = used + amount
    return used


def free_at(window: Window, now: float, limit: float, ahead: int = 0) -> float:
    """When the amount is below `limit` by more than `ahead`; `now` or earlier if it is, infinity if never."""
    over = used(window, now) - (limit - 1 - ahead)
    if over <= 0:
        return now
    newest = int(window[_NEWEST])
    for number in range(newest - BUCKETS + 1, newest + 1):
        over -= window[_FIRST + number % BUCKETS]
        if over <= 0:
            return (number + BUCKETS) * BUCKET_S
    return math.inf


def _advance(window: Window, number: int) -> None:
    newest = int(window[_NEWEST])
    for gone in range(max(newest + 1, number - BUCKETS + 1), number + 1):
        window[_FIRST + gone % BUCKETS] = 0.0
    window[_NEWEST] = float(number)
    window[_SUM] = sum(window[_FIRST : _FIRST + BUCKETS])
