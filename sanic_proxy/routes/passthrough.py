"""The endpoints that pass through, a row each, by one handler.

The provider is named by the model (as in chats), the header `x-provider` or `?provider=`. Forms with
files are sent on while they come, what is no JSON comes back as it comes: no file is held in memory.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.http1.multipart import boundary_of
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import codec
from sanic_proxy.openai.endpoints import ROWS, Row
from sanic_proxy.openai.fields import text_field
from sanic_proxy.openai.usage import recorded_passthrough
from sanic_proxy.providers.base import Call, ChatProvider
from sanic_proxy.providers.openai_compatible import (
    JSON_BEGINS,
    headers_back,
    json_type,
    media_type,
    opening_of,
    rest_of,
)
from sanic_proxy.routes.batch_charging import OutputMeter, note_batches, output_meter
from sanic_proxy.routes.blueprint import Blueprint
from sanic_proxy.routes.charging import charge_call, shown
from sanic_proxy.routes.methods import add_route, methods_of
from sanic_proxy.routes.resource_access import ResourceGuard, guard, no_such
from sanic_proxy.routing import attempts
from sanic_proxy.routing.ownership import resources_in
from sanic_proxy.server import bodies
from sanic_proxy.server.access import check_model
from sanic_proxy.server.error_responses import to_client_error
from sanic_proxy.server.forms import UnsortedForm, pieces_of, too_large
from sanic_proxy.server.request import ProxyRequest, Reply, header_lines
from sanic_proxy.server.selection import named_provider, query_up, route_headers, unnamed
from sanic_proxy.server.streaming import pump
from sanic_proxy.state import state_of
from sanic_proxy.streams import sse
from sanic_proxy.streams.filters import ChatStreamFilter, SSEFilter, StreamFilter
from sanic_proxy.streams.stream import Stream
from sanic_proxy.upstream import answers
from sanic_proxy.upstream.client import Response
from sanic_proxy.upstream.request import Upload
from sanic_proxy.upstream.response_headers import is_header_value

blueprint = Blueprint("endpoints")
NO_FIELDS: JsonMapping = {}


async def pass_on(request: ProxyRequest, row: Row, resource_id: str | None = None) -> Reply | None:
    """Answer a request to the endpoint of `row`."""
    path = row.path_for(resource_id)
    if path is None:
        raise no_such(row, resource_id)
    call = Call(row.method, path + query_up(request), request.fields, request.record, is_once=row.is_once)
    call.resource = row.resource_for(resource_id)
    named = named_provider(request)
    targets = None if named is None else state_of(request.app).router.named(named, None, row.endpoint)
    if request.is_upload and row.body == "form":
        return await _pass_form(request, row, call, targets, named)
    fields: Json = {}
    if row.body != "none" or request.body:
        fields = bodies.json_object(request)
        targets = _with_json(request, row, call, fields, named)
    if targets is None:
        raise unnamed()
    return await answered(request, row, targets, call, fields)


# Bodies


def _with_json(
    request: ProxyRequest, row: Row, call: Call, fields: Json, named: str | None
) -> attempts.Targets:
    """Put the JSON body into `call`; its targets are those of the provider `named`, or the model's."""
    state = state_of(request.app)
    router = state.router
    record = request.record
    record.input_bytes = len(request.body)
    call.body, request.body = (request.body,), b""
    call.content_type = "application/json"
    record.is_streaming = fields.get("stream") is True
    call.is_once = row.is_once or fields.get("background") is True
    if row.resource_field:
        call.resource = row.resource_for(fields.get(row.resource_field))
    if named is not None:
        name = fields.get("model")
        model = name if isinstance(name, str) and name else None
        record.model = record.model if model is None else model[:256]
        targets = router.named(named, model, row.endpoint)
        check_model(state.rulebook, record.client, router, model or "", targets, named)
        return targets
    if "model" not in fields:
        raise unnamed()
    call.model = model = text_field(fields, "model")
    call.model_span = request.model_span
    record.model = model[:256]
    targets = router.resolve(model, row.endpoint)
    check_model(state.rulebook, record.client, router, model, targets)
    return targets


async def _pass_form(
    request: ProxyRequest, row: Row, call: Call, targets: attempts.Targets | None, named: str | None
) -> Reply | None:
    state, client = state_of(request.app), request.record.client
    limit_bytes = state.settings.max_upload_bytes
    size_bytes = request.declared_bytes
    if size_bytes is not None and size_bytes > limit_bytes:
        raise too_large()
    call.content_type = content_type = request.fields["content-type"]
    bodies.check_encoding(request)
    if not is_header_value(content_type) or "content-type" in request.fields.repeated:
        raise InvalidRequest("The content-type of the form cannot be passed on")
    boundary = boundary_of(content_type)
    async with aclosing(pieces_of(request, limit_bytes)) as pieces:
        if targets is not None:
            check_model(state.rulebook, client, state.router, "", targets, named)
            call.body = Upload(pieces, size_bytes)
            return await answered(request, row, targets, call)
        form = UnsortedForm(pieces, boundary)
        try:
            request.record.model = model = await form.model()
            # The model is written once, so only the first of its targets can be asked.
            targets = state.router.resolve(model, row.endpoint)[:1]
            check_model(state.rulebook, client, state.router, model, targets)
            call.body = form.upload(targets[0].upstream_model, size_bytes)
            return await answered(request, row, targets, call)
        finally:
            form.close()


# Answers


async def answered(
    request: ProxyRequest, row: Row, targets: attempts.Targets, call: Call, fields: JsonMapping = NO_FIELDS
) -> Reply | None:
    """Send `call` and answer with the response. Streams of completions are opened as in chats."""
    record = request.record
    record.provider = targets[0].provider.name
    opened = _Opened(row, request, targets[0].provider)
    state = state_of(request.app)
    guarded = await guard(state, call, targets[0].provider.name, row, fields) if row.is_stateful else None
    if state.governor is not None:
        request.answer_lines += await charge_call(state, state.governor, call, targets, row, fields)

    async def ask() -> Response:
        if row.is_stateful:
            return await attempts.owned(
                targets, state.limits, call, state.owners, take=opened.take, described=opened.described
            )
        return await attempts.forwarded(targets, state.limits, call, take=opened.take)

    try:
        if row.is_completion and record.is_streaming:
            await opened.pump(ask)
            return None
        answer = await ask()
        if guarded is not None:
            await opened.restrict(guarded, call, ask)
        if opened.body is not None:
            if state.governor is not None:
                await note_batches(state.governor, call, targets[0].provider.name, row, opened.body)
            return Reply(opened.lines(), opened.body, status=answer.status)
        if request.method == "HEAD":
            request.begin(Reply(opened.lines(), status=answer.status), b"", _length_of(answer))
            return None
        if media_type(answer.headers) == "text/event-stream" and row.answer != "file":
            await opened.pump(ask)
        else:
            meter = await output_meter(state, call, targets, row, answer, _length_of(answer))
            await _download(request, opened.lines(), answer, meter)
        return None
    finally:
        opened.close()


class _Opened:
    """An in-flight forwarded call and its response. The caller must close it.

    `first` is the provider that is asked first; its clocks count until another one answers. `body` is a
    whole answer that has been read and found good.
    """

    def __init__(self, row: Row, request: ProxyRequest, first: ChatProvider) -> None:
        self._row = row
        self._request = request
        self._first = first
        self._answer: Response | None = None
        self.body: bytes | None = None
        self._begun = b""
        self._stream: Stream | None = None

    async def take(self, answer: Response) -> None:
        """Make `answer` this one's, once it is known to be good: JSON is read whole, and a stream of
        completions up to its first content. Other streams are judged while they are sent.
        """
        kind = media_type(answer.headers)
        row, is_streaming = self._row, self._request.record.is_streaming
        if row.is_completion and is_streaming:
            await self._open_completions(answer)
        elif kind == "text/event-stream":
            if row.answer == "json" and not is_streaming:
                await self._read_mislabelled(answer)
        elif row.answer == "json" or (row.answer == "media" and kind in {"application/json", "text/html"}):
            body = await answer.read_all()
            self._check(body)
            self.body = body
        self._answer = answer

    async def _open_completions(self, answer: Response) -> None:
        record = self._request.record
        begun = await opening_of(answer)
        if begun.startswith(JSON_BEGINS):
            completion = self._check(await rest_of(answer, begun))
            # A whole text completion has the fields of a stream's chunk.
            self._stream = Stream.of_frames([sse.encode(codec.dumps(completion)) + sse.DONE], record)
        else:
            self._stream = Stream(answer, ChatStreamFilter(), record, begun=begun)
        await self._stream.begin()

    async def _read_mislabelled(self, answer: Response) -> None:
        """Some servers label JSON as an event stream, mostly an error."""
        self._begun = await opening_of(answer)
        if self._begun.startswith(JSON_BEGINS):
            body = await rest_of(answer, self._begun)
            self._check(body)
            self.body = body

    def _check(self, body: bytes) -> Any:
        if not body:
            return None
        parsed = answers.checked_completion(body) if self._row.is_completion else answers.checked(body)
        if isinstance(parsed, dict):
            record = self._request.record
            record.usage = recorded_passthrough(parsed) or record.usage
        return parsed

    async def restrict(
        self, guarded: ResourceGuard, call: Call, ask: Callable[[], Awaitable[Response]]
    ) -> None:
        """Reduce the answer to what the client may see; `ask` sends the call again."""

        async def ask_again() -> bytes | None:
            self.close()
            self.body = call.charge = None  # for the client it is one request
            await ask()
            return self.body

        self.body = await guarded.answered(self.body, ask_again)

    def described(self) -> list[str]:
        """The resources that the answer names."""
        body = None if self.body is None else codec.loads_tolerant(self.body)
        return list(resources_in(self._row.collection, body))

    def lines(self) -> str:
        """The header lines that the client gets beside its answer."""
        return header_lines([*self._headers(), *self._described()])

    def _headers(self) -> list[tuple[str, str]]:
        governor = state_of(self._request.app).governor
        back = [] if self._answer is None else shown(headers_back(self._answer.headers), governor)
        return [*route_headers(self._request.record), *back]

    def _described(self) -> list[tuple[str, str]]:
        upstream = self._answer.headers if self._answer is not None else {}
        if self.body and "content-type" in upstream:
            upstream = {**upstream, "content-type": json_type(upstream)}
        kept = [
            (name, upstream[name]) for name in ("content-type", "content-disposition") if name in upstream
        ]
        return [(name, value) for name, value in kept if is_header_value(value)]

    async def pump(self, ask: Callable[[], Awaitable[Response]]) -> None:
        """Send the events of the answer; `ask` brings it, if it is not here yet."""
        await pump(
            self._request,
            lambda: self._open(ask),
            commit_delay_s=self._first.commit_delay_s,
            ping_s=self._first.ping_s,
            headers=self._headers,
        )

    async def _open(self, ask: Callable[[], Awaitable[Response]]) -> Stream:
        """The answer as a stream up to its first event, unless `take` has opened it."""
        answer = self._answer or await ask()
        if self._stream is not None:
            return self._stream
        is_completion = self._row.is_completion
        stream_filter = ChatStreamFilter() if is_completion else SSEFilter(has_length=answer.has_length)
        stream = Stream(answer, stream_filter, self._request.record, begun=self._begun)
        await stream.begin()
        return stream

    def close(self) -> None:
        if self._answer is not None:
            self._answer.close()


def _length_of(answer: Response) -> int | None:
    """How many bytes the body has when it is sent on; None if that is unknown."""
    length = answer.headers.get("content-length", "")
    is_sized = length.isascii() and length.isdigit() and "content-encoding" not in answer.headers
    return int(length) if is_sized else None


async def _download(
    request: ProxyRequest, lines: str, answer: Response, meter: OutputMeter | None = None
) -> None:
    """Send an answer on as it comes. A broken one breaks the connection: there is no other way to say so."""
    response = Reply(lines, status=answer.status)
    request.begin(response, b"", _length_of(answer))
    stream = Stream(answer, meter or StreamFilter(), request.record)
    try:
        await stream.pump(response)
    except Exception as exc:  # noqa: BLE001 - the answer has begun: it can only be broken off
        error = to_client_error(request, exc)
        request.record.ended = error.code or error.type
        request.abort()
    finally:
        request.record.sent(stream.sent_bytes)


# Routes


def _handler(row: Row) -> Callable[..., Coroutine[Any, Any, Reply | None]]:
    async def handler(request: ProxyRequest, resource_id: str | None = None) -> Reply | None:
        return await pass_on(request, row, resource_id)

    handler.__name__ = row.name
    return handler


for _row in ROWS:
    _path = _row.path.replace("<id>", "<resource_id:str>")
    _made = _handler(_row)
    add_route(blueprint, _made, _path, methods_of(_row.method), _row.name)
