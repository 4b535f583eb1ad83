"""One HTTP/1.1 connection to a provider.

A connection is one protocol object, parsed by httptools (llhttp, Node's parser). It has no task, no stream
object and no timer of its own per request, and a read that finds data does not wait. It carries one exchange
at a time:

    send -> head -> read (or `attach` a receiver) -> release (or `drain_in_background`)

After a complete exchange the pool keeps it, idle. Two things can go wrong with an idle connection:

- The server closes it, perhaps just when the next request is sent. It has then not seen that request, or
  has crashed while it worked on it; nothing but time tells these apart. A close without a byte of an answer
  within `STALE_CONNECTION_S` of sending on a reused connection is reported as `is_stale_connection`. Nothing
  is sent again here: that is the retry policy's decision.
- The server sends bytes that no request asked for, such as an answer sent twice, which would be read as the
  answer to the next request. `data_received` closes the connection if the event loop reads them while it is
  idle; `is_usable` asks the kernel for those (and for a FIN) that the loop has not read yet.

The size limits are those of a well-behaved server; exceeding them is an UpstreamBadResponse.
"""

from __future__ import annotations

import asyncio
import select
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, cast

import httptools
from typing_extensions import override

from sanic_proxy import errors

if TYPE_CHECKING:
    from sanic_proxy.upstream.pool import Pool
    from sanic_proxy.upstream.request import Body, Origin, Upload

MAX_HEAD_BYTES = 32 * 1024
# When the reader is slower than the provider: past this, reading from the connection is paused.
MAX_BUFFERED_BYTES = 256 * 1024
# How long, and for how many bytes, the end of a body is awaited after the last frame of a stream.
DRAIN_S = 0.25
MAX_DRAIN_BYTES = 64 * 1024
STALE_CONNECTION_S = 0.1
# With one of these headers the end of a body can be told from a connection that was cut.
LENGTHS = frozenset({"content-length", "transfer-encoding"})
# The spellings of the headers that most providers send, so that they need no decoding.
KNOWN_NAMES = {
    spelling.encode(): name
    for name in (
        *("cache-control", "cf-cache-status", "cf-ray", "connection", "content-encoding", "content-length"),
        *("content-type", "date", "openai-processing-ms", "openai-version", "server", "set-cookie"),
        *("strict-transport-security", "transfer-encoding", "vary", "via", "x-content-type-options"),
        *("x-ratelimit-limit-requests", "x-ratelimit-limit-tokens", "x-ratelimit-remaining-requests"),
        *("x-ratelimit-remaining-tokens", "x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"),
        *("x-request-id",),
    )
    for spelling in (name, name.title())
}


class Receiver(ABC):
    """Takes a body as it arrives, instead of reading it."""

    __slots__ = ()

    @abstractmethod
    def received(self, data: bytes) -> None:
        """Bytes of the body."""

    @abstractmethod
    def ended(self, failure: errors.UpstreamError | None) -> None:
        """There are no more; `failure` is why there should have been."""


class Connection(asyncio.Protocol):
    """See the module. `has_length`: whether the end of the body can be told from a connection that was cut.

    The timer is not reset whenever data arrives: when it fires it compares the time with the current
    deadline, and is set again if that has moved.
    """

    __slots__ = (
        "_body_size",
        "_deadline",
        "_failure",
        "_head_bytes",
        "_header_bytes",
        "_is_interim",
        "_is_large_read",
        "_is_reused",
        "_is_uploading",
        "_loop",
        "_parser",
        "_pieces",
        "_poll",
        "_pool",
        "_receiver",
        "_room",
        "_sent_at",
        "_timer",
        "_timer_at",
        "_transport",
        "_waiter",
        "_waits_for_head",
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
        self._poll: select.poll | None = None
        self._is_reused = False
        self._sent_at = 0.0
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
        self.has_answered = False  # whether a byte of an answer has been received
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

    def may_be_kept(self) -> bool:
        """Whether the exchange has ended so that the connection can carry another one.

        It cannot while a part of the request has not been sent yet: the provider has answered early.
        """
        return not (
            self.is_closed
            or not self.is_reusable
            or self._is_uploading
            or (self._transport is not None and self._transport.get_write_buffer_size() > 0)
        )

    # One exchange

    def is_usable(self) -> bool:
        """Whether an idle connection can carry a request: it is open, and nothing has arrived on it.

        One system call, on the socket below TLS. Unread TLS records may be harmless (a session ticket); a new
        connection is then made without need, which is rare, as the loop reads them soon after they arrive.
        """
        return not (
            self.is_closed
            or (self._transport is not None and self._transport.is_closing())
            or (self._poll is not None and self._poll.poll(0))
        )

    def send(self, pieces: Body) -> None:
        """Begin an exchange."""
        self._is_reused = self.status != 0  # that of the exchange before
        self._reset()
        self._sent_at = self._loop.time()
        if self.is_closed:
            self._failure = self._disconnected()
        if self._transport is None:
            return
        if len(pieces) == 1:
            self._transport.write(pieces[0])
        else:
            self._transport.writelines(pieces)

    def begin_upload(self, head: bytes) -> None:
        """Begin an exchange whose body is sent by `upload`."""
        self.send((head,))
        self._is_uploading = True

    async def upload(self, upload: Upload, stall_s: float) -> None:
        """Send a body as it is received; return early if the provider answers or disconnects.

        Raises UpstreamTimeout if the provider accepts nothing for `stall_s`, and what `upload` raises.
        """
        async for piece in upload.pieces:
            if self.status or self.is_closed or self._transport is None:
                return
            self._transport.write(upload.framed(piece))
            if self._room is not None:
                await self._wait_for_room(self._room, stall_s)
        if self._transport is not None:
            self._transport.write(upload.end)
        self._is_uploading = False

    async def _wait_for_room(self, room: asyncio.Future[None], stall_s: float) -> None:
        try:
            async with asyncio.timeout(stall_s):
                await room
        except TimeoutError:
            raise errors.UpstreamTimeout(
                f"The provider accepted no more of the request for {stall_s:g} s"
            ) from None

    def head(self, until: float) -> asyncio.Future[bool]:
        """Done when the status and headers are here; with False if `until` (loop time) is reached first.

        The future raises why there will be none.
        """
        waiter = self._waiter = self._loop.create_future()
        self._waits_for_head = True
        self._deadline = until
        if self._timer is None or self._timer_at > until:
            self._set_timer(until)
        if self.status or self._failure is not None:
            self._wake()
        return waiter

    async def read(self, until: float) -> bytes | None:
        """The bytes of the body received so far; b"" at its end; None if `until` is reached first."""
        while not self._pieces:
            if self._failure is not None:
                raise self._failure
            if self.is_complete:
                return b""
            if not await self._wait(until):
                return None
        data = self._take()
        if self.is_paused:
            self.resume()
        return data

    def complete_body(self) -> bytes | None:
        """The whole body if it has been received and nothing has been read of it yet, else None."""
        if not self.is_complete or self._failure is not None:
            return None
        pieces = self._pieces
        return pieces.pop() if len(pieces) == 1 else self._take()

    def release(self) -> None:
        """End the exchange: the connection returns to the pool if the body is complete, else it is closed."""
        self._receiver = None
        self._pieces.clear()
        if self._pool is not None:
            self._pool.give_back(self)
        else:
            self.close()

    def drain_in_background(self) -> None:
        """As `release`, but first wait up to `DRAIN_S` for the end of the body, to keep the connection.

        The content is complete; the last chunk of its framing may still be on its way. Nobody waits for this.
        """
        if self.is_complete or self._pool is None:
            self.release()
            return
        self.resume()
        self._receiver = receiver = _Drain(self)
        self._pool.draining.add(self)
        self._loop.call_later(DRAIN_S, self._stop_draining, receiver)

    def _stop_draining(self, receiver: Receiver) -> None:
        if self._receiver is receiver:
            self.release()

    def _take(self) -> bytes:
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._body_size = 0
        return data

    def attach(self, receiver: Receiver | None) -> bool:
        """Pass what has been received, and all that follows, to `receiver`. None: it is read again."""
        self._receiver = receiver
        if receiver is not None:
            self.resume()  # it was paused for a slow reader; the receiver pauses for itself
            self._deliver(receiver)
        return True

    def _deliver(self, receiver: Receiver) -> None:
        if self._pieces:
            receiver.received(self._take())
        if self.is_complete or self._failure is not None:
            receiver.ended(self._failure)

    def pause(self) -> None:
        """Stop reading, so that the provider waits."""
        if not self.is_paused and self._transport is not None and not self.is_closed:
            self.is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self.is_paused and self._transport is not None:
            self.is_paused = False
            if not self.is_closed:
                self._transport.resume_reading()

    def _wait(self, until: float) -> asyncio.Future[bool]:
        """Done with True when data has arrived or the connection is lost, with False at `until`."""
        waiter = self._waiter = self._loop.create_future()
        self._waits_for_head = False
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
        self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        waiter = self._waiter
        if waiter is None or waiter.done():
            return  # no task waits; the next wait sets it again
        if self._loop.time() < self._deadline:
            self._set_timer(self._deadline)
        else:
            waiter.set_result(False)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        if not self._waits_for_head or self.status:
            waiter.set_result(True)
        elif self._failure is not None:
            waiter.set_exception(self._failure)

    def close(self) -> None:
        """Close at once; what is still to be received is lost."""
        self.is_closed = True
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()

    # asyncio's protocol

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        connected = transport.get_extra_info("socket")
        if connected is not None:
            self._poll = select.poll()
            self._poll.register(connected.fileno(), select.POLLIN)

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
            self.close()  # no request asked for it
            return
        self.has_answered = True
        self._is_large_read = len(data) > MAX_HEAD_BYTES
        count = len(self._pieces)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.is_reusable = False
            if not self.is_complete:  # else the answer is good, and what follows it is dropped
                self._fail(errors.UpstreamBadResponse("The provider's answer is not valid HTTP"))
        if len(self._pieces) > count:
            self._head_bytes = 0
        elif not self.is_complete:
            # All of it belongs to a head or to the framing of a body, which the parser collects however
            # long it is.
            self._head_bytes += len(data)
        if self._header_bytes > MAX_HEAD_BYTES or self._head_bytes > MAX_HEAD_BYTES:
            self._fail(
                errors.UpstreamBadResponse(f"The provider's headers are larger than {MAX_HEAD_BYTES} bytes")
            )
        if self._receiver is not None:
            self._deliver(self._receiver)
        else:
            self._wake()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        self.is_reusable = False
        del self._parser  # a reference cycle, which would keep both until the garbage collector runs
        self._stop_timer()
        self.resume_writing()
        if not self.is_complete and self._failure is None:
            if self.status and not self.has_length and exc is None:
                self.is_complete = True  # a body without length ends with its connection
            else:
                self._failure = self._disconnected()
        if self._receiver is not None:
            self._deliver(self._receiver)
        else:
            self._wake()

    def _disconnected(self) -> errors.UpstreamDisconnected:
        if self.has_answered:
            return errors.UpstreamDisconnected(
                "The connection was lost before the provider's answer was complete"
            )
        is_soon = self._loop.time() - self._sent_at <= STALE_CONNECTION_S
        return errors.UpstreamDisconnected(
            "The provider closed the connection without an answer",
            is_stale_connection=self._is_reused and is_soon,
            is_new_connection=not self._is_reused,
        )

    def _fail(self, failure: errors.UpstreamError) -> None:
        if self._failure is None:
            self._failure = failure
        self.close()

    # httptools's callbacks

    def on_message_begin(self) -> None:
        if self.is_complete:
            raise ValueError("an answer without a request")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_large_read:
            self._header_bytes += len(name) + len(value)
        if self.status:
            return  # a trailer field, which must not replace a header
        headers = self.headers
        key = KNOWN_NAMES.get(name) or name.decode("latin-1").lower()
        if key == "content-encoding" and key in headers:
            headers[key] += f", {value.decode('latin-1')}"
        else:
            headers[key] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        headers = self.headers
        if 100 <= status < 200 and status != 101:
            self._is_interim = True
            headers.clear()
        else:
            self.status = status
            self.has_length = not LENGTHS.isdisjoint(headers) or status in {204, 304}

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        if self._receiver is None:
            self._body_size += len(body)
            if self._body_size > MAX_BUFFERED_BYTES:
                self.pause()

    def on_message_complete(self) -> None:
        if self._is_interim:
            self._is_interim = False
            return
        self.is_complete = True
        self.is_reusable = self._parser.should_keep_alive()


class _Drain(Receiver):
    """Discards what follows the content, until the body ends or exceeds the limit."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._left_bytes = MAX_DRAIN_BYTES

    @override
    def received(self, data: bytes) -> None:
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            self._connection.close()

    @override
    def ended(self, failure: errors.UpstreamError | None) -> None:
        self._connection.release()
