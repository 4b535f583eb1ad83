"""A provider that bills exactly: it keeps for each request what it has cost, and whether it said so.

The request says what is to happen, in its `metadata`: `fault` is "" (answer), "fail" (an error status, which
costs nothing), "cut" (a stream that breaks off before its usage), "late" (one that breaks off behind it),
"slow" (a stream with pauses) or "silent" (no answer). A model of such a name has the fault itself.
"""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

# Nano-dollars per token; the proxy's settings have the same prices per million tokens.
INPUT_NANO, OUTPUT_NANO = 2_500, 10_000
FAULTS = ("fail", "cut", "late", "slow", "silent")
PRICES = {"input": INPUT_NANO / 1000, "output": OUTPUT_NANO / 1000}


@dataclass
class Billed:
    """One request that the provider has worked on. `is_reported`: its usage has been written to the proxy."""

    request_id: str
    nano: int
    is_reported: bool = False


@dataclass
class Provider:
    """See the module."""

    seed: int = 1
    billed: list[Billed] = field(default_factory=list)
    failed: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._server: asyncio.Server | None = None

    async def start(self, port: int) -> None:
        """Listen on `port` of the loopback interface."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, backlog=1024)

    def stop(self) -> None:
        """Close the listener."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while await self._answer(reader, writer):
                pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request. Whether the connection goes on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", "0"))) or b"{}")
        metadata = body.get("metadata", {})
        fault = body["model"] if body.get("model") in FAULTS else metadata.get("fault", "")
        if fault == "fail" and self._random.random() < 0.7:
            self.failed += 1
            answer = b'{"error": {"message": "overloaded", "type": "server_error"}}'
            writer.write(b"HTTP/1.1 503 Busy\r\ncontent-type: application/json\r\n")
            writer.write(b"content-length: %d\r\n\r\n" % len(answer) + answer)
            await writer.drain()
            return True
        usage = {
            "prompt_tokens": self._random.randrange(1, 100),
            "completion_tokens": self._random.randrange(1, 50),
        }
        nano = usage["prompt_tokens"] * INPUT_NANO + usage["completion_tokens"] * OUTPUT_NANO
        bill = Billed(str(metadata.get("id", "")), nano)
        self.billed.append(bill)
        usage["total_tokens"] = sum(usage.values())
        if fault == "silent":
            await reader.read(1)  # until the proxy gives up
            return False
        if body.get("stream"):
            return await self._stream(writer, bill, usage, fault)
        message = {"role": "assistant", "content": "Hello"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        answer = json.dumps(
            {"id": "c1", "object": "chat.completion", "choices": [choice], "usage": usage}
        ).encode()
        await asyncio.sleep(self._random.choice((0, 0, 0.01)))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
        writer.write(b"content-length: %d\r\n\r\n" % len(answer) + answer)
        bill.is_reported = True
        await writer.drain()
        return True

    async def _stream(
        self, writer: asyncio.StreamWriter, bill: Billed, usage: dict[str, int], fault: str
    ) -> bool:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for number in range(6):
            if number == 4 and fault in {"cut", "late"}:
                if fault == "late":
                    _event(writer, {"choices": [], "usage": usage})
                    bill.is_reported = True
                    await writer.drain()
                return False
            _event(writer, {"choices": [{"index": 0, "delta": {"content": f"word{number} "}}]})
            await writer.drain()
            if fault == "slow":
                await asyncio.sleep(0.05)
        _event(writer, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        _event(writer, {"choices": [], "usage": usage})
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        bill.is_reported = True
        await writer.drain()
        return True


def _event(writer: asyncio.StreamWriter, fields: dict[str, Any]) -> None:
    event = (
        b"data: " + json.dumps({"id": "c1", "object": "chat.completion.chunk", **fields}).encode() + b"\n\n"
    )
    writer.write(b"%x\r\n" % len(event) + event + b"\r\n")
