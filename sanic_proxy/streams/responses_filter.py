"""The filter of a stream whose provider and client both speak OpenAI's Responses API.

Frames pass byte for byte, unknown events included, as the API is an open one. Nearly all have an `event:`
line, which tells their type: only those are parsed that begin or end the response, report an error, or lack
that line. Frames are judged by these rules:

1. *Terminal event* (`response.completed`, `.incomplete`): the stream is complete. What follows is dropped.
2. *`response.failed`* or *`error`*: before any content it is the failure of the stream, and does not pass, so
   that the request may move to another target. After content `response.failed` passes and is the end, as the
   client knows it; it is `reported`. An `error` passes as well: most servers send `response.failed` after it.
3. *Error without a type*, as proxies between here and the provider write it: always a failure.
4. *Anything else* passes.

A connection that ends before a terminal event is a cut: clients need one, and `failed` makes it, with the id
and the next sequence number of this stream.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.json_types import Json
from sanic_proxy.openai import chunks, codec
from sanic_proxy.openai.responses import (
    TERMINAL_EVENTS,
    failed_frames,
    new_response_id,
    recorded_usage,
    response_object,
)
from sanic_proxy.streams import sse
from sanic_proxy.streams.filters import StreamFilter, cut
from sanic_proxy.upstream import error_parser

_EVENT = b"event: "
_RESPONSE_EVENT = b"event: response."
_FRAME_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_FRAME_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_SEQUENCE = re.compile(rb'"sequence_number"\s*:\s*(\d{1,15})')
# Events that are parsed. All others are judged by their names.
_PARSED = frozenset({b"response.created", b"error", *(name.encode() for name in TERMINAL_EVENTS)})
# Servers repeat these, and `keepalive`, to keep a connection open.
_PROGRESS = re.compile(rb'"type"\s*:\s*"response\.(?!created"|queued"|in_progress")')


class ResponsesStreamFilter(StreamFilter):
    """See the module. `model` is the client's name for it, for a stream that fails before it begins."""

    __slots__ = (
        "_error",
        "_has_content",
        "_has_frames",
        "_last",
        "_model",
        "_response",
        "_tail",
        "failure",
        "is_done",
        "reported",
        "usage",
    )

    def __init__(self, model: str = "") -> None:
        self._model = model
        self._tail = bytearray()
        self._has_content = False
        self._has_frames = False
        self._response: Json | None = None  # as `response.created` had it
        self._last = b""  # the numbered frames that passed last
        self._error: errors.ProxyError | None = None  # of an `error` event that has passed
        self.failure: errors.ProxyError | None = None
        self.reported: errors.ProxyError | None = None
        self.is_done = False
        self.usage: Json | None = None

    @property
    @override
    def has_content(self) -> bool:
        """Whether a delta, a finished item, or the end of the response has passed."""
        return self._has_content

    @override
    def feed(self, data: bytes) -> bytes:
        """The frames that `data` completes; `data` itself where it is nothing but those."""
        if self.is_done or self.failure is not None:
            return b""
        tail = self._tail
        if not tail and self._is_plain(data):
            return data
        if not tail and data.endswith(_FRAME_ENDS):
            return self._passed(data)
        searched = max(0, len(tail) - 3)
        tail += data
        ends = (at + len(mark) for mark in _FRAME_ENDS if (at := tail.rfind(mark, searched)) >= 0)
        end = max(ends, default=0)
        frames = bytes(tail[:end])
        del tail[:end]
        passed = self._passed(frames) if frames else b""
        if len(tail) > sse.MAX_FRAME_BYTES and not self.is_done and self.failure is None:
            self.failure = sse.frame_too_large()
        return passed

    @override
    def end(self) -> bytes:
        """What is still to be sent when the connection has ended; raises if that is a cut."""
        last = b""
        if self._tail.strip() and not self.is_done and self.failure is None:
            last = self.feed(b"\n\n")
        if self.is_done:
            return last
        if self._error is not None:
            raise self._error
        if self.failure is not None and not isinstance(self.failure, errors.UpstreamBadFrame):
            raise self.failure
        raise cut(has_begun=self._has_frames)

    @override
    def has_progress(self, frames: bytes) -> bool:
        return _PROGRESS.search(frames) is not None

    @override
    def failed(self, error: errors.ProxyError) -> bytes:
        numbers = [int(number) for number in _SEQUENCE.findall(self._last)]
        sequence = max(numbers, default=0) + 1 if self._has_frames else 0
        response = self._response
        if response is None:
            response = response_object(new_response_id(), self._model, chunks.now(), {})
        return failed_frames(response, sequence, error)

    def _is_plain(self, data: bytes) -> bool:
        """Whether `data` is one frame that passes by its name: what nearly every read brings."""
        if not data.startswith(_RESPONSE_EVENT) or data.find(b"\n\n") != len(data) - 2 or b"\r" in data:
            return False
        kind = data[len(_EVENT) : data.find(b"\n")]
        if kind in _PARSED:
            return False
        if not self._has_content:
            self._has_content = _is_content(kind)
        self._has_frames = True
        self._last = data
        return True

    def _passed(self, frames: bytes) -> bytes:
        """Those of `frames`, which are whole, that pass."""
        passed, start = frames, 0
        try:
            for end in _ends(frames):
                self._judge(frames, start, end)
                start = end
                if self.is_done and end < len(frames):
                    passed = frames[:end]
                    break
        except errors.ProxyError as exc:
            self.failure = exc
            passed = frames[:start]
        if b'"sequence_number"' in passed:
            self._last = passed
        self._has_frames = self._has_frames or bool(passed)
        return passed

    def _judge(self, frames: bytes, start: int, end: int) -> None:
        """Note what the frame between `start` and `end` means. Raises ProxyError if it must not pass."""
        if frames.startswith(_EVENT, start):
            kind = frames[start + len(_EVENT) : frames.find(b"\n", start, end)].rstrip()
            if kind not in _PARSED:
                self._has_content |= _is_content(kind)
                return
        for frame in sse.FrameSplitter().feed(frames[start:end]):
            if frame.payload == sse.DONE_PAYLOAD:
                continue
            event = codec.loads_tolerant(frame.payload)
            if isinstance(event, dict):
                self._judge_event(event, frame.event)
            elif frame.event in _PARSED or frame.payload[:1] == b"{":
                raise errors.UpstreamBadFrame("A frame of the provider's stream is not a JSON object")

    def _judge_event(self, event: Json, name: bytes) -> None:
        kind = event.get("type")
        if not isinstance(kind, str):
            kind = name.decode("utf-8", "replace")
            if kind not in TERMINAL_EVENTS and (kind == "error" or error_parser.is_error(event)):
                raise error_parser.error_in_band(event if event.get("error") else {"error": event})
        response = event.get("response")
        response = response if isinstance(response, dict) else {}
        if kind == "response.created":
            self._response = self._response or response
        elif kind in TERMINAL_EVENTS:
            self._end_response(kind, response)
        elif kind == "error":
            error = error_parser.error_in_band(event if event.get("error") else {"error": event})
            if not self._has_content:
                raise error
            self._error = error
        else:
            self._has_content |= _is_content(kind.encode())

    def _end_response(self, kind: str, response: Json) -> None:
        self.usage = recorded_usage(response) or self.usage
        if kind == "response.failed":
            error = response.get("error") or "The provider's response has failed"
            failure = self._error or error_parser.error_in_band({"error": error})
            if not self._has_content:
                raise failure
            self.reported = failure
        self._has_content = self.is_done = True


def _is_content(kind: bytes) -> bool:
    return kind.endswith(b".delta") or kind == b"response.output_item.done"


def _ends(frames: bytes) -> Iterator[int]:
    """Where each of the frames ends. `frames` are whole."""
    if b"\r" in frames:
        yield from (found.end() for found in _FRAME_END.finditer(frames))
        return
    end = 0
    while (at := frames.find(b"\n\n", end)) >= 0:
        end = at + 2
        yield end
