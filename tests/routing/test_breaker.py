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
    Board,
    Health,
)
from sanic_proxy.routing.policy import Harm

DOWN = errors.UpstreamError("down")
REFUSED = errors.UpstreamAuthFailed("our key is refused")


def fail(health: Health, times: int, now: float = 100.0, harm: Harm = "target") -> None:
    for _ in range(times):
        assert health.admit(now) is None
        health.failed(REFUSED if harm == "key" else DOWN, harm, now, health.ticket)


@pytest.mark.parametrize("harm", ["target", "access", "key"])
def test_it_opens_after_failures_in_a_row(harm: Harm) -> None:
    health = Health()
    fail(health, IN_A_ROW[harm] - 1, harm=harm)
    assert not health.is_open
    fail(health, 1, harm=harm)
    assert health.is_open


def test_a_success_between_them_counts() -> None:
    health = Health()
    for _ in range(3):
        fail(health, 4)
        assert health.admit(100) is None
        health.succeeded(health.ticket)
    assert not health.is_open


def test_it_opens_when_half_of_many_fail() -> None:
    health = Health()
    for number in range(40):
        now = 100 + number / 10
        assert health.admit(now) is None, number
        if number % 3:
            health.failed(DOWN, "target", now, health.ticket)
        else:
            health.succeeded(health.ticket)
        if health.is_open:
            break
    assert health.is_open
    assert number >= 19


def test_failures_of_long_ago_do_not_count() -> None:
    health = Health()
    for number in range(100):
        now = 100 + number * WINDOW_S
        assert health.admit(now) is None
        if number % 3:
            health.failed(DOWN, "target", now, health.ticket)
        else:
            health.succeeded(health.ticket)
    assert not health.is_open


def test_open_it_refuses_until_one_probe_is_let_through() -> None:
    health = Health()
    fail(health, 5)
    refusal = health.admit(100 + OPEN_S - 0.1)
    assert isinstance(refusal, errors.CircuitOpen)
    assert refusal.retry_after_s is not None
    assert health.admit(100 + OPEN_S) is None
    assert health.admit(100 + OPEN_S) is not None  # one at a time
    health.succeeded(health.ticket)
    assert not health.is_open
    assert health.admit(100 + OPEN_S) is None


def test_a_probe_that_fails_doubles_the_time() -> None:
    health = Health()
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
    health = Health()
    fail(health, 5)
    assert health.admit(200) is None
    health.let_go(health.ticket)
    assert health.admit(200) is None


def test_what_was_under_way_when_it_opened_does_not_open_it_further() -> None:
    health = Health()
    for _ in range(50):
        assert health.admit(100) is None
    ticket = health.ticket
    for _ in range(50):
        health.failed(DOWN, "target", 101, ticket)
    assert health.admit(101 + OPEN_S) is None


def test_a_key_that_is_refused_is_out_at_once_and_says_so() -> None:
    health = Health()
    fail(health, 1, harm="key")
    refusal = health.admit(100 + KEY_OPEN_S - 0.1)
    assert isinstance(refusal, errors.UpstreamAuthFailed)
    assert refusal is not REFUSED
    assert health.admit(100 + KEY_OPEN_S) is None


def test_it_can_be_told_never_to_refuse() -> None:
    health = Health(breaks=False)
    fail(health, 100)
    assert health.admit(100) is None


@pytest.mark.row(29)
def test_an_outage_is_not_multiplied() -> None:
    health = Health(breaks=False)
    allowed = 0
    for number in range(1000):
        now = 100 + number / 100
        assert health.admit(now) is None
        allowed += health.may_retry(now)
    assert 150 <= allowed <= 203


def test_three_repeats_are_always_allowed() -> None:
    health = Health()
    assert [health.may_retry(100) for _ in range(5)] == [True, True, True, False, False]
    assert health.may_retry(100 + WINDOW_S)


def test_the_board_knows_the_same_target_again_and_not_all_for_ever() -> None:
    board = Board()
    first = board.of("groq", 0, "llama")
    assert board.of("groq", 0, "llama") is first
    assert board.of("groq", 1, "llama") is not first
    for number in range(MAX_TARGETS):
        board.of("groq", 0, f"model-{number}")
        board.of("groq", 0, "llama")
    assert board.of("groq", 0, "llama") is first
    assert len(board._known) == MAX_TARGETS


def test_what_was_under_way_before_says_nothing_of_a_probe() -> None:
    health = Health()
    assert health.admit(100) is None
    old = health.ticket
    fail(health, 5)
    assert health.admit(200) is None
    probe = health.ticket
    health.let_go(old)
    assert health.admit(200) is not None  # the probe is still under way
    health.failed(DOWN, "target", 200, old)
    health.succeeded(old)
    assert health.is_open
    health.succeeded(probe)
    assert not health.is_open


def test_what_opened_it_keeps_no_request_alive() -> None:
    class Request:
        pass

    def ask(request: Request) -> None:
        raise errors.UpstreamAuthFailed("refused")

    health, request = Health(), Request()
    alive = weakref.ref(request)
    assert health.admit(100) is None
    try:
        ask(request)
    except errors.UpstreamAuthFailed as exc:
        health.failed(exc, "key", 100, health.ticket)
    del request
    gc.collect()
    assert health.is_open
    assert alive() is None
