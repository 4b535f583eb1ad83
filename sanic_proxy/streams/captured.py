"""A response that captures the frames which it passes on to the client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sanic_proxy.observability.capture import Capture
from sanic_proxy.streams.stream import Sink, StreamResponse


class CapturedSink:
    """See the module; in place of the client's connection."""

    __slots__ = ("_capture", "_sink")

    def __init__(self, sink: Sink, capture: Capture) -> None:
        self._sink = sink
        self._capture = capture

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._sink.loop

    @property
    def on_writable(self) -> Callable[[], None] | None:
        return self._sink.on_writable

    @on_writable.setter
    def on_writable(self, callback: Callable[[], None] | None) -> None:
        self._sink.on_writable = callback

    def push(self, data: bytes) -> bool:
        self._capture.add(data)
        return self._sink.push(data)

    def push_last(self, data: bytes) -> None:
        self._capture.add(data)
        self._sink.push_last(data)


class CapturedResponse:
    """See the module."""

    __slots__ = ("_capture", "_response", "stream")

    def __init__(self, response: StreamResponse, capture: Capture) -> None:
        self._response = response
        self._capture = capture
        self.stream = CapturedSink(response.stream, capture)

    async def send(self, data: bytes, end_stream: bool | None = None) -> None:
        """Send `data`, and wait for a slow client."""
        self._capture.add(data)
        await self._response.send(data, end_stream)
