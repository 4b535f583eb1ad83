"""OpenAI's Responses through a real proxy: passed to the same dialect, translated to all others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai.types.responses import CompactedResponse, Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.support import messages
from tests.support.proxy import Proxy, Reply, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import Exchange, Upstream, completion, frame, straico_completion, text_stream

KEY = "sk-canary-0123456789"
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
TOOL = {
    "type": "function",
    "name": "run",
    "parameters": {"type": "object", "properties": {}},
    "strict": False,
}
PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "format": {"type": "grammar", "syntax": "lark", "definition": "x"},
}
MESSAGE = b"".join([messages.start(), *messages.text_block(0, "Hel", "lo"), *messages.stop()])
NATIVE_EVENTS: tuple[dict[str, Any], ...] = (
    {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}, "sequence_number": 0},
    {"type": "response.output_text.delta", "delta": "Hi", "sequence_number": 1, "new": 1},
    {"type": "response.completed", "response": {"id": "resp_1", "status": "completed"}, "sequence_number": 2},
)


def event(fields: dict[str, Any]) -> bytes:
    return f"event: {fields['type']}\ndata: {json.dumps(fields)}\n\n".encode()


@pytest.fixture(scope="module")
def front(shared_upstream: Upstream) -> Iterator[Proxy]:
    settings = {
        **provider_settings(shared_upstream),
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": f"{shared_upstream.url}/oai/v1",
        "ANTHROPIC_API_KEY": "sk-ant-canary-0123456789",
        "ANTHROPIC_BASE_URL": f"{shared_upstream.url}/v1",
        "SANIC_PROXY_HEARTBEAT_INTERVAL": "0.2",
        "SANIC_PROXY_STREAM_COMMIT_DELAY": "0.5",
    }
    with running_proxy(settings) as started:
        yield started
        log = started.log
    assert "Traceback" not in log


def ask(proxy: Proxy, to: str, input_: object = "Hi", **fields: Any) -> Reply:
    return proxy.request("POST", "/v1/responses", {"model": to, "input": input_, **fields})


def events_of(body: bytes) -> list[dict[str, Any]]:
    """The events of a stream, each valid, numbered, and named by its type; heartbeats left out."""
    found = []
    for lines in body.replace(b": ping\n", b"").removesuffix(b"\n\n").split(b"\n\n"):
        name, data = lines.split(b"\n")
        fields = json.loads(data.removeprefix(b"data: "))
        assert name == f"event: {fields['type']}".encode()
        assert EVENT.validate_python(fields, strict=True).type == fields["type"]
        found.append(fields)
    assert [fields["sequence_number"] for fields in found] == list(range(len(found)))
    return found


def test_the_same_dialect_passes_byte_for_byte(front: Proxy, upstream: Upstream) -> None:
    answer = b'{ "id":"resp_1","object":"response", "status":"completed","output":[], "x":1.0}'

    async def script(exchange: Exchange) -> None:
        await exchange.answer(answer)

    upstream.on("m", script)
    sent = b'{"input":[{"role":"user","content":"x"}],  "model" : "openai/m",'
    sent += b'"store":true,"previous_response_id":"r"}'
    reply = front.request("POST", "/v1/responses", sent)
    assert (reply.status, reply.body) == (200, answer)
    seen = upstream.requests[-1]
    assert (seen.path, seen.body) == ("/oai/v1/responses", sent.replace(b"openai/m", b"m"))
    assert seen.header("authorization") == f"Bearer {KEY}"


def test_a_stream_of_the_same_dialect_passes_byte_for_byte(front: Proxy, upstream: Upstream) -> None:
    stream = b"".join(map(event, NATIVE_EVENTS))
    upstream.on("m", lambda exchange: exchange.stream([stream[:50], stream[50:]]))
    assert ask(front, "openai/m", stream=True).body == stream


def test_a_failure_that_the_provider_reports_in_the_stream_passes_and_is_logged(
    front: Proxy, upstream: Upstream
) -> None:
    error = {"code": "server_error", "message": "The model failed"}
    failed = {"type": "response.failed", "response": {"id": "resp_1", "status": "failed", "error": error}}
    stream = b"".join(map(event, (*NATIVE_EVENTS[:2], {**failed, "sequence_number": 2})))
    upstream.on("m", lambda exchange: exchange.stream([stream]))
    reply = ask(front, "openai/m", stream=True)
    assert reply.body == stream
    line = front.log_line(reply.headers["x-request-id"])
    assert "ended=complete" not in line


def test_a_cut_stream_ends_with_a_failed_response(front: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(b"".join(map(event, NATIVE_EVENTS[:2])))
        exchange.close()

    upstream.on("m", script)
    body = ask(front, "openai/m", stream=True).body
    last = json.loads(body.removesuffix(b"\n\n").rpartition(b"data: ")[2])
    assert last["type"] == "response.failed"
    assert last["response"]["id"] == "resp_1"
    assert last["response"]["error"]["code"] == "server_error"


@pytest.mark.parametrize("model", ["groq/g", "straico/openai/g", "anthropic/m"])
@pytest.mark.parametrize("streaming", [False, True])
def test_texts_are_translated(front: Proxy, upstream: Upstream, model: str, *, streaming: bool) -> None:
    async def chat(exchange: Exchange) -> None:
        if streaming:
            await exchange.stream(text_stream("Hel", "lo"))
        else:
            await exchange.answer(completion("Hello"))

    async def message(exchange: Exchange) -> None:
        if streaming:
            await exchange.stream([MESSAGE])
        else:
            content = [{"type": "text", "text": "Hello"}]
            usage = {"input_tokens": 3, "output_tokens": 1}
            whole = {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": "claude",
                "content": content,
            }
            await exchange.answer({**whole, "stop_reason": "end_turn", "usage": usage})

    upstream.on("g", chat)
    upstream.on("m", message)
    upstream.on("openai/g", lambda exchange: exchange.answer(straico_completion("Hello")))
    reply = ask(front, model, stream=streaming, instructions="Be brief")
    assert reply.status == 200
    if streaming:
        events = events_of(reply.body)
        assert events[0]["type"] == "response.created"
        assert events[-1]["type"] == "response.completed"
        assert "response.output_item.done" in [fields["type"] for fields in events]
        response = Response.model_validate(events[-1]["response"])
        assert response.id == events[0]["response"]["id"]
    else:
        response = Response.model_validate(reply.json)
    assert response.output_text == "Hello"
    assert response.status == "completed"


def test_a_custom_tool_keeps_its_kind(front: Proxy, upstream: Upstream) -> None:
    patch = "*** Begin Patch\n*** Add File: a\n+x\n*** End Patch"
    arguments = json.dumps({"input": patch})

    async def script(exchange: Exchange) -> None:
        (tool,) = exchange.seen.json["tools"]
        assert tool["function"]["name"] == "apply_patch"
        pieces = [
            frame({"role": "assistant", "content": None}),
            frame(
                {
                    "tool_calls": [
                        {
                            "index": 0,
                            "id": "c1",
                            "type": "function",
                            "function": {"name": "apply_patch", "arguments": ""},
                        }
                    ]
                }
            ),
            *(
                frame({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
                for piece in (arguments[:9], arguments[9:])
            ),
            frame(finish="tool_calls"),
        ]
        await exchange.stream([*pieces, b"data: [DONE]\n\n"])

    upstream.on("g", script)
    events = events_of(ask(front, "groq/g", stream=True, tools=[PATCH]).body)
    (item,) = events[-1]["response"]["output"]
    assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "apply_patch", patch)
    done = [fields for fields in events if fields["type"] == "response.output_item.done"]
    assert done[-1]["item"] == item


def test_a_failure_behind_the_first_content_is_a_failed_response(front: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(b"".join(text_stream("Hel")[:2]))
        exchange.close()

    upstream.on("g", script)
    events = events_of(ask(front, "groq/g", stream=True).body)
    assert [fields["type"] for fields in events].count("response.failed") == 1
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["error"]["message"]
    assert events[-1]["response"]["id"] == events[0]["response"]["id"]


def test_a_stream_of_heartbeats_alone_ends_with_a_failed_response(front: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await asyncio.sleep(0.8)
        exchange.close()

    upstream.on("g", script)
    reply = ask(front, "groq/g", stream=True)
    assert reply.status == 200
    assert events_of(reply.body)[-1]["type"] == "response.failed"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": 5}, "input"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "call_id"),
        ({"tools": "x"}, "tools"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"stream": 1}, "stream"),
    ],
)
def test_a_wrong_request_is_rejected_with_its_parameter(
    front: Proxy, fields: dict[str, Any], param: str
) -> None:
    reply = front.request("POST", "/v1/responses", {"model": "groq/g", "input": "x", **fields})
    assert reply.status == 400
    assert param in reply.json["error"]["param"]
    assert reply.json["error"]["type"] == "invalid_request_error"


def test_what_is_lost_is_named(front: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(completion("Hello"))

    upstream.on("g", script)
    reply = ask(front, "groq/g", tools=[{"type": "web_search"}], include=["web_search_call.results"])
    assert reply.status == 200
    assert "web_search" in reply.headers["x-sanic-proxy-dropped-params"]


@pytest.mark.parametrize("model", ["openai/m", "groq/g", "openai/none"])
def test_a_conversation_is_compacted(front: Proxy, upstream: Upstream, model: str) -> None:
    native = {
        "id": "resp_9",
        "object": "response.compaction",
        "created_at": 1,
        "output": [{"id": "cmp_1", "type": "compaction", "encrypted_content": "abc"}],
        "usage": {
            "input_tokens": 1,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 1,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 2,
        },
    }

    async def none(exchange: Exchange) -> None:
        if exchange.seen.path.endswith("/compact"):
            await exchange.answer({"error": {"message": "no such path"}}, 404)
            return
        output = [
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Sum"}]}
        ]
        answer = {
            "id": "resp_2",
            "object": "response",
            "status": "completed",
            "created_at": 1,
            "output": output,
        }
        await exchange.answer({**answer, "usage": native["usage"]})

    upstream.on("m", lambda exchange: exchange.answer(native))
    upstream.on(
        "g",
        lambda exchange: exchange.answer(
            completion("Sum", usage={"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10})
        ),
    )
    upstream.on("none", none)
    items = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    reply = front.request("POST", "/v1/responses/compact", {"model": model, "input": items})
    assert reply.status == 200
    compacted = CompactedResponse.model_validate(reply.json)
    assert compacted.output[0].type == "compaction"


@pytest.mark.parametrize("path", ["compact", "input_tokens"])
def test_signatures_of_other_providers_are_removed_beside_a_conversation(
    front: Proxy, upstream: Upstream, path: str
) -> None:
    upstream.on("m", lambda exchange: exchange.answer({"input_tokens": 42}))
    items = [
        {"role": "user", "content": "a"},
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAA-own"},
        {"type": "reasoning", "summary": [], "encrypted_content": "sp1.groq.c2ln"},
    ]
    body = {"model": "openai/m", "input": items}
    assert front.request("POST", f"/v1/responses/{path}", body).status == 200
    assert upstream.requests[-1].json == {"model": "m", "input": items[:2]}


@pytest.mark.parametrize("path", ["compact", "input_tokens"])
@pytest.mark.parametrize("name", ["previous_response_id", "conversation"])
@pytest.mark.parametrize("model", ["openai/m", "groq/g"])
def test_stored_responses_are_refused_beside_a_conversation(
    front: Proxy, upstream: Upstream, path: str, name: str, model: str
) -> None:
    body = {"model": model, "input": "x", name: "resp_of_another_client"}
    reply = front.request("POST", f"/v1/responses/{path}", body)
    assert (reply.status, reply.error["param"]) == (400, name)
    assert not upstream.requests


def test_tokens_are_counted_or_estimated(front: Proxy, upstream: Upstream) -> None:
    upstream.on(
        "m", lambda exchange: exchange.answer(b'{"object":"response.input_tokens","input_tokens":42}')
    )
    counted = front.request("POST", "/v1/responses/input_tokens", {"model": "openai/m", "input": "x"})
    assert counted.json["input_tokens"] == 42
    estimated = front.request("POST", "/v1/responses/input_tokens", {"model": "groq/g", "input": "x" * 40})
    assert estimated.json["input_tokens"] > 9
    assert estimated.headers["x-sanic-proxy-estimated"] == "input_tokens"


CODEX = {"originator": "codex_exec"}


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        ("groq/down", {"error": {"message": "down"}}),
        ("straico/openai/down", {"success": False}),
        ("openai/down", {"error": {"message": "down"}}),
    ],
)
def test_codex_gets_a_failure_in_its_stream(
    front: Proxy, upstream: Upstream, model: str, answer: dict[str, Any]
) -> None:
    """It repeats a request with a 5xx status up to 30 times, and one whose stream fails 6 times."""

    def asked(name: str, headers: dict[str, str], **fields: Any) -> Reply:
        """Of a model of its own, as circuits open."""
        upstream.on(f"{model}-{name}".partition("/")[2], lambda exchange: exchange.answer(answer, 500))
        body = {"model": f"{model}-{name}", "input": "Hi", "stream": True, **fields}
        return front.request("POST", "/v1/responses", body, headers)

    assert asked("other", {"originator": "other"}).status >= 500
    assert asked("whole", CODEX, stream=False).status >= 500
    reply = asked("codex", CODEX)
    assert reply.status == 200
    failed = events_of(reply.body)
    assert [event["type"] for event in failed] == ["response.created", "response.failed"]
    error = failed[-1]["response"]["error"]
    assert error["code"] == "server_error"
    assert error["message"]
    line = front.log_line(reply.headers["x-request-id"])
    assert "ended=complete" not in line


def test_codex_gets_other_refusals_by_their_status(front: Proxy, upstream: Upstream) -> None:
    upstream.on("limited", lambda exchange: exchange.answer({"error": {"message": "slow down"}}, 429))
    body = {"model": "groq/limited", "input": "Hi", "stream": True}
    assert front.request("POST", "/v1/responses", body, CODEX).status == 429
    assert front.request("POST", "/v1/responses", {**body, "input": 5}, CODEX).status == 400
