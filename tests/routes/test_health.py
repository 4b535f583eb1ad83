"""Alive, and ready."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sanic_proxy.config.loader import load
from sanic_proxy.routes.health import not_ready
from sanic_proxy.state import AppState
from tests.support.proxy import Proxy


def reasons(directory: Path, environ: dict[str, str], *, is_draining: bool = False) -> list[str]:
    async def listed() -> list[str]:
        state = AppState(load(environ, directory))
        state.traffic.is_draining = is_draining
        await state.aclose()
        return not_ready(state)

    return asyncio.run(listed())


def test_readiness_names_each_reason(tmp_path: Path) -> None:
    assert reasons(tmp_path, {}) == []
    assert reasons(tmp_path, {}, is_draining=True) == ["draining"]
    assert reasons(tmp_path, {"SANIC_PROXY_ECHO": "off"}) == ["no provider is configured"]


@pytest.mark.parametrize("path", ["/health", "/healthz", "/health/liveliness", "/health/readiness"])
def test_load_balancers_may_use_head(proxy: Proxy, path: str) -> None:
    reply = proxy.request("HEAD", path)
    assert (reply.status, reply.body) == (200, b"")
