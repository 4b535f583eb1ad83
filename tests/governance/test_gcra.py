"""The generic cell rate algorithm against a model: a bucket of exact fractions."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.governance.gcra import Rate, State, adjust, admit, look

MINUTE = Rate(limit=60, burst=10)


def test_a_burst_passes_at_once_then_one_each_second() -> None:
    state = State()
    for number in range(10):
        decision = admit(state, MINUTE, 1000.0)
        assert (decision.wait_s, MINUTE.remaining(decision.used_s)) == (0, 9 - number)
        state = decision.state
    refused = admit(state, MINUTE, 1000.0)
    assert MINUTE.remaining(refused.used_s) == 0
    assert refused.wait_s == pytest.approx(1.0)
    assert refused.used_s == pytest.approx(10.0)
    assert admit(refused.state, MINUTE, 1000.5).wait_s == pytest.approx(0.5)
    assert admit(refused.state, MINUTE, 1001.0).wait_s == 0


def test_more_units_than_the_burst_pass_an_unused_limit_and_are_waited_for() -> None:
    first = admit(State(), MINUTE, 0.0, 30)
    assert first.wait_s == 0
    assert admit(first.state, MINUTE, 0.0).wait_s == pytest.approx(21.0)
    used = admit(State(), MINUTE, 0.0).state
    assert admit(used, MINUTE, 0.0, 30).wait_s == pytest.approx(1.0)


def test_unused_units_are_given_back_and_no_more_than_the_burst() -> None:
    state = admit(State(), MINUTE, 0.0, 10).state
    assert MINUTE.remaining(look(state, MINUTE, 0.0).used_s) == 0
    state = adjust(state, MINUTE, 0.0, -4)
    assert MINUTE.remaining(look(state, MINUTE, 0.0).used_s) == 4
    assert MINUTE.remaining(look(adjust(state, MINUTE, 0.0, -100), MINUTE, 0.0).used_s) == 10
    assert admit(adjust(state, MINUTE, 0.0, 6), MINUTE, 0.0).wait_s == pytest.approx(3.0)


def test_a_clock_that_is_set_back_refills_nothing() -> None:
    state = admit(State(), MINUTE, 1000.0, 10).state
    assert admit(state, MINUTE, 500.0).wait_s == pytest.approx(1.0)
    assert MINUTE.remaining(look(state, MINUTE, 500.0).used_s) == 0
    assert admit(state, MINUTE, 1001.0).wait_s == 0


def test_an_absurd_report_blocks_for_an_hour_at_most() -> None:
    state = adjust(State(), MINUTE, 0.0, 10**12)
    assert admit(state, MINUTE, 0.0).wait_s <= 3600
    assert admit(State(due=1e300), MINUTE, 0.0).wait_s <= 3600


RATES = st.builds(Rate, st.integers(1, 10_000), st.integers(1, 10_000), st.sampled_from([1.0, 60.0]))
EVENTS: st.SearchStrategy[list[tuple[int, int, bool]]] = st.lists(
    st.tuples(st.integers(-20_000, 60_000), st.integers(1, 50), st.booleans()), max_size=40
)


@given(RATES, EVENTS)
def test_never_more_passes_than_the_bucket_holds(rate: Rate, events: list[tuple[int, int, bool]]) -> None:
    """Milliseconds between events, some of them backwards. What is admitted is never above burst + refill."""
    state, now, latest = State(), Fraction(0), Fraction(0)
    level = Fraction(rate.burst)
    speed = Fraction(rate.limit) / Fraction(rate.period_s)
    for step_ms, units, _ in events:
        now = max(Fraction(0), now + Fraction(step_ms, 1000))
        if now > latest:
            level = min(Fraction(rate.burst), level + (now - latest) * speed)
            latest = now
        decision = admit(state, rate, float(now), units)
        state = decision.state
        slack = Fraction(1, 10**6) * rate.burst
        if not decision.wait_s:
            level -= units
            assert level >= -slack or level + units >= rate.burst - slack
        else:
            assert level < units + slack
            # After exactly the wait it passes.
            assert admit(state, rate, float(latest) + decision.wait_s, units).wait_s == 0
        assert rate.remaining(decision.used_s) <= max(Fraction(0), level) + 1


@given(RATES, EVENTS)
def test_settling_gives_back_at_most_what_was_taken(rate: Rate, events: list[tuple[int, int, bool]]) -> None:
    state, now = State(), 0.0
    for step_ms, units, is_back in events:
        now += step_ms / 1000
        before = look(state, rate, now).used_s
        decision = admit(state, rate, now, units)
        if not decision.wait_s and is_back:
            settled = adjust(decision.state, rate, now, -units)
            assert look(settled, rate, now).used_s == pytest.approx(before, abs=1e-6)
            state = settled
        else:
            state = decision.state
