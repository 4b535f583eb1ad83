"""Anthropic's Messages through a real proxy: passed to the same dialect, translated to chats and Straico."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from anthropic.types import Message

from tests.support import messages
from tests.support.proxy import Proxy, Reply, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import (
    DONE,
    Exchange,
    Upstream,
    completion,
    frame,
    straico_completion,
    text_stream,
)

KEY = "sk-ant-canary-0123456789"
VERSION = {"anthropic-version": "2023-06-01"}
TOOL = {"name": "run", "description": "Run", "input_schema": {"type": "object", "properties": {}}}
TURNS = [{"role": "user", "content": "Hi"}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "run", "arguments": '{"a": 1}'}}


@pytest.fixture(scope="module")
def front(shared_upstream: Upstream) -> Iterator[Proxy]:
    settings = {
        **provider_settings(shared_upstream),
        "ANTHROPIC_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": f"{shared_upstream.url}/v1",
        "SANIC_PROXY_HEARTBEAT_INTERVAL": "0.2",
        "SANIC_PROXY_STREAM_COMMIT_DELAY": "0.5",
        "SANIC_PROXY_TIMEOUT_IDLE": "1",
    }
    with running_proxy(settings) as started:
        yield started
        log = started.log
    assert "Traceback" not in log


def ask(proxy: Proxy, to: str, headers: dict[str, str] | None = None, **fields: Any) -> Reply:
    body = {"model": to, "max_tokens": 100, "messages": TURNS, **fields}
    return proxy.request("POST", "/v1/messages?beta=true", body, {**VERSION, **(headers or {})})


NATIVE = b"".join([messages.start(), *messages.text_block(0, "Hel", "lo"), *messages.stop()])


# The same dialect


def test_the_same_dialect_passes_byte_for_byte(front: Proxy, upstream: Upstream) -> None:
    answer = b'{ "id": "msg_1", "type":"message", "content":[{"type":"text","text":"\\u00fc"}], "x": 1.0 }'

    async def script(exchange: Exchange) -> None:
        await exchange.answer(answer, 200, ("request-id", "req_1"))

    upstream.on("m", script)
    sent = b'{"max_tokens":9,  "model" : "anthropic/m","new":{"b":1.50},'
    sent += b'"messages":[{"role":"user","content":"x"}]}'
    headers = {
        "x-api-key": "client-key",
        "anthropic-beta": "a-2026,b-2026",
        "anthropic-version": "2024-01-01",
    }
    reply = front.request("POST", "/v1/messages?beta=true", sent, headers)
    assert (reply.status, reply.body) == (200, answer)
    seen = upstream.requests[-1]
    assert (seen.path, seen.body) == ("/v1/messages", sent.replace(b"anthropic/m", b"m"))
    assert seen.header("x-api-key") == KEY
    assert seen.header("authorization") is None
    assert seen.header("anthropic-beta") == "a-2026,b-2026"
    assert seen.header("anthropic-version") == "2024-01-01"


def test_the_version_is_sent_where_a_client_sends_none(front: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer({"id": "m", "type": "message", "content": [], "stop_reason": "end_turn"})

    upstream.on("m", script)
    body = {"model": "anthropic/m", "max_tokens": 1, "messages": TURNS}
    assert front.request("POST", "/v1/messages", body).status == 200
    assert upstream.requests[-1].header("anthropic-version") == "2023-06-01"


def test_a_stream_of_the_same_dialect_passes_byte_for_byte(front: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream([NATIVE[:70], NATIVE[70:200], NATIVE[200:]])

    upstream.on("m", script)
    reply = ask(front, "anthropic/m", stream=True)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.body == NATIVE


def test_a_cut_stream_ends_with_an_error_event(front: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(messages.start() + b"".join(messages.text_block(0, "Hel")[:2]))
        exchange.close()

    upstream.on("m", script)
    body = ask(front, "anthropic/m", stream=True).body
    head, _, last = body.rpartition(b"event: error\n")
    assert head.endswith(b"\n\n")
    assert json.loads(last.removeprefix(b"data: "))["error"]["type"] == "api_error"


@pytest.mark.parametrize("status", [400, 404, 413, 422, 429, 500, 529])
@pytest.mark.parametrize("streaming", [False, True])
def test_error_bodies_of_the_same_dialect_pass_unmodified(
    front: Proxy, upstream: Upstream, status: int, *, streaming: bool
) -> None:
    body = (
        b'{"type":"error",  "error":{"type":"odd_error","message":"context_management: Extra inputs"},"z":1}'
    )

    async def script(exchange: Exchange) -> None:
        await exchange.answer(body, status)

    upstream.on("m", script)
    reply = ask(front, "anthropic/m", stream=streaming)
    assert (reply.status, reply.body) == (status, body)


def test_a_key_in_an_error_body_is_redacted(front: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer({"type": "error", "error": {"type": "x", "message": f"bad {KEY}"}}, 400)

    upstream.on("m", script)
    reply = ask(front, "anthropic/m")
    assert reply.json["error"]["message"] == "bad [redacted]"


@pytest.mark.parametrize(("status", "expected"), [(401, 502), (403, 502)])
def test_errors_about_the_proxys_key_are_the_proxys(
    front: Proxy, upstream: Upstream, status: int, expected: int
) -> None:
    async def script(exchange: Exchange) -> None:
        error = {"type": "authentication_error", "message": "invalid x-api-key"}
        await exchange.answer({"type": "error", "error": error}, status)

    upstream.on("m", script)
    reply = ask(front, "anthropic/m")
    assert reply.status == expected
    assert reply.json["error"]["type"] == "api_error"


def test_signatures_of_other_providers_are_removed(front: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer({"id": "m", "type": "message", "content": [], "stop_reason": "end_turn"})

    upstream.on("m", script)
    thinking = [
        {"type": "thinking", "thinking": "own", "signature": "EqoBCkg"},
        {"type": "thinking", "thinking": "unsigned", "signature": ""},
        {"type": "thinking", "thinking": "foreign", "signature": "sp1.groq.c2ln"},
        {"type": "text", "text": "So."},
    ]
    ask(front, "anthropic/m", messages=[*TURNS, {"role": "assistant", "content": thinking}, *TURNS])
    (sent,) = (m for m in upstream.requests[-1].json["messages"] if m["role"] == "assistant")
    assert sent["content"] == [thinking[0], thinking[3]]


def test_a_long_whole_answer_is_collected_from_a_stream(front: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        assert exchange.seen.json["stream"] is True
        await exchange.stream([NATIVE[:100], NATIVE[100:]])

    upstream.on("m", script)
    upstream.on("g", lambda exchange: exchange.stream([*text_stream("Hel", "lo"), DONE][:-1]))
    for model in ("anthropic/m", "groq/g"):
        reply = ask(front, model, max_tokens=128_000)
        message = Message.model_validate(reply.json)
        assert reply.headers["content-type"] == "application/json"
        assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "Hello"}]
        assert upstream.requests[-1].json["stream"] is True


# Translated


def test_a_whole_answer_of_a_chat_is_translated(front: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        usage = {
            "prompt_tokens": 10,
            "completion_tokens": 4,
            "total_tokens": 14,
            "prompt_tokens_details": {"cached_tokens": 3},
        }
        await exchange.answer(completion("Hello", usage=usage))

    upstream.on("g", script)
    reply = ask(front, "groq/g", system="Be brief", tools=[TOOL], top_k=3)
    message = Message.model_validate(reply.json)
    assert message.content[0].to_dict() == {"type": "text", "text": "Hello"}
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (7, 3)
    assert "top_k" in reply.headers["x-sanic-proxy-dropped-params"]
    sent = upstream.requests[-1].json
    assert sent["model"] == "g"
    assert [turn["role"] for turn in sent["messages"]] == ["system", "user"]
    assert sent["tools"][0]["function"]["name"] == "run"


@pytest.mark.parametrize("model", ["groq/g", "straico/openai/g"])
def test_a_stream_is_translated(front: Proxy, upstream: Upstream, model: str) -> None:
    upstream.on("g", lambda exchange: exchange.stream(text_stream("Hel", "lo")))
    upstream.on("openai/g", lambda exchange: exchange.answer(straico_completion("Hello")))
    body = ask(front, model, stream=True).body
    message = messages.judged(body).message
    assert message["content"] == [{"type": "text", "text": "Hello"}]
    assert message["stop_reason"] == "end_turn"


def test_calls_and_their_results_are_translated(front: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        pieces = [
            frame({"role": "assistant", "content": None}),
            frame({"tool_calls": [{"index": 0, **CALL}]}),
            frame(finish="tool_calls"),
            DONE,
        ]
        await exchange.stream(pieces)

    upstream.on("g", script)
    message = messages.judged(ask(front, "groq/g", stream=True, tools=[TOOL]).body).message
    (call,) = message["content"]
    assert call == {"type": "tool_use", "id": "call_1", "name": "run", "input": {"a": 1}}
    assert message["stop_reason"] == "tool_use"
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": "done", "is_error": True}
    history = [
        *TURNS,
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result, {"type": "text", "text": "and?"}]},
    ]
    ask(front, "groq/g", tools=[TOOL], messages=history, stream=True)
    sent = upstream.requests[-1].json["messages"]
    assert [turn["role"] for turn in sent] == ["user", "assistant", "tool", "user"]
    assert sent[2]["tool_call_id"] == "call_1"


def test_errors_of_chats_get_anthropics_shape(front: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        error = {
            "message": "no money",
            "type": "insufficient_quota",
            "param": None,
            "code": "insufficient_quota",
        }
        await exchange.answer({"error": error}, 429)

    upstream.on("g", script)
    reply = ask(front, "groq/g", stream=True)
    assert reply.status == 429
    assert reply.json == {"type": "error", "error": {"type": "billing_error", "message": "no money"}}
    assert reply.headers["x-should-retry"] == "false"
    assert int(reply.headers["retry-after"]) > 60


def test_a_chat_in_front_of_a_provider_of_messages(front: Proxy, upstream: Upstream) -> None:
    upstream.on("m", lambda exchange: exchange.stream([NATIVE]))
    reply, frames = front.stream("anthropic/m")
    assert reply.status == 200
    assert frames[-1] == DONE
    text = "".join(
        json.loads(piece.removeprefix(b"data: "))["choices"][0]["delta"].get("content") or ""
        for piece in frames[:-1]
        if piece.startswith(b"data: {")
    )
    assert text == "Hello"
    assert upstream.requests[-1].json["max_tokens"] > 0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": "1"}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"model": 1}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages"),
        ({"tools": "x"}, "tools"),
    ],
)
def test_a_wrong_request_is_rejected_with_its_parameter(
    front: Proxy, fields: dict[str, Any], param: str
) -> None:
    reply = ask(front, "groq/g", **fields)
    assert reply.status == 400
    assert reply.json["error"]["type"] == "invalid_request_error"
    assert param in reply.json["error"]["message"]


@pytest.mark.parametrize("model", ["groq/g", "straico/openai/g"])
@pytest.mark.parametrize("depth", [300, 900])
def test_deep_nesting_is_translated_or_rejected(
    front: Proxy, upstream: Upstream, model: str, depth: int
) -> None:
    upstream.on("g", lambda exchange: exchange.answer(completion("Hello")))
    upstream.on("openai/g", lambda exchange: exchange.answer(straico_completion("Hello")))
    schema = '{"type":"object","properties":{"a":' * (depth // 2) + "{}" + "}}" * (depth // 2)
    body = f'{{"model":"{model}","max_tokens":9,"messages":[{{"role":"user","content":"x"}}],'
    body += '"tools":[{"name":"f",'
    reply = front.request("POST", "/v1/messages", f'{body}"input_schema":{schema}}}]}}'.encode())
    assert reply.status in {200, 400}
    assert reply.json["type"] in {"message", "error"}


@pytest.mark.parametrize("streaming", [False, True])
def test_a_large_conversation_is_translated(front: Proxy, upstream: Upstream, *, streaming: bool) -> None:
    async def script(exchange: Exchange) -> None:
        if streaming:
            await exchange.stream(text_stream("Hello"))
        else:
            await exchange.answer(completion("Hello"))

    upstream.on("g", script)
    turns = [{"role": role, "content": "a"} for _ in range(8000) for role in ("user", "assistant")]
    reply = ask(front, "groq/g", messages=[*turns, *TURNS], stream=streaming)
    assert reply.status == 200
    assert b"Hello" in reply.body
    assert len(upstream.requests[-1].json["messages"]) == len(turns) + 1


# Counting, probes and models


def test_tokens_are_counted_by_the_provider(front: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(b'{"input_tokens": 42}')

    upstream.on("m", script)
    body = {"model": "anthropic/m", "messages": TURNS}
    reply = front.request("POST", "/v1/messages/count_tokens?beta=true", body, VERSION)
    assert reply.json == {"input_tokens": 42}
    assert "x-sanic-proxy-estimated" not in reply.headers
    assert upstream.requests[-1].path == "/v1/messages/count_tokens"
    assert upstream.requests[-1].header("anthropic-version") == "2023-06-01"


def test_signatures_of_other_providers_are_not_counted(front: Proxy, upstream: Upstream) -> None:
    upstream.on("m", lambda exchange: exchange.answer({"input_tokens": 42}))
    thinking = {"type": "thinking", "thinking": "foreign", "signature": "sp1.groq.c2ln"}
    said = {"type": "text", "text": "So."}
    turns = [*TURNS, {"role": "assistant", "content": [thinking, said]}, *TURNS]
    body = {"model": "anthropic/m", "messages": turns}
    assert front.request("POST", "/v1/messages/count_tokens", body, VERSION).status == 200
    sent = upstream.requests[-1].json
    assert sent["model"] == "m"
    assert {"role": "assistant", "content": [said]} in sent["messages"]


@pytest.mark.parametrize("model", ["groq/g", "anthropic/none"])
def test_tokens_are_estimated_where_the_provider_does_not_count(
    front: Proxy, upstream: Upstream, model: str
) -> None:
    upstream.on("none", lambda exchange: exchange.answer({"type": "error", "error": {"message": "x"}}, 404))
    reply = front.request("POST", "/v1/messages/count_tokens", {"model": model, "messages": TURNS})
    assert reply.json["input_tokens"] > 0
    assert reply.headers["x-sanic-proxy-estimated"] == "input_tokens"


@pytest.mark.parametrize("path", ["/", "/api/hello"])
def test_probes_are_answered(front: Proxy, path: str) -> None:
    assert front.request("HEAD", path).status == 200


def test_models_have_anthropics_shape_for_its_clients(front: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer({"data": [{"id": "claude-x", "object": "model"}]})

    for path in ("/openai/v1/models", "/v2/models", "/v1/models?limit=1000"):
        upstream.on(f"GET {path}", script)
    page = front.request("GET", "/v1/models?limit=1000", None, VERSION).json
    assert {"type", "id", "display_name", "created_at"} <= set(page["data"][0])
    assert page["has_more"] is False
    assert front.request("GET", "/v1/models").json["object"] == "list"
