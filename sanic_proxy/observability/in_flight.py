"""What one worker has under way, and how much that may be. Does no I/O.

A request counts from its first byte to its last, its body from the time its length is known.

It outlives the settings: after a reload the same requests go on, and they still count.
"""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

from sanic_proxy.config.model import Capacity
from sanic_proxy.errors import Overloaded, ProxyError

# A repeat may find another worker; the OpenAI SDKs wait a little longer each time.
RETRY_AFTER_S = 1


class UnderWay(Protocol):
    """A request, as far as this module needs it. `held_bytes` are those of its body that count."""

    held_bytes: int

    def end_connection(self) -> None: ...

    def cut(self, error: ProxyError) -> None: ...


class Connection(Protocol):
    """A client's connection, as far as this module needs it."""

    def read_config(self) -> None: ...

    def abort(self) -> None: ...


class Traffic:
    """The requests under way, and whether more should come. `connections` is the server's own set."""

    __slots__ = (
        "_emptied",
        "body_bytes",
        "connections",
        "is_draining",
        "max_body_bytes",
        "max_requests",
        "requests",
    )

    def __init__(self) -> None:
        self.max_requests = self.max_body_bytes = math.inf
        self.body_bytes = 0
        self.connections: set[Connection] = set()
        self.requests: set[UnderWay] = set()
        self.is_draining = False
        self._emptied: asyncio.Event | None = None

    def limit(self, capacity: Capacity) -> None:
        """Take no more than that, from now on."""
        self.max_requests = capacity.concurrent or math.inf
        self.max_body_bytes = capacity.bytes_in_flight or math.inf

    def begin(self, request: UnderWay) -> None:
        """Count `request` until its `end`."""
        self.requests.add(request)
        if self.is_draining:
            request.end_connection()

    def end(self, request: UnderWay) -> None:
        """Count `request` no more."""
        self.requests.discard(request)
        self.body_bytes -= request.held_bytes
        request.held_bytes = 0
        if self._emptied is not None and not self.requests:
            self._emptied.set()

    def hold(self, request: UnderWay, size_bytes: int) -> None:
        """Count `size_bytes` for the body of `request`, in place of what counted. Raises Overloaded."""
        total_bytes = self.body_bytes - request.held_bytes + size_bytes
        if total_bytes > self.max_body_bytes and size_bytes > request.held_bytes:
            raise overloaded()
        self.body_bytes = total_bytes
        request.held_bytes = size_bytes

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
        """Break off all connections, also those whose client has yet to take the end of an answer."""
        for connection in list(self.connections):
            connection.abort()

    async def emptied(self) -> None:
        """Wait until nothing is under way."""
        if self.requests:
            self._emptied = asyncio.Event()
            await self._emptied.wait()


def overloaded() -> Overloaded:
    """The refusal of what would be too much."""
    return Overloaded(
        "The proxy has too many requests under way: please repeat this one", retry_after_s=RETRY_AFTER_S
    )
