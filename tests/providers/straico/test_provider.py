"""Straico through a real proxy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.support.load import quickest_s, wait_until
from tests.support.proxy import Proxy, running_proxy
from tests.support.settings import STRAICO_KEY, provider_settings
from tests.support.straico import failing, in_turn, never
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


def test_a_whole_answer_has_openais_form(proxy: Proxy, upstream: Upstream) -> None:
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
    heartbeats = [
        c
        for c in chunks
        if c["choices"] and c["choices"][0]["delta"] == {} and not c["choices"][0]["finish_reason"]
    ]
    assert 3 <= len(heartbeats) <= 6
    assert all(len(c["choices"][0]["delta"].get("content") or "") <= 20 for c in chunks if c["choices"])
    assert [c["usage"] for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["usage"]["total_tokens"] == 11
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"


def test_a_short_answer_has_several_deltas(proxy: Proxy, upstream: Upstream) -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 3
    answers(upstream, "fast", straico_completion(text))
    chunks = chunks_of(proxy.stream("straico/fast")[1])
    deltas = [chunk["choices"][0]["delta"].get("content") for chunk in chunks]
    made = [delta for delta in deltas if delta]
    assert "".join(made) == text
    assert len(made) >= 6
    assert all(delta.endswith(" ") for delta in made)


def test_an_emulated_answer_leaves_in_one_write(proxy: Proxy, upstream: Upstream) -> None:
    answers(upstream, "fast", straico_completion("word " * 200))
    with closing(proxy.open_stream("straico/fast")) as client:
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received += client.recv(262_144)
    body = received.partition(b"\r\n\r\n")[2]
    size, _, rest = body.partition(b"\r\n")
    first = rest[: int(size, 16)]
    assert first.startswith(b"data: {")
    assert first.endswith(b"[DONE]\n\n")
    assert first.count(b"data: ") > 40


@pytest.mark.parametrize(("fields", "content"), [({"tools": TOOLS}, None), ({}, "")], ids=["tools", "none"])
def test_content_is_null_until_there_is_text_beside_calls(
    proxy: Proxy, upstream: Upstream, fields: dict[str, Any], content: str | None
) -> None:
    answers(upstream, "calls", straico_completion(CALL))
    chunks = chunks_of(proxy.stream("straico/calls", **fields)[1])
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": content, "refusal": None}


def test_without_include_usage_there_is_no_usage_key(proxy: Proxy, upstream: Upstream) -> None:
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
def test_a_failure_before_the_commit_has_its_own_status(
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


def test_a_disconnecting_client_cancels_the_request(proxy: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.client_leaves()
        upstream.left.append("straico")

    upstream.on("waits", script)
    client = proxy.open_stream("straico/waits")
    client.recv(65536)
    client.close()
    wait_until(lambda: "straico" in upstream.left)


def test_an_invalid_parameter_is_rejected_before_anything_is_sent(proxy: Proxy, upstream: Upstream) -> None:
    reply = proxy.chat("straico/x", n=2)
    assert (reply.status, reply.error["param"]) == (400, "n")
    assert upstream.requests == []


# Dropped parameters


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
def test_dropped_parameters_are_named(proxy: Proxy, upstream: Upstream, streaming: bool) -> None:
    answers(upstream, "m", straico_completion("Hi"), after_s=0.8)  # after the commit
    fields: dict[str, Any] = {"seed": 7, "x-y\r\nset-cookie: z": 1, "top_p": 0.5, "n": 1, "user": None}
    reply = proxy.chat("straico/m", stream=streaming, **fields)
    assert reply.status == 200
    assert reply.headers["x-sanic-proxy-dropped-params"] == "seed,x-y__set-cookie__z,top_p"
    assert "set-cookie" not in reply.headers


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
def test_without_dropped_parameters_there_is_no_such_header(
    proxy: Proxy, upstream: Upstream, streaming: bool
) -> None:
    answers(upstream, "m", straico_completion("Hi"))
    reply = proxy.chat("straico/m", stream=streaming, temperature=1, stop="x", top_p=1)
    assert "x-sanic-proxy-dropped-params" not in reply.headers


def test_a_stop_cuts_the_answer(proxy: Proxy, upstream: Upstream) -> None:
    reply = straico_completion("one two three")
    reply["choices"][0]["finish_reason"] = "length"
    answers(upstream, "m", reply)
    choice = proxy.chat("straico/m", stop=[" three", " two"]).json["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("one", "stop")
    chunks = chunks_of(proxy.stream("straico/m", stop=" two", stream_options={"include_usage": True})[1])
    assert text_of(chunks) == "one"
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["total_tokens"] == 11


# Retries

MUST: dict[str, Any] = {"tools": TOOLS, "tool_choice": "required"}
INTEGER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
COUNT = {"type": "json_schema", "json_schema": {"name": "count", "schema": INTEGER, "strict": True}}


def function(**more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "ls", "parameters": INTEGER, **more}}


def called(n: Any) -> str:
    return f"<tool_calls>{json.dumps([{'name': 'ls', 'arguments': {'n': n}}])}</tool_calls>"


def test_a_missing_call_is_retried_once(proxy: Proxy, upstream: Upstream) -> None:
    upstream.on("m", in_turn("I would rather not.", CALL))
    reply = proxy.chat("straico/m", **MUST)
    assert reply.json["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "ls"
    assert reply.json["usage"] == {"prompt_tokens": 18, "completion_tokens": 4, "total_tokens": 22}
    assert reply.headers["x-straico-price-total"] == "0.1"
    assert reply.json["x_straico"]["words"]["total"] == 12
    first, second = (seen.json["messages"] for seen in upstream.seen("m"))
    assert len({seen.connection for seen in upstream.seen("m")}) == 2  # the second is not repeated
    assert second[:-2] == first
    assert second[-2] == {"role": "assistant", "content": "I would rather not."}
    assert "You had to call" in second[-1]["content"]
    assert "completion_tokens=4" in proxy.log_line(reply.headers["x-request-id"])


def test_a_stream_is_retried_too(proxy: Proxy, upstream: Upstream) -> None:
    upstream.on("m", in_turn("No.", CALL, after_s=0.4))
    chunks = chunks_of(proxy.stream("straico/m", **MUST, stream_options={"include_usage": True})[1])
    deltas = [c["choices"][0]["delta"] for c in chunks if c["choices"]]
    assert [d["tool_calls"][0]["function"]["name"] for d in deltas if "tool_calls" in d] == ["ls"]
    assert text_of(chunks) == ""
    assert chunks[-1]["usage"]["total_tokens"] == 22
    assert chunks[-2]["x_straico"]["words"]["total"] == 12


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("replies", "fields", "code"),
    [
        (("No.", "Still no."), MUST, "upstream_violated_tool_choice"),
        (
            (called("x"), called("y")),
            {"tools": [function(strict=True)]},
            "upstream_invalid_arguments",
        ),
        (("No.", '{"n":"x"}'), {"response_format": COUNT}, "upstream_invalid_json"),
        (("[]", "No."), {"response_format": {"type": "json_object"}}, "upstream_invalid_json"),
    ],
)
def test_two_violations_in_a_row_are_an_error(
    proxy: Proxy, upstream: Upstream, replies: Any, fields: Any, code: str, streaming: bool
) -> None:
    upstream.on("m", in_turn(*replies))
    reply = proxy.chat("straico/m", stream=streaming, **fields)
    assert (reply.status, reply.error["code"]) == (502, code)
    assert reply.headers["x-should-retry"] == "false"
    assert len(upstream.seen("m")) == 2
    assert "completion_tokens=4" in proxy.log_line(reply.headers["x-request-id"])


def test_a_late_violation_in_a_stream_is_an_error_frame(proxy: Proxy, upstream: Upstream) -> None:
    upstream.on("m", in_turn("No.", "No.", after_s=0.5))
    reply, frames = proxy.stream("straico/m", response_format=COUNT)
    assert json.loads(frames[-1][6:])["error"]["code"] == "upstream_invalid_json"
    assert b"[DONE]" not in reply.body
    assert b"No." not in b"".join(frames[:-1])


def test_arguments_that_are_still_invalid_are_passed_on(proxy: Proxy, upstream: Upstream) -> None:
    upstream.on("m", in_turn(called("x"), called("y")))
    choice = proxy.chat("straico/m", tools=[function()]).json["choices"][0]
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"n":"y"}'
    assert "is not of type" in upstream.seen("m")[1].json["messages"][-1]["content"]


def test_the_first_answer_is_passed_on_if_the_retry_fails(proxy: Proxy, upstream: Upstream) -> None:
    upstream.on("m", in_turn(called("x"), failing(429, "slow down")))
    choice = proxy.chat("straico/m", tools=[function()]).json["choices"][0]
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"n":"x"}'
    upstream.on("m", in_turn("No.", failing(429, "slow down")))
    reply = proxy.chat("straico/m", **MUST)
    assert (reply.status, reply.error["code"]) == (429, "rate_limit_exceeded")


def test_valid_answers_are_not_retried(proxy: Proxy, upstream: Upstream) -> None:
    upstream.on("m", in_turn(called("5"), 'Here: ```json\n{"n": 5}\n```', "Just text."))
    choice = proxy.chat("straico/m", tools=[function(strict=True)]).json["choices"][0]
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"n":5}'
    choice = proxy.chat("straico/m", response_format=COUNT).json["choices"][0]
    assert choice["message"]["content"] == '{"n": 5}'
    assert proxy.chat("straico/m", tools=[function()]).status == 200
    assert len(upstream.seen("m")) == 3


def cut(text: str) -> dict[str, Any]:
    reply = straico_completion(text)
    reply["choices"][0]["finish_reason"] = "max_tokens"
    return reply


def test_json_cut_by_the_clients_limit_ends_with_length(proxy: Proxy, upstream: Upstream) -> None:
    upstream.on("m", in_turn(cut('{"n": 1'), cut('{"n": 1'), cut('{"n": 1')))
    choice = proxy.chat("straico/m", response_format=COUNT, max_tokens=3).json["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ('{"n": 1', "length")
    chunks = chunks_of(proxy.stream("straico/m", response_format=COUNT, max_tokens=3)[1])
    assert text_of(chunks) == '{"n": 1'
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    reply = proxy.chat("straico/m", response_format=COUNT)
    assert (reply.status, reply.error["code"]) == (502, "upstream_invalid_json")
    assert "max_tokens" in reply.error["message"]


def test_of_two_calls_cut_by_the_limit_the_complete_one_arrives(proxy: Proxy, upstream: Upstream) -> None:
    upstream.on("m", in_turn(cut(f'{CALL}<tool_calls>[{{"name":"ls","argum')))
    choice = proxy.chat("straico/m", tools=TOOLS, max_tokens=30).json["choices"][0]
    assert [made["function"]["name"] for made in choice["message"]["tool_calls"]] == ["ls"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (None, "length")
    assert len(upstream.seen("m")) == 1


def test_an_unknown_tool_is_retried_once_and_then_passed_on(proxy: Proxy, upstream: Upstream) -> None:
    unknown = CALL.replace('"ls"', '"find"')
    upstream.on("m", in_turn(unknown, CALL, unknown, unknown))
    for name in ("ls", "find"):
        choice = proxy.chat("straico/m", tools=TOOLS).json["choices"][0]
        assert [made["function"]["name"] for made in choice["message"]["tool_calls"]] == [name]
        assert choice["finish_reason"] == "tool_calls"
    assert "There is no function find" in upstream.seen("m")[1].json["messages"][-1]["content"]
    assert len(upstream.seen("m")) == 4


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "{url}/schema.json"}, {"pattern": 7}, []])
def test_an_invalid_schema_is_rejected_before_anything_is_sent(
    proxy: Proxy, upstream: Upstream, schema: Any, streaming: bool
) -> None:
    filled = json.loads(json.dumps(schema).replace("{url}", upstream.url))
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": filled}}
    reply = proxy.chat("straico/m", stream=streaming, response_format=wanted)
    assert (reply.status, reply.error["param"]) == (400, "response_format")
    assert upstream.requests == []


def test_a_disconnecting_client_cancels_the_retry(proxy: Proxy, upstream: Upstream) -> None:
    async def second(exchange: Exchange) -> None:
        upstream.left.append("second requested")
        await exchange.client_leaves()
        upstream.left.append("second left")

    upstream.left.clear()
    upstream.on("m", in_turn("No.", second))
    client = proxy.open_stream("straico/m", **MUST)
    wait_until(lambda: "second requested" in upstream.left)
    client.close()
    wait_until(lambda: "second left" in upstream.left)


@pytest.fixture(scope="module")
def hurried(shared_upstream: Upstream) -> Iterator[Proxy]:
    """A proxy whose requests have 1.2 seconds in all."""
    with running_proxy({**provider_settings(shared_upstream), "SANIC_PROXY_TIMEOUT_TOTAL": "1.2"}) as started:
        yield started


def test_both_answers_share_the_time_of_one_request(hurried: Proxy, upstream: Upstream) -> None:
    def send() -> None:
        upstream.on("m", in_turn("No.", never, after_s=0.7))
        reply = hurried.chat("straico/m", **MUST)
        assert (reply.status, reply.error["code"]) == (504, "upstream_timeout")

    assert quickest_s(send, 1.6) < 1.6


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
