"""What one worker has under way: the requests between their first and their last byte. Does no I/O.

It outlives the settings: after a reload the same requests go on, and they still count.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from sanic_proxy.errors import ProxyError


class UnderWay(Protocol):
    """A request, as far as this module needs it."""

    def end_connection(self) -> None: ...

    def cut(self, error: ProxyError) -> None: ...

    def abort(self) -> None: ...


class Connection(Protocol):
    """A client's connection, as far as this module needs it."""

    def read_config(self) -> None: ...


class Traffic:
    """The requests under way, and whether more should come. `connections` is the server's own set."""

    __slots__ = ("_emptied", "connections", "is_draining", "requests")

    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self.requests: set[UnderWay] = set()
        self.is_draining = False
        self._emptied: asyncio.Event | None = None

    def begin(self, request: UnderWay) -> None:
        """Count `request` until its `end`."""
        self.requests.add(request)
        if self.is_draining:
            request.end_connection()

    def end(self, request: UnderWay) -> None:
        """Count `request` no more."""
        self.requests.discard(request)
        if self._emptied is not None and not self.requests:
            self._emptied.set()

    def drain(self) -> None:
        """From now on each answer is its connection's last, those under way included."""
        self.is_draining = True
        for request in self.requests:
            request.end_connection()

    def cut(self, error: ProxyError) -> None:
        """End what is under way, and tell its clients `error`."""
        for request in list(self.requests):
            request.cut(error)

    def abort(self) -> None:
        """Break off what is under way."""
        for request in list(self.requests):
            request.abort()

    async def emptied(self) -> None:
        """Wait until nothing is under way."""
        if self.requests:
            self._emptied = asyncio.Event()
            await self._emptied.wait()
