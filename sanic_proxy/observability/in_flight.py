"""What one worker has in flight, and how much that may be. Does no I/O.

A request counts from its head to the end of its answer. Its body counts by the bytes that have arrived: an
announced length is only a promise, and a client that announces 32 MiB and sends one byte would otherwise keep
others out. A request whose body does not fit any more gets a 503, even halfway through, and its bytes are
released.

The counts outlive the settings: after a reload the same requests go on, and they still count.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Protocol

from sanic_proxy.config.model import Capacity
from sanic_proxy.errors import Overloaded, ProxyError

logger = logging.getLogger(__name__)

TLS_REPORT_INTERVAL_S = 60.0
# A repeat may find another worker; the OpenAI SDKs wait a little longer each time.
RETRY_AFTER_S = 1
READ_TURN_S = 0.004


class UnderWay(Protocol):
    """A request, as far as this module needs it. `held_bytes` are those of its body that count."""

    held_bytes: int

    def end_connection(self) -> None: ...

    def cut(self, error: ProxyError) -> None: ...


class Reader:
    """What can stop and resume reading from a client."""

    __slots__ = ()

    def pause(self) -> None:
        raise NotImplementedError

    def resume(self) -> None:
        raise NotImplementedError


class ReadBudget:
    """Bounds the time that one turn of the event loop spends on received bytes, all connections together.

    A loop reads from every connection that has data, and as long as each has some: twenty clients that send
    large bodies on a fast network fill one turn with hundreds of reads, and everybody else waits for all of
    them. Once `READ_TURN_S` are spent, each connection that comes to its turn with a
    large read is paused until the next one.
    """

    __slots__ = ("_is_scheduled", "_paused", "_spent_s")

    def __init__(self) -> None:
        self._spent_s = 0.0
        self._is_scheduled = False
        self._paused: list[Reader] = []

    def spend(self, loop: asyncio.AbstractEventLoop, seconds: float, reader: Reader) -> None:
        """Count `seconds` that a read of `reader` took; pause it if the turn's budget is exhausted."""
        self._spent_s += seconds
        if not self._is_scheduled:
            self._is_scheduled = True
            loop.call_soon(self._begin_turn)
        if self._spent_s >= READ_TURN_S:
            self._paused.append(reader)
            reader.pause()

    def _begin_turn(self) -> None:
        self._spent_s = 0.0
        self._is_scheduled = False
        paused, self._paused = self._paused, []
        for reader in paused:
            reader.resume()


class TlsReports:
    """Logs TLS handshakes on the plain port: a line for the first, then at most one per minute."""

    __slots__ = ("_logged_at", "_unlogged")

    def __init__(self) -> None:
        self._logged_at = -math.inf
        self._unlogged = 0

    def report(self, peer: object, now: float) -> None:
        """Count a handshake from the address `peer` at `now` (monotonic seconds)."""
        if now < self._logged_at + TLS_REPORT_INTERVAL_S:
            self._unlogged += 1
            return
        more = f" ({self._unlogged} more since the last report)" if self._unlogged else ""
        self._logged_at, self._unlogged = now, 0
        logger.warning(
            "TLS handshake from %s on the plain HTTP port%s: this port does not speak TLS, use http:// or "
            "put a TLS proxy in front",
            peer,
            more,
        )


class ClientConnection:
    """A client's connection, as far as this module needs it."""

    __slots__ = ()

    def read_config(self) -> None:
        """Apply settings that have changed."""
        raise NotImplementedError

    def abort(self) -> None:
        """Close the connection at once."""
        raise NotImplementedError


class Traffic:
    """The requests in flight, and whether more should come. `connections` are those of all its ports.

    `parsing` is held by the one large body that is being parsed, `lingering` counts the connections that only
    wait for their client to read an early answer.
    """

    __slots__ = (
        "_emptied",
        "body_bytes",
        "connections",
        "is_draining",
        "lingering",
        "max_body_bytes",
        "max_requests",
        "parsing",
        "reading",
        "requests",
        "tls_handshakes",
    )

    def __init__(self) -> None:
        self.max_requests = self.max_body_bytes = math.inf
        self.body_bytes = 0
        self.connections: set[ClientConnection] = set()
        self.requests: set[UnderWay] = set()
        self.is_draining = False
        self.lingering = 0
        self.parsing = asyncio.Lock()
        self.reading = ReadBudget()
        self.tls_handshakes = TlsReports()
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
        """Count `size_bytes` for the body of `request`, in place of those before. Raises Overloaded."""
        total_bytes = self.body_bytes - request.held_bytes + size_bytes
        if total_bytes > self.max_body_bytes and size_bytes > request.held_bytes:
            raise overloaded()
        self.body_bytes = total_bytes
        request.held_bytes = size_bytes

    def drain(self) -> None:
        """From now on each answer is its connection's last, those in flight included."""
        self.is_draining = True
        for request in self.requests:
            request.end_connection()

    def cut(self, error: ProxyError) -> None:
        """End the requests in flight with `error`."""
        for request in list(self.requests):
            request.cut(error)

    def abort(self) -> None:
        """Break off all connections, also those whose client has yet to take the end of an answer."""
        for connection in list(self.connections):
            connection.abort()

    async def emptied(self) -> None:
        """Wait until no request is in flight."""
        if self.requests:
            self._emptied = asyncio.Event()
            await self._emptied.wait()


def overloaded() -> Overloaded:
    """The refusal of what would be too much."""
    return Overloaded(f"The proxy is at capacity; retry in {RETRY_AFTER_S} s", retry_after_s=RETRY_AFTER_S)
