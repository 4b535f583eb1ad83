"""The Sanic application: routes, error renderer, and the life of a worker.

`sanic sanic_proxy.app` starts it. Importing this module opens and reads nothing: workers are
spawned and import it again, and settings belong to the process that serves.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

from sanic import HTTPResponse, Request, Sanic
from sanic.config import Config
from sanic.exceptions import RequestCancelled, SanicException
from sanic.handlers import ErrorHandler
from sanic.http.constants import HTTP, Stage
from sanic.log import logger as sanic_logger
from sanic.response import BaseHTTPResponse
from sanic.signals import Event
from typing_extensions import override

from sanic_proxy.config.loader import load
from sanic_proxy.config.model import Settings, SettingsError
from sanic_proxy.errors import ProxyError, ShuttingDown
from sanic_proxy.observability import banner, logs
from sanic_proxy.observability.in_flight import overloaded
from sanic_proxy.openai.codec import SMALL_BYTES
from sanic_proxy.routes import BLUEPRINTS
from sanic_proxy.server import address, admission, bodies, compat
from sanic_proxy.server.connection import ProxyHttp, ProxyProtocol
from sanic_proxy.server.error_responses import as_proxy_error, render
from sanic_proxy.server.extended import ExtendedHttp
from sanic_proxy.server.lifecycle import shared_slots
from sanic_proxy.server.request import ProxyRequest, Reply, header_lines
from sanic_proxy.server.supervisor import StateServer, Supervisor
from sanic_proxy.server.worker import Worker, load_for, read_again
from sanic_proxy.state import AppState, state_of

BACKLOG = 4096  # connections that wait to be accepted; Sanic's 100 is less than a burst of clients
# Sanic's own clocks are backstops behind ours: its response timeout would end a model that thinks
# for longer than a minute with a 503 of its own.
KEEP_ALIVE_TIMEOUT_S = 120
REQUEST_TIMEOUT_S = 60
# Nothing in the environment begins with it: by default Sanic copies every SANIC_* variable into
# app.config, our clients' keys included.
_NO_ENVIRONMENT = "\0"


_WORKER_FLAGS = frozenset({"-w", "--workers", "--fast", "--single-process"})


def _flag_names() -> list[str]:
    """The flags on the command line. Sanic's default number of workers looks like `--workers 1`."""
    return [argument.partition("=")[0] for argument in sys.argv[1:]]


class ErrorRenderer(ErrorHandler):
    """Renders every exception for which the application has no handler of its own."""

    @override
    def default(self, request: Request, exception: Exception) -> HTTPResponse:
        return render(request, exception)


class ProxyApp(Sanic[Any, Any]):
    """Sanic with admission control in front of its router and a record for every request.

    There are two ways from a request to its handler. The short one serves the proxy's own routes while
    nothing is registered that concerns them. The other one is Sanic's own `handle_request`, with everything
    that Sanic documents: it serves the routes that somebody has added, and all of them once there are
    middlewares for all, `http.*` signals or routes by host. Which one a route takes is decided when the
    application is finalised, and kept in `route.extra.is_plain`.
    """

    __slots__ = ("http_class", "http_signals", "needs_sanic_routing")

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
        own = {id(route) for blueprint in BLUEPRINTS for route in blueprint.routes}
        changes_answers = bool(self.response_middleware)
        for route in routes:
            extra = route.extra
            changes_answers |= bool(extra.response_middleware)
            extra.is_own = id(route) in own
            extra.is_plain = extra.is_own and not (extra.request_middleware or extra.response_middleware)
        self.http_class = ExtendedHttp if signals or changes_answers else ProxyHttp

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
                _exit_with([problem])

    @override
    def _helper(self, *args: Any, **settings: Any) -> dict[str, Any]:
        """What `run`, `prepare` and `create_server` serve with."""
        logs.fill_standard_streams()
        logs.redirect_stderr()
        compat.replace_state_manager(StateServer)
        return super()._helper(*args, **{**settings, "protocol": ProxyProtocol, "backlog": BACKLOG})

    @override
    async def handle_request(self, request: Request) -> None:
        if not isinstance(request, ProxyRequest):  # pragma: no cover - the app's request class
            raise TypeError(type(request))
        state = state_of(self)
        record = request.record
        state.traffic.begin(request)
        try:
            await self._answer(request, state)
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
            state.traffic.end(request)
            record.finish(state.observers)

    async def _answer(self, request: ProxyRequest, state: AppState) -> None:
        stream: Any = request.stream
        if self.http_signals and isinstance(stream, ExtendedHttp):
            await stream.announce(request)
        try:
            preflight = _admit(request, state)
        except ProxyError as exc:
            await self.handle_exception(request, exc, run_middleware=False)
            return
        if preflight is not None:
            response = await request.respond(preflight)
            await response.send(end_stream=True)
            return
        if not self.needs_sanic_routing:
            route, handler, arguments = self.router.get(request.path, request.method, None)
            if route.extra.is_plain:
                request.route = route
                request.match_info = arguments
                if stream.request_body and not (self.http_class is ProxyHttp and stream.take_small()):
                    await self.receive_body(request)
                answer: Any = handler(request, **arguments)
                if not isinstance(answer, BaseHTTPResponse):
                    answer = await answer
                if not (isinstance(answer, Reply) and stream.send_whole(answer)):
                    await _send(request, answer)
                return
        await super().handle_request(request)
        if isinstance(stream, ExtendedHttp):
            await stream.opened()

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


def _admit(request: ProxyRequest, state: AppState) -> Reply | None:
    """Let a request in, note its client, or return the answer to a preflight.

    Raises what refuses the request. No request middleware has seen it then.
    """
    headers = request.fields
    if "origin" in headers:
        admission.check_origin(state.settings, headers, request.ip)
        request.answer_lines += header_lines(admission.cors_headers(headers))
        if admission.is_preflight(request.method, headers):
            return Reply(header_lines(admission.preflight_headers(headers)), status=204)
    request.record.client = admission.admit(state.settings, state.keys, path=request.path, headers=headers)
    traffic = state.traffic
    if len(traffic.requests) > traffic.max_requests and request.path not in admission.OPEN_PATHS:
        raise overloaded()
    return None


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


def create_app(kind: type[ProxyApp] = ProxyApp, *, name: str = "sanic-proxy") -> ProxyApp:
    """A new application. Reads no settings; those come when a worker starts."""
    config = Config(env_prefix=_NO_ENVIRONMENT)
    config.update(
        {
            "ACCESS_LOG": False,  # ours says more, and never a query string
            "AUTO_EXTEND": False,
            "MOTD": False,
            "NOISY_EXCEPTIONS": False,
            "KEEP_ALIVE_TIMEOUT": KEEP_ALIVE_TIMEOUT_S,
            "REQUEST_TIMEOUT": REQUEST_TIMEOUT_S,
            "INSPECTOR": False,
        }
    )
    made = kind(
        name,
        config=config,
        request_class=ProxyRequest,
        error_handler=ErrorRenderer(),
        configure_logging=False,
    )
    for blueprint in BLUEPRINTS:
        made.blueprint(blueprint)
    made.main_process_start(begin_supervision)
    made.main_process_ready(supervise)
    made.main_process_stop(flush_log)
    made.before_server_start(open_state)
    made.after_server_start(begin_serving)
    made.before_server_stop(begin_drain)
    made.after_server_stop(close_state)
    return made


def _announce_ready(app: ProxyApp) -> Callable[[], None]:
    """A function that tells the operator where the proxy answers."""

    def announce() -> None:
        listener = app.state.server_info[0].settings
        sock = listener.get("sock")
        unix = listener.get("unix")
        host, port = (app.state.host, app.state.port) if sock is None or unix else sock.getsockname()[:2]
        shown = address.shown_address(host, port, unix, is_tls=listener.get("ssl") is not None)
        logs.say(f"ready on {shown}")

    return announce


def _exit_with(problems: list[str]) -> NoReturn:
    for problem in problems:
        logs.say(f"sanic-proxy: {problem}", "error")
    logging.getLogger("sanic.error").disabled = True  # it would print a traceback of this exit
    raise SystemExit(1)


def _announced_settings(app: ProxyApp) -> Settings:
    """The settings, with the lines that say what is on. Exits with all problems at once."""
    # SIGHUP is handled later: unhandled it would end the process, and settings are being read just now.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        settings = load_for(app.state.host)
    except SettingsError as exc:
        _exit_with(exc.problems)
    logs.configure(settings.log_level, settings.log_format)
    for line in banner.start_lines(settings):
        logs.say(line, "warning" if line in settings.warnings else "")
    return settings


async def begin_supervision(app: ProxyApp) -> None:
    """In the main process, before any worker: check the settings, and read them again on SIGHUP."""
    settings = _announced_settings(app)

    def read(old: Settings) -> Settings | None:
        new = read_again(old, app.state.host)
        if new is not None:
            logs.configure(new.log_level, new.log_format)
        return new

    logs.enable_stack_dumps()
    app.shared_ctx.worker_slots = shared_slots()
    app.shared_ctx.started_at = multiprocessing.get_context("spawn").RawValue("d", time.monotonic())
    app.ctx.supervisor = Supervisor(settings, read, app.shared_ctx.worker_slots, _announce_ready(app))


async def supervise(app: ProxyApp) -> None:
    """In the main process, when its workers are about to be started."""
    if not app.state.auto_reload:  # for development: Sanic restarts workers itself then
        app.ctx.supervisor.take_over(app.manager)


async def flush_log(app: ProxyApp) -> None:
    """In the main process, at its end: Sanic leaves without exit handlers if it has failed."""
    logs.flush()


async def open_state(app: ProxyApp) -> None:
    """In each worker: the settings again, and everything it holds open."""
    is_main = not os.environ.get("SANIC_WORKER_NAME")  # with --single-process
    app.ctx.worker = Worker(app, _announced_settings(app) if is_main else load())


async def begin_serving(app: ProxyApp) -> None:
    """In each worker, when it accepts connections."""
    await app.ctx.worker.serving()
    if not os.environ.get("SANIC_WORKER_NAME") or app.auto_reload:
        _announce_ready(app)()  # there is no supervisor


async def begin_drain(app: ProxyApp) -> None:
    """Before Sanic closes the listener and waits for the requests under way."""
    app.ctx.worker.closing()


async def close_state(app: ProxyApp) -> None:
    """After Sanic has stopped."""
    await app.ctx.worker.aclose()


app = create_app()
