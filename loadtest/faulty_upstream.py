"""An OpenAI-compatible upstream whose faults are asked for by the model's name (see `faults`).

    python -m loadtest.faulty_upstream --port 9000
    curl localhost:9000/v1/chat/completions -d '{"model": "good;cut=200;by=rst", "stream": true}'

Each request says what is done with it, so one server does for all faults at once. When it is stopped it
prints what it did.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import signal
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from loadtest.faults import GOOD, Fault, error_body, parse, pieces, sized

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_MODEL = re.compile(rb'"model"\s*:\s*"((?:[^"\\]|\\.)*)"|name="model"\r\n\r\n([^\r]*)')
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_PEEK_BYTES = 64 * 1024
BACKLOG = 4096

_MODELS = json.dumps({"object": "list", "data": [{"id": "good", "object": "model", "created": 0}]}).encode()
_VECTORS = json.dumps(
    {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.25]}],
        "model": "good",
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    }
).encode()
# What is not a chat gets its good answer whole; faults of bytes are done to it all the same.
_ANSWERS = ((b"/models", _MODELS), (b"/embeddings", _VECTORS), (b"/transcriptions", b'{"text":"heard"}'))


@dataclass
class Request:
    """One request, as far as it decides the answer."""

    path: bytes
    model: str
    is_streaming: bool
    left_bytes: int  # of its body, not yet read
    number: int  # on its connection, from 1


@dataclass
class FaultyUpstream:
    """What was asked of it and what became of its connections; see the module."""

    asked: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    open_connections: int = 0
    half_closed: int = 0  # ended by us, and not by the proxy yet
    left: int = 0  # requests whose proxy went before the end of the answer
    left_at: dict[str, float] = field(default_factory=dict)  # by tag; monotonic seconds
    _shares: dict[str, float] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def listening(self, port: int = 0, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
        """Serve on loopback; gives the port."""
        server = await asyncio.start_server(
            self._serve, "127.0.0.1", port, ssl=context, limit=2**26, backlog=BACKLOG
        )
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open_connections += 1
        number = 0
        try:
            while (request := await _read(reader, number + 1)) is not None:
                number = request.number
                if not await self._answer(request, reader, writer):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            self.open_connections -= 1
            writer.close()

    async def _answer(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Whether the connection goes on."""
        fault = self._fault_of(request.model)
        if fault is None:
            writer.write(sized(error_body(code="model_not_found"), status=404)[0])
            return await _rest(request, reader)
        if fault.play != "early":
            await _rest(request, reader)
        if fault.play == "stale" and request.number > 1:
            return False
        try:
            await self._send(request, fault, writer)
        except ConnectionError:
            self.left += 1
            return False
        return await self._after(fault, reader, writer)

    def _fault_of(self, name: str) -> Fault | None:
        try:
            fault = parse(name)
        except ValueError:
            return None
        self.asked[name] += 1
        if fault.first and self.asked[name] > fault.first:
            return GOOD
        before = self._shares.get(name, 0.0)
        self._shares[name] = before + fault.rate
        return fault if int(before + fault.rate + 1e-9) > int(before + 1e-9) else GOOD

    async def _send(self, request: Request, fault: Fault, writer: asyncio.StreamWriter) -> None:
        if fault.wait:
            await asyncio.sleep(fault.wait)
        for piece in _pieces(request, fault):
            writer.write(piece)
            await writer.drain()
            if fault.pause:
                await asyncio.sleep(fault.pause)

    async def _after(self, fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """What becomes of the connection: whether it goes on."""
        if fault.hush >= 0:
            await _gone(reader)
            self.left += 1
            self.left_at[fault.tag] = time.monotonic()
            return False
        if fault.cut < 0 and fault.play != "early":
            return fault.play not in {"until-close", "no-http", "http2", "switching"}
        if fault.by == "rst":
            _reset(writer)
            return False
        # The other direction stays open: whoever still uses this connection would be seen.
        writer.write_eof()
        self.half_closed += 1
        if fault.play == "early":
            await reader.read()  # what is left of the request: without, the answer would be lost to a reset
        elif not await _gone(reader):
            self.asked["(on a closed connection)"] += 1
        self.half_closed -= 1
        return False


def _pieces(request: Request, fault: Fault) -> list[bytes]:
    for suffix, body in _ANSWERS:
        if request.path.endswith(suffix) and fault.play == "good":
            wire = sized(body)[0]
            return [wire if fault.cut < 0 else wire[: fault.cut]]
    return pieces(fault, is_streaming=request.is_streaming)


async def _read(reader: asyncio.StreamReader, number: int) -> Request | None:
    """The next request's head, and of its body what is needed to know the model."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    path = head.split(b" ", 2)[1].partition(b"?")[0]
    body, left = await _peeked(head, reader)
    model = _MODEL.search(body)
    name = "good" if model is None else (model[1] or model[2] or b"").decode()
    return Request(path, name, _STREAM.search(body) is not None, left, number)


async def _peeked(head: bytes, reader: asyncio.StreamReader) -> tuple[bytes, int]:
    """The beginning of a body, and how much of it is left to read."""
    if _CHUNKED.search(head):
        return await reader.readuntil(b"0\r\n\r\n"), 0
    length = _LENGTH.search(head)
    left = int(length[1]) if length else 0
    body = await reader.readexactly(min(left, _PEEK_BYTES))
    return body, left - len(body)


async def _rest(request: Request, reader: asyncio.StreamReader) -> bool:
    """Read what is left of the body."""
    while request.left_bytes > 0:
        piece = await reader.read(min(1 << 20, request.left_bytes))
        if not piece:
            raise ConnectionResetError
        request.left_bytes -= len(piece)
    return True


async def _gone(reader: asyncio.StreamReader) -> bool:
    """Wait until the proxy closes; False if it sends something instead."""
    try:
        return not await reader.read(1)
    except ConnectionError:
        return True


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def serve(port: int) -> None:
    """Listen until SIGINT or SIGTERM."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    upstream = FaultyUpstream()
    async with upstream.listening(port) as chosen:
        print(f"listening on http://127.0.0.1:{chosen}", flush=True)
        await stopping.wait()
    print(f"connections={upstream.connections} left={upstream.left} {dict(upstream.asked)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="An upstream whose faults are asked for by the model's name."
    )
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
