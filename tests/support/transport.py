"""A transport that records its calls, and an answer to feed a connection with."""

from __future__ import annotations

import asyncio

from typing_extensions import override

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx: y\r\n\r\nhello"


class Recorder(asyncio.Transport):
    """A transport that records its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []
        self.unsent_bytes = 0
        self.closing = False

    @override
    def is_closing(self) -> bool:
        return self.closing

    @override
    def pause_reading(self) -> None:
        self.events.append("pause")

    @override
    def resume_reading(self) -> None:
        self.events.append("resume")

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.events.append("write")

    @override
    def abort(self) -> None:
        self.events.append("abort")

    @override
    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes
