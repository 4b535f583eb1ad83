"""One client's connection: its requests and answers in turn, and the protocol that Sanic's server knows.

Strategy: Sanic stays the server: its workers, listeners and router, its task and timer per connection,
its way to end. `request_reader.py` takes the place of its parser, `response_writer.py` of what formats and
sends answers. Sanic's `http.*` signals and response middlewares of streamed answers are the business of
`extended.ExtendedHttp`, which takes the place of `ProxyHttp` if the application has registered any.

A request for a websocket is read as a plain request, and its handler decides: Sanic's `websocket_handshake`
makes the connection a websocket's, to which all further bytes belong.

After an early answer (413, 503, 400) the client may still be sending. Closing the connection at once would
make the kernel reset it, and the client might lose the answer: as in nginx, what comes is read and discarded
for `LINGER_S` at most, as long as no read takes longer than `LINGER_READ_S`. If the connection is not used
again, its sending side is closed first, so that clients that read up to the end do not wait for that.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from asyncio import CancelledError
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

from sanic.exceptions import ExpectationFailed, RequestCancelled, ServerError
from sanic.http import Stage
from sanic.http.http1 import HTTP_CONTINUE
from typing_extensions import override

from sanic_proxy.errors import ClientError
from sanic_proxy.observability.in_flight import ClientConnection
from sanic_proxy.openai.codec import SMALL_BYTES
from sanic_proxy.server import body_rate, compat
from sanic_proxy.server.body_rate import BodyRate
from sanic_proxy.server.request import HeaderFields, ProxyRequest
from sanic_proxy.server.request_reader import MAX_UNREAD_BYTES, RequestReader, body_too_large
from sanic_proxy.server.spool import MAX_MEMORY_BYTES
from sanic_proxy.state import state_of

# The most that an upload holds in memory: unread bytes, and those buffered until the model's name is known.
UPLOAD_SHARE_BYTES = MAX_UNREAD_BYTES + MAX_MEMORY_BYTES
# nginx's lingering_time and lingering_timeout, and how many connections per worker may linger at once.
LINGER_S = 30.0
LINGER_READ_S = 5.0
MAX_LINGERING = 256
# Smaller reads are not worth measuring.
LARGE_READ_BYTES = 16 * 1024
# A client that takes nothing for so long is dropped, unless the settings say otherwise.
READER_TIMEOUT_S = 60.0

# Reading a member of an enumeration costs as much as a call.
_IDLE, _REQUEST, _HANDLER, _RESPONSE = Stage.IDLE, Stage.REQUEST, Stage.HANDLER, Stage.RESPONSE


class ProxyHttp(RequestReader):
    """One connection's requests and answers, in turn."""

    __slots__ = ("_keeps_alive", "_rate")

    def __init__(self, protocol: ProxyProtocol) -> None:
        super().__init__(protocol)
        self.init_for_request()
        self._keeps_alive = bool(protocol.app.config.KEEP_ALIVE)
        self._rate: tuple[ProxyRequest, BodyRate] | None = None

    # One request after the other

    @override
    async def http1(self) -> None:
        """Serve the connection until it ends, or may not be used again."""
        protocol = self.protocol
        try:
            while self.keep_alive:
                self.init_for_request()
                self.stage = _REQUEST if self._has_begun() else _IDLE
                try:
                    while (request := self._next()) is None:
                        await self._bytes()
                    self.stage = _HANDLER
                    await protocol.request_handler(request)
                    if self.stage is not _IDLE:
                        await self._finish()
                except CancelledError as exc:
                    if self.stage is _IDLE:
                        raise
                    await self._cancelled(exc)
                except Exception as exc:  # noqa: BLE001 - the border: the app turns it into an answer
                    await self.error_response(exc)
                if self._failure is not None or not (self.request is None or self.request.is_received):
                    await self._discard_rest()
                self._release()
        finally:
            self._stop()

    def _release(self) -> None:
        """Let go of the request and its answer."""
        if self.request is not None:
            self.request.stream = None
        if self.response is not None:
            self.response.stream = None
        self.request = self.response = None
        if self._is_held:
            self._let_come()  # an unread body may have paused the reading

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
        while (request := self._next()) is None:
            await self._bytes()
        return request

    def _next(self) -> ProxyRequest | None:
        """The next request, now under way; None if none is here. Raises why nothing more can be read."""
        if not self._queue:
            if self._failure is not None:
                self.keep_alive = False
                raise self._failure
            return None
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
        failure: Any = RequestCancelled() if is_lost else (self.exception or exc)
        self.exception = None
        await self.error_response(failure)

    async def _discard_rest(self) -> None:
        """Discard the rest of a body that the handler left unread, or of a connection that is closed."""
        request: ProxyRequest | None = self.request
        is_broken = self._failure is not None and not self.keep_alive  # else requests still wait
        if request is None or not (is_broken or not request.is_received):
            return
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
        pieces = request.pieces
        request.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return True

    async def receive_all(self) -> None:
        """Wait for the whole body, bounded by its size limit and the room there is. Raises why it fails."""
        request: ProxyRequest = self.request
        if request.is_upload:
            request.is_upload = False
            request.unread_bytes = 0
            if max(request.size_bytes, request.declared_bytes or 0) > self.request_max_size:
                request.failure = body_too_large()
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


class ProxyProtocol(compat.Protocol, ClientConnection):
    """Sanic's connection with the parser above. `app.http_class` is the class of its Http object.

    `on_closing` is called in place of closing a websocket when the worker stops.
    """

    __slots__ = ("_reader_timer", "on_closing", "traffic")
    http_object: ProxyHttp | None

    @override
    def connection_made(self, transport: Any) -> None:
        self.http_object = None
        self.on_closing: Callable[[], None] | None = None
        self._reader_timer: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        self.traffic = state_of(self.app).traffic
        self.traffic.connections.add(self)
        self.set_up()

    @override
    def read_config(self) -> None:
        """Take over what has changed in the app's configuration since the connection was made."""
        config = self.app.config
        self.request_max_size = config.REQUEST_MAX_SIZE
        self.response_timeout = config.RESPONSE_TIMEOUT
        if self.http_object is not None:
            self.http_object.request_max_size = self.request_max_size

    @override
    def set_up(self) -> None:
        # Sanic's task calls this too; the first bytes may come before it runs.
        if self.http_object is None:
            app: Any = self.app
            self.http_object = app.http_class(self)
            self.active_at = monotonic()
            self.check_timeouts()

    @override
    def data_received(self, data: bytes) -> None:
        http = self.http_object
        if self.websocket is not None:
            self.websocket.data_received(data)
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
        if self.http_object is not None:
            self.http_object.upgrade_websocket = True
        try:
            return await super().websocket_handshake(request, subprotocols)
        except BaseException:
            if self.http_object is not None:
                self.http_object.upgrade_websocket = False
            raise

    @override
    def close_if_idle(self) -> bool:
        """Sanic's: close the connection unless a request is under way."""
        if self.on_closing is None:
            close: Callable[[], bool] = super().close_if_idle
            return close()
        self.on_closing()
        return False

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        if self.http_object is not None:
            self.http_object.is_writable = False
        self._watch_reader()

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        if self.http_object is not None:
            self.http_object.is_writable = True
            if self.http_object.on_writable is not None:
                self.http_object.on_writable()
        self._leave_reader()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._leave_reader()
        if self.http_object is not None:
            self.http_object.stop_watching()
        self.traffic.connections.discard(self)
        super().connection_lost(exc)

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
        request = self.http_object.request if self.http_object is not None else None
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
