"""An empty Sanic app with sanic-ext: what the least of them needs to start."""

from __future__ import annotations

from typing import Any

from sanic import HTTPResponse, Request, Sanic
from sanic.config import Config
from sanic_ext import Extend

app: Sanic[Config, Any] = Sanic("empty")
app.config.ACCESS_LOG = False
Extend(app)


@app.get("/health")
async def health(_: Request) -> HTTPResponse:
    return HTTPResponse(b"{}", content_type="application/json")
