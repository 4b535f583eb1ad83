"""One streamed answer, from its opening to its end.

A `Stream` joins a source (an upstream's answer, or frames of our own) with filters that decide which bytes
may pass, and whether the answer is complete. It has two phases:

1. `begin` reads up to the first content. Frames without content (a chunk with nothing but the role) are held
   back until then, so that a failure before it is still unseen by the client: the request keeps its status,
   or moves to another target. `hold` reads on, where the model's `hold_back` says so. This is all that the
   attempts loop knows of a stream.
2. `pump` sends the rest. Where the source delivers its bytes by itself (a connection of our own), a `Relay`
   moves them by callbacks; else they are read, and sent by `await response.send(frame)`.

The owner of a stream closes it, whatever happened.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.config.saving import HoldBack
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.streams import sse
from sanic_proxy.streams.filters import FilterChain, StreamFilter
from sanic_proxy.upstream.client import Response
from sanic_proxy.upstream.connection import Receiver

# So long after its last known progress a stream is taken on trust: looking costs a parse of each frame.
LOOK_AFTER_S = 30.0
# Frames without content are held back up to this size; a stream that brings more has begun.
MAX_HELD_BYTES = 1024 * 1024
# The same for `hold_back`.
MAX_HOLD_BACK_BYTES = 16 * 1024 * 1024


class Sink(Protocol):
    """A client's connection with a chunked answer that has begun. `on_writable` is called when it drains."""

    on_writable: Callable[[], None] | None
    loop: asyncio.AbstractEventLoop

    def push(self, data: bytes) -> bool: ...
    def push_last(self, data: bytes) -> None: ...


class Heartbeat(NamedTuple):
    """What the client is sent while there is nothing of an answer yet.

    `opening` precedes the first beat and belongs to the answer: it is sent once, and not again with the
    answer.
    """

    beat: bytes = sse.PING
    opening: bytes = b""


PINGS = Heartbeat()
BeforeEnd = Callable[[bytes], Awaitable[bytes]]


class Frames(Response):
    """Frames of our own as the source of a stream; `pause_s` passes before each but the first."""

    __slots__ = ("_frames", "_pause_s", "_wait_s")

    def __init__(self, frames: Iterable[bytes], *, pause_s: float = 0.0) -> None:
        self._frames: Iterator[bytes] = iter(frames)
        self._pause_s = pause_s
        self._wait_s = 0.0

    @override
    async def read_some(self, wait_s: float | None = None) -> bytes | None:
        if self._wait_s:
            await asyncio.sleep(self._wait_s)
        self._wait_s = self._pause_s
        return next(self._frames, b"")


class Parts(NamedTuple):
    """What a stream is made of, for another one to go on with: see `Stream.hand_over`."""

    source: Response
    stream_filter: StreamFilter
    unread: bytes
    begun: bytes
    opening: bytes
    is_over: bool
    failure: errors.ProxyError | None


class Stream:
    """See the module.

    `opening` precedes the first frames, unless it was sent before them while the client waited
    (`Heartbeat.opening`). `begun` is what `begin` has read: the first content. What the filters counted goes
    to `record` when the stream is closed; `on_failure` is called with the error of a stream that fails after
    it began. `before_end` is awaited with the last frames of a stream that is complete, before they are sent,
    and returns those to send.
    """

    __slots__ = (
        "_begun",
        "_failure",
        "_filter",
        "_is_over",
        "_progress_at",
        "_source",
        "before_end",
        "begun",
        "on_failure",
        "opening",
        "record",
        "sent_bytes",
    )  # fmt: skip

    def __init__(
        self,
        source: Response,
        stream_filter: StreamFilter,
        record: RequestRecord,
        *,
        begun: bytes = b"",
        opening: bytes = b"",
    ) -> None:
        self._source = source
        self._filter = stream_filter
        self._begun = begun  # has been read of the source already
        self._failure: errors.ProxyError | None = None
        self._is_over = False
        self._progress_at = 0.0
        self.record = record
        self.begun = b""
        self.opening = opening
        self.on_failure: Callable[[errors.ProxyError], None] | None = None
        self.before_end: BeforeEnd | None = None
        self.sent_bytes = 0

    @classmethod
    def of_frames(
        cls, frames: Iterable[bytes], record: RequestRecord, *, pause_s: float = 0.0, opening: bytes = b""
    ) -> Stream:
        """A stream of frames that are made here, which needs no filter."""
        return cls(Frames(frames, pause_s=pause_s), StreamFilter(), record, opening=opening)

    def add_filter(self, then: StreamFilter) -> None:
        """Pass all frames through `then` as well, `opening` included. Before `begin`."""
        self._filter = FilterChain(self._filter, then)
        if self.opening:
            self.opening = then.feed(self.opening)

    def hide_usage(self) -> None:
        """Keep frames with nothing but usage from the client. Before `begin`."""
        self._filter.hide_usage()

    def skip_malformed(self) -> None:
        """Drop malformed frames and count them, instead of failing. Before `begin`."""
        self._filter.skip_malformed()

    async def begin(self) -> None:
        """Read up to the first content, into `begun`. Raises the failure of a stream without any."""
        stream_filter, source = self._filter, self._source
        piece = self._begun or await source.read_some() or b""
        self._begun = b""
        held = b""
        while True:
            held += stream_filter.feed(piece) if piece else stream_filter.end()
            has_content = stream_filter.has_content or len(held) > MAX_HELD_BYTES
            self._is_over = stream_filter.is_done or not piece
            if has_content:
                source.begin_content()
            self._failure = stream_filter.failure
            if self._failure is not None and not (held and has_content):
                raise self._failure
            if has_content or self._is_over:
                self.begun = held
                return
            piece = await source.read_some() or b""

    async def hold_end(self, before_end: BeforeEnd | None) -> None:
        """Have `before_end` awaited before the stream's last frames are sent: now, if `begun` has them."""
        self.before_end = before_end
        if before_end is not None and self._is_over and self._failure is None:
            self.begun = await before_end(self.begun)
            self.before_end = None

    @property
    def failed(self) -> Callable[[errors.ProxyError], bytes]:
        """Makes the frames that end this stream after a failure; b"" where its dialect has one for all.

        To be taken before the stream is closed.
        """
        return self._filter.failed

    async def hold(self, hold_back: HoldBack) -> None:
        """After `begin`: read on, into `begun`, for as long as `hold_back` says.

        Raises what ended the stream early, of which the client has then seen nothing. At most
        MAX_HOLD_BACK_BYTES are held back.
        """
        now = asyncio.get_running_loop().time
        self._progress_at = now()
        until = self._progress_at + hold_back.seconds
        held, size, count = [self.begun], len(self.begun), self.begun.count(b"\n\n")
        while not self._is_over and self._failure is None and size < MAX_HOLD_BACK_BYTES:
            left_s = until - now()
            if left_s <= 0 or count >= hold_back.frames:
                break
            frames = await self._next(None if left_s == math.inf else left_s)
            if frames:
                held.append(frames)
                size += len(frames)
                count += frames.count(b"\n\n")
        if self._failure is not None:
            raise self._failure
        self.begun = b"".join(held)

    async def frames(self) -> AsyncIterator[bytes]:
        """All frames, for an answer that is not sent as a stream. Raises what ended the stream early."""
        await self.begin()
        async for frames in self.begun_frames():
            yield frames

    async def begun_frames(self) -> AsyncIterator[bytes]:
        """The frames of a stream that has begun, from its first one. Raises what ended it early."""
        await self.hold_end(self.before_end)
        yield self.opening + self.begun
        async for frames in self._rest():
            yield frames

    async def _rest(self) -> AsyncIterator[bytes]:
        """What follows `begun`."""
        self._progress_at = asyncio.get_running_loop().time()
        try:
            while not self._is_over and self._failure is None:
                if frames := await self._held(await self._next() or b""):
                    yield frames
            if self._failure is not None:
                raise self._failure
            self._source.drain()
            self._note_reported()
        except errors.ProxyError as exc:
            if self.on_failure is not None:
                self.on_failure(exc)
            raise

    async def _held(self, frames: bytes) -> bytes:
        """`frames`; if they are the last ones of a complete stream, those that `before_end` returns."""
        if self._is_over and self._failure is None and self.before_end is not None:
            return await self.before_end(frames)
        return frames

    async def _next(self, wait_s: float | None = None) -> bytes | None:
        """The next frames, possibly none; None if nothing came for `wait_s`. Raises UpstreamStalled."""
        source, stream_filter = self._source, self._filter
        piece = await source.read_some(wait_s)
        if piece is None:
            return None
        frames = stream_filter.feed(piece) if piece else stream_filter.end()
        self._is_over = stream_filter.is_done or not piece
        self._failure = stream_filter.failure
        now = asyncio.get_running_loop().time()
        if frames and (now - self._progress_at < LOOK_AFTER_S or stream_filter.has_progress(frames)):
            self._progress_at = now
        elif now - self._progress_at >= source.stall_s:
            raise stalled(source.stall_s)
        return frames

    async def pump(self, response: StreamResponse) -> None:
        """Send what follows `begun` to `response`, which has begun. Raises what ended the stream early."""
        try:
            if self._failure is not None:
                raise self._failure
            if not self._is_over:
                await self._pump(response)
            self._source.drain()
            self._note_reported()
        except errors.ProxyError as exc:
            if self.on_failure is not None:
                self.on_failure(exc)
            raise

    def _note_reported(self) -> None:
        """Count a failure that the provider told the client itself, as the end of a complete stream."""
        if (error := self._filter.reported) is not None:
            self.record.ended = error.code or error.type
            if self.on_failure is not None:
                self.on_failure(error)

    async def _pump(self, response: StreamResponse) -> None:
        relay = Relay(self._source, self._filter, self.before_end)
        try:
            await relay.run(response)
        finally:
            self.sent_bytes += relay.sent_bytes
            self.record.longest_gap_s = max(self.record.longest_gap_s, relay.longest_gap_s)

    def hand_over(self) -> Parts:
        """The parts of this stream, for another one to go on with. This one has none of them any more."""
        parts = Parts(
            self._source,
            self._filter,
            self._begun,
            self.begun,
            self.opening,
            self._is_over,
            self._failure,
        )
        self._source, self._filter = Frames(()), StreamFilter()
        return parts

    def close(self) -> None:
        """Release the source. Safe to call twice."""
        record = self.record
        record.usage = self._filter.usage or record.usage
        record.dropped_frames += self._filter.dropped_frames
        self._filter = StreamFilter()
        self._source.close()


def stalled(limit_s: float) -> errors.UpstreamStalled:
    """The error for a stream without progress for `limit_s`."""
    return errors.UpstreamStalled(f"The provider's stream made no progress for {limit_s:g} s")


class StreamResponse(Protocol):
    """A response to which frames are sent: Sanic's, with its connection as `stream`."""

    @property
    def stream(self) -> Any: ...
    async def send(self, data: bytes, end_stream: bool | None = None) -> None: ...


class Relay(Receiver):
    """The rest of an upstream's stream, on its way to the client without a task that wakes for it.

    What the connection reads goes through the filter and out in the same turn of the event loop. One
    timer watches the clocks; it is not touched while frames come. A client that is slow holds back its
    provider, whose clocks then stand still.

    Progress is looked for only when none has been seen for a while: what comes before that is taken for it.
    """

    __slots__ = (
        "_before_end",
        "_done",
        "_filter",
        "_heard_at",
        "_is_held",
        "_last",
        "_look_after_s",
        "_loop",
        "_progress_at",
        "_sink",
        "_source",
        "_timer",
        "_trusted_at",
        "longest_gap_s",
        "sent_bytes",
    )  # fmt: skip

    def __init__(
        self, source: Response, stream_filter: StreamFilter, before_end: BeforeEnd | None = None
    ) -> None:
        self._source = source
        self._filter = stream_filter
        self._before_end = before_end
        self._last = b""  # the last frames, while `before_end` is awaited
        self._is_held = False
        self._timer: asyncio.TimerHandle | None = None
        self._look_after_s = min(LOOK_AFTER_S, source.stall_s / 4)
        self.longest_gap_s = 0.0
        self.sent_bytes = 0

    async def run(self, response: StreamResponse) -> None:
        """Until the stream's end has been seen. Raises what ended it before."""
        sink: Sink = response.stream
        self._loop = sink.loop
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._sink = sink
        self._restart_clocks()
        self._source.begin_content()
        if not self._source.attach(self):
            await self._send_read(response)
            return
        sink.on_writable = self._release
        try:
            self._set_timer()
            await self._done
            if self._before_end is not None:
                self._push_last(await self._before_end(self._last))
        finally:
            sink.on_writable = None
            if self._timer is not None:
                self._timer.cancel()
            self._source.attach(None)

    def _restart_clocks(self) -> None:
        """Measure silence and stalls from now on."""
        self._heard_at = self._progress_at = self._trusted_at = self._loop.time()

    async def _send_read(self, response: StreamResponse) -> None:
        """The same with a source that has to be read. `send` waits for a slow client."""
        stream_filter = self._filter
        while not stream_filter.is_done:
            asked_at = self._loop.time()
            piece = await self._source.read_some()
            gap_s = self._loop.time() - asked_at
            if gap_s > self.longest_gap_s:  # noqa: PLR1730 - `max` costs 1,200 instructions
                self.longest_gap_s = gap_s
            frames = stream_filter.feed(piece) if piece else stream_filter.end()
            self.sent_bytes += len(frames)
            if frames and not (stream_filter.is_done or not piece):
                now = self._loop.time()
                if now - self._progress_at < self._look_after_s or stream_filter.has_progress(frames):
                    self._progress_at = self._trusted_at = now
                await response.send(frames)
                self._trusted_at += self._loop.time() - now  # the client's time is not the provider's
            if stream_filter.failure is not None:
                raise stream_filter.failure
            if stream_filter.is_done or not piece:
                if self._before_end is not None:
                    frames = await self._before_end(frames)
                self._sink.push_last(frames)
                return
            if self._loop.time() >= self._stalls_at():
                raise stalled(self._source.stall_s)

    @override
    def received(self, data: bytes) -> None:
        """Bytes of the stream."""
        if self._done.done():
            return
        now = self._loop.time()
        gap_s = now - self._heard_at
        if gap_s > self.longest_gap_s:  # noqa: PLR1730 - `max` costs 1,200 instructions
            self.longest_gap_s = gap_s
        self._heard_at = now
        stream_filter = self._filter
        frames = stream_filter.feed(data)
        if frames:
            if now - self._progress_at < self._look_after_s:
                self._trusted_at = now
            elif stream_filter.has_progress(frames):
                self._progress_at = self._trusted_at = now
        if stream_filter.is_done:
            self._finish(frames)
            return
        if frames:
            self.sent_bytes += len(frames)
            if not self._sink.push(frames):
                self._is_held = True
                self._source.pause()
        if stream_filter.failure is not None:
            self._done.set_exception(stream_filter.failure)

    @override
    def ended(self, failure: errors.ProxyError | None) -> None:
        """The connection has no more."""
        if self._done.done():
            return
        try:
            if failure is not None:
                raise failure
            self._finish(self._filter.end())
        except errors.ProxyError as exc:
            self._done.set_exception(exc)

    def _finish(self, frames: bytes) -> None:
        if self._before_end is None:
            self._push_last(frames)
        else:
            self._last = frames
        self._done.set_result(None)

    def _push_last(self, frames: bytes) -> None:
        self.sent_bytes += len(frames)
        self._sink.push_last(frames)

    def _release(self) -> None:
        self._is_held = False
        self._restart_clocks()
        self._source.resume()

    def _set_timer(self) -> None:
        due_at = min(self._source.due_at(self._heard_at), self._stalls_at())
        self._timer = self._loop.call_at(due_at, self._strike)

    def _stalls_at(self) -> float:
        return self._trusted_at + self._source.stall_s

    def _strike(self) -> None:
        if self._done.done():
            return
        if self._is_held:
            self._restart_clocks()
        now = self._loop.time()
        if now >= self._source.due_at(self._heard_at):
            self._done.set_exception(self._source.overdue(now))
        elif now >= self._stalls_at():
            self._done.set_exception(stalled(self._source.stall_s))
        else:
            self._set_timer()
