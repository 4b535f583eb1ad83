"""When a second attempt begins, and for how many requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.config.hedging import Delay, HedgeSettings
from sanic_proxy.routing.hedging import MAX_MEDIANS, MAX_SAVED, MIN_TIMES, Hedging


def after(*times: float, percentile: int = 95) -> float | None:
    hedging = Hedging(HedgeSettings(Delay(percentile=percentile)))
    for seconds in times:
        hedging.note(seconds, is_streaming=True)
    assert hedging.delay_s(is_streaming=False) is None
    return hedging.delay_s(is_streaming=True)


def test_a_fixed_delay_needs_no_times() -> None:
    assert Hedging(HedgeSettings(Delay(seconds=2.5))).delay_s(is_streaming=True) == 2.5


def test_a_few_times_say_nothing() -> None:
    assert after(*[1.0] * (MIN_TIMES - 1)) is None


def test_the_delay_is_the_percentile() -> None:
    times = [1.0 + number / 100 for number in range(100)] * 2
    assert after(*times) == pytest.approx(1.94, abs=0.02)
    assert after(*times, percentile=50) == pytest.approx(1.49, abs=0.02)


def test_the_delay_is_bounded_by_the_median_where_many_are_slow() -> None:
    assert after(*([10.0] * 2 + [1.0] * 18) * 10) == MAX_MEDIANS


def test_old_times_are_forgotten() -> None:
    assert after(*[9.0] * 1000, *[1.0] * 1000) == 1.0


@given(st.lists(st.booleans(), max_size=400), st.sampled_from([0.03, 0.06, 0.5, 1.0]))
def test_at_no_time_have_more_than_the_share_had_a_second_attempt(slow: list[bool], budget: float) -> None:
    hedging = Hedging(HedgeSettings(budget=budget))
    hedged = 0
    for count, is_slow in enumerate(slow, 1):
        hedging.count_request()
        if is_slow and hedging.has_room:
            hedging.take()
            hedged += 1
        assert hedged <= budget * count + 1e-6


def test_what_was_saved_in_quiet_times_is_bounded() -> None:
    hedging = Hedging(HedgeSettings())
    for _ in range(100_000):
        hedging.count_request()
    taken = 0
    while hedging.has_room:
        hedging.take()
        taken += 1
    assert taken == MAX_SAVED


def test_without_a_budget_there_is_none() -> None:
    hedging = Hedging(HedgeSettings(budget=0.0))
    hedging.count_request()
    assert not hedging.has_room
