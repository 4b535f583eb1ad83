"""The two ends of a stream: a client that may be slow, and a provider whose bytes come or have to be read."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from typing_extensions import override

from sanic_proxy.upstream.client import Response
from sanic_proxy.upstream.connection import Receiver


class Client:
    """What a stream is sent to: a client that may be slow."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.on_writable: Callable[[], None] | None = None
        self.sent: list[bytes] = []
        self.is_slow = False
        self.has_ended = False
        self.room: asyncio.Future[None] | None = None
        self.stream = self  # the response's connection

    async def send(self, data: bytes, end_stream: bool | None = None) -> None:
        self.sent.append(data)
        if self.is_slow:
            self.room = self.loop.create_future()
            await self.room

    def drain(self) -> None:
        """The client reads again."""
        self.is_slow = False
        if self.on_writable is not None:
            self.on_writable()
        if self.room is not None:
            self.room.set_result(None)

    def push(self, data: bytes) -> bool:
        self.sent.append(data)
        return not self.is_slow

    def push_last(self, data: bytes) -> None:
        self.sent.append(data)
        self.has_ended = True


class Provider(Response):
    """What a relay takes from: bytes that come by themselves, or have to be asked for."""

    stall_s = math.inf

    def __init__(
        self, *pieces: bytes, comes: bool = True, idle_s: float = 5.0, stall_s: float = math.inf
    ) -> None:
        self.stall_s = stall_s
        self.pieces = list(pieces)
        self.comes = comes
        self.idle_s = idle_s
        self.receiver: Receiver | None = None
        self.events: list[str] = []

    @override
    async def read_some(self, wait_s: float | None = None) -> bytes | None:
        await asyncio.sleep(0)
        return self.pieces.pop(0) if self.pieces else b""

    @override
    def attach(self, receiver: Receiver | None) -> bool:
        self.receiver = receiver if self.comes else None
        return self.comes

    @override
    def pause(self) -> None:
        self.events.append("pause")

    @override
    def resume(self) -> None:
        self.events.append("resume")

    @override
    def due_at(self, heard_at: float) -> float:
        return heard_at + self.idle_s
