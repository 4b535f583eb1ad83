"""The requests of one client's connection, parsed by llhttp as their bytes come.

Sanic parses a head in Python, which costs more than the rest of it, and takes malformed requests for good
ones. llhttp is Node's parser, strict where Sanic's is not: a request whose length
two servers could read differently never gets past it.

Bytes are parsed ahead of the handler: whole requests wait in a queue, the body of the one under way in its
request. A body that is larger than a whole body may be is not refused before its route is known: a streaming
handler may want it. Like an upload it is received only as far as the handler reads (`is_upload`).

Reading stops while more waits than may be kept: too many requests in the queue, a large body behind another
request, an upload whose handler is slower than its client. A `DisconnectWatch` then tells when the client
leaves. It also stops for the rest of an event loop's turn when reads of large bodies have used it up
(`ReadBudget`).

A client's second request has nearly always the head of its first, and is then not parsed: `RepeatedHead` says
why that is the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from time import monotonic
from typing import Any

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser
from sanic.exceptions import BadRequest, PayloadTooLarge, SanicException, ServerError
from sanic.http import Stage
from typing_extensions import override

from sanic_proxy.errors import ProxyError
from sanic_proxy.http1.repeated_head import RepeatedHead
from sanic_proxy.http1.request_rules import check_host, check_transfer_coding, host_in_target, is_host
from sanic_proxy.observability.in_flight import Reader
from sanic_proxy.routing.sessions import HeaderName, header_name
from sanic_proxy.server.disconnects import DisconnectWatch
from sanic_proxy.server.request import KNOWN_NAMES, HeaderFields, ProxyRequest, header_lines
from sanic_proxy.server.response_writer import ResponseWriter

logger = logging.getLogger(__name__)

# Pipelined requests that wait behind the one under way; with more the connection is not read from.
MAX_QUEUED = 16
MAX_WAITING_BYTES = 64 * 1024  # of the body of one of them
# Received and unread bytes of a body that is read piece by piece.
MAX_UNREAD_BYTES = 256 * 1024
# A feed that brings a body in more pieces than this is joined: each piece takes an object.
MAX_PIECES_PER_READ = 16
# After so many heads in a row that were not repeated, the connection is taken for one with many clients.
MAX_MISSES = 3
_TLS_HANDSHAKE = b"\x16"
_FRAMING = ("content-length", "transfer-encoding")

# Reading a member of an enumeration costs as much as a call.
_IDLE, _REQUEST = Stage.IDLE, Stage.REQUEST


@dataclass(slots=True)
class _Repeated:
    """A head that is recognised, and what the parser has made of it."""

    head: RepeatedHead
    method: str
    url: bytes
    path: str
    fields: HeaderFields
    session: HeaderName


class RequestReader(ResponseWriter, Reader):
    """Bytes of a connection -> requests in its queue. The half of `ProxyHttp` that reads."""

    __slots__ = (
        "_declined",
        "_disconnects",
        "_failure",
        "_fields",
        "_head_bytes",
        "_incoming",
        "_is_held",
        "_is_in_head",
        "_is_tls",
        "_misses",
        "_parser",
        "_queue",
        "_read_bytes",
        "_repeated",
        "_url",
        "_waiter",
    )

    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol)
        self._parser = HttpRequestParser(self)
        self._queue: deque[ProxyRequest] = deque()
        self._incoming: ProxyRequest | None = None
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[bool] | None = None
        self._disconnects: DisconnectWatch | None = None
        self._declined: HeaderFields | None = None
        self._repeated: _Repeated | None = None
        self._misses = 0
        self._read_bytes = 0
        self._is_held = self._is_tls = False
        self.on_message_begin()
        self._is_in_head = False

    # Bytes from the client

    def received(self, data: bytes) -> None:
        """Parse the received bytes, and wake the task that waits for them."""
        if self._failure is not None:
            self._wake()  # what lingers wants to know that the client still sends
            return
        if self.stage is not _REQUEST:
            # The time for a head runs from its first byte: one byte now and then does not renew it.
            self.protocol.active_at = monotonic()
            if self.stage is _IDLE:
                self.stage = _REQUEST
        is_between = self._incoming is None and not self._is_in_head
        if self._repeated is None or not is_between or not self._repeats(self._repeated, data):
            count = len(self._queue)
            self._parse(data)
            if is_between and self._misses < MAX_MISSES and len(self._queue) == count + 1:
                self._remember(data, self._queue[-1])
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(True)

    def _repeats(self, first: _Repeated, data: bytes) -> bool:
        """Whether `data` is a request with the head of `first`; it is then in the queue."""
        size_bytes = first.head.body_bytes(data)
        if size_bytes < 0 or size_bytes > self.request_max_size:
            return False
        fields = HeaderFields(first.fields)
        fields["content-length"] = str(size_bytes)
        protocol = self.protocol
        request = ProxyRequest(
            first.url, fields, "1.1", first.method, protocol.transport, protocol.app, 0, first.path
        )
        request.header_name = first.session
        request.is_received = True
        request.size_bytes = size_bytes
        if size_bytes:
            request.pieces.append(data[-size_bytes:])
        self._head_bytes = self._misses = 0
        self._queue.append(request)
        if len(self._queue) > MAX_QUEUED:
            self._hold()
        return True

    def _remember(self, data: bytes, request: ProxyRequest) -> None:
        """Recognise the head of `request`, which was parsed, when it comes again."""
        self._misses += 1
        self._repeated = None
        fields = request.fields
        is_usual = (
            request.is_received
            and request.keeps_alive
            and request.version == "1.1"
            and request.failure is None
            and self._failure is None
            and not request.is_upload
            and not fields.repeated
            and request.raw_url.startswith(b"/")
        )
        length = fields.get("content-length")
        if is_usual and length is not None and (head := RepeatedHead.of(data, length)) is not None:
            self._repeated = _Repeated(
                head,
                request.method,
                request.raw_url,
                request.path,
                HeaderFields(fields),
                header_name(fields),
            )

    def _parse(self, data: bytes) -> None:
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

    def _stop(self) -> None:
        """Let go of everything that has been received.

        The parser holds this object and this the parser: what has come of an upload that was given up would
        stay until the collector runs.
        """
        self.stop_watching()
        if self._failure is None:
            self._failure = ServerError("The connection is over")
        for request in (self._incoming, *self._queue):
            if request is not None:
                request.pieces.clear()
        self._incoming = self._repeated = None
        self._queue.clear()
        del self._parser

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
        host = fields.get("host")
        if not url.startswith(b"/") and (named := host_in_target(url, method)) is not None:
            check_host(host, version=version, is_repeated="host" in fields.repeated)
            fields["host"] = host = named
        if host is None or "host" in fields.repeated or not is_host(host):
            check_host(host, version=version, is_repeated="host" in fields.repeated)
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
            request.failure = body_too_large()
            request.pieces.clear()

    def on_message_complete(self) -> None:
        if self._incoming is not None:
            self._incoming.is_received = True
            self._incoming = None


def _give_up(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)


def _head_too_large() -> PayloadTooLarge:
    return PayloadTooLarge("The request's head is larger than the proxy accepts")


def body_too_large() -> PayloadTooLarge:
    """The error for a body past the limit."""
    return PayloadTooLarge("The request is larger than the proxy accepts")
