"""Whatever is wrong with a request, the answer is OpenAI's error object with a request id."""

from __future__ import annotations

import json
import re

import pytest
from sanic import exceptions

from sanic_proxy.errors import ProxyError, RateLimited
from sanic_proxy.server.error_responses import as_proxy_error, error_headers
from tests.support.proxy import Proxy

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"


def parsed(answer: bytes) -> tuple[int, dict[str, str], dict[str, object]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(status.split()[1]), headers, json.loads(body)["error"]


@pytest.mark.row(44, 59)
@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/9\r\n\r\n", 400),
        (b"GET /\xc3\xbc HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
        (HEAD + b"content-length: x\r\n\r\n", 400),
        (HEAD + b"content-length: 1\r\ncontent-length: 1\r\n\r\n", 400),
        (HEAD + b"expect: 200-ok\r\ncontent-length: 2\r\n\r\n{}", 417),
        (HEAD + b"content-length: 99999999999\r\n\r\n", 413),
        (HEAD + b"x: " + b"y" * 20000 + b"\r\n\r\n", 413),
        (HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"PATCH /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", 405),
        (b"GET /v2 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", 404),
    ],
)
def test_a_request_that_cannot_be_served_gets_an_error_object(
    proxy: Proxy, request_bytes: bytes, status: int
) -> None:
    got, headers, error = parsed(proxy.raw(request_bytes))
    assert got == status
    assert set(error) == {"message", "type", "param", "code"}
    assert headers["content-type"] == "application/json"
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", headers["x-request-id"])


@pytest.mark.row(59)
def test_a_wrong_method_names_the_right_ones(proxy: Proxy) -> None:
    assert proxy.request("DELETE", "/v1/models").headers["allow"] == "GET"
    assert proxy.request("GET", "/chat/completions").headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("given", "is_kept"),
    [
        ("abc-1._X", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("a b", False),
        ("a/b", False),
        ("\xe4", False),
    ],
)
def test_a_proper_request_id_is_kept(proxy: Proxy, given: str, is_kept: bool) -> None:
    reply = proxy.request("GET", "/health", headers={"x-request-id": given})
    assert (reply.headers["x-request-id"] == given) is is_kept


def test_every_finished_request_has_one_line_in_the_log(proxy: Proxy) -> None:
    request_id = "one-line-in-the-log"
    proxy.request("GET", "/nothing?key=secret-in-query", headers={"x-request-id": request_id})
    line = proxy.log_line(request_id)
    assert "status=404" in line
    assert "ended=not_found" in line
    assert "secret-in-query" not in proxy.log
    assert len([other for other in proxy.log.splitlines() if f"id={request_id} " in other]) == 1


@pytest.mark.row(54, 76)
def test_a_model_name_cannot_break_the_log(proxy: Proxy) -> None:
    proxy.chat('a"\r\nforged status=200', headers={"x-request-id": "forged-line"})
    assert r"\r\n" in proxy.log_line("forged-line")
    assert not any(line.startswith("forged") for line in proxy.log.splitlines())


@pytest.mark.parametrize(
    ("exception", "status", "code"),
    [
        (exceptions.BadRequest(), 400, "bad_request"),
        (exceptions.NotFound(), 404, "not_found"),
        (exceptions.RequestTimeout(), 408, "request_timeout"),
        (exceptions.PayloadTooLarge(), 413, "request_too_large"),
        (exceptions.ExpectationFailed(), 417, "expectation_failed"),
        (exceptions.ServiceUnavailable(), 503, "server_timeout"),
    ],
)
def test_what_sanic_raises_becomes_an_error_of_ours(exception: Exception, status: int, code: str) -> None:
    error = as_proxy_error(exception)
    assert (error.status, error.code) == (status, code)
    assert error.retryable is (status >= 500)


@pytest.mark.row(61)
def test_a_bug_tells_nothing_outward() -> None:
    error = as_proxy_error(ZeroDivisionError("secret"))
    assert type(error) is ProxyError
    assert (error.status, error.type, error.code) == (500, "server_error", None)
    assert "secret" not in error.message


def test_waiting_is_asked_for_in_seconds() -> None:
    assert error_headers(RateLimited("x", retry_after_s=7)) == [("retry-after", "7")]
