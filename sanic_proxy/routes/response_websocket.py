"""Responses over a websocket: `response.create` in a text frame, and its events in further text frames.

The provider is asked over HTTP, whichever API it speaks. Each response counts as a request: for the limits,
the log, and its key, which is checked again each time. The connection itself counts for nothing while it is
idle.

A request may name the stream that it belongs to (`stream_id`), and its events repeat that name. The responses
of a stream are made one after the other, in the order in which they were asked for; those of several streams
at the same time, and their events take turns on the connection. Requests without a name are one stream. While
a request waits for its stream, those behind it wait unread, so that a connection holds no more requests than
it has streams, and one.

The connection remembers the latest response of each stream if that was not stored (`store: false`, say), so
it can be continued on this connection, on another stream as well. A request that continues it and fails makes
it forgotten: the client cannot know how far that request came.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from sanic.exceptions import WebsocketClosed
from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.dialects.base import ParsedRequest
from sanic_proxy.dialects.chat import error_object
from sanic_proxy.dialects.responses import RESPONSES
from sanic_proxy.errors import InvalidRequest, ProxyError
from sanic_proxy.governance.key_ring import UnknownKey
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.observability.in_flight import UnderWay, overloaded
from sanic_proxy.observability.record import Client, RequestRecord
from sanic_proxy.openai import chunks, codec
from sanic_proxy.openai.fields import flag_field
from sanic_proxy.openai.responses import response_object
from sanic_proxy.routes import chat as chats
from sanic_proxy.routes.charging import charge_chat
from sanic_proxy.routes.response_keeping import Previous, ResponseKeeper, prepared
from sanic_proxy.server import admission, bodies
from sanic_proxy.server.access import check_endpoint
from sanic_proxy.server.error_responses import to_client_error
from sanic_proxy.server.request import ProxyRequest
from sanic_proxy.server.streaming import LAST_WORDS_S
from sanic_proxy.state import AppState, state_of
from sanic_proxy.streams import sse
from sanic_proxy.streams.stream import BeforeEnd

logger = logging.getLogger(__name__)

# RFC 6455, 7.4.1.
NORMAL, GOING_AWAY, POLICY_VIOLATION = 1000, 1001, 1008
_NOTHING = Previous("")
# Fields of the frame that are no fields of the request.
_OF_FRAME = frozenset({"type", "generate", "stream", "stream_id", "background", "event_id"})
_MAX_STREAM_ID_CHARS = 256
_MAX_STREAMS = 32


class Turn(UnderWay):
    """One response on its way. `cut_by` is why the proxy has ended it, if it has.

    `stream` is the name of its stream. `begun` is done when the response before it in the stream has ended,
    `served` when this one has.
    """

    def __init__(self, record: RequestRecord, begun: asyncio.Future[None]) -> None:
        self.record = record
        self.held_bytes = 0
        self.cut_by: ProxyError | None = None
        self.task: asyncio.Task[None] | None = None
        self.served: asyncio.Task[None] | None = None
        self.continues = ""
        self.stream: str | None = None
        self.begun = begun

    @override
    def end_connection(self) -> None:
        """The session looks for that itself when the response is complete."""

    @override
    def cut(self, error: ProxyError) -> None:
        if self.cut_by is None and self.task is not None:
            self.cut_by = error
            self.task.cancel()


class WebSocketSession:
    """A websocket from its handshake to its end. `connection` is the one in which `request` came."""

    def __init__(self, request: ProxyRequest, connection: Any) -> None:
        self._request = request
        self._server_side = connection
        self._ws: Any = None
        self._receiving: asyncio.Task[str | bytes | None] | None = None
        self._is_closing = False
        self._has_left = False  # the client, while a response was under way
        self._code = 0  # to close the connection with
        self._under_way: set[asyncio.Task[None]] = set()
        self._last: dict[str | None, asyncio.Task[None]] = {}  # of each stream with a response under way
        self._latest: dict[str | None, Previous] = {}  # by stream, the newest last

    async def run(self) -> None:
        """Serve the connection. Raises SanicException if the request does not ask for a websocket."""
        request, connection = self._request, self._server_side
        state = state_of(request.app)
        connection.websocket_max_size = state.settings.max_body_bytes
        # Pongs wait unread behind a request that came early. A dead client is noticed as it reads nothing.
        connection.websocket_ping_timeout = None
        self._ws = await connection.websocket_handshake(request)
        request.record.status, request.record.ended = 101, "complete"  # whoever closes it, and however
        state.traffic.end(request)
        connection.on_closing = self._close_soon
        try:
            while (message := await self._receive()) is not None:
                await self._begin(message)
            if (self._is_closing or self._code) and self._under_way:
                await asyncio.wait(self._under_way)
        finally:
            connection.on_closing = None
            for task in self._under_way:  # the client has left
                task.cancel()
            if self._under_way:
                await asyncio.wait(self._under_way)
        await self._ws.close(GOING_AWAY if self._is_closing else self._code or NORMAL)

    def _close_soon(self) -> None:
        """The worker stops: close the connection, after the responses under way if there are some."""
        self._is_closing = True
        self._stop_receiving()

    def _stop_receiving(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()

    async def _receive(self) -> str | bytes | None:
        """The next message; None if the client has closed the connection or was idle, or nothing more is
        answered.
        """
        idle_s = state_of(self._request.app).settings.websocket_idle_s
        while not (self._is_closing or self._code):
            if len(self._under_way) >= _MAX_STREAMS:
                await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
                continue
            # In a task of its own, as Sanic raises CancelledError when the client closes.
            self._receiving = receiving = asyncio.create_task(self._ws.recv(idle_s))
            try:
                await asyncio.wait({receiving})
            finally:
                receiving.cancel()
                self._receiving = None
            if receiving.cancelled() or receiving.exception() is not None:
                return None
            message: str | bytes | None = receiving.result()
            if message is not None or not self._under_way:
                return message
        return None

    async def _begin(self, message: str | bytes) -> None:
        """Begin to answer a message, when it is its turn in its stream."""
        request = self._request
        begun = asyncio.get_running_loop().create_future()
        turn = Turn(request.record.caused(secrets.token_hex(16), request.method), begun)
        turn.served = served = asyncio.create_task(self._serve(turn, message))
        self._under_way.add(served)
        served.add_done_callback(self._under_way.discard)
        await asyncio.wait({served, begun}, return_when=asyncio.FIRST_COMPLETED)

    async def _serve(self, turn: Turn, message: str | bytes) -> None:
        """Answer one message."""
        state = state_of(self._request.app)
        traffic = state.traffic
        traffic.begin(turn)
        turn.task = response = asyncio.create_task(self._respond(state, turn, message))
        try:
            await asyncio.wait({response})
        finally:
            await self._end(state, turn, response)
            if turn.served is not None and self._last.get(turn.stream) is turn.served:
                del self._last[turn.stream]
        if isinstance(turn.cut_by, errors.Unauthorized | errors.Forbidden):
            self._code = POLICY_VIOLATION
        elif turn.cut_by is not None or traffic.is_draining:
            self._code = self._code or GOING_AWAY
        if self._code or self._is_closing:
            self._stop_receiving()

    async def _end(self, state: AppState, turn: Turn, task: asyncio.Task[None]) -> None:
        """Settle a response that is complete, has failed, or whose client has left."""
        record = turn.record
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("response %s failed", record.request_id, exc_info=error)
            record.status, record.ended = 500, "server_error"
            self._is_closing = True
        if not record.ended:
            record.status, record.ended = 499, "client_left"
        if record.ended != "complete":
            self._latest = {
                stream: latest for stream, latest in self._latest.items() if latest.id != turn.continues
            }
        state.traffic.end(turn)
        record.finish(state.observers)

    async def _respond(self, state: AppState, turn: Turn, message: str | bytes) -> None:
        record = turn.record
        record.dialect, record.is_streaming, record.status = RESPONSES.name, True, 200
        try:
            try:
                await self._make(state, turn, message)
            except ProxyError as exc:
                if isinstance(exc, errors.Unauthorized | errors.Forbidden):
                    turn.cut_by = exc
                await self._refuse(turn, exc)
            except asyncio.CancelledError:
                if turn.cut_by is not None and record.first_byte is None:
                    await self._refuse(turn, turn.cut_by)
                raise
        except WebsocketClosed:
            self._has_left = True
            record.status, record.ended = 499, "client_left"

    async def _client(self, state: AppState) -> Client:
        """The client, whose key may have been blocked or replaced since. Raises Unauthorized or Forbidden."""
        admit = partial(
            admission.admit, state.settings, state.keys, path=self._request.path, headers=self._request.fields
        )
        try:
            client = admit()
        except UnknownKey as exc:
            await state.keys.look_up(exc.digest)
            client = admit()
        check_endpoint(state.rulebook, client, self._request.path)
        return client

    async def _make(self, state: AppState, turn: Turn, message: str | bytes) -> None:
        """Make one response and send its events. Raises ProxyError for what has sent no event."""
        record, traffic = turn.record, state.traffic
        record.client = client = await self._client(state)
        if len(traffic.requests) > traffic.max_requests:
            raise overloaded()
        fields, is_generated = await self._read(state, turn, message)
        await self._queue(turn)
        asked = RESPONSES.parse(codec.dumps(fields), fields, None)
        known = (latest for latest in self._latest.values() if latest.id == turn.continues)
        latest = next(known, _NOTHING)
        asked, keeper = await prepared(state, client.id, asked, turn, latest)
        if keeper is None:  # pragma: no cover - there is always one with what a connection remembers
            raise TypeError
        if is_generated:
            await self._stream(state, turn, asked, keeper)
        else:
            await self._warm_up(turn, asked, keeper)
        if not record.ended:
            self._remember(turn.stream, keeper.remembered(state.settings.max_body_bytes))
            record.ended = "complete"

    async def _queue(self, turn: Turn) -> None:
        """Wait for the response before this one in its stream."""
        before = self._last.get(turn.stream)
        if turn.served is not None:
            self._last[turn.stream] = turn.served
        if before is not None:
            await asyncio.wait({before})
        if self._has_left:
            raise WebsocketClosed
        turn.begun.set_result(None)

    def _remember(self, stream: str | None, latest: Previous | None) -> None:
        """Remember the latest response of a stream: as much of all streams as one may have."""
        self._latest.pop(stream, None)
        if latest is None:
            return
        self._latest[stream] = latest
        limit_bytes = state_of(self._request.app).settings.max_body_bytes
        while sum(len(item) for kept in self._latest.values() for item in kept.items or ()) > limit_bytes:
            del self._latest[next(iter(self._latest))]
        if len(self._latest) > _MAX_STREAMS:
            del self._latest[next(iter(self._latest))]

    async def _read(self, state: AppState, turn: Turn, message: str | bytes) -> tuple[Json, bool]:
        """The fields of the request in a message, and whether the model is to be asked at all."""
        if not isinstance(message, str):
            raise InvalidRequest("Events are JSON in text frames: a binary frame was received")
        body = message.encode("utf-8", "surrogatepass")
        state.traffic.hold(turn, len(body))
        is_small = len(body) <= codec.SMALL_BYTES
        event = (
            codec.loads_strict(body) if is_small else (await bodies.parsed(body, state.traffic.parsing)).value
        )
        if not isinstance(event, dict) or event.get("type") != "response.create":
            raise InvalidRequest('Unknown event: send {"type": "response.create", ...}', param="type")
        stream_id = event.get("stream_id")
        if not isinstance(stream_id, str | None) or len(stream_id or "") > _MAX_STREAM_ID_CHARS:
            raise InvalidRequest(
                f"The parameter `stream_id` must be a string of at most {_MAX_STREAM_ID_CHARS} characters",
                param="stream_id",
            )
        turn.stream = stream_id
        continues = event.get("previous_response_id")
        turn.continues = continues if isinstance(continues, str) else ""
        if flag_field(event, "background"):
            raise InvalidRequest("A background response is created with POST", param="background")
        fields = {name: value for name, value in event.items() if name not in _OF_FRAME}
        return {**fields, "stream": True}, event.get("generate") is not False

    async def _stream(
        self, state: AppState, turn: Turn, asked: ParsedRequest, keeper: ResponseKeeper
    ) -> None:
        record = turn.record
        targets, chat = chats.conversation(self._request, record, state, RESPONSES, asked, keeper)
        if state.governor is not None:
            await charge_chat(state.governor, chat, targets, self._request.path)
        if state.captures is not None:
            state.captures.begin(self._request.fields, record, asked.body)
        stream = await chats.stream_of(targets, state.limits, chat, keeper)
        failed, splitter = stream.failed, sse.FrameSplitter()
        try:
            async for frames in stream.begun_frames():
                await self._send_frames(turn, splitter.feed(frames))
        except ProxyError as exc:
            await self._fail(turn, failed, exc, partial(keeper.keep_failure, chat))
        except asyncio.CancelledError:
            if turn.cut_by is not None:
                await self._fail(turn, failed, turn.cut_by, partial(keeper.keep_failure, chat))
            raise
        finally:
            stream.close()

    async def _fail(
        self, turn: Turn, failed: Callable[[ProxyError], bytes], exc: ProxyError, keep: BeforeEnd
    ) -> None:
        """End a stream that has begun with `response.failed`."""
        error = to_client_error(self._request, exc)
        turn.record.ended = error.code or error.type
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                last = await keep(failed(error))
                await self._send_frames(turn, sse.FrameSplitter().feed(last))

    async def _warm_up(self, turn: Turn, asked: ParsedRequest, keeper: ResponseKeeper) -> None:
        """Answer a request that only prepares the next one, which continues this response."""
        asked_for = RESPONSES.format.read_request(asked.fields)
        repeated = {**asked_for.repeated, **keeper.repeated, "store": False}
        response = response_object(keeper.id, asked.model, chunks.now(), repeated)
        await self._send(turn, {"type": "response.created", "sequence_number": 0, "response": response})
        done = {**response, "status": "completed", "completed_at": chunks.now()}
        await self._send(turn, {"type": "response.completed", "sequence_number": 1, "response": done})
        keeper.response = done

    async def _send_frames(self, turn: Turn, frames: list[sse.Frame]) -> None:
        for frame in frames:
            if frame.payload != sse.DONE_PAYLOAD:
                record = turn.record
                record.sent(len(frame.payload))
                if record.capture is not None:
                    record.capture.add(sse.encode(frame.payload))
                await self._ws.send(_named(turn.stream, frame.payload).decode("utf-8", "replace"))

    async def _send(self, turn: Turn, event: JsonMapping) -> None:
        await self._ws.send(_named(turn.stream, codec.dumps(event)).decode())

    async def _refuse(self, turn: Turn, exc: ProxyError) -> None:
        """Send an error as OpenAI's websockets have it, with the fields of its error events besides."""
        record, error = turn.record, to_client_error(self._request, exc)
        record.status, record.ended = error.status, error.code or error.type
        described = error_object(error)
        about = {name: described[name] for name in ("code", "message", "param")}
        await self._send(
            turn, {"type": "error", "status": error.status, "error": described, "sequence_number": 0, **about}
        )


def _named(stream: str | None, event: bytes) -> bytes:
    """An event with the name of its stream, if that has one."""
    if stream is None or event[:1] != b"{":
        return event
    return codec.dumps({"stream_id": stream})[:-1] + b"," + event[1:]
