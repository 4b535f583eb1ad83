"""The Sanic application as the proxy extends it: how a request comes to its handler, and its way to an error.

Whatever Sanic documents works here, or its registration raises a clear error.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn, TypeAlias

from sanic import Blueprint, Request
from sanic.exceptions import RequestCancelled, SanicException
from sanic.http.constants import HTTP, Stage
from sanic.log import logger as sanic_logger
from sanic.response import BaseHTTPResponse
from sanic.signals import Event
from typing_extensions import override

from sanic_proxy.config.loader import load
from sanic_proxy.config.model import SettingsError
from sanic_proxy.errors import ProxyError, ShuttingDown
from sanic_proxy.governance.key_ring import UnknownKey
from sanic_proxy.observability import logs
from sanic_proxy.openai.codec import SMALL_BYTES
from sanic_proxy.server import address, bodies, compat
from sanic_proxy.server.admission import let_in
from sanic_proxy.server.connection import ProxyHttp, ProxyProtocol
from sanic_proxy.server.error_responses import as_proxy_error
from sanic_proxy.server.extended import ExtendedHttp
from sanic_proxy.server.request import ProxyRequest, Reply
from sanic_proxy.server.startup import exit_with
from sanic_proxy.server.supervisor import StateServer
from sanic_proxy.state import AppState, state_of

PlainRoute: TypeAlias = tuple[Any, Callable[..., Any]]

_SENT: Any = object()  # what a handler's awaitable returns where the answer has left already

BACKLOG = 4096  # connections that wait to be accepted; Sanic's 100 is less than a burst of clients

_WORKER_FLAGS = frozenset({"-w", "--workers", "--fast", "--single-process"})


def _flag_names() -> list[str]:
    """The flags on the command line. Sanic's default number of workers looks like `--workers 1`."""
    return [argument.partition("=")[0] for argument in sys.argv[1:]]


class ProxyApp(compat.Application):
    """Sanic with admission control in front of its router and a record for every request.

    There are two ways from a request to its handler. The short one serves the proxy's own routes while
    nothing is registered that concerns them. The other one is Sanic's own `handle_request`, with everything
    that Sanic documents: it serves the routes that somebody has added, and all of them once there are
    middlewares for all, `http.*` signals or routes by host. Which one a route takes is decided when the
    application is finalised, and kept in `route.extra.is_plain`.
    """

    __slots__ = ("_own_blueprints", "_plain_routes", "http_class", "http_signals", "needs_sanic_routing")

    def add_own(self, blueprints: Sequence[Blueprint]) -> None:
        """Register the proxy's own routes, once: they may be served by the short way."""
        self._own_blueprints = blueprints
        for blueprint in blueprints:
            self.blueprint(blueprint)

    @override
    def finalize(self) -> None:
        """Sanic's, and the decisions that are made once: see the class."""
        super().finalize()
        routes = self.router.routes
        signals = {signal.name for signal in self.signal_router.routes if signal.name.startswith("http.")}
        wildcards = {name[:-1] for name in signals if name.endswith("*")}
        self.http_signals = frozenset(
            event.value
            for event in Event
            if event.value in signals or event.value.startswith(tuple(wildcards))
        )
        self.needs_sanic_routing = bool(signals) or any(route.requirements for route in routes)
        own = {id(route) for blueprint in self._own_blueprints for route in blueprint.routes}
        changes_answers = bool(self.response_middleware)
        for route in routes:
            extra = route.extra
            changes_answers |= bool(extra.response_middleware)
            extra.is_own = id(route) in own
            extra.is_plain = extra.is_own and not (extra.request_middleware or extra.response_middleware)
        self.http_class = ExtendedHttp if signals or changes_answers else ProxyHttp
        self._plain_routes = {} if self.needs_sanic_routing else dict(self._static_routes())

    def _static_routes(self) -> Iterator[tuple[tuple[str, str], PlainRoute]]:
        """The routes without parameters that take the short way, by method and path."""
        for route in self.router.routes:
            for method in route.methods if route.extra.is_plain and not route.params else ():
                path = f"/{route.path}"
                found, handler, _ = self.router.get(path, method, None)
                if found is route:
                    yield (method, path), (route, handler)

    @override
    def enable_websocket(self, enable: bool = True) -> None:
        """Sanic's, but for the listener that cancels websocket handlers as soon as a worker stops.

        When the listener socket is closed, each websocket is closed with code 1001. Its handler may take
        part in that, and has the same time to finish as any other request.
        """
        self.websocket_enabled = enable

    @override
    async def __call__(self, scope: Any, receive: Any, send: Any) -> NoReturn:
        """Refuse an ASGI server: the parser, the limits and the drain are the proxy's own server's."""
        raise SanicException(
            "The proxy does not run under an ASGI server: start it with `sanic sanic_proxy.app`"
        )

    @override
    def prepare(
        self, host: str | None = None, port: int | None = None, *, workers: int = 1, **options: Any
    ) -> None:
        """Sanic's; what neither a flag nor a caller has named comes from the settings."""
        if options.get("version", HTTP.VERSION_1) not in {HTTP.VERSION_1, 1}:
            raise SanicException(
                "The proxy serves HTTP/1.1 only: put a reverse proxy in front for HTTP/2 or 3"
            )
        with suppress(SettingsError):  # reported when the main process starts
            settings = load()
            if options.get("sock") is None and not options.get("unix"):
                host, port = host or settings.host, port or settings.port
            if workers == 1 and settings.workers and not _WORKER_FLAGS.intersection(_flag_names()):
                workers = settings.workers
        self._check_address(host, port, options)
        super().prepare(host, port, workers=workers, **options)

    def _check_address(self, host: str | None, port: int | None, options: Mapping[str, Any]) -> None:
        """Exit with one line where nothing can listen there."""
        unix = options.get("unix") or None
        if options.get("sock") is None and (unix or (host and port)):
            problem = address.listening_problem(host or "", port or 0, unix)
            if problem is not None:
                exit_with([problem])

    @override
    def serve_with(self) -> Mapping[str, Any]:
        logs.fill_standard_streams()
        logs.redirect_stderr()
        compat.replace_state_manager(StateServer)
        return {"protocol": ProxyProtocol, "backlog": BACKLOG}

    @override
    async def handle_request(self, request: Request) -> None:
        if not isinstance(request, ProxyRequest):  # pragma: no cover - the app's request class
            raise TypeError(type(request))
        request.state = state = state_of(self)
        record = request.record
        if state.tracer is not None:
            state.tracer.begin(record, request.fields)
        traffic = state.traffic
        traffic.begin(request)
        try:
            stream: Any = request.stream
            if self.http_signals and isinstance(stream, ExtendedHttp):
                await stream.announce(request)
            answer = self._begin(request, state)
            if not isinstance(answer, BaseHTTPResponse):
                answer = await answer
            if answer is not _SENT and not (isinstance(answer, Reply) and stream.send_whole(answer)):
                await _send(request, answer)
        except asyncio.CancelledError:
            if request.cut_by is not None:
                _note_cut(request, request.cut_by)
            elif not record.ended:
                record.status = 499
                record.ended = "client_left" if _is_lost(request) else "cancelled"
            raise
        except Exception as exc:  # noqa: BLE001 - the border: the renderer turns it into an answer
            await self.handle_exception(request, exc)
        finally:
            traffic.end(request)
            record.finish(state.observers)

    def _begin(self, request: ProxyRequest, state: AppState, is_repeated: bool = False) -> Any:
        """Begin to answer. Returns the answer, or what has to be awaited for it."""
        try:
            preflight = let_in(request, state, is_repeated)
        except UnknownKey as exc:
            if is_repeated:
                return self._refuse(request, exc)
            return self._begin_with_key(request, state, exc.digest)
        except ProxyError as exc:
            return self._refuse(request, exc)
        if preflight is not None:
            return self._respond(request, preflight)
        found = self._plain_routes.get((request.method, request.path)) or self._plain_route(request)
        if found is None:
            return self._handle_as_sanic(request)
        request.route, handler = found
        stream: Any = request.stream
        if stream.request_body and not (self.http_class is ProxyHttp and stream.take_small()):
            return self._receive_and_handle(request, handler)
        return handler(request)

    async def _begin_with_key(self, request: ProxyRequest, state: AppState, digest: bytes) -> Any:
        """Begin to answer a request whose key is not in memory."""
        try:
            await state.keys.look_up(digest)
        except ProxyError as exc:
            return await self._refuse(request, exc)
        answer = self._begin(request, state, is_repeated=True)
        return answer if isinstance(answer, BaseHTTPResponse) else await answer

    async def _refuse(self, request: ProxyRequest, error: ProxyError) -> Any:
        await self.handle_exception(request, error, run_middleware=False)
        return _SENT

    async def _respond(self, request: ProxyRequest, answer: Reply) -> Any:
        response = await request.respond(answer)
        await response.send(end_stream=True)
        return _SENT

    async def _receive_and_handle(self, request: ProxyRequest, handler: Callable[..., Any]) -> Any:
        await self.receive_body(request)
        answer = handler(request)
        return answer if isinstance(answer, BaseHTTPResponse) else await answer

    def _plain_route(self, request: ProxyRequest) -> PlainRoute | None:
        """The request's route and handler, if it takes the short way. Raises what Sanic's router raises."""
        if self.needs_sanic_routing:
            return None
        route, handler, arguments = self.router.get(request.path, request.method, None)
        request.match_info = arguments
        return (route, partial(handler, **arguments)) if route.extra.is_plain else None

    async def _handle_as_sanic(self, request: ProxyRequest) -> Any:
        stream: Any = request.stream
        token = compat.current_request.set(request)
        try:
            await super().handle_request(request)
            if isinstance(stream, ExtendedHttp):
                await stream.opened()
        finally:
            compat.current_request.reset(token)
        return _SENT

    async def receive_body(self, request: ProxyRequest) -> None:
        """Receive a body while there is room for it. The proxy's own handlers receive uploads themselves."""
        stream: Any = request.stream
        if stream is None or request.route is None:
            request.body = request.take_body()
            return
        is_own = request.route.extra.is_own
        if request.is_upload and is_own and request.is_form:
            stream.count_body()
            return
        is_whole = request.is_received and request.failure is None and not request.is_upload
        if is_whole and self.http_class is ProxyHttp:
            stream.count_body()
        else:
            await stream.receive_all()
        if is_own and request.size_bytes > SMALL_BYTES:
            await bodies.parse_in_steps(request, state_of(self).traffic.parsing)
        elif request.pieces:
            request.body = request.take_body()

    @override
    async def handle_exception(
        self, request: Request, exception: BaseException, run_middleware: bool = True
    ) -> None:
        has_begun = request.stream is not None and request.stream.stage is not Stage.HANDLER
        if isinstance(exception, RequestCancelled) or (
            has_begun and isinstance(exception, asyncio.CancelledError)
        ):
            return  # the client has left, or the stream is being cut: there is no one to answer
        if has_begun:
            # Sanic would end the chunked answer in good order, and a truncated one would look whole.
            sanic_logger.error("request failed after its answer had begun", exc_info=exception)
            if isinstance(request, ProxyRequest):
                request.abort()
            await self._report(request, exception)
            return
        if isinstance(exception, asyncio.CancelledError):
            exception = ShuttingDown("The proxy is shutting down: please repeat the request")
        await super().handle_exception(request, exception, run_middleware)
        if isinstance(request, ProxyRequest):
            error = as_proxy_error(exception)
            request.record.ended = request.record.ended or error.code or error.type
            if request.stream is not None:
                self._finish_unrouted(request)

    async def _report(self, request: Request, exception: BaseException) -> None:
        """Dispatch the signals of an exception, as Sanic's `handle_exception` does."""
        for event, context in (
            (Event.SERVER_EXCEPTION_REPORT, {"exception": exception}),
            (Event.HTTP_LIFECYCLE_EXCEPTION, {"request": request, "exception": exception}),
        ):
            await self.dispatch(event.value, context=context, fail_not_found=False, inline=True)

    def _finish_unrouted(self, request: ProxyRequest) -> None:
        """End a request that never reached `handle_request`, because its head could not be parsed."""
        if request.method == "NONE" and hasattr(self.ctx, "state"):
            request.record.finish(state_of(self).observers)


async def _send(request: ProxyRequest, answer: BaseHTTPResponse | None) -> None:
    """Send `answer`, or what is left of the one that the handler has begun."""
    stream: Any = request.stream
    if answer is not None:
        request.answer(answer)
    elif stream is not None:
        answer = stream.response
    if answer is not None:
        await answer.send(end_stream=True)


def _note_cut(request: ProxyRequest, error: ProxyError) -> None:
    """What becomes of a request that the proxy ends: a 503, or the end of its connection."""
    record = request.record
    record.ended = record.ended or error.code or error.type
    if not request.responded:
        record.status = error.status
    elif request.stream is not None and request.stream.stage is Stage.RESPONSE:
        request.abort()  # its answer is incomplete, and may not look otherwise


def _is_lost(request: Request) -> bool:
    return bool(request.conn_info is not None and request.conn_info.lost)
