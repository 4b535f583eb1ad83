"""Which of a provider's headers come back."""

from __future__ import annotations

import pytest

from sanic_proxy.upstream.response_headers import is_header_value, returned_headers


@pytest.mark.parametrize(
    ("name", "returned"),
    [
        ("x-ratelimit-limit-requests", "x-ratelimit-limit-requests"),
        ("X-RateLimit-Reset", "x-ratelimit-reset"),
        ("openai-processing-ms", "openai-processing-ms"),
        ("openai-organization", None),
        ("X-Request-Id", "x-upstream-request-id"),
        ("request-id", "x-upstream-request-id"),
        ("set-cookie", None),
        ("server", None),
        ("retry-after", None),
        ("x-ratelimit-" + "x" * 60, None),
    ],
)
def test_a_header_comes_back_or_stays(name: str, returned: str | None) -> None:
    assert returned_headers({name: "7"}) == ([(returned, "7")] if returned else [])


def test_values_that_no_header_may_have_stay() -> None:
    assert is_header_value("a b\t~")
    assert returned_headers({"x-ratelimit-limit": "a\r\nb: c", "x-request-id": "\xe4"}) == []
