"""Frames -> the client: the commit delay, the sends, and an end that never lies.

Strategy: the status line is held back until a frame of the upstream's own is there, or the commit
delay is over. Until then a failure raises and gets its true HTTP status. After it a failure becomes
one error frame, and if even that cannot be written the connection is aborted: a truncated answer
must never look complete.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

from sanic.response import HTTPResponse

from sanic_proxy.app_types import ProxyRequest
from sanic_proxy.errors import ProxyError
from sanic_proxy.routes.errors import as_proxy_error
from sanic_proxy.streaming import Filler, discard, error_frame

logger = logging.getLogger(__name__)

STREAM_HEADERS = {
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",  # nginx then passes each frame on at once
}
CONTENT_TYPE = "text/event-stream; charset=utf-8"


async def pump(
    request: ProxyRequest,
    frames: AsyncGenerator[bytes, None],
    *,
    commit_delay_s: float,
    headers: dict[str, str],
) -> None:
    """Send `frames` as the answer to `request`. Raises what happens before the commit. Closes `frames`."""
    opening = _Opening(frames)
    try:
        await opening.hold(commit_delay_s)
        response = await request.respond(headers={**STREAM_HEADERS, **headers}, content_type=CONTENT_TYPE)
        try:
            if not opening.next.done():
                await _send(request, response, opening.take())
            frame = await opening.next
            await _send(request, response, opening.take() + (frame or b""))
            async for frame in frames:
                await _send(request, response, frame)
            await response.send(end_stream=True)
            request.record.ended = "complete"
        except Exception as exc:  # noqa: BLE001 - the border: whatever fails must not look like an end
            await _fail(request, response, exc)
    finally:
        await discard(opening.next)  # a generator that runs cannot be closed
        await frames.aclose()


class _Opening:
    """The fillers that wait for the commit, and the frame that comes next or is being waited for."""

    __slots__ = ("_frames", "_held", "next")

    def __init__(self, frames: AsyncGenerator[bytes, None]) -> None:
        self._frames = frames
        self._held = b""
        self.next = self._ask()

    def _ask(self) -> asyncio.Future[bytes | None]:
        return asyncio.ensure_future(anext(self._frames, None))

    async def hold(self, commit_delay_s: float) -> None:
        """Wait for a frame of the upstream's, for `commit_delay_s` at most. Raises what it raises."""
        loop = asyncio.get_running_loop()
        commit_at = loop.time() + commit_delay_s
        while (left_s := commit_at - loop.time()) > 0:
            await asyncio.wait({self.next}, timeout=left_s)
            if not self.next.done() or not isinstance(frame := self.next.result(), Filler):
                return
            self._held += frame
            self.next = self._ask()

    def take(self) -> bytes:
        held, self._held = self._held, b""
        return held


async def _send(request: ProxyRequest, response: HTTPResponse, frame: bytes) -> None:
    await response.send(frame)
    request.record.sent(len(frame))


async def _fail(request: ProxyRequest, response: HTTPResponse, exc: Exception) -> None:
    error = as_proxy_error(exc)
    if not isinstance(exc, ProxyError):
        logger.error("stream %s failed", request.record.request_id, exc_info=exc)
    request.record.ended = error.code or error.type
    request.end_connection()
    try:
        await _send(request, response, error_frame(error))
        await response.send(end_stream=True)
    except Exception:  # noqa: BLE001 - there is no one left to tell
        request.abort()
