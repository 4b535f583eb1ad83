"""Straico's error texts."""

from __future__ import annotations

import json

import pytest

from sanic_proxy import errors
from sanic_proxy.failures import error_from_answer
from sanic_proxy.providers.straico.failures import RULES


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (422, "The daily API limit for spending coins has been reached", errors.InsufficientQuota),
        (400, "The number of images will exceed the daily generation limit", errors.InsufficientQuota),
        (422, "Model not found: nope/nope", errors.ModelNotFound),
        (422, "temperature is wrong", errors.UpstreamRefusedRequest),
        (500, "**Warning:** It seems we couldn't process your request this time", errors.UpstreamUnavailable),
        (500, "Excessively large context for the LLM", errors.UpstreamUnavailable),
        (500, "boom", errors.UpstreamError),
        (401, "Token is not valid", errors.UpstreamAuthFailed),
        (404, "no", errors.ModelNotFound),
    ],
)
def test_a_text_means_what_it_means(status: int, text: str, kind: type[errors.ProxyError]) -> None:
    body = json.dumps({"error": text, "success": False}).encode()
    assert type(error_from_answer(status, {}, body, rules=RULES)) is kind
