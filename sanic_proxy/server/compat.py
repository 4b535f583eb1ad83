"""Every private name of Sanic that the proxy relies on.

Sanic's public interface has no place for a parser, a supervisor and a response writer of one's own. The
names below are looked up when this module is imported. If one is missing, the import fails and says which:
a Sanic in which a name has moved must not start and then lack a timeout, a drain or a limit. Names that are
not listed here may not be used; `tests/server/test_compat.py` searches the sources for them.

Names that Sanic sets on instances cannot be looked up on a class. They are slots of it, which can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Final

import sanic
from sanic import Request, Sanic
from sanic.mixins import startup
from sanic.server import runners
from sanic.server.protocols.http_protocol import HttpProtocol
from sanic.server.protocols.websocket_protocol import WebSocketProtocol
from sanic.worker.manager import WorkerManager

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
    (sanic.response.BaseHTTPResponse, "_cookies", "response.cookies, until it is read"),
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
    "IncompatibleSanic",
    "WebSocketProtocol",
    "cancel_handler",
    "check",
    "current_request",
    "replace_manager_loop",
    "replace_signal_setup",
    "replace_state_manager",
    "run_response_middleware",
)
