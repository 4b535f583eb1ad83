"""What each failure means for the next attempt, the target and the client."""

from __future__ import annotations

import pytest

from sanic_proxy import errors
from sanic_proxy.routing.policy import (
    MAX_UNANSWERED_S,
    MAX_WAIT_S,
    blame,
    is_rate_limit,
    may_succeed_soon,
    retry_after_s,
    retry_decision,
    wait_before,
)
from sanic_proxy.upstream.error_parser import error_from_answer, error_in_band

OBJECT: errors.ErrorObject = {"message": "no", "type": "t", "param": None, "code": None}


def answered(status: int, **headers: str) -> errors.ProxyError:
    return error_from_answer(
        status, {name.replace("_", "-"): value for name, value in headers.items()}, b"{}"
    )


def with_status(error: errors.ProxyError, status: int) -> errors.ProxyError:
    error.upstream_status = status
    return error


def waiting(
    error: errors.ProxyError, wait_s: float | None, clamped_s: int | None = None
) -> errors.ProxyError:
    error.wait_s, error.retry_after_s = wait_s, clamped_s
    return error


def rejected(status: int) -> errors.ProxyError:
    return with_status(errors.UpstreamRejected(OBJECT, status=status), status)


def context() -> errors.ProxyError:
    return with_status(errors.ContextLengthExceeded(OBJECT, status=400), 400)


def filtered() -> errors.ProxyError:
    return with_status(errors.ContentFiltered(OBJECT, status=400), 400)


def too_many_tokens() -> errors.ProxyError:
    return with_status(errors.RateLimited("too large for the limit of tokens per minute"), 413)


def disconnected(*, stale: bool = False, new: bool = False) -> errors.ProxyError:
    return errors.UpstreamDisconnected("x", is_stale_connection=stale, is_new_connection=new)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        *((answered(status), "repeat") for status in (408, 409, 429, 500, 502, 503, 504, 529)),
        *((answered(status), "move") for status in (401, 402, 403, 302)),
        *((answered(status), "final") for status in (400, 413, 422)),
        *((rejected(status), "move") for status in (404, 410, 423, 424, 425, 498, 499)),
        (context(), "other_model"),
        (filtered(), "dedicated"),
        (too_many_tokens(), "move"),
        (errors.InsufficientQuota("x"), "move"),
        (errors.UpstreamAccessDenied("x"), "move"),
        (errors.UpstreamConnectFailed("x"), "repeat"),
        (errors.UpstreamDnsFailed("x"), "repeat"),
        (errors.UpstreamConnectTimeout("x"), "repeat"),
        (errors.UpstreamTlsFailed("x"), "move"),
        # It may have been worked on, and billed: never again on the same target.
        (errors.UpstreamTimeout("x"), "move"),
        (errors.UpstreamStalled("x"), "move"),
        (errors.UpstreamBadResponse("x"), "move"),
        (errors.UpstreamBadFrame("x"), "move"),
        (disconnected(), "move"),
        (disconnected(stale=True), "repeat"),
        (disconnected(new=True), "repeat"),
        # The proxy's own refusals.
        (errors.InvalidRequest("x"), "final"),
        (errors.Overloaded("x"), "final"),
        (errors.ShuttingDown("x"), "final"),
        # A success that turns out to be a failure, before anything of it was seen.
        (error_in_band({"error": {"message": "overloaded", "code": 503}}), "repeat"),
        (error_in_band({"error": {"message": "overloaded"}}), "repeat"),
        (error_in_band({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}), "repeat"),
        (error_in_band({"error": {"message": "no", "code": "invalid_api_key"}}), "move"),
        (error_in_band({"error": {"message": "no", "code": 400}}), "final"),
    ],
)
def test_a_failure_is_repeated_moved_or_final(error: errors.ProxyError, expected: str) -> None:
    assert retry_decision(error) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        # Not worked on.
        (answered(429), "repeat"),
        (answered(409), "repeat"),
        (errors.UpstreamConnectFailed("x"), "repeat"),
        (answered(401), "move"),
        # Perhaps worked on.
        (answered(500), "final"),
        (rejected(424), "final"),
        (errors.UpstreamTimeout("x"), "final"),
        (errors.UpstreamBadResponse("x"), "final"),
        (disconnected(stale=True), "final"),
        (disconnected(new=True), "final"),
    ],
)
def test_a_request_that_creates_something_is_not_sent_twice(error: errors.ProxyError, expected: str) -> None:
    assert retry_decision(error, may_repeat=False) == expected


def test_a_late_disconnect_is_not_repeated_on_the_same_target() -> None:
    assert retry_decision(disconnected(new=True), elapsed_s=MAX_UNANSWERED_S / 2) == "repeat"
    assert retry_decision(disconnected(new=True), elapsed_s=MAX_UNANSWERED_S) == "move"


def test_a_final_error_is_final_whatever_its_class() -> None:
    error = answered(500)
    error.is_final = True
    assert retry_decision(error) == "final"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.UpstreamAuthFailed("x"), "key"),
        (answered(403), "access"),
        (errors.UpstreamAccessDenied("x"), "access"),
        (answered(402), "access"),
        (errors.InsufficientQuota("x"), "access"),
        (answered(429), "none"),
        (too_many_tokens(), "none"),
        (answered(400), "none"),
        (context(), "none"),
        (filtered(), "none"),
        (rejected(404), "none"),
        (rejected(410), "none"),
        (rejected(424), "target"),
        (rejected(498), "target"),
        (answered(500), "target"),
        (answered(302), "target"),
        (errors.UpstreamTimeout("x"), "target"),
        (errors.UpstreamConnectFailed("x"), "target"),
        (errors.UpstreamBadFrame("x"), "target"),
        (disconnected(), "target"),
        (disconnected(stale=True), "unknown"),
    ],
)
def test_a_failure_speaks_against_target_access_or_key(error: errors.ProxyError, expected: str) -> None:
    assert blame(error) == expected


def test_an_error_may_exempt_the_target() -> None:
    error = errors.UpstreamAuthFailed("x")
    error.blames_target = False
    assert blame(error) == "none"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (answered(429), True),
        (too_many_tokens(), False),
        (errors.InsufficientQuota("x"), False),
        (answered(503, retry_after="9"), False),
    ],
)
def test_only_a_rate_limit_concerns_later_requests(error: errors.ProxyError, expected: bool) -> None:
    assert is_rate_limit(error) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (answered(429, retry_after="2"), 2),
        (answered(503, retry_after_ms="2000"), 2),
        (waiting(errors.RateLimited("x"), 1.25, 2), 1.25),
        (waiting(errors.RateLimited("x"), MAX_WAIT_S + 0.1, 6), None),
        (answered(429, retry_after=str(MAX_WAIT_S + 1)), None),
        (disconnected(stale=True), 0),
    ],
)
def test_a_short_retry_after_is_waited_for(error: errors.ProxyError, expected: float | None) -> None:
    assert wait_before(error, 1) == expected


@pytest.mark.parametrize(("repeat", "longest"), [(1, 0.25), (2, 0.5), (4, 2.0)])
def test_waits_grow_and_differ(repeat: int, longest: float) -> None:
    waits = {wait_before(answered(500), repeat) for _ in range(50)}
    assert len(waits) > 10
    assert all(wait is not None and longest / 2 <= wait <= longest for wait in waits)


@pytest.mark.parametrize(
    ("error", "wait_s", "may_succeed"),
    [
        # Retryable errors always carry Retry-After, the provider's if it gave one.
        (answered(500), 1, True),
        (errors.UpstreamTimeout("x"), 1, True),
        (errors.ProxyError("x"), 1, True),
        (answered(429), 1, True),
        (answered(429, retry_after="7"), 7, True),
        (waiting(errors.RateLimited("x"), 1.2), 2, True),
        (errors.CircuitOpen("x", retry_after_s=4), 4, True),
        (rejected(498), 1, True),
        (rejected(424), 1, True),
        (errors.ClientError("x", status=408), 1, True),
        # No repeat within a minute can succeed.
        (waiting(errors.RateLimited("x"), 3600, 60), 60, False),
        (errors.RateLimited("x", retry_after_s=3590), 3590, False),
        (errors.InsufficientQuota("x"), 3600, False),
        (errors.UpstreamAuthFailed("x"), None, False),
        (errors.UpstreamAccessDenied("x"), None, False),
        (rejected(404), None, False),
        (rejected(410), None, False),
        (context(), None, False),
        (errors.InvalidRequest("x"), None, False),
        (errors.UpstreamTlsFailed("x"), None, False),
    ],
)
def test_clients_learn_when_a_repeat_may_succeed(
    error: errors.ProxyError, wait_s: int | None, may_succeed: bool
) -> None:
    assert retry_after_s(error) == wait_s
    assert may_succeed_soon(error) is may_succeed
