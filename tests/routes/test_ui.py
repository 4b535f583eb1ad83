"""The operator's page: its files, logins and logouts, and that nothing of it exists without an admin key."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.admin import ADMIN_KEY, CLIENT_KEY, SETTINGS, bearer
from tests.support.load import wait_until
from tests.support.page import log_in, logged_in
from tests.support.proxy import Proxy, Reply, free_port, running_proxy

TOML = """
[clients.reader]
key_env = "READER_KEY"
ui = true

[clients.program]
key_env = "PROGRAM_KEY"
"""
READER_KEY, PROGRAM_KEY = "reader-canary-0123456789", "program-canary-0123456789"
PATHS = [
    ("GET", "/ui"),
    ("GET", "/ui/"),
    ("POST", "/ui/login"),
    ("GET", "/ui/login"),
    ("GET", "/ui/session"),
    ("POST", "/ui/logout"),
    ("GET", "/admin/now"),
    ("GET", "/admin/events"),
    ("GET", "/admin/requests"),
    ("POST", "/admin/now"),
]


def settings(directory: Path) -> dict[str, str]:
    (directory / "proxy.toml").write_text(TOML)
    return {
        **SETTINGS,
        "SANIC_PROXY_CORS_ORIGINS": "https://llm.example.com",  # where TLS ends on another machine
        "READER_KEY": READER_KEY,
        "PROGRAM_KEY": PROGRAM_KEY,
        "SANIC_PROXY_CONFIG": str(directory / "proxy.toml"),
        "SANIC_PROXY_STATE_DIR": str(directory / "state"),
    }


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with running_proxy(settings(tmp_path_factory.mktemp("proxy")), "--workers", "2") as started:
        yield started


def shown(reply: Reply) -> tuple[int, dict[str, str], str]:
    """An answer without what differs between two equal requests."""
    varying = {"x-request-id"}
    return reply.status, {k: v for k, v in reply.headers.items() if k not in varying}, reply.body.decode()


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize("keys", [{}, {"SANIC_PROXY_API_KEYS": CLIENT_KEY}])
@pytest.mark.parametrize("has_key", [False, True])
def test_without_an_admin_key_it_is_an_unknown_path(
    without_admin_key: dict[bool, Proxy], method: str, path: str, keys: dict[str, str], *, has_key: bool
) -> None:
    proxy = without_admin_key[bool(keys)]
    headers = {"origin": proxy.url, **(bearer(CLIENT_KEY) if has_key else {})}
    unknown = path.replace("ui", "qx").replace("admin", "qdmin")
    found = proxy.request(method, path, headers=headers)
    assert found.status == (401 if keys and not has_key else 404)
    expected = proxy.request(method, unknown, headers=headers)
    status, fields, body = shown(found)
    assert (status, fields, body) == (
        expected.status,
        shown(expected)[1],
        expected.body.decode().replace(unknown, path),
    )


@pytest.fixture(scope="module")
def without_admin_key() -> Iterator[dict[bool, Proxy]]:
    with running_proxy({}) as is_open, running_proxy({"SANIC_PROXY_API_KEYS": CLIENT_KEY}) as keyed:
        yield {False: is_open, True: keyed}


def test_the_page_is_served_without_a_login_and_holds_nothing(proxy: Proxy) -> None:
    reply = proxy.request("GET", "/ui")
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert not re.search(rb"<style|<script>|style=|onclick|https?://", reply.body)
    again = proxy.request("GET", "/ui", headers={"if-none-match": reply.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    elsewhere = proxy.request("GET", "/ui/")
    assert (elsewhere.status, elsewhere.headers["location"]) == (308, "../ui")
    linked = proxy.request("GET", "/ui", headers={"sec-fetch-site": "cross-site"})
    assert linked.status == 200


def test_a_login_gives_a_cookie_that_scripts_cannot_read(proxy: Proxy) -> None:
    reply = log_in(proxy)
    assert reply.status == 200
    assert set(reply.json) == {"kind", "name", "csrf", "expires"}
    assert (reply.json["kind"], reply.json["name"]) == ("admin", "admin")
    cookie = reply.headers["set-cookie"]
    assert cookie.startswith("sanic_proxy_session=")
    assert set(cookie.split("; ")[1:]) == {"Max-Age=43200", "Path=/", "HttpOnly", "SameSite=Strict"}
    assert reply.headers["cache-control"] == "no-store"
    login = logged_in(proxy)
    session = proxy.request("GET", "/ui/session", headers=login.reading)
    assert session.json["csrf"] == login.csrf


@pytest.mark.parametrize(
    ("headers", "is_secure"),
    [
        ({}, False),
        (
            {"origin": "https://llm.example.com", "host": "llm.example.com", "x-forwarded-proto": "https"},
            True,
        ),
        ({"origin": "https://llm.example.com", "host": "llm.example.com"}, True),  # TLS ends elsewhere
    ],
)
def test_behind_https_the_cookie_is_secure(proxy: Proxy, headers: dict[str, str], *, is_secure: bool) -> None:
    reply = log_in(proxy, headers=headers)
    assert reply.status == 200
    assert ("; Secure" in reply.headers["set-cookie"]) is is_secure


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"origin": "https://evil.example"}, {"key": ADMIN_KEY}, 403),
        ({"origin": "null"}, {"key": ADMIN_KEY}, 403),
        ({"content-type": "text/plain"}, {"key": ADMIN_KEY}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, {"key": ADMIN_KEY}, 415),
        ({}, b"{", 400),
        ({}, [], 400),
        ({}, {}, 400),
        ({}, {"key": 1}, 400),
        ({}, {"key": ""}, 400),
        ({}, {"key": ["x"]}, 400),
    ],
)
def test_a_login_that_no_page_of_the_proxy_sends_is_refused(
    proxy: Proxy, headers: dict[str, str], body: object, status: int
) -> None:
    reply = proxy.request("POST", "/ui/login", body, {"origin": proxy.url, **headers})
    assert reply.status == status
    assert "set-cookie" not in reply.headers


def test_a_login_needs_an_origin(proxy: Proxy) -> None:
    reply = proxy.request("POST", "/ui/login", {"key": ADMIN_KEY})
    assert (reply.status, reply.error["code"]) == (403, "origin_denied")


def from_address(address: str) -> dict[str, str]:
    """The headers of a request that a reverse proxy on this machine has from `address`."""
    return {"x-forwarded-for": f"192.0.2.99, {address}"}


@pytest.mark.parametrize(
    "key", ["wrong", ADMIN_KEY + "x", CLIENT_KEY, PROGRAM_KEY, "sk-sp-unknown", "\u00e4", "x" * 10_000]
)
def test_other_keys_do_not_log_in(proxy: Proxy, key: str) -> None:
    address = f"192.0.2.{sum(key.encode()) % 200}"
    reply = log_in(proxy, key, from_address(address))
    assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
    assert "set-cookie" not in reply.headers
    assert key not in reply.error["message"]


def test_failed_logins_are_limited_over_all_workers(proxy: Proxy) -> None:
    statuses = [log_in(proxy, "wrong", from_address("198.51.100.1")).status for _ in range(15)]
    assert statuses == [401] * 10 + [429] * 5
    refused = log_in(proxy, ADMIN_KEY, from_address("198.51.100.1"))
    assert refused.status == 429
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert log_in(proxy, ADMIN_KEY, from_address("198.51.100.2")).status == 200


def test_failures_from_many_addresses_do_not_lock_the_operator_out(proxy: Proxy) -> None:
    addresses = [f"2001:db8:aaaa:{number:x}::1" for number in range(150)]
    statuses = [log_in(proxy, "wrong", from_address(address)).status for address in addresses]
    assert set(statuses) == {401, 429}
    assert log_in(proxy, ADMIN_KEY, from_address("198.51.100.7")).status == 200


def test_the_logins_with_one_clients_key_are_limited(proxy: Proxy) -> None:
    made = proxy.request("POST", "/key/generate", {"key_alias": "loop", "ui": True}, bearer(ADMIN_KEY)).json
    statuses = [log_in(proxy, made["key"]).status for _ in range(30)]
    assert statuses[:20] == [200] * 20
    assert 429 in statuses
    refused = next(reply for reply in iter(lambda: log_in(proxy, made["key"]), None) if reply.status == 429)
    assert refused.error["message"].startswith("Too many logins with this key; retry in ")
    assert log_in(proxy, ADMIN_KEY).status == 200


def test_a_logout_ends_the_session_in_all_workers(proxy: Proxy) -> None:
    login, other = logged_in(proxy), logged_in(proxy)
    assert proxy.request("POST", "/ui/logout", headers=login.reading).status == 403
    reply = proxy.request("POST", "/ui/logout", headers=login.changing)
    assert (reply.status, reply.body) == (204, b"")
    assert "Max-Age=0" in reply.headers["set-cookie"]
    for _ in range(12):
        for path in ("/ui/session", "/admin/info"):
            assert proxy.request("GET", path, headers=login.reading).status == 401
    assert proxy.request("GET", "/admin/info", headers=other.reading).status == 200


def test_a_logout_outlives_a_restart_and_a_login_as_well(tmp_path: Path) -> None:
    with running_proxy(settings(tmp_path)) as first:
        ended, kept = logged_in(first), logged_in(first)
        assert first.request("POST", "/ui/logout", headers=ended.changing).status == 204
    with running_proxy(settings(tmp_path)) as second:
        wait_until(lambda: second.request("GET", "/ui/session", headers=ended.reading).status == 401)
        assert second.request("GET", "/ui/session", headers=kept.reading).status == 200


def test_another_admin_key_ends_all_sessions(tmp_path: Path) -> None:
    with running_proxy(settings(tmp_path)) as first:
        login = logged_in(first)
    with running_proxy(
        {**settings(tmp_path), "SANIC_PROXY_ADMIN_KEY": "another-canary-0123456789"}
    ) as second:
        assert second.request("GET", "/ui/session", headers=login.reading).status == 401


def test_a_client_that_may_logs_in_for_its_own_use_alone(proxy: Proxy) -> None:
    reply = log_in(proxy, READER_KEY)
    assert (reply.status, reply.json["kind"], reply.json["name"]) == (200, "client", "reader")
    assert hashlib.sha256(READER_KEY.encode()).hexdigest() in reply.headers["set-cookie"]
    login = logged_in(proxy, READER_KEY)
    assert proxy.request("GET", "/ui/session", headers=login.reading).json["name"] == "reader"
    for path in ("/admin/info", "/admin/now", "/admin/events", "/admin/requests", "/key/list", "/metrics"):
        assert proxy.request("GET", path, headers=login.reading).status == 401
    assert proxy.request("POST", "/admin/targets/echo/off", headers=login.changing).status == 401
    assert proxy.chat("echo/echo", headers=login.changing).status == 401
    assert proxy.request("POST", "/ui/logout", headers=login.changing).status == 204
    assert proxy.request("GET", "/ui/session", headers=login.reading).status == 401


def test_a_blocked_key_ends_its_sessions(proxy: Proxy) -> None:
    made = proxy.request("POST", "/key/generate", {"key_alias": "guest", "ui": True}, bearer(ADMIN_KEY)).json
    login = logged_in(proxy, made["key"])
    assert proxy.request("GET", "/ui/session", headers=login.reading).json["name"] == "guest"
    proxy.request("POST", "/key/block", {"key": made["key"]}, bearer(ADMIN_KEY))
    wait_until(
        lambda: {proxy.request("GET", "/ui/session", headers=login.reading).status for _ in range(8)} == {401}
    )


@pytest.mark.parametrize("arguments", [["--single-process"], ["--workers", "2"]])
def test_with_an_admin_address_it_is_on_that_port_alone(arguments: list[str]) -> None:
    port = free_port()
    with running_proxy({**SETTINGS, "SANIC_PROXY_ADMIN_ADDRESS": f"127.0.0.1:{port}"}, *arguments) as proxy:
        admin = Proxy(port, proxy.process, proxy.log_path, proxy.directory)
        assert proxy.request("GET", "/ui", headers=bearer(CLIENT_KEY)).status == 404
        assert proxy.request("GET", "/ui").status == proxy.request("GET", "/nothing").status == 401
        assert log_in(proxy).status == 401
        for path in ("/ui", "/style.css", "/page.js"):
            assert admin.request("GET", path).status == 200
        login = logged_in(admin)
        assert admin.request("GET", "/admin/now", headers=login.reading).status == 200
        assert proxy.request("GET", "/admin/now", headers=login.reading).status == 401
