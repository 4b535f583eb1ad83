"""The life of a worker: it opens what it needs, reloads settings, and stops in order.

The stop: on SIGTERM the worker keeps serving, but readiness answers 503 and each answer is its connection's
last (the lame duck: load balancers need time to notice). Then Sanic is stopped: it closes the listener and
the idle connections and waits for the rest. When the time for that is over, the remaining requests get an
error frame or a 503. SIGINT skips the lame duck, for no load balancer waits for a person at a terminal;
SIGQUIT skips the rest, too.

The worker shows its state in its slot of shared memory (`lifecycle`), and a heartbeat while its event loop
turns.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

from sanic_proxy.config.loader import load
from sanic_proxy.config.model import Settings, SettingsError, binding_problem
from sanic_proxy.errors import ShuttingDown
from sanic_proxy.metrics.live import Live
from sanic_proxy.metrics.metrics import Dropped, Metrics
from sanic_proxy.observability import log_writer, logs
from sanic_proxy.observability.in_flight import Traffic
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.routing.overview import shown_targets
from sanic_proxy.server import compat, lifecycle
from sanic_proxy.server.admin_port import AdminProtocol, MetricsProtocol, SidePort
from sanic_proxy.server.admission import OPEN_PATHS, is_admin_path
from sanic_proxy.server.lifecycle import SharedSlot, WorkerState, slot_of
from sanic_proxy.server.request import ProxyRequest
from sanic_proxy.state import AppState, state_of
from sanic_proxy.state_store.runtime_directory import RuntimeDirectory, new_name
from sanic_proxy.state_store.shared import SharedMemory
from sanic_proxy.state_store.sqlite import set_state_directory

if TYPE_CHECKING:
    from sanic import Sanic

logger = logging.getLogger(__name__)

# For the last writes to slow clients, and for closing; after that Sanic aborts.
LAST_WORDS_S = 12.0
# The same after a second signal.
FORCE_STOP_S = 2.0
# What Sanic still does between the last listener and running the loop takes no time of the loop's.
SOON_S = 0.05
# Nobody needs more, and containers often allow a thousand million.
MAX_DESCRIPTORS = 1_048_576


def read_again(old: Settings, host: str) -> Settings | None:
    """The settings as they are now; None where they are wrong, with a log line for each problem."""
    try:
        settings = load_for(host)
    except SettingsError as exc:
        for problem in exc.problems:
            logger.error("reload failed, keeping the current settings: %s", problem)  # noqa: TRY400 - no bug
        return None
    for name in ("host", "port", "workers", "admin_address", "metrics_address"):
        if getattr(settings, name) != getattr(old, name):
            logger.warning("SANIC_PROXY_%s has changed: restart the proxy to apply it", name.upper())
    return settings


def load_for(host: str) -> Settings:
    """The settings of a proxy that listens on `host`. Raises SettingsError if they cannot work there."""
    try:
        settings = load()
    except (OSError, ValueError) as exc:  # a file that cannot be read, or is no text
        raise SettingsError([f"a file cannot be read ({type(exc).__name__})"]) from exc
    problem = binding_problem(settings, host)
    if problem is not None:
        raise SettingsError([problem])
    return settings


def _host_of(app: Sanic[Any, Any]) -> str:
    """Where the worker listens. A main process passes the socket on, but not the name."""
    if app.state.host:
        return app.state.host
    sock = app.state.server_info[0].settings.get("sock")
    return "localhost" if sock is None else str(sock.getsockname()[0])  # None: a socket in the file system


def raise_descriptor_limit() -> None:
    """Let this process open as many files and connections as it may be allowed to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _leave_signals_alone(*_: object, **__: object) -> None:
    """In place of Sanic's function: it ignores signals for a moment, and then they stop the loop at once."""
    os.environ["SANIC_WORKER_PROCESS"] = "true"


def _slot(app: Sanic[Any, Any], name: str | None) -> SharedSlot:
    """The worker's slot; without a main process of ours one that is never read."""
    slots = getattr(app.shared_ctx, "worker_slots", None)
    return slot_of(slots, name) if name and slots is not None else SharedSlot()


def _runtime_name(app: Sanic[Any, Any]) -> str:
    """The name of the directory in memory that this main process' workers share."""
    shared = getattr(app.shared_ctx, "runtime_name", None)
    return new_name() if shared is None else shared.value.decode()


def _shared_memory(app: Sanic[Any, Any], state_dir: str) -> SharedMemory:
    """The memory that this machine's workers share; private without a main process and state directory."""
    carrier = getattr(app.shared_ctx, "memory", None)
    inherited = None if carrier is None else carrier.fileno()
    return SharedMemory(directory=set_state_directory(state_dir), inherited=inherited)


def _metrics_memory(app: Sanic[Any, Any]) -> tuple[int, int] | None:
    """The descriptors of the workers' metrics; None without a main process."""
    carriers = getattr(app.shared_ctx, "metrics", None)
    return None if carriers is None else (carriers[0].fileno(), carriers[1].fileno())


def _live_memory(app: Sanic[Any, Any]) -> list[int] | None:
    """The descriptors of what the workers show to the operator's page; None without a main process."""
    carriers = getattr(app.shared_ctx, "live", None)
    return None if carriers is None else [carrier.fileno() for carrier in carriers]


def _waiting(traffic: Traffic) -> int:
    """How many requests wait for a limit."""
    requests = [request for request in traffic.requests if isinstance(request, ProxyRequest)]
    return sum(request.record.waiting_since is not None for request in requests)


def _is_shown(record: RequestRecord) -> bool:
    """Whether the operator's page shows a request: not its own, nor probes and pages."""
    return bool(record.dialect) or not (is_admin_path(record.path) or record.path in OPEN_PATHS)


class Worker:
    """One worker's life. Made in its event loop, before it serves."""

    def __init__(self, app: Sanic[Any, Any], settings: Settings) -> None:
        self._app = app
        self._loop = asyncio.get_running_loop()
        name = os.environ.get("SANIC_WORKER_NAME")
        self._is_alone = not name
        self._slot = _slot(app, name)
        # A breakpoint stops the loop, too.
        self._is_watched = not (self._is_alone or app.debug or sys.gettrace())
        self._closing: asyncio.TimerHandle | None = None
        self._may_stop = False
        self._has_to_close = False
        self._dropped_lines = 0
        self._is_forced = False
        self._ports = SidePort(AdminProtocol), SidePort(MetricsProtocol)
        self._retiring: set[asyncio.Task[None]] = set()
        self._runtime = RuntimeDirectory(_runtime_name(app))
        logs.redirect_stderr()
        logs.enable_stack_dumps()
        raise_descriptor_limit()
        self._shared = _shared_memory(app, settings.state_dir)
        self._metrics = Metrics(_metrics_memory(app))
        self._live = Live(_live_memory(app), _is_shown)
        self._use(AppState(settings, None, self._runtime, self._shared, self._metrics, self._live))
        # What is here now stays until the end: the collector need not look at it with each full run.
        gc.freeze()
        compat.replace_signal_setup(_leave_signals_alone)
        self._catch(signal.SIGHUP, self.reload)
        self._catch(signal.SIGQUIT, self.force_stop)
        self._catch(signal.SIGTERM, self._on_stop_signal, signal.SIGTERM)
        self._catch(signal.SIGINT, self._on_stop_signal, signal.SIGINT)
        parent = multiprocessing.parent_process()
        if parent is not None:
            self._loop.add_reader(parent.sentinel, self._on_parent_exit, parent.sentinel)
        self._slot.advance(WorkerState.READY)

    @property
    def _traffic(self) -> Traffic:
        return state_of(self._app).traffic

    # The settings

    def _use(self, state: AppState) -> None:
        settings = state.settings
        logs.configure(settings.log_level, settings.log_format)
        totals = [provider.timeouts.total_s for provider in settings.providers]
        self._app.config.update(
            {
                "REQUEST_MAX_SIZE": settings.max_body_bytes,
                "RESPONSE_TIMEOUT": max(totals, default=0) + 60,
                "READER_TIMEOUT": settings.client_timeout_s,
                # Sanic would cut a client that still reads 5 s after the last write; one that reads nothing
                # is dropped by the connection itself.
                "GRACEFUL_TCP_CLOSE_TIMEOUT": max(totals, default=0) + 60,
                "GRACEFUL_SHUTDOWN_TIMEOUT": settings.ending.drain_s + LAST_WORDS_S,
            }
        )
        self._app.ctx.state = state
        for connection in state.traffic.connections:
            connection.read_config()

    def reload(self) -> None:
        """Read the settings again, for the requests that come from now on."""
        old = state_of(self._app)
        settings = read_again(old.settings, _host_of(self._app))
        if settings is None:
            return
        gc.unfreeze()  # or what is to go would stay
        self._use(AppState(settings, old.traffic, self._runtime, self._shared, self._metrics, self._live))
        retiring = self._loop.create_task(old.retire())
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retired)

    def _retired(self, task: asyncio.Task[None]) -> None:
        self._retiring.discard(task)
        gc.collect()  # some 10 ms; the collector itself would come to it much later
        if not self._retiring:
            gc.freeze()

    # The stop

    def _catch(self, number: int, callback: Callable[..., None], *args: object) -> None:
        """Have `callback` called in the loop. The loop's own handlers lose signals while it does not run.

        Sanic runs it again and again: at the start, at the end, and a tenth of a second at a time.
        """
        loop = self._loop

        def note(number: int, frame: FrameType | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(callback, *args)

        signal.signal(number, note)

    def _on_stop_signal(self, number: signal.Signals) -> None:
        if self._is_alone and self._traffic.is_draining:
            self.force_stop()
            return
        if self._is_alone:
            logger.info("stopping: %s", number.name)
        lame_duck_s = state_of(self._app).settings.ending.lame_duck_s
        self.begin_stop(lame_duck_s if number == signal.SIGTERM else 0.0)

    def _on_parent_exit(self, sentinel: int) -> None:
        self._loop.remove_reader(sentinel)
        logger.error("parent process exited; draining")
        self.begin_stop(0.0)  # the next main process needs the port

    def begin_stop(self, lame_duck_s: float) -> None:
        """Close in `lame_duck_s`, or sooner if an earlier call asked for that."""
        if not self._traffic.is_draining:
            self._traffic.drain()
            self._slot.advance(WorkerState.DRAINING)
        if self._is_closing:
            return  # a second stop of the loop would break Sanic's wait off
        if self._closing is None or lame_duck_s == 0:
            if self._closing is not None:
                self._closing.cancel()
            self._closing = self._loop.call_later(lame_duck_s, self._close)

    async def serving(self) -> None:
        """Sanic is about to run the loop until it is stopped. A stop before that would be lost.

        Raises OSError if a further port cannot be opened.
        """
        settings = state_of(self._app).settings
        for port, address in zip(
            self._ports, (settings.admin_address, settings.metrics_address), strict=True
        ):
            if address is not None:
                await port.open(self._app, address)
        self._slot.advance(WorkerState.SERVING)
        self._loop.call_later(SOON_S, self._on_loop_runs)
        self._beat(self._loop.time())

    def _beat(self, due_at: float) -> None:
        """Once a second: show that the event loop turns, and how late it is."""
        if self._is_watched:
            self._slot.beat()
        state = state_of(self._app)
        if state.settings.has_metrics:
            lag_s = self._loop.time() - due_at
            is_open = state.router.open_circuits()
            waiting = _waiting(state.traffic)
            self._metrics.beat(state.traffic, is_open, lag_s, self._dropped(state), waiting=waiting)
            if state.settings.admin_key is not None:
                now = time.monotonic()
                self._live.note_circuits(
                    {name: error and error.as_json(now) for name, error in is_open.items()}
                )
                targets = partial(shown_targets, state.statistics, state.registry, now)
                self._live.beat(state.traffic, waiting, lag_s, self._metrics.recent, targets)
        due_at = self._loop.time() + lifecycle.BEAT_S
        self._loop.call_at(due_at, self._beat, due_at)

    def _dropped(self, state: AppState) -> Dropped:
        """What has been dropped since the last call."""
        lines = log_writer.STDERR.dropped
        new, self._dropped_lines = lines - self._dropped_lines, lines
        return Dropped(
            0 if state.tracer is None else state.tracer.take_dropped(),
            0 if state.captures is None else state.captures.take_dropped(),
            new,
        )

    def _on_loop_runs(self) -> None:
        self._may_stop = True
        if self._has_to_close:
            self._close()

    @property
    def _is_closing(self) -> bool:
        return self._slot.state >= WorkerState.CLOSING

    def _close(self) -> None:
        self._has_to_close = True
        if self._may_stop and self._slot.advance(WorkerState.CLOSING):
            self._app.stop(terminate=False)

    def closing(self) -> None:
        """Sanic is about to close the listener."""
        self._slot.advance(WorkerState.CLOSING)
        self._traffic.drain()
        for port in self._ports:
            port.close()
        drain_s = 0.0 if self._is_forced else state_of(self._app).settings.ending.drain_s
        self._loop.call_later(drain_s, self._cut)

    def force_stop(self) -> None:
        """Stop now: requests in flight get an error and end."""
        self._is_forced = True
        self.begin_stop(0.0)
        self._cut()
        self._loop.call_later(FORCE_STOP_S, self._traffic.abort)

    def _cut(self) -> None:
        self._traffic.cut(ShuttingDown("The proxy is shutting down: the answer could not be finished"))

    async def aclose(self) -> None:
        """After Sanic has stopped; the handlers it cancelled may still be in their `finally`."""
        for retiring in self._retiring:
            retiring.cancel()
        await state_of(self._app).aclose()
        if self._is_alone:
            self._runtime.remove()
        else:
            self._runtime.release()
        self._shared.close()
        self._metrics.close()
        self._live.close()
        self._slot.advance(WorkerState.STOPPED)
