"""The door: keys, hosts and origins, through a real proxy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.proxy import Proxy, Reply, running_proxy

KEYS = ("client-key-1", "client-key-2-" + "x" * 60)
BODY = {"model": "echo/echo", "messages": [{"role": "user", "content": "x"}]}
ORIGIN = "https://app.example"


@pytest.fixture(scope="module")
def locked() -> Iterator[Proxy]:
    settings = {"SANIC_PROXY_API_KEYS": ", ".join(KEYS), "SANIC_PROXY_CORS_ORIGINS": ORIGIN}
    with running_proxy(settings) as started:
        yield started


@pytest.fixture(scope="module")
def unlocked() -> Iterator[Proxy]:
    with running_proxy({"SANIC_PROXY_ALLOWED_HOSTS": "proxy.example"}) as started:
        yield started


def chat(proxy: Proxy, headers: dict[str, str]) -> Reply:
    return proxy.request("POST", "/v1/chat/completions", BODY, headers)


@pytest.mark.row(55)
@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEYS[0]}"},
        {"authorization": f"bearer  {KEYS[1]} "},
        {"x-api-key": KEYS[0]},
        {"api-key": KEYS[1]},
    ],
)
def test_a_key_opens_whatever_header_it_comes_in(locked: Proxy, headers: dict[str, str]) -> None:
    assert chat(locked, headers).status == 200


@pytest.mark.row(55)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": KEYS[0]},
        {"authorization": f"Basic {KEYS[0]}"},
        {"authorization": "Bearer "},
        {"authorization": f"Bearer {KEYS[1][:-1]}"},
        {"authorization": f"Bearer {KEYS[1]}x"},
        {"authorization": "Bearer ' OR 1=1--"},
        {"authorization": "Bearer " + "k" * 5000},
        {"x-api-key": "\xe4"},
    ],
)
def test_without_a_valid_key_the_door_stays_shut(locked: Proxy, headers: dict[str, str]) -> None:
    reply = chat(locked, headers)
    assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
    assert reply.headers["x-should-retry"] == "false"


@pytest.mark.row(55)
def test_two_authorization_headers_are_none(locked: Proxy) -> None:
    head = f"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEYS[0]}\r\nconnection: close\r\n"
    assert locked.raw(f"{head}\r\n".encode()).startswith(b"HTTP/1.1 200")
    assert locked.raw(f"{head}authorization: Bearer x\r\n\r\n".encode()).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("path", ["/", "/health", "/healthz", "/health/liveliness", "/health/readiness"])
def test_what_is_open_stays_open(locked: Proxy, path: str) -> None:
    assert locked.request("GET", path).status == 200


@pytest.mark.parametrize(
    "path", ["/v1/models", "/docs", "/openapi.json", "/nothing", "/health/../v1/models", "//health"]
)
def test_everything_else_demands_a_key(locked: Proxy, path: str) -> None:
    assert locked.request("GET", path).status == 401


def test_with_keys_any_host_may_be_named(locked: Proxy) -> None:
    headers = {"authorization": f"Bearer {KEYS[0]}", "host": "anything.example"}
    assert locked.request("GET", "/v1/models", headers=headers).status == 200


def test_an_allowed_page_may_call_and_read(locked: Proxy) -> None:
    reply = chat(locked, {"origin": ORIGIN, "x-api-key": KEYS[0]})
    assert reply.status == 200
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    assert "x-request-id" in reply.headers["access-control-expose-headers"]
    assert chat(locked, {"origin": ORIGIN}).headers["access-control-allow-origin"] == ORIGIN


def test_a_preflight_needs_no_key(locked: Proxy) -> None:
    headers = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, x-stainless-os",
    }
    reply = locked.request("OPTIONS", "/v1/chat/completions", headers=headers)
    assert reply.status == 204
    assert reply.headers["access-control-allow-headers"] == "authorization, x-stainless-os"
    assert "POST" in reply.headers["access-control-allow-methods"]


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://app.example.evil.example", ""])
def test_any_other_origin_is_refused_before_routing(locked: Proxy, unlocked: Proxy, origin: str) -> None:
    for proxy in (locked, unlocked):
        for path in ("/v1/models", "/nothing", "/health"):
            reply = proxy.request("GET", path, headers={"origin": origin, "x-api-key": KEYS[0]})
            assert (reply.status, reply.error["code"]) == (403, "origin_denied")
            assert "access-control-allow-origin" not in reply.headers


@pytest.mark.row(57)
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("[::1]:8000", 200),
        ("Proxy.Example:80", 200),
        ("rebound.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("", 403),
    ],
)
def test_without_keys_the_host_must_be_known(unlocked: Proxy, host: str, status: int) -> None:
    answer = unlocked.raw(f"GET /v1/models HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
    assert answer.startswith(f"HTTP/1.1 {status}".encode())
