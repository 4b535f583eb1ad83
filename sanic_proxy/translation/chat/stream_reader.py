"""The chunks of a chat stream -> events. Pure.

Chats do not say that a part is complete before the answer is: a text ends where something else begins, and
calls, which may be interleaved, end with the answer. A call begins when its name is known for certain: with
the first piece of its arguments, or with what follows it. The finish reason and the usage are reported at the
end, since servers send both in any order, in several chunks, and behind them more of the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from typing_extensions import override

from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import chunks, codec
from sanic_proxy.streams import sse
from sanic_proxy.streams.tool_deltas import ToolDeltas
from sanic_proxy.translation.chat import answers, finish, reasoning
from sanic_proxy.translation.conversation import (
    Begin,
    CallBegin,
    CallDelta,
    CallKind,
    Event,
    FinishReason,
    PartEnd,
    Reasoning,
    ReasoningDelta,
    ReasoningEnd,
    Refusal,
    RefusalDelta,
    Text,
    TextDelta,
    Usage,
    UsageReport,
    whole,
)
from sanic_proxy.translation.format import StreamReader


class _Call:
    __slots__ = ("has_begun", "id", "kind", "name")

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.name = ""
        self.kind: CallKind = "function"
        self.has_begun = False


class _Thought:
    """The piece of reasoning that is being read. `key` tells the entries of `reasoning_details` apart."""

    __slots__ = ("key", "signature")

    def __init__(self, key: object, signature: str) -> None:
        self.key = key
        self.signature = signature


class ChatStreamReader(StreamReader):
    """See the module. The first choice only. `provider` is the origin of the reasoning."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._has_begun = False
        self._is_ended = False
        self._thought: _Thought | None = None
        self._detail: Json = {}
        self._part: type[Text | Refusal] | None = None
        self._calls: dict[int, _Call] = {}
        self._deltas = ToolDeltas()
        self._has_refusal = False
        self._reason: FinishReason | None = None
        self._stop_reason: object = None
        self._usage: Usage | None = None

    @override
    def read(self, frame: sse.Frame) -> Iterable[Event]:
        if frame.payload == sse.DONE_PAYLOAD:
            return self.end()
        chunk = codec.loads_tolerant(frame.payload)
        if not isinstance(chunk, dict) or self._is_ended:
            return ()
        if self._part is Text and (text := _plain_text(chunk)) is not None:
            return (TextDelta(text),)
        return self._read(chunk)

    def _read(self, chunk: JsonMapping) -> Iterator[Event]:
        if not self._has_begun:
            self._has_begun = True
            yield Begin(_text(chunk.get("id")), _text(chunk.get("model")), whole(chunk.get("created")))
        self._read_usage(chunk)
        choice = answers.first_choice(chunk.get("choices"))
        if choice is None:
            return
        self._read_usage(choice)  # where Moonshot reports it
        message = answers.message_of(choice)
        if message is not None:
            yield from self._message(message)
        self._read_reason(choice)

    @override
    def end(self) -> Iterator[Event]:
        if self._is_ended or not self._has_begun:
            return
        self._is_ended = True
        yield from self._close_part()
        yield from self._begin_calls()
        for key in self._calls:
            yield PartEnd(key)
        yield finish.read(
            self._reason, self._stop_reason, has_calls=bool(self._calls), has_refusal=self._has_refusal
        )
        if self._usage is not None:
            yield UsageReport(self._usage)

    def _read_usage(self, holder: JsonMapping) -> None:
        if isinstance(usage := holder.get("usage"), dict) and usage:
            self._usage = Usage.of_chat(usage)

    def _read_reason(self, choice: JsonMapping) -> None:
        """The first reason counts, unless it is `stop` and a later one says more."""
        reason = finish.reason_of(choice)
        if reason is not None and self._reason in {None, "stop"}:
            self._reason = reason
            self._stop_reason = choice.get("stop_reason")

    def _message(self, message: JsonMapping) -> Iterator[Event]:
        """The events of a delta, or of a whole message in its place."""
        yield from self._reasoning(message)
        for part in answers.content_parts(message.get("content")):
            match part:
                case Text(text):
                    yield from self._text(Text, TextDelta(text))
                case Refusal(text):
                    yield from self._text(Refusal, RefusalDelta(text))
                case Reasoning(text):
                    yield from self._thinking("content", "", text)
        if refusal := _text(message.get("refusal")):
            yield from self._text(Refusal, RefusalDelta(refusal))
        calls = message.get("tool_calls")
        if isinstance(calls, list) and calls:
            self._deltas.complete(0, calls)
            for call in calls:
                if isinstance(call, dict):
                    yield from self._call(call)
        elif isinstance(function := message.get("function_call"), dict):
            yield from self._function_call(function)

    # Texts.

    def _text(self, kind: type[Text | Refusal], delta: TextDelta | RefusalDelta) -> Iterator[Event]:
        if self._part is not kind:
            yield from self._close_part()
            yield from self._begin_calls()
            self._part = kind
        self._has_refusal = self._has_refusal or kind is Refusal
        yield delta

    def _close_part(self) -> Iterator[Event]:
        """End the text or the reasoning that is open."""
        if self._part is not None:
            self._part = None
            yield PartEnd()
        if (thought := self._thought) is not None:
            self._thought = None
            yield ReasoningEnd(thought.signature, self._provider if thought.signature else "")

    # Reasoning.

    def _reasoning(self, message: JsonMapping) -> Iterator[Event]:
        name, text = reasoning.named_text(message)
        details = list(reasoning.details_of(message))
        if text and not any(reasoning.split(detail)[0] for detail in details):
            yield from self._thinking(name, name, text)
        for detail in details:
            yield from self._detail_piece(detail)

    def _thinking(
        self, key: object, signature: str, text: str, *, is_summary: bool = False
    ) -> Iterator[Event]:
        if self._thought is None or self._thought.key != key:
            yield from self._close_part()
            yield from self._begin_calls()
            self._thought = _Thought(key, signature)
        if text:
            yield ReasoningDelta(text, is_summary)

    def _detail_piece(self, piece: JsonMapping) -> Iterator[Event]:
        """A piece of one of `reasoning_details`: the pieces of one have the same type and index."""
        if (part := reasoning.of_detail(piece)).is_redacted:
            yield from self._close_part()
            yield ReasoningEnd(part.signature, self._provider, is_redacted=True)
            return
        key = piece["type"], piece.get("index")
        text, rest = reasoning.split(piece)
        if self._thought is None or self._thought.key != key:
            self._detail = {}
        self._detail.update(rest)
        yield from self._thinking(key, "", text, is_summary=part.is_summary)
        if self._thought is not None:
            self._thought.signature = reasoning.signature_of(self._detail)

    # Calls.

    def _call(self, delta: JsonMapping) -> Iterator[Event]:
        key = delta["index"]
        if key not in self._calls:
            yield from self._close_part()
            yield from self._begin_calls()
            self._calls[key] = _Call(_text(delta.get("id")))
        is_custom = isinstance(custom := delta.get("custom"), dict)
        body = custom if is_custom else delta.get("function")
        if is_custom:
            self._calls[key].kind = "custom"
        if isinstance(body, dict):
            text = body.get("input") if is_custom else body.get("arguments")
            yield from self._call_piece(key, _text(body.get("name")), answers.arguments_text(text))

    def _call_piece(self, key: int, name: str, arguments: str) -> Iterator[Event]:
        call = self._calls[key]
        # Names come in pieces, or whole in every chunk.
        if not call.has_begun and name != call.name:
            call.name += name
        if arguments:
            yield from self._begin_call(key)
            yield CallDelta(key, arguments)

    def _function_call(self, function: JsonMapping) -> Iterator[Event]:
        """The one call of the legacy API."""
        if not self._calls:
            yield from self._close_part()
            self._calls[0] = _Call(chunks.new_call_id())
        yield from self._call_piece(
            0, _text(function.get("name")), answers.arguments_text(function.get("arguments"))
        )

    def _begin_calls(self) -> Iterator[Event]:
        """Begin the calls that wait for their arguments: something else has come."""
        for key in self._calls:
            yield from self._begin_call(key)

    def _begin_call(self, key: int) -> Iterator[Event]:
        call = self._calls[key]
        if not call.has_begun:
            call.has_begun = True
            yield CallBegin(key, call.id, call.name, call.kind)


def _plain_text(chunk: Json) -> str | None:
    """The text of a chunk that is a further piece of content and nothing else, as nearly all are."""
    try:
        (choice,) = chunk["choices"]
        delta = choice["delta"]
        if len(delta) != 1 or choice.get("index") or choice.get("finish_reason") or chunk.get("usage"):
            return None
        text = delta["content"]
        return text if type(text) is str and text and "usage" not in choice else None
    except (AttributeError, LookupError, TypeError, ValueError):
        return None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
