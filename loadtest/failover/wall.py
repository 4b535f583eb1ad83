"""The faulty provider: an HTTP/1.1 server of chat completions whose fault is picked by the model's name.

`fb-s05-anything` has the fault `s05` of the table `FAULTS`; `fb-ok` and `fb-ok-noprefill` have none. The
server counts the attempts for each model and logs every request. All sizes are in words: the answer is
always the same sixty.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

ANSWER = " ".join(f"word{number:02}" for number in range(60))
WORDS = ANSWER.split()
DONE = b"data: [DONE]\n\n"
NO_PREFILL = "fb-ok-noprefill"
HEALTHY = frozenset({"fb-ok", NO_PREFILL})


@dataclass(frozen=True)
class Times:
    """How long the faults last, in seconds."""

    retry_after: int = 2
    first_token: float = 20
    stall: float = 30
    no_response: float = 120
    outage: float = 60
    word: float = 0.015


FULL = Times()
FAST = Times(first_token=3, stall=4, no_response=15, outage=6, word=0.005)


@dataclass(frozen=True)
class Fault:
    """What is wrong. Waits are names of `Times`; word counts are the word after which it happens."""

    attempts: int | None = None  # only the first so many have the fault; None: all of them
    during: str = ""  # only for so long after a reset
    status: int = 200
    type: str = "server_error"
    code: str | None = None
    param: str | None = None
    message: str = "The server had an error while processing your request"
    retry_after: bool = False
    is_reset: bool = False
    no_response: str = ""
    before_first: str = ""
    cut_after: int | None = None
    stall: str = ""  # before the cut
    malformed_at: int | None = None
    has_done: bool = True


_CONTEXT = (
    "This model's maximum context length is 4096 tokens. However, your messages resulted in 9001 tokens."
)
_CUT = Fault(cut_after=40)
_DOWN = Fault(status=503, code="overloaded", message="The engine is currently overloaded")
_LIMITED = Fault(
    status=429, type="rate_limit_error", code="rate_limit_exceeded", message="Rate limit reached"
)

FAULTS: Mapping[str, Fault] = {
    "s01": replace(_LIMITED, attempts=1, retry_after=True),
    "s02": _LIMITED,
    "s03": Fault(attempts=1, status=500),
    "s04": _DOWN,
    "s05": Fault(attempts=1, is_reset=True),
    "s06": Fault(no_response="no_response"),
    "s07": Fault(before_first="first_token"),
    "s08": _CUT,
    "s09": Fault(cut_after=20, stall="stall"),
    "s10": Fault(malformed_at=10),
    "s11": Fault(has_done=False),
    "s12": Fault(
        status=400,
        type="invalid_request_error",
        code="context_length_exceeded",
        param="messages",
        message=_CONTEXT,
    ),
    "s13": Fault(
        status=400,
        type="invalid_request_error",
        code="content_policy_violation",
        message="Your request was rejected by the safety system",
    ),
    "s14": _CUT,
    "s15": replace(_DOWN, during="outage"),
    "s16": _DOWN,
}


@dataclass
class Entry:
    """One request as it was answered; times are seconds since the reset."""

    at: float
    model: str
    attempt: int
    is_streaming: bool
    last_role: str
    prompt_words: int
    outcome: str = ""
    left_at: float | None = None


class _Cut(Exception):
    """The connection has to be closed here."""


@dataclass
class Wall:
    """The server. `reset` forgets all attempts before a scenario."""

    times: Times
    port: int = 0
    log: list[Entry] = field(default_factory=list)
    _attempts: Counter[str] = field(default_factory=Counter)
    _began: float = 0.0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Wall:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.reset()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reset(self) -> None:
        self.log.clear()
        self._attempts.clear()
        self._began = time.monotonic()

    def entries(self, model: str) -> list[Entry]:
        return [entry for entry in self.log if entry.model == model]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, _Cut):
                while (request := await _read(reader)) is not None:
                    await _Answering(self, request, reader, writer).run()
        finally:
            await closed(writer)

    def entry(self, request: Mapping[str, Any]) -> Entry:
        model = str(request.get("model")).rpartition("/")[2].lower()
        self._attempts[model] += 1
        messages = request.get("messages") or [{}]
        entry = Entry(
            round(self.now(), 4),
            model,
            self._attempts[model],
            request.get("stream") is True,
            str(messages[-1].get("role")),
            sum(len(str(message.get("content")).split()) + 4 for message in messages),
        )
        self.log.append(entry)
        return entry

    def now(self) -> float:
        return time.monotonic() - self._began

    def fault(self, entry: Entry) -> Fault | None:
        """The fault of an attempt; None for a model that does not exist."""
        if entry.model in HEALTHY:
            return Fault()
        prefix, _, word = entry.model.partition("-")
        fault = FAULTS.get(word.partition("-")[0]) if prefix == "fb" else None
        if fault is None:
            return None
        is_over = fault.attempts is not None and entry.attempt > fault.attempts
        if fault.during:
            is_over = self.now() > self.seconds(fault.during)
        return Fault() if is_over else fault

    def seconds(self, name: str) -> float:
        return float(getattr(self.times, name)) if name else 0.0


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and wait until it is."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def _read(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    lines = head.decode("latin-1").lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    body = b""
    if "chunked" in headers.get("transfer-encoding", ""):
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    parsed = json.loads(body or b"{}")
    return parsed if isinstance(parsed, dict) else {}


class _Answering:
    """One answer that is being sent."""

    def __init__(
        self,
        wall: Wall,
        request: Mapping[str, Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._wall = wall
        self._request = request
        self._reader = reader
        self._writer = writer
        self._entry = wall.entry(request)

    async def run(self) -> None:
        entry = self._entry
        fault = self._wall.fault(entry)
        prefilled = self._prefill()
        if fault is None:
            await self._error(Fault(status=404, code="model_not_found", message="No such model"))
        elif prefilled is None:
            refusal = Fault(status=400, code="invalid_prefill", param="messages", message="No prefill")
            await self._error(refusal)
        elif fault.is_reset:
            entry.outcome = "reset"
            raw: socket.socket = self._writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
            raise _Cut
        elif fault.no_response:
            await self._silence(fault.no_response)
            raise _Cut
        elif fault.status != 200:
            await self._error(fault)
        elif entry.is_streaming:
            await self._stream(fault, prefilled)
        else:
            await self._whole(fault, prefilled)

    def _prefill(self) -> int | None:
        """How many words the client has sent as the beginning of the answer; None where that is refused."""
        if self._entry.last_role != "assistant":
            return 0
        if self._entry.model == NO_PREFILL:
            return None
        begun = str(self._request["messages"][-1].get("content")).strip()
        return len(begun.split()) if ANSWER.startswith(begun) else 0

    async def _silence(self, name: str) -> None:
        """Send nothing for so long, or until the client leaves."""
        self._entry.outcome = self._entry.outcome or "silence"
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(self._wall.seconds(name)):
                await self._reader.read()
            self._entry.left_at = self._wall.now()
            raise _Cut

    async def _send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def _head(self, status: int, *lines: str) -> None:
        await self._send("\r\n".join([f"HTTP/1.1 {status} Wall", *lines, "", ""]).encode())

    async def _json(self, status: int, value: object, *lines: str) -> None:
        body = json.dumps(value).encode()
        await self._head(status, "content-type: application/json", f"content-length: {len(body)}", *lines)
        await self._send(body)

    async def _error(self, fault: Fault) -> None:
        self._entry.outcome = f"{fault.status}"
        error = {"message": fault.message, "type": fault.type, "param": fault.param, "code": fault.code}
        wait = [f"retry-after: {self._wall.times.retry_after}"] if fault.retry_after else []
        await self._json(fault.status, {"error": error}, *wait)

    def _usage(self, words: int) -> dict[str, int]:
        prompt = self._entry.prompt_words
        return {"prompt_tokens": prompt, "completion_tokens": words, "total_tokens": prompt + words}

    def _object(self, kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        model = self._request.get("model")
        return {
            "id": "chatcmpl-wall",
            "object": kind,
            "created": 1,
            "model": model,
            "choices": choices,
            **more,
        }

    async def _whole(self, fault: Fault, prefilled: int) -> None:
        words = WORDS[prefilled:]
        message = {"role": "assistant", "content": " ".join(words)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = self._usage(len(words))
        body = json.dumps(self._object("chat.completion", [choice], usage=usage)).encode()
        if fault.malformed_at is not None:
            body = body[: len(body) // 2]
        await self._head(200, "content-type: application/json", f"content-length: {len(body)}")
        if fault.before_first:
            await self._silence(fault.before_first)
        if fault.cut_after is not None:
            self._entry.outcome = "cut"
            if fault.stall:
                await self._silence(fault.stall)
            else:
                await self._send(body[: len(body) * 6 // 10])
            raise _Cut
        await self._send(body)
        self._entry.outcome = "malformed" if fault.malformed_at is not None else "answer"

    async def _stream(self, fault: Fault, prefilled: int) -> None:
        await self._head(200, "content-type: text/event-stream", "transfer-encoding: chunked")
        if fault.before_first:
            await self._silence(fault.before_first)
        await self._chunk({"role": "assistant", "content": ""})
        for number, word in enumerate(WORDS[prefilled:]):
            if number == fault.cut_after:
                self._entry.outcome = "cut"
                if fault.stall:
                    await self._silence(fault.stall)
                raise _Cut
            if number == fault.malformed_at:
                await self._frame(b'data: {"choices": [{"index": 0, "delta": {"content": \n\n')
            await self._chunk({"content": f" {word}" if number or prefilled else word})
            await asyncio.sleep(self._wall.times.word)
        await self._chunk({}, "stop")
        if (self._request.get("stream_options") or {}).get("include_usage"):
            usage = self._usage(len(WORDS) - prefilled)
            await self._event(self._object("chat.completion.chunk", [], usage=usage))
        if fault.has_done:
            await self._frame(DONE)
        await self._send(b"0\r\n\r\n")
        self._entry.outcome = "malformed" if fault.malformed_at is not None else "answer"

    async def _chunk(self, delta: Mapping[str, Any], finish: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        await self._event(self._object("chat.completion.chunk", [choice]))

    async def _event(self, value: object) -> None:
        await self._frame(b"data: " + json.dumps(value).encode() + b"\n\n")

    async def _frame(self, data: bytes) -> None:
        await self._send(b"%x\r\n%b\r\n" % (len(data), data))
