"""What a process says and checks before it serves: its settings, why it cannot start, where it answers."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from sanic_proxy.config.model import Settings, SettingsError
from sanic_proxy.observability import banner, logs
from sanic_proxy.server import address
from sanic_proxy.server.worker import load_for

if TYPE_CHECKING:
    from sanic import Sanic


def announce_ready(app: Sanic[Any, Any]) -> Callable[[], None]:
    """A function that tells the operator where the proxy answers."""

    def announce() -> None:
        listener = app.state.server_info[0].settings
        sock = listener.get("sock")
        unix = listener.get("unix")
        host, port = (app.state.host, app.state.port) if sock is None or unix else sock.getsockname()[:2]
        shown = address.shown_address(host, port, unix, is_tls=listener.get("ssl") is not None)
        logs.say(f"ready on {shown}")

    return announce


def exit_with(problems: list[str]) -> NoReturn:
    """Exit with a line for each problem."""
    for problem in problems:
        logs.say(f"sanic-proxy: {problem}", "error")
    logging.getLogger("sanic.error").disabled = True  # it would print a traceback of this exit
    raise SystemExit(1)


def announced_settings(app: Sanic[Any, Any]) -> Settings:
    """The settings, with the lines that say what is on. Exits with all problems at once."""
    # SIGHUP is handled later: unhandled it would end the process, and settings are being read just now.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # There is nothing to stop in order yet. Python's own handler raises KeyboardInterrupt wherever it is just
    # then. In a finalizer or a callback of the garbage collector that is lost, and the proxy would start.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        settings = load_for(app.state.host)
    except SettingsError as exc:
        exit_with(exc.problems)
    logs.configure(settings.log_level, settings.log_format)
    for line in banner.start_lines(settings):
        logs.say(line, "warning" if line in settings.warnings else "")
    return settings
