"""What each failure allows."""

from __future__ import annotations

import pytest

from sanic_proxy import errors
from sanic_proxy.routing.policy import MAX_WAIT_S, blame, retry_decision, wait_before
from sanic_proxy.upstream.error_parser import error_from_answer, error_in_band


def answered(status: int, **headers: str) -> errors.ProxyError:
    return error_from_answer(
        status, {name.replace("_", "-"): value for name, value in headers.items()}, b"{}"
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        *((answered(status), "again") for status in (408, 409, 429, 500, 502, 503, 504, 529)),
        *((answered(status), "elsewhere") for status in (401, 402, 403)),
        *((answered(status), "final") for status in (302, 400, 404, 413, 422)),
        (errors.UpstreamConnectFailed("x"), "again"),
        (errors.UpstreamDnsFailed("x"), "again"),
        (errors.UpstreamConnectTimeout("x"), "again"),
        (errors.UpstreamTlsFailed("x"), "elsewhere"),
        # What may have been worked on, and billed.
        (errors.UpstreamTimeout("x"), "final"),
        (errors.UpstreamDisconnected("x"), "final"),
        (errors.UpstreamBadResponse("x"), "final"),
        (errors.InvalidRequest("x"), "final"),
        # A success that turns out to be a failure, before anything of it was seen.
        (error_in_band({"error": {"message": "overloaded", "code": 503}}), "again"),
        (error_in_band({"error": {"message": "overloaded"}}), "again"),
        (error_in_band({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}), "again"),
        (error_in_band({"error": {"message": "no", "code": "invalid_api_key"}}), "elsewhere"),
        (error_in_band({"error": {"message": "no", "code": 400}}), "final"),
    ],
)
def test_only_what_is_safe_is_repeated(error: errors.ProxyError, expected: str) -> None:
    assert retry_decision(error) == expected


def test_what_creates_something_is_not_repeated_after_a_5xx() -> None:
    assert retry_decision(answered(500), may_repeat=False) == "final"
    assert retry_decision(answered(429), may_repeat=False) == "again"
    assert retry_decision(errors.UpstreamConnectFailed("x"), may_repeat=False) == "again"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (answered(401), "key"),
        (answered(402), "access"),
        (answered(403), "access"),
        (answered(429), "none"),
        (answered(400), "none"),
        (answered(404), "none"),
        (answered(500), "target"),
        (errors.UpstreamTimeout("x"), "target"),
        (errors.UpstreamConnectFailed("x"), "target"),
        (errors.UpstreamBadFrame("x"), "target"),
    ],
)
def test_a_failure_says_something_of_who_was_asked(error: errors.ProxyError, expected: str) -> None:
    assert blame(error) == expected


def test_a_short_wish_to_wait_is_honoured_and_a_long_one_is_not_sat_out() -> None:
    assert wait_before(answered(429, retry_after="2"), 1) == 2
    assert wait_before(answered(503, retry_after_ms="1500"), 1) == 2
    assert wait_before(answered(429, retry_after=str(MAX_WAIT_S + 1)), 1) is None


@pytest.mark.parametrize(("repeat", "longest"), [(1, 0.25), (2, 0.5), (4, 2.0)])
def test_waits_grow_and_differ(repeat: int, longest: float) -> None:
    waits = {wait_before(answered(500), repeat) for _ in range(50)}
    assert len(waits) > 10
    assert all(wait is not None and longest / 2 <= wait <= longest for wait in waits)


def test_what_is_not_the_targets_fault_is_not_held_against_it() -> None:
    error = errors.UpstreamAuthFailed("x")
    assert blame(error) == "key"
    error.blames_target = False
    assert blame(error) == "none"


def test_what_has_been_paid_for_is_not_begun_again() -> None:
    error = answered(500)
    error.is_final = True
    assert retry_decision(error) == "final"
