"""Constant answers from a stock Sanic app: the cost of the framework itself.

Whole answers are the bytes of the file that BENCH_ANSWER names. `/frames/COUNT/INTERVAL_MS` streams COUNT
equal frames with `await response.send(frame)`, as Sanic documents it, and sleeps after each one.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from sanic import HTTPResponse, Request, Sanic
from sanic.config import Config

app: Sanic[Config, Any] = Sanic("constant")
app.config.AUTO_EXTEND = False
app.config.ACCESS_LOG = False
_ANSWER = Path(os.environ["BENCH_ANSWER"]).read_bytes()
_FRAME = b"data: " + b'{"choices":[]}'.ljust(252) + b"\n\n"


@app.post("/v1/chat/completions")
async def answer(_: Request) -> HTTPResponse:
    return HTTPResponse(_ANSWER, content_type="application/json")


@app.post("/frames/<count:int>/<interval_ms:int>")
async def frames(request: Request, count: int, interval_ms: int) -> None:
    response = await request.respond(content_type="text/event-stream")
    for _ in range(count):
        await response.send(_FRAME)
        if interval_ms:
            await asyncio.sleep(interval_ms / 1000)
    await response.eof()
