"""Answers and streams, of providers and for clients."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.errors import UpstreamBadResponse
from sanic_proxy.streams import sse
from sanic_proxy.translation.collect import AnswerCollector
from sanic_proxy.translation.conversation import (
    Answer,
    Begin,
    CallBegin,
    CallDelta,
    Conversation,
    Event,
    Finish,
    FinishReason,
    Part,
    PartEnd,
    Reasoning,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningOptions,
    Text,
    TextDelta,
    ToolCall,
    Turn,
    Usage,
    UsageReport,
)
from sanic_proxy.translation.format import TargetTraits
from sanic_proxy.translation.gemini import GeminiFormat
from sanic_proxy.translation.gemini.thoughts import pieces_of
from tests.support.chat_translation import event_sequences
from tests.support.chat_translation import parts_of as parts_of_events
from tests.support.gemini import frame, judged, judged_stream, parts_of, response, text_of
from tests.support.messages import UNHURRIED

GEMINI = GeminiFormat()
USAGE = {
    "promptTokenCount": 10,
    "cachedContentTokenCount": 4,
    "candidatesTokenCount": 5,
    "thoughtsTokenCount": 3,
    "totalTokenCount": 18,
}
THOUGHT = {"text": "hm", "thought": True}
CALL = {"functionCall": {"id": "1", "name": "f", "args": {"a": 1}}, "thoughtSignature": "U2ln"}
ASKED = Conversation("asked", [Turn("user", [Text("x")])])
SHOWS = Conversation("asked", [Turn("user", [Text("x")])], reasoning=ReasoningOptions(summary="auto"))
PARTS: list[Part] = [
    Reasoning("hm", "U2ln", is_summary=True),
    ToolCall("1", "f", '{"a":1}'),
    Text("Hello"),
    Reasoning("", "RW5k"),
]


def events_of(*frames: bytes) -> list[Event]:
    reader = GEMINI.reader(TargetTraits("acme", "m"))
    read = [event for piece in sse.FrameSplitter().feed(b"".join(frames)) for event in reader.read(piece)]
    return [*read, *reader.end()]


def stream_of(events: list[Event], asked: Conversation = ASKED) -> bytes:
    writer = GEMINI.writer(asked)
    return b"".join([*map(writer.write, events), writer.end()])


def test_a_whole_answer_is_read() -> None:
    fields = response(
        THOUGHT,
        CALL,
        {"text": "Hel"},
        {"text": "lo"},
        {"text": "", "thoughtSignature": "RW5k"},
        finish="STOP",
        responseId="r",
        modelVersion="v",
        usageMetadata=USAGE,
    )
    answer = GEMINI.read_answer(fields)
    assert (answer.id, answer.model, answer.finish) == ("r", "v", "tool_calls")
    assert answer.parts == PARTS
    assert answer.usage == Usage(10, 8, cached=4, reasoning=3)


def test_a_stream_is_read() -> None:
    events = events_of(
        frame({"text": "h", "thought": True}, responseId="r", modelVersion="v"),
        frame({"text": "m", "thought": True}),
        frame(CALL),
        frame({"text": "Hel"}, usageMetadata={"promptTokenCount": 1}),
        frame({"text": "lo"}),
        frame({"text": "", "thoughtSignature": "RW5k"}, finish="STOP", usageMetadata=USAGE),
    )
    collector = AnswerCollector()
    for event in events:
        collector.add(event)
    answer = collector.answer()
    for part in PARTS:
        if isinstance(part, Reasoning):
            part.origin = "acme"
    assert answer.parts == PARTS
    assert (answer.id, answer.model, answer.finish) == ("r", "v", "tool_calls")
    assert answer.usage == Usage(10, 8, cached=4, reasoning=3)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("STOP", "stop"), ("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("NEW", "stop")],
)
def test_finish_reasons(reason: str, finish: str) -> None:
    assert GEMINI.read_answer(response({"text": "x"}, finish=reason)).finish == finish
    assert Finish(finish) in events_of(frame({"text": "x"}, finish=reason))


def test_a_refused_prompt_is_a_filtered_answer() -> None:
    refused = {"promptFeedback": {"blockReason": "SAFETY"}}
    assert GEMINI.read_answer(refused).finish == "content_filter"
    with pytest.raises(UpstreamBadResponse):
        GEMINI.read_answer({})


def test_a_call_that_the_model_could_not_write_is_a_failure() -> None:
    with pytest.raises(UpstreamBadResponse, match="MALFORMED_FUNCTION_CALL"):
        GEMINI.read_answer(response(finish="MALFORMED_FUNCTION_CALL"))
    with pytest.raises(UpstreamBadResponse, match="MALFORMED_FUNCTION_CALL"):
        events_of(frame(finish="MALFORMED_FUNCTION_CALL"))


def written(*parts: Part, asked: Conversation = ASKED, finish: FinishReason = "stop") -> list[dict[str, Any]]:
    answer = Answer("id", "", 1, list(parts), finish, None, Usage(10, 8, 4, 0, 3))
    made = judged(GEMINI.write_answer(answer, asked))
    assert made["usageMetadata"] == USAGE
    assert made["modelVersion"] == "asked"
    parts_: list[dict[str, Any]] = made["candidates"][0]["content"]["parts"]
    return parts_


def test_reasoning_travels_with_the_part_behind_it() -> None:
    parts = (
        Reasoning("hm", "sig", "acme"),
        ToolCall("1", "f", "{}"),
        Text("a"),
        Reasoning("", "end", "acme"),
    )
    thought, call, text, last = written(*parts, asked=SHOWS)
    assert (thought, text) == (THOUGHT, {"text": "a"})
    assert pieces_of(call["thoughtSignature"]) == [parts[0]]
    assert (last["text"], pieces_of(last["thoughtSignature"])) == ("", [parts[3]])


def test_thoughts_that_were_not_asked_for_are_left_out() -> None:
    call, text = written(Reasoning("hm", "sig", "acme"), ToolCall("1", "f", "{}"), Text("a"))
    assert call == {"functionCall": {"id": "1", "name": "f", "args": {}}}
    assert text == {"text": "a"}
    (text,) = written(Reasoning("", "sig", "acme"), Text("a"))
    assert pieces_of(text["thoughtSignature"]) == [Reasoning("", "sig", "acme")]


def test_a_stream_is_written() -> None:
    events: list[Event] = [
        Begin("id", "v", 1),
        ReasoningDelta("hm"),
        ReasoningEnd("sig", "acme"),
        TextDelta("a\u2028b"),
        CallBegin(0, "1", "f"),
        CallDelta(0, '{"a":'),
        CallBegin(1, "2", "g"),
        CallDelta(0, " 1}"),
        PartEnd(0),
        CallDelta(1, "broken"),
        UsageReport(Usage(10, 8, 4, 0, 3)),
        Finish("length"),
    ]
    frames = stream_of(events, SHOWS)
    assert "\u2028".encode() not in frames
    responses = judged_stream(frames)
    thought, text, first, second = parts_of(responses)
    assert thought == THOUGHT
    assert text["text"] == "a\u2028b"
    assert pieces_of(text["thoughtSignature"]) == [Reasoning("hm", "sig", "acme")]
    assert first["functionCall"] == {"id": "1", "name": "f", "args": {"a": 1}}
    assert second["functionCall"]["args"] == {"__unparsedToolInput": {"raw": "broken"}}
    assert responses[-1]["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert responses[-1]["usageMetadata"] == USAGE
    assert {response["responseId"] for response in responses} == {"id"}


def test_an_answer_without_content_has_a_part() -> None:
    (last,) = judged_stream(stream_of([Begin("id", "v", 1), Finish("stop")]))
    assert last["candidates"][0]["content"]["parts"] == [{"text": ""}]


@UNHURRIED
@given(event_sequences(), st.booleans())
def test_any_events_make_a_valid_stream(events: list[Event], shows: bool) -> None:
    responses = judged_stream(stream_of(events, SHOWS if shows else ASKED))
    parts = parts_of_events(events)
    texts = [
        part.text for part in parts if not isinstance(part, ToolCall | Reasoning) and hasattr(part, "text")
    ]
    assert text_of(responses) == "".join(texts)
    calls = [part["functionCall"]["id"] for part in parts_of(responses) if "functionCall" in part]
    assert sorted(calls) == sorted(part.id for part in parts if isinstance(part, ToolCall))
    thoughts = [part["text"] for part in parts_of(responses) if part.get("thought")]
    expected = [part.text for part in parts if isinstance(part, Reasoning)]
    assert "".join(thoughts) == ("".join(expected) if shows else "")
    # What their provider needs back is there, in order.
    carried = [
        piece.signature
        for part in parts_of(responses)
        for piece in pieces_of(part.get("thoughtSignature", "")) or ()
    ]
    signed = [part for part in parts if isinstance(part, Reasoning) and part.signature and part.origin]
    assert carried == [part.signature for part in signed if shows or not part.text or part.is_redacted]
