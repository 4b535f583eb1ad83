"""Every private name of Sanic that the proxy relies on, and the public one that the proxy uses in its place.

Sanic's public interface has no place for a parser, a supervisor and a response writer of one's own. The
names below are looked up when this module is imported. If one is missing, the import fails and says which:
a Sanic in which a name has moved must not start and then lack a timeout, a drain or a limit. No other module
uses a private name of Sanic: `tests/server/test_compat.py` searches the sources for them.

Names that Sanic sets on instances cannot be looked up on a class. They are slots of it, which can.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import sanic
from sanic import HTTPResponse, Request, Sanic
from sanic.http import Http
from sanic.mixins import startup
from sanic.response import BaseHTTPResponse
from sanic.server import runners
from sanic.server.protocols.http_protocol import HttpProtocol
from sanic.server.protocols.websocket_protocol import WebSocketProtocol
from sanic.worker.manager import WorkerManager
from typing_extensions import override

# The releases in which all of them have the meaning that is described beside each.
KNOWN_GOOD: Final = ("25.12.1",)

# Owner, name, and what it is used for.
NAMES: Final[Sequence[tuple[object, str, str]]] = (
    (Sanic, "_helper", "overridden: the protocol class and the backlog with which a server is prepared"),
    (Sanic, "_run_response_middleware", "runs the response middlewares of a streamed answer"),
    (Request, "_current", "the context variable behind Request.get_current()"),
    (Request, "_ctx", "request.ctx, until it is read"),
    (Request, "_id", "request.id"),
    (Request, "_match_info", "the path parameters of the route"),
    (Request, "_name", "request.name"),
    (Request, "_parsed_url", "overridden: the parsed URL, made when it is read"),
    (Request, "_protocol", "request.protocol, until it is read"),
    (Request, "_request_middleware_started", "initialised like Sanic does"),
    (Request, "_response_middleware_started", "whether response middlewares have run"),
    (Request, "_stream_id", "initialised like Sanic does"),
    (HttpProtocol, "_setup_connection", "overridden: makes the connection's Http object early"),
    (HttpProtocol, "_http", "the connection's Http object"),
    (HttpProtocol, "_can_write", "the event that is set while the client keeps up"),
    (HttpProtocol, "_task", "the task that serves the connection"),
    (HttpProtocol, "_time", "when something last moved, for Sanic's timeouts"),
    (runners, "_setup_system_signals", "replaced: the signal handlers of a worker"),
    (
        startup,
        "Manager",
        "replaced: multiprocessing.Manager, whose process may die and whose socket is a file",
    ),
    (WorkerManager, "run", "replaced on the instance by the supervisor's loop"),
    (BaseHTTPResponse, "_cookies", "response.cookies, until it is read"),
)


class IncompatibleSanic(ImportError):
    """The installed Sanic lacks a name that the proxy needs."""


def check(names: Sequence[tuple[object, str, str]], version: str) -> None:
    """Raise IncompatibleSanic if one of `names` is missing."""
    missing = [f"{_name_of(owner)}.{name} ({use})" for owner, name, use in names if not hasattr(owner, name)]
    if missing:
        raise IncompatibleSanic(
            f"Sanic {version} lacks {', '.join(missing)}. The proxy is known to work with "
            f"Sanic {', '.join(KNOWN_GOOD)}: install one of these"
        )


def _name_of(owner: object) -> str:
    return str(getattr(owner, "__qualname__", getattr(owner, "__name__", owner)))


check(NAMES, sanic.__version__)


current_request: Final[ContextVar[Request[Any, Any]]] = Request._current


# Classes of Sanic's with public names for what is private. An attribute is the same slot under another name,
# so that it costs no more to read or set it; a method has a hook in its place.


class HttpObject(Http):
    """What serves the requests of a connection."""

    if TYPE_CHECKING:

        def __init__(self, protocol: Any) -> None: ...
        @override
        def init_for_request(self) -> None: ...

    else:
        __slots__ = ()


class Protocol(WebSocketProtocol):
    """A client's connection.

    `http_object` is its Http object, `active_at` when something last moved, `writable` is set while the
    client keeps up.
    """

    if TYPE_CHECKING:
        http_object: Any
        active_at: float
        writable: asyncio.Event

        @override
        def check_timeouts(self) -> None: ...
        @override
        def connection_made(self, transport: Any) -> None: ...
        @override
        def connection_lost(self, exc: Exception | None) -> None: ...
        @override
        def pause_writing(self) -> None: ...
        @override
        def resume_writing(self) -> None: ...

    else:
        __slots__ = ()
        http_object = HttpProtocol._http
        active_at = HttpProtocol._time
        writable = HttpProtocol._can_write

    def set_up(self) -> None:
        """Make the connection's Http object."""
        raise NotImplementedError

    @override
    def _setup_connection(self, *args: object, **kwargs: object) -> None:
        self.set_up()


class BareRequest(Request[Any, Any]):
    """A request whose subclass initialises Sanic's attributes itself."""

    if TYPE_CHECKING:
        ctx_object: object
        given_id: str
        has_run_request_middleware: bool
        has_run_response_middleware: bool
        http3_stream: int
        path_parameters: Mapping[str, object]
        protocol_object: object
        route_name: str | None
    else:
        __slots__ = ()
        ctx_object = Request._ctx
        given_id = Request._id
        has_run_request_middleware = Request._request_middleware_started
        has_run_response_middleware = Request._response_middleware_started
        http3_stream = Request._stream_id
        path_parameters = Request._match_info
        protocol_object = Request._protocol
        route_name = Request._name

    def parse_url(self) -> Any:
        """The URL as httptools reads it."""
        raise NotImplementedError

    @property
    @override
    def _parsed_url(self) -> Any:  # type: ignore[override]
        return self.parse_url()


class Response(HTTPResponse):
    """A response whose subclass initialises Sanic's attributes itself."""

    if TYPE_CHECKING:
        cookie_jar: object
    else:
        __slots__ = ()
        cookie_jar = BaseHTTPResponse._cookies


class Application(Sanic[Any, Any]):
    """An application that says what it is served with."""

    def serve_with(self) -> Mapping[str, Any]:
        """Options of the server, in place of those of `run`, `prepare` and `create_server`."""
        return {}

    @override
    def _helper(self, *args: Any, **options: Any) -> dict[str, Any]:
        return super()._helper(*args, **{**options, **self.serve_with()})


def replace_signal_setup(function: Callable[..., None]) -> None:
    """Have a worker call `function` in place of Sanic's function that installs signal handlers."""
    runners._setup_system_signals = function


def replace_state_manager(manager: Callable[[], Any]) -> None:
    """Have the main process keep the workers' shared dictionary in `manager()`."""
    startup.Manager = manager  # type: ignore[attr-defined]


def replace_manager_loop(manager: WorkerManager, run: Callable[[], None]) -> None:
    """Have `run` called in place of the worker manager's loop."""
    manager.run = run  # type: ignore[method-assign]


async def run_response_middleware(request: Request[Any, Any], response: Any, middlewares: Any) -> Any:
    """Run `middlewares` as Sanic does; the response that results."""
    return await request.app._run_response_middleware(request, response, middlewares)


def cancel_handler(protocol: HttpProtocol) -> None:
    """Cancel the task that serves the connection."""
    task = protocol._task
    if task is not None:
        task.cancel()


__all__ = (
    "KNOWN_GOOD",
    "NAMES",
    "Application",
    "BareRequest",
    "HttpObject",
    "IncompatibleSanic",
    "Protocol",
    "Response",
    "cancel_handler",
    "check",
    "current_request",
    "replace_manager_loop",
    "replace_signal_setup",
    "replace_state_manager",
    "run_response_middleware",
)
