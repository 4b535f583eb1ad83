"""The recipe for a provider with code of its own, as CONTRIBUTING has it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.proxy import Proxy, start_proxy, wait_until_ready
from tests.support.upstream import DONE, Exchange, Upstream

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```python\n# (sanic_proxy/\S+?\.py)(: in ROWS)?\n(.*?)```", re.DOTALL)


def follow_recipe(directory: Path) -> None:
    """Copy the package into `directory`, and add the example of CONTRIBUTING."""
    shutil.copytree(ROOT / "sanic_proxy", directory / "sanic_proxy")
    blocks = BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    assert [bool(is_row) for _, is_row, _ in blocks] == [False, True]
    for name, is_row, code in blocks:
        path = directory / name
        if is_row:
            rows = path.read_text("utf-8")
            path.write_text(rows.replace("ROWS: tuple[Row, ...] = (\n", f"ROWS: tuple[Row, ...] = (\n{code}"))
        else:
            path.parent.mkdir()
            (path.parent / "__init__.py").touch()
            path.write_text(code)


@pytest.fixture(scope="module")
def acme(shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    directory = tmp_path_factory.mktemp("recipe")
    follow_recipe(directory)
    settings = {
        "PYTHONPATH": str(directory),
        "ACME_API_KEY": "acme-canary-0123456789",
        "ACME_BASE_URL": f"{shared_upstream.url}/acme",
        "SANIC_PROXY_STREAM_COMMIT_DELAY": "0.2",
        "SANIC_PROXY_HEARTBEAT_INTERVAL": "0.2",
    }
    proxy = start_proxy(directory, settings, "--single-process")
    try:
        wait_until_ready(proxy)
        yield proxy
    finally:
        proxy.stop()
    assert "Traceback" not in proxy.log


async def text(exchange: Exchange) -> None:
    assert exchange.seen.path == "/acme/generate"
    assert exchange.seen.json["prompt"] == "Hi"
    await asyncio.sleep(0.5)
    await exchange.answer({"text": "Hello there"})


def test_the_recipe_gives_whole_answers(acme: Proxy, upstream: Upstream) -> None:
    upstream.on("acme-1", text)
    reply = acme.chat("acme/acme-1")
    assert reply.json["choices"][0]["message"]["content"] == "Hello there"
    assert reply.headers["x-sanic-proxy-provider"] == "acme"


def test_the_recipe_gives_streams_with_heartbeats(acme: Proxy, upstream: Upstream) -> None:
    upstream.on("acme-1", text)
    reply, frames = acme.stream("acme/acme-1")
    assert b": ping\n" in reply.body
    chunks = [json.loads(data[6:]) for data in reply.body.replace(b": ping\n", b"").split(b"\n\n")[:-2]]
    assert frames[-1] == DONE
    assert frames[0].count(b'"role":"assistant"') == 1
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == "Hello there"


def test_the_recipes_failures_are_errors(acme: Proxy, upstream: Upstream) -> None:
    async def nothing(exchange: Exchange) -> None:
        await exchange.answer({})

    upstream.on("acme-1", nothing)
    assert acme.chat("acme/acme-1").error["code"] == "upstream_bad_response"


def test_the_recipes_models_are_listed(acme: Proxy) -> None:
    listed = acme.request("GET", "/v1/models").json["data"]
    assert [entry["id"] for entry in listed] == ["acme/acme-1"]
