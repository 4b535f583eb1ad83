"""Events -> the frames of a Messages stream. Pure.

A message is a sequence of content blocks: each is started, filled by deltas and stopped before the next one
starts, and their indexes rise by one. Events know no such order, as the calls of a chat may interleave. So
blocks stand in a queue, in the order of their beginnings. The first one is open, and its deltas are written
at once; the deltas of the others wait. The open block is stopped

- when the event for its end has come,
- when another block has begun, if it is text or reasoning, whose deltas always belong to the newest block,
- when another block has begun, if it is a call whose arguments are a JSON object by then that is not empty:
  only white space could follow. (An empty object may be a placeholder.)

Any other call stays open until the end of the answer, and what follows it waits.

The end of the message is written behind the last event, as the usage may come before or after the finish
reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from typing_extensions import override

from sanic_proxy.json_types import Json
from sanic_proxy.openai import codec
from sanic_proxy.streams.messages_usage import usage_fields
from sanic_proxy.translation import signatures
from sanic_proxy.translation.conversation import (
    Begin,
    CallBegin,
    CallDelta,
    CallKind,
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
from sanic_proxy.translation.format import StreamWriter
from sanic_proxy.translation.messages import values
from sanic_proxy.translation.tool_names import CUSTOM_INPUT


def frame(event: Json) -> bytes:
    """One event of a Messages stream, with its name and its blank line."""
    return b"event: " + str(event["type"]).encode() + b"\ndata: " + codec.dumps(event) + b"\n\n"


_TEXT_HEAD = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
    b'"delta":{"type":"text_delta","text":'
)
_TEXT_TAIL = b"}}\n\n"


@dataclass(slots=True)
class _Block:
    """A block that is open or waits. `start` is what its start event has; `pieces` are not written yet."""

    type: Literal["text", "thinking", "redacted_thinking", "tool_use"]
    start: Json
    call_kind: CallKind = "function"
    pieces: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)  # arguments
    checked: int = 0  # pieces of the arguments that are known not to be whole
    signature: str = ""
    is_started: bool = False
    is_ended: bool = False

    def deltas(self) -> Iterator[Json]:
        """The deltas for `pieces`, which are taken."""
        for piece in self.pieces:
            match self.type:
                case "text":
                    yield {"type": "text_delta", "text": piece}
                case "thinking":
                    yield {"type": "thinking_delta", "thinking": piece}
                case _ if self.call_kind != "custom":
                    yield {"type": "input_json_delta", "partial_json": piece}
        if self.type == "tool_use":
            self.written += self.pieces
        self.pieces = []

    def last_delta(self) -> Json | None:
        """The delta in front of the block's stop."""
        if self.type == "thinking" and self.signature:
            return {"type": "signature_delta", "signature": self.signature}
        if self.type == "tool_use" and self.call_kind == "custom":
            text = "".join(self.written)
            return {"type": "input_json_delta", "partial_json": values.json_text({CUSTOM_INPUT: text})}
        return None

    def may_be_followed(self) -> bool:
        """Whether the block is complete, as another one has begun."""
        if self.type != "tool_use" or self.is_ended:
            return True
        if self.call_kind == "custom" or len(self.written) == self.checked:
            return False
        self.checked = len(self.written)
        arguments = "".join(self.written)
        parsed = codec.loads_tolerant(arguments.encode("utf-8", "surrogatepass"))
        return bool(parsed) and isinstance(parsed, dict)


class MessagesWriter(StreamWriter):
    """See the module. `model` is stated where the provider states none."""

    __slots__ = (
        "_calls",
        "_finish",
        "_has_refusal",
        "_id",
        "_index",
        "_is_over",
        "_is_started",
        "_model",
        "_queue",
        "_text_head",
        "_usage",
    )

    def __init__(self, model: str) -> None:
        self._model = model
        self._id = ""
        self._queue: list[_Block] = []
        self._calls: dict[int, _Block] = {}
        self._index = 0
        self._usage = Usage()
        self._finish = Finish("stop")
        self._has_refusal = False
        self._is_started = False
        self._is_over = False
        # The frame of a delta up to its text, while the only block is an open text: nearly all are these.
        self._text_head = b""

    @override
    def write(self, event: Event) -> bytes:
        if self._text_head and type(event) is TextDelta and event.text:
            return self._text_head + codec.dumps(event.text) + _TEXT_TAIL
        if isinstance(event, Begin):
            return self._start(event)
        self._note(event)
        frames = self._advance()
        self._text_head = self._delta_head()
        return frames

    def _delta_head(self) -> bytes:
        queue = self._queue
        if len(queue) != 1 or queue[0].type != "text" or queue[0].is_ended:
            return b""
        return _TEXT_HEAD % self._index

    def _note(self, event: Event) -> None:
        match event:
            case TextDelta(text):
                self._add("text", text)
            case RefusalDelta(text):
                self._has_refusal = self._has_refusal or bool(text)
                self._add("text", text)
            case ReasoningDelta(text):
                self._add("thinking", text)
            case ReasoningEnd():
                self._end_reasoning(event)
            case CallBegin():
                self._begin_call(event)
            case CallDelta(key, arguments) if arguments and key in self._calls:
                self._calls[key].pieces.append(arguments)
            case PartEnd(key):
                self._end_part(key)
            case Finish():
                self._finish = event
            case UsageReport(usage):
                self._usage = usage

    @override
    def end(self) -> bytes:
        if self._is_over:
            return b""
        self._is_over = True
        for block in self._queue:
            block.is_ended = True
        blocks = self._advance()
        start = b"" if self._is_started else self._start(Begin("", "", 0))
        stop_reason = values.stop_reason_of(
            self._finish.reason, has_calls=bool(self._calls), has_refusal=self._has_refusal
        )
        delta = {
            "stop_reason": stop_reason,
            "stop_sequence": self._finish.stop_sequence if stop_reason == "stop_sequence" else None,
        }
        last = {"type": "message_delta", "delta": delta, "usage": usage_fields(self._usage)}
        return start + blocks + frame(last) + frame({"type": "message_stop"})

    def _start(self, begin: Begin) -> bytes:
        if self._is_started:
            return b""
        self._is_started = True
        self._id = values.message_id(begin.id)
        self._usage = begin.usage or self._usage
        message: Json = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": begin.model or self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_fields(self._usage),
        }
        return frame({"type": "message_start", "message": message})

    def _add(self, kind: Literal["text", "thinking"], text: str) -> None:
        """A delta for the newest block if it is of that kind, else for a new one. Empty ones are ignored."""
        if not text:
            return
        last = self._queue[-1] if self._queue else None
        if last is None or last.type != kind or last.is_ended:
            start = {"text": ""} if kind == "text" else {"thinking": "", "signature": ""}
            last = _Block(kind, start)
            self._queue.append(last)
        last.pieces.append(text)

    def _end_reasoning(self, end: ReasoningEnd) -> None:
        """A signature that comes late, behind another block, gets a block of its own."""
        signature = signatures.wrapped(end.origin, end.signature)
        if end.is_redacted:
            self._queue.append(_Block("redacted_thinking", {"data": signature}, is_ended=True))
            return
        last = self._queue[-1] if self._queue else None
        if last is None or last.type != "thinking" or last.is_ended:
            if not end.signature:
                return
            last = _Block("thinking", {"thinking": "", "signature": ""})
            self._queue.append(last)
        last.signature = signature
        last.is_ended = True

    def _begin_call(self, call: CallBegin) -> None:
        if call.key in self._calls:
            return
        id_ = call.id or values.new_tool_id(self._id, call.key)
        block = _Block("tool_use", {"id": id_, "name": call.name, "input": {}}, call.kind)
        self._calls[call.key] = block
        self._queue.append(block)

    def _end_part(self, key: int | None) -> None:
        if key is not None:
            if (call := self._calls.get(key)) is not None:
                call.is_ended = True
        elif self._queue and self._queue[-1].type == "text":
            self._queue[-1].is_ended = True

    def _advance(self) -> bytes:
        """The frames of the first block and, where it is complete, of those behind it."""
        frames: list[bytes] = []
        queue = self._queue
        if queue and not self._is_started:
            frames.append(self._start(Begin("", "", 0)))
        while queue:
            block = queue[0]
            frames += self._block_frames(block)
            if not (block.is_ended or (len(queue) > 1 and block.may_be_followed())):
                break
            if (delta := block.last_delta()) is not None:
                frames.append(self._delta_frame(delta))
            frames.append(frame({"type": "content_block_stop", "index": self._index}))
            self._index += 1
            del queue[0]
        return b"".join(frames)

    def _block_frames(self, block: _Block) -> Iterator[bytes]:
        if not block.is_started:
            block.is_started = True
            content = {"type": block.type, **block.start}
            yield frame({"type": "content_block_start", "index": self._index, "content_block": content})
        for delta in block.deltas():
            yield self._delta_frame(delta)

    def _delta_frame(self, delta: Json) -> bytes:
        return frame({"type": "content_block_delta", "index": self._index, "delta": delta})
