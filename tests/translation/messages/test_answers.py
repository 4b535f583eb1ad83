"""Whole answers of the Messages API, and the sum of a stream."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import Message

from sanic_proxy import errors
from sanic_proxy.streams.messages_usage import usage_fields, usage_of
from sanic_proxy.translation import signatures
from sanic_proxy.translation.conversation import (
    Answer,
    Conversation,
    FinishReason,
    Other,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    Usage,
)
from sanic_proxy.translation.messages import MessagesFormat
from sanic_proxy.translation.messages.accumulate import MessageAccumulator
from tests.support.messages import (
    block,
    call_block,
    frame,
    judged,
    start,
    stop,
    text_block,
    thinking_block,
)

FORMAT = MessagesFormat()
ASKED = Conversation("asked", [])


def written(*parts: Part, finish: FinishReason = "stop", **fields: Any) -> dict[str, Any]:
    answer = Answer("chatcmpl-1", "gpt", 0, list(parts), finish, **fields)
    message = FORMAT.write_answer(answer, ASKED)
    Message.model_validate(message, strict=True)
    return message


def read(*content: dict[str, Any], **fields: Any) -> Answer:
    return FORMAT.read_answer({"id": "msg_1", "model": "claude", "content": list(content), **fields})


# Written


def test_a_whole_answer() -> None:
    message = written(Text("hello"), usage=Usage(10, 5, 4, 3, 2))
    assert message["id"].startswith("msg_chatcmpl-1_")
    assert message == {
        "id": message["id"],
        "type": "message",
        "role": "assistant",
        "model": "gpt",
        "content": [{"type": "text", "text": "hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 3,
            "cache_creation_input_tokens": 3,
            "cache_read_input_tokens": 4,
            "output_tokens": 5,
            "output_tokens_details": {"thinking_tokens": 2},
        },
    }


def test_every_kind_of_part() -> None:
    message = written(
        Reasoning("hm", "sig", "p"),
        Reasoning("", "data", "p", is_redacted=True),
        Reasoning("no signature"),
        Reasoning(),
        Text(""),
        Text("a"),
        ToolCall("call|1.x", "f", '{"a": 1}'),
        ToolCall("", "g", ""),
        ToolCall("c", "patch", "*** x", "custom"),
        Other("web_search_call", {"type": "web_search_call"}),
    )
    own = message["id"].removeprefix("msg_")
    assert message["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": signatures.wrapped("p", "sig")},
        {"type": "redacted_thinking", "data": signatures.wrapped("p", "data")},
        {"type": "thinking", "thinking": "no signature", "signature": ""},
        {"type": "text", "text": "a"},
        {"type": "tool_use", "id": "call|1.x", "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": f"toolu_{own}_7", "name": "g", "input": {}},
        {"type": "tool_use", "id": "c", "name": "patch", "input": {"input": "*** x"}},
    ]
    assert message["stop_reason"] == "tool_use"


@pytest.mark.parametrize("arguments", ['{"a": tru', "[1]", "null", '"x"'])
def test_arguments_that_are_no_object_are_kept_as_text(arguments: str) -> None:
    (call,) = written(ToolCall("a", "f", arguments))["content"]
    assert call["input"] == {"__unparsedToolInput": {"raw": arguments}}


@pytest.mark.parametrize(
    ("finish", "stop_reason"),
    [
        ("stop", "end_turn"),
        ("stop_sequence", "stop_sequence"),
        ("length", "max_tokens"),
        ("tool_calls", "end_turn"),
        ("content_filter", "refusal"),
        ("refusal", "refusal"),
        ("pause", "pause_turn"),
        ("context_window", "model_context_window_exceeded"),
    ],
)
def test_stop_reasons(finish: FinishReason, stop_reason: str) -> None:
    message = written(Text("a"), finish=finish, stop_sequence="END")
    assert message["stop_reason"] == stop_reason
    assert message["stop_sequence"] == ("END" if stop_reason == "stop_sequence" else None)


def test_a_refusal() -> None:
    message = written(Refusal("I cannot"))
    assert (message["content"][0]["text"], message["stop_reason"]) == ("I cannot", "refusal")


# Read


def test_every_kind_of_block() -> None:
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    answer = read(
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "data"},
        {"type": "text", "text": ""},
        {"type": "text", "text": "a", "citations": [{"type": "char_location"}]},
        search,
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
        stop_reason="tool_use",
        usage={"input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": 3},
    )
    assert answer.parts == [
        Reasoning("hm", "sig"),
        Reasoning("", "data", is_redacted=True),
        Text("a", citations=[{"type": "char_location"}]),
        Other("server_tool_use", search),
        ToolCall("t", "f", '{"a":1}'),
    ]
    assert (answer.finish, answer.usage) == ("tool_calls", Usage(4, 2, 3))


@pytest.mark.parametrize("reason", [None, 1, "new_reason"])
def test_an_unknown_stop_reason_is_a_plain_end(reason: object) -> None:
    assert read(stop_reason=reason).finish == "stop"


def test_a_stop_sequence_is_kept() -> None:
    answer = read(stop_reason="stop_sequence", stop_sequence="END")
    assert (answer.finish, answer.stop_sequence) == ("stop_sequence", "END")


@pytest.mark.parametrize("fields", [{}, {"content": "x"}, {"content": ["x"]}, {"content": [{"text": "x"}]}])
def test_an_answer_of_another_shape_is_a_bad_response(fields: dict[str, Any]) -> None:
    with pytest.raises(errors.UpstreamBadResponse):
        FORMAT.read_answer(fields)


# Usage


def test_usage_is_converted_both_ways() -> None:
    usage = Usage(10, 5, 4, 3, 2)
    assert usage_of(usage_fields(usage)) == usage
    assert usage_fields(Usage(1, 0, 4))["input_tokens"] == 0


def test_cache_writes_may_be_reported_by_their_times_alone() -> None:
    parts = {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 3}
    assert usage_of({"input_tokens": 1, "cache_creation": parts}) == Usage(6, 0, 0, 5, cache_write_1h=3)


@pytest.mark.parametrize("odd", [None, "5", -1, 1.5, True, {}])
def test_usage_of_another_type_counts_as_0(odd: object) -> None:
    fields = {"input_tokens": odd, "output_tokens": odd, "output_tokens_details": odd, "cache_creation": odd}
    assert usage_of(fields) == Usage()


# The sum of a stream


def summed(*frames: bytes, size: int = 10_000) -> dict[str, Any]:
    accumulator = MessageAccumulator()
    body = b"".join(frames)
    for at in range(0, len(body), size):
        accumulator.feed(body[at : at + size])
    return accumulator.message()


CITATION = {
    "type": "char_location",
    "cited_text": "x",
    "document_index": 0,
    "document_title": None,
    "start_char_index": 0,
    "end_char_index": 1,
}
STREAM = [
    start(input_tokens=5, cache_read_input_tokens=2),
    *thinking_block(0, "h", "m"),
    *block(1, {"type": "redacted_thinking", "data": "x"}),
    *block(
        2,
        {"type": "text", "text": ""},
        {"type": "text_delta", "text": "a"},
        {"type": "citations_delta", "citation": CITATION},
        {"type": "text_delta", "text": "b"},
    ),
    frame("ping"),
    *call_block(3, "", '{"a":', "1}"),
    *call_block(4),
    *stop("tool_use", output_tokens=9),
]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_the_sum_is_what_the_sdk_makes_of_the_stream(size: int) -> None:
    message = summed(*STREAM, size=size)
    expected = judged(b"".join(STREAM)).message
    assert {**message, "stop_details": None} == expected
    assert message["content"][2] == {"type": "text", "text": "ab", "citations": [CITATION]}
    assert [message["content"][index]["input"] for index in (3, 4)] == [{"a": 1}, {}]


def test_fields_that_the_api_may_add_are_kept() -> None:
    message = summed(
        start(),
        *block(
            0,
            {"type": "compaction", "content": ""},
            {"type": "compaction_delta", "content": "a"},
            {"type": "compaction_delta", "content": "b"},
        ),
        *block(
            1,
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": "", "estimated_tokens": 50},
        ),
        *block(2, {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"url": "x"}]}),
        frame(
            "message_delta",
            delta={"stop_reason": "end_turn", "stop_sequence": None, "container": {"id": "c"}},
            usage={"output_tokens": 4, "input_tokens": None, "server_tool_use": {"web_search_requests": 1}},
            context_management={"applied_edits": []},
        ),
        frame("message_stop"),
    )
    assert message["content"][0] == {"type": "compaction", "content": "ab"}
    assert message["content"][1] == {"type": "thinking", "thinking": "", "signature": ""}
    assert message["content"][2]["content"] == [{"url": "x"}]
    assert (message["container"], message["context_management"]) == ({"id": "c"}, {"applied_edits": []})
    assert (message["stop_reason"], message["stop_sequence"]) == ("end_turn", None)
    assert message["usage"] == {
        "input_tokens": 3,
        "output_tokens": 4,
        "server_tool_use": {"web_search_requests": 1},
    }


@pytest.mark.parametrize("text", ['{"a": tru', "[1]"])
def test_input_that_is_no_object_is_kept_as_text(text: str) -> None:
    message = summed(start(), *call_block(0, text), *stop("tool_use"))
    assert message["content"][0]["input"] == {"__unparsedToolInput": {"raw": text}}


def test_a_stream_without_a_head_has_no_message() -> None:
    with pytest.raises(errors.UpstreamBadResponse):
        summed(*text_block(0, "a"), *stop())


def test_events_of_other_shapes_are_ignored() -> None:
    odd = [
        frame("content_block_delta", index=9, delta={"type": "text_delta", "text": "x"}),
        frame("content_block_start", index="x", content_block={"type": "text"}),
        frame("content_block_stop", index=9),
        b"data: x\n\n",
        b"data: " + json.dumps([1]).encode() + b"\n\n",
    ]
    assert summed(start(), *odd, *text_block(0, "a"), *stop())["content"] == [{"type": "text", "text": "a"}]


def test_a_block_that_was_not_stopped_is_part_of_the_sum() -> None:
    message = summed(start(), *text_block(0, "a", "b")[:-1], *call_block(1, '{"a":1}')[:-1])
    assert [block.get("text") or block["input"] for block in message["content"]] == ["ab", {"a": 1}]
