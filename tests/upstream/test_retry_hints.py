"""The wait that a provider states."""

from __future__ import annotations

import email.utils
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.upstream.retry_hints import clamped, duration_s, retry_after_s, wait_s


@pytest.mark.row(27)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("7", 7),
        ("0", 1),
        ("0.4", 1),
        ("1.2", 2),
        ("100000", 60),
        ("-5", None),
        ("1e9", None),
        ("soon", None),
        ("", None),
    ],
)
def test_the_clients_retry_after_is_clamped(value: str, expected: int | None) -> None:
    assert retry_after_s({"retry-after": value}) == expected


@pytest.mark.row(27)
def test_retry_after_may_be_a_date_or_milliseconds() -> None:
    in_half_an_hour = email.utils.formatdate(time.time() + 1800, usegmt=True)
    assert wait_s({"retry-after": in_half_an_hour}) == pytest.approx(1800, abs=60)
    assert retry_after_s({"retry-after": in_half_an_hour}) == 60
    assert retry_after_s({"retry-after": email.utils.formatdate(0, usegmt=True)}) == 1
    assert wait_s({"retry-after": email.utils.formatdate(0, usegmt=True)}) == 0
    assert wait_s({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    assert wait_s({}) is None


@pytest.mark.row(27)
@given(st.text())
def test_no_retry_after_leaves_the_bounds(value: str) -> None:
    assert (retry_after_s({"retry-after": value}) or 1) in range(1, 61)
    assert (wait_s({"retry-after": value}, None, value) or 0) >= 0
    assert (wait_s({"x-ratelimit-remaining": "0", "x-ratelimit-reset": value}) or 0) >= 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7m12s", 432),
        ("1.2s", 1.2),
        ("6m0s", 360),
        ("350ms", 0.35),
        ("1h2m3s", 3723),
        ("20 seconds", 20),
        ("5 minutes", 300),
        ("1 day, 2 hours", 93600),
        ("3600s", 3600),
        ("12", None),
        ("5 models", None),
        ("", None),
    ],
)
def test_a_duration_is_read(text: str, seconds: float | None) -> None:
    assert duration_s(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (
            "Rate limit reached on tokens per min: Limit 60, Used 59. Please try again in 7m12s. Visit x",
            432,
        ),
        ("Please try again in 1.2s.", 1.2),
        ("Please retry in 36.123s.", 36.123),
        ("Please retry after 20 seconds.", 20),
        ("Try again in 5 minutes", 300),
        ("Please wait 3 minutes before the next request", 180),
        ("Rate limit: 5 requests per 1 minute", None),
        ("Please try again later", None),
        ("Limit 10s", None),
    ],
)
def test_a_wait_is_parsed_from_a_sentence(text: str, seconds: float | None) -> None:
    assert wait_s({}, None, text) == (None if seconds is None else pytest.approx(seconds))


def nested(delay: Any) -> Any:
    return [
        {"error": {"code": 429, "details": [{"@type": "x"}, {"@type": "RetryInfo", "retryDelay": delay}]}}
    ]


@pytest.mark.parametrize(
    ("delay", "seconds"), [("36s", 36), ("1.5s", 1.5), ({"seconds": 3, "nanos": 5e8}, 3.5), ("x", None)]
)
def test_a_retry_delay_is_found_in_the_details(delay: Any, seconds: float | None) -> None:
    assert wait_s({}, nested(delay)) == seconds
    assert wait_s({"retry-after": "9"}, nested(delay)) == 9


def test_an_exhausted_limit_gives_its_reset_time() -> None:
    headers = {
        "X-RateLimit-Remaining-Requests": "0",
        "X-RateLimit-Reset-Requests": "20s",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "6m0s",
        "x-ratelimit-remaining-days": "5",
        "x-ratelimit-reset-days": "24h0m0s",
    }
    assert wait_s(headers) == 360
    assert wait_s({"x-ratelimit-reset": "30"}) is None
    assert wait_s({"x-ratelimit-reset": "30", "x-ratelimit-remaining": "0"}) == 30


@pytest.mark.parametrize("scale", [1, 1000], ids=["seconds", "milliseconds"])
def test_a_reset_may_be_a_point_in_time(scale: int) -> None:
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int((time.time() + 1800) * scale))}
    assert wait_s(headers) == pytest.approx(1800, abs=60)
    assert wait_s({}, {"error": {"metadata": {"headers": headers}}}) == pytest.approx(1800, abs=60)


def test_clamped_waits_are_whole_seconds() -> None:
    assert [clamped(wait) for wait in (-5, 0, 0.1, 1, 1.1, 59.5, 60, 1e12)] == [1, 1, 1, 1, 2, 60, 60, 60]
