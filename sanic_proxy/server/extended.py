"""What a connection does in addition if the application has registered `http.*` signals or middlewares.

`ProxyHttp` sends no signals, and the head of a streamed answer leaves it without an await: a timer or a
provider's connection may be what sends it. A response middleware may have to be awaited. So the head waits
for a task that runs the middlewares, and what follows it waits behind it. To the code that sends the stream
this looks as if everything had been sent.

The application decides which of the two classes its connections get when it is finalised.
"""

from __future__ import annotations

import asyncio
from typing import Any

from typing_extensions import override

from sanic_proxy.server.connection import ProxyHttp
from sanic_proxy.server.request import ProxyRequest

# While a middleware runs, a provider is held back from this many bytes on, as for a slow client.
MAX_HELD_BYTES = 64 * 1024

_SEND = "http.lifecycle.send"
_READ_BODY = "http.lifecycle.read_body"
_READ_HEAD = "http.lifecycle.read_head"
_REQUEST = "http.lifecycle.request"


class ExtendedHttp(ProxyHttp):
    """A connection that runs response middlewares on streamed answers and dispatches `http.*` signals."""

    __slots__ = ("_held", "_held_bytes", "_opening", "_sending", "_signals")

    def __init__(self, protocol: Any) -> None:
        self._held: list[bytes] | None = None
        self._held_bytes = 0
        self._opening: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Task[Any]] = set()
        self._signals: frozenset[str] = protocol.app.http_signals
        super().__init__(protocol)

    async def _signal(self, name: str, **context: Any) -> None:
        if name in self._signals:
            await self.dispatch(name, inline=True, context=context)

    @override
    async def http1(self) -> None:
        try:
            await super().http1()
        finally:
            if self._opening is not None:  # its request has been cancelled
                self._opening.cancel()

    async def announce(self, request: ProxyRequest) -> None:
        """Dispatch the signals of a request that has been read."""
        await self._signal(_READ_HEAD, head=request.head)
        await self._signal(_REQUEST, request=request)

    @override
    async def read(self) -> bytes | None:
        data = await super().read()
        if data:
            await self._signal(_READ_BODY, body=data)
        return data

    @override
    async def receive_all(self) -> None:
        await super().receive_all()
        if _READ_BODY in self._signals:
            await self._signal(_READ_BODY, body=b"".join(self.request.pieces))

    @override
    def begin(self, data: bytes, size_bytes: int | None = None) -> None:
        request: ProxyRequest = self.request
        route = request.route
        middlewares = (
            route.extra.response_middleware if route is not None else ()
        ) or request.app.response_middleware
        if not middlewares:
            super().begin(data, size_bytes)
            return
        self._held, self._held_bytes = [], 0
        self._is_in_parts = self._is_in_parts and size_bytes is None
        self.response_func = self.http1_response_chunked
        self._opening = self.loop.create_task(self._open(data, size_bytes, middlewares))

    async def _open(self, data: bytes, size_bytes: int | None, middlewares: Any) -> None:
        """Run the response middlewares, send the head, and what has been held back behind it."""
        request: ProxyRequest = self.request
        await request.change_streamed(middlewares)
        held, self._held = self._held or [], None
        stage, send = self.stage, self.response_func
        super().begin(data, size_bytes)
        for part in held:
            self._push(part)
        if send is None:  # the stream has ended meanwhile
            self.stage, self.response_func = stage, send
        elif self._held_bytes >= MAX_HELD_BYTES and self.is_writable and self.on_writable is not None:
            self.on_writable()

    async def opened(self) -> None:
        """Wait for the head of a streamed answer to be sent, if it is held back."""
        if self._opening is not None:
            opening, self._opening = self._opening, None
            await opening

    @override
    def _push(self, data: bytes) -> bool:
        if self._held is not None:
            self._held.append(data)
            self._held_bytes += len(data)
            return self._held_bytes < MAX_HELD_BYTES
        if _SEND in self._signals:
            sending = self.loop.create_task(self.dispatch(_SEND, inline=True, context={"data": data}))
            self._sending.add(sending)
            sending.add_done_callback(self._sent)
        return super()._push(data)

    def _sent(self, task: asyncio.Task[Any]) -> None:
        self._sending.discard(task)
        if not task.cancelled():
            task.exception()  # Sanic has reported it
