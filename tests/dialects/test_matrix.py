"""The generated matrix of dialects: it is up to date, and a real proxy does what its cells say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import dialect_matrix
from tests.support.dialect_features import FEATURES, gemini_answer, message_answer, response_answer
from tests.support.dialect_matrix import LAB_TABLE, Cell, Matrix
from tests.support.proxy import Proxy, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import Exchange, Upstream, completion, straico_completion

PAGE = Path(__file__).parents[2] / "scripts/docs/dialect-matrix.md"
PATHS = {
    "chat": "/v1/chat/completions",
    "messages": "/v1/messages",
    "responses": "/v1/responses",
    "gemini": "/v1beta/models/{model}:generateContent",
}
BY_NAME = {feature.name: feature for feature in FEATURES}
SAMPLES = [
    ("chat", "anthropic", "several answers (n)"),
    ("chat", "anthropic", "seed"),
    ("chat", "straico", "participant's name"),
    ("chat", "straico", "audio"),
    ("chat", "lab", "cache marks"),
    ("chat", "lab", "several answers (n)"),
    ("messages", "groq", "top_k"),
    ("messages", "groq", "documents as text"),
    ("messages", "anthropic", "reasoning of another provider in the history"),
    ("messages", "anthropic", "cache marks"),
    ("messages", "straico", "end user's id"),
    ("responses", "groq", "namespaces of tools"),
    ("responses", "anthropic", "verbosity"),
    ("responses", "google", "detail of images"),
    ("messages", "google", "strict tools"),
    ("gemini", "groq", "top_k"),
    ("gemini", "groq", "calls that match their schemas"),
    ("gemini", "anthropic", "safety settings"),
    ("gemini", "lab", "several answers (n)"),
    ("gemini", "straico", "budget of reasoning"),
    ("gemini", "google", "reasoning of another provider in the history"),
    ("gemini", "google", "cached content"),
]


def test_the_committed_page_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == asyncio.run(dialect_matrix.generated()), "run scripts/generate"


@pytest.fixture(scope="module")
def proxy(shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    config = tmp_path_factory.mktemp("matrix") / "sanic-proxy.toml"
    config.write_text(LAB_TABLE.format(base_url=f"{shared_upstream.url}/v1"), "utf-8")
    settings = {
        **provider_settings(shared_upstream),
        "ANTHROPIC_API_KEY": "key-of-anthropic",
        "GOOGLE_API_KEY": "key-of-google",
        "GOOGLE_BASE_URL": f"{shared_upstream.url}/v1beta/openai",
        "ANTHROPIC_BASE_URL": f"{shared_upstream.url}/v1",
        "SANIC_PROXY_CONFIG": str(config),
    }
    with running_proxy(settings) as started:
        yield started


async def answer(exchange: Exchange) -> None:
    """An answer in the API of the path."""
    path = exchange.seen.path
    if path.endswith("/messages"):
        await exchange.answer(message_answer())
    elif path.endswith("/responses"):
        await exchange.answer(response_answer())
    elif path.endswith(":generateContent"):
        await exchange.answer(gemini_answer())
    else:
        await exchange.answer(straico_completion("ok") if "/v2/" in path else completion("ok"))


async def cell_of(client: str, provider: str, name: str) -> Cell:
    cell = Matrix().cell(BY_NAME[name], client, provider)
    assert cell is not None
    return cell


@pytest.mark.parametrize(("client", "provider", "name"), SAMPLES, ids=map("-".join, SAMPLES))
def test_a_real_proxy_does_what_the_cell_says(
    proxy: Proxy, upstream: Upstream, client: str, provider: str, name: str
) -> None:
    cell = asyncio.run(cell_of(client, provider, name))
    upstream.on("model-x", answer)
    upstream.on("POST /v1beta/models/model-x:generateContent", answer)
    request = BY_NAME[name].request(client, provider) or {}
    path = PATHS[client]
    if client == "gemini":
        path = path.format(model=request.pop("model"))
    reply = proxy.request("POST", path, request)
    if cell.outcome == "refused":
        assert reply.status == 400
        assert upstream.requests == []
        assert client != "messages"
        if client == "gemini":
            assert cell.how.removeprefix("400, ") in reply.json["error"]["message"]
        else:
            assert f"400, `{reply.error['param']}`" == cell.how
        return
    assert reply.status == 200, reply.body
    dropped = reply.headers.get("x-sanic-proxy-dropped-params", "")
    named = ", ".join(f"`{each}`" for each in dropped.split(",") if each)
    assert named == ("" if cell.how == "as text" else cell.how)
    if cell.how == "as text" or cell.outcome == "works":
        sent = json.dumps(json.loads(upstream.requests[-1].body))
        assert all(mark in sent for mark in BY_NAME[name].marks)
