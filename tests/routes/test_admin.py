"""The routes below /admin: hidden, keyed, and on a port of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sanic_proxy import __version__
from tests.support.admin import ADMIN_KEY, CLIENT_KEY, SETTINGS, bearer
from tests.support.proxy import Proxy, running_proxy, start_proxy


@pytest.fixture(scope="module")
def administered() -> Iterator[Proxy]:
    with running_proxy(SETTINGS, "--workers", "2") as proxy:
        yield proxy


def test_info_names_version_workers_and_providers(administered: Proxy) -> None:
    reply = administered.request("GET", "/admin/info", headers=bearer(ADMIN_KEY))
    assert reply.status == 200
    assert (reply.json["version"], reply.json["workers"]) == (__version__, 2)
    assert reply.json["providers"] == ["echo"]
    assert reply.json["worker"]["pid"] in administered.worker_pids()
    assert reply.json["uptime_seconds"] > 0


@pytest.mark.parametrize("headers", [{}, bearer(CLIENT_KEY), bearer("wrong"), bearer(ADMIN_KEY + "x")])
def test_only_the_admin_key_opens_them(administered: Proxy, headers: dict[str, str]) -> None:
    reply = administered.request("GET", "/admin/info", headers=headers)
    assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")


def test_the_admin_key_is_no_client_key(administered: Proxy) -> None:
    assert administered.chat("echo/echo", headers=bearer(ADMIN_KEY)).status == 401
    assert administered.chat("echo/echo", headers=bearer(CLIENT_KEY)).status == 200


@pytest.mark.parametrize("path", ["/admin/info", "/admin/nothing"])
def test_without_an_admin_key_there_are_no_such_routes(proxy: Proxy, path: str) -> None:
    reply = proxy.request("GET", path, headers=bearer(ADMIN_KEY))
    assert reply.status == 404
    assert reply.error["message"].startswith(f"There is no GET '{path}' here.")


def test_an_address_without_a_key_is_a_problem(tmp_path: Path) -> None:
    failed = start_proxy(tmp_path, {"SANIC_PROXY_ADMIN_ADDRESS": "127.0.0.1:9000"}, "--single-process")
    assert failed.process.wait(20) == 1
    assert "SANIC_PROXY_ADMIN_KEY is not" in failed.log


def test_a_route_is_explained(administered: Proxy) -> None:
    reply = administered.request("GET", "/admin/route?model=echo/echo", headers=bearer(ADMIN_KEY))
    assert reply.json["steps"] == [
        {"target": "echo/echo", "outcome": "ok", "then": "the answer goes to the client"}
    ]
    failed = administered.request(
        "GET", "/admin/route?model=echo/echo&fail=echo%3Dtimeout", headers=bearer(ADMIN_KEY)
    )
    assert [step["outcome"] for step in failed.json["steps"]] == ["timeout"]


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [("", 400, "model"), ("?model=echo/", 404, "model"), ("?model=echo/echo&fail=groq", 400, "fail")],
)
def test_a_route_that_is_none_is_a_clients_error(
    administered: Proxy, query: str, status: int, param: str
) -> None:
    reply = administered.request("GET", f"/admin/route{query}", headers=bearer(ADMIN_KEY))
    assert (reply.status, reply.error["param"]) == (status, param)
    assert administered.request("GET", f"/admin/route{query}", headers=bearer(CLIENT_KEY)).status == 401
