"""What is known of targets by their requests."""

from __future__ import annotations

from typing import Any

import pytest

from sanic_proxy import errors
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.routing.breaker import MAX_TARGETS
from sanic_proxy.routing.latency import FAILED
from sanic_proxy.routing.statistics import StatisticsRegistry, TargetStatistics
from sanic_proxy.routing.targets import Limits, RetryState, Target


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def target() -> Target[str]:
    return Target("p", "m", "p/m", statistics=TargetStatistics("p/m", "POST /chat/completions"))


def request(*, is_streaming: bool = True, input_bytes: int = 0) -> RequestRecord:
    return RequestRecord("id", "POST", "/", is_streaming=is_streaming, input_bytes=input_bytes)


def of(target: Target[str]) -> TargetStatistics:
    assert target.statistics is not None
    return target.statistics


def attempt(target: Target[str], record: RequestRecord, clock: Clock) -> RetryState[str]:
    state = RetryState([target], Limits(1, 1), record, clock=clock)
    assert state.next() is target
    return state


def test_the_time_to_first_content_is_relative_to_the_size(target: Target[str], clock: Clock) -> None:
    state = attempt(target, request(input_bytes=400_000), clock)
    clock.now += 9.0
    state.record_success()
    assert of(target).slowness.value(clock.now) == pytest.approx(2.0)
    assert of(target).expected_ms(clock.now) == pytest.approx(2 * 540)


def test_a_whole_answer_may_take_its_time_for_each_token(target: Target[str], clock: Clock) -> None:
    record = request(is_streaming=False)
    state = attempt(target, record, clock)
    clock.now += 15.5
    record.usage = {"completion_tokens": 1000}
    state.record_success()
    assert of(target).slowness.value(clock.now) == pytest.approx(1.0)


def test_a_request_is_in_flight_until_its_answer_has_ended(target: Target[str], clock: Clock) -> None:
    record = request()
    state = attempt(target, record, clock)
    assert (of(target).in_flight, of(target).pending) == (1, 1)
    state.record_success()
    assert (of(target).in_flight, of(target).pending) == (1, 0)
    record.finish(())
    assert (of(target).in_flight, of(target).pending) == (0, 0)
    assert of(target).answered == 1


@pytest.mark.parametrize(
    ("failure", "counts"),
    [
        (errors.UpstreamError("", upstream_status=500), True),
        (errors.UpstreamConnectFailed(""), True),
        (errors.UpstreamTimeout(""), True),
        (errors.UpstreamAuthFailed("", upstream_status=401), True),
        (errors.RateLimited("", upstream_status=429), True),
        (
            errors.UpstreamRefusedRequest(
                {"message": "", "type": "t", "param": None, "code": None}, upstream_status=400
            ),
            False,
        ),
    ],
)
def test_failures_of_the_target_count_as_slow(
    target: Target[str], clock: Clock, failure: errors.ProxyError, counts: bool
) -> None:
    state = attempt(target, request(), clock)
    state.record_failure(failure)
    assert (of(target).in_flight, of(target).pending) == (0, 0)
    assert of(target).failed == counts
    assert (of(target).slowness.value(clock.now) == FAILED) is counts


def test_a_stream_that_breaks_off_counts_as_slow(target: Target[str], clock: Clock) -> None:
    record = request()
    state = attempt(target, record, clock)
    state.record_success()
    state.record_stream_failure(errors.UpstreamDisconnected(""))
    record.finish(())
    assert (of(target).answered, of(target).failed, of(target).in_flight) == (1, 1, 0)
    assert of(target).slowness.value(clock.now) == FAILED


@pytest.mark.parametrize(("waited_s", "slowness"), [(30.0, 60.0), (0.1, 1.0)])
def test_a_client_that_leaves_shows_that_a_target_is_slow_but_not_that_it_is_fast(
    target: Target[str], clock: Clock, waited_s: float, slowness: float
) -> None:
    state = attempt(target, request(), clock)
    clock.now += waited_s
    state.release()
    assert of(target).in_flight == 0
    assert of(target).slowness.value(clock.now) == pytest.approx(slowness, rel=0.05)


USAGES: list[tuple[dict[str, Any] | None, tuple[int, int]]] = [
    (None, (0, 0)),
    ({"prompt_tokens": 100}, (100, 0)),
    ({"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 64}}, (100, 64)),
    ({"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 640}}, (100, 100)),
    ({"prompt_tokens": "x", "prompt_tokens_details": None}, (0, 0)),
]


@pytest.mark.parametrize(("usage", "tokens"), USAGES)
def test_the_cached_share_of_prompts_is_recorded(
    target: Target[str], clock: Clock, usage: dict[str, Any] | None, tokens: tuple[int, int]
) -> None:
    record = request()
    attempt(target, record, clock).record_success()
    record.usage = usage
    record.finish(())
    assert (of(target).prompt_tokens, of(target).cached_tokens) == tokens


def test_statistics_are_kept_where_they_are_needed() -> None:
    registry, complete = StatisticsRegistry(), StatisticsRegistry(is_complete=True)
    name = ("p", 0, "m", "POST /chat/completions", "p/m")
    assert registry.target(*name, is_needed=False) is None
    made = registry.target(*name, is_needed=True)
    assert made is registry.target(*name, is_needed=True)
    assert complete.target(*name, is_needed=False) is not None
    assert registry.as_json(0.0) == [
        {
            "target": "p/m",
            "endpoint": "POST /chat/completions",
            "in_flight": 0,
            "answered": 0,
            "failed": 0,
            "first_content_ms": None,
            "prompt_tokens": 0,
            "cached_tokens": 0,
            "cached_share": None,
        }
    ]


def test_names_that_clients_make_up_are_forgotten() -> None:
    registry = StatisticsRegistry(is_complete=True)
    for number in range(MAX_TARGETS + 5):
        registry.target("p", 0, f"m{number}", "", "", is_needed=False)
    assert len(registry.as_json(0.0)) == MAX_TARGETS


def test_a_count_of_tokens_beyond_all_numbers_does_no_harm(target: Target[str], clock: Clock) -> None:
    record = request(is_streaming=False)
    record.usage = {"completion_tokens": 10**400, "prompt_tokens": 10**400}
    attempt(target, record, clock).record_success()
    record.finish(())
    assert (of(target).in_flight, of(target).answered) == (0, 1)
