"""What the operator changes in the requests of a provider or a model, for each dialect, on a real proxy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.proxy import Proxy, Reply, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import Exchange, Upstream, completion

CONFIG = """
[providers.groq]
default_params = { temperature = 0.5, seed = 1 }

[models.strict]
targets = ["groq/g"]
strict = true

[models.strict-straico]
targets = ["straico/openai/g"]
strict = true

[models.tuned]
targets = ["groq/g", "anthropic/m"]
default_params = { seed = 2 }
set_params = { top_p = 0.1 }
remove_params = ["metadata", "user"]
"""
TURNS = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def tuned(shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    path: Path = tmp_path_factory.mktemp("options") / "proxy.toml"
    path.write_text(CONFIG)
    settings = {
        **provider_settings(shared_upstream),
        "ANTHROPIC_API_KEY": "sk-ant-canary-0123456789",
        "ANTHROPIC_BASE_URL": shared_upstream.url,  # as Anthropic's own clients have it, without /v1
        "SANIC_PROXY_CONFIG": str(path),
    }
    with running_proxy(settings) as started:
        yield started


async def answer(exchange: Exchange) -> None:
    await exchange.answer(completion("Hello"))


def ask(proxy: Proxy, path: str, model: str, **fields: Any) -> Reply:
    return proxy.request("POST", path, {"model": model, **fields})


def test_parameters_are_added_replaced_and_removed(tuned: Proxy, upstream: Upstream) -> None:
    upstream.on("g", answer)
    fields = {"messages": TURNS, "temperature": 1.0, "top_p": 0.9, "user": "u"}
    assert ask(tuned, "/v1/chat/completions", "tuned", **fields).status == 200
    assert upstream.requests[-1].json == {
        "model": "g",
        "messages": TURNS,
        "temperature": 1.0,
        "seed": 2,
        "top_p": 0.1,
    }


def test_they_are_changed_behind_a_translation_too(tuned: Proxy, upstream: Upstream) -> None:
    upstream.on("g", answer)
    reply = ask(tuned, "/v1/messages", "tuned", messages=TURNS, max_tokens=9, metadata={"user_id": "u"})
    assert reply.status == 200
    sent = upstream.requests[-1].json
    assert (sent["seed"], sent["top_p"], sent["temperature"]) == (2, 0.1, 0.5)
    assert "user" not in sent


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("model", ["strict", "strict-straico"])
def test_a_strict_model_rejects_what_would_be_lost(
    tuned: Proxy, upstream: Upstream, model: str, *, streaming: bool
) -> None:
    reply = ask(tuned, "/v1/messages", model, messages=TURNS, max_tokens=9, top_k=5, stream=streaming)
    assert reply.status == 400
    assert "top_k" in reply.json["error"]["message"]
    assert not upstream.requests


def test_a_strict_model_accepts_what_can_be_translated(tuned: Proxy, upstream: Upstream) -> None:
    upstream.on("g", answer)
    reply = ask(tuned, "/v1/messages", "strict", messages=TURNS, max_tokens=9, temperature=0.1)
    assert reply.status == 200
    assert "x-sanic-proxy-dropped-params" not in reply.headers


def test_a_base_url_of_anthropics_needs_no_version(tuned: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer({"id": "m", "type": "message", "content": [], "stop_reason": "end_turn"})

    upstream.on("m", script)
    assert ask(tuned, "/v1/messages", "anthropic/m", messages=TURNS, max_tokens=9).status == 200
    assert upstream.requests[-1].path == "/v1/messages"
