"""HTTP/1.1 to the providers: connections, and a pool of those that nobody uses. Knows no meaning.

Strategy: one protocol object per connection, parsed by httptools (llhttp, Node's parser), with no
task, no timer and no stream object per request: a read that has data does not even wait. Limits in
here are those of a well-behaved server; what breaks them is an UpstreamBadResponse.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import urlsplit

import httptools
from typing_extensions import override

from sanic_proxy import errors

if TYPE_CHECKING:
    from sanic_proxy.settings import PoolLimits

MAX_HEAD_BYTES = 32 * 1024
# A reader slower than its provider: past this, the connection is no longer read from.
MAX_BUFFERED_BYTES = 256 * 1024
MAX_INFLATED_BYTES = 16 * 1024 * 1024
DNS_TTL_S = 30.0

_Address = tuple[socket.AddressFamily, str]


class Origin(NamedTuple):
    """Where a connection goes; what tells connections apart."""

    is_tls: bool
    host: str
    port: int


class Target(NamedTuple):
    """A URL as HTTP/1.1 needs it."""

    origin: Origin
    path: bytes
    host_header: bytes


def target_of(url: str) -> Target:
    """Take a URL of the settings apart."""
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    port = parts.port or (443 if is_tls else 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(Origin(is_tls, parts.hostname or "", port), path.encode(), parts.netloc.encode())


def request_bytes(method: str, target: Target, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """A request as it goes over the wire; header values are printable, as their sources checked."""
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    length = b"" if body is None else b"content-length: %d\r\n" % len(body)
    head = b"%b %b HTTP/1.1\r\nhost: %b\r\n%b%b\r\n" % (
        method.encode(),
        target.path,
        target.host_header,
        "".join(lines).encode(),
        length,
    )
    return head + body if body else head


class Connection(asyncio.Protocol):
    """One connection; one exchange at a time."""

    __slots__ = (
        "_failure",
        "_has_length",
        "_head_bytes",
        "_header_bytes",
        "_is_interim",
        "_loop",
        "_parser",
        "_paused",
        "_pieces",
        "_size",
        "_transport",
        "_waiter",
        "headers",
        "is_closed",
        "is_complete",
        "is_reusable",
        "origin",
        "status",
    )  # fmt: skip

    def __init__(self, origin: Origin, loop: asyncio.AbstractEventLoop) -> None:
        self.origin = origin
        self.is_closed = False
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._waiter: asyncio.Future[bool] | None = None
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.is_complete = False
        self.is_reusable = False
        self._pieces: list[bytes] = []
        self._size = 0
        self._head_bytes = 0
        self._header_bytes = 0
        self._has_length = False
        self._is_interim = False
        self._paused = False
        self._failure: errors.UpstreamError | None = None

    @property
    def has_answered(self) -> bool:
        """Whether a byte of an answer has come."""
        return self._head_bytes > 0

    # One exchange

    def send(self, data: bytes) -> None:
        """Begin an exchange."""
        self._reset()
        self._parser = httptools.HttpResponseParser(self)
        if self._transport is not None:
            self._transport.write(data)

    async def head(self, until: float) -> bool:
        """Wait for the status and headers; False if `until` (loop time) comes first."""
        while not self.status:
            if self._failure is not None:
                raise self._failure
            if not await self._wait(until):
                return False
        return True

    async def read(self, until: float) -> bytes | None:
        """The bytes of the body that are here; b"" at its end; None if `until` comes first."""
        while not self._pieces:
            if self._failure is not None:
                raise self._failure
            if self.is_complete:
                return b""
            if not await self._wait(until):
                return None
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def _wait(self, until: float) -> bool:
        waiter = self._waiter = self._loop.create_future()
        timer = self._loop.call_at(until, _resolve, waiter, False)
        try:
            return cast("bool", await waiter)
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None:
            _resolve(self._waiter, True)

    def close(self) -> None:
        """Close at once: what is still to come is not wanted."""
        self.is_closed = True
        if self._transport is not None:
            self._transport.abort()

    # asyncio's protocol

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        if self._parser is None or self.is_complete:
            self.close()  # nobody asked
            return
        if not self.status:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, UnicodeDecodeError):
            self._fail(errors.UpstreamBadResponse("The provider's answer is not valid HTTP"))
        if self._header_bytes > MAX_HEAD_BYTES or (not self.status and self._head_bytes > MAX_HEAD_BYTES):
            self._fail(errors.UpstreamBadResponse("The provider's headers are larger than the proxy accepts"))
        self._wake()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        self.is_reusable = False
        if self._parser is not None and not self.is_complete and self._failure is None:
            if self.status and not self._has_length and exc is None:
                self.is_complete = True  # a body without length ends with its connection
            else:
                said = "answer broke off" if self.status else "connection was closed without an answer"
                self._failure = errors.UpstreamDisconnected(f"The provider's {said}")
        self._wake()

    def _fail(self, failure: errors.UpstreamError) -> None:
        self._failure = failure
        self.close()

    # httptools's callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        key = name.decode("latin-1").lower()
        if key in {"content-length", "transfer-encoding"}:
            self._has_length = True
        self.headers[key] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code() if self._parser is not None else 0
        if 100 <= status < 200 and status != 101:
            self._is_interim = True
            self.headers.clear()
        else:
            self.status = status
            self._has_length = self._has_length or status in {204, 304}

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self._size += len(body)
        if self._size > MAX_BUFFERED_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._is_interim:
            self._is_interim = False
            return
        self.is_complete = True
        self.is_reusable = self._parser is not None and bool(self._parser.should_keep_alive())


def _resolve(waiter: asyncio.Future[bool], value: bool) -> None:
    if not waiter.done():
        waiter.set_result(value)


class Pool:
    """The connections of one worker. Those in use are not counted; the idle ones are limited."""

    def __init__(self, limits: PoolLimits, context: ssl.SSLContext) -> None:
        self._limits = limits
        self._context = context
        self._idle: dict[Origin, deque[tuple[Connection, float]]] = {}
        self._addresses: dict[tuple[str, int], tuple[float, Sequence[_Address]]] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    def idle(self, origin: Origin) -> Connection | None:
        """A connection to `origin` that waits for work: the newest, as it is the likeliest to be alive."""
        waiting = self._idle.get(origin)
        while waiting:
            connection, since = waiting.pop()
            if not connection.is_closed and time.monotonic() - since <= self._limits.idle_timeout_s:
                return connection
            connection.close()
        return None

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose exchange is over, or close it."""
        if connection.is_closed or not connection.is_reusable:
            connection.close()
            return
        waiting = self._idle.setdefault(connection.origin, deque())
        waiting.append((connection, time.monotonic()))
        while len(waiting) > self._limits.idle_per_host:
            waiting.popleft()[0].close()
        if self._sweeper is None and waiting:
            loop = asyncio.get_running_loop()
            self._sweeper = loop.call_later(self._limits.idle_timeout_s, self._sweep)

    def _sweep(self) -> None:
        oldest = time.monotonic() - self._limits.idle_timeout_s
        for waiting in self._idle.values():
            while waiting and (waiting[0][1] <= oldest or waiting[0][0].is_closed):
                waiting.popleft()[0].close()
        self._idle = {origin: waiting for origin, waiting in self._idle.items() if waiting}
        loop = asyncio.get_running_loop()
        wait_s = self._limits.idle_timeout_s / 2
        self._sweeper = loop.call_later(wait_s, self._sweep) if self._idle else None

    def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        for waiting in self._idle.values():
            for connection, _ in waiting:
                connection.close()
        self._idle.clear()

    async def connect(self, origin: Origin, connect_s: float) -> Connection:
        """A new connection. Raises UpstreamTimeout, or UpstreamConnectFailed or one of its kinds."""
        try:
            async with asyncio.timeout(connect_s):
                return await self._connect(origin, connect_s)
        except TimeoutError as exc:
            raise errors.UpstreamTimeout("No connection to the provider within the time allowed") from exc
        except (ssl.SSLError, ssl.CertificateError) as exc:
            text = "The provider's TLS certificate or handshake is not acceptable"
            raise errors.UpstreamTlsFailed(text) from exc
        except OSError as exc:
            raise errors.UpstreamConnectFailed("No connection to the provider could be made") from exc

    async def _connect(self, origin: Origin, connect_s: float) -> Connection:
        loop = asyncio.get_running_loop()
        made = await self._reached(await self._resolved(origin.host, origin.port), origin.port, connect_s)
        _, connection = await loop.create_connection(
            lambda: Connection(origin, loop),
            sock=made,
            ssl=self._context if origin.is_tls else None,
            server_hostname=origin.host if origin.is_tls else None,
        )
        return connection

    async def _reached(self, addresses: Sequence[_Address], port: int, connect_s: float) -> socket.socket:
        """A socket connected to the first address that answers; one that swallows packets gets its share."""
        loop = asyncio.get_running_loop()
        failure: OSError | None = None
        for family, address in addresses:
            made = _socket(family, self._limits.tcp_keepalive_s)
            try:
                async with asyncio.timeout(connect_s / len(addresses)):
                    await loop.sock_connect(made, (address, port))
            except OSError as exc:  # a TimeoutError is one
                made.close()
                failure = exc
            except BaseException:
                made.close()
                raise
            else:
                return made
        raise failure or ConnectionError("no address")

    async def _resolved(self, host: str, port: int) -> Sequence[_Address]:
        known = self._addresses.get((host, port))
        if known is not None and time.monotonic() - known[0] < DNS_TTL_S:
            return known[1]
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as exc:
            raise errors.UpstreamDnsFailed("The provider's host name could not be resolved") from exc
        addresses: list[_Address] = [(entry[0], str(entry[4][0])) for entry in found]
        self._addresses[host, port] = (time.monotonic(), addresses)
        return addresses


def _socket(family: socket.AddressFamily, keepalive_s: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setblocking(False)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, keepalive_s)
    return made


class Inflater:
    """A compressed body -> its content, for providers that compress although identity was asked for."""

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip or zlib, as the data says

    def feed(self, data: bytes) -> bytes:
        """Raises UpstreamBadResponse for what is not compressed, or explodes."""
        try:
            content = self._decoder.decompress(data, MAX_INFLATED_BYTES)
        except zlib.error:
            raise errors.UpstreamBadResponse("The provider's compressed answer cannot be read") from None
        if self._decoder.unconsumed_tail:
            raise errors.UpstreamBadResponse("The provider's answer is larger than the proxy accepts")
        return content

    def end(self) -> None:
        """Raises UpstreamDisconnected if the content was cut."""
        if not self._decoder.eof:
            raise errors.UpstreamDisconnected("The provider's compressed answer broke off")
