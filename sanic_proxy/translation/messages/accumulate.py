"""The frames of a native Messages stream -> the message that Anthropic answers without `stream`. Pure.

The API answers requests for many tokens in streams only, while clients may ask for a whole answer, and Claude
Code does after every stream that broke. The request is streamed upstream then, and its answer put together.
"""

from __future__ import annotations

from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import codec
from sanic_proxy.streams import sse
from sanic_proxy.streams.messages_usage import merged
from sanic_proxy.translation.format import Collector
from sanic_proxy.translation.messages.values import input_of

# Fields of a delta that are not part of its block.
_NOT_OF_BLOCK = frozenset({"type", "estimated_tokens"})
_INPUT_JSON = "partial_json"
# Fields of `message_delta` that are not part of the message.
_NOT_OF_MESSAGE = frozenset({"type", "delta", "usage"})


class MessageAccumulator(Collector):
    """The message of one stream. `feed` takes its frames in pieces of any size."""

    __slots__ = ("_blocks", "_message", "_splitter", "_texts")

    def __init__(self) -> None:
        self._splitter = sse.FrameSplitter()
        self._message: Json | None = None
        self._blocks: dict[int, Json] = {}  # by their indexes in the stream
        self._texts: dict[int, dict[str, list[str]]] = {}  # of blocks that are open: by their fields

    @override
    def feed(self, frames: bytes) -> None:
        for frame in self._splitter.feed(frames):
            event = codec.loads_tolerant(frame.payload)
            if isinstance(event, dict):
                self._add(event)

    @override
    def body(self) -> bytes:
        return codec.dumps(self.message())

    def message(self) -> Json:
        """The message, once the stream is complete. Raises UpstreamBadResponse if it never began."""
        if self._message is None:
            raise errors.UpstreamBadResponse("The provider's stream has no `message_start`")
        for index in list(self._texts):
            self._close(index)
        return self._message

    def _add(self, event: Json) -> None:
        if event.get("type") == "message_start" and isinstance(message := event.get("message"), dict):
            self._message = self._message or {**message, "content": []}
        if (whole := self._message) is None:
            return
        match event:
            case {"type": "content_block_start", "index": int() as index, "content_block": dict() as block}:
                self._blocks[index] = dict(block)
                whole["content"].append(self._blocks[index])
            case {"type": "content_block_delta", "index": int() as index, "delta": dict() as delta}:
                if index in self._blocks:
                    self._add_delta(index, self._blocks[index], delta)
            case {"type": "content_block_stop", "index": int() as index}:
                if index in self._blocks:
                    self._close(index)
            case {"type": "message_delta", "delta": dict() as delta}:
                self._add_message_delta(whole, event, delta)

    def _add_delta(self, index: int, block: Json, delta: Json) -> None:
        match delta:
            case {"type": "citations_delta", "citation": citation}:
                self._add_value(index, block, "citations", [citation])
            case {"type": "signature_delta", "signature": signature}:
                block["signature"] = signature
            case _:
                for name, value in delta.items():
                    if name not in _NOT_OF_BLOCK:
                        self._add_value(index, block, name, value)

    def _add_value(self, index: int, block: Json, name: str, value: object) -> None:
        """Texts and lists grow, anything else is replaced."""
        if isinstance(value, str) and isinstance(block.get(name, ""), str):
            self._texts.setdefault(index, {}).setdefault(name, []).append(value)
        elif isinstance(value, list) and isinstance(old := block.get(name), list):
            old.extend(value)  # the lists come from frames that were parsed here
        else:
            block[name] = value

    def _close(self, index: int) -> None:
        """Join the texts of a block."""
        block = self._blocks[index]
        for name, pieces in self._texts.pop(index, {}).items():
            text = "".join(pieces)
            if name == _INPUT_JSON:
                block["input"] = input_of(text)
            else:
                block[name] = block.get(name, "") + text

    @staticmethod
    def _add_message_delta(message: Json, event: Json, delta: JsonMapping) -> None:
        message.update({name: value for name, value in event.items() if name not in _NOT_OF_MESSAGE})
        for name, value in delta.items():
            if value is not None or name not in message:
                message[name] = value
        message["usage"] = merged(message.get("usage") or {}, event.get("usage"))
