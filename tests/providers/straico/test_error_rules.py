"""Straico's error texts."""

from __future__ import annotations

import json

import pytest

from sanic_proxy import errors
from sanic_proxy.providers.straico.error_rules import RULES
from sanic_proxy.upstream.error_parser import error_from_answer

CATCH_ALL = "**Warning:** It seems we couldn't process your request this time. Context length: 131000"


def error(status: int, text: str) -> errors.ProxyError:
    body = json.dumps({"error": text, "success": False}).encode()
    return error_from_answer(status, {}, body, rules=RULES)


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (422, "The daily API limit for spending coins has been reached", errors.InsufficientQuota),
        (400, "The number of images will exceed the daily generation limit", errors.InsufficientQuota),
        (422, "Model not found: nope/nope", errors.UpstreamRejected),
        (422, "temperature is wrong", errors.UpstreamRefusedRequest),
        (500, "**Warning:** It seems we couldn't process your request this time", errors.UpstreamUnavailable),
        (500, "Excessively large context for the LLM (context length: 9)", errors.ContextLengthExceeded),
        (422, "The message exceeds the word limit of this model", errors.ContextLengthExceeded),
        (422, "context length limit exceeded", errors.ContextLengthExceeded),
        (500, "boom", errors.UpstreamError),
        (401, "Token is not valid", errors.UpstreamAuthFailed),
        (404, "no", errors.UpstreamRejected),
        (429, "Daily limit of 50,000 coins", errors.InsufficientQuota),
        (422, "API spending limit has been reached", errors.InsufficientQuota),
        (404, "", errors.UpstreamRejected),
        (502, "**Warning:** It seems we couldn’t process your request", errors.UpstreamUnavailable),
    ],
)
def test_an_error_text_has_its_error_type(status: int, text: str, kind: type[errors.ProxyError]) -> None:
    assert type(error(status, text)) is kind


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (422, "Token limit exceeded for this model"),
        (422, "context length limit exceeded"),
        (400, "max_tokens limit exceeded"),
        (429, "Rate limit exceeded, retry in a second"),
        (403, "Rate limit reached"),
    ],
)
def test_other_limits_are_not_reported_as_quota(status: int, text: str) -> None:
    assert not isinstance(error(status, text), errors.InsufficientQuota)


@pytest.mark.parametrize("status", [400, 404, 422])
def test_an_unknown_model_is_a_404_with_any_status(status: int) -> None:
    made = error(status, "Model not found: x")
    assert (made.status, made.code, made.blames_target) == (404, "model_not_found", False)


def test_the_daily_limit_is_not_retryable() -> None:
    quota = error(422, "You have reached your daily coin limit")
    assert (quota.status, quota.code, quota.retryable) == (429, "insufficient_quota", False)


def test_the_general_message_keeps_its_text() -> None:
    unavailable = error(500, CATCH_ALL)
    assert (unavailable.status, unavailable.message) == (503, CATCH_ALL)
