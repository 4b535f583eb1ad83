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
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast
from urllib.parse import urlsplit

import httptools
from typing_extensions import override

from sanic_proxy import errors

if TYPE_CHECKING:
    from sanic_proxy.config.model import PoolLimits

MAX_HEAD_BYTES = 32 * 1024
# A reader slower than its provider: past this, the connection is no longer read from.
MAX_BUFFERED_BYTES = 256 * 1024
MAX_INFLATED_BYTES = 16 * 1024 * 1024
# A request larger than this is written in its pieces, without being copied together.
MAX_JOINED_BYTES = 64 * 1024
DNS_TTL_S = 30.0
# How long and how much is waited for behind the last frame of a stream.
LINGER_S = 0.25
MAX_LINGER_BYTES = 64 * 1024

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


def request_head(method: str, target: Target, headers: Mapping[str, str]) -> bytes:
    """The head of a request but for its last lines; values are printable, as their sources checked."""
    return b"%b %b HTTP/1.1\r\nhost: %b\r\n%b" % (
        method.encode(),
        target.path,
        target.host_header,
        _lines(headers.items()),
    )


def _lines(headers: Iterable[tuple[str, str]]) -> bytes:
    return "".join([f"{name}: {value}\r\n" for name, value in headers]).encode()


Body = Sequence[bytes | memoryview]


def request_pieces(head: bytes, more: Iterable[tuple[str, str]], body: Body) -> Body:
    """A request as it goes over the wire: `head`, further headers, the length, and the body's pieces."""
    lines = _lines(more)
    if not body:
        return (b"%b%b\r\n" % (head, lines),)
    size = len(body[0]) if len(body) == 1 else sum(map(len, body))
    whole_head = b"%b%bcontent-length: %d\r\n\r\n" % (head, lines, size)
    return (b"".join((whole_head, *body)),) if size <= MAX_JOINED_BYTES else (whole_head, *body)


@dataclass(frozen=True, slots=True)
class Upload:
    """A body that comes while it is sent. Without `size_bytes` it goes out in chunks."""

    pieces: AsyncIterator[bytes]
    size_bytes: int | None

    def head(self, head: bytes, more: Iterable[tuple[str, str]]) -> bytes:
        """The head of its request."""
        framing = "transfer-encoding: chunked"
        if self.size_bytes is not None:
            framing = f"content-length: {self.size_bytes}"
        return b"%b%b%b\r\n\r\n" % (head, _lines(more), framing.encode())

    def framed(self, piece: bytes) -> bytes:
        """One piece, as it goes over the wire."""
        return piece if self.size_bytes is not None else b"%x\r\n%b\r\n" % (len(piece), piece)

    @property
    def end(self) -> bytes:
        return b"0\r\n\r\n" if self.size_bytes is None else b""


class Receiver(Protocol):
    """Who takes a body as it comes, in the moment it comes, instead of asking for it."""

    def received(self, data: bytes) -> None: ...
    def ended(self, failure: errors.UpstreamError | None) -> None: ...


class Exchange(Protocol):
    """An answer that has begun, whatever carries it: a `Connection` does. `until` is loop time."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def has_length(self) -> bool: ...
    async def read(self, until: float) -> bytes | None: ...
    def whole(self) -> bytes | None: ...
    def divert(self, receiver: Receiver | None) -> bool: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def linger(self) -> None: ...
    def end(self) -> None: ...


class Way(NamedTuple):
    """How an answer may be reached: through which proxy, and for how long it is waited for.

    `until` is loop time and ends the wait for the status; `connect_s` are seconds for a connection,
    `first_byte_s` those from the end of a body that comes while it is sent.
    """

    proxy: str
    connect_s: float
    until: float
    first_byte_s: float


class Connection(asyncio.Protocol):
    """One connection; one exchange at a time.

    `has_length` says whether the answer's end can be told from a connection that was cut.

    Its timer is never set anew while something comes: it looks at the deadline when it strikes, and
    strikes again at what the deadline has become.
    """

    __slots__ = (
        "_body_size",
        "_deadline",
        "_failure",
        "_head_bytes",
        "_header_bytes",
        "_is_interim",
        "_is_uploading",
        "_loop",
        "_parser",
        "_pieces",
        "_pool",
        "_receiver",
        "_room",
        "_timer",
        "_timer_at",
        "_transport",
        "_waiter",
        "has_answered",
        "has_length",
        "headers",
        "is_closed",
        "is_complete",
        "is_paused",
        "is_reusable",
        "origin",
        "status",
    )  # fmt: skip

    def __init__(self, origin: Origin, loop: asyncio.AbstractEventLoop, pool: Pool | None = None) -> None:
        self.origin = origin
        self.is_closed = False
        self._pool = pool
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[bool] | None = None
        self._room: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._deadline = 0.0
        self._reset()
        self.is_complete = True

    def _reset(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.has_answered = False  # whether a byte of an answer has come
        self.is_complete = False
        self.is_reusable = False
        self._pieces: list[bytes] = []
        self._body_size = 0
        self._head_bytes = 0
        self._header_bytes = 0
        self.has_length = False
        self._is_interim = False
        self._is_uploading = False
        self.is_paused = False
        self._receiver: Receiver | None = None
        self._failure: errors.UpstreamError | None = None

    @property
    def is_sending(self) -> bool:
        """Whether the provider has answered before it took the whole request."""
        return self._is_uploading or (
            self._transport is not None and self._transport.get_write_buffer_size() > 0
        )

    # One exchange

    def send(self, pieces: Body) -> None:
        """Begin an exchange."""
        self._reset()
        if self._transport is None:
            return
        if len(pieces) == 1:
            self._transport.write(pieces[0])
        else:
            self._transport.writelines(pieces)

    def begin_upload(self, head: bytes) -> None:
        """Begin an exchange whose body `upload` brings."""
        self.send((head,))
        self._is_uploading = True

    async def upload(self, upload: Upload, stall_s: float) -> None:
        """Send a body as it comes; ends early if the provider has answered, or is gone.

        Raises UpstreamTimeout where the provider takes nothing for `stall_s`, and what `upload` raises.
        """
        async for piece in upload.pieces:
            if self.status or self.is_closed or self._transport is None:
                return
            self._transport.write(upload.framed(piece))
            if self._room is not None:
                await self._taken(self._room, stall_s)
        if self._transport is not None:
            self._transport.write(upload.end)
        self._is_uploading = False

    async def _taken(self, room: asyncio.Future[None], stall_s: float) -> None:
        try:
            async with asyncio.timeout(stall_s):
                await room
        except TimeoutError:
            raise errors.UpstreamTimeout("The provider stopped taking the request") from None

    async def head(self, until: float) -> bool:
        """Wait for the status and headers; False if `until` (loop time) comes first."""
        while not self.status:
            if self._failure is not None:
                raise self._failure
            if not await self._awaited(until):
                return False
        return True

    async def read(self, until: float) -> bytes | None:
        """The bytes of the body that are here; b"" at its end; None if `until` comes first."""
        while not self._pieces:
            if self._failure is not None:
                raise self._failure
            if self.is_complete:
                return b""
            if not await self._awaited(until):
                return None
        data = self._take()
        if self.is_paused:
            self.resume()
        return data

    def whole(self) -> bytes | None:
        """All of a body that nobody has read from yet, if it is here."""
        return self._take() if self.is_complete and self._failure is None else None

    def end(self) -> None:
        """Nobody wants more of this answer: back to the pool where it was whole, else closed."""
        self._receiver = None
        self._pieces.clear()
        if self._pool is not None:
            self._pool.give_back(self)
        else:
            self.close()

    def linger(self) -> None:
        """As `end`, but the end of the body may still be on its way: it is waited for, for a moment.

        Waiting keeps the connection for the next request, and costs nobody anything.
        """
        if self.is_complete or self._pool is None:
            self.end()
            return
        self.resume()
        self._receiver = _Lingering(self)
        self._pool.lingering.add(self)
        self._loop.call_later(LINGER_S, self._linger_over, self._receiver)

    def _linger_over(self, receiver: Receiver) -> None:
        if self._receiver is receiver:
            self.end()

    def _take(self) -> bytes:
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._body_size = 0
        return data

    def divert(self, receiver: Receiver | None) -> bool:
        """Hand on what is here, and from now on all that comes, to `receiver`; None: to readers again."""
        self._receiver = receiver
        if receiver is not None:
            self.resume()  # what was held back for a reader; the receiver holds for itself
            self._deliver(receiver)
        return True

    def _deliver(self, receiver: Receiver) -> None:
        if self._pieces:
            receiver.received(self._take())
        if self.is_complete or self._failure is not None:
            receiver.ended(self._failure)

    def pause(self) -> None:
        """Read no more, so that the provider waits."""
        if not self.is_paused and self._transport is not None and not self.is_closed:
            self.is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self.is_paused and self._transport is not None:
            self.is_paused = False
            if not self.is_closed:
                self._transport.resume_reading()

    def _awaited(self, until: float) -> asyncio.Future[bool]:
        """Done with True when something has come, with False at `until`."""
        waiter = self._waiter = self._loop.create_future()
        self._deadline = until
        if self._timer is None or self._timer_at > until:
            self._set_timer(until)
        return waiter

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, at: float) -> None:
        self._stop_timer()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._strike)

    def _strike(self) -> None:
        self._timer = None
        waiter = self._waiter
        if waiter is None or waiter.done():
            return  # nobody waits; the next one sets it
        if self._loop.time() < self._deadline:
            self._set_timer(self._deadline)
        else:
            waiter.set_result(False)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(True)

    def close(self) -> None:
        """Close at once: what is still to come is not wanted."""
        self.is_closed = True
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()

    # asyncio's protocol

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def pause_writing(self) -> None:
        self._room = self._loop.create_future()

    @override
    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    @override
    def data_received(self, data: bytes) -> None:
        if self.is_complete:
            self.close()  # nobody asked
            return
        self.has_answered = True
        size = self._body_size
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.is_reusable = False
            if not self.is_complete:  # else the answer is good, and what came after it is dropped
                self._fail(errors.UpstreamBadResponse("The provider's answer is not valid HTTP"))
        if not self.status or (not self.is_complete and self._body_size == size):
            # All of it belongs to a head, or to what stands between the pieces of a body: the parser
            # gathers it, however long it is.
            self._head_bytes += len(data)
        if self._header_bytes > MAX_HEAD_BYTES or self._head_bytes > MAX_HEAD_BYTES:
            self._fail(errors.UpstreamBadResponse("The provider's headers are larger than the proxy accepts"))
        if self._receiver is not None:
            self._deliver(self._receiver)
        else:
            self._wake()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        self.is_reusable = False
        del self._parser  # it holds this object: together they would wait for the collector
        self._stop_timer()
        self.resume_writing()
        if not self.is_complete and self._failure is None:
            if self.status and not self.has_length and exc is None:
                self.is_complete = True  # a body without length ends with its connection
            else:
                said = "answer broke off" if self.status else "connection was closed without an answer"
                self._failure = errors.UpstreamDisconnected(f"The provider's {said}")
        if self._receiver is not None:
            self._deliver(self._receiver)
        else:
            self._wake()

    def _fail(self, failure: errors.UpstreamError) -> None:
        if self._failure is None:
            self._failure = failure
        self.close()

    # httptools's callbacks

    def on_message_begin(self) -> None:
        if self.is_complete:
            raise ValueError("an answer that nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self.status:
            return  # behind a body; not to be mistaken for what came before it
        key = name.decode("latin-1").lower()
        if key in LENGTHS:
            self.has_length = True
        self.headers[key] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            self._is_interim = True
            self.has_length = False
            self.headers.clear()
        else:
            self.status = status
            self.has_length = self.has_length or status in {204, 304}

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self._head_bytes = 0
        self._body_size += len(body)
        if self._body_size > MAX_BUFFERED_BYTES and self._receiver is None:
            self.pause()

    def on_message_complete(self) -> None:
        if self._is_interim:
            self._is_interim = False
            return
        self.is_complete = True
        self.is_reusable = self._parser.should_keep_alive()


# With one of these the end of a body can be told from a connection that was cut.
LENGTHS = frozenset({"content-length", "transfer-encoding"})


class _Lingering:
    """Drops what comes after the content, until its body ends or has too much of it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._left_bytes = MAX_LINGER_BYTES

    def received(self, data: bytes) -> None:
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            self._connection.close()

    def ended(self, failure: errors.UpstreamError | None) -> None:
        self._connection.end()


class Pool:
    """The connections of one worker. Those in use are not counted; the idle ones are limited."""

    def __init__(self, limits: PoolLimits, tls_context: Callable[[], ssl.SSLContext]) -> None:
        self._limits = limits
        self._tls_context = tls_context
        self._idle: dict[Origin, deque[tuple[Connection, float]]] = {}
        self._addresses: dict[tuple[str, int], tuple[float, Sequence[_Address]]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self.lingering: set[Connection] = set()

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
        self.lingering.discard(connection)
        if connection.is_closed or not connection.is_reusable or connection.is_sending:
            connection.close()
            return
        if connection.is_paused:
            connection.resume()
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
        for connection in self.lingering:
            connection.close()
        self.lingering.clear()

    async def connect(self, origin: Origin, connect_s: float) -> Connection:
        """A new connection. Raises UpstreamTimeout, or UpstreamConnectFailed or one of its kinds."""
        try:
            async with asyncio.timeout(connect_s):
                return await self._connect(origin, connect_s)
        except TimeoutError as exc:
            raise errors.UpstreamConnectTimeout(
                "No connection to the provider within the time allowed"
            ) from exc
        except (ssl.SSLError, ssl.CertificateError) as exc:
            text = "The provider's TLS certificate or handshake is not acceptable"
            raise errors.UpstreamTlsFailed(text) from exc
        except OSError as exc:
            raise errors.UpstreamConnectFailed("No connection to the provider could be made") from exc

    async def _connect(self, origin: Origin, connect_s: float) -> Connection:
        loop = asyncio.get_running_loop()
        made = await self._reached(await self._resolved(origin.host, origin.port), origin.port, connect_s)
        _, connection = await loop.create_connection(
            lambda: Connection(origin, loop, self),
            sock=made,
            ssl=self._tls_context() if origin.is_tls else None,
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
