"""Admission: keys, hosts and origins, through a real proxy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sanic_proxy.config.loader import load
from sanic_proxy.errors import Forbidden, Unauthorized
from sanic_proxy.governance.key_ring import KeyRing
from sanic_proxy.server import admission
from sanic_proxy.server.request import HeaderFields
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


@pytest.mark.parametrize("useless", ["Bearer", "Bearer ", "Basic Zm9v", "x", ""])
@pytest.mark.parametrize("name", ["x-api-key", "api-key", "x-goog-api-key"])
def test_a_useless_authorization_beside_a_key_is_no_credential_afterwards(
    locked: Proxy, useless: str, name: str
) -> None:
    both = {"authorization": useless, name: KEYS[0]}
    assert chat(locked, both).status == 200
    assert chat(locked, {"authorization": useless}).status == 401
    path = f"/v1beta/models/echo/echo:generateContent?key={KEYS[1]}"
    body = {"contents": [{"role": "user", "parts": [{"text": "x"}]}]}
    assert locked.request("POST", path, body, {"authorization": useless}).status == 200
    assert chat(locked, {"authorization": useless}).status == 401


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
def test_a_key_is_accepted_in_every_supported_header(locked: Proxy, headers: dict[str, str]) -> None:
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
def test_without_a_valid_key_a_request_is_rejected(locked: Proxy, headers: dict[str, str]) -> None:
    reply = chat(locked, headers)
    assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
    assert reply.headers["x-should-retry"] == "false"


@pytest.mark.row(55)
def test_two_authorization_headers_are_rejected(locked: Proxy) -> None:
    head = f"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEYS[0]}\r\nconnection: close\r\n"
    assert locked.raw(f"{head}\r\n".encode()).startswith(b"HTTP/1.1 200")
    assert locked.raw(f"{head}authorization: Bearer x\r\n\r\n".encode()).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("path", ["/", "/health", "/healthz", "/health/liveliness", "/health/readiness"])
def test_what_is_open_stays_open(locked: Proxy, path: str) -> None:
    assert locked.request("GET", path).status == 200


@pytest.mark.parametrize(
    "path", ["/v1/models", "/nothing", "/health/../v1/models", "//health", "/docs/../v1/models"]
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
        ("", 400),
        ("[::1].evil.com", 400),
    ],
)
def test_without_keys_the_host_must_be_known(unlocked: Proxy, host: str, status: int) -> None:
    answer = unlocked.raw(f"GET /v1/models HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
    assert answer.startswith(f"HTTP/1.1 {status}".encode())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:8000", "origin": "http://localhost:8000"}, 200),
        ({"host": "LocalHost:80", "origin": "http://localhost"}, 200),
        ({"host": "proxy.example", "origin": "http://proxy.example"}, 200),
        ({"host": "proxy.example", "origin": "https://proxy.example", "x-forwarded-proto": "https"}, 200),
        ({"host": "proxy.example:443", "origin": "https://proxy.example", "x-forwarded-proto": "https"}, 200),
        (
            {"host": "127.0.0.1", "origin": "https://llm.example", "x-forwarded-proto": "https, http"}
            | {"x-forwarded-host": "llm.example, inner"},
            200,
        ),
        ({"host": "localhost:8000", "origin": "http://localhost:8001"}, 403),
        ({"host": "localhost:8000", "origin": "https://localhost:8000"}, 403),
        ({"host": "proxy.example", "origin": "https://proxy.example"}, 403),
        ({"host": "proxy.example", "origin": "http://proxy.example", "x-forwarded-proto": "https"}, 403),
        ({"host": "localhost", "origin": "http://localhost.evil.example"}, 403),
        ({"host": "localhost", "origin": "null"}, 403),
        ({"host": "rebound.example", "origin": "http://rebound.example"}, 403),
        ({"host": "rebound.example", "origin": "http://localhost", "x-forwarded-host": "localhost"}, 403),
    ],
)
def test_a_page_of_the_proxys_own_origin_may_call(
    unlocked: Proxy, headers: dict[str, str], status: int
) -> None:
    assert chat(unlocked, headers).status == status


def test_forwarded_headers_of_another_machine_do_not_make_an_origin_its_own(tmp_path: Path) -> None:
    headers = HeaderFields()
    for name, value in {"host": "a", "origin": "https://b", "x-forwarded-host": "b"}.items():
        headers[name] = value
    headers["x-forwarded-proto"] = "https"
    settings = load({}, tmp_path)
    admission.check_origin(settings, headers, "127.0.0.1")
    with pytest.raises(Forbidden):
        admission.check_origin(settings, headers, "192.0.2.7")


def test_with_keys_a_page_of_the_proxys_own_origin_needs_one(locked: Proxy) -> None:
    headers = {"host": "anything.example", "origin": "http://anything.example"}
    assert chat(locked, headers).status == 401
    assert chat(locked, {**headers, "x-api-key": KEYS[0]}).status == 200


@pytest.mark.row(57)
@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/files?provider=groq", "/v1/nothing", "/"])
def test_without_keys_pages_of_other_sites_cannot_embed_the_proxy(
    unlocked: Proxy, site: str, path: str
) -> None:
    headers = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
    reply = unlocked.request("GET", path, headers=headers)
    assert (reply.status, reply.error["code"]) == (403, "origin_denied")


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/models", {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}),
        ("/v1/models", {"sec-fetch-site": "same-origin"}),
        ("/health", {"sec-fetch-site": "cross-site"}),
        ("/", {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}),
        ("/docs", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}),
    ],
)
def test_what_is_no_page_of_another_site_may_call(
    unlocked: Proxy, path: str, headers: dict[str, str]
) -> None:
    assert unlocked.request("GET", path, headers=headers).status == 200


def test_an_allowed_origin_may_be_another_site() -> None:
    headers = {"origin": ORIGIN, "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}
    with running_proxy({"SANIC_PROXY_CORS_ORIGINS": ORIGIN}) as proxy:
        assert proxy.request("GET", "/v1/models", headers=headers).status == 200


def test_with_keys_the_key_decides_and_not_the_site(locked: Proxy) -> None:
    headers = {"sec-fetch-site": "cross-site", "x-api-key": KEYS[0]}
    assert locked.request("GET", "/v1/models", headers=headers).status == 200


@pytest.mark.parametrize(
    ("headers", "is_listed"),
    [({}, False), ({"x-api-key": "wrong"}, False), ({"x-api-key": KEYS[0]}, True)],
)
def test_the_front_page_lists_providers_to_clients_only(
    locked: Proxy, headers: dict[str, str], is_listed: bool
) -> None:
    for path in ("/", "/health"):
        reply = locked.request("GET", path, headers=headers)
        assert reply.status == 200
        assert (b"echo" in reply.body) is (is_listed and path == "/")


# Who it is


def header(name: str, value: str) -> HeaderFields:
    fields = HeaderFields()
    fields.add(name.encode(), value.encode())
    return fields


def test_a_key_is_the_same_client_in_every_header(tmp_path: Path) -> None:
    settings = load({"SANIC_PROXY_API_KEYS": "a1,b2"}, tmp_path)
    keys = KeyRing(settings)
    header_pairs = [
        ("authorization", "Bearer a1"),
        ("authorization", "bearer   a1"),
        ("x-api-key", "a1"),
        ("api-key", "a1"),
    ]
    ids = {admission.authenticate(keys, header(*pair)).id for pair in header_pairs * 2}
    ids |= {admission.admit(settings, keys, path="/v1/x", headers=header(*pair)).id for pair in header_pairs}
    assert ids == {hashlib.sha256(b"a1").hexdigest()[:16]}
    assert admission.authenticate(keys, header("api-key", "b2")).id not in ids


def test_no_client_is_identified_where_no_key_is_needed(tmp_path: Path) -> None:
    settings = load({}, tmp_path)
    headers = header("host", "localhost")
    headers.add(b"x-api-key", b"a1")
    assert admission.admit(settings, KeyRing(settings), path="/v1/x", headers=headers).id == ""


def test_a_wrong_key_identifies_no_client_on_open_paths(tmp_path: Path) -> None:
    settings = load({"SANIC_PROXY_API_KEYS": "a1"}, tmp_path)
    keys = KeyRing(settings)
    assert admission.admit(settings, keys, path="/health", headers=header("api-key", "b2")).id == ""
    with pytest.raises(Unauthorized):
        admission.admit(settings, keys, path="/v1/models", headers=header("api-key", "b2"))
