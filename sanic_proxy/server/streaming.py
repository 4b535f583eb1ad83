"""Frames -> the client: the commit delay, the sends, the pings, and an end that never lies.

Strategy: the status line is held back until a frame of the upstream's own is there, or the commit
delay is over. Until then a failure raises and gets its true HTTP status. After it a failure becomes
one error frame, and if even that cannot be written the connection is aborted: a truncated answer
must never look complete. One timer per stream serves the commit and the pings; it is not touched
while frames go out.

The commit delay measures the silence of the upstream. The time that the proxy itself waits between
two attempts (a Retry-After, a backoff) is not part of it: `record.waited_s` moves the commit, so that
a rate limit keeps its 429 however long its Retry-After was.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import cast

from sanic_proxy.errors import ProxyError
from sanic_proxy.server.error_responses import told
from sanic_proxy.server.request import ProxyRequest, Reply, header_lines
from sanic_proxy.streams.stream import PING, Filler, Relay, Sink, error_frame

logger = logging.getLogger(__name__)

# How long a client that reads nothing is waited for with the frame that says what failed.
LAST_WORDS_S = 10.0

_STREAM_LINES = header_lines(
    [
        ("content-type", "text/event-stream; charset=utf-8"),
        ("cache-control", "no-cache, no-transform"),
        ("x-accel-buffering", "no"),  # nginx then passes each frame on at once
    ]
)


async def pump(
    request: ProxyRequest,
    frames: AsyncGenerator[bytes | Relay, None],
    *,
    commit_delay_s: float,
    ping_s: float | None,
    headers: Callable[[], Iterable[tuple[str, str]]],
) -> None:
    """Send `frames` as the answer to `request`. Raises what happens before the commit. Closes `frames`.

    `headers` is asked once, at the commit: by then the provider may know more of them. After `ping_s`
    seconds without a frame a comment line tells the client that the answer is still on its way; None:
    the frames have heartbeats of their own.
    """
    response = Reply("")
    opening = _Opening(request, response, headers, commit_delay_s, ping_s)
    try:
        try:
            async for frame in frames:
                if isinstance(frame, Relay):
                    await _relay(request, response, frame)
                elif opening.is_over:
                    await _send(request, response, frame)
                elif isinstance(frame, Filler):
                    opening.held += frame
                else:
                    opening.commit(frame)
            opening.commit()
            await response.send(end_stream=True)
            request.record.ended = "complete"
        finally:
            # The provider is let go before a client is told of a failure: it may be slow to take the news.
            opening.close()
            await frames.aclose()
    except asyncio.CancelledError:
        if request.cut_by is not None and opening.is_over:
            await _fail(request, response, request.cut_by)
        raise
    except Exception as exc:
        if not opening.is_over:
            raise
        await _fail(request, response, exc)


class _Opening:
    """The time before the commit, the fillers that wait for it, and the pings after it."""

    __slots__ = ("_commit_at", "_headers", "_ping_s", "_request", "_response", "_timer", "held", "is_over")

    def __init__(
        self,
        request: ProxyRequest,
        response: Reply,
        headers: Callable[[], Iterable[tuple[str, str]]],
        commit_delay_s: float,
        ping_s: float | None,
    ) -> None:
        self._request = request
        self._response = response
        self._headers = headers
        self._ping_s = ping_s
        self._commit_at = time.monotonic() + commit_delay_s
        self._timer: asyncio.TimerHandle | None = None
        self.held = b""
        self.is_over = False
        self._set_timer(commit_delay_s)

    def commit(self, frame: bytes = b"") -> None:
        """Send the head and what has been held, then `frame`. Does nothing the second time."""
        if not self.is_over:
            self.is_over = True
            first, self.held = self.held + frame, b""
            self._response.lines = _STREAM_LINES + header_lines(self._headers())
            self._request.begin(self._response, first)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self, delay_s: float) -> None:
        """Strike after `delay_s`, and never later than a ping could be due: the commit may come first."""
        if self._ping_s is not None:
            delay_s = min(delay_s, self._ping_s)
        self._timer = self._request.loop.call_later(delay_s, self._strike)

    def _strike(self) -> None:
        self._timer = None
        now = time.monotonic()
        commit_at = self._commit_at + self._request.record.waited_s
        if not self.is_over and now < commit_at:
            self._set_timer(commit_at - now)
            return
        self.commit(b"" if self._ping_s is None else PING)
        if self._ping_s is not None:
            silent_s = now - self._request.sent_at
            if silent_s >= self._ping_s:
                self._request.push(PING)
                silent_s = 0.0
            self._set_timer(self._ping_s - silent_s)


async def _relay(request: ProxyRequest, response: Reply, relay: Relay) -> None:
    try:
        await relay.run(cast("Sink", response.stream))
    finally:
        request.record.sent(relay.sent_bytes)


async def _send(request: ProxyRequest, response: Reply, frame: bytes) -> None:
    await response.send(frame)
    request.record.sent(len(frame))


async def _fail(request: ProxyRequest, response: Reply, exc: Exception) -> None:
    error = told(request, exc)
    if not isinstance(exc, ProxyError):
        logger.error("stream %s failed", request.record.request_id, exc_info=exc)
    request.record.ended = error.code or error.type
    request.end_connection()
    try:
        async with asyncio.timeout(LAST_WORDS_S):
            await _send(request, response, error_frame(error))
            await response.send(end_stream=True)
    except Exception:  # noqa: BLE001 - there is no one left to tell
        request.abort()
