"""When a target is left alone, when it is tried again, and how often it may be asked again."""

from __future__ import annotations

import gc
import weakref

import pytest

from sanic_proxy import errors
from sanic_proxy.routing.breaker import (
    IN_A_ROW,
    KEY_OPEN_S,
    MAX_OPEN_S,
    MAX_TARGETS,
    OPEN_S,
    WINDOW_S,
    BreakerRegistry,
    CircuitBreaker,
)
from sanic_proxy.routing.policy import Blame

DOWN = errors.UpstreamError("down")
REFUSED = errors.UpstreamAuthFailed("our key is refused")


def fail(health: CircuitBreaker, times: int, now: float = 100.0, blame: Blame = "target") -> None:
    for _ in range(times):
        assert health.admit(now) is None
        health.record_failure(REFUSED if blame == "key" else DOWN, blame, now, health.generation)


@pytest.mark.parametrize("blame", ["target", "access", "key"])
def test_it_opens_after_failures_in_a_row(blame: Blame) -> None:
    health = CircuitBreaker()
    fail(health, IN_A_ROW[blame] - 1, blame=blame)
    assert not health.is_open
    fail(health, 1, blame=blame)
    assert health.is_open


def test_a_success_between_them_counts() -> None:
    health = CircuitBreaker()
    for _ in range(3):
        fail(health, 4)
        assert health.admit(100) is None
        health.record_success(health.generation)
    assert not health.is_open


def test_it_opens_when_half_of_many_fail() -> None:
    health = CircuitBreaker()
    for number in range(40):
        now = 100 + number / 10
        assert health.admit(now) is None, number
        if number % 3:
            health.record_failure(DOWN, "target", now, health.generation)
        else:
            health.record_success(health.generation)
        if health.is_open:
            break
    assert health.is_open
    assert number >= 19


def test_failures_of_long_ago_do_not_count() -> None:
    health = CircuitBreaker()
    for number in range(100):
        now = 100 + number * WINDOW_S
        assert health.admit(now) is None
        if number % 3:
            health.record_failure(DOWN, "target", now, health.generation)
        else:
            health.record_success(health.generation)
    assert not health.is_open


def test_open_it_refuses_until_one_probe_is_let_through() -> None:
    health = CircuitBreaker()
    fail(health, 5)
    refusal = health.admit(100 + OPEN_S - 0.1)
    assert isinstance(refusal, errors.CircuitOpen)
    assert refusal.retry_after_s is not None
    assert health.admit(100 + OPEN_S) is None
    assert health.admit(100 + OPEN_S) is not None  # one at a time
    health.record_success(health.generation)
    assert not health.is_open
    assert health.admit(100 + OPEN_S) is None


def test_a_probe_that_fails_doubles_the_time() -> None:
    health = CircuitBreaker()
    fail(health, 5, now=0)
    now, open_s = 0.0, OPEN_S
    for _ in range(6):
        assert health.admit(now + open_s - 0.01) is not None
        now += open_s
        fail(health, 1, now=now)
        open_s = min(MAX_OPEN_S, 2 * open_s)
    assert open_s == MAX_OPEN_S
    assert health.admit(now + MAX_OPEN_S) is None


def test_a_probe_whose_client_leaves_makes_room_for_another() -> None:
    health = CircuitBreaker()
    fail(health, 5)
    assert health.admit(200) is None
    health.release(health.generation)
    assert health.admit(200) is None


def test_what_was_under_way_when_it_opened_does_not_open_it_further() -> None:
    health = CircuitBreaker()
    for _ in range(50):
        assert health.admit(100) is None
    generation = health.generation
    for _ in range(50):
        health.record_failure(DOWN, "target", 101, generation)
    assert health.admit(101 + OPEN_S) is None


def test_a_key_that_is_refused_is_out_at_once_and_says_so() -> None:
    health = CircuitBreaker()
    fail(health, 1, blame="key")
    refusal = health.admit(100 + KEY_OPEN_S - 0.1)
    assert isinstance(refusal, errors.UpstreamAuthFailed)
    assert refusal is not REFUSED
    assert health.admit(100 + KEY_OPEN_S) is None


def test_it_can_be_told_never_to_refuse() -> None:
    health = CircuitBreaker(breaks=False)
    fail(health, 100)
    assert health.admit(100) is None


@pytest.mark.row(29)
def test_an_outage_is_not_multiplied() -> None:
    health = CircuitBreaker(breaks=False)
    allowed = 0
    for number in range(1000):
        now = 100 + number / 100
        assert health.admit(now) is None
        allowed += health.may_retry(now)
    assert 150 <= allowed <= 203


def test_three_repeats_are_always_allowed() -> None:
    health = CircuitBreaker()
    assert [health.may_retry(100) for _ in range(5)] == [True, True, True, False, False]
    assert health.may_retry(100 + WINDOW_S)


def test_the_board_knows_the_same_target_again_and_not_all_for_ever() -> None:
    registry = BreakerRegistry()
    first = registry.of("groq", 0, "llama")
    assert registry.of("groq", 0, "llama") is first
    assert registry.of("groq", 1, "llama") is not first
    for number in range(MAX_TARGETS):
        registry.of("groq", 0, f"model-{number}")
        registry.of("groq", 0, "llama")
    assert registry.of("groq", 0, "llama") is first
    assert len(registry._known) == MAX_TARGETS


def test_what_was_under_way_before_says_nothing_of_a_probe() -> None:
    health = CircuitBreaker()
    assert health.admit(100) is None
    old = health.generation
    fail(health, 5)
    assert health.admit(200) is None
    probe = health.generation
    health.release(old)
    assert health.admit(200) is not None  # the probe is still under way
    health.record_failure(DOWN, "target", 200, old)
    health.record_success(old)
    assert health.is_open
    health.record_success(probe)
    assert not health.is_open


def test_what_opened_it_keeps_no_request_alive() -> None:
    class Request:
        pass

    def ask(request: Request) -> None:
        raise errors.UpstreamAuthFailed("refused")

    health, request = CircuitBreaker(), Request()
    alive = weakref.ref(request)
    assert health.admit(100) is None
    try:
        ask(request)
    except errors.UpstreamAuthFailed as exc:
        health.record_failure(exc, "key", 100, health.generation)
    del request
    gc.collect()
    assert health.is_open
    assert alive() is None
