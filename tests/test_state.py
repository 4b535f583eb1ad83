"""What one worker holds."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from sanic_proxy.config.loader import load
from sanic_proxy.errors import UpstreamAuthFailed
from sanic_proxy.state import AppState
from sanic_proxy.upstream.client import UpstreamClient
from tests.support.in_flight import Request
from tests.support.postgresql import PostgreSQL, needs_postgresql
from tests.support.settings import provider_settings
from tests.support.upstream import Upstream


@pytest.mark.parametrize(
    ("key", "hint"),
    [("gsk-canary-0123456789", "groq, key ...6789, rejected"), ("gsk-short", "groq rejected")],
)
def test_the_log_shows_the_end_of_a_rejected_key_and_never_all_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, key: str, hint: str
) -> None:
    async def rejected() -> None:
        state = AppState(load({"GROQ_API_KEY": key, "SANIC_PROXY_ROUTER": "on"}, tmp_path))
        (target,) = state.router.resolve("groq/llama")
        error = UpstreamAuthFailed(f"Incorrect API key provided: {key}")
        target.key_health.record_failure(error, "key", 0.0, target.key_health.generation)
        await state.aclose()

    with caplog.at_level(logging.WARNING, logger="sanic_proxy"):
        asyncio.run(rejected())
    assert hint in caplog.text
    assert key not in caplog.text


def test_the_pools_are_closed_after_the_last_handler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    close = UpstreamClient.aclose

    async def noted(self: UpstreamClient) -> None:
        events.append("closed")
        await close(self)

    async def lifetime() -> None:
        state = AppState(load({}, tmp_path))
        request = Request()
        state.traffic.begin(request)
        closing = asyncio.ensure_future(state.aclose())
        await asyncio.sleep(0.02)
        events.append("handler ends")
        state.traffic.end(request)
        await closing

    monkeypatch.setattr(UpstreamClient, "aclose", noted)
    asyncio.run(lifetime())
    assert events == ["handler ends", "closed"]


def test_a_state_that_is_replaced_is_closed_when_the_last_request_that_knows_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lifetime() -> None:
        old = AppState(load({}, tmp_path))
        first, second = Request(), Request()
        old.traffic.begin(first)
        new = AppState(load({}, tmp_path), old.traffic)
        retiring = asyncio.ensure_future(old.retire())
        await asyncio.sleep(0)
        new.traffic.begin(second)
        await asyncio.sleep(0.05)
        assert not retiring.done()
        old.traffic.end(first)
        await asyncio.wait_for(retiring, 1)
        assert new.traffic.requests == {second}
        new.traffic.end(second)
        await new.aclose()

    monkeypatch.setattr("sanic_proxy.state.RETIRED_STEP_S", 0.01)
    asyncio.run(lifetime())


def test_with_the_router_off_only_straico_lists_its_models(tmp_path: Path, upstream: Upstream) -> None:
    async def list_models() -> None:
        state = AppState(load({**provider_settings(upstream), "SANIC_PROXY_ROUTER": "off"}, tmp_path))
        await state.models.all()
        await state.aclose()

    asyncio.run(list_models())
    assert {seen.path for seen in upstream.requests} == {"/v2/models"}


@needs_postgresql
def test_the_store_of_many_machines_is_postgresql(tmp_path: Path, postgresql: PostgreSQL) -> None:
    async def version(directory: Path, url: str) -> object:
        state = AppState(load({"SANIC_PROXY_STORE": url, "SANIC_PROXY_STATE_DIR": str(directory)}, tmp_path))
        row = await state.store.run(lambda connection: connection.execute("SELECT version()").fetchone())
        await state.aclose()
        return row[0]

    assert str(asyncio.run(version(tmp_path / "state", postgresql.new_database()))).startswith("PostgreSQL")
    assert not (tmp_path / "state" / "state.sqlite").exists()
