"""Straico through a real proxy."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import STRAICO_KEY, provider_settings
from tests.support.proxy import Proxy, running_proxy
from tests.support.upstream import DONE, Exchange, Upstream, straico_completion

TOOLS = [{"type": "function", "function": {"name": "ls", "parameters": {"type": "object"}}}]
CALL = '<tool_calls>[{"name":"ls","arguments":{"p":"/"}}]</tool_calls>'


def answers(upstream: Upstream, model: str, reply: Any, *, after_s: float = 0.0) -> None:
    async def script(exchange: Exchange) -> None:
        await asyncio.sleep(after_s)
        await exchange.answer(reply)

    upstream.on(model, script)


def chunks_of(frames: list[bytes]) -> list[dict[str, Any]]:
    assert frames[-1] == DONE
    return [json.loads(frame[6:]) for frame in frames[:-1]]


def text_of(chunks: list[dict[str, Any]]) -> str:
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


def test_a_whole_answer_is_openais(proxy: Proxy, upstream: Upstream) -> None:
    answers(upstream, "openai/gpt-4o", straico_completion("Hello!"))
    reply = proxy.chat("straico/openai/gpt-4o", temperature=0.5)
    assert reply.status == 200
    assert reply.json["model"] == "straico/openai/gpt-4o"
    assert reply.json["choices"][0]["message"]["content"] == "Hello!"
    assert reply.headers["x-straico-price-total"] == "0.05"
    seen = upstream.requests[-1]
    assert (seen.path, seen.header("authorization")) == ("/v2/chat/completions", f"Bearer {STRAICO_KEY}")
    assert seen.json == {
        "model": "openai/gpt-4o",
        "messages": [{"role": "user", "content": "Hi"}],
        "temperature": 0.5,
    }


def test_a_name_without_prefix_is_straicos(proxy: Proxy, upstream: Upstream) -> None:
    answers(upstream, "o3-2025-04-16", straico_completion("Hello!"))
    assert proxy.chat("o3-2025-04-16").json["model"] == "o3-2025-04-16"


def test_a_stream_is_emulated_with_heartbeats(proxy: Proxy, upstream: Upstream) -> None:
    text = "word " * 130 + "😀end"
    answers(upstream, "slow", straico_completion(text), after_s=1.2)
    reply, frames = proxy.stream("straico/slow", stream_options={"include_usage": True})
    assert reply.status == 200
    chunks = chunks_of(frames)
    assert text_of(chunks) == text
    assert {(c["id"], c["created"], c["model"], c["object"]) for c in chunks} == {
        (chunks[0]["id"], chunks[0]["created"], "straico/slow", "chat.completion.chunk")
    }
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    beats = [
        c
        for c in chunks
        if c["choices"] and c["choices"][0]["delta"] == {} and not c["choices"][0]["finish_reason"]
    ]
    assert 3 <= len(beats) <= 6
    assert all(len(c["choices"][0]["delta"].get("content") or "") <= 200 for c in chunks if c["choices"])
    assert [c["usage"] for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["usage"]["total_tokens"] == 11
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"


def test_without_the_wish_for_usage_there_is_no_usage_key(proxy: Proxy, upstream: Upstream) -> None:
    answers(upstream, "fast", straico_completion("Hi"))
    chunks = chunks_of(proxy.stream("straico/fast")[1])
    assert all("usage" not in chunk for chunk in chunks)


def test_tool_calls_come_as_deltas_with_an_index(proxy: Proxy, upstream: Upstream) -> None:
    answers(upstream, "calls", straico_completion(f"Look. {CALL}"))
    chunks = chunks_of(proxy.stream("straico/calls", tools=TOOLS)[1])
    deltas = [c["choices"][0]["delta"] for c in chunks]
    (call,) = next(delta["tool_calls"] for delta in deltas if "tool_calls" in delta)
    assert call["index"] == 0
    assert call["function"] == {"name": "ls", "arguments": '{"p":"/"}'}
    assert text_of(chunks) == "Look."
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, {"error": "Token is not valid", "success": False}, (502, "upstream_auth_error")),
        (404, {"error": "nope", "success": False}, (404, "model_not_found")),
        (422, {"error": "Model not found: x", "success": False}, (404, "model_not_found")),
        (
            422,
            {"error": "The daily API limit for spending coins has been reached"},
            (429, "insufficient_quota"),
        ),
        (
            500,
            {"error": "**Warning:** It seems we couldn't process your request"},
            (503, "upstream_unavailable"),
        ),
        (502, b"<html>bad gateway</html>", (502, "upstream_error")),
        (200, b"not json", (502, "upstream_bad_response")),
    ],
)
def test_a_failure_in_time_has_its_true_status(
    proxy: Proxy, upstream: Upstream, status: int, body: object, expected: tuple[int, str], streaming: bool
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(body, status)

    upstream.on("fails", script)
    reply = proxy.chat("straico/fails", stream=streaming)
    assert (reply.status, reply.error["code"]) == expected


def test_a_late_failure_is_an_error_frame(proxy: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await asyncio.sleep(0.9)
        await exchange.answer({"error": "late"}, 500)

    upstream.on("late", script)
    reply, frames = proxy.stream("straico/late")
    assert reply.status == 200
    assert json.loads(frames[-1][6:])["error"]["message"] == "late"
    assert b"[DONE]" not in reply.body


def test_a_client_that_leaves_takes_the_request_along(proxy: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.client_leaves()
        upstream.left.append("straico")

    upstream.on("waits", script)
    client = proxy.open_stream("straico/waits")
    client.recv(65536)
    client.close()
    for _ in range(100):
        if "straico" in upstream.left:
            return
        time.sleep(0.01)
    raise AssertionError("the upstream was left open")


def test_a_bad_parameter_is_refused_before_straico_sees_it(proxy: Proxy, upstream: Upstream) -> None:
    reply = proxy.chat("straico/x", n=2)
    assert (reply.status, reply.error["param"]) == (400, "n")
    assert upstream.requests == []


@pytest.fixture(scope="module")
def straico_only(shared_upstream: Upstream) -> Iterator[Proxy]:
    """As most users of Straico run it: its key and nothing else."""
    settings = provider_settings(shared_upstream)
    kept = {name: value for name, value in settings.items() if name.startswith("STRAICO")}
    more = {"SANIC_PROXY_HEARTBEAT_CHAR": "zwsp", "SANIC_PROXY_HEARTBEAT_INTERVAL": "0.2"}
    with running_proxy({**kept, **more, "SANIC_PROXY_STREAM_COMMIT_DELAY": "0"}) as started:
        yield started


def test_with_the_router_off_names_go_unchanged(straico_only: Proxy, upstream: Upstream) -> None:
    answers(upstream, "groq/llama", straico_completion("Hi"))
    assert straico_only.chat("groq/llama").json["model"] == "groq/llama"
    assert "router off" in straico_only.log


def test_the_heartbeat_may_be_an_invisible_character(straico_only: Proxy, upstream: Upstream) -> None:
    answers(upstream, "openai/gpt-4o", straico_completion("Hi"), after_s=0.5)
    chunks = chunks_of(straico_only.stream("openai/gpt-4o")[1])
    assert text_of(chunks).replace("\u200b", "") == "Hi"
    assert "\u200b" in text_of(chunks)


def test_the_list_is_straicos_with_its_fields(straico_only: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(
            {"data": [{"id": "openai/gpt-4o", "word_limit": 9, "object": "model", "created": 3.0}]}
        )

    upstream.on("GET /v2/models", script)
    listed = straico_only.request("GET", "/models").json
    assert listed["object"] == "list"
    assert listed["data"] == [
        {"id": "openai/gpt-4o", "word_limit": 9, "object": "model", "created": 3, "owned_by": "straico"}
    ]
    assert straico_only.request("GET", "/v1/models/openai/gpt-4o").json["word_limit"] == 9
    assert straico_only.request("GET", "/v1/models/openai%2Fgpt-4o").status == 200
    missing = straico_only.request("GET", "/v1/models/nope:x/y")
    assert (missing.status, missing.error["code"]) == (404, "model_not_found")
