"""Straico's error texts, each as what it means."""

from __future__ import annotations

import json

import pytest

from sanic_proxy.errors import InsufficientQuota, ModelNotFound, ProxyError, UpstreamUnavailable
from sanic_proxy.failures import error_from_answer
from sanic_proxy.providers.straico.failures import RULES

CATCH_ALL = "**Warning:** It seems we couldn't process your request this time. Context length: 131000"


def error(status: int, text: str) -> ProxyError:
    body = json.dumps({"error": text, "success": False}).encode()
    return error_from_answer(status, {}, body, rules=RULES)


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (422, "You have reached your daily coin limit", InsufficientQuota),
        (429, "Daily limit of 50,000 coins", InsufficientQuota),
        (422, "API spending limit has been reached", InsufficientQuota),
        (422, "Model acme/x not found", ModelNotFound),
        (404, "Cannot GET", ModelNotFound),
        (404, "", ModelNotFound),
        (500, CATCH_ALL, UpstreamUnavailable),
        (502, CATCH_ALL.replace("'", "’"), UpstreamUnavailable),
        (500, "Excessively large context for the LLM (context length: 100000)", UpstreamUnavailable),
    ],
)
def test_a_text_means_one_error(status: int, text: str, expected: type[ProxyError]) -> None:
    assert type(error(status, text)) is expected


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
def test_a_limit_that_is_no_quota_is_not_called_one(status: int, text: str) -> None:
    assert not isinstance(error(status, text), InsufficientQuota)


def test_waiting_does_not_help_against_the_daily_limit() -> None:
    quota = error(422, "You have reached your daily coin limit")
    assert (quota.status, quota.code, quota.retryable) == (429, "insufficient_quota", False)


def test_the_catch_all_keeps_its_text() -> None:
    unavailable = error(500, CATCH_ALL)
    assert (unavailable.status, unavailable.message) == (503, CATCH_ALL)
