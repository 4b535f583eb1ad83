"""What the proxy makes itself is OpenAI's, field by field: Straico's answers and the echo's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.openai import chunks
from sanic_proxy.streams import replay
from tests.support.proxy import Proxy
from tests.support.upstream import DONE, Exchange, Upstream, straico_completion

VECTORS = Path(__file__).parents[1] / "vectors"
WHOLE, CHUNK = (
    jsonschema_rs.validator_for(json.loads((VECTORS / f"{name}.json").read_text("utf-8")))
    for name in ("chat_completion", "chat_completion_chunk")
)

INTEGER = {"type": "object", "properties": {"n": {"type": "integer"}}}
TOOLS = {"tools": [{"type": "function", "function": {"name": "ls", "parameters": INTEGER}}]}
FUNCTIONS = {"functions": [{"name": "ls", "parameters": INTEGER}]}
CALLS = '<tool_calls>[{"name":"ls","arguments":{"n":1}},{"name":"ls","arguments":{}}]</tool_calls>'
FORMAT = {"type": "json_schema", "json_schema": {"name": "a", "schema": INTEGER}}


def with_message(text: str | None, finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    reply = straico_completion(text)
    reply["choices"][0]["message"].update(message)
    reply["choices"][0]["finish_reason"] = finish
    return reply


REPLIES: list[Any] = [
    ("text", straico_completion("Hello! " * 100), {}),
    ("nothing", with_message(None), {}),
    ("bare", {"choices": [{"message": {"content": "x"}}]}, {}),
    ("cut", with_message("Hel", "max_tokens"), {}),
    ("filtered", with_message("", "SAFETY"), {}),
    ("odd end", with_message("x", "odd"), {}),
    ("thought", straico_completion("<think>hm</think>Yes. <think>so</think>"), {}),
    ("reasoning", with_message("x", reasoning="hm " * 200, annotations=[{"type": "url_citation"}]), {}),
    ("refusal", with_message(None, refusal="I will not."), {}),
    ("calls", straico_completion(f"Look. {CALLS}"), TOOLS),
    ("only calls", straico_completion(CALLS), {**TOOLS, "tool_choice": "required"}),
    ("function", straico_completion(f"Look. {CALLS}"), FUNCTIONS),
    ("native", with_message(None, tool_calls=[{"function": {"name": "ls", "arguments": {}}}]), TOOLS),
    ("json", straico_completion('{"n": 1}'), {"response_format": FORMAT}),
    ("stopped", straico_completion("one two"), {"stop": " "}),
]


@pytest.fixture(params=[*REPLIES, "echo"], ids=[*(name for name, *_ in REPLIES), "echo"])
def chat_request(request: pytest.FixtureRequest, upstream: Upstream) -> tuple[str, dict[str, Any]]:
    """A model and the fields of a request to it."""
    if request.param == "echo":
        return "echo/echo", {}
    _, reply, fields = request.param

    async def script(exchange: Exchange) -> None:
        await exchange.answer(reply)

    upstream.on("m", script)
    return "straico/m", fields


def test_a_whole_answer_has_all_its_fields(proxy: Proxy, chat_request: tuple[str, dict[str, Any]]) -> None:
    model, fields = chat_request
    reply = proxy.chat(model, **fields)
    assert reply.status == 200
    WHOLE.validate(reply.json)
    assert reply.json["model"] == model


@pytest.mark.parametrize("include_usage", [False, True])
def test_every_chunk_has_all_its_fields(
    proxy: Proxy, chat_request: tuple[str, dict[str, Any]], include_usage: bool
) -> None:
    model, fields = chat_request
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    _, frames = proxy.stream(model, **fields, **options)
    initial = None if "tools" in fields or "functions" in fields else ""
    judge_stream(frames, include_usage=include_usage, initial=initial)


@pytest.mark.parametrize(
    "fields", [{**TOOLS, "tool_choice": "required"}, {"response_format": FORMAT}], ids=["call", "json"]
)
def test_the_echo_provider_makes_calls_and_json_of_the_same_shape(
    proxy: Proxy, fields: dict[str, Any]
) -> None:
    WHOLE.validate(proxy.chat("echo/echo", **fields).json)
    initial = None if "tools" in fields else ""
    judge_stream(proxy.stream("echo/echo", **fields)[1], include_usage=False, initial=initial)


def judge_stream(frames: list[bytes], *, include_usage: bool, initial: str | None = "") -> None:
    """One stream from its first frame to `[DONE]`."""
    *sent, done = [frame for frame in frames if frame.startswith(b"data: ")]
    assert done == DONE
    chunks = [json.loads(frame.removeprefix(b"data: ")) for frame in sent]
    for chunk in chunks:
        CHUNK.validate(chunk)
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": initial, "refusal": None}
    if include_usage:
        assert chunks[-1]["choices"] == []
        assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        chunks.pop()
    assert all(chunk["choices"] for chunk in chunks)
    assert include_usage or not any("usage" in chunk for chunk in chunks)
    ends = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert [end is None for end in ends] == [True] * (len(ends) - 1) + [False]
    judge_calls([chunk["choices"][0]["delta"] for chunk in chunks], ends[-1])


def judge_calls(deltas: list[dict[str, Any]], end: str) -> None:
    """The first delta of each call has its id, type and name; indexes count from 0."""
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    first = {call["index"]: call for call in reversed(calls)}
    assert sorted(first) == list(range(len(first)))
    for call in first.values():
        assert call["id"]
        assert (call["type"], bool(call["function"]["name"])) == ("function", True)
    assert (end == "tool_calls") == bool(calls)
    assert (end == "function_call") == any("function_call" in delta for delta in deltas)


MESSAGES = st.fixed_dictionaries(
    {"content": st.none() | st.text(max_size=500), "refusal": st.none() | st.text(min_size=1, max_size=300)},
    optional={"reasoning_content": st.text(min_size=1, max_size=300), "annotations": st.just([{}])},
)


@given(
    MESSAGES,
    st.booleans(),
    st.none() | st.just({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}),
)
def test_any_message_replayed_as_a_stream_is_valid(
    message: dict[str, Any], include_usage: bool, usage: dict[str, int] | None
) -> None:
    head = chunks.ChunkHead(id="i", model="m", created=1, include_usage=include_usage)
    whole = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
    frames = [replay.initial_frame(head), *replay.answer_frames(head, whole)]
    judge_stream(frames, include_usage=include_usage)
    deltas = [json.loads(frame[6:])["choices"] for frame in frames if frame != DONE]
    for key in ("content", "refusal", "reasoning_content"):
        sent = "".join(choices[0]["delta"].get(key) or "" for choices in deltas if choices)
        assert sent == (message.get(key) or "")


@pytest.mark.parametrize("name", ["id", "object", "created", "model", "choices"])
def test_the_vectors_miss_nothing(name: str) -> None:
    whole = straico_completion("x")
    chunk = chunks.chunk(chunks.ChunkHead(id="i", model="m", created=1, include_usage=False), {})
    for judge, value in ((WHOLE, whole), (CHUNK, chunk)):
        assert judge.is_valid(value)
        assert not judge.is_valid({**value, name: None})
        assert not judge.is_valid({key: value[key] for key in value if key != name})
