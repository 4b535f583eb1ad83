"""What a session's cookie opens, and which requests of other pages it does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.admin import ADMIN_KEY, CLIENT_KEY, SETTINGS, bearer
from tests.support.page import Login, log_in, logged_in
from tests.support.proxy import Proxy, running_proxy

OTHER = "https://app.example"
SWITCH = "/admin/targets/echo/on"


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with running_proxy({**SETTINGS, "SANIC_PROXY_CORS_ORIGINS": OTHER}, "--workers", "2") as started:
        yield started


@pytest.fixture(scope="module")
def login(proxy: Proxy) -> Login:
    return logged_in(proxy)


@pytest.mark.parametrize("path", ["/admin/info", "/admin/targets", "/key/list", "/spend/logs", "/metrics"])
def test_a_session_opens_what_the_admin_key_opens(proxy: Proxy, login: Login, path: str) -> None:
    for method in ("GET", "HEAD"):
        assert proxy.request(method, path, headers=login.reading).status == 200
        assert proxy.request(method, path).status == 401


def test_a_session_is_no_client_key(proxy: Proxy, login: Login) -> None:
    assert proxy.chat("echo/echo", headers=login.changing).status == 401


@pytest.mark.parametrize(
    ("site", "status"),
    [("none", 200), ("same-origin", 200), ("same-site", 403), ("cross-site", 403), ("", 403)],
)
def test_other_sites_do_not_read_with_a_session(proxy: Proxy, login: Login, site: str, status: int) -> None:
    headers = {"cookie": login.cookie, "sec-fetch-site": site}
    assert proxy.request("GET", "/admin/info", headers=headers).status == status
    assert proxy.request("GET", "/admin/info", headers={**headers, **bearer(ADMIN_KEY)}).status == 200


def test_an_allowed_origin_has_no_session(proxy: Proxy, login: Login) -> None:
    """Pages in SANIC_PROXY_CORS_ORIGINS may call with a key of their own, but not as the operator."""
    reply = proxy.request("GET", "/admin/info", headers={"cookie": login.cookie, "origin": OTHER})
    assert (reply.status, reply.error["code"]) == (403, "origin_denied")
    assert "access-control-allow-credentials" not in reply.headers
    assert log_in(proxy, headers={"origin": OTHER}).status == 403


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 200),
        ({"x-csrf-token": None}, 403),
        ({"x-csrf-token": ""}, 403),
        ({"x-csrf-token": "0" * 64}, 403),
        ({"x-csrf-token": "\u00e4".encode().decode("latin-1")}, 403),
        ({"origin": None}, 403),
        ({"origin": "null"}, 403),
        ({"origin": OTHER}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"origin": "http://localhost"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": None}, 200),
        ({"cookie": None}, 401),
        ({"cookie": "sanic_proxy_session=x"}, 401),
    ],
)
def test_a_change_needs_origin_and_token(
    proxy: Proxy, login: Login, changes: dict[str, str | None], status: int
) -> None:
    headers = {name: value for name, value in {**login.changing, **changes}.items() if value is not None}
    assert proxy.request("POST", SWITCH, headers=headers).status == status


def test_the_token_of_another_session_is_refused(proxy: Proxy, login: Login) -> None:
    other = logged_in(proxy)
    headers = {**login.changing, "x-csrf-token": other.csrf}
    assert proxy.request("POST", SWITCH, headers=headers).error["code"] == "csrf_denied"


def test_a_foreign_cookie_of_the_same_name_changes_nothing(proxy: Proxy, login: Login) -> None:
    """Another host of the domain can set one, and browsers send both."""
    for cookie in (f"sanic_proxy_session=x; {login.cookie}", f"{login.cookie}; a=b; sanic_proxy_session="):
        assert proxy.request("GET", "/admin/info", headers={"cookie": cookie}).status == 200


def test_a_key_counts_instead_of_a_session(proxy: Proxy, login: Login) -> None:
    headers = {**login.changing, **bearer(CLIENT_KEY)}
    assert proxy.request("GET", "/admin/info", headers=headers).status == 401
    assert proxy.request("POST", SWITCH, headers=bearer(ADMIN_KEY)).status == 200
