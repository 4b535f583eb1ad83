"""How slow a target is, over time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.routing.latency import (
    FAILED,
    IDLE_TAU_S,
    MAX_INPUT_BYTES,
    MAX_SLOWNESS,
    PEAK_TAU_S,
    UNKNOWN,
    PeakEwma,
    expected_s,
)

START = 1000.0


def steady(slowness: float, seconds: int = 300) -> tuple[PeakEwma, float]:
    """One that has answered once a second, and the time of its last answer."""
    ewma = PeakEwma()
    for second in range(seconds):
        ewma.observe(slowness, START + second)
    return ewma, START + seconds - 1


def test_a_longer_prompt_may_take_longer() -> None:
    assert expected_s(0) == 0.5
    assert expected_s(400_000) == pytest.approx(4.5)
    assert expected_s(2**30) == expected_s(MAX_INPUT_BYTES)
    assert expected_s(0, 100) == pytest.approx(2.0)


def test_a_worse_value_counts_at_once_and_a_better_one_slowly() -> None:
    ewma, now = steady(1.0)
    ewma.observe(5.0, now + 1)
    assert ewma.value(now + 1) == pytest.approx(5.0, rel=0.01)
    ewma.observe(1.0, now + 2)
    assert 4.0 < ewma.value(now + 2) < 5.0
    for second in range(3, 40):
        ewma.observe(1.0, now + second)
    assert ewma.value(now + 39) == pytest.approx(1.1, abs=0.15)


def test_a_bad_moment_is_forgotten_without_further_answers() -> None:
    ewma, now = steady(1.0)
    ewma.punish(FAILED, now)
    assert ewma.value(now) == FAILED
    assert ewma.value(now + PEAK_TAU_S) == pytest.approx(1 + 19 / 2.718, rel=0.01)
    assert ewma.value(now + 4 * PEAK_TAU_S) < 1.5


def test_a_target_that_is_always_slower_stays_known_as_such() -> None:
    slow, now = steady(3.0)
    fast, _ = steady(1.0)
    for idle_s in (1, 10, 100):
        later = now + idle_s
        assert slow.value(later, is_idle=True) == pytest.approx(3 * fast.value(later, is_idle=True))


def test_an_idle_target_is_tried_again_with_one_request_at_a_time() -> None:
    slow, now = steady(3.0)
    fast = PeakEwma()
    later = now + 2 * IDLE_TAU_S
    fast.observe(1.0, later)
    assert slow.cost(later, 0, is_idle=True) < fast.cost(later, 0, is_idle=True)
    assert slow.cost(later, 0, is_idle=False) > fast.cost(later, 0, is_idle=False)


def test_a_target_of_which_nothing_is_known_is_tried_with_one_request_at_a_time() -> None:
    unknown, (known, now) = PeakEwma(), steady(0.5)
    assert unknown.cost(now, 0, is_idle=True) < known.cost(now, 0, is_idle=True)
    assert unknown.cost(now, 1, is_idle=False) == pytest.approx(2 * UNKNOWN)
    unknown.punish(FAILED, now)
    assert unknown.cost(now, 0, is_idle=True) > known.cost(now, 0, is_idle=True)


def test_a_request_that_was_given_up_counts_only_if_it_was_slow() -> None:
    ewma, now = steady(1.0)
    ewma.punish(0.5, now)
    assert ewma.value(now) == pytest.approx(1.0)
    ewma.punish(2.5, now)
    assert ewma.value(now) == 2.5


Event = tuple[str, float, float]
events = st.lists(
    st.tuples(st.sampled_from(["answer", "failure"]), st.floats(0, 1e4), st.floats(0, 1e4)), max_size=40
)


@given(events, st.floats(0, 1e5), st.integers(0, 100))
def test_it_stays_within_what_was_seen(seen: list[Event], idle_s: float, pending: int) -> None:
    ewma, now = PeakEwma(), START
    for kind, slowness, pause_s in seen:
        now += pause_s
        (ewma.observe if kind == "answer" else ewma.punish)(slowness, now)
    worst = min(MAX_SLOWNESS, max([UNKNOWN, *(slowness for _, slowness, _ in seen)]))
    assert 0 < ewma.value(now + idle_s) <= worst * (1 + 1e-9)
    cost = ewma.cost(now + idle_s, pending, is_idle=not pending)
    assert 0 < cost <= worst * (pending + 1) * (1 + 1e-9)


@given(events, st.floats(0.1, 50))
def test_the_last_answer_is_never_hidden(seen: list[Event], last: float) -> None:
    ewma, now = PeakEwma(), START
    for kind, slowness, pause_s in seen:
        now += pause_s
        (ewma.observe if kind == "answer" else ewma.punish)(slowness, now)
    ewma.observe(last, now)
    assert ewma.value(now) >= last * (1 - 1e-9)
