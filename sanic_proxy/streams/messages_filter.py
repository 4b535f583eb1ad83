"""A filter for the stream of a provider that speaks Anthropic's Messages: which frames may pass.

It judges each frame by these rules, in this order:

1. *Padding*: a payload that does not begin like JSON (`[DONE]`, `ping`). Dropped.
2. *Error*: `event: error`, or an object that reports one. It ends the stream with the provider's words.
3. *End*: `message_stop`. Before any content and stop reason it ends an empty answer, which is a failure; what
   follows it is dropped.
4. *Event*: an object with a type. It passes byte for byte, in a frame of the lines `event:` and `data:`; the
   former is the type, whatever the provider wrote there. Types that are not known pass too: the API's
   versioning allows new ones. A second `message_start` is dropped.
5. *Foreign object*: any other value. Dropped and counted in `dropped_frames`.
6. *Malformed frame*: not JSON, though it begins like it, or an event without what its type demands. A
   failure, unless the stop reason has come: then it is dropped and counted.

The stream is complete with `message_stop`. A connection that ends behind the stop reason, which is the last
thing that a message needs, has lost nothing but that event: it is added, as clients do not take a stream
without it for an answer (Claude Code repeats the request then). Any other end is a cut.

Nearly every read consists of whole frames, which are returned as they came, uncopied, after one parse of
each: `_pass_unchanged`. Whatever it cannot pass is judged again frame by frame.
"""

from __future__ import annotations

import orjson
from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.json_types import Json
from sanic_proxy.openai import codec
from sanic_proxy.streams import sse
from sanic_proxy.streams.filters import StreamFilter, cut, last_frame
from sanic_proxy.streams.messages_usage import merged, recorded_usage
from sanic_proxy.upstream import answers, error_parser

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
MESSAGE_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'

# Blocks that are empty when they start.
_EMPTY_BLOCKS = frozenset({"text", "thinking"})
# The object that an event of a type has to hold.
_DEMANDED = {
    "message_start": "message",
    "content_block_start": "content_block",
    "content_block_delta": "delta",
    "message_delta": "delta",
}
_KNOWN = frozenset({*_DEMANDED, "content_block_stop", "message_stop", "ping"})


class MessagesStreamFilter(StreamFilter):
    """Bytes of an upstream's Messages stream -> the frames that may reach the client; see the module.

    `usage` has the form of a chat's.
    """

    __slots__ = (
        "_has_content",
        "_has_frames",
        "_is_begun",
        "_is_stopped",
        "_splitter",
        "_usage",
        "dropped_frames",
        "failure",
        "is_done",
        "usage",
    )

    def __init__(self) -> None:
        self._splitter = sse.FrameSplitter()
        self._has_frames = False
        self._is_begun = False  # `message_start`
        self._has_content = False
        self._is_stopped = False  # the stop reason
        self._usage: Json = {}  # as Messages count
        self.is_done = False
        self.failure: errors.ProxyError | None = None
        self.usage: Json | None = None
        self.dropped_frames = 0

    @property
    @override
    def has_content(self) -> bool:
        """Whether a delta, a block that is not empty when it starts, or the stop reason has passed."""
        return self._has_content or self._is_stopped

    @override
    def feed(self, data: bytes) -> bytes:
        """The good frames that `data` completes, joined; `data` itself where it is nothing but those."""
        if self.is_done or self.failure is not None:
            return b""
        frames = self._splitter.event_payloads(data)
        if frames is not None:
            was_begun = self._is_begun
            if self._pass_unchanged(frames):
                return data
            self._is_begun = was_begun
        return self._feed_one_by_one(data)

    @override
    def end(self) -> bytes:
        """What is still to be sent when the connection has ended; raises if that is a cut."""
        last = last_frame(self, self._splitter)
        if self.is_done:
            return last
        if self._is_stopped:
            self.is_done = True
            return last + MESSAGE_STOP
        raise cut(has_begun=self._has_frames or self._is_begun)

    @override
    def has_progress(self, frames: bytes) -> bool:
        """Whether `frames`, which have passed, hold an event that is not a ping."""
        return frames.count(b"event: ") > frames.count(b"event: ping\n")

    def _pass_unchanged(self, frames: list[tuple[bytes, bytes]]) -> bool:
        """Whether `frames` are events that all pass as they are. It notes nothing but what they state.

        A value that is not what an event has there raises, and the frames are judged one by one.
        """
        try:
            for name, payload in frames:
                if self.is_done:
                    self.is_done = False
                    return False
                event = orjson.loads(payload)
                kind = event["type"]
                if kind not in _KNOWN or kind.encode() != name or not self._passes(kind, event):
                    return False
        except (ValueError, TypeError, AttributeError, LookupError):
            return False
        return True

    def _passes(self, kind: str, event: Json) -> bool:
        if kind == "content_block_delta":
            self._has_content = True
            return event["delta"]["type"] is not None
        if kind == "message_stop":
            self.is_done = self.has_content
            return self.is_done
        if kind == "message_start" and self._is_begun:
            return False
        if kind in _DEMANDED:
            if not isinstance(event[_DEMANDED[kind]], dict):
                return False
            self._note(kind, event)
        return True

    def _note(self, kind: str, event: Json) -> None:
        """Remember what an event with all it needs says. Noting one twice changes nothing."""
        match kind:
            case "message_start":
                self._is_begun = True
                self._count(event["message"].get("usage"))
            case "content_block_start":
                self._has_content = (
                    self._has_content or str(event["content_block"].get("type")) not in _EMPTY_BLOCKS
                )
            case "content_block_delta":
                self._has_content = True
            case "message_delta":
                self._is_stopped = self._is_stopped or bool(event["delta"].get("stop_reason"))
                self._count(event.get("usage"))

    def _count(self, usage: object) -> None:
        if isinstance(usage, dict):
            self._usage = merged(self._usage, usage)
            self.usage = recorded_usage(self._usage)

    def _feed_one_by_one(self, data: bytes) -> bytes:
        good: list[bytes] = []
        try:
            for frame in self._splitter.feed(data):
                self._has_frames = True
                good.append(self._judged(frame))
                if self.is_done:
                    break
        except errors.FrameTooLarge as exc:
            if self._is_stopped:
                self.dropped_frames += 1
                self.is_done = True
                good.append(MESSAGE_STOP)
            else:
                self.failure = exc
        except errors.ProxyError as exc:
            self.failure = exc
        return b"".join(good)

    def _judged(self, frame: sse.Frame) -> bytes:
        """What of one frame reaches the client: see the rules in the module's docstring."""
        payload, name = frame.payload, frame.event
        if payload.lstrip()[:1] not in {b"{", b"["} or payload.strip() == sse.DONE_PAYLOAD:
            if name == b"error":
                raise error_parser.error_in_band({"error": payload.decode("utf-8", "replace")})
            return b""
        try:
            event = codec.loads_exact(payload)
        except ValueError:
            if name == b"error":
                raise error_parser.error_in_band({"error": payload.decode("utf-8", "replace")}) from None
            return self._malformed()
        kind = event.get("type") if isinstance(event, dict) else None
        is_kind = isinstance(kind, str)
        if name == b"error" or (not (is_kind and kind in _KNOWN) and error_parser.is_error(event)):
            raise error_parser.error_in_band(event)
        if not isinstance(kind, str):
            self.dropped_frames += 1
            return b""
        return self._event(kind, event, payload)

    def _event(self, kind: str, event: Json, payload: bytes) -> bytes:
        if kind == "message":
            raise errors.UpstreamBadResponse("The provider answered a streaming request with a whole message")
        if kind in _DEMANDED and not isinstance(event.get(_DEMANDED[kind]), dict):
            return self._malformed()
        if kind == "message_start" and self._is_begun:
            self.dropped_frames += 1
            return b""
        self._note(kind, event)
        if kind == "message_stop":
            if not self.has_content:
                raise answers.empty_answer()
            self.is_done = True
        return b"event: " + kind.encode() + b"\ndata: " + payload + b"\n\n"

    def _malformed(self) -> bytes:
        if not self._is_stopped:
            raise errors.UpstreamBadFrame("A frame of the provider's stream is not an event of Messages")
        self.dropped_frames += 1
        return b""
