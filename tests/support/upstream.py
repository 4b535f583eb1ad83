"""A scripted upstream on a free port, strict about what it receives.

Each model name has a script: a coroutine that reads the request it was given and writes bytes, in
any order and with any faults. It runs in a thread of its own, so that tests may
block.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

BACKLOG = 4096
HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "proxy-authorization",
    "cookie",
    "expect",
}


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: int
    number: int = 1  # of the request on its connection

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def is_json(self) -> bool:
        return bool(self.body) and self.header("content-type") == "application/json"


@dataclass
class Exchange:
    """One request and the connection to answer it on."""

    seen: Seen
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    is_closing: bool = False

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(
        self, status: int = 200, *headers: tuple[str, str], kind: str = "application/json"
    ) -> None:
        lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", *(f"{k}: {v}" for k, v in headers)]
        await self.send("\r\n".join([*lines, "", ""]).encode())

    async def answer(
        self,
        body: bytes | object,
        status: int = 200,
        *headers: tuple[str, str],
        kind: str = "application/json",
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        await self.head(status, ("content-length", str(len(data))), *headers, kind=kind)
        await self.send(data)

    async def begin_stream(self, *headers: tuple[str, str]) -> None:
        await self.head(200, ("transfer-encoding", "chunked"), *headers, kind="text/event-stream")

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def end_stream(self) -> None:
        await self.send(b"0\r\n\r\n")

    async def stream(self, pieces: Iterable[bytes], pause_s: float = 0.0) -> None:
        await self.begin_stream()
        for piece in pieces:
            await self.chunk(piece)
            if pause_s:
                await asyncio.sleep(pause_s)
        await self.end_stream()

    def reset(self) -> None:
        """End the connection with a RST."""
        self.is_closing = True
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def close(self) -> None:
        """End the connection with a FIN, even in the middle of an answer."""
        self.is_closing = True
        self.writer.close()

    async def client_leaves(self) -> None:
        """Wait until the proxy closes the connection."""
        try:
            await self.reader.read()
        except ConnectionError:
            return


Script = Callable[[Exchange], Awaitable[None]]


@dataclass
class Upstream:
    """See the module. `requests` has everything that arrived; `left` the models whose client left.

    With `reads_bodies` off every script reads the body of its request itself. With `is_recording` off
    requests are neither kept nor judged, for runs of hours.
    """

    port: int = 0
    reads_bodies: bool = True
    is_recording: bool = True
    requests: list[Seen] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    open_connections: int = 0
    connections: int = 0  # since the start
    _scripts: dict[str, Script] = field(default_factory=dict)
    _unread: set[str] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop | None = None
    _stopping: asyncio.Event | None = None
    _thread: threading.Thread | None = None
    # The event loop keeps only weak references to tasks: one without other references may disappear.
    _serving: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def on(self, model: str, script: Script) -> None:
        """Answer requests for `model` (or for a path, as `GET /models`) with `script`."""
        self._scripts[model] = script

    def on_head(self, path: str, script: Script) -> None:
        """Answer requests for `path` (as `POST /files`) with a script that reads the body itself."""
        self._scripts[path] = script
        self._unread.add(path)

    def forget_scripts(self) -> None:
        self._scripts.clear()
        self._unread.clear()

    def seen(self, model: str) -> list[Seen]:
        return [seen for seen in self.requests if seen.is_json and seen.json.get("model") == model]

    @contextlib.asynccontextmanager
    async def listening(self, port: int = 0, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
        """Serve on loopback, with `context` behind TLS; gives the port."""

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
            # Not in the task: one that is cancelled before its first step runs no `finally`.
            task.add_done_callback(lambda _: writer.close())

        server = await asyncio.start_server(
            accept, "127.0.0.1", port, ssl=context, limit=2**26, backlog=BACKLOG
        )
        try:
            self.port = server.sockets[0].getsockname()[1]
            yield self.port
        finally:
            # asyncio loses a connection that it has accepted but not yet set up when its server is closed:
            # accept no more, and let those come to their tasks.
            for listener in server.sockets:
                asyncio.get_running_loop().remove_reader(listener.fileno())
            await _turns()
            server.close()
            for task in self._serving:
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)
            await _turns()  # in which their sockets are closed

    def start(self, context: ssl.SSLContext | None = None) -> None:
        """Serve in a thread of its own until `stop`."""
        ready = threading.Event()

        async def run() -> None:
            self._loop = asyncio.get_running_loop()
            self._stopping = asyncio.Event()
            async with self.listening(context=context):
                ready.set()
                await self._stopping.wait()

        self._thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
        self._thread.start()
        assert ready.wait(60), "the scripted upstream did not start"

    def stop(self) -> None:
        assert self._loop is not None
        assert self._stopping is not None
        self._loop.call_soon_threadsafe(self._stopping.set)
        assert self._thread is not None
        self._thread.join(60)
        assert not self._thread.is_alive()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open_connections += 1
        connection = self.connections
        number = 0
        try:
            while (seen := await self._read(reader, connection)) is not None:
                seen.number = number = number + 1
                exchange = Exchange(seen, reader, writer)
                await self._script_for(seen)(exchange)
                if exchange.is_closing:
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            self.open_connections -= 1

    async def _read(self, reader: asyncio.StreamReader, connection: int) -> Seen | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        if first.count(" ") != 2:  # the rest of a body that its script did not read
            return None
        method, path, version = first.split(" ")
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        seen = Seen(method, path, headers, b"", connection)
        if self.reads_bodies and f"{method} {path}" not in self._unread:
            seen.body = await read_body(seen, reader)
        if self.is_recording:
            self._judge(seen, version)
            self.requests.append(seen)
        return seen

    def _judge(self, seen: Seen, version: str) -> None:
        names = [name.lower() for name, _ in seen.headers]
        private = [name for name, value in seen.headers if name.lower() in HOP_BY_HOP and value != "close"]
        problems = [f"hop-by-hop or private header {name}" for name in private]
        problems += [f"header {name} twice" for name in set(names) if names.count(name) > 1]
        if version != "HTTP/1.1" or names.count("host") != 1:
            problems.append("not a proper HTTP/1.1 request")
        kind = seen.header("content-type") or ""
        if (
            seen.method == "POST"
            and seen.body
            and not kind.startswith(("application/json", "multipart/form-data; "))
        ):
            problems.append(f"content-type {kind}")
        if "content-length" in names and "transfer-encoding" in names:
            problems.append("two lengths")
        problems += [f"header {name} is the proxy's own" for name in names if name == "x-provider"]
        if seen.header("accept-encoding") != "identity":
            problems.append("requests compression")
        if seen.is_json:
            try:
                json.loads(seen.body)
            except ValueError:
                problems.append("body is not JSON")
        self.problems += [f"{seen.method} {seen.path}: {problem}" for problem in problems]

    def _script_for(self, seen: Seen) -> Script:
        model = seen.json.get("model", "") if seen.is_json else ""
        for name in (model, f"{seen.method} {seen.path}", "*"):
            if name in self._scripts:
                return self._scripts[name]
        return _not_found


async def _turns() -> None:
    """More turns of the loop than asyncio takes to set a connection up, or to close it."""
    for _ in range(10):
        await asyncio.sleep(0)


async def read_body(seen: Seen, reader: asyncio.StreamReader) -> bytes:
    """The whole body of a request of which only the head has been read."""
    if seen.header("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):  # IncompleteReadError if the client leaves
            body += await reader.readexactly(size)
            assert await reader.readexactly(2) == b"\r\n"
        assert await reader.readexactly(2) == b"\r\n"
        return body
    length = seen.header("content-length")
    return await reader.readexactly(int(length)) if length else b""


async def _not_found(exchange: Exchange) -> None:
    error = {
        "message": "no script",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    await exchange.answer({"error": error}, 404)


def completion(text: str | None = "Hello!", **fields: Any) -> dict[str, Any]:
    """A chat completion as OpenAI's specification has it."""
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        "id": "chatcmpl-upstream",
        "object": "chat.completion",
        "created": 1761655357,
        "model": "upstream-model",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
        **fields,
    }


def frame(delta: dict[str, Any] | None = None, finish: str | None = None, **fields: Any) -> bytes:
    """One frame of a chat stream, spaced as some providers space their JSON."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    chunk = {
        "id": "chatcmpl-upstream",
        "object": "chat.completion.chunk",
        "created": 1761655357,
        "model": "upstream-model",
        "choices": [choice],
        **fields,
    }
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def text_stream(*words: str) -> list[bytes]:
    """A whole, proper stream."""
    frames = [frame({"role": "assistant", "content": ""}), *(frame({"content": word}) for word in words)]
    return [*frames, frame(finish="stop"), DONE]


def straico_completion(text: str | None = "Hello!", **fields: Any) -> dict[str, Any]:
    """A completion as Straico sends it."""
    return completion(
        text,
        model="gpt-4o-mini-2024-07-18",
        price={"input": 0.04, "output": 0.01, "total": 0.05},
        words={"input": 5, "output": 1, "total": 6},
        **fields,
    )
