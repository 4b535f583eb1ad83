"""Help for the tests of the chat format: strategies of its shapes, and streams as events."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

from sanic_proxy.streams import sse
from sanic_proxy.translation.chat import ChatFormat
from sanic_proxy.translation.conversation import (
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
    Refusal,
    RefusalDelta,
    Text,
    TextDelta,
    ToolCall,
    Turn,
    Usage,
    UsageReport,
)
from sanic_proxy.translation.format import TargetTraits

CHAT = ChatFormat()
TARGET = TargetTraits("acme", "acme-1")
ASKED = Conversation("asked", [Turn("user", [Text("hi")])])


def conversation(*turns: Turn, **fields: Any) -> Conversation:
    return Conversation("asked", list(turns), **fields)


def chunks_of(frames: bytes) -> list[dict[str, Any]]:
    """The chunks of a stream, which ends with `[DONE]`."""
    *payloads, done = [frame.payload for frame in sse.FrameSplitter().feed(frames)]
    assert done == sse.DONE_PAYLOAD
    return [json.loads(payload) for payload in payloads]


def events_of(pieces: Iterable[bytes], target: TargetTraits = TARGET) -> list[Event]:
    """The events of a stream, however it is cut into pieces."""
    reader, splitter = CHAT.reader(target), sse.FrameSplitter()
    events = [event for piece in pieces for frame in splitter.feed(piece) for event in reader.read(frame)]
    return [*events, *reader.end()]


def stream_of(events: Iterable[Event], asked: Conversation = ASKED) -> bytes:
    writer = CHAT.writer(asked)
    return b"".join([*(writer.write(event) for event in events), writer.end()])


def parts_of(events: Iterable[Event]) -> list[Part]:
    """The parts that events amount to."""
    parts: list[Part] = []
    calls: dict[int, ToolCall] = {}
    is_open = False
    for event in events:
        match event:
            case TextDelta(text):
                is_open = _extend(parts, Text(text), is_open=is_open)
            case RefusalDelta(text):
                is_open = _extend(parts, Refusal(text), is_open=is_open)
            case ReasoningDelta(text, is_summary):
                is_open = _extend(parts, Reasoning(text, is_summary=is_summary), is_open=is_open)
            case ReasoningEnd(signature, origin, is_redacted):
                if is_redacted or not (is_open and isinstance(parts[-1], Reasoning)):
                    parts.append(Reasoning(is_redacted=is_redacted))
                last = parts[-1]
                assert isinstance(last, Reasoning)
                last.signature, last.origin, is_open = signature, origin, False
            case CallBegin(key, id_, name, kind, namespace):
                calls[key] = ToolCall(id_, name, "", kind, namespace)
                parts.append(calls[key])
                is_open = False
            case CallDelta(key, arguments):
                calls[key].arguments += arguments
            case PartEnd(None):
                is_open = False
            case _:
                pass
    return parts


def _extend(parts: list[Part], piece: Text | Refusal | Reasoning, *, is_open: bool) -> bool:
    if is_open and type(parts[-1]) is type(piece):
        last = parts[-1]
        assert isinstance(last, Text | Refusal | Reasoning)
        last.text += piece.text
    else:
        parts.append(piece)
    return True


# Strategies.

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
NAMES = st.from_regex(r"[a-zA-Z0-9_-]{1,20}", fullmatch=True)
ARGUMENTS = st.sampled_from(['{"a": 1}', "{}", '{"a": "\\u00e9\\n"}', "[", "", '{"input": "x"}'])
USAGES = st.builds(Usage, *[st.integers(0, 2**40)] * 10)
REASONS: st.SearchStrategy[FinishReason] = st.sampled_from(
    ("stop", "stop_sequence", "length", "tool_calls", "content_filter", "refusal", "pause", "context_window")
)


@st.composite
def event_sequences(draw: st.DrawFn, *, kinds: tuple[Any, ...] = ("function",)) -> list[Event]:
    """The events of an answer as the readers of formats make them: texts in pieces, calls interleaved."""
    events: list[Event] = [Begin("msg_1", "acme-1", 1_700_000_000)]
    for kind in draw(
        st.lists(st.sampled_from(["text", "refusal", "reasoning", "redacted", "calls"]), max_size=6)
    ):
        match kind:
            case "text":
                events += [TextDelta(text) for text in draw(st.lists(TEXTS, min_size=1, max_size=3))]
                events.append(PartEnd())
            case "refusal":
                events += [RefusalDelta(draw(TEXTS)), PartEnd()]
            case "reasoning":
                is_summary = draw(st.booleans())
                texts = draw(st.lists(TEXTS, min_size=1, max_size=3))
                events += [ReasoningDelta(text, is_summary) for text in texts]
                events.append(ReasoningEnd(*draw(st.sampled_from([("sig", "acme"), ("", "acme"), ("", "")]))))
            case "redacted":
                events.append(ReasoningEnd(draw(TEXTS), "acme", is_redacted=True))
            case _:
                events += draw(_calls(len(events), kinds))
    ends: list[Event] = [Finish(draw(REASONS), None), UsageReport(draw(USAGES))]
    return [*events, *draw(st.permutations(ends))]


@st.composite
def _calls(draw: st.DrawFn, key: int, kinds: tuple[Any, ...]) -> list[Event]:
    count = draw(st.integers(1, 3))
    begun: list[Event] = [
        CallBegin(key + index, f"call_{key}_{index}", draw(NAMES), draw(st.sampled_from(kinds)))
        for index in range(count)
    ]
    deltas: list[Event] = [
        CallDelta(key + index, piece)
        for index in range(count)
        for piece in draw(st.sampled_from([(), ("{}",), ('{"a"', ": 1}"), ("{", "}")]))
    ]
    # Pieces of different calls are interleaved, those of one are in order.
    order = draw(st.permutations(range(len(deltas))))
    keys = [deltas[at][0] for at in order]
    queues = {key: [delta for delta in deltas if delta[0] == key] for key in keys}
    return [*begun, *(queues[key].pop(0) for key in keys), *(PartEnd(key + index) for index in range(count))]
