"""Whole answers, read and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanic_proxy import errors
from sanic_proxy.translation.conversation import (
    Answer,
    Begin,
    CallBegin,
    CallDelta,
    Conversation,
    Event,
    Finish,
    Other,
    Part,
    PartEnd,
    Reasoning,
    ReasoningDelta,
    ReasoningEnd,
    Refusal,
    RefusalDelta,
    Text,
    TextDelta,
    ToolCall,
    Turn,
    Usage,
    UsageReport,
)
from sanic_proxy.translation.responses import ResponsesFormat
from tests.support.responses import events_of, judge_response

Json = dict[str, Any]

FORMAT = ResponsesFormat(now=lambda: 1_700_000_000)
ASKED = Conversation("m", [Turn("user", [])])
CODEX: Json = json.loads((Path(__file__).parent / "codex.json").read_text("utf-8"))


def answer(*parts: Part, **fields: Any) -> Answer:
    return Answer(fields.pop("id", "chatcmpl-abc"), "gpt", 1_600_000_000, list(parts), **fields)


def write(*parts: Part, asked: Conversation = ASKED, **fields: Any) -> Json:
    response = FORMAT.write_answer(answer(*parts, **fields), asked)
    judge_response(response)
    return response


# Writing


def test_a_text_with_its_annotations() -> None:
    citation = {"url": "https://x", "title": "t", "start_index": 0, "end_index": 1}
    # Chats nest the fields of a citation.
    text = Text("a", annotations=[{"type": "url_citation", "url_citation": citation}])
    response = write(text, usage=Usage(1, 2))
    assert response["status"] == "completed"
    assert response["output"] == [
        {
            "id": "msg_abc_0",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [
                {
                    "type": "output_text",
                    "text": "a",
                    "annotations": [{"type": "url_citation", **citation}],
                    "logprobs": [],
                }
            ],
        }
    ]
    assert response["usage"]["total_tokens"] == 3


def test_reasoning_calls_and_refusals_keep_their_order() -> None:
    response = write(
        Reasoning("s", "sig", "anthropic", is_summary=True),
        Text("a"),
        ToolCall("c1", "f", '{"cut'),
        ToolCall("c2", "patch", "x", "custom"),
        Refusal("no"),
        finish="tool_calls",
    )
    types = [item["type"] for item in response["output"]]
    assert types == ["reasoning", "message", "function_call", "custom_tool_call", "message"]
    assert response["output"][2]["arguments"] == '{"cut'


def test_pieces_of_one_reasoning_item_are_joined() -> None:
    response = write(
        Reasoning("a", is_summary=True, id="rs_9"),
        Reasoning("b", "sig", "openai", is_summary=True, id="rs_9"),
    )
    (item,) = response["output"]
    assert [part["text"] for part in item["summary"]] == ["a", "b"]


def test_a_cut_answer_is_incomplete() -> None:
    response = write(Text("a"), ToolCall("c", "f", '{"'), finish="length")
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]


def test_parts_that_an_answer_cannot_have_are_left_out() -> None:
    assert write(Other("server_tool_use", {}), Text(""))["output"] == []


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        ("chatcmpl-abc", "resp_abc"),
        ("msg_01", "resp_01"),
        ("resp_5", "resp_5"),
        ("gen-1", "resp_1"),
        ("a b/c", "resp_a_b_c"),
        ("é", "resp__"),
    ],
)
def test_ids_are_made_of_the_provider_s(upstream: str, expected: str) -> None:
    assert write(Text("a"), id=upstream)["id"] == expected


def test_long_and_missing_ids() -> None:
    one, same = write(Text("a"), id="x" * 500), write(Text("a"), id="x" * 500)
    assert one["id"] == same["id"]
    assert len(one["output"][0]["id"]) <= 64
    assert write(Text("a"), id="")["id"] != write(Text("a"), id="")["id"]


def test_the_request_s_fields_are_repeated() -> None:
    tools = [{"type": "function", "name": "f"}]
    asked = FORMAT.read_request(
        {
            "model": "m",
            "input": "x",
            "instructions": "Be brief",
            "tools": tools,
            "tool_choice": {"type": "function", "name": "f"},
            "temperature": 0.5,
            "max_output_tokens": 50,
            "parallel_tool_calls": False,
            "reasoning": {"effort": "low"},
            "text": {"verbosity": "low"},
            "metadata": {"a": "b"},
            "store": True,
            "truncation": "auto",
            "service_tier": "auto",
            "max_tool_calls": 3,
            "user": "u",
        }
    )
    response = write(Text("a"), asked=asked)
    assert response["instructions"] == "Be brief"
    assert response["tools"] == [{**tools[0], "description": None, "parameters": None, "strict": None}]
    assert response["tool_choice"] == {"type": "function", "name": "f"}
    assert response["temperature"] == 0.5
    assert response["max_output_tokens"] == 50
    assert response["parallel_tool_calls"] is False
    assert response["reasoning"] == {"effort": "low", "summary": None}
    assert response["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    assert response["metadata"] == {"a": "b"}
    assert response["store"] is False  # nothing is stored
    assert response["truncation"] == "auto"
    assert response["service_tier"] == "default"
    assert response["max_tool_calls"] == 3
    assert response["user"] == "u"


def test_the_answer_to_codex_is_valid() -> None:
    response = write(ToolCall("c", "apply_patch", "x", "custom"), asked=FORMAT.read_request(CODEX))
    named = [tool for tool in response["tools"] if tool["type"] != "function"]
    assert named == [tool for tool in CODEX["tools"] if tool["type"] != "function"]


# Reading


def response(*output: Json, **fields: Any) -> Json:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 5.5,
        "model": "gpt",
        "status": "completed",
        "output": list(output),
        **fields,
    }


def test_a_whole_response_is_read() -> None:
    read = FORMAT.read_answer(
        response(
            {"type": "reasoning", "id": "rs_1", "summary": [{"text": "s"}], "encrypted_content": "gAAA"},
            {
                "type": "message",
                "content": [
                    {"type": "output_text", "text": "a", "annotations": []},
                    {"type": "refusal", "refusal": "no"},
                ],
            },
            {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}", "namespace": "ns"},
            {"type": "custom_tool_call", "call_id": "c3", "name": "p", "input": "x"},
            {"type": "tool_search_call", "call_id": "c4", "execution": "client", "arguments": {"q": 1}},
            {"type": "web_search_call", "id": "ws_1"},
            usage={"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
        )
    )
    assert read == Answer(
        "resp_1",
        "gpt",
        5,
        [
            Reasoning("s", "gAAA", is_summary=True, id="rs_1"),
            Text("a"),
            Refusal("no"),
            ToolCall("c1", "f", "{}"),
            ToolCall("c2", "g", "{}", namespace="ns"),
            ToolCall("c3", "p", "x", "custom"),
            ToolCall("c4", "tool_search", '{"q":1}', "tool_search"),
            Other("web_search_call", {"type": "web_search_call", "id": "ws_1"}),
        ],
        "tool_calls",
        usage=Usage(3, 2),
    )


@pytest.mark.parametrize(
    ("fields", "finish"),
    [
        ({}, "stop"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        ({"status": "incomplete", "incomplete_details": None}, "length"),
    ],
)
def test_the_status_decides_the_reason_to_finish(fields: Json, finish: str) -> None:
    assert FORMAT.read_answer(response(**fields)).finish == finish


def test_a_failed_response_raises_its_error() -> None:
    failed = response(status="failed", error={"code": "rate_limit_exceeded", "message": "slow"})
    with pytest.raises(errors.RateLimited, match="slow"):
        FORMAT.read_answer(failed)


@pytest.mark.parametrize("fields", [{}, {"output": "x"}, {"choices": []}])
def test_anything_else_is_no_response(fields: Json) -> None:
    with pytest.raises(errors.UpstreamBadResponse):
        FORMAT.read_answer(fields)


# Round trips


texts = st.text("abé\n{}", min_size=1, max_size=5)
parts = st.one_of(
    st.builds(Text, texts),
    st.builds(Refusal, texts),
    st.builds(Reasoning, texts, st.sampled_from(["", "sig"]), st.just("anthropic"), is_summary=st.booleans()),
    st.builds(Reasoning, st.just(""), st.just("data"), st.just("anthropic"), is_redacted=st.just(True)),
    st.builds(ToolCall, texts, st.just("f"), texts, st.sampled_from(["function", "custom"])),
)
finishes = st.sampled_from(["stop", "length", "content_filter"])


@given(st.lists(parts, max_size=5), finishes)
@settings(deadline=None)
def test_what_is_written_is_read_back(written: list[Part], finish: Any) -> None:
    read = FORMAT.read_answer(write(*written, finish=finish, usage=Usage(3, 2, 1, 0, 1)))
    for part in read.parts:
        if isinstance(part, Reasoning):
            part.id = None
    assert read.parts == written
    assert read.usage == Usage(3, 2, 1, 0, 1)
    assert (read.finish == "stop") == (finish == "stop" and not any(isinstance(p, ToolCall) for p in written))


@given(st.lists(parts, max_size=5), finishes)
@settings(deadline=None)
def test_a_stream_ends_with_the_whole_answer(written: list[Part], finish: Any) -> None:
    writer = FORMAT.writer(ASKED)
    events: list[Event] = [Begin("chatcmpl-abc", "gpt", 1_600_000_000)]
    for key, part in enumerate(written):
        match part:
            case Text(text):
                events += [TextDelta(text), PartEnd()]
            case Refusal(text):
                events += [RefusalDelta(text), PartEnd()]
            case Reasoning():
                events.append(ReasoningDelta(part.text, part.is_summary))
                events.append(ReasoningEnd(part.signature, part.origin, part.is_redacted))
            case ToolCall():
                events += [CallBegin(key, part.id, part.name, part.kind), CallDelta(key, part.arguments)]
                events.append(PartEnd(key))
    events += [Finish(finish), UsageReport(Usage(1, 2))]
    frames = b"".join(map(writer.write, events)) + writer.end()
    assert events_of(frames)[-1]["response"] == write(*written, finish=finish, usage=Usage(1, 2))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=4,
)
names = """id type status output content text summary encrypted_content call_id name arguments input error
usage model"""
kinds = (
    "message reasoning function_call custom_tool_call tool_search_call output_text refusal client incomplete"
)
items = st.dictionaries(
    st.sampled_from(names.split()),
    json_values | st.sampled_from(kinds.split()) | st.lists(json_values, max_size=2),
    max_size=6,
)


@given(st.dictionaries(st.sampled_from(names.split()), json_values | st.lists(items, max_size=3), max_size=6))
@settings(deadline=None)
def test_any_json_is_an_answer_or_an_error(fields: Json) -> None:
    try:
        read = FORMAT.read_answer(fields)
    except errors.ProxyError:
        return
    assert isinstance(read.id, str)
    FORMAT.write_answer(read, ASKED)
