"""The main process: brings dead workers back, ends them in good order, and has them read settings again.

Strategy: Sanic's WorkerManager starts processes and then waits for messages of theirs; it notices no
death. Its loop is replaced by the one below, which runs in the main thread and looks ten times a
second. Signals are noted and heeded there, so nothing happens half-way through something else. A
worker is sent a signal only once it says that it serves: before, it could not take one.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.managers import SyncManager
from threading import Thread
from types import FrameType
from typing import Any

from sanic.exceptions import ServerKilled
from sanic.worker.manager import WorkerManager
from sanic.worker.process import WorkerProcess

from sanic_proxy.config.model import Settings

logger = logging.getLogger(__name__)

POLL_S = 0.1
# A worker that has lived for so long has not died of how it was started.
PROVEN_S = 10.0
# Waits before a worker that dies at its start, again and again, is started once more.
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
# A start takes a second or two; on a machine that is busy with other things, some more.
START_LIMIT_S = 60.0
# After the time for the requests under way, for the last words to slow clients and for closing.
MARGIN_S = 20.0
# What a second signal leaves of all that.
HURRY_S = 3.0
# A worker notes in the shared state that it has understood; until then it is told again.
TELL_AGAIN_S = 1.0
DRAINING = "draining"


class StateServer:
    """What workers tell the main process, kept in a thread of it. Takes multiprocessing.Manager's place.

    Sanic keeps it in a process of its own, whose death ends the server and which outlives the server's.
    """

    def __init__(self) -> None:
        self._server: Any = SyncManager().get_server()
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


@dataclass(slots=True)
class _Ward:
    """One worker: its present process, and what is to be done about it. Times are monotonic seconds."""

    process: WorkerProcess
    started_at: float
    is_serving: bool = False
    is_draining: bool = False
    told_at: float | None = None
    has_to_reload: bool = False
    quick_deaths: int = 0
    start_at: float | None = None

    @property
    def name(self) -> str:
        return str(self.process.name)

    @property
    def is_alive(self) -> bool:
        return bool(self.process.is_alive())  # type: ignore[no-untyped-call]

    def wait_s(self, now: float) -> float:
        """How long to wait before the next start, now that the process has died."""
        is_proven = self.is_serving and now - self.started_at >= PROVEN_S
        self.quick_deaths = 0 if is_proven else self.quick_deaths + 1
        if self.quick_deaths <= 1:
            return 0.0
        return min(FIRST_WAIT_S * 2.0 ** (self.quick_deaths - 2), LONGEST_WAIT_S)

    def send(self, number: int) -> None:
        with suppress(OSError, TypeError):  # it has just died
            os.kill(self.process.pid, number)


class Supervisor:
    """The main process's part. `read_again` reads the settings anew; None: they are wrong, and it said so."""

    def __init__(self, settings: Settings, read_again: Callable[[Settings], Settings | None]) -> None:
        self._settings = settings
        self._read_again = read_again
        self._noted: deque[int] = deque()
        self._wards: list[_Ward] = []
        self._has_served = False
        self._has_failed = False
        self._stop_signal = signal.SIGTERM
        self._stopping_since: float | None = None
        self._hurried_at: float | None = None
        self._listens = True
        self._manager: WorkerManager
        # Unhandled it would end this process, and leave the workers.
        signal.signal(signal.SIGHUP, self._note)

    def take_over(self, manager: WorkerManager) -> None:
        """Do `manager`'s work in its place. To be called before it runs."""
        self._manager = manager
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        manager.run = self.run  # type: ignore[method-assign]

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted.append(number)

    def run(self) -> None:
        """Until all workers have ended. Raises ServerKilled (exit code 1) if none could be started."""
        manager = self._manager
        if manager._shutting_down:  # told to stop before it began
            return
        manager.start()  # type: ignore[no-untyped-call]
        now = time.monotonic()
        self._wards = [_Ward(process, now) for process in manager.transient_processes]
        while not self._is_over():
            self._take_messages()
            self._heed_signals()
            self._look_after(time.monotonic())
        manager.cleanup()  # type: ignore[no-untyped-call]
        if self._has_failed:
            raise ServerKilled

    def _is_over(self) -> bool:
        is_ending = self._stopping_since is not None
        return is_ending and not any(ward.is_alive for ward in self._wards)

    def _take_messages(self) -> None:
        """Empty the workers' pipe, or wait a little. Only a stop is heeded: the processes show the rest."""
        receiver = self._manager.monitor_subscriber
        if receiver.poll(POLL_S):
            message = receiver.recv()
            if message == "__TERMINATE__":
                self._noted.append(signal.SIGTERM)

    def _heed_signals(self) -> None:
        while self._noted:
            number = self._noted.popleft()
            if number == signal.SIGHUP:
                self._reload()
            elif self._stopping_since is None:
                self._begin_stop(signal.Signals(number))
            else:
                self._hurry()

    # Workers that die

    def _look_after(self, now: float) -> None:
        for ward in self._wards:
            self._note_state(ward)
            if self._stopping_since is not None:
                self._end(ward, now, self._stopping_since)
            elif ward.is_alive:
                self._attend(ward, now)
            elif ward.start_at is None:
                self._bury(ward, now)
            elif now >= ward.start_at:
                self._start(ward, now)
        if self._listens and self._stopping_since is not None and now >= self._lame_until():
            self._stop_listening()

    def _note_state(self, ward: _Ward) -> None:
        """What the worker says of itself; it may have served and ended since it was last asked."""
        if not ward.is_serving or (ward.told_at is not None and not ward.is_draining):
            state = self._manager.worker_state.get(ward.name) or {}
            ward.is_serving = "serving" in state
            ward.is_draining = bool(state.get(DRAINING))
            self._has_served = self._has_served or ward.is_serving

    def _attend(self, ward: _Ward, now: float) -> None:
        """Whatever a living worker needs."""
        if not ward.is_serving:
            if now - ward.started_at > START_LIMIT_S:
                logger.error("worker %s did not start within %.0f s", ward.name, START_LIMIT_S)
                ward.send(signal.SIGKILL)
        elif ward.has_to_reload:
            ward.has_to_reload = False
            ward.send(signal.SIGHUP)

    def _bury(self, ward: _Ward, now: float) -> None:
        """Plan the start of a dead worker; if nothing has ever worked, give up."""
        code = ward.process.exitcode or 0
        if not self._has_served and code >= 0:
            logger.error("a worker could not be started: see above")
            self._has_failed = True
            self._begin_stop(signal.SIGTERM)
            return
        lived_s = now - ward.started_at
        wait_s = ward.wait_s(now)
        ward.start_at = now + wait_s
        logger.error(
            "worker %s (process %s) %s after %.1f s; it is started again%s",
            ward.name,
            ward.process.pid,
            f"was killed by signal {-code}" if code < 0 else f"ended with {code}",
            lived_s,
            f" in {wait_s:.1f} s, as it died {ward.quick_deaths} times in a row" if wait_s else "",
        )

    def _start(self, ward: _Ward, now: float) -> None:
        # What the dead process said of itself is not true of the next one.
        self._manager.worker_state[ward.name] = {"server": True, "starts": 0}
        ward.started_at, ward.start_at = now, None
        ward.is_serving = ward.is_draining = ward.has_to_reload = False
        ward.told_at = None
        try:
            ward.process.restart()  # type: ignore[no-untyped-call]
        except (OSError, RuntimeError):  # no memory, or no more processes; it counts as one that died at once
            logger.exception("worker %s could not be started", ward.name)

    # The settings

    def _reload(self) -> None:
        if self._stopping_since is not None:
            return
        settings = self._read_again(self._settings)
        if settings is None:
            return
        self._settings = settings
        for ward in self._wards:
            ward.has_to_reload = True
        logger.info("the settings have been read again")

    # The end

    def _begin_stop(self, number: signal.Signals) -> None:
        self._stop_signal = number
        self._stopping_since = time.monotonic()
        logger.info("stopping: %s", number.name)

    def _lame_until(self) -> float:
        """When new connections are no longer taken."""
        since = self._stopping_since or 0.0
        is_lame = self._stop_signal == signal.SIGTERM and self._hurried_at is None
        return since + (self._settings.ending.lame_duck_s if is_lame else 0.0)

    def _hurry(self) -> None:
        if self._hurried_at is None:
            self._hurried_at = time.monotonic()
            for ward in self._living():
                ward.send(signal.SIGQUIT if ward.is_serving else signal.SIGKILL)

    def _living(self) -> Iterable[_Ward]:
        return (ward for ward in self._wards if ward.is_alive)

    def _end(self, ward: _Ward, now: float, since: float) -> None:
        if not ward.is_alive:
            return
        if not ward.is_serving:
            state = self._manager.worker_state.get(ward.name) or {}
            # It serves nobody, unless it is just about to.
            if state.get("state") != "ACKED" or now - since > HURRY_S:
                ward.send(signal.SIGKILL)
        elif ward.told_at is None or (not ward.is_draining and now - ward.told_at > TELL_AGAIN_S):
            ward.told_at = now
            ward.send(self._stop_signal)
        ending = self._settings.ending
        latest = since + ending.lame_duck_s + ending.drain_s + MARGIN_S
        if self._hurried_at is not None:
            latest = self._hurried_at + HURRY_S
        if now > latest:
            ward.send(signal.SIGKILL)

    def _stop_listening(self) -> None:
        """Let go of the socket, as the workers do: while one process has it, clients connect and wait."""
        self._listens = False
        sock = self._manager._server_settings.get("sock")
        if sock is not None:
            sock.close()
