"""The list of models over several providers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.proxy import Proxy, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import Exchange, Upstream, completion


@pytest.fixture
def fresh(upstream: Upstream) -> Iterator[Proxy]:
    """A proxy that has listed nothing yet, with a provider that is down and one whose list is fixed."""
    settings = {
        **provider_settings(upstream),
        "OLLAMA_BASE_URL": "http://127.0.0.1:9/v1",
        "PERPLEXITY_API_KEY": "pplx-canary",
    }
    with running_proxy(settings) as started:
        yield started


def listing(upstream: Upstream, path: str, ids: list[str]) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer({"object": "list", "data": [{"id": i, "extra": 1} for i in ids]})

    upstream.on(f"GET {path}", script)


def test_one_failing_provider_never_fails_the_list(fresh: Proxy, upstream: Upstream) -> None:
    listing(upstream, "/openai/v1/models", ["llama:8b", "openai/gpt-oss"])
    listing(upstream, "/v2/models", ["openai/gpt-4o"])
    listed = fresh.request("GET", "/v1/models").json
    ids = [entry["id"] for entry in listed["data"]]
    assert listed["object"] == "list"
    assert {
        "groq/llama:8b",
        "groq/openai/gpt-oss",
        "straico/openai/gpt-4o",
        "perplexity/sonar",
        "echo/echo",
    } <= set(ids)
    assert all({"id", "object", "created", "owned_by"} <= set(entry) for entry in listed["data"])
    assert listed["data"][ids.index("groq/llama:8b")]["extra"] == 1
    one = fresh.request("GET", "/v1/models/groq/openai/gpt-oss").json
    assert (one["object"], one["owned_by"]) == ("model", "groq")


def test_the_list_is_kept_and_outlives_its_provider(fresh: Proxy, upstream: Upstream) -> None:
    listing(upstream, "/openai/v1/models", ["a"])
    listing(upstream, "/v2/models", ["b"])
    for _ in range(3):
        assert fresh.request("GET", "/models/groq/a").status == 200
    assert len([seen for seen in upstream.requests if seen.path == "/openai/v1/models"]) == 1


def test_a_silent_provider_does_not_hold_the_list_up(fresh: Proxy, upstream: Upstream) -> None:
    may_answer = threading.Event()

    async def silent(exchange: Exchange) -> None:
        await asyncio.to_thread(may_answer.wait)
        await exchange.answer({"object": "list", "data": [{"id": "late"}]})

    upstream.on("GET /openai/v1/models", silent)
    listing(upstream, "/v2/models", ["b"])
    ids: list[str] = []
    while "straico/b" not in ids:
        ids = [entry["id"] for entry in fresh.request("GET", "/v1/models").json["data"]]
    assert not may_answer.is_set()
    may_answer.set()


def test_names_of_ones_own_show_their_context_window_and_prices(upstream: Upstream, tmp_path: Path) -> None:
    config = tmp_path / "proxy.toml"
    config.write_text("""
        [models.fast]
        targets = [{ provider = "groq", model = "m", context_window = 8192 }]
        prices = { input = 1, output = 2 }
        [models.alias]
        targets = ["groq/m"]
        hidden = true
        [models."all-*"]
        targets = ["groq/*"]
    """)
    listing(upstream, "/openai/v1/models", ["m", "n"])
    settings = {**provider_settings(upstream), "SANIC_PROXY_ROUTER": "off", "SANIC_PROXY_CONFIG": str(config)}
    with running_proxy({**settings, "STRAICO_API_KEY": ""}) as proxy:
        listed = proxy.request("GET", "/v1/models").json["data"]
        assert [entry["id"] for entry in listed] == ["fast", "all-m", "all-n"]
        fast = proxy.request("GET", "/v1/models/fast").json
        assert (fast["context_length"], fast["pricing"]["prompt"]) == (8192, "0.000001")
        upstream.on("m", answer_ok)
        upstream.on("n", answer_ok)
        assert proxy.chat("alias").status == 200
        assert proxy.chat("all-n").headers["x-sanic-proxy-route"].startswith("groq/n ok ")


async def answer_ok(exchange: Exchange) -> None:
    await exchange.answer(completion())
