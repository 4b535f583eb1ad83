"""The events of a stored response, from any of them on: `GET /v1/responses/{id}?stream=true`.

The answer of a background response is whole when it is stored, so its stream has the first events at once,
heartbeats while the response is made, and all others at its end. Nothing is kept for a stream: its events
are made of the stored response, and are the same each time.
"""

from __future__ import annotations

import asyncio

from typing_extensions import override

from sanic_proxy.dialects.base import Dialect
from sanic_proxy.errors import NotFound
from sanic_proxy.openai import codec
from sanic_proxy.openai.responses import event_frame
from sanic_proxy.routes.response_keeping import reading
from sanic_proxy.server.request import ProxyRequest
from sanic_proxy.server.streaming import pump
from sanic_proxy.state import AppState
from sanic_proxy.state_store.responses import ResponseStore
from sanic_proxy.streams import sse
from sanic_proxy.streams.filters import StreamFilter
from sanic_proxy.streams.stream import Stream
from sanic_proxy.translation.responses.replay import UNFINISHED, events
from sanic_proxy.upstream.client import Response

# How often a response that is not finished is looked up: any worker may be making it.
POLL_S = 0.25


class _Events(Response):
    """The events of a stored response behind the number `after`, as they become known."""

    def __init__(self, store: ResponseStore, owner: str, response_id: str, after: int, end: bytes) -> None:
        self._store = store
        self._owner = owner
        self._id = response_id
        self._after = after
        self._end = end
        self._is_over = False

    @override
    async def read_some(self, wait_s: float | None = None) -> bytes | None:
        """The next frames; b"" at the end. Raises NotFound if the response has been deleted."""
        while not self._is_over:
            stored = await reading(self._store.find(self._owner, self._id))
            if stored is None:
                raise NotFound("The response has been deleted", code="response_not_found")
            made = events(codec.loads_tolerant(stored.body))
            self._is_over = stored.status not in UNFINISHED
            frames = b"".join(map(event_frame, made[self._after + 1 :]))
            self._after = max(self._after, len(made) - 1)
            if self._is_over:
                return frames + self._end
            if frames:
                return frames
            await asyncio.sleep(POLL_S)
        return b""


async def follow(
    request: ProxyRequest, dialect: Dialect, store: ResponseStore, response_id: str, after: int = -1
) -> None:
    """Answer with the events of a stored response of the client, those behind the number `after`."""
    state: AppState = request.state
    record = request.record
    record.is_streaming = True
    end = sse.DONE if state.settings.responses_done else b""
    source = _Events(store, record.client.id, response_id, after, end)

    async def opened() -> Stream:
        stream = Stream(source, StreamFilter(), record)
        await stream.begin()
        return stream

    ping_s = state.settings.heartbeat_interval_s
    await pump(
        request,
        opened,
        commit_delay_s=ping_s,
        ping_s=ping_s,
        headers=list,
        dialect=dialect,
    )
