"""Events -> a Messages stream, judged by Anthropic's types, and what was read of one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.streams import sse
from sanic_proxy.translation import signatures
from sanic_proxy.translation.conversation import (
    Begin,
    CallBegin,
    CallDelta,
    Conversation,
    Event,
    Finish,
    FinishReason,
    PartEnd,
    ReasoningDelta,
    ReasoningEnd,
    RefusalDelta,
    TextDelta,
    Usage,
    UsageReport,
)
from sanic_proxy.translation.format import TargetTraits
from sanic_proxy.translation.messages import MessagesFormat
from tests.support.messages import UNHURRIED, Judged, judged

FORMAT = MessagesFormat()
BEGIN = Begin("chatcmpl-1", "gpt", 0)


def written(events: Iterable[Event]) -> bytes:
    writer = FORMAT.writer(Conversation("asked", []))
    return b"".join([*map(writer.write, events), writer.end(), writer.end()])


def answer(*events: Event) -> Judged:
    return judged(written([BEGIN, *events]))


def read_back(frames: bytes, provider: str = "p") -> list[Event]:
    reader = FORMAT.reader(TargetTraits(provider, "m"))
    split = sse.FrameSplitter().feed(frames)
    return [*(event for frame in split for event in reader.read(frame)), *reader.end()]


# The head and the end


def test_the_head_has_the_tokens_of_the_input_where_they_are_known() -> None:
    stream = judged(written([Begin("chatcmpl-1", "gpt", 0, Usage(10, 0, 4, 3)), TextDelta("a")]))
    usage = stream.events[0]["message"]["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (3, 4)
    assert usage["cache_creation_input_tokens"] == 3
    assert answer(TextDelta("a")).events[0]["message"]["usage"]["input_tokens"] == 0


def test_the_end_has_all_counts() -> None:
    last = answer(TextDelta("a"), UsageReport(Usage(10, 5, 4, 3, 2)), Finish("stop")).events[-2]
    assert last["usage"] == {
        "input_tokens": 3,
        "cache_creation_input_tokens": 3,
        "cache_read_input_tokens": 4,
        "output_tokens": 5,
        "output_tokens_details": {"thinking_tokens": 2},
    }


@pytest.mark.parametrize("is_usage_first", [True, False])
def test_usage_may_come_before_or_after_the_finish_reason(is_usage_first: bool) -> None:
    last: list[Event] = [Finish("length"), UsageReport(Usage(1, 2))]
    end = answer(TextDelta("a"), *(reversed(last) if is_usage_first else last)).events[-2]
    assert (end["delta"]["stop_reason"], end["usage"]["output_tokens"]) == ("max_tokens", 2)


@pytest.mark.parametrize(
    ("upstream", "ours"), [("msg_01", "msg_01"), ("chatcmpl-1", "msg_chatcmpl-1_"), ("a.b/c", "msg_a_b_c_")]
)
def test_the_id_is_made_of_the_upstreams(upstream: str, ours: str) -> None:
    message = judged(written([Begin(upstream, "gpt", 0), TextDelta("a")])).events[0]["message"]
    assert message["id"].startswith(ours)


def test_two_answers_of_the_same_id_have_ids_of_their_own() -> None:
    written_twice = [judged(written([Begin("chatcmpl-7", "gpt", 0), TextDelta("a")])) for _ in range(2)]
    assert len({answer.message["id"] for answer in written_twice}) == 2


def test_a_stream_without_a_head_gets_one() -> None:
    message = judged(written([TextDelta("a")])).message
    assert (message["model"], message["content"][0]["text"]) == ("asked", "a")
    assert message["id"].startswith("msg_")


def test_an_answer_without_content_is_legal() -> None:
    assert judged(written([])).blocks == []


def test_a_second_head_is_ignored() -> None:
    assert answer(TextDelta("a"), BEGIN, TextDelta("b")).joined(0) == "ab"


@pytest.mark.parametrize(
    ("finish", "stop_reason"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("tool_calls", "end_turn"),
        ("content_filter", "refusal"),
        ("refusal", "refusal"),
        ("pause", "pause_turn"),
        ("context_window", "model_context_window_exceeded"),
        ("stop_sequence", "stop_sequence"),
    ],
)
def test_stop_reasons(finish: FinishReason, stop_reason: str) -> None:
    assert answer(TextDelta("a"), Finish(finish)).message["stop_reason"] == stop_reason


def test_the_stop_sequence_is_stated_with_its_reason_only() -> None:
    assert answer(TextDelta("a"), Finish("stop_sequence", "END")).message["stop_sequence"] == "END"
    assert answer(TextDelta("a"), Finish("stop", "END")).message["stop_sequence"] is None


@pytest.mark.parametrize("finish", ["stop", "tool_calls", "stop_sequence", "pause", None])
def test_any_call_makes_the_stop_reason_tool_use(finish: FinishReason | None) -> None:
    end = [Finish(finish)] if finish else []
    message = answer(CallBegin(0, "call_1", "f"), CallDelta(0, "{}"), PartEnd(0), *end).message
    assert message["stop_reason"] == "tool_use"


def test_a_call_that_the_limit_cut_is_not_to_be_executed() -> None:
    stream = answer(CallBegin(0, "call_1", "f"), CallDelta(0, '{"a'), Finish("length"))
    assert stream.events[-2]["delta"]["stop_reason"] == "max_tokens"


def test_a_refusal_is_text_with_its_stop_reason() -> None:
    message = answer(RefusalDelta("I "), RefusalDelta("cannot"), Finish("stop")).message
    assert (message["content"][0]["text"], message["stop_reason"]) == ("I cannot", "refusal")


# Blocks


def test_empty_deltas_open_no_block() -> None:
    stream = answer(TextDelta(""), ReasoningDelta(""), ReasoningEnd(), CallBegin(0, "c", "f"), TextDelta(""))
    assert stream.types == ["tool_use"]


def test_reasoning_may_come_anywhere() -> None:
    stream = answer(
        TextDelta("a"), ReasoningDelta("b"), ReasoningEnd("sig", "p"), TextDelta("c"), ReasoningDelta("d")
    )
    assert stream.types == ["text", "thinking", "text", "thinking"]
    assert [stream.joined(index) for index in range(4)] == ["a", "b", "c", "d"]
    assert stream.message["content"][1]["signature"] == signatures.wrapped("p", "sig")


def test_the_signature_is_the_last_delta_of_its_block() -> None:
    deltas = answer(ReasoningDelta("a"), ReasoningEnd("sig")).blocks[0][1]
    assert [delta["type"] for delta in deltas] == ["thinking_delta", "signature_delta"]


def test_a_late_signature_has_a_block_of_its_own() -> None:
    message = answer(ReasoningDelta("a"), TextDelta("b"), ReasoningEnd("sig", "p"), TextDelta("c")).message
    assert [block["type"] for block in message["content"]] == ["thinking", "text", "thinking", "text"]
    assert message["content"][2]["signature"] == signatures.wrapped("p", "sig")


def test_redacted_reasoning() -> None:
    message = answer(ReasoningEnd("data", "p", is_redacted=True), TextDelta("a")).message
    assert message["content"][0] == {"type": "redacted_thinking", "data": signatures.wrapped("p", "data")}


def test_calls_that_interleave_are_written_one_after_the_other() -> None:
    stream = answer(
        CallBegin(0, "a", "f"),
        CallDelta(0, '{"x"'),
        CallBegin(1, "b", "g"),
        CallDelta(1, '{"y"'),
        CallDelta(0, ":1}"),
        CallDelta(1, ":2}"),
        TextDelta("behind"),
        Finish("tool_calls"),
    )
    assert stream.types == ["tool_use", "tool_use", "text"]
    assert [stream.joined(index) for index in range(3)] == ['{"x":1}', '{"y":2}', "behind"]


def test_a_call_is_written_at_once_when_the_one_before_is_complete() -> None:
    writer = FORMAT.writer(Conversation("asked", []))
    events: list[Event] = [BEGIN, CallBegin(0, "a", "f"), CallDelta(0, '{"x":1}'), CallBegin(1, "b", "g")]
    frames = b"".join(map(writer.write, events))
    assert b'"id":"b"' in frames
    assert b'"partial_json":"{\\"y"' in writer.write(CallDelta(1, '{"y'))


def test_an_empty_object_may_be_a_placeholder() -> None:
    stream = answer(CallBegin(0, "a", "f"), CallDelta(0, "{}"), CallBegin(1, "b", "g"), CallDelta(0, " "))
    assert stream.joined(0) == "{} "


def test_invalid_arguments_are_written_as_they_are() -> None:
    stream = answer(CallBegin(0, "a", "f"), CallDelta(0, '{"a": tru'), PartEnd(0), Finish("stop"))
    assert stream.joined(0) == '{"a": tru'
    assert stream.events[-2]["delta"]["stop_reason"] == "tool_use"


def test_a_call_without_arguments_has_empty_input() -> None:
    message = answer(CallBegin(0, "a", "f"), PartEnd(0), Finish("tool_calls")).message
    assert message["content"] == [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]


def test_a_call_without_an_id_gets_one() -> None:
    stream = answer(CallBegin(0, "", "f"), PartEnd(0), CallBegin(1, "", "f"), PartEnd(1))
    own = stream.message["id"].removeprefix("msg_")
    assert [start["id"] for start, _ in stream.blocks] == [f"toolu_{own}_0", f"toolu_{own}_1"]


def test_the_input_of_a_custom_tool_is_a_json_object() -> None:
    message = answer(CallBegin(0, "a", "patch", "custom"), CallDelta(0, "*** "), CallDelta(0, '"x"')).message
    assert message["content"][0]["input"] == {"input": '*** "x"'}


def test_each_event_is_written_whole() -> None:
    writer = FORMAT.writer(Conversation("asked", []))
    events: list[Event] = [BEGIN, TextDelta("a\n\nb"), CallBegin(0, "c", "f"), CallDelta(0, "{}")]
    for event in [*events, Finish("stop")]:
        frames = writer.write(event)
        assert not frames or (frames.startswith(b"event: ") and frames.endswith(b"}\n\n"))


# Any events

TEXT = st.text('ab {}"\\\n\u00e9\U0001f600', max_size=5)
ARGUMENTS = st.one_of(
    st.dictionaries(TEXT, st.integers() | TEXT | st.none(), max_size=2).map(json.dumps),
    st.sampled_from(["", "{}", "[1]", '{"a": tru', "x", '{"a":1}\n']),
)


@st.composite
def pieces_of(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@st.composite
def parts(draw: st.DrawFn, key: int) -> list[Event]:
    """The events of one part, in order."""
    match draw(st.sampled_from(["text", "refusal", "reasoning", "redacted", "call"])):
        case "text":
            end: list[Event] = draw(st.sampled_from([[], [PartEnd()]]))
            return [*map(TextDelta, draw(st.lists(TEXT, max_size=3))), *end]
        case "refusal":
            return [*map(RefusalDelta, draw(st.lists(TEXT, max_size=3)))]
        case "reasoning":
            signature = draw(st.sampled_from(["", "sig"]))
            ends: list[Event] = draw(st.sampled_from([[], [ReasoningEnd(signature, "p")]]))
            return [*map(ReasoningDelta, draw(st.lists(TEXT, max_size=3))), *ends]
        case "redacted":
            return [ReasoningEnd("data", "p", is_redacted=True)]
    ended: list[Event] = draw(st.sampled_from([[], [PartEnd(key)]]))
    deltas = [CallDelta(key, piece) for piece in draw(pieces_of(draw(ARGUMENTS)))]
    return [CallBegin(key, draw(st.sampled_from(["", f"id{key}", f"a|b.{key}"])), "f"), *deltas, *ended]


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """A whole stream of events; in some of them the events of several parts interleave."""
    made = [draw(parts(key)) for key in range(draw(st.integers(0, 4)))]
    events: list[Event] = []
    if draw(st.booleans()):
        while any(made):
            events.append(draw(st.sampled_from([part for part in made if part])).pop(0))
    else:
        events = [event for part in made for event in part]
    usage = draw(st.none() | st.builds(Usage, *[st.integers(0, 9)] * 2))
    last: list[Event] = [UsageReport(usage)] if usage else []
    if draw(st.booleans()):
        last.insert(
            draw(st.integers(0, len(last))), Finish(draw(st.sampled_from(["stop", "length", "tool_calls"])))
        )
    return [*([BEGIN] if draw(st.booleans()) else []), *events, *last]


def arguments(events: Iterable[Event]) -> dict[int, str]:
    """The arguments of each call, by its key. What comes behind a call's end is not part of it."""
    found: dict[int, str] = {}
    ended: set[int] = set()
    for event in events:
        match event:
            case CallBegin(key):
                found[key] = ""
            case CallDelta(key, piece) if key not in ended:
                found[key] += piece
            case PartEnd(int() as key):
                ended.add(key)
    return found


@UNHURRIED
@given(answers())
def test_any_events_make_a_legal_stream_that_holds_all_of_them(events: list[Event]) -> None:
    stream = judged(written(events))
    indexes = range(len(stream.blocks))
    made = [stream.joined(index) for index in indexes if stream.types[index] == "tool_use"]
    # White space behind a whole object may come too late.
    assert sorted(map(str.rstrip, made)) == sorted(map(str.rstrip, arguments(events).values()))
    shown = "".join(stream.joined(index) for index in indexes if stream.types[index] == "text")
    assert shown == "".join(event.text for event in events if isinstance(event, TextDelta | RefusalDelta))
    thought = "".join(stream.joined(index) for index in indexes if stream.types[index] == "thinking")
    assert thought == "".join(event.text for event in events if isinstance(event, ReasoningDelta))


@UNHURRIED
@given(answers())
def test_what_is_written_is_read_again(events: list[Event]) -> None:
    frames = written(events)
    back = read_back(frames)
    assert judged(written(back)).types == judged(frames).types
    for kind in (ReasoningDelta, TextDelta):
        sent = TextDelta | RefusalDelta if kind is TextDelta else ReasoningDelta
        assert joined(back, kind) == joined(events, sent)
    # Calls without arguments are read as calls with an empty object.
    sent_arguments = [value or "{}" for value in arguments(events).values()]
    assert sorted(map(str.rstrip, arguments(back).values())) == sorted(map(str.rstrip, sent_arguments))


def joined(events: Iterable[Event], kind: Any) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))
