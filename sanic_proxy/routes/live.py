"""What goes on in all workers, whichever answers: `/admin/now`, `/admin/events` and `/admin/requests`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import islice

from sanic import HTTPResponse

from sanic_proxy.config.rules import NANO
from sanic_proxy.errors import InvalidRequest, Overloaded
from sanic_proxy.governance.sessions import Session
from sanic_proxy.json_types import Json
from sanic_proxy.metrics.exposition import in_turns
from sanic_proxy.metrics.live import MAX_LISTENERS, TYPES, Live, numbered
from sanic_proxy.openai import codec
from sanic_proxy.routes.admin import authorise
from sanic_proxy.routes.blueprint import Blueprint
from sanic_proxy.routes.methods import READ
from sanic_proxy.server import bodies
from sanic_proxy.server.request import ProxyRequest, Reply
from sanic_proxy.server.sessions import session_of
from sanic_proxy.server.streaming import STREAM_LINES
from sanic_proxy.state import AppState, state_of
from sanic_proxy.state_store.ring import PLACES

blueprint = Blueprint("live")
blueprint.on_request(authorise)

EVENT_TYPES = ("now", *dict.fromkeys(TYPES.values()))
# How often new events are looked for, and how often there is a comment if there are none.
LOOK_S = 0.2
NOW_S = 1.0
COMMENT_S = 15.0
# A listener that has taken nothing for so long is cut.
SLOW_S = 10.0
# Events in one write; more of them wait in the ring.
MAX_WRITTEN = 100
_RETRY = b"retry: 1000\n\n"


async def now(request: ProxyRequest) -> HTTPResponse:
    """What goes on in all workers."""
    return bodies.json_response(await _now(request.state))


async def latest_requests(request: ProxyRequest) -> HTTPResponse:
    """The last requests that have ended, the latest first: `?limit=100`, and those `&before=` a number."""
    limit = _number(request, "limit") or 100
    live = state_of(request.app).live
    await in_turns(live.flushes())
    found = await in_turns(live.latest_requests(min(limit, PLACES), _number(request, "before")))
    return HTTPResponse(b'{"data":[%b]}' % b",".join(found), content_type="application/json")


async def events(request: ProxyRequest) -> None:
    """Server-sent events of all workers, `?types=now,request,target`. Ends with the session or the worker."""
    state: AppState = request.state
    types = set(request.args.get("types", ",".join(EVENT_TYPES)).split(","))
    if not types <= set(EVENT_TYPES):
        raise InvalidRequest(
            f"The query parameter `types` must be some of {','.join(EVENT_TYPES)}", param="types"
        )
    after = request.fields.get("last-event-id", "")
    session = await session_of(request, state)
    result = state.live.listen()
    if result == "full":
        raise Overloaded(f"There are {MAX_LISTENERS} listeners already: retry in 10 s", retry_after_s=10)
    if result == "locked":
        raise Overloaded("The list of listeners is locked by another worker: retry in 1 s", retry_after_s=1)
    try:
        await _follow(request, _Feed(state, types, int(after) if _is_number(after) else None), session)
    finally:
        state.live.leave()


async def _follow(request: ProxyRequest, feed: _Feed, session: Session | None) -> None:
    """Send what `feed` has until the session is over, the worker drains or its settings have changed."""
    response = Reply(f"content-type: text/event-stream\r\n{STREAM_LINES}")
    request.begin(response, _RETRY)
    if request.method == "HEAD":
        return
    stream = request.stream
    taken_at = time.monotonic()
    while not _is_over(request, session):
        at = time.monotonic()
        if getattr(stream, "is_writable", False):
            taken_at = at
            if frames := await feed.frames(at):
                request.push(frames)
        elif at - taken_at >= SLOW_S:
            request.record.ended = "client_stalled"
            request.abort()
            return
        await asyncio.sleep(LOOK_S)
    if getattr(stream, "is_writable", False):
        await response.send(end_stream=True)
    else:  # a listener that takes nothing would keep its place until it leaves
        request.abort()


def _is_over(request: ProxyRequest, session: Session | None) -> bool:
    state: AppState = request.state
    if state.traffic.is_draining or state_of(request.app) is not state:
        return True
    sessions = state.sessions
    return session is not None and (sessions is None or sessions.is_over(session, time.time()))


class _Feed:
    """The events for one listener. `after` is the number of the last one that it has; None: those to come."""

    def __init__(self, state: AppState, types: set[str], after: int | None) -> None:
        self._state = state
        self._types = types
        ring = state.live.ring
        self._after = ring.last if after is None else min(after, ring.last)
        self._now_at = 0.0
        self._sent_at = time.monotonic()

    async def frames(self, at: float) -> bytes:
        """What is to be sent at the monotonic time `at`."""
        frames = b"".join(self._events(self._state.live))
        if "now" in self._types and at - self._now_at >= NOW_S:
            self._now_at = at
            frames += b"event: now\ndata: %b\n\n" % codec.dumps(await _now(self._state))
        if not frames and at - self._sent_at >= COMMENT_S:
            frames = b": nothing new\n\n"
        if frames:
            self._sent_at = at
        return frames

    def _events(self, live: Live) -> Iterator[bytes]:
        for number, event in islice(live.ring.after(self._after), MAX_WRITTEN):
            self._after = number
            kind = TYPES[event[:1]]
            if kind in self._types:
                yield b"id: %d\nevent: %b\ndata: %b\n\n" % (number, kind.encode(), numbered(number, event))


async def _now(state: AppState) -> Json:
    nano = await state.todays_spend.nano()
    return {
        **state.live.now(),
        "spend_today_usd": None if nano is None else nano / NANO,
        "prices": {"date": state.prices.date or None},
    }


def _number(request: ProxyRequest, name: str) -> int | None:
    text: str | None = request.args.get(name)
    if text is None:
        return None
    if not _is_number(text):
        raise InvalidRequest(f"The query parameter `{name}` must be a whole number", param=name)
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


blueprint.add_route(now, "/admin/now", methods=READ, name="now")
blueprint.add_route(latest_requests, "/admin/requests", methods=READ, name="requests")
blueprint.add_route(events, "/admin/events", methods=READ, name="events")
