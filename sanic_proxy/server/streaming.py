"""A stream -> the client: the commit delay, heartbeats, and an end that never looks complete when it is not.

The status line is held back until the stream has begun, or the commit delay is over. Until then a failure
raises and gets its true HTTP status. After it a failure becomes one error event, and if even that cannot be
written the connection is aborted: a truncated answer must never look complete. One timer per stream serves
the commit and the heartbeats; it is not touched while frames go out. This is the one place that sends
heartbeats: it asks what they are made of when one is due.

The commit delay measures the silence of the upstream. The time that the proxy itself waits (for a limit
before the first attempt, a Retry-After or a backoff between two) is not part of it: `record.waited_until`
moves the commit, so that a rate limit keeps its 429 however long its Retry-After was.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection

from sanic_proxy.dialects.base import Dialect
from sanic_proxy.dialects.chat import CHAT
from sanic_proxy.errors import ProxyError
from sanic_proxy.server.error_responses import to_client_error
from sanic_proxy.server.request import ProxyRequest, Reply, header_lines
from sanic_proxy.streams.captured import CapturedResponse
from sanic_proxy.streams.stream import PINGS, BeforeEnd, Heartbeat, Stream

logger = logging.getLogger(__name__)

# How long a client that reads nothing is waited for with the frame that says what failed.
LAST_WORDS_S = 10.0

# Headers of every stream.
STREAM_LINES = header_lines(
    [
        ("cache-control", "no-cache, no-transform"),
        ("x-accel-buffering", "no"),  # nginx then passes each frame on at once
    ]
)


async def pump(  # noqa: PLR0913 - what the head, the heartbeats and an error depend on
    request: ProxyRequest,
    open_stream: Callable[[], Awaitable[Stream]],
    *,
    commit_delay_s: float,
    ping_s: float,
    headers: Callable[[], Collection[tuple[str, str]]],
    heartbeat: Callable[[], Heartbeat] = lambda: PINGS,
    dialect: Dialect = CHAT,
    keep_failure: BeforeEnd | None = None,
) -> None:
    """Send the stream that `open_stream` returns as the answer to `request`, and close it.

    Raises what happens before the commit, unless the dialect has that in the stream. `headers` is called
    once, at the commit: by then the provider may know more of them. After `ping_s` seconds without a frame
    the client gets a heartbeat: until the stream has begun that of `heartbeat`, then a comment.
    `keep_failure` is awaited with the frames that end a stream which failed, before they are sent, and
    returns those to send.
    """
    response = Reply("")
    opening = _Opening(request, response, headers, commit_delay_s, ping_s)
    opening.heartbeat = lambda: dialect.heartbeat(heartbeat())
    opening.ping = dialect.ping
    opening.stream_type = dialect.stream_type
    opening.keep_failure = keep_failure
    try:
        try:
            await _pump(request, response, opening, open_stream)
        finally:
            opening.close()
        request.record.ended = request.record.ended or "complete"
    except asyncio.CancelledError:
        if request.cut_by is not None and opening.is_over:
            await _fail(request, response, opening, dialect, request.cut_by)
        raise
    except Exception as exc:
        if not opening.is_over:
            if not isinstance(exc, ProxyError) or not dialect.streams_failure(exc, request.fields):
                raise
            opening.commit_empty()
        await _fail(request, response, opening, dialect, exc)


async def _pump(
    request: ProxyRequest,
    response: Reply,
    opening: _Opening,
    open_stream: Callable[[], Awaitable[Stream]],
) -> None:
    stream = await open_stream()
    # The stream is closed before its client is sent an error: the client may be slow to read it.
    opening.failed = stream.failed
    capture = request.record.capture
    try:
        await opening.begin(stream)
        if capture is not None:
            capture.add(stream.opening + stream.begun)
        try:
            await stream.pump(response if capture is None else CapturedResponse(response, capture))
        finally:
            request.record.sent(stream.sent_bytes)
        await response.send(end_stream=True)
    finally:
        stream.close()


class _Opening:
    """The time before the commit, and the heartbeats before and after it.

    `heartbeat` is what the client gets until the stream has begun, `ping` what it gets after that; `failed`
    makes the end of a stream that has begun and failed. `stream_type` is the content type.
    """

    __slots__ = (
        "_commit_at",
        "_headers",
        "_is_opened",
        "_ping_s",
        "_request",
        "_response",
        "_timer",
        "failed",
        "heartbeat",
        "is_over",
        "keep_failure",
        "ping",
        "stream_type",
    )

    def __init__(
        self,
        request: ProxyRequest,
        response: Reply,
        headers: Callable[[], Collection[tuple[str, str]]],
        commit_delay_s: float,
        ping_s: float,
    ) -> None:
        self._request = request
        self._response = response
        self._headers = headers
        self.heartbeat: Callable[[], Heartbeat] | None = None
        self.ping = PINGS.beat
        self.stream_type = CHAT.stream_type
        self.failed: Callable[[ProxyError], bytes] | None = None
        self.keep_failure: BeforeEnd | None = None
        self._is_opened = False
        self._ping_s = ping_s
        self._commit_at = time.monotonic() + commit_delay_s
        self._timer: asyncio.TimerHandle | None = None
        self.is_over = False
        self._set_timer(commit_delay_s)

    async def begin(self, stream: Stream) -> None:
        """Send the head, if it has not been sent, and what the stream begins with."""
        first = stream.begun if self._is_opened else stream.opening + stream.begun
        self.heartbeat = None
        if not self.is_over:
            self._commit(first)
        elif first:
            await _send(self._request, self._response, first)

    def commit_empty(self) -> None:
        """Send the head alone."""
        self._commit(b"")

    def _commit(self, first: bytes) -> None:
        self.is_over = True
        self._response.lines = (
            f"content-type: {self.stream_type}\r\n{STREAM_LINES}{header_lines(self._headers())}"
        )
        self._request.begin(self._response, first)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self, delay_s: float) -> None:
        """Strike after `delay_s`, or when a heartbeat could be due, if that is earlier."""
        self._timer = self._request.loop.call_later(min(delay_s, self._ping_s), self._strike)

    def _strike(self) -> None:
        self._timer = None
        now = time.monotonic()
        if not self.is_over:
            commit_at = self._commit_at + self._request.record.waited_until(now)
            if now < commit_at:
                self._set_timer(commit_at - now)
                return
            self._commit(self._beat())
        silent_s = now - self._request.sent_at
        if silent_s >= self._ping_s:
            self._request.push(self._beat())
            silent_s = 0.0
        self._set_timer(self._ping_s - silent_s)

    def _beat(self) -> bytes:
        """The heartbeat that is due now; before the first one of an answer, its opening."""
        if self.heartbeat is None:
            return self.ping
        beat = self.heartbeat()
        if self._is_opened or not beat.opening:
            return beat.beat
        self._is_opened = True
        return beat.opening


async def _send(request: ProxyRequest, response: Reply, frame: bytes) -> None:
    await response.send(frame)
    request.record.sent(len(frame))


async def _fail(
    request: ProxyRequest, response: Reply, opening: _Opening, dialect: Dialect, exc: Exception
) -> None:
    error = to_client_error(request, exc)
    if not isinstance(exc, ProxyError):
        logger.error("stream %s failed", request.record.request_id, exc_info=exc)
    request.record.ended = error.code or error.type
    request.end_connection()
    try:
        async with asyncio.timeout(LAST_WORDS_S):
            last = opening.failed(error) if opening.failed is not None else b""
            last = last or dialect.error_event(error)
            if last and opening.keep_failure is not None:
                last = await opening.keep_failure(last)
            if last:
                await _send(request, response, last)
            await response.send(end_stream=True)
    except Exception:  # noqa: BLE001 - there is no one left to tell
        request.abort()
