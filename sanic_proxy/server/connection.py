"""HTTP/1.1 from the clients: Sanic's connection, parsed by llhttp and answered in one write.

Strategy: Sanic stays the server: its workers, listeners and router, its task and timer per connection,
its way to end. What is replaced is what costs most there: the head parsed in Python, which is also the
part that takes malformed requests for good ones, and a head formatted header by header. llhttp is
Node's parser, strict where Sanic's is not: a request whose length two servers could read differently
never gets past it.

Bytes are parsed as they come, ahead of the handler: whole requests wait in a queue, the body of the
one under way in its request. Sanic's `http.*` signals and response middlewares of streamed answers are the
business of `extended.ExtendedHttp`, which takes this class's place if the application has registered any.

A body that is larger than a whole body may be is not refused before its route is known: a streaming handler
may want it. Like an upload it is received only as far as the handler reads (`is_upload`).

A request for a websocket is read as a plain request, and its handler decides: Sanic's `websocket_handshake`
makes the connection a websocket's, to which all further bytes belong.

Reading stops while more waits than may be kept: too many requests in the queue, a large body behind another
request, an upload whose handler is slower than its client. A `DisconnectWatch` then tells when the client
leaves. It also stops for the rest of an event loop's turn when reads of large bodies have used it up
(`ReadBudget`).

After an early answer (413, 503, 400) the client may still be sending. Closing the connection at once would
make the kernel reset it, and the client might lose the answer: as in nginx, what comes is read and discarded
for `LINGER_S` at most, as long as no read takes longer than `LINGER_READ_S`. If the connection is not used
again, its sending side is closed first, so that clients that read up to the end do not wait for that.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import struct
import termios
from asyncio import CancelledError
from collections import deque
from contextlib import suppress
from http import HTTPStatus
from time import monotonic
from typing import Any

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser
from sanic.exceptions import (
    BadRequest,
    ExpectationFailed,
    PayloadTooLarge,
    RequestCancelled,
    SanicException,
    ServerError,
)
from sanic.http import Http, Stage
from sanic.http.http1 import HTTP_CONTINUE
from typing_extensions import override

from sanic_proxy.errors import ClientError, ProxyError
from sanic_proxy.http1.request_rules import check_host, check_transfer_coding, host_in_target
from sanic_proxy.observability.in_flight import ClientConnection, Reader
from sanic_proxy.openai.codec import SMALL_BYTES
from sanic_proxy.server import body_rate, compat
from sanic_proxy.server.body_rate import BodyRate
from sanic_proxy.server.disconnects import DisconnectWatch
from sanic_proxy.server.request import (
    KNOWN_NAMES,
    HeaderFields,
    ProxyRequest,
    Reply,
    header_lines,
    parsed_lines,
)
from sanic_proxy.server.spool import MAX_MEMORY_BYTES
from sanic_proxy.state import state_of

logger = logging.getLogger(__name__)

# Pipelined requests that wait behind the one under way; with more the connection is not read from.
MAX_QUEUED = 16
MAX_WAITING_BYTES = 64 * 1024  # of the body of one of them
# Received and unread bytes of a body that is read piece by piece.
MAX_UNREAD_BYTES = 256 * 1024
# The most that an upload holds in memory: unread bytes, and those buffered until the model's name is known.
UPLOAD_SHARE_BYTES = MAX_UNREAD_BYTES + MAX_MEMORY_BYTES
# nginx's lingering_time and lingering_timeout, and how many connections per worker may linger at once.
LINGER_S = 30.0
LINGER_READ_S = 5.0
MAX_LINGERING = 256
# Smaller reads are not worth measuring.
LARGE_READ_BYTES = 16 * 1024
# A feed that brings a body in more pieces than this is joined: each piece takes an object.
MAX_PIECES_PER_READ = 16
_TLS_HANDSHAKE = b"\x16"
# A client that takes nothing for so long is dropped, unless the settings say otherwise.
READER_TIMEOUT_S = 60.0
# Larger bodies are not copied behind their head.
MAX_JOINED_BYTES = 32 * 1024

# Reading a member of an enumeration costs as much as a call.
_IDLE, _REQUEST, _HANDLER, _RESPONSE = Stage.IDLE, Stage.REQUEST, Stage.HANDLER, Stage.RESPONSE
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}" for status in HTTPStatus}
_BODILESS = frozenset({204, 304})
_FRAMING = ("content-length", "transfer-encoding")


class ProxyHttp(Http, Reader):
    """One connection's requests and answers, in turn."""

    protocol: Any
    __slots__ = (
        "_declined",
        "_disconnects",
        "_failure",
        "_fields",
        "_head_bytes",
        "_incoming",
        "_is_held",
        "_is_in_head",
        "_is_in_parts",
        "_is_tls",
        "_keeps_alive",
        "_parser",
        "_queue",
        "_rate",
        "_read_bytes",
        "_url",
        "_waiter",
        "is_writable",
        "loop",
        "on_writable",
        "sent_at",
    )  # fmt: skip

    def __init__(self, protocol: ProxyProtocol) -> None:
        super().__init__(protocol)  # type: ignore[no-untyped-call]
        self.loop: asyncio.AbstractEventLoop = protocol.loop
        self._parser = HttpRequestParser(self)
        self._queue: deque[ProxyRequest] = deque()
        self._incoming: ProxyRequest | None = None
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[bool] | None = None
        self._rate: tuple[ProxyRequest, BodyRate] | None = None
        self._disconnects: DisconnectWatch | None = None
        self._declined: HeaderFields | None = None
        self.on_writable: Any = None
        self.is_writable = True  # whether the client keeps up
        self.sent_at = monotonic()
        self.request: Any
        self.response: Any
        self.response_func: Any
        self.exception: Any
        self.init_for_request()  # type: ignore[no-untyped-call]
        self._keeps_alive = bool(protocol.app.config.KEEP_ALIVE)
        self._read_bytes = 0
        self._is_held = self._is_tls = False
        self._is_in_parts = True
        self.on_message_begin()
        self._is_in_head = False

    # Bytes from the client

    def received(self, data: bytes) -> None:
        """Parse the received bytes, and wake the task that waits for them."""
        if self._failure is not None:
            self._wake()  # what lingers wants to know that the client still sends
            return
        protocol = self.protocol
        if self.stage is not _REQUEST:
            # The time for a head runs from its first byte: one byte now and then does not renew it.
            protocol._time = monotonic()
            if self.stage is _IDLE:
                self.stage = _REQUEST
        fields, incoming = self._fields, self._incoming
        size_bytes = -1 if incoming is None else incoming.size_bytes
        self._read_bytes = len(data)
        count = 0 if incoming is None else len(incoming.pieces)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as exc:
            self._feed_failed(data, exc)
        if incoming is not None and len(incoming.pieces) - count > MAX_PIECES_PER_READ:
            incoming.pieces[count:] = [b"".join(incoming.pieces[count:])]
        if incoming is not None and incoming is self._incoming:
            is_body = incoming.size_bytes > size_bytes
        else:
            is_body = not (self._is_in_head and self._fields is fields)
        if not is_body:
            # All of it belongs to a head, or to what stands between the pieces of a body: the parser
            # gathers it, however long it is.
            self._head_bytes += len(data)
            if self._head_bytes > self.HEADER_MAX_SIZE:
                self._fail(_head_too_large())
        if self.stage is _REQUEST and not self._queue and not self._has_begun():
            self.stage = _IDLE  # a line end too many behind the last request
        self._wake()

    def _has_begun(self) -> bool:
        """Whether something of a next request is here."""
        return bool(self._queue) or self._is_in_head or self._failure is not None

    def _hold(self) -> None:
        """Read no more until there is room again: `_let_come` says when."""
        transport = self.protocol.transport
        if not self._is_held and transport is not None:
            self._is_held = True
            transport.pause_reading()
            self._disconnects = DisconnectWatch(
                self.loop, transport.get_extra_info("socket"), transport.abort
            )

    def _let_come(self) -> None:
        """Read again, unless more requests wait than may."""
        transport = self.protocol.transport
        if self._is_held and len(self._queue) <= MAX_QUEUED and transport is not None:
            self.stop_watching()
            self._is_held = False
            if not transport.is_closing():
                transport.resume_reading()

    def stop_watching(self) -> None:
        """Release what tells of a disconnect while reading is paused."""
        if self._disconnects is not None:
            self._disconnects.close()
            self._disconnects = None

    # The event loop's turn is used up: see ReadBudget

    @override
    def pause(self) -> None:
        transport = self.protocol.transport
        if not self._is_held and transport is not None and not transport.is_closing():
            transport.pause_reading()

    @override
    def resume(self) -> None:
        transport = self.protocol.transport
        if not self._is_held and transport is not None and not transport.is_closing():
            transport.resume_reading()

    def _feed_failed(self, data: bytes, error: Exception) -> None:
        """Go on after an upgrade that is declined; after another error nothing can be read any more."""
        rest: bytes | memoryview = data
        try:
            while isinstance(error, HttpParserUpgrade):
                rest = memoryview(rest)[error.args[0] :]
                self._decline_upgrade()
                try:
                    self._parser.feed_data(rest)
                except HttpParserUpgrade as upgrade:
                    error = upgrade
                else:
                    return
            raise error
        except HttpParserCallbackError:
            logger.exception("a callback of the parser failed")
            self._fail(ServerError("The request could not be read"))
        except HttpParserError:
            if self._is_in_head and not self._url and data.startswith(_TLS_HANDSHAKE):
                self._is_tls = True
                peer = self.protocol.transport.get_extra_info("peername")
                self.protocol.traffic.tls_handshakes.report(peer, monotonic())
            self._fail(BadRequest("The request is not valid HTTP"))

    def _fail(self, failure: Exception) -> None:
        """Nothing after this can be read: what is under way fails, or the next request does."""
        if self._failure is None:
            self._failure = failure
            if self._incoming is not None:
                self._incoming.failure = failure
                self._incoming = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(True)

    def _bytes(self) -> asyncio.Future[bool]:
        """Done when something has come. One waits at a time."""
        self._waiter = self.loop.create_future()
        return self._waiter

    async def _bytes_within(self, limit_s: float) -> bool:
        """Wait for something to come; False if nothing has in time."""
        waiter = self._bytes()
        timer = self.loop.call_later(limit_s, _give_up, waiter)
        try:
            return await waiter
        finally:
            timer.cancel()

    def _decline_upgrade(self) -> None:
        """Read a request on as if it had not asked for another protocol, as the standard allows.

        Java's client asks for HTTP/2 on each plain connection, its body behind it; llhttp would take
        that body for the other protocol's. Another parser is told what decides where the body ends, the
        headers are those that have been read.
        """
        method, version = self._parser.get_method(), self._parser.get_http_version()
        if method == b"CONNECT":
            raise HttpParserError("the proxy is no tunnel")
        fields, url = self._fields, self._url
        framing = [(name, fields[name]) for name in _FRAMING if name in fields]
        if "close" in fields.get("connection", "").lower():
            framing.append(("connection", "close"))
        self._parser = HttpRequestParser(self)
        self._declined = fields
        head = f"{method.decode()} {url.decode('latin-1')} HTTP/{version}\r\n{header_lines(framing)}\r\n"
        self._parser.feed_data(head.encode("latin-1"))

    # llhttp's callbacks: they may not raise

    def on_message_begin(self) -> None:
        self._is_in_head = True
        self._url = b""
        self._fields = HeaderFields()
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_head:  # bytes behind a body must not be mistaken for its beginning
            self._head_bytes += len(name) + len(value)
            return
        fields, key = self._fields, KNOWN_NAMES.get(name)
        if key is None or key in fields or not value.isascii():
            fields.add(name, value)
        else:
            fields[key] = value.decode()

    def on_headers_complete(self) -> None:
        parser = self._parser
        self._is_in_head = False
        if self._failure is not None or parser.should_upgrade():
            return
        if self._declined is not None:
            self._fields, self._declined = self._declined, None
        try:
            request = self._request_of(parser)
        except (SanicException, ProxyError) as exc:
            self._fail(exc)
            return
        self._incoming = request
        self._queue.append(request)
        if len(self._queue) > MAX_QUEUED:
            self._hold()

    def _request_of(self, parser: HttpRequestParser) -> ProxyRequest:
        version = parser.get_http_version()
        if version not in {"1.1", "1.0"}:
            raise BadRequest("The proxy speaks HTTP/1.1")
        url, fields = self._url, self._fields
        method = parser.get_method().decode()
        if not url.startswith(b"/") and (host := host_in_target(url, method)) is not None:
            check_host(fields.get("host"), version=version, is_repeated="host" in fields.repeated)
            fields["host"] = host
        check_host(fields.get("host"), version=version, is_repeated="host" in fields.repeated)
        if (coding := fields.get("transfer-encoding")) is not None:
            check_transfer_coding(coding, version=version, is_repeated="transfer-encoding" in fields.repeated)
        if not url.isascii():
            raise BadRequest("The URL may only hold ASCII characters")
        is_exact = self._head_bytes or self._read_bytes > self.HEADER_MAX_SIZE  # else it cannot be too large
        if is_exact and len(url) + fields.size_chars > self.HEADER_MAX_SIZE:
            raise _head_too_large()
        protocol = self.protocol
        request = ProxyRequest(url, fields, version, method, protocol.transport, protocol.app)
        request.keeps_alive = parser.should_keep_alive()
        length = fields.get("content-length")
        if length is not None and int(length) > protocol.request_max_size:
            request.is_upload = True  # received as far as somebody reads: see the module's docstring
        return request

    def on_body(self, data: bytes) -> None:
        request = self._incoming
        if request is None:
            return
        request.size_bytes += len(data)
        if request.failure is not None:
            return
        request.pieces.append(data)
        self._head_bytes = 0
        if request.size_bytes > MAX_WAITING_BYTES and request is not self.request is not None:
            self._hold()  # it waits behind another one
        if request.is_upload:
            # A handler that reads it piece by piece sets its limit.
            request.unread_bytes += len(data)
            if request.unread_bytes > MAX_UNREAD_BYTES:
                self._hold()
        elif request.size_bytes > self.request_max_size:
            request.failure = _body_too_large()
            request.pieces.clear()

    def on_message_complete(self) -> None:
        if self._incoming is not None:
            self._incoming.is_received = True
            self._incoming = None

    # One request after the other

    @override
    async def http1(self) -> None:
        """Serve the connection until it ends, or may not be used again."""
        try:
            while self.keep_alive:
                self.init_for_request()  # type: ignore[no-untyped-call]
                self.stage = _REQUEST if self._has_begun() else _IDLE
                await self._serve_next()
                request = self.request
                is_broken = self._failure is not None and not self.keep_alive  # else requests still wait
                if request is not None and (is_broken or not request.is_received):
                    await self._discard_rest(request)
                if request is not None:
                    request.stream = None
                if self.response is not None:
                    self.response.stream = None
                self.request = self.response = None
                if self._is_held:
                    self._let_come()  # an unread body may have paused the reading
        finally:
            self.stop_watching()
            # The parser holds this object and this the parser: what has come of an upload that was
            # given up would stay until the collector runs.
            if self._failure is None:
                self._failure = ServerError("The connection is over")
            for request in (self._incoming, *self._queue):
                if request is not None:
                    request.pieces.clear()
            self._incoming = None
            self._queue.clear()
            del self._parser

    async def _serve_next(self) -> None:
        try:
            request = await self.next_request()
            self.stage = _HANDLER
            await self.protocol.request_handler(request)
            if self.stage is not _IDLE:
                await self._finish()
        except CancelledError as exc:
            if self.stage is _IDLE:
                raise
            await self._cancelled(exc)
        except Exception as exc:  # noqa: BLE001 - the border: the app turns it into an answer
            await self.error_response(exc)

    async def _finish(self) -> None:
        if self.upgrade_websocket:
            self.keep_alive = False
            return
        if self.stage is _HANDLER:
            raise ServerError("The handler produced no response")
        if self.stage is _RESPONSE:
            await self.response.send(end_stream=True)

    async def next_request(self) -> ProxyRequest:
        """Wait for the next request and make it the one under way. Raises why nothing more can be read."""
        while not self._queue:
            if self._failure is not None:
                self.keep_alive = False
                raise self._failure
            await self._bytes()
        request = self._queue.popleft()
        protocol = self.protocol
        if self._is_held and request.unread_bytes <= MAX_UNREAD_BYTES:
            self._let_come()
        request.stream = self
        request.conn_info = protocol.conn_info
        self.request = request
        if "expect" in request.fields:
            self._meet(request)
        has_body = request.pieces or not request.is_received or request.failure is not None
        self.request_body = b"pending" if has_body else b""
        self.head_only = request.method == "HEAD"
        self.keep_alive = request.keeps_alive and self._keeps_alive
        # HTTP/1.0 has no chunks: an answer without length ends with its connection.
        self._is_in_parts = request.version != "1.0"
        self.response_func = self.http1_response_header
        protocol.state["requests_count"] += 1
        compat.set_current(request)
        return request

    def _meet(self, request: ProxyRequest) -> None:
        if request.fields["expect"].lower() == "100-continue":
            self.expecting_continue = not request.is_received
        else:
            request.failure = ExpectationFailed("The proxy meets no expectation but 100-continue")

    async def _cancelled(self, exc: CancelledError) -> None:
        """The client left, a time-out struck, or the worker stops: as Sanic does it."""
        self.keep_alive = False
        if not self.protocol.transport:
            return
        is_lost = self.protocol.conn_info is not None and self.protocol.conn_info.lost
        failure = RequestCancelled() if is_lost else (self.exception or exc)
        self.exception = None
        await self.error_response(failure)  # type: ignore[arg-type]

    async def _discard_rest(self, request: ProxyRequest) -> None:
        """Discard the rest of a body that the handler left unread, or of a connection that is closed."""
        if self._failure is not None:
            self.keep_alive = False
        if not request.responded or self.expecting_continue:
            self.keep_alive = False  # there is no answer to read, or the body was never asked for
            return
        request.drop_body()
        self._let_come()
        await self._linger()
        if self._failure is not None or not request.is_received:
            self.keep_alive = False

    async def _linger(self) -> None:
        transport, traffic = self.protocol.transport, self.protocol.traffic
        if transport is None or transport.is_closing() or traffic.lingering >= MAX_LINGERING:
            return
        if not self.keep_alive and self.stage is _IDLE and transport.can_write_eof():
            transport.write_eof()
        traffic.lingering += 1
        try:
            ends_at = monotonic() + LINGER_S
            while self._failure is not None or not self.request.is_received:
                left_s = ends_at - monotonic()
                if left_s <= 0 or not await self._bytes_within(min(left_s, LINGER_READ_S)):
                    return
        finally:
            traffic.lingering -= 1

    @override
    def create_empty_request(self) -> None:
        """What an error is answered to where no request could be read."""
        protocol = self.protocol
        request = ProxyRequest(b"*", HeaderFields(), "1.1", "NONE", protocol.transport, protocol.app)
        request.stream = self
        request.is_received = True
        request.record.is_finished = self._is_tls
        self.request = request
        self.response_func = self.http1_response_header

    # Bodies

    @override
    async def read(self) -> bytes | None:
        """The next piece of the body under way; None at its end."""
        request: ProxyRequest = self.request
        if not request.is_received and not request.pieces:
            await self._ask_for_body()
        while not request.pieces:
            if request.failure is not None:
                self.keep_alive = False
                raise request.failure
            if request.is_received:
                self.request_body = None
                return None
            await self._wait_for_body()
        request.is_upload = True  # from now on no more is received than is read
        self.count_body()
        data = request.take_body()
        self._let_come()
        return data

    def take_small(self) -> bool:
        """Hand the request a small body that has arrived; False without one. Raises Overloaded."""
        request: ProxyRequest = self.request
        if (
            not request.is_received
            or request.failure is not None
            or request.is_upload
            or request.size_bytes > SMALL_BYTES
        ):
            return False
        self.protocol.traffic.hold(request, request.size_bytes)
        request.body = request.take_body()
        return True

    async def receive_all(self) -> None:
        """Wait for the whole body, bounded by its size limit and the room there is. Raises why it fails."""
        request: ProxyRequest = self.request
        if request.is_upload:
            request.is_upload = False
            request.unread_bytes = 0
            if max(request.size_bytes, request.declared_bytes or 0) > self.request_max_size:
                request.failure = _body_too_large()
            self._let_come()
        if not request.is_received:
            await self._ask_for_body()
            while not request.is_received and request.failure is None:
                self.count_body()
                await self._wait_for_body()
        if request.failure is not None:
            self.keep_alive = False
            raise request.failure
        self.count_body()
        self.request_body = None

    def count_body(self) -> None:
        """Count what has come of the body. Raises Overloaded where that is too much."""
        request: ProxyRequest = self.request
        size_bytes = request.size_bytes
        if request.is_upload and size_bytes > UPLOAD_SHARE_BYTES:
            size_bytes = UPLOAD_SHARE_BYTES
        self.protocol.traffic.hold(request, size_bytes)

    async def _ask_for_body(self) -> None:
        if self.expecting_continue and self.request.failure is None:
            self.expecting_continue = False
            await self._write(HTTP_CONTINUE)

    async def _wait_for_body(self) -> None:
        request: ProxyRequest = self.request
        if self._rate is None or self._rate[0] is not request:
            self._rate = (request, BodyRate(request.size_bytes))
        rate = self._rate[1]
        began = monotonic()
        await self._bytes_within(rate.left_s)
        if not rate.is_enough(monotonic() - began, request.size_bytes) and not request.is_received:
            self.keep_alive = False
            raise ClientError(
                f"The request body arrived too slowly: less than {body_rate.MIN_BYTES_PER_S} bytes/s over "
                f"{body_rate.WINDOW_S:g} s",
                status=408,
                code="request_timeout",
            )

    # Answers

    @override
    async def http1_response_header(self, data: bytes, end_stream: bool) -> None:
        """Send an answer's head, with its body or the first part of it."""
        response = self.response
        if not data and response.body:
            data, end_stream = response.body, True
        size_bytes = self._announced_bytes(response, end_stream)
        if size_bytes is not None:
            framing = f"content-length: {size_bytes}\r\n"
        else:
            framing = self._framing(response.status, len(data), end_stream)
        head = self._head(response, framing)
        if self.head_only or response.status in _BODILESS:
            data, end_stream = b"", True
        elif size_bytes is not None:
            self.response_bytes_left = size_bytes - len(data)
        elif not end_stream:
            data = self._part(data, end_stream)
        further = self.http1_response_chunked if size_bytes is None else self.http1_response_normal
        self.response_func = None if end_stream else further
        if len(data) <= MAX_JOINED_BYTES:
            await self._write(head + data)
        else:
            await self._write(head)
            await self._write(data)
        self.stage = _IDLE if end_stream else _RESPONSE

    def send_whole(self, response: Reply) -> bool:
        """Make `response` the answer and send it; False, with nothing done, where that may take a wait."""
        data: bytes = response.body or b""
        if (
            not self.is_writable
            or self.head_only
            or self.response is not None
            or response.status in _BODILESS
            or len(data) > MAX_JOINED_BYTES
        ):
            return False
        request: ProxyRequest = self.request
        request.responded = True
        self.response, response.stream = response, self
        request.record.status = response.status
        request.record.sent(len(data))
        head = self._head(response, f"content-length: {len(data)}\r\n")
        self.response_func = None
        self._push(head + data)
        self.stage = _IDLE
        return True

    def begin(self, data: bytes, size_bytes: int | None = None) -> None:
        """Send a streamed answer's head and its first part (may be empty), without waiting.

        With `size_bytes`, what all parts will come to, they go out as they are. The answer to a HEAD is over
        after that: nothing may be pushed.
        """
        if size_bytes is None:
            framing = self._framing(self.response.status, 0, end_stream=False)
        else:
            framing = f"content-length: {size_bytes}\r\n"
            self._is_in_parts = False
        head = self._head(self.response, framing)
        if self.head_only:
            self.response_func, self.stage = None, _IDLE
            self._push(head)
            return
        self.response_func = self.http1_response_chunked
        self.stage = _RESPONSE
        self._push(head + self._part(data, end_stream=False))

    def _head(self, response: Any, framing: str) -> bytes:
        if self.expecting_continue or not framing:
            # Whether a body still comes is the client's choice; and one without length ends with the
            # connection.
            self.keep_alive = False
        status = response.status
        more = self.request.answer_lines
        if isinstance(response, Reply) and not response.has_headers:
            lines = response.lines + more
        else:
            lines = _lines_of(response, more)
        return (
            f"{_STATUS_LINES.get(status) or f'HTTP/1.1 {status} Unknown'}\r\n"
            f"{lines}"
            f"{framing}"
            f"connection: {'keep-alive' if self.keep_alive else 'close'}\r\n\r\n"
        ).encode("utf-8", "surrogateescape")

    def _announced_bytes(self, response: Any, end_stream: bool) -> int | None:
        """The length that a handler has set for a body that it sends in parts, or leaves out after HEAD."""
        if isinstance(response, Reply) or response.status in _BODILESS or (end_stream and not self.head_only):
            return None
        length = response.headers.get("content-length")
        return None if length is None else int(length)

    def _framing(self, status: int, size_bytes: int, end_stream: bool) -> str:
        if end_stream and status not in _BODILESS:
            return f"content-length: {size_bytes}\r\n"
        is_chunked = status not in _BODILESS and self._is_in_parts
        return "transfer-encoding: chunked\r\n" if is_chunked else ""

    @override
    async def http1_response_chunked(self, data: bytes, end_stream: bool) -> None:
        """Send a further part of an answer without length."""
        await self._write(self._part(data, end_stream))
        if end_stream:
            self.response_func = None
            self.stage = _IDLE

    def _part(self, data: bytes, end_stream: bool) -> bytes:
        """A part of an answer without length, as it goes over the wire."""
        if not self._is_in_parts or self.response.status in _BODILESS:
            return data
        part = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        return part + b"0\r\n\r\n" if end_stream else part

    async def _write(self, data: bytes) -> None:
        protocol = self.protocol
        if not self.is_writable:
            await protocol._can_write.wait()
        if protocol.transport is None or protocol.transport.is_closing():
            raise RequestCancelled
        self._push(data)

    def push(self, data: bytes) -> bool:
        """Send a part of a streamed answer that has begun, at once; False while the client is slow."""
        return self._push(self._part(data, end_stream=False))

    def push_last(self, data: bytes) -> None:
        """Send the last part of a streamed answer, and its end with it."""
        self.response_func = None
        self.stage = _IDLE
        self._push(self._part(data, end_stream=True))

    def _push(self, data: bytes) -> bool:
        protocol = self.protocol
        transport = protocol.transport
        if transport is None or transport.is_closing():
            return False  # the handler is about to be cancelled
        transport.write(data)
        self.sent_at = protocol._time = monotonic()
        return self.is_writable


def _give_up(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)


def _head_too_large() -> PayloadTooLarge:
    return PayloadTooLarge("The request's head is larger than the proxy accepts")


def _body_too_large() -> PayloadTooLarge:
    return PayloadTooLarge("The request is larger than the proxy accepts")


def _lines_of(response: Any, more: str) -> str:
    """The header lines of any of Sanic's responses, and those of `more` that it does not set itself.

    Length and framing are the connection's.
    """
    headers = response.headers
    if response.content_type is not None:
        headers.setdefault("content-type", response.content_type)
    own = [
        (name, str(value))
        for name, value in headers.items()
        if name.lower() not in {"content-length", "transfer-encoding", "connection"}
    ]
    return header_lines([*own, *(line for line in parsed_lines(more) if line[0] not in headers)])


class ProxyProtocol(compat.WebSocketProtocol, ClientConnection):
    """Sanic's connection with the parser above. `app.http_class` is the class of its Http object."""

    __slots__ = ("_reader_timer", "traffic")

    @override
    def connection_made(self, transport: Any) -> None:
        self._http: ProxyHttp | None = None
        self._reader_timer: asyncio.TimerHandle | None = None
        super().connection_made(transport)  # type: ignore[no-untyped-call]
        self.traffic = state_of(self.app).traffic
        self.traffic.connections.add(self)
        self._setup_connection()

    @override
    def read_config(self) -> None:
        """Take over what has changed in the app's configuration since the connection was made."""
        config = self.app.config
        self.request_max_size = config.REQUEST_MAX_SIZE
        self.response_timeout = config.RESPONSE_TIMEOUT
        if self._http is not None:
            self._http.request_max_size = self.request_max_size

    @override
    def _setup_connection(self, *args: Any, **kwargs: Any) -> None:
        # Sanic's task calls this too; the first bytes may come before it runs.
        if self._http is None:
            self._http = self.app.http_class(self)  # type: ignore[attr-defined]
            self._time = monotonic()
            self.check_timeouts()  # type: ignore[no-untyped-call]

    @override
    def data_received(self, data: bytes) -> None:
        http = self._http
        if self.websocket is not None:
            self.websocket.data_received(data)  # type: ignore[no-untyped-call]
            return
        if http is None:
            return
        if len(data) < LARGE_READ_BYTES:
            http.received(data)
            return
        began = monotonic()
        http.received(data)
        self.traffic.reading.spend(self.loop, monotonic() - began, http)

    @override
    async def websocket_handshake(self, request: Any, subprotocols: Any = None) -> Any:
        """Sanic's: answer with 101. Raises SanicException if the request does not ask for a websocket."""
        if self._http is not None:
            self._http.upgrade_websocket = True
        try:
            return await super().websocket_handshake(request, subprotocols)
        except BaseException:
            if self._http is not None:
                self._http.upgrade_websocket = False
            raise

    @override
    def pause_writing(self) -> None:
        super().pause_writing()  # type: ignore[no-untyped-call]
        if self._http is not None:
            self._http.is_writable = False
        self._watch_reader()

    @override
    def resume_writing(self) -> None:
        super().resume_writing()  # type: ignore[no-untyped-call]
        if self._http is not None:
            self._http.is_writable = True
            if self._http.on_writable is not None:
                self._http.on_writable()
        self._leave_reader()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._leave_reader()
        if self._http is not None:
            self._http.stop_watching()
        self.traffic.connections.discard(self)
        super().connection_lost(exc)  # type: ignore[no-untyped-call]

    def _watch_reader(self) -> None:
        """Look again later whether the client has taken anything of what waits for it."""
        if self.transport is not None:
            wait_s = self.app.config.get("READER_TIMEOUT", READER_TIMEOUT_S)
            left_bytes = _left_bytes(self.transport)
            self._reader_timer = self.loop.call_later(wait_s, self._judge_reader, left_bytes)

    def _leave_reader(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _judge_reader(self, left_bytes: int) -> None:
        if self.transport is None or _left_bytes(self.transport) < left_bytes:
            self._watch_reader()
            return
        request = self._http.request if self._http is not None else None
        if isinstance(request, ProxyRequest):
            request.record.ended = "client_stalled"
        self.transport.abort()


def _left_bytes(transport: asyncio.Transport) -> int:
    """What the client has not taken yet, the kernel's part included: that alone may be megabytes."""
    left_bytes = transport.get_write_buffer_size()
    with suppress(OSError, ValueError):  # not every system can say
        number = transport.get_extra_info("socket").fileno()
        waiting: int = struct.unpack("i", fcntl.ioctl(number, termios.TIOCOUTQ, b"\0\0\0\0"))[0]
        left_bytes += waiting
    return left_bytes
