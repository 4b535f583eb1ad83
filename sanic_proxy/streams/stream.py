"""What makes a stream of frames whole: heartbeats while nothing comes, a guard on its end, and a relay.

A stream that passes through is complete when its end was seen (`[DONE]` or a finish reason), never
because the connection ended. Frames the proxy makes to fill a wait are `Filler`s: until another
frame has been sent, the client has seen nothing from the upstream. What follows the first frame of a
stream that passes through is moved by a `Relay`.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol

from sanic_proxy import errors
from sanic_proxy.openai import codec
from sanic_proxy.streams import sse
from sanic_proxy.upstream import error_parser

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


class ChatGuard:
    """Bytes of an upstream's chat stream -> the frames that may reach the client.

    `failure` is set when a frame cannot be passed on: what `feed` returned before it still may be.
    After `is_done` or a failure, whatever else comes is dropped.
    """

    __slots__ = ("_begun", "_finished", "_has_begun", "_splitter", "failure", "is_done", "usage")

    def __init__(self) -> None:
        self._splitter = sse.FrameSplitter()
        self._has_begun = False
        # By index: each answer that has begun has an end of its own.
        self._begun: set[int] = set()
        self._finished: set[int] = set()
        self.is_done = False
        self.failure: errors.ProxyError | None = None
        self.usage: dict[str, Any] | None = None

    def feed(self, data: bytes) -> bytes:
        """The good frames that `data` completes, joined; `data` itself where it is nothing but those."""
        if self.is_done or self.failure is not None:
            return b""
        payloads = self._splitter.plain_payloads(data)
        if payloads is not None and self._all_pass(payloads):
            return data
        good: list[bytes] = []
        try:
            for frame in self._splitter.feed(data):
                self._has_begun = True
                if frame.payload == sse.DONE_PAYLOAD:
                    self.is_done = True
                    good.append(frame.raw)
                    break
                if self._passes(frame.payload, frame.event):
                    good.append(frame.raw)
        except errors.ProxyError as exc:
            self.failure = exc
        return b"".join(good)

    def _all_pass(self, payloads: list[bytes]) -> bool:
        """Whether frames may pass as they are; where one may not, they are looked at one by one."""
        is_last = payloads[-1] == sse.DONE_PAYLOAD
        if is_last:
            payloads.pop()
        try:
            for payload in payloads:
                if not self._passes(payload):
                    return False
        except errors.ProxyError:
            return False
        self._has_begun = True
        self.is_done = is_last
        return True

    def end(self) -> bytes:
        """What is still to be sent when the connection has ended; raises if that is a cut."""
        if self.is_done:
            return b""
        last = self._last_frame()
        if last.rstrip().endswith(sse.DONE_PAYLOAD):
            return last
        if self._finished and self._finished >= self._begun:
            return last + sse.DONE
        if not self._has_begun:
            raise errors.UpstreamBadResponse("The provider answered a streaming request with no event stream")
        raise errors.UpstreamDisconnected("The provider's stream ended before the answer was complete")

    def has_progress(self, frames: bytes) -> bool:
        """Whether any of `frames`, which have passed, brings something that a reader has waited for."""
        return any(_brings(frame.payload) for frame in sse.FrameSplitter().feed(frames))

    def _last_frame(self) -> bytes:
        """A frame whose blank line is missing. Half a frame, though, is a cut."""
        if b"data:" not in self._splitter.pending:
            return b""
        last = self.feed(b"\n\n")
        if self.failure is not None:
            raise errors.UpstreamDisconnected("The provider's stream broke off inside a frame")
        return last

    def _passes(self, payload: bytes, event: bytes = b"") -> bool:
        try:
            chunk = codec.loads_exact(payload)
        except ValueError:
            raise errors.UpstreamBadFrame("A frame of the provider's stream is not valid JSON") from None
        if not isinstance(chunk, dict):
            raise errors.UpstreamBadFrame("A frame of the provider's stream is not a JSON object")
        if chunk.get("error") or event == b"error":
            raise error_parser.error_in_band(chunk)
        if isinstance(usage := chunk.get("usage"), dict):
            self.usage = usage
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            return False  # `{}` and its like break three client libraries, and say nothing
        for choice in choices:
            if isinstance(choice, dict):
                index = choice.get("index")
                index = index if isinstance(index, int) else 0
                if choice.get("finish_reason") is not None:
                    self._finished.add(index)
                elif index not in self._begun:
                    self._begun.add(index)
        return True


def _brings(payload: bytes) -> bool:
    """Whether a chunk has text, a call or an end in it."""
    if payload == sse.DONE_PAYLOAD:
        return True
    for choice in codec.loads_exact(payload).get("choices") or ():
        if not isinstance(choice, dict):
            continue
        delta = choice.get("delta")
        told = [value for key, value in delta.items() if key != "role"] if isinstance(delta, dict) else []
        if choice.get("finish_reason") or choice.get("text") or any(told):
            return True
    return False


class Guard(Protocol):
    """Who decides what of an upstream's stream may reach the client: `ChatGuard` does for chats."""

    @property
    def failure(self) -> errors.ProxyError | None: ...
    @property
    def is_done(self) -> bool: ...
    def feed(self, data: bytes) -> bytes: ...
    def end(self) -> bytes: ...
    def has_progress(self, frames: bytes) -> bool: ...


class EventGuard:
    """Bytes of an event stream of any dialect -> its whole frames, byte for byte.

    Half a frame waits, so that an error frame can follow what has been sent. The stream is complete
    with its body, where that has a length or comes in chunks; else with an event that says so
    (`[DONE]`, a type ending in `.completed` or `.done`).
    """

    __slots__ = ("_has_length", "_last", "_tail", "failure")

    is_done = False

    def __init__(self, *, has_length: bool) -> None:
        self._has_length = has_length
        self._tail = b""
        self._last = b""
        self.failure: errors.ProxyError | None = None

    def feed(self, data: bytes) -> bytes:
        """The frames that `data` completes."""
        known = max(0, len(self._tail) - 3)
        tail = self._tail + data if self._tail else data
        end = max(tail.rfind(mark, known) + len(mark) for mark in _FRAME_ENDS)
        if end < len(_FRAME_ENDS[0]):
            self._tail = tail
            if len(tail) > sse.MAX_FRAME_BYTES:
                self.failure = errors.FrameTooLarge(
                    "A frame of the provider's stream is larger than the proxy holds"
                )
            return b""
        frames, self._tail = tail[:end], tail[end:]
        if not self._has_length and b"data:" in frames:
            self._last = frames
        return frames

    def has_progress(self, frames: bytes) -> bool:
        return b"data:" in frames

    def end(self) -> bytes:
        """What is still to be sent when the connection has ended; raises if that is a cut."""
        if not self._has_length and not _FINAL_EVENT.search(self._last):
            raise errors.UpstreamDisconnected("The provider's stream ended before the answer was complete")
        last, self._tail = self._tail, b""
        return last + b"\n\n" if last.strip() else b""


_FRAME_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_FINAL_EVENT = re.compile(rb'(?m)^data: ?\[DONE\]\r?$|"type"\s*:\s*"[\w.]+\.(?:completed|done)"')


class Passage:
    """Any bytes, as they are: those of a file."""

    __slots__ = ()

    failure = None
    is_done = False

    def feed(self, data: bytes) -> bytes:
        return data

    def has_progress(self, frames: bytes) -> bool:
        return bool(frames)

    def end(self) -> bytes:
        return b""


async def relayed(source: Source, guard: Guard, begun: bytes = b"") -> AsyncGenerator[bytes | Relay, None]:
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
        has_content = _has_content(guard, frames) or len(held) > MAX_HELD_BYTES
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


def _has_content(guard: Guard, frames: bytes) -> bool:
    """Whether `frames` hold content, a call or a finish reason: the client may not lose them any more."""
    return bool(frames) and guard.has_progress(frames)


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

    def __init__(self, source: Source, guard: Guard) -> None:
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
