"""Failed answers -> errors, by table."""

from __future__ import annotations

import email.utils
import json
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy import errors
from sanic_proxy.upstream.error_parser import (
    Rule,
    error_from_answer,
    error_in_band,
    message_of,
    retry_after_s,
    safe_text,
)


def error_of(status: int, body: object = b"", **headers: str) -> errors.ProxyError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return error_from_answer(status, {k.replace("_", "-"): v for k, v in headers.items()}, data)


@pytest.mark.parametrize("status", range(300, 600))
def test_no_status_makes_an_error_of_the_wrong_side(status: int) -> None:
    made = error_of(status, {"error": {"message": "m", "type": "t", "code": "c"}})
    if status < 400 or status in {401, 403} or status >= 500:
        assert made.status in {500, 502, 503, 504}
    else:
        assert 400 <= made.status < 500
    assert made.as_object()["message"]


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
def test_retry_after_is_clamped_seconds(value: str, expected: int | None) -> None:
    assert retry_after_s({"retry-after": value}) == expected


@pytest.mark.row(27)
def test_retry_after_may_be_a_date_or_milliseconds() -> None:
    assert retry_after_s({"retry-after": email.utils.formatdate(time.time() + 30, usegmt=True)}) in {
        29,
        30,
        31,
    }
    assert retry_after_s({"retry-after": email.utils.formatdate(0, usegmt=True)}) == 1
    assert retry_after_s({"retry-after-ms": "1500", "retry-after": "9"}) == 2
    assert retry_after_s({}) is None


@pytest.mark.row(27)
@given(st.text())
def test_no_retry_after_leaves_the_bounds(value: str) -> None:
    assert (retry_after_s({"retry-after": value}) or 1) in range(1, 61)


@pytest.mark.parametrize(
    ("parsed", "message"),
    [
        ({"error": "text"}, "text"),
        ({"error": {"message": "inner"}}, "inner"),
        ({"error": {"completions": {"m": {"completion": {"error": "vendor"}}}}}, "vendor"),
        ({"message": "m"}, "m"),
        ({"detail": "d"}, "d"),
        ([{"error": {"message": "first"}}], "first"),
        ({"error": {"message": 7}}, ""),
        ("x", ""),
        (None, ""),
    ],
)
def test_the_sentence_is_found_in_every_shape(parsed: Any, message: str) -> None:
    assert message_of(parsed) == message


@pytest.mark.row(76)
@pytest.mark.parametrize(
    "text",
    ["key sk-abcdefghijkl is bad", "Bearer abc.def", "gsk_0123456789abc", "AIzaSyA-0123456789abcdefgh"],
)
def test_what_looks_like_a_key_is_cut_out(text: str) -> None:
    assert "[redacted]" in safe_text(text)
    assert not re.search(r"abcdefghijkl|abc\.def|0123456789", safe_text(text))


def test_a_text_is_printable_and_bounded() -> None:
    assert safe_text("a\r\x00\x1b[31mb") == "a   [31mb"
    assert len(safe_text("x" * 10_000)) == 2000


def test_html_is_no_message() -> None:
    made = error_of(400, b"<html><script>steal()</script><h1>Bad &amp; ugly</h1></html>")
    assert "<" not in made.message
    assert "steal" not in made.message


def test_a_providers_rule_comes_first() -> None:
    rule = Rule(frozenset({422}), re.compile("daily"), errors.InsufficientQuota)
    body = json.dumps({"error": "daily limit"}).encode()
    assert isinstance(error_from_answer(422, {}, body, rules=[rule]), errors.InsufficientQuota)
    assert error_from_answer(422, {}, b'{"error":"other"}', rules=[rule]).status == 422


def test_only_waiting_errors_carry_a_wait() -> None:
    assert error_of(429, b"", retry_after="3").retry_after_s == 3
    assert error_of(503, b"", retry_after="3").retry_after_s == 3
    assert error_of(400, b"", retry_after="3").retry_after_s is None


@pytest.mark.parametrize(
    ("parsed", "kind"),
    [
        ({"error": {"message": "m", "code": 503}}, errors.UpstreamUnavailable),
        ({"error": {"message": "m", "type": "rate_limit_error"}}, errors.RateLimited),
        ({"error": {"message": "m", "type": "authentication_error"}}, errors.UpstreamAuthFailed),
        ({"error": {"message": "m"}}, errors.UpstreamReportedError),
        ({"error": "text"}, errors.UpstreamError),
        ({"error": True}, errors.UpstreamError),
    ],
)
def test_an_error_inside_a_success_keeps_its_meaning(parsed: Any, kind: type[errors.ProxyError]) -> None:
    assert isinstance(error_in_band(parsed), kind)
