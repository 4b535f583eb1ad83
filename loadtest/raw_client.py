"""A client of many connections at once that takes note of how each of its answers ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Ended:
    """An answer up to its end; `is_clean`: its HTTP framing is complete."""

    status: int
    body: bytes
    is_clean: bool


def chat_request(model: str, request_id: str, *, is_streaming: bool, **fields: Any) -> bytes:
    """A chat over the wire, on a connection that ends with it."""
    body = {"model": model, "stream": is_streaming, "messages": [{"role": "user", "content": "Hi"}], **fields}
    data = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"x-request-id: {request_id}\r\nconnection: close\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


@contextlib.asynccontextmanager
async def sent(port: int, request: bytes) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection on which `request` has gone out."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    try:
        writer.write(request)
        yield reader, writer
    finally:
        writer.close()


async def answer_to(port: int, request: bytes, wait_s: float = 10) -> Ended:
    """Send `request` and read until the connection ends, however it does."""
    async with sent(port, request) as (reader, _):
        received = b""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(wait_s):
                while piece := await reader.read(1 << 16):
                    received += piece
        return ended(received)


def ended(received: bytes) -> Ended:
    """What HTTP makes of the bytes of one answer behind which the connection ended."""
    head, blank, rest = received.partition(b"\r\n\r\n")
    if not blank:
        return Ended(0, b"", False)
    lines = head.lower().split(b"\r\n")
    status = int(lines[0].split(b" ")[1])
    if b"transfer-encoding: chunked" in lines:
        body, is_clean = _unchunked(rest)
        return Ended(status, body, is_clean)
    length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
    return Ended(status, rest, len(rest) == length)


def _unchunked(data: bytes) -> tuple[bytes, bool]:
    body = b""
    while line := data.partition(b"\r\n")[0]:
        size = int(line, 16)
        start = len(line) + 2
        if size == 0:
            return body, data[start:] == b"\r\n"
        if len(data) < start + size + 2:
            break
        body += data[start : start + size]
        data = data[start + size + 2 :]
    return body, False


def reset(writer: asyncio.StreamWriter) -> None:
    """Leave with a RST."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
