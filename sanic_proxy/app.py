"""The application: routes and listeners.

`sanic sanic_proxy.app` starts it. Importing this module opens and reads nothing: workers are
spawned and import it again, and settings belong to the process that serves.
"""

from __future__ import annotations

import multiprocessing
import os
import time

from sanic.config import Config

from sanic_proxy.config.loader import load
from sanic_proxy.config.model import Settings
from sanic_proxy.metrics.live import MEMORIES
from sanic_proxy.observability import logs
from sanic_proxy.routes import BLUEPRINTS
from sanic_proxy.server.application import ProxyApp
from sanic_proxy.server.error_responses import ErrorRenderer
from sanic_proxy.server.lifecycle import shared_slots
from sanic_proxy.server.request import ProxyRequest
from sanic_proxy.server.startup import announce_ready, announced_settings
from sanic_proxy.server.supervisor import Supervisor
from sanic_proxy.server.worker import Worker, read_again
from sanic_proxy.state_store.runtime_directory import RuntimeDirectory, new_name
from sanic_proxy.state_store.shared import unnamed_memory

# Sanic's own clocks are backstops behind ours: its response timeout would end a model that thinks
# for longer than a minute with a 503 of its own.
KEEP_ALIVE_TIMEOUT_S = 120
REQUEST_TIMEOUT_S = 60
# Nothing in the environment begins with it: by default Sanic copies every SANIC_* variable into
# app.config, our clients' keys included.
_NO_ENVIRONMENT = "\0"


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
    made.add_own(BLUEPRINTS)
    made.main_process_start(begin_supervision)
    made.main_process_ready(supervise)
    made.main_process_stop(end_supervision)
    made.before_server_start(open_state)
    made.after_server_start(begin_serving)
    made.before_server_stop(begin_drain)
    made.after_server_stop(close_state)
    return made


async def begin_supervision(app: ProxyApp) -> None:
    """In the main process, before any worker: check the settings, and read them again on SIGHUP."""
    settings = announced_settings(app)

    def read(old: Settings) -> Settings | None:
        new = read_again(old, app.state.host)
        if new is not None:
            logs.configure(new.log_level, new.log_format)
        return new

    logs.enable_stack_dumps()
    app.shared_ctx.worker_slots = shared_slots()
    name = new_name().encode()
    app.shared_ctx.runtime_name = multiprocessing.get_context("spawn").RawArray("c", name)
    app.shared_ctx.memory = unnamed_memory()
    app.shared_ctx.metrics = (unnamed_memory(), unnamed_memory())
    app.shared_ctx.live = tuple(unnamed_memory() for _ in range(MEMORIES))
    app.ctx.runtime = RuntimeDirectory(name.decode())
    app.shared_ctx.started_at = multiprocessing.get_context("spawn").RawValue("d", time.monotonic())
    app.ctx.supervisor = Supervisor(settings, read, app.shared_ctx.worker_slots, announce_ready(app))


async def supervise(app: ProxyApp) -> None:
    """In the main process, when its workers are about to be started."""
    if not app.state.auto_reload:  # for development: Sanic restarts workers itself then
        app.ctx.supervisor.take_over(app.manager)


async def end_supervision(app: ProxyApp) -> None:
    """In the main process, at its end: Sanic leaves without exit handlers if it has failed."""
    if (runtime := getattr(app.ctx, "runtime", None)) is not None:
        runtime.remove()
    logs.flush()


async def open_state(app: ProxyApp) -> None:
    """In each worker: the settings again, and everything it holds open."""
    is_main = not os.environ.get("SANIC_WORKER_NAME")  # with --single-process
    app.ctx.worker = Worker(app, announced_settings(app) if is_main else load())


async def begin_serving(app: ProxyApp) -> None:
    """In each worker, when it accepts connections."""
    await app.ctx.worker.serving()
    if not os.environ.get("SANIC_WORKER_NAME") or app.auto_reload:
        announce_ready(app)()  # there is no supervisor


async def begin_drain(app: ProxyApp) -> None:
    """Before Sanic closes the listener and waits for the requests under way."""
    app.ctx.worker.closing()


async def close_state(app: ProxyApp) -> None:
    """After Sanic has stopped."""
    await app.ctx.worker.aclose()


app = create_app()
