"""Failed answers and errors inside good ones -> our errors, by table."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from sanic_proxy import errors
from sanic_proxy.dialects.chat import error_object
from sanic_proxy.upstream.error_parser import (
    Rule,
    error_from_answer,
    error_in_band,
    error_in_line,
)
from tests.support.vendor_errors import MAXIMUM, VENDORS, Vendor, openai


def error_of(status: int, body: object = b"", **headers: str) -> errors.ProxyError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return error_from_answer(status, {k.replace("_", "-"): v for k, v in headers.items()}, data)


@pytest.mark.parametrize("row", VENDORS, ids=lambda row: row.name)
def test_a_vendors_error_reaches_the_client_by_its_cause(row: Vendor) -> None:
    made = error_from_answer(row.status, row.headers, row.data)
    assert (type(made), made.status, made.code) == (row.kind, row.answer, row.code)
    assert row.message in made.message
    assert made.upstream_status == row.status or row.kind in {errors.RateLimited, errors.UpstreamUnavailable}
    assert made.param == row.param
    if row.type is not None:
        assert made.type == row.type
    if row.wait_s is not None:
        assert made.wait_s == pytest.approx(row.wait_s)
        assert made.retry_after_s in range(1, 61)
    assert set(row.details) <= set(made.details)
    assert made.blames_target is not row.is_blameless
    assert list(error_object(made))[:4] == ["message", "type", "param", "code"]


@pytest.mark.parametrize("row", VENDORS, ids=lambda row: row.name)
def test_no_error_shows_a_page_or_has_a_type_of_the_wrong_side(row: Vendor) -> None:
    made = error_from_answer(row.status, row.headers, row.data)
    shown = json.dumps(error_object(made))
    assert not re.search(r"<[a-zA-Z!?]", made.message)
    assert not re.search(r"gw7|10\.0\.0\.7", shown)
    assert made.status < 500 or "invalid" not in made.type


@pytest.mark.parametrize("status", range(300, 600))
def test_no_status_makes_an_error_of_the_wrong_side(status: int) -> None:
    made = error_of(status, {"error": {"message": "m", "type": "t", "code": "c"}})
    if status < 400 or status in {401, 403} or status >= 500:
        assert made.status in {500, 502, 503, 504}
    else:
        assert made.status == (429 if status == 402 else status)
    assert error_object(made)["message"]


ROWS_AS_TEXT = [
    ("429", 429),
    ("503", 503),
    ("529", 529),
    ("504", 504),
    ("500", 500),
    ("400", 400),
    ("404", 404),
    ("overloaded_error", 529),
    ("rate_limit_error", 429),
    ("RESOURCE_EXHAUSTED", 429),
    ("UNAVAILABLE", 503),
    ("DEADLINE_EXCEEDED", 504),
    ("server_error", 500),
    ("invalid_request_error", 400),
]


@pytest.mark.parametrize("key", ["code", "status", "type"])
@pytest.mark.parametrize(("code", "status"), ROWS_AS_TEXT)
def test_a_code_as_text_is_the_status_it_stands_for(key: str, code: str, status: int) -> None:
    in_band = error_in_band({"error": {"message": "m", key: code}})
    answer = error_of(status, {"error": {"message": "m", key: code}})
    assert type(in_band) is type(answer)
    assert (in_band.status, in_band.type) == (answer.status, answer.type)
    assert in_band.status < 500 or "invalid" not in in_band.type


@pytest.mark.parametrize(
    "code",
    [
        "rate_limit_exceeded",
        "insufficient_quota",
        "context_length_exceeded",
        "content_policy_violation",
        "model_not_found",
        "invalid_api_key",
        "ThrottlingException",
    ],
)
def test_an_exact_code_needs_no_status(code: str) -> None:
    status = {"rate_limit_exceeded": 429, "insufficient_quota": 429, "model_not_found": 404}.get(code, 400)
    in_band, answer = (
        error_in_band({"error": {"message": "m", "code": code}}),
        error_of(status, openai("m", None, code)),
    )
    assert type(in_band) is type(answer)
    assert (in_band.status, in_band.type, in_band.code) == (answer.status, answer.type, answer.code)


@pytest.mark.parametrize(
    ("parsed", "kind", "status", "message"),
    [
        ({"error": {"message": "m", "code": 503}}, errors.UpstreamUnavailable, 503, "m"),
        ({"error": {"message": "m", "code": 429}}, errors.RateLimited, 429, "m"),
        (
            {"error": {"message": "m", "type": "authentication_error"}},
            errors.UpstreamAuthFailed,
            502,
            "operator",
        ),
        ({"error": {"message": "m", "type": "permission_error"}}, errors.UpstreamAccessDenied, 502, "m"),
        ({"error": {"message": "m"}}, errors.UpstreamReportedError, 502, "m"),
        ({"error": {"message": "m", "type": "t"}}, errors.UpstreamReportedError, 502, "m"),
        ({"error": "text"}, errors.UpstreamReportedError, 502, "text"),
        ({"error": True}, errors.UpstreamReportedError, 502, "reported an error"),
        ({"error": {"message": MAXIMUM}}, errors.ContextLengthExceeded, 400, "8192"),
        ({"object": "error", "message": "boom", "code": 500}, errors.UpstreamError, 502, "boom"),
        ({"object": "error", "message": "boom", "code": 50001}, errors.UpstreamReportedError, 502, "boom"),
        (
            {"code": 20012, "message": "Model does not exist. Please check it carefully.", "data": None},
            errors.UpstreamRejected,
            404,
            "Model does not exist",
        ),
        (
            {"code": 30001, "message": "Sorry, your account balance is insufficient"},
            errors.InsufficientQuota,
            429,
            "balance",
        ),
        ({"error": "CUDA out of memory"}, errors.UpstreamUnavailable, 503, "CUDA"),
        (
            {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}},
            errors.RateLimited,
            429,
            "rate limit",
        ),
        (
            {"base_resp": {"status_code": 1004, "status_msg": "login fail"}},
            errors.UpstreamAuthFailed,
            502,
            "operator",
        ),
        ({"base_resp": {"status_code": 1008, "status_msg": "low"}}, errors.InsufficientQuota, 429, "low"),
        (
            {"choices": None, "base_resp": {"status_code": 1026, "status_msg": "new_sensitive"}},
            errors.ContentFiltered,
            400,
            "sensitive",
        ),
        ({"base_resp": {"status_code": 1, "status_msg": "odd"}}, errors.UpstreamReportedError, 502, "odd"),
        ({"detail": "Internal Server Error"}, errors.UpstreamReportedError, 502, "Internal"),
        ({"errors": [{"code": 7009, "message": "upstream"}]}, errors.UpstreamReportedError, 502, "upstream"),
        ({"status": 429, "message": "slow"}, errors.RateLimited, 429, "slow"),
        (
            [{"error": {"code": 503, "message": "m", "status": "UNAVAILABLE"}}],
            errors.UpstreamUnavailable,
            503,
            "m",
        ),
        ("nothing", errors.UpstreamReportedError, 502, "reported an error"),
    ],
)
def test_an_error_inside_a_success_keeps_its_meaning(
    parsed: Any, kind: type[errors.ProxyError], status: int, message: str
) -> None:
    made = error_in_band(parsed)
    assert (type(made), made.status) == (kind, status)
    assert message in made.message
    assert made.upstream_status is not None
    assert made.status < 500 or made.type in {"server_error", "t"}


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        (b'error: {"code": 429, "message": "slow"}', errors.RateLimited, "slow"),
        (b'error: {"error": {"code": 503, "message": "down"}}\n', errors.UpstreamUnavailable, "down"),
        (b"error: something broke", errors.UpstreamReportedError, "something broke"),
        (b"Error:", errors.UpstreamReportedError, "reported"),
        (b'{"error": {"message": "m", "code": "429"}}', errors.RateLimited, "m"),
        (b' {"detail": "no"}', errors.UpstreamReportedError, "no"),
    ],
)
def test_an_error_outside_of_frames_is_read(line: bytes, kind: type[errors.ProxyError], message: str) -> None:
    made = error_in_line(line)
    assert type(made) is kind
    assert message in made.message


@pytest.mark.parametrize(
    "line", [b"", b"data: {}", b"{}", b'{"choices": [{}]}', b"errors are fine", b": ping", b"[1]"]
)
def test_a_line_without_an_error_gives_none(line: bytes) -> None:
    assert error_in_line(line) is None


def test_a_providers_rule_comes_first() -> None:
    rule = Rule(frozenset({422}), re.compile("daily"), errors.InsufficientQuota)
    body = json.dumps({"error": "daily limit"}).encode()
    assert isinstance(error_from_answer(422, {}, body, rules=[rule]), errors.InsufficientQuota)
    assert error_from_answer(422, {}, b'{"error":"other"}', rules=[rule]).status == 422
    assert isinstance(error_in_band({"error": "daily limit"}, rules=[rule]), errors.InsufficientQuota)


def test_only_errors_that_pass_by_waiting_carry_a_wait() -> None:
    assert error_of(429, b"", retry_after="3").retry_after_s == 3
    assert error_of(503, b"", retry_after="3").retry_after_s == 3
    assert error_of(498, b"", retry_after="3").retry_after_s == 3
    assert error_of(400, b"", retry_after="3").retry_after_s is None
    long = error_of(429, b"", retry_after="3600")
    assert (long.retry_after_s, long.wait_s) == (60, 3600)


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_an_error_brings_the_providers_headers(status: int) -> None:
    headers = {
        "x-ratelimit-remaining-requests": "0",
        "openai-processing-ms": "7",
        "openai-organization": "org",
        "x-request-id": "up-1",
        "set-cookie": "a=b",
    }
    assert dict(error_from_answer(status, headers, b"").headers) == {
        "x-ratelimit-remaining-requests": "0",
        "openai-processing-ms": "7",
        "x-upstream-request-id": "up-1",
    }


@pytest.mark.parametrize("status", [400, 403, 502, 503])
def test_the_text_of_a_page_is_for_the_log(status: int) -> None:
    page = b"<html><title>gw.internal</title><script>steal()</script><h1>Bad\n gateway</h1></html>"
    made = error_of(status, page)
    assert made.log_text == "gw.internal Bad gateway"
    assert "gw.internal" not in json.dumps(error_object(made))


def test_details_of_the_key_go_to_the_log_only() -> None:
    made = error_of(401, openai("Incorrect API key provided: abc", None, "invalid_api_key"))
    assert "Incorrect" in made.log_text
    assert "Incorrect" not in made.message
    assert made.details == {}


# A client chooses the text of its request, and some errors repeat it.
@pytest.mark.parametrize(
    "text", ["Incorrect API key provided", "insufficient balance", "your credit balance is too low"]
)
def test_a_request_cannot_make_its_error_speak_of_the_key(text: str) -> None:
    repeated = [
        {"loc": ["body", "user"], "msg": "Input should be null", "input": {"code": "invalid_api_key"}}
    ]
    for body in (openai(f"Invalid value: '{text}'", "invalid_request_error"), {"detail": repeated}):
        assert type(error_of(400, body)) is errors.UpstreamRefusedRequest
