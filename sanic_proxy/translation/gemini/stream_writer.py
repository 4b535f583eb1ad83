"""Events -> the frames of a Gemini stream. Pure.

Each frame is a response with one candidate. Texts and thoughts are written as they come. The arguments of a
call are an object in Gemini's API, so a call is written when it is complete: at its own end or, where that
is not stated, in the last frame. This has the finish reason and the usage, which may come in any order.

Nothing ends a stream that failed: clients repeat a request whose stream ended without a finish reason, and
do not read an error there.
"""

from __future__ import annotations

from typing_extensions import override

from sanic_proxy.json_types import Json
from sanic_proxy.openai import chunks, codec
from sanic_proxy.streams import sse
from sanic_proxy.streams.gemini_usage import usage_fields
from sanic_proxy.translation.conversation import (
    Begin,
    CallBegin,
    CallDelta,
    Conversation,
    Event,
    Finish,
    FinishReason,
    PartEnd,
    Reasoning,
    ReasoningDelta,
    ReasoningEnd,
    RefusalDelta,
    TextDelta,
    ToolCall,
    Usage,
    UsageReport,
)
from sanic_proxy.translation.format import StreamWriter
from sanic_proxy.translation.gemini import answers


def frame(response: Json) -> bytes:
    """One frame. JavaScript's SDK finds its end by an expression that U+2028 and U+2029 interrupt."""
    payload = codec.dumps(response)
    if b"\xe2\x80" in payload:
        payload = payload.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return sse.encode(payload)


class _Call:
    __slots__ = ("begin", "pieces")

    def __init__(self, begin: CallBegin) -> None:
        self.begin = begin
        self.pieces: list[str] = []

    def part(self) -> Json:
        begin = self.begin
        call = ToolCall(begin.id or chunks.new_call_id(), begin.name, "".join(self.pieces), begin.kind)
        return answers.call_part(call)


class GeminiWriter(StreamWriter):
    """See the module."""

    __slots__ = ("_asked", "_calls", "_carrier", "_finish", "_id", "_model", "_shows", "_thoughts", "_usage")

    def __init__(self, asked: Conversation) -> None:
        self._asked = asked
        self._id = chunks.new_completion_id()
        self._model = asked.model
        self._calls: dict[int, _Call] = {}  # that are not written yet
        self._carrier = answers.SignatureCarrier()
        self._shows = answers.shows_thoughts(asked)
        self._thoughts: list[str] = []
        self._finish: FinishReason = "stop"
        self._usage = Usage()

    @override
    def write(self, event: Event) -> bytes:
        match event:
            case TextDelta(text) | RefusalDelta(text):
                return self._frame([self._carrier.signed({"text": text})]) if text else b""
            case ReasoningDelta(text):
                self._thoughts.append(text)
                return self._frame([answers.thought_part(text)]) if text and self._shows else b""
            case ReasoningEnd():
                self._end_thought(event)
            case CallBegin():
                self._calls.setdefault(event.key, _Call(event))
            case CallDelta(key, arguments) if key in self._calls:
                self._calls[key].pieces.append(arguments)
            case PartEnd(int() as key) if key in self._calls:
                return self._frame([self._carrier.signed(self._calls.pop(key).part())])
            case _:
                self._note(event)
        return b""

    def _note(self, event: Event) -> None:
        match event:
            case Begin():
                self._id = event.id or self._id
                self._model = event.model or self._model
                self._usage = event.usage or self._usage
            case Finish(reason):
                self._finish = reason
            case UsageReport(usage):
                self._usage = usage
            case _:
                pass

    def _end_thought(self, end: ReasoningEnd) -> None:
        text = "".join(self._thoughts)
        self._thoughts.clear()
        piece = Reasoning(text, end.signature, end.origin, end.is_redacted)
        self._carrier.add(piece, is_shown=self._shows)

    @override
    def end(self) -> bytes:
        parts = [self._carrier.signed(call.part()) for call in self._calls.values()]
        self._calls.clear()
        last = answers.response([*parts, *self._carrier.rest()], self._model, self._id, finish=self._finish)
        return frame({**last, "usageMetadata": usage_fields(self._usage)})

    def _frame(self, parts: list[Json]) -> bytes:
        return frame(answers.response(parts, self._model, self._id))
