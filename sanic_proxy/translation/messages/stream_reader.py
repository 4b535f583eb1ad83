"""The frames of a Messages stream -> events. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from typing_extensions import override

from sanic_proxy.json_types import Json
from sanic_proxy.openai import chunks, codec
from sanic_proxy.streams import sse
from sanic_proxy.streams.messages_usage import merged, usage_of
from sanic_proxy.translation.conversation import (
    Begin,
    CallBegin,
    CallDelta,
    Event,
    Finish,
    PartEnd,
    ReasoningDelta,
    ReasoningEnd,
    TextDelta,
    UsageReport,
)
from sanic_proxy.translation.format import StreamReader
from sanic_proxy.translation.messages import values


class MessagesReader(StreamReader):
    """See the module.

    Calls are keyed by the index of their block. Blocks that only Messages has (of the server's tools) give no
    events. The usage is reported once, with the `message_delta` that ends the answer: `message_start` has the
    tokens of the input.
    """

    __slots__ = ("_answered", "_is_begun", "_is_reported", "_open_blocks", "_provider", "_usage")

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._open_blocks: dict[int, Json] = {}  # by index; some servers let them interleave
        self._answered: set[int] = set()  # the calls whose arguments come in deltas
        self._usage: Json = {}
        self._is_begun = False
        self._is_reported = False

    @override
    def read(self, frame: sse.Frame) -> Iterable[Event]:
        event = codec.loads_tolerant(frame.payload)
        if not isinstance(event, dict):
            return ()
        # Nearly all events are pieces of text, which need no state.
        if event.get("type") != "content_block_delta":
            return self._read(event)
        delta = _object(event, "delta")
        if delta.get("type") == "text_delta":
            return (TextDelta(text),) if (text := _text(delta, "text")) else ()
        return self._delta(_index(event), delta)

    def _read(self, event: Json) -> Iterator[Event]:
        match event.get("type"):
            case "message_start":
                yield from self._begin(_object(event, "message"))
            case "content_block_start":
                yield from self._open(event)
            case "content_block_stop":
                yield from self._close(_index(event))
            case "message_delta":
                yield from self._finish(event)

    @override
    def end(self) -> Iterator[Event]:
        if not self._is_reported and self._usage:
            yield UsageReport(usage_of(self._usage))

    def _begin(self, message: Json) -> Iterator[Event]:
        if self._is_begun:
            return
        self._is_begun = True
        self._usage = merged({}, message.get("usage"))
        usage = usage_of(self._usage) if self._usage else None
        yield Begin(_text(message, "id"), _text(message, "model"), chunks.now(), usage)

    def _open(self, event: Json) -> Iterator[Event]:
        index = _index(event)
        block = self._open_blocks[index] = _object(event, "content_block")
        match block.get("type"):
            case "text" if text := _text(block, "text"):
                yield TextDelta(text)
            case "thinking" if text := _text(block, "thinking"):
                yield ReasoningDelta(text)
            case "redacted_thinking":
                yield ReasoningEnd(_text(block, "data"), self._provider, is_redacted=True)
            case "tool_use":
                yield CallBegin(index, _text(block, "id"), _text(block, "name"))

    def _delta(self, index: int, delta: Json) -> Iterator[Event]:
        block = self._open_blocks.get(index, {})
        match delta.get("type"):
            case "thinking_delta" if text := _text(delta, "thinking"):
                yield ReasoningDelta(text)
            case "signature_delta":
                block["signature"] = _text(delta, "signature")
            case "input_json_delta" if block.get("type") == "tool_use":
                if arguments := _text(delta, "partial_json"):
                    self._answered.add(index)
                    yield CallDelta(index, arguments)

    def _close(self, index: int) -> Iterator[Event]:
        block = self._open_blocks.pop(index, {})
        match block.get("type"):
            case "text":
                yield PartEnd()
            case "thinking":
                yield ReasoningEnd(_text(block, "signature"), self._provider)
            case "tool_use":
                if index not in self._answered:  # all of the input came with the start of the block
                    yield CallDelta(index, values.json_text(_object(block, "input")))
                yield PartEnd(index)

    def _finish(self, event: Json) -> Iterator[Event]:
        self._usage = merged(self._usage, event.get("usage"))
        delta = _object(event, "delta")
        if not isinstance(reason := delta.get("stop_reason"), str):
            return
        yield Finish(values.finish_of(reason), _text(delta, "stop_sequence") or None)
        if self._usage and not self._is_reported:
            self._is_reported = True
            yield UsageReport(usage_of(self._usage))


def _object(fields: Json, name: str) -> Json:
    value: Any = fields.get(name)
    return value if isinstance(value, dict) else {}


def _text(fields: Json, name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _index(event: Json) -> int:
    index = event.get("index")
    return index if isinstance(index, int) else 0
