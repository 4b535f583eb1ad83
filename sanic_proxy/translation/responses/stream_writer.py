"""Events of an answer -> the frames of a Responses stream, or the response that such a stream ends with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

from typing_extensions import override

from sanic_proxy.errors import ProxyError
from sanic_proxy.json_types import Json
from sanic_proxy.openai import codec
from sanic_proxy.openai.responses import event_frame, failed_frames
from sanic_proxy.streams import sse
from sanic_proxy.translation.conversation import (
    Answer,
    Begin,
    CallBegin,
    CallDelta,
    Conversation,
    Event,
    Finish,
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
    UsageReport,
)
from sanic_proxy.translation.format import StreamWriter
from sanic_proxy.translation.responses.builder import ResponseBuilder
from sanic_proxy.translation.responses.output_items import MessageItem

_EMPTY_DELTA = b'"delta":""'
_TEXT_TAIL = b',"sequence_number":%d}\n\n'


class ResponsesStreamWriter(StreamWriter):
    """See the module. Each event is written whole, with its blank line.

    `has_done_marker`: `data: [DONE]` follows the last event. Open Responses demands it; OpenAI does not
    send it.
    """

    __slots__ = ("_builder", "_end", "_message", "_text_head")

    def __init__(self, asked: Conversation, now: Callable[[], int], *, has_done_marker: bool = False) -> None:
        self._builder = ResponseBuilder(asked, now)
        self._end = sse.DONE if has_done_marker else b""
        # The message whose text is open, and the frame of a delta up to its text: nearly all are these.
        self._message: MessageItem | None = None
        self._text_head = b""

    @override
    def write(self, event: Event) -> bytes:
        builder = self._builder
        if self._message is not None and type(event) is TextDelta and event.text:
            self._message.continue_text(event.text)
            sequence = builder.sequence
            builder.sequence += 1
            return self._text_head + codec.dumps(event.text) + _TEXT_TAIL % sequence
        frames = b"".join(map(event_frame, builder.apply(event)))
        self._message = builder.open_message
        if self._message is not None:
            self._text_head, _, _ = event_frame(self._message.text_event("")).partition(_EMPTY_DELTA)
            self._text_head += _EMPTY_DELTA[:-2]
        return frames

    @override
    def end(self) -> bytes:
        return b"".join(map(event_frame, self._builder.finish())) + self._end

    @override
    def failed(self, error: ProxyError) -> bytes:
        builder = self._builder
        return failed_frames(builder.interrupted(), builder.sequence, error) + self._end


def whole_response(answer: Answer, asked: Conversation, now: Callable[[], int]) -> Json:
    """A whole answer as a response: the one that a stream of its parts would end with."""
    builder = ResponseBuilder(asked, now)
    builder.apply(Begin(answer.id, answer.model, answer.created))
    for key, (part, following) in enumerate(pairwise([*answer.parts, None])):
        for event in _events_of(part, following, key):
            builder.apply(event)
        if isinstance(part, Text) and part.text and part.annotations:
            builder.annotate(part.annotations)
        builder.apply(PartEnd())
    builder.apply(Finish(answer.finish, answer.stop_sequence))
    if answer.usage is not None:
        builder.apply(UsageReport(answer.usage))
    response: Json = builder.finish()[-1]["response"]
    return response


def _events_of(part: Part | None, following: Part | None, key: int) -> Iterator[Event]:
    """The deltas of one part. Kinds that an answer of Responses cannot have give none."""
    match part:
        case Text(text):
            yield TextDelta(text)
        case Refusal(text):
            yield RefusalDelta(text)
        case Reasoning():
            yield ReasoningDelta(part.text, part.is_summary)
            yield PartEnd()
            # Pieces of one item have its id.
            if not (isinstance(following, Reasoning) and part.id and following.id == part.id):
                yield ReasoningEnd(part.signature, part.origin, part.is_redacted)
        case ToolCall():
            yield CallBegin(key, part.id, part.name, part.kind, part.namespace)
            yield CallDelta(key, part.arguments)
            yield PartEnd(key)
