"""Amounts of the last minute: never above the limit, and free again when it is said."""

from __future__ import annotations

import math
from array import array

from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.routing import window

START = 1000.0


def empty() -> array[float]:
    return array("d", bytes(8 * window.SIZE))


def test_an_amount_counts_for_a_minute() -> None:
    made = empty()
    window.add(made, START, 3)
    assert window.used(made, START + 59.9) == 3
    assert window.used(made, START + window.LENGTH_S) == 0


def test_what_was_counted_can_be_taken_back() -> None:
    made = empty()
    window.add(made, START, 2)
    window.add(made, START + 7, 1)
    assert window.settled(made, START + 7, -1, START) == 2
    assert window.used(made, START + 7) == 2
    assert window.settled(made, START + 7, -5, START + 7) == 1
    window.add(made, START + 66, 1)
    assert window.settled(made, START + 66, -1, START) == 1  # its place is that of the newest by now
    assert window.used(made, START + 66) == 1


def test_an_amount_is_counted_now() -> None:
    made = empty()
    assert window.settled(made, START, 0, START) == 0
    assert window.settled(made, START, 3, START - 20) == 3
    assert window.settled(made, START + 30, 2, START) == 5
    assert window.used(made, START + window.LENGTH_S) == 2


def test_a_worker_whose_clock_was_read_earlier_counts_as_well() -> None:
    made = empty()
    window.add(made, START, 1)
    window.add(made, START - 6, 1)
    assert window.used(made, START) == 2


def test_a_limit_below_those_ahead_is_never_free() -> None:
    made = empty()
    assert window.free_at(made, START, 2, ahead=1) == START
    assert window.free_at(made, START, 2, ahead=2) == math.inf


TIMES = st.lists(st.floats(0.0, 30.0), min_size=1, max_size=120)


@given(TIMES, st.integers(1, 5))
def test_no_minute_has_more_than_the_limit(gaps: list[float], limit: int) -> None:
    made = empty()
    now, taken = START, []
    for gap_s in gaps:
        now += gap_s
        if window.free_at(made, now, limit) <= now:
            window.add(made, now, 1)
            taken.append(now)
    for first in taken:
        assert sum(first <= at < first + 60 for at in taken) <= limit


@given(TIMES, st.integers(1, 5), st.integers(0, 3))
def test_it_is_free_at_the_time_that_was_said_and_not_before(
    gaps: list[float], limit: int, ahead: int
) -> None:
    made = empty()
    now = START
    for gap_s in gaps:
        now += gap_s
        window.add(made, now, 1)
    at = window.free_at(made, now, limit, ahead)
    if at == math.inf:
        assert ahead >= limit
        return
    if at > now:
        assert window.used(made, at - 0.001) > limit - 1 - ahead
    assert window.free_at(made, at, limit, ahead) <= at
