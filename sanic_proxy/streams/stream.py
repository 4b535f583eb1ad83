"""Streams of frames on their way to the client: heartbeats while nothing comes, and a relay.

Which bytes of an upstream's stream may pass, and whether it is complete, is decided by a filter (`filters`).
Frames the proxy makes to fill a wait are `Filler`s: until another frame has been sent, the client has seen
nothing from the upstream. What follows the first frame of a stream that passes through is moved by a `Relay`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol

from sanic_proxy import errors
from sanic_proxy.openai import codec
from sanic_proxy.streams import sse
from sanic_proxy.streams.filters import StreamFilter

# So long after its last known progress a stream is taken on trust: looking costs a parse of each frame.
LOOK_AFTER_S = 30.0
# Frames without content are held back up to this size; a stream that brings more has begun.
MAX_HELD_BYTES = 1024 * 1024


class Source(Protocol):
    """An upstream's answer, as far as a relay needs it; times are loop time."""

    @property
    def stall_s(self) -> float:
        """How long it may go on without progress."""
        return math.inf

    async def read_some(self, wait_s: float | None = None) -> bytes | None: ...

    def begin_content(self) -> None:
        """Content has come: the clock for the first content stops, those for silence and stalls start."""
        return

    def divert(self, receiver: Relay | None) -> bool:
        """Hand bytes on as they come; False where they have to be asked for."""
        return False

    def pause(self) -> None:
        """Bring no more bytes for now."""
        return

    def resume(self) -> None:
        """Bring bytes again."""
        return

    def due_at(self, heard_at: float) -> float:
        """When a clock strikes if nothing has come since `heard_at`."""
        return math.inf

    def overdue(self, now: float) -> errors.UpstreamTimeout:
        """The clock that has struck."""
        return errors.UpstreamTimeout("The answer took longer than allowed")


class Sink(Protocol):
    """Where a relay's frames go: a chunked answer to a client that has begun."""

    on_writable: Callable[[], None] | None
    loop: asyncio.AbstractEventLoop

    def push(self, data: bytes) -> bool: ...
    def push_last(self, data: bytes) -> None: ...


class Filler(bytes):
    """A frame of the proxy's own, sent to keep the client waiting; it promises nothing."""

    __slots__ = ()


class FirstFiller(Filler):
    """The first chunk of a stream that the proxy makes: sent once, however often a request is repeated."""

    __slots__ = ()


PING = Filler(sse.PING)


async def beats_until(
    pending: asyncio.Future[Any], *, beat: Filler, interval_s: float
) -> AsyncGenerator[Filler, None]:
    """Yield `beat` every `interval_s` until `pending` is done. Neither awaits nor cancels it."""
    while not (await asyncio.wait({pending}, timeout=interval_s))[0]:
        yield beat


async def discard(task: asyncio.Future[Any]) -> None:
    """End a task whose result nobody wants any more, and wait until it has ended."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # or asyncio logs that nobody looked


async def relayed(
    source: Source, guard: StreamFilter, begun: bytes = b""
) -> AsyncGenerator[bytes | Relay, None]:
    """The frames of a stream up to its first content, then a `Relay` for the rest.

    `begun` has been read of the stream already. Frames without content (a chunk with nothing but the
    role) are held back until content comes, so that a failure before it is still unseen by the client:
    it keeps its status, or the request moves to another target.
    """
    held = b""
    has_content = False
    while not has_content:
        piece = begun or await source.read_some() or b""
        begun = b""
        frames = guard.feed(piece) if piece else guard.end()
        held += frames
        has_content = guard.has_content or len(held) > MAX_HELD_BYTES
        is_over = guard.is_done or not piece
        if has_content:
            source.begin_content()
        if held and (has_content or (is_over and guard.failure is None)):
            yield held
        if guard.failure is not None:
            raise guard.failure
        if is_over:
            return
    yield Relay(source, guard)


def _stalled() -> errors.UpstreamStalled:
    return errors.UpstreamStalled("The provider's stream goes on, but brings nothing")


class Relay:
    """The rest of an upstream's stream, on its way to the client without a task that wakes for it.

    What the connection reads goes through the guard and out in the same turn of the event loop. One
    timer watches the clocks; it is not touched while frames come. A client that is slow holds back its
    provider, whose clocks then stand still.

    Progress is looked for only when none has been seen for a while: what comes before that is taken for it.
    """

    __slots__ = (
        "_done",
        "_guard",
        "_heard_at",
        "_is_held",
        "_look_after_s",
        "_loop",
        "_progress_at",
        "_room",
        "_sink",
        "_source",
        "_timer",
        "_trusted_at",
        "sent_bytes",
    )  # fmt: skip

    def __init__(self, source: Source, guard: StreamFilter) -> None:
        self._source = source
        self._guard = guard
        self._is_held = False
        self._room: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._look_after_s = min(LOOK_AFTER_S, source.stall_s / 4)
        self.sent_bytes = 0

    async def run(self, sink: Sink) -> None:
        """Until the stream's end has been seen. Raises what ended it before."""
        self._loop = sink.loop
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._sink = sink
        self._heard_at = self._progress_at = self._trusted_at = self._loop.time()
        self._source.begin_content()
        sink.on_writable = self._release
        try:
            if self._source.divert(self):
                self._set_timer()
                await self._done
            else:
                await self._ask()
        finally:
            sink.on_writable = None
            if self._timer is not None:
                self._timer.cancel()
            self._source.divert(None)

    async def _ask(self) -> None:
        """The same with a source whose bytes have to be asked for."""
        while not self._done.done():
            piece = await self._source.read_some()
            if piece:
                self.received(piece)
                if not self._done.done() and self._loop.time() >= self._stalls_at():
                    self._done.set_exception(_stalled())
            else:
                self.ended(None)
            if self._is_held and not self._done.done():
                self._room = self._loop.create_future()
                await self._room
        await self._done

    def received(self, data: bytes) -> None:
        """Bytes of the stream."""
        if self._done.done():
            return
        now = self._heard_at = self._loop.time()
        guard = self._guard
        frames = guard.feed(data)
        if frames:
            if now - self._progress_at < self._look_after_s:
                self._trusted_at = now
            elif guard.has_progress(frames):
                self._progress_at = self._trusted_at = now
        if guard.is_done:
            self._finish(frames)
            return
        if frames:
            self.sent_bytes += len(frames)
            if not self._sink.push(frames):
                self._is_held = True
                self._source.pause()
        if guard.failure is not None:
            self._done.set_exception(guard.failure)

    def ended(self, failure: errors.ProxyError | None) -> None:
        """The connection has no more."""
        if self._done.done():
            return
        try:
            if failure is not None:
                raise failure
            self._finish(self._guard.end())
        except errors.ProxyError as exc:
            self._done.set_exception(exc)

    def _finish(self, frames: bytes) -> None:
        self.sent_bytes += len(frames)
        self._sink.push_last(frames)
        self._done.set_result(None)

    def _release(self) -> None:
        self._is_held = False
        self._heard_at = self._progress_at = self._trusted_at = self._loop.time()
        self._source.resume()
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _set_timer(self) -> None:
        due_at = min(self._source.due_at(self._heard_at), self._stalls_at())
        self._timer = self._loop.call_at(due_at, self._strike)

    def _stalls_at(self) -> float:
        return self._trusted_at + self._source.stall_s

    def _strike(self) -> None:
        if self._done.done():
            return
        now = self._loop.time()
        if self._is_held:
            self._heard_at = self._progress_at = self._trusted_at = now
        if now >= self._source.due_at(self._heard_at):
            self._done.set_exception(self._source.overdue(now))
        elif now >= self._stalls_at():
            self._done.set_exception(_stalled())
        else:
            self._set_timer()


def error_frame(error: errors.ProxyError) -> bytes:
    """The frame that ends a stream which failed after it began. No `[DONE]` follows it."""
    return sse.encode(codec.dumps({"error": error.as_object()}))
