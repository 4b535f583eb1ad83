"""The main process: replaces dead and hung workers, stops them in order, and has them reload settings.

Sanic's WorkerManager starts processes and then waits for messages of theirs; it notices no death. Its loop is
replaced by the one below, which runs in the main thread and checks everything ten times a second. Signals are
only noted when they arrive and handled there, so nothing happens half-way through something else. A worker's
state is read from shared memory (`lifecycle`); a signal is sent only to a worker that can take one.

    slot         while the proxy runs                       while it stops
    alive        kill it if it does not start or hangs,     signal it until it drains; kill it when
                 pass a reload on                           the time for that is over
    dead         schedule_restart: at once, or after a      nothing
                 wait that grows with each quick death
    waiting      start it when the wait is over             nothing
    retiring     as while it stops; when it is dead,        signal it until it drains; kill it when
                 start its successor or forget the slot     the time for that is over

What workers ask for with `app.m` comes as messages through Sanic's pipe: restart and scale retire slots, with
SIGINT, which has no lame duck: the port is still served, so no load balancer must notice. Processes that
somebody has Sanic manage (`app.manager.manage`) are started, restarted when asked, and stopped with the
workers; they are not watched.

The proxy itself gives up, with exit code 1, if the first workers end before one has served, and if no worker
has served for NO_WORKER_LIMIT_S: a service manager can then do more than the proxy can.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.managers import SyncManager
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any

from sanic.exceptions import ServerKilled
from sanic.worker.manager import WorkerManager
from sanic.worker.process import WorkerProcess

from sanic_proxy.config.model import Settings
from sanic_proxy.observability import logs
from sanic_proxy.server import compat
from sanic_proxy.server.lifecycle import (
    MAX_WORKERS,
    HangDetector,
    SharedSlot,
    TickClock,
    Verdict,
    WorkerState,
    slot_of,
)

logger = logging.getLogger(__name__)

POLL_S = 0.1
# A worker that has lived for so long has not died of how it was started.
PROVEN_S = 10.0
# Waits before a worker that dies at its start, again and again, is started once more.
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
# A start takes a second or two; on a machine that is busy with other things, some more.
START_LIMIT_S = 60.0
# Without any worker that serves. Counted in the main process's own ticks.
NO_WORKER_LIMIT_S = 60.0
# After the time for the requests in flight, for the last writes to slow clients and for closing.
MARGIN_S = 20.0
# What a second signal leaves of all that.
FORCE_STOP_S = 3.0
# A worker shows in its slot that it is stopping; until then the signal is repeated.
SIGNAL_AGAIN_S = 1.0


def _state_address() -> Any:
    """Where the state server listens: no file, which a cleaner of /tmp would delete.

    Linux has sockets by name outside the file system; elsewhere it is a port of loopback. Either way a client
    must prove that it knows the process's `authkey`.
    """
    has_abstract_names = sys.platform == "linux"
    return f"\0sanic-proxy-{os.getpid()}-{secrets.token_hex(8)}" if has_abstract_names else ("127.0.0.1", 0)


class StateServer:
    """Sanic's dictionary of worker states, kept in a thread. Takes multiprocessing.Manager's place.

    Sanic keeps it in a process of its own, whose death ends the server and which outlives the server's,
    behind a socket in /tmp, without which no worker can start.
    """

    def __init__(self) -> None:
        self._server: Any = SyncManager(address=_state_address()).get_server()
        Thread(target=self._serve, name="worker-state", daemon=True).start()
        self._client = SyncManager(address=self._server.address)
        self._client.connect()

    def _serve(self) -> None:
        with suppress(SystemExit):  # it takes the thread for a process
            self._server.serve_forever()

    def dict(self) -> Any:
        """A dictionary that the workers share."""
        return self._client.dict()

    def shutdown(self) -> None:
        """Answer no more."""
        with suppress(AttributeError):  # the thread may not have come to it yet
            self._server.stop_event.set()


def _is_server(process: WorkerProcess) -> bool:
    return str(process.name).startswith(f"Sanic-{WorkerProcess.SERVER_LABEL}-")


def is_traced(pid: int | None) -> bool:
    """Whether a debugger holds the process."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    return "\nTracerPid:\t0\n" not in status


@dataclass(slots=True)
class RestartDelay:
    """How long a dead worker waits for its next process: longer with each one that dies at its start."""

    quick_deaths: int = 0

    def after(self, lived_s: float, *, has_served: bool) -> float:
        """The seconds to wait after a process that lived for `lived_s`."""
        self.quick_deaths = 0 if has_served and lived_s >= PROVEN_S else self.quick_deaths + 1
        if self.quick_deaths <= 1:
            return 0.0
        return min(FIRST_WAIT_S * 2.0 ** min(self.quick_deaths - 2, 16), LONGEST_WAIT_S)


@dataclass(slots=True)
class WorkerSlot:
    """One worker: its present process, its shared state, and what is due. Times are monotonic seconds."""

    process: WorkerProcess
    shared: SharedSlot
    started_at: float
    signalled_at: float | None = None
    has_to_reload: bool = False
    start_at: float | None = None
    retiring_since: float | None = None
    has_successor: bool = False  # whether the slot is used again when its process has retired
    replaced: WorkerSlot | None = None  # retires when this one serves
    delay: RestartDelay = field(default_factory=RestartDelay)
    hang: HangDetector = field(default_factory=HangDetector)

    @property
    def name(self) -> str:
        return str(self.process.name)

    @property
    def is_alive(self) -> bool:
        return bool(self.process.is_alive())

    @property
    def has_served(self) -> bool:
        """Also after the process has died, until the next one is started."""
        return self.shared.state >= WorkerState.SERVING

    def send(self, number: int) -> None:
        with suppress(OSError, TypeError):  # it has just died
            os.kill(self.process.pid, number)


class Supervisor:
    """Runs in the main process. `read_again` reads the settings; None: they are wrong, and it has logged why.

    `slots` is shared with the workers. `announce` is called once, when the first worker serves.
    """

    def __init__(
        self,
        settings: Settings,
        read_again: Callable[[Settings], Settings | None],
        slots: Sequence[SharedSlot],
        announce: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._announce = announce
        self._read_again = read_again
        self._slots = slots
        self._noted: deque[int] = deque()
        self._workers: list[WorkerSlot] = []
        self._has_served = False
        self._has_failed = False
        self._unserved_s = 0.0
        self._stop_signal = signal.SIGTERM
        self._stopping_since: float | None = None
        self._forced_at: float | None = None
        self._listens = True
        self._manager: WorkerManager
        # Unhandled it would end this process, and leave the workers.
        signal.signal(signal.SIGHUP, self._note)

    def take_over(self, manager: WorkerManager) -> None:
        """Do `manager`'s work in its place. To be called before it runs."""
        self._manager = manager
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        compat.replace_manager_loop(manager, self.run)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted.append(number)

    def run(self) -> None:
        """Until all workers have ended. Raises ServerKilled (exit code 1) if none could be started."""
        manager = self._manager
        manager.start()
        now = time.monotonic()
        self._workers = [
            self._slot_for(process, now) for process in manager.transient_processes if _is_server(process)
        ]
        clock = TickClock(now, time.time())
        while not self._is_over():
            self._take_messages()
            self._handle_signals()
            now = time.monotonic()
            self._check(now, clock.tick(now, time.time()), is_settled=clock.is_settled)
        self._stop_managed()
        manager.cleanup()
        if self._has_failed:
            raise ServerKilled

    def _is_over(self) -> bool:
        is_ending = self._stopping_since is not None
        return is_ending and not any(worker.is_alive for worker in self._workers)

    def _slot_for(self, process: WorkerProcess, now: float) -> WorkerSlot:
        return WorkerSlot(process, slot_of(self._slots, str(process.name)), now)

    def _take_messages(self) -> None:
        """Handle what the workers' pipe has, or wait for a tick."""
        receiver = self._manager.monitor_subscriber
        wait_s = POLL_S
        while receiver.poll(wait_s):
            wait_s = 0.0
            self._on_message(receiver.recv())

    def _on_message(self, message: object) -> None:
        """What a worker has asked for with `app.m`; None: Sanic was signalled before `take_over`."""
        if message is None:
            self._noted.append(signal.SIGTERM)
        elif isinstance(message, tuple):
            self._manage(*message)
        elif isinstance(message, str) and self._stopping_since is None:
            command, _, argument = message.partition(":")
            if command == "__TERMINATE__":
                self._noted.append(signal.SIGTERM)
            elif command == "__TERMINATE_EARLY__":
                pass  # a worker that fails at its start; its death is seen
            elif command == "__SCALE__":
                self._scale(int(argument))
            else:
                self._restart(command, starts_first="STARTUP_FIRST" in argument)

    # What workers ask for

    def _restart(self, names: str, *, starts_first: bool) -> None:
        """Restart the processes with these names, separated by commas, or all workers."""
        wanted = {name.strip() for name in names.split(",")}
        is_all = "__ALL_PROCESSES__" in wanted
        now = time.monotonic()
        for worker in list(self._workers):
            if not (is_all or worker.name in wanted) or worker.retiring_since is not None:
                continue
            logger.info("restarting worker %s (process %s)", worker.name, worker.process.pid)
            if starts_first:
                self._add_worker(now).replaced = worker
            else:
                worker.has_successor = True
                worker.retiring_since = now
        for process in self._managed():
            if process.restartable and process.name in wanted:
                process.restart()

    def _scale(self, number: int) -> None:
        """Have `number` workers, by starting some or retiring the newest."""
        staying = [worker for worker in self._workers if worker.retiring_since is None]
        if not 0 < number <= MAX_WORKERS:
            logger.error("cannot scale to %d workers: between 1 and %d are possible", number, MAX_WORKERS)
            return
        logger.info("scaling from %d to %d workers", len(staying), number)
        now = time.monotonic()
        for _ in range(number - len(staying)):
            self._add_worker(now)
        for worker in staying[number:]:
            worker.retiring_since = now

    def _add_worker(self, now: float) -> WorkerSlot:
        (process,) = self._manager.create_server().processes
        worker = self._slot_for(process, now)
        worker.shared.reset()
        self._workers.append(worker)
        process.start()
        return worker

    def _forget(self, worker: WorkerSlot) -> None:
        self._workers.remove(worker)
        self._manager.transient = {
            name: container
            for name, container in self._manager.transient.items()
            if worker.process not in container.processes
        }
        logger.info("worker %s (process %s) has ended", worker.name, worker.process.pid)

    def _manage(  # noqa: PLR0913, PLR0917 - Sanic's message
        self,
        name: str,
        function: Callable[..., Any],
        arguments: dict[str, Any],
        transient: bool,
        restartable: bool | None,
        tracked: bool,
        auto_start: bool,
        workers: int,
    ) -> None:
        try:
            added = self._manager.manage(
                name, function, arguments, transient, restartable, tracked, auto_start, workers
            )
        except ValueError as exc:
            logger.error("process %s cannot be managed: %s", name, exc)  # noqa: TRY400 - no bug
            return
        for process in added.processes if auto_start else ():
            process.start()

    def _managed(self) -> list[WorkerProcess]:
        """The processes that are no workers of ours."""
        return [process for process in self._manager.processes if not _is_server(process)]

    def _stop_managed(self) -> None:
        for process in self._managed():
            process.terminate()
        until = time.monotonic() + FORCE_STOP_S
        for process in self._managed():
            while process.is_alive():
                if time.monotonic() > until:
                    os.kill(process.pid, signal.SIGKILL)
                time.sleep(POLL_S)

    def _handle_signals(self) -> None:
        while self._noted:
            number = self._noted.popleft()
            if number == signal.SIGHUP:
                self._reload()
            elif self._stopping_since is None:
                self._begin_stop(signal.Signals(number))
            else:
                self._force_stop()

    def _announce_first(self) -> None:
        """Say once where the proxy is ready."""
        if not self._has_served and any(worker.has_served for worker in self._workers):
            self._has_served = True
            self._announce()

    # Workers that die or hang

    def _check(self, now: float, step_s: float, *, is_settled: bool) -> None:
        self._announce_first()
        for worker in list(self._workers):
            if worker.is_alive:
                self._check_event_loop(worker, step_s, is_settled=is_settled)
            if self._stopping_since is not None:
                self._end(worker, now, self._stopping_since)
            elif worker.retiring_since is not None:
                self._retire(worker, now, worker.retiring_since)
            elif worker.is_alive:
                self._check_living(worker, now)
            elif worker.start_at is None:
                self._schedule_restart(worker, now)
            elif now >= worker.start_at:
                self._start(worker, now)
        if self._stopping_since is None:
            self._check_outage(step_s)
        elif self._listens and now >= self._lame_until():
            self._stop_listening()

    def _retire(self, worker: WorkerSlot, now: float, since: float) -> None:
        if worker.is_alive:
            self._end(worker, now, since, signal.SIGINT)
        elif worker.has_successor:
            worker.retiring_since, worker.has_successor = None, False
            self._start(worker, now)
        else:
            self._forget(worker)

    def _check_living(self, worker: WorkerSlot, now: float) -> None:
        if worker.replaced is not None and worker.has_served:
            worker.replaced.retiring_since, worker.replaced = now, None
        if not worker.has_served:
            if now - worker.started_at > START_LIMIT_S:
                logger.error("worker %s did not start within %.0f s", worker.name, START_LIMIT_S)
                worker.send(signal.SIGKILL)
        elif worker.has_to_reload:
            worker.has_to_reload = False
            worker.send(signal.SIGHUP)

    def _check_event_loop(self, worker: WorkerSlot, step_s: float, *, is_settled: bool) -> None:
        verdict = worker.hang.observe(
            worker.shared.beats, step_s, timeout_s=self._settings.hang_timeout_s, is_settled=is_settled
        )
        if verdict is Verdict.RUNNING or is_traced(worker.process.pid):
            return
        if verdict is Verdict.HUNG:
            logger.error(
                "worker %s (process %s) hangs: its event loop has not turned for %.0f s; "
                "its stack follows, then it is killed and replaced",
                worker.name,
                worker.process.pid,
                worker.hang.silent_s,
            )
            logs.flush()  # the stack does not go through the queue
            worker.send(logs.DUMP_SIGNAL)
        else:
            worker.send(signal.SIGKILL)

    def _check_outage(self, step_s: float) -> None:
        """Give up where no worker serves for too long: clients would wait on a port without an answer."""
        is_served = any(worker.is_alive and worker.has_served for worker in self._workers)
        self._unserved_s = 0.0 if is_served else self._unserved_s + step_s
        if self._unserved_s >= NO_WORKER_LIMIT_S:
            self._fail(f"no worker could be started for {NO_WORKER_LIMIT_S:.0f} s; exiting with 1")

    def _fail(self, reason: str) -> None:
        logger.error(reason)
        self._has_failed = True
        self._begin_stop(signal.SIGTERM)

    def _schedule_restart(self, worker: WorkerSlot, now: float) -> None:
        """Plan the next start of a dead worker; if nothing has ever worked, give up."""
        code = worker.process.exitcode or 0
        if not self._has_served and code >= 0:
            self._fail("no worker could be started: see the errors above; exiting with 1")
            return
        lived_s = now - worker.started_at
        wait_s = worker.delay.after(lived_s, has_served=worker.has_served)
        worker.start_at = now + wait_s
        logger.error(
            "worker %s (process %s) %s after %.1f s; restarting it%s",
            worker.name,
            worker.process.pid,
            f"was killed by signal {-code}" if code < 0 else f"exited with {code}",
            lived_s,
            f" in {wait_s:.1f} s, as it died {worker.delay.quick_deaths} times in a row" if wait_s else "",
        )

    def _start(self, worker: WorkerSlot, now: float) -> None:
        worker.started_at, worker.start_at, worker.signalled_at = now, None, None
        worker.has_to_reload = False
        worker.shared.reset()
        try:
            self._manager.worker_state[worker.name] = {"server": True, "starts": 0}
            worker.process.restart()
        except (OSError, EOFError, RuntimeError):  # no memory, no more processes; counts as a quick death
            logger.exception("worker %s could not be started", worker.name)

    # The settings

    def _reload(self) -> None:
        if self._stopping_since is not None:
            return
        settings = self._read_again(self._settings)
        if settings is None:
            return
        self._settings = settings
        for worker in self._workers:
            worker.has_to_reload = True
        logger.info("settings reloaded")

    # The stop

    def _begin_stop(self, number: signal.Signals) -> None:
        self._stop_signal = number
        self._stopping_since = time.monotonic()
        logger.info("stopping: %s", number.name)

    def _lame_until(self) -> float:
        """When new connections are no longer taken."""
        since = self._stopping_since or 0.0
        is_lame = self._stop_signal == signal.SIGTERM and self._forced_at is None
        return since + (self._settings.ending.lame_duck_s if is_lame else 0.0)

    def _force_stop(self) -> None:
        if self._forced_at is None:
            self._forced_at = time.monotonic()
            for worker in self._living():
                worker.send(signal.SIGQUIT if worker.has_served else signal.SIGKILL)

    def _living(self) -> Iterable[WorkerSlot]:
        return (worker for worker in self._workers if worker.is_alive)

    def _end(
        self, worker: WorkerSlot, now: float, since: float, number: signal.Signals | None = None
    ) -> None:
        """Have a worker stop, with the signal `number` or the one that stops them all."""
        if not worker.is_alive:
            return
        state = worker.shared.state
        latest = since + self._settings.ending.lame_duck_s + self._settings.ending.drain_s + MARGIN_S
        if self._forced_at is not None:
            latest = self._forced_at + FORCE_STOP_S
        elif not worker.has_served:
            # It serves no request, unless it is just about to.
            latest = since if state is WorkerState.STARTING else since + FORCE_STOP_S
        if now > latest:
            worker.send(signal.SIGKILL)
        elif state in {WorkerState.READY, WorkerState.SERVING} and (
            worker.signalled_at is None or now - worker.signalled_at > SIGNAL_AGAIN_S
        ):
            worker.signalled_at = now
            worker.send(number or self._stop_signal)

    def _stop_listening(self) -> None:
        """Close the socket, as the workers do: while one process has it, clients connect and wait."""
        self._listens = False
        for worker in self._workers:  # they share it
            sock = worker.process.kwargs.get("sock")
            if sock is not None:
                sock.close()
