"""A chat stream that goes on from another source when its own fails after it began.

The client has then seen a part of the answer, and the rest has to fit behind it: `seam` sees to that.
`SavedFilter` passes the frames of one attempt after the other to one client, and `SavedStream` replaces its
source. Which source comes next is decided by a callback, as that is routing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai.usage import added
from sanic_proxy.streams.filters import StreamFilter
from sanic_proxy.streams.seam import SentText
from sanic_proxy.streams.stream import Stream, StreamResponse


class SavedFilter(StreamFilter):
    """Frames of one attempt after the other -> one client's stream.

    `sent` is what the client has; `comment` is sent once, before the end.
    """

    __slots__ = (
        "_current",
        "_dropped_before",
        "_is_ended",
        "_then",
        "comment",
        "dropped_frames",
        "failure",
        "is_done",
        "reported",
        "sent",
    )

    def __init__(self, first: StreamFilter) -> None:
        self._current = first
        self._then: StreamFilter | None = None
        self._is_ended = False
        self._dropped_before = 0
        self.comment = b""
        self.sent = SentText()
        self._note()

    def add(self, then: StreamFilter) -> None:
        """Pass the frames of all attempts through `then`, a translation."""
        self._then = then

    @property
    def last_usage(self) -> JsonMapping | None:
        """What the current attempt alone has reported."""
        return self._current.usage

    def end_attempt(self) -> None:
        """The current attempt has failed."""
        self.sent.end_attempt(self._current.usage)
        self._dropped_before += self._current.dropped_frames
        self._current = StreamFilter()
        self._note()

    def go_on(self, later: StreamFilter, frames: bytes, *, is_over: bool) -> bytes:
        """What the client gets of the first `frames` of the attempt that goes on; `later` is its filter."""
        self._current = later
        return self._passed(frames, is_last=is_over)

    @property
    @override
    def has_content(self) -> bool:
        return self._current.has_content and (self._then is None or self._then.has_content)

    @property
    @override
    def usage(self) -> Json | None:
        """That of all attempts together."""
        before, current = self.sent.usage, self._current.usage
        return added(before, current or {}) if before else current

    @override
    def feed(self, data: bytes) -> bytes:
        frames = self._current.feed(data)
        return self._passed(frames, is_last=self._current.is_done)

    @override
    def end(self) -> bytes:
        return self._passed(self._current.end(), is_last=self._current.failure is None)

    @override
    def hide_usage(self) -> None:
        self._current.hide_usage()

    @override
    def skip_malformed(self) -> None:
        self._current.skip_malformed()

    @override
    def has_progress(self, frames: bytes) -> bool:
        return (self._then or self._current).has_progress(frames)

    @override
    def failed(self, error: errors.ProxyError) -> bytes:
        return b"" if self._then is None else self._then.failed(error)

    def _passed(self, frames: bytes, *, is_last: bool) -> bytes:
        if frames:
            self.sent.note(frames)
            if self._then is not None:
                frames = self._then.feed(frames)
        if is_last and not self._is_ended:
            self._is_ended = True
            if self._then is not None:
                frames += self._then.end()
            frames = self.comment + frames
        self._note()
        return frames

    def _note(self) -> None:
        current, then = self._current, self._then
        self.failure = current.failure or (None if then is None else then.failure)
        self.is_done = self.failure is None and (current.is_done or (then is not None and then.is_done))
        reported = current.reported or (None if then is None else then.reported)
        self.reported = reported if self.failure is None else None
        self.dropped_frames = self._dropped_before + current.dropped_frames


# Where a stream goes on that has failed: a stream behind a `Seam`, which has begun with what the client does
# not have; the last attempt in its record is the one that brought it. None: the failure is the end.
Resume = Callable[[errors.ProxyError, SentText], Awaitable[Stream | None]]


class SavedStream(Stream):
    """A stream that `resume` may give another source when it fails after it began."""

    __slots__ = ("_resume", "_saved")

    def __init__(self, first: Stream, resume: Resume) -> None:
        parts = first.hand_over()
        self._saved = SavedFilter(parts.stream_filter)
        self._resume = resume
        super().__init__(parts.source, self._saved, first.record, begun=parts.unread, opening=parts.opening)

    @override
    def add_filter(self, then: StreamFilter) -> None:
        self._saved.add(then)
        if self.opening:
            self.opening = then.feed(self.opening)

    @override
    def close(self) -> None:
        record, saved = self.record, self._saved
        if saved.sent.usage:
            record.is_usage_summed, record.last_usage = True, saved.last_usage
        super().close()

    @override
    async def pump(self, response: StreamResponse) -> None:
        while True:
            try:
                await super().pump(response)
            except errors.ProxyError as exc:
                frames = await self._resumed(exc)
                if frames is None:
                    raise
                frames = await self._held(frames)
                self.sent_bytes += len(frames)
                if frames:
                    await response.send(frames)
            else:
                return

    @override
    async def _rest(self) -> AsyncIterator[bytes]:
        while True:
            try:
                async for frames in super()._rest():
                    yield frames
            except errors.ProxyError as exc:
                resumed = await self._resumed(exc)
                if resumed is None:
                    raise
                if resumed := await self._held(resumed):
                    yield resumed
            else:
                return

    async def _resumed(self, error: errors.ProxyError) -> bytes | None:
        """The first frames of the attempt that goes on; None if there is none."""
        saved = self._saved
        if saved.sent.can_go_on:
            self._source.close()
            saved.end_attempt()
        at = len(saved.sent.text)
        later = await self._resume(error, saved.sent)
        if later is None:
            return None
        by = self.record.attempts[-1].target
        saved.comment += f": stream continued at character {at} by {by}\n".encode()
        parts = later.hand_over()
        self._source, self._is_over, self._failure = parts.source, parts.is_over, parts.failure
        is_complete = parts.is_over and parts.failure is None
        return saved.go_on(parts.stream_filter, parts.begun, is_over=is_complete)
