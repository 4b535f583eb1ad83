"""What makes a stream of frames whole: heartbeats while nothing comes, and a guard on its end.

A stream that passes through is complete when its end was seen (`[DONE]` or a finish reason), never
because the connection ended. Frames the proxy makes to fill a wait are `Filler`s: until another
frame has been sent, the client has seen nothing from the upstream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from typing import Any

from sanic_proxy import errors, failures, sse, wire


class Filler(bytes):
    """A frame of the proxy's own, sent to keep the client waiting; it promises nothing."""

    __slots__ = ()


PING = Filler(sse.PING)


async def beats_until(
    pending: Awaitable[object], *, beat: Filler, interval_s: float
) -> AsyncGenerator[Filler, None]:
    """Yield `beat` every `interval_s` until `pending` is done. Neither awaits nor cancels it."""
    task = asyncio.ensure_future(pending)
    while not (await asyncio.wait({task}, timeout=interval_s))[0]:
        yield beat


async def discard(task: asyncio.Future[Any]) -> None:
    """End a task whose result nobody wants any more, and wait until it has ended."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # or asyncio logs that nobody looked


class ChatGuard:
    """Bytes of an upstream's chat stream -> the frames that may reach the client.

    `failure` is set when a frame cannot be passed on: what `feed` returned before it still may be.
    After `is_done` or a failure, whatever else comes is dropped.
    """

    __slots__ = ("_finished", "_has_begun", "_splitter", "failure", "is_done", "usage")

    def __init__(self) -> None:
        self._splitter = sse.FrameSplitter()
        self._has_begun = False
        self._finished = False
        self.is_done = False
        self.failure: errors.ProxyError | None = None
        self.usage: dict[str, Any] | None = None

    def feed(self, data: bytes) -> bytes:
        """The good frames that `data` completes, joined."""
        good: list[bytes] = []
        try:
            for frame in self._splitter.feed(data):
                self._has_begun = True
                if frame.payload == sse.DONE_PAYLOAD:
                    self.is_done = True
                    good.append(frame.raw)
                    break
                if self._passes(frame):
                    good.append(frame.raw)
        except errors.ProxyError as exc:
            self.failure = exc
        return b"".join(good)

    def end(self) -> bytes:
        """What is still to be sent when the connection has ended; raises if that is a cut."""
        if self.is_done:
            return b""
        last = self._last_frame()
        if self._finished:
            return last if last == sse.DONE else last + sse.DONE
        if not self._has_begun:
            raise errors.UpstreamBadResponse("The provider answered a streaming request with no event stream")
        raise errors.UpstreamDisconnected("The provider's stream ended before the answer was complete")

    def _last_frame(self) -> bytes:
        """A frame whose blank line is missing. Half a frame, though, is a cut."""
        if b"data:" not in self._splitter.pending:
            return b""
        last = self.feed(b"\n\n")
        if self.failure is not None:
            raise errors.UpstreamDisconnected("The provider's stream broke off inside a frame")
        self._finished = self._finished or self.is_done
        return last

    def _passes(self, frame: sse.Frame) -> bool:
        try:
            chunk = wire.loads_exact(frame.payload)
        except ValueError:
            raise errors.UpstreamBadFrame("A frame of the provider's stream is not valid JSON") from None
        if not isinstance(chunk, dict):
            raise errors.UpstreamBadFrame("A frame of the provider's stream is not a JSON object")
        if chunk.get("error") or frame.event == b"error":
            raise failures.error_in_band(chunk)
        if isinstance(usage := chunk.get("usage"), dict):
            self.usage = usage
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            return False  # `{}` and its like break three client libraries, and say nothing
        for choice in choices:
            if isinstance(choice, dict) and choice.get("finish_reason") is not None:
                self._finished = True
        return True


def error_frame(error: errors.ProxyError) -> bytes:
    """The frame that ends a stream which failed after it began. No `[DONE]` follows it."""
    return sse.encode(wire.dumps({"error": error.as_object()}))
