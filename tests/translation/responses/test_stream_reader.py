"""The frames of a provider's Responses stream -> events, whichever of its events the provider sends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sanic_proxy import errors
from sanic_proxy.streams import sse
from sanic_proxy.translation.conversation import (
    Begin,
    CallBegin,
    CallDelta,
    Event,
    Finish,
    PartEnd,
    ReasoningDelta,
    ReasoningEnd,
    RefusalDelta,
    TextDelta,
    Usage,
    UsageReport,
)
from sanic_proxy.translation.format import TargetTraits
from sanic_proxy.translation.responses import ResponsesFormat

Json = dict[str, Any]

FORMAT = ResponsesFormat()
RESPONSE = {"id": "resp_1", "model": "gpt", "created_at": 5, "status": "in_progress", "output": []}
CREATED = {"type": "response.created", "response": RESPONSE}
BEGIN = Begin("resp_1", "gpt", 5)
USAGE = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
MESSAGE: Json = {"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": "Hello"}]}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": '{"a":1}'}


def read(*events: Json) -> list[Event]:
    frames = b"".join(sse.encode(json.dumps(event).encode()) for event in events)
    reader = FORMAT.reader(TargetTraits("openai", "gpt"))
    read = [event for frame in sse.FrameSplitter().feed(frames) for event in reader.read(frame)]
    return [*read, *reader.end()]


def item(kind: str, value: Json, index: int = 0) -> Json:
    return {"type": f"response.output_item.{kind}", "output_index": index, "item": value}


def piece(kind: str, index: int = 0, **fields: Any) -> Json:
    return {"type": f"response.{kind}", "output_index": index, "content_index": 0, **fields}


def ended(status: str = "completed", *output: Json, **fields: Any) -> Json:
    response = {**RESPONSE, "status": status, "output": list(output), **fields}
    return {"type": f"response.{status}", "response": response}


TEXT_EVENTS = [
    item("added", {**MESSAGE, "content": []}),
    piece("content_part.added", part={"type": "output_text", "text": ""}),
    piece("output_text.delta", delta="Hel"),
    piece("output_text.delta", delta="lo"),
    piece("output_text.done", text="Hello"),
    piece("content_part.done", part=MESSAGE["content"][0]),
    item("done", MESSAGE),
    ended("completed", MESSAGE, usage=USAGE),
]


def test_a_text_is_read_once() -> None:
    assert read(CREATED, *TEXT_EVENTS) == [
        BEGIN,
        TextDelta("Hel"),
        TextDelta("lo"),
        PartEnd(),
        UsageReport(Usage(3, 2)),
        Finish("stop"),
    ]


@pytest.mark.parametrize(
    "left_out",
    [
        {"delta"},
        {"delta", "text.done"},
        {"delta", "text.done", "item.done"},
        {"item.added", "part.added"},
        {"created", "item.added", "part.added", "delta", "text.done", "part.done", "item.done"},
    ],
)
def test_a_text_is_read_from_whatever_events_there_are(left_out: set[str]) -> None:
    names = ["item.added", "part.added", "delta", "delta", "text.done", "part.done", "item.done", "end"]
    kept = [event for name, event in zip(names, TEXT_EVENTS, strict=True) if name not in left_out]
    events = read(*([] if "created" in left_out else [CREATED]), *kept)
    assert events[0] == BEGIN
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "Hello"
    assert events.count(PartEnd()) == 1
    assert events[-1] == Finish("stop")


@pytest.mark.parametrize("has_added", [True, False])
@pytest.mark.parametrize("has_deltas", [True, False])
@pytest.mark.parametrize("has_done", [True, False])
def test_a_call_is_read_from_whatever_events_there_are(
    has_added: bool, has_deltas: bool, has_done: bool
) -> None:
    events = [CREATED]
    if has_added:
        events.append(item("added", {**CALL, "arguments": ""}))
    if has_deltas:
        events += [piece("function_call_arguments.delta", delta=part) for part in ('{"a"', ":1}")]
    events.append(piece("function_call_arguments.done", arguments=CALL["arguments"]))
    if has_done:
        events.append(item("done", CALL))
    made = read(*events, ended("completed", CALL))
    assert made[:2] == [BEGIN, CallBegin(0, "c1", "f")]
    assert "".join(event.arguments for event in made if isinstance(event, CallDelta)) == '{"a":1}'
    assert made[-2:] == [PartEnd(0), Finish("tool_calls")]


def test_calls_of_other_kinds() -> None:
    custom = {"type": "custom_tool_call", "call_id": "c1", "name": "p", "input": "xy", "namespace": "ns"}
    search = {"type": "tool_search_call", "call_id": "c2", "execution": "client", "arguments": {"q": 1}}
    assert read(
        CREATED,
        item("added", {**custom, "input": ""}),
        piece("custom_tool_call_input.delta", delta="xy"),
        piece("custom_tool_call_input.done", input="xy"),
        item("done", custom),
        item("added", {**search, "arguments": {}}, 1),
        item("done", search, 1),
        ended(),
    ) == [
        BEGIN,
        CallBegin(0, "c1", "p", "custom", "ns"),
        CallDelta(0, "xy"),
        PartEnd(0),
        CallBegin(1, "c2", "tool_search", "tool_search"),
        CallDelta(1, '{"q":1}'),
        PartEnd(1),
        Finish("tool_calls"),
    ]


def test_reasoning_of_both_kinds_with_its_signature() -> None:
    reasoning = {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "s"}, {"type": "summary_text", "text": "t"}],
        "content": [{"type": "reasoning_text", "text": "raw"}],
        "encrypted_content": "gAAA",
    }
    assert read(
        CREATED,
        item("added", {"type": "reasoning", "summary": []}),
        piece("reasoning_summary_part.added", summary_index=0),
        piece("reasoning_summary_text.delta", summary_index=0, delta="s"),
        piece("reasoning_summary_text.done", summary_index=0, text="s"),
        piece("reasoning_summary_text.done", summary_index=1, text="t"),
        piece("reasoning_text.delta", delta="raw"),
        item("done", reasoning),
        ended(),
    ) == [
        BEGIN,
        ReasoningDelta("s", is_summary=True),
        PartEnd(),
        ReasoningDelta("t", is_summary=True),
        PartEnd(),
        ReasoningDelta("raw"),
        ReasoningEnd("gAAA", "openai"),
        Finish("stop"),
    ]


def test_a_refusal() -> None:
    made = read(CREATED, piece("refusal.delta", delta="no"), piece("refusal.done", refusal="no"), ended())
    assert made[1:3] == [RefusalDelta("no"), PartEnd()]


@pytest.mark.parametrize(
    ("reason", "finish"), [("max_output_tokens", "length"), ("content_filter", "content_filter")]
)
def test_an_incomplete_response(reason: str, finish: Any) -> None:
    made = read(CREATED, ended("incomplete", incomplete_details={"reason": reason}, usage=USAGE))
    assert made == [BEGIN, UsageReport(Usage(3, 2)), Finish(finish)]


@pytest.mark.parametrize(
    "event",
    [
        ended("failed", error={"code": "insufficient_quota", "message": "no credit"}),
        {"type": "error", "code": "insufficient_quota", "message": "no credit", "param": None},
        {"type": "error", "error": {"code": "insufficient_quota", "message": "no credit"}},
        {"error": {"code": "insufficient_quota", "message": "no credit"}},
    ],
)
def test_a_failure_is_raised(event: Json) -> None:
    with pytest.raises(errors.InsufficientQuota, match="no credit"):
        read(CREATED, piece("output_text.delta", delta="a"), event)


def test_unknown_events_and_other_frames_are_skipped() -> None:
    reader = FORMAT.reader(TargetTraits("openai", "gpt"))
    for payload in (b"[DONE]", b"not json", b"5", b'{"type": 5}', b'{"type": "keepalive"}', b"{}"):
        assert list(reader.read(sse.Frame(b"", payload))) == []
    assert read(CREATED, {"type": "response.future", "output_index": "x", "item": 5}) == [BEGIN]


def test_nothing_is_read_behind_the_end() -> None:
    assert read(CREATED, ended(), piece("output_text.delta", delta="late"))[-1] == Finish("stop")
