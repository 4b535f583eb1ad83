"""Answers on one client's connection: the head in one piece with the first bytes, framed once.

Sanic formats a head header by header. Here the lines of a `Reply` are text already, and an answer that is
there whole is one write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from time import monotonic
from typing import Any

from sanic.exceptions import RequestCancelled
from sanic.http import Stage
from typing_extensions import override

from sanic_proxy.server import compat
from sanic_proxy.server.request import ProxyRequest, Reply, header_lines, parsed_lines

OK = 200
# Larger bodies are not copied behind their head.
MAX_JOINED_BYTES = 32 * 1024

_IDLE, _RESPONSE = Stage.IDLE, Stage.RESPONSE
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}" for status in HTTPStatus}
_BODILESS = frozenset({204, 304})


class ResponseWriter(compat.HttpObject):
    """The half of `ProxyHttp` that writes. `is_writable`: whether the client keeps up."""

    protocol: Any
    __slots__ = ("_is_in_parts", "is_writable", "loop", "on_writable", "sent_at")

    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol)
        self.loop: asyncio.AbstractEventLoop = protocol.loop
        self.on_writable: Callable[[], None] | None = None
        self.is_writable = True
        self.sent_at = monotonic()
        self._is_in_parts = True
        self.request: Any
        self.response: Any
        self.response_func: Any
        self.exception: Any

    @override
    async def http1_response_header(self, data: bytes, end_stream: bool) -> None:
        """Send an answer's head, with its body or the first part of it."""
        response = self.response
        if not data and response.body:
            data, end_stream = response.body, True
        size_bytes = self._announced_bytes(response, end_stream)
        if size_bytes is not None:
            framing = f"content-length: {size_bytes}\r\n"
        else:
            framing = self._framing(response.status, len(data), end_stream)
        head = self._head(response, framing)
        if self.head_only or response.status in _BODILESS:
            data, end_stream = b"", True
        elif size_bytes is not None:
            self.response_bytes_left = size_bytes - len(data)
        elif not end_stream:
            data = self._part(data, end_stream)
        further = self.http1_response_chunked if size_bytes is None else self.http1_response_normal
        self.response_func = None if end_stream else further
        if len(data) <= MAX_JOINED_BYTES:
            await self._write(head + data)
        else:
            await self._write(head)
            await self._write(data)
        self.stage = _IDLE if end_stream else _RESPONSE

    def send_whole(self, response: Reply) -> bool:
        """Make `response` the answer and send it; False, with nothing done, where that may take a wait."""
        data: bytes = response.body or b""
        size_bytes = len(data)
        status = response.status
        if (
            not self.is_writable
            or self.head_only
            or self.response is not None
            or status in _BODILESS
            or size_bytes > MAX_JOINED_BYTES
        ):
            return False
        request: ProxyRequest = self.request
        request.responded = True
        self.response, response.stream = response, self
        if status == OK and self.keep_alive and not (response.has_headers or self.expecting_continue):
            head = (
                f"HTTP/1.1 200 OK\r\n{response.lines}{request.answer_lines}"
                f"content-length: {size_bytes}\r\nconnection: keep-alive\r\n\r\n"
            )
            self._push((head.encode() if head.isascii() else _encoded(head)) + data)
        else:
            self._push(self._head(response, f"content-length: {size_bytes}\r\n") + data)
        self.response_func = None
        self.stage = _IDLE
        record = request.record
        record.status = status
        record.first_byte = self.sent_at
        record.sent_bytes += size_bytes
        return True

    def begin(self, data: bytes, size_bytes: int | None = None) -> None:
        """Send a streamed answer's head and its first part (may be empty), without waiting.

        With `size_bytes`, what all parts will come to, they go out as they are. The answer to a HEAD is over
        after that: nothing may be pushed.
        """
        if size_bytes is None:
            framing = self._framing(self.response.status, 0, end_stream=False)
        else:
            framing = f"content-length: {size_bytes}\r\n"
            self._is_in_parts = False
        head = self._head(self.response, framing)
        if self.head_only:
            self.response_func, self.stage = None, _IDLE
            self._push(head)
            return
        self.response_func = self.http1_response_chunked
        self.stage = _RESPONSE
        self._push(head + self._part(data, end_stream=False))

    def _head(self, response: Any, framing: str) -> bytes:
        if self.expecting_continue or not framing:
            # Whether a body still comes is the client's choice; and one without length ends with the
            # connection.
            self.keep_alive = False
        status = response.status
        more = self.request.answer_lines
        if isinstance(response, Reply) and not response.has_headers:
            lines = response.lines + more
        else:
            lines = _lines_of(response, more)
        return _encoded(
            f"{_STATUS_LINES.get(status) or f'HTTP/1.1 {status} Unknown'}\r\n"
            f"{lines}"
            f"{framing}"
            f"connection: {'keep-alive' if self.keep_alive else 'close'}\r\n\r\n"
        )

    def _announced_bytes(self, response: Any, end_stream: bool) -> int | None:
        """The length that a handler has set for a body that it sends in parts, or leaves out after HEAD."""
        if isinstance(response, Reply) or response.status in _BODILESS or (end_stream and not self.head_only):
            return None
        length = response.headers.get("content-length")
        return None if length is None else int(length)

    def _framing(self, status: int, size_bytes: int, end_stream: bool) -> str:
        if end_stream and status not in _BODILESS:
            return f"content-length: {size_bytes}\r\n"
        is_chunked = status not in _BODILESS and self._is_in_parts
        return "transfer-encoding: chunked\r\n" if is_chunked else ""

    @override
    async def http1_response_chunked(self, data: bytes, end_stream: bool) -> None:
        """Send a further part of an answer without length."""
        await self._write(self._part(data, end_stream))
        if end_stream:
            self.response_func = None
            self.stage = _IDLE

    def _part(self, data: bytes, end_stream: bool) -> bytes:
        """A part of an answer without length, as it goes over the wire."""
        if not self._is_in_parts or self.response.status in _BODILESS:
            return data
        part = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        return part + b"0\r\n\r\n" if end_stream else part

    async def _write(self, data: bytes) -> None:
        protocol = self.protocol
        if not self.is_writable:
            await protocol.writable.wait()
        if protocol.transport is None or protocol.transport.is_closing():
            raise RequestCancelled
        self._push(data)

    def push(self, data: bytes) -> bool:
        """Send a part of a streamed answer that has begun, at once; False while the client is slow."""
        if self._is_in_parts and data and self.response.status == OK:
            return self._push(b"%x\r\n%b\r\n" % (len(data), data))
        return self._push(self._part(data, end_stream=False))

    def push_last(self, data: bytes) -> None:
        """Send the last part of a streamed answer, and its end with it."""
        self.response_func = None
        self.stage = _IDLE
        self._push(self._part(data, end_stream=True))

    def _push(self, data: bytes) -> bool:
        protocol = self.protocol
        transport = protocol.transport
        self.sent_at = protocol.active_at = monotonic()
        if transport is None or transport.is_closing():
            return False  # the handler is about to be cancelled
        transport.write(data)
        return self.is_writable


def _encoded(head: str) -> bytes:
    return head.encode() if head.isascii() else head.encode("utf-8", "surrogateescape")


def _lines_of(response: Any, more: str) -> str:
    """The header lines of any of Sanic's responses, and those of `more` that it does not set itself.

    Length and framing are the connection's.
    """
    headers = response.headers
    if response.content_type is not None:
        headers.setdefault("content-type", response.content_type)
    own = [
        (name, str(value))
        for name, value in headers.items()
        if name.lower() not in {"content-length", "transfer-encoding", "connection"}
    ]
    return header_lines([*own, *(line for line in parsed_lines(more) if line[0] not in headers)])
