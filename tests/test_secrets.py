"""No key leaves the proxy, whatever clients and providers send. All tests search all output for them."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sanic_proxy.config.loader import load
from tests.support.proxy import MIN_SECRET_CHARS, Proxy, running_proxy, secrets_in
from tests.support.settings import ONCE
from tests.support.upstream import Exchange, Upstream, completion, frame

# None of them looks like a key of the large vendors.
KEYS = {
    "MISTRAL_API_KEY": "Canary1mistral0123456789",
    "STRAICO_API_KEY": "Canary2straico0123456789",
    "SANIC_PROXY_API_KEYS": "Canary3client0123456789,Canary4client0123456789",
}
LAB_KEY = "Canary5lab0123456789"
LAB_HEADER = "Canary6header0123456789"
CLIENT = {"authorization": "Bearer Canary3client0123456789"}


@pytest.fixture(scope="module")
def guarded(shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy full of keys, with debug logs."""
    config = tmp_path_factory.mktemp("guarded") / "proxy.toml"
    config.write_text(
        f'[providers.lab]\nbase_url = "{shared_upstream.url}/lab"\napi_key_env = "LAB_API_KEY"\n'
        f'headers = {{ "x-team" = "{LAB_HEADER}" }}\n'
    )
    settings = {
        **KEYS,
        **ONCE,
        "LAB_API_KEY": LAB_KEY,
        "MISTRAL_BASE_URL": f"{shared_upstream.url}/mistral",
        "STRAICO_BASE_URL": shared_upstream.url,
        "SANIC_PROXY_CONFIG": str(config),
        "SANIC_PROXY_ROUTER": "on",
        "SANIC_PROXY_LOG_LEVEL": "debug",
        "SANIC_PROXY_STREAM_COMMIT_DELAY": "0.2",
    }
    with running_proxy(settings) as proxy:
        assert len(proxy.secrets) == 5
        proxy.secrets += (LAB_HEADER,)
        yield proxy


MODELS = ("mistral/leaks", "straico/leaks", "lab/leaks")


def keys_of(exchange: Exchange) -> str:
    """All secrets that the provider has received."""
    key = (exchange.seen.header("authorization") or "").removeprefix("Bearer ")
    return " and ".join(filter(None, [key, exchange.seen.header("x-team")]))


@pytest.mark.row(76)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("is_streaming", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("status", [200, 400, 401, 404, 418, 422, 429, 500, 503])
def test_a_provider_that_repeats_our_key_is_not_quoted(
    guarded: Proxy, upstream: Upstream, model: str, is_streaming: bool, status: int
) -> None:
    async def script(exchange: Exchange) -> None:
        leaked = keys_of(exchange)
        error = {"message": f"no good: {leaked}", "type": leaked, "param": leaked, "code": leaked}
        await exchange.answer({"error": error}, status)

    upstream.on("leaks", script)
    reply = guarded.chat(model, stream=is_streaming, headers=CLIENT)  # which looks for the keys
    assert reply.status >= 400
    assert "Canary" not in reply.body.decode()
    assert set(reply.error) == {"message", "type", "param", "code"}


@pytest.mark.row(76)
@pytest.mark.parametrize("kind", ["text/plain", "text/html", "application/json"])
def test_no_spelling_of_a_refusal_repeats_it(guarded: Proxy, upstream: Upstream, kind: str) -> None:
    async def script(exchange: Exchange) -> None:
        leaked = keys_of(exchange)
        body = json.dumps({"detail": leaked}) if "json" in kind else f"<b>{leaked}</b>"
        await exchange.answer(body.encode(), 400, kind=kind)

    upstream.on("leaks", script)
    for model in MODELS:
        assert b"Canary" not in guarded.chat(model, headers=CLIENT).body


@pytest.mark.row(76)
def test_a_stream_that_fails_late_repeats_it_neither(guarded: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        leaked = keys_of(exchange)
        error = b"data: " + json.dumps({"error": {"message": leaked, "code": leaked}}).encode() + b"\n\n"
        await exchange.stream([frame({"content": "a"}), error])

    upstream.on("leaks", script)
    for model in ("mistral/leaks", "lab/leaks"):
        reply, frames = guarded.stream(model, headers=CLIENT)
        assert b"error" in frames[-1]
        assert b"Canary" not in reply.body


@pytest.mark.row(76)
@pytest.mark.parametrize(
    "path", ["/", "/docs", "/openapi.json", "/health", "/health/readiness", "/v1/models"]
)
def test_no_page_holds_a_key(guarded: Proxy, upstream: Upstream, path: str) -> None:
    assert b"Canary" not in guarded.request("GET", path, headers=CLIENT).body


@pytest.mark.row(55, 76)
@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer Canary3client012345678"},
        {"authorization": "Canary3client0123456789"},
        {"x-api-key": "Canary3client0123456789 "},
        {"x-provider": "Canary3client0123456789", **CLIENT},
    ],
)
def test_a_key_in_the_wrong_place_is_not_repeated(guarded: Proxy, headers: dict[str, str]) -> None:
    guarded.chat("lab/leaks", headers=headers)
    guarded.request("GET", "/v1/models?key=Canary3client0123456789", headers=headers)
    assert "Canary" not in guarded.log


@pytest.mark.row(76)
def test_printing_and_dumping_the_settings_shows_none(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(
        f'[providers.lab]\nbase_url = "http://lab/v1"\napi_key_env = "LAB_API_KEY"\n'
        f'headers = {{ "x-team" = "{LAB_HEADER}" }}\n'
    )
    proxy = {"HTTP_PROXY": "http://user:Canary7proxy0123456789@p"}
    settings = load({**KEYS, **proxy, "LAB_API_KEY": LAB_KEY, "SANIC_PROXY_CONFIG": "p.toml"}, tmp_path)
    shown = [repr(settings), str(settings), *(repr(provider) for provider in settings.providers)]
    assert not any("Canary" in text for text in shown)
    dumps: tuple[Callable[[Any], Any], ...] = (pickle.dumps, dataclasses.asdict, json.dumps)
    for dump in dumps:
        with pytest.raises(TypeError):
            dump(settings)


def test_the_suite_knows_what_to_look_for() -> None:
    found = secrets_in({**KEYS, "HTTPS_PROXY": "http://user:Canary7proxy@host", "GROQ_API_KEY": "k"})
    assert {"Canary1mistral0123456789", "Canary4client0123456789", "user:Canary7proxy"} <= set(found)
    assert all(len(secret) >= MIN_SECRET_CHARS for secret in found)


def test_the_suite_sees_a_key_that_leaves(guarded: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(completion(keys_of(exchange)))

    # A model's answer passes unchanged: a key in a prompt may be in it.
    upstream.on("repeats", script)
    with pytest.raises(AssertionError, match="left the proxy"):
        guarded.chat("mistral/repeats", headers=CLIENT)
