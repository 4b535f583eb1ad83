"""A Messages stream -> events."""

from __future__ import annotations

import pytest

from sanic_proxy.streams import sse
from sanic_proxy.translation.conversation import (
    Begin,
    CallBegin,
    CallDelta,
    Event,
    Finish,
    FinishReason,
    PartEnd,
    ReasoningDelta,
    ReasoningEnd,
    TextDelta,
    Usage,
    UsageReport,
)
from sanic_proxy.translation.format import TargetTraits
from sanic_proxy.translation.messages import MessagesFormat
from tests.support.messages import (
    block,
    call_block,
    frame,
    start,
    stop,
    text_block,
    thinking_block,
)

FORMAT = MessagesFormat()


def read(*frames: bytes, size: int = 100_000) -> list[Event]:
    reader = FORMAT.reader(TargetTraits("anthropic", "m"))
    splitter, body = sse.FrameSplitter(), b"".join(frames)
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    split = (frame_ for piece in pieces for frame_ in splitter.feed(piece))
    return [*(event for frame_ in split for event in reader.read(frame_)), *reader.end()]


def parts(*frames: bytes) -> list[Event]:
    """The events of blocks alone."""
    return [event for event in read(start(), *frames) if not isinstance(event, Begin | UsageReport)]


@pytest.mark.parametrize("size", [1, 3, 50, 100_000])
def test_a_whole_stream(size: int) -> None:
    frames = [
        start(input_tokens=5, cache_read_input_tokens=2),
        frame("ping"),
        *thinking_block(0, "h", "m", signature="sig"),
        *text_block(1, "a\u00e4", "b"),
        *call_block(2, '{"a":', "1}"),
        *stop("tool_use", output_tokens=9),
    ]
    events = read(*frames, size=size)
    assert isinstance(events[0], Begin)
    assert events[0][:2] == ("msg_1", "claude")
    assert events[0].usage == Usage(7, 1, 2)
    assert events[1:] == [
        ReasoningDelta("h"),
        ReasoningDelta("m"),
        ReasoningEnd("sig", "anthropic"),
        TextDelta("a\u00e4"),
        TextDelta("b"),
        PartEnd(),
        CallBegin(2, "toolu_2", "f"),
        CallDelta(2, '{"a":'),
        CallDelta(2, "1}"),
        PartEnd(2),
        Finish("tool_calls"),
        UsageReport(Usage(7, 9, 2)),
    ]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("max_tokens", "length"),
        ("tool_use", "tool_calls"),
        ("pause_turn", "pause"),
        ("refusal", "refusal"),
        ("model_context_window_exceeded", "context_window"),
        ("new_reason", "stop"),
    ],
)
def test_stop_reasons(reason: str, finish: FinishReason) -> None:
    assert parts(*text_block(0, "a"), *stop(reason))[-1] == Finish(finish)


def test_a_stop_sequence() -> None:
    assert parts(*stop("stop_sequence", "END")) == [Finish("stop_sequence", "END")]


def test_redacted_reasoning() -> None:
    events = parts(*block(0, {"type": "redacted_thinking", "data": "x"}))
    assert events == [ReasoningEnd("x", "anthropic", is_redacted=True)]


def test_a_call_without_deltas_has_the_input_of_its_start() -> None:
    call = {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}}
    assert parts(*block(0, call))[1] == CallDelta(0, '{"x":1}')
    assert parts(*call_block(0))[1] == CallDelta(0, "{}")
    assert parts(*call_block(0, ""))[1] == CallDelta(0, "{}")


def test_deltas_replace_the_input_of_the_start() -> None:
    call = {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}}
    events = parts(*block(0, call, {"type": "input_json_delta", "partial_json": '{"x":1}'}))
    assert events[1:] == [CallDelta(0, '{"x":1}'), PartEnd(0)]


def test_invalid_input_is_read_as_it_is() -> None:
    assert parts(*call_block(0, '{"x": tru'))[1] == CallDelta(0, '{"x": tru')


def test_blocks_that_interleave_keep_their_deltas() -> None:
    one, two = call_block(0, '{"a":1}'), call_block(1, '{"b":2}')
    events = parts(one[0], two[0], two[1], one[1], one[2], two[2])
    assert [event for event in events if isinstance(event, CallDelta)] == [
        CallDelta(1, '{"b":2}'),
        CallDelta(0, '{"a":1}'),
    ]


def test_blocks_of_the_servers_tools_give_no_events() -> None:
    call = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    result = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}
    delta = {"type": "input_json_delta", "partial_json": '{"q":1}'}
    assert parts(*block(0, call, delta), *block(1, result)) == []


def test_text_in_the_start_of_a_block_is_kept() -> None:
    assert parts(*block(0, {"type": "text", "text": "a"}))[0] == TextDelta("a")


def test_usage_without_a_stop_reason_is_reported_at_the_end() -> None:
    assert read(start(input_tokens=5), *text_block(0, "a"))[-1] == UsageReport(Usage(5, 1))


@pytest.mark.parametrize(
    "odd",
    [
        b"data: x\n\n",
        b"data: [1]\n\n",
        frame("message_start"),
        frame("content_block_delta", index="x", delta={"type": 1}),
        frame("content_block_delta", delta=None),
        frame("content_block_stop"),
        frame("message_delta", delta=1, usage=1),
        frame("new_event"),
    ],
)
def test_frames_of_other_shapes_give_no_events(odd: bytes) -> None:
    assert parts(odd) == []
