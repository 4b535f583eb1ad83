"""The second listener of each worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.admin import ADMIN_KEY, CLIENT_KEY, SETTINGS, bearer
from tests.support.proxy import Proxy, free_port, running_proxy, start_proxy


@pytest.mark.parametrize("arguments", [["--single-process"], ["--workers", "2"]])
def test_an_admin_address_takes_them_from_the_main_port(arguments: list[str]) -> None:
    port = free_port()
    settings = {**SETTINGS, "SANIC_PROXY_ADMIN_ADDRESS": f"127.0.0.1:{port}"}
    with running_proxy(settings, *arguments) as proxy:
        admin = Proxy(port, proxy.process, proxy.log_path, proxy.directory)
        assert proxy.request("GET", "/admin/info", headers=bearer(ADMIN_KEY)).status == 401
        assert proxy.request("GET", "/admin/info", headers=bearer(CLIENT_KEY)).status == 404
        assert proxy.chat("echo/echo", headers=bearer(CLIENT_KEY)).status == 200
        assert admin.request("GET", "/admin/info", headers=bearer(ADMIN_KEY)).status == 200
        assert admin.request("GET", "/admin/info").status == 401
        assert admin.request("GET", "/health").json == {"status": "ok"}
        reply = admin.chat("echo/echo", headers=bearer(CLIENT_KEY))
        assert (reply.status, reply.error["message"]) == (404, "No such route on the admin port")
    assert proxy.process.returncode == 0


def test_an_admin_port_that_is_taken_ends_the_start(tmp_path: Path, proxy: Proxy) -> None:
    settings = {**SETTINGS, "SANIC_PROXY_ADMIN_ADDRESS": f"127.0.0.1:{proxy.port}"}
    failed = start_proxy(tmp_path, settings, "--workers", "1")
    assert failed.process.wait(30) == 1
    assert "address already in use" in failed.log
