"""A client of chat completions, as the clients in the field are: it believes a body that ends properly."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

from loadtest.failover.wall import closed

QUESTION = "Please write the sixty words that you always write, one after the other, and then stop there."
CONNECT_S = 10.0
GRACE_S = 1.0


@dataclass
class Outcome:
    """The outcome of a call. `error` is None if the client sees a success."""

    text: str = ""
    error: str | None = None
    status: int = 0
    model: str | None = None
    usage: dict[str, Any] | None = None
    seconds: float = 0.0
    first_content_s: float | None = None
    has_hung: bool = False
    route: str = ""


class _Failed(Exception):
    """The call is an error."""


async def send_chat(
    port: int, model: str, *, is_streaming: bool, limit_s: float, question: str = QUESTION
) -> Outcome:
    """One call, which has hung if nothing has come of it a second after `limit_s`."""
    outcome = Outcome()
    began = time.monotonic()
    try:
        async with asyncio.timeout(limit_s + GRACE_S):
            await _Call(outcome, port, limit_s).run(model, question, is_streaming=is_streaming)
    except TimeoutError:
        outcome.has_hung = True
        outcome.error = "hung"
    except (_Failed, OSError, asyncio.IncompleteReadError, ValueError) as exc:
        outcome.error = str(exc) or type(exc).__name__
    outcome.seconds = round(time.monotonic() - began, 3)
    return outcome


class _Call:
    def __init__(self, outcome: Outcome, port: int, limit_s: float) -> None:
        self._outcome = outcome
        self._port = port
        self._limit_s = limit_s
        self._began = time.monotonic()

    async def run(self, model: str, question: str, *, is_streaming: bool) -> None:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": question}]}
            if is_streaming:
                body |= {"stream": True, "stream_options": {"include_usage": True}}
            data = json.dumps(body).encode()
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer none\r\n"
                b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(data), data)
            )
            await self._read(reader)
        finally:
            await closed(writer)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        outcome = self._outcome
        outcome.status = int(status.split()[1])
        outcome.route = headers.get("x-sanic-proxy-route", "")
        is_chunked = headers.get("transfer-encoding") == "chunked"
        if "text/event-stream" in headers.get("content-type", "") and outcome.status == 200:
            await self._read_events(reader)
            return
        if is_chunked:
            data = b""
            while piece := await _chunk(reader):
                data += piece
        else:
            data = await reader.readexactly(int(headers["content-length"]))
        parsed = json.loads(data)
        if outcome.status != 200 or "error" in parsed:
            raise _Failed(f"{outcome.status} {(parsed.get('error') or {}).get('code')}")
        outcome.text = parsed["choices"][0]["message"]["content"]
        outcome.model, outcome.usage = parsed.get("model"), parsed.get("usage")

    async def _read_events(self, reader: asyncio.StreamReader) -> None:
        left = b""
        while piece := await _chunk(reader):
            *lines, left = (left + piece).split(b"\n")
            for line in lines:
                if line.startswith(b"data:") and self._is_last(line[5:].strip()):
                    return

    def _is_last(self, payload: bytes) -> bool:
        if payload == b"[DONE]":
            return True
        try:
            chunk = json.loads(payload)
        except ValueError:
            return False
        if "error" in chunk:
            raise _Failed(f"error event: {chunk['error'].get('code')}")
        outcome = self._outcome
        outcome.model = chunk.get("model", outcome.model)
        outcome.usage = chunk.get("usage") or outcome.usage
        for choice in chunk.get("choices") or ():
            if text := (choice.get("delta") or {}).get("content"):
                outcome.text += text
                if outcome.first_content_s is None:
                    outcome.first_content_s = round(time.monotonic() - self._began, 6)
        return False


async def _chunk(reader: asyncio.StreamReader) -> bytes:
    """The next piece of a chunked body; empty at its proper end."""
    size = int((await reader.readline()).split(b";")[0] or b"x", 16)
    return (await reader.readexactly(size + 2))[:size]
