"""A bare Sanic app that answers every POST with the same bytes: what the framework itself costs.

The answer is the file that BENCH_ANSWER names.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sanic import HTTPResponse, Request, Sanic
from sanic.config import Config

app: Sanic[Config, Any] = Sanic("constant")
app.config.AUTO_EXTEND = False
app.config.ACCESS_LOG = False
_ANSWER = Path(os.environ["BENCH_ANSWER"]).read_bytes()


@app.post("/v1/chat/completions")
async def answer(_: Request) -> HTTPResponse:
    return HTTPResponse(_ANSWER, content_type="application/json")
