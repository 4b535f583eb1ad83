"""Every error is OpenAI's error object with a request id."""

from __future__ import annotations

import json
import re

import pytest
from sanic import exceptions

from sanic_proxy.errors import ProxyError, RateLimited
from sanic_proxy.server.error_responses import as_proxy_error, error_headers
from tests.support.proxy import Proxy
from tests.support.settings import GROQ_KEY
from tests.support.upstream import Exchange, Script, Upstream

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
    assert proxy.request("DELETE", "/v1/models").headers["allow"] == "GET, HEAD"
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
def test_a_bug_reveals_nothing_to_the_client() -> None:
    error = as_proxy_error(ZeroDivisionError("secret"))
    assert type(error) is ProxyError
    assert (error.status, error.type, error.code) == (500, "server_error", None)
    assert "secret" not in error.message


def test_retry_after_is_in_seconds() -> None:
    assert error_headers(RateLimited("x", retry_after_s=7)) == [("retry-after", "7")]


def rejects(status: int, body: object, *headers: tuple[str, str], kind: str = "application/json") -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(body, status, *headers, kind=kind)

    return script


@pytest.mark.parametrize("is_streaming", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("status", [200, 400, 401, 404, 421, 429, 460, 500, 503])
def test_an_error_comes_with_the_providers_headers_and_name(
    proxy: Proxy, upstream: Upstream, status: int, is_streaming: bool
) -> None:
    headers = [("x-ratelimit-remaining-requests", "3"), ("x-request-id", "up-1"), ("set-cookie", "a=b")]
    upstream.on("fails", rejects(status, {"error": {"message": "m", "code": "c"}}, *headers))
    reply = proxy.chat("groq/fails", stream=is_streaming)
    assert reply.status >= 400
    assert reply.headers["x-sanic-proxy-provider"] == "groq"
    assert reply.headers["x-sanic-proxy-route"].startswith("groq/fails ")
    assert "set-cookie" not in reply.headers
    if status != 200:
        assert reply.headers["x-ratelimit-remaining-requests"] == "3"
        assert reply.headers["x-upstream-request-id"] == "up-1"
        assert reply.headers["x-request-id"] != "up-1"


def test_an_error_before_a_provider_is_chosen_names_none(proxy: Proxy) -> None:
    assert "x-sanic-proxy-provider" not in proxy.chat("nobody/m").headers


@pytest.mark.parametrize("status", [421, 460, 498, 499])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
def test_an_empty_answer_keeps_its_odd_status(
    proxy: Proxy, upstream: Upstream, status: int, path: str
) -> None:
    upstream.on("fails", rejects(status, b""))
    body = {"model": "groq/fails", "messages": [{"role": "user", "content": "Hi"}], "input": "Hi"}
    reply = proxy.request("POST", path, body)
    assert reply.status == status
    assert str(status) in reply.error["message"]
    assert reply.headers["x-sanic-proxy-provider"] == "groq"


def test_the_providers_fields_follow_the_standard_ones(proxy: Proxy, upstream: Upstream) -> None:
    error = {"message": "m", "code": 400, "metadata": {"raw": f"no {GROQ_KEY}", "provider_name": "P"}}
    upstream.on("fails", rejects(400, {"error": error, "user_id": "org_1"}))
    reply = proxy.chat("groq/fails")
    assert list(reply.error) == ["message", "type", "param", "code", "metadata"]
    assert reply.error["metadata"] == {"raw": "no [redacted]", "provider_name": "P"}
    assert "org_1" not in reply.body.decode()


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/json"])
@pytest.mark.parametrize("is_streaming", [False, True], ids=["whole", "streamed"])
def test_a_page_is_for_the_log_and_not_for_the_client(
    proxy: Proxy, upstream: Upstream, kind: str, is_streaming: bool
) -> None:
    name = f"{kind[:4]}-{is_streaming}"
    page = f"<!DOCTYPE html><title>gw-{name}.internal</title>\n<p>{GROQ_KEY}\n<p>no server".encode()
    upstream.on("fails", rejects(503, page, kind=kind))
    reply = proxy.chat("groq/fails", stream=is_streaming)
    assert reply.status == 503
    assert reply.error["message"] == "The provider answered HTTP 503 with an HTML page"
    assert "internal" not in f"{reply.headers}{reply.body.decode()}"
    proxy.wait_for_log(f"gw-{name}.internal")
    (line,) = [line for line in proxy.log.splitlines() if f"gw-{name}.internal" in line]
    assert " warning " in line
    assert line.endswith(f"gw-{name}.internal [redacted] no server")


def test_why_access_is_denied_reaches_the_client_and_the_log(proxy: Proxy, upstream: Upstream) -> None:
    text = "Your organization must be verified to use the model `seldom`"
    upstream.on("fails", rejects(403, {"error": {"message": text, "code": "model_not_found"}}))
    reply = proxy.chat("groq/fails")
    assert (reply.status, reply.error["code"], reply.error["message"]) == (
        502,
        "upstream_access_denied",
        text,
    )
    proxy.wait_for_log(text)
    assert any(text in line and " warning " in line for line in proxy.log.splitlines())


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"message": "m", "code": "429"}}, (429, "rate_limit_error", "rate_limit_exceeded")),
        (
            {"error": {"message": "m", "type": "overloaded_error"}},
            (503, "server_error", "upstream_unavailable"),
        ),
        ({"object": "error", "message": "m", "code": 500}, (502, "server_error", "upstream_error")),
        (
            {"code": 20012, "message": "Model does not exist"},
            (404, "invalid_request_error", "model_not_found"),
        ),
        (
            {"base_resp": {"status_code": 1008, "status_msg": "m"}},
            (429, "insufficient_quota", "insufficient_quota"),
        ),
        ({"detail": "m"}, (502, "server_error", "upstream_error")),
    ],
)
@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/embeddings", "/v1/rerank", "/v1/images/generations"]
)
def test_an_error_inside_a_success_is_one_on_every_endpoint(
    proxy: Proxy, upstream: Upstream, path: str, body: object, expected: tuple[int, str, str | None]
) -> None:
    upstream.on("fails", rejects(200, body))
    request = {"model": "groq/fails", "messages": [{"role": "user", "content": "Hi"}], "input": "Hi"}
    reply = proxy.request("POST", path, {**request, "query": "q", "documents": ["d"], "prompt": "p"})
    assert (reply.status, reply.error["type"], reply.error["code"]) == expected
