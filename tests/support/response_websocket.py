"""A client of responses over a websocket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from websockets.legacy.client import WebSocketClientProtocol, connect

from tests.support.proxy import GENEROUS_S, Proxy

TERMINAL = {"response.completed", "response.incomplete", "response.failed", "error"}


class Socket:
    """One connection."""

    def __init__(self, connection: WebSocketClientProtocol) -> None:
        self.connection = connection

    async def send(self, model: str = "groq/g", input_: object = "Hi", **fields: Any) -> None:
        """Ask for a response."""
        event = {"type": "response.create", "model": model, "input": input_, **fields}
        await self.connection.send(json.dumps(event))

    async def events(self) -> list[dict[str, Any]]:
        """The events of the response that is next, up to its last one."""
        found = [await self.event()]
        while found[-1]["type"] not in TERMINAL:
            found.append(await self.event())
        return found

    async def event(self) -> dict[str, Any]:
        """The next event, of any response."""
        text = await asyncio.wait_for(self.connection.recv(), GENEROUS_S)
        assert isinstance(text, str)
        event: dict[str, Any] = json.loads(text)
        return event

    async def create(self, model: str = "groq/g", input_: object = "Hi", **fields: Any) -> dict[str, Any]:
        """Ask for a response and wait for its end: the last event."""
        await self.send(model, input_, **fields)
        return (await self.events())[-1]

    async def closed(self) -> int | None:
        """Wait until the proxy has closed the connection: its code."""
        await asyncio.wait_for(self.connection.wait_closed(), GENEROUS_S)
        return self.connection.close_code


@asynccontextmanager
async def open_socket(
    proxy: Proxy, path: str = "/v1/responses", headers: Mapping[str, str] | None = None
) -> AsyncIterator[Socket]:
    """A connection to `path`."""
    url = f"ws://127.0.0.1:{proxy.port}{path}"
    async with connect(url, extra_headers=dict(headers or {}), max_size=None) as connection:
        yield Socket(connection)
