"""Child processes: started on chosen cores, measured through /proc, ended for good. Linux only."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# What a child inherits of the environment: no keys, proxies and settings of the user.
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
LOCK_WAIT_S = 600.0
TERM_WAIT_S = 5.0
REST_WAIT_S = 2.0
KILL_WAIT_S = 5.0
TAIL_LINES = 15


class StartError(Exception):
    """A process did not come up; the text has the tail of its log."""


@contextmanager
def machine_lock() -> Iterator[None]:
    """Hold the machine for a measurement: two benchmarks at once would measure each other.

    Hold it for less than a minute. Who holds it for ten has hung, and is no longer waited for; without a
    lock file that we can open there is no one to wait for.
    """
    try:
        file = open(os.path.join(tempfile.gettempdir(), "bench.lock"), "a")  # noqa: SIM115
    except OSError:
        yield
        return
    with file:
        until = time.monotonic() + LOCK_WAIT_S
        while not _is_locked(file) and time.monotonic() < until:
            time.sleep(0.02)
        yield


def _is_locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def pinned(cores: frozenset[int]) -> Iterator[None]:
    """Children started inside run on `cores`; so do theirs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """A clean environment, and `extra`."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ} | dict(extra)


@dataclass(frozen=True, slots=True)
class Command:
    """What is started, where, and the file its output goes to."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log: Path


class Session:
    """A process and all its descendants, which share its session id."""

    def __init__(self, command: Command, cores: frozenset[int]) -> None:
        self._log = command.log
        with pinned(cores), command.log.open("ab") as log:
            self._process = subprocess.Popen(
                command.argv,
                env={**child_environment(command.env), "TMPDIR": str(command.cwd)},
                cwd=command.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def log_tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])

    def pids(self) -> list[int]:
        """Those alive, the first one first."""
        found = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        return sorted(pid for pid in found if _is_of(pid, self._process.pid))

    def workers(self) -> list[int]:
        """Sanic's workers, by their names; all processes if there are no workers."""
        pids = self.pids()
        return [pid for pid in pids if "SANIC_WORKER_NAME=" in _environment(pid)] or pids

    def cpu_s(self) -> float:
        """User and system seconds so far, in the kernel's steps of 10 ms."""
        return sum(_cpu_ticks(pid) for pid in self.pids()) / TICKS_PER_S

    def rss_mib(self) -> float:
        """Resident memory, added up; pages that processes share count for each."""
        return sum(map(rss_mib, self.pids()))

    def settle(self, at_most_s: float = 3.0) -> None:
        """Wait until what is left to do after a load is done."""
        until = time.monotonic() + at_most_s
        before = self.cpu_s()
        while time.monotonic() < until:
            time.sleep(0.2)
            now = self.cpu_s()
            if now - before <= 0.02:
                return
            before = now

    def stop(self) -> None:
        """Signal the first process to end, then all, then kill them; returns when all have ended.

        It takes a moment if the first one ends its children, and at most twelve seconds.
        """
        first = [self._process.pid] if self.is_running else []
        for number, chosen, wait_s in (
            (signal.SIGTERM, first, TERM_WAIT_S),
            (signal.SIGTERM, None, REST_WAIT_S),
            (signal.SIGKILL, None, KILL_WAIT_S),
        ):
            until = time.monotonic() + wait_s
            for pid in self.pids() if chosen is None else chosen:
                with suppress(OSError):
                    os.kill(pid, number)
            while time.monotonic() < until and self._is_left(of_all=chosen is None):
                time.sleep(0.02)

    def _is_left(self, *, of_all: bool) -> bool:
        is_running = self.is_running  # which reaps the first process if it has ended
        return bool(self.pids()) if of_all else is_running


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on; empty if the process is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def _is_of(pid: int, session: int) -> bool:
    stat = _stat(pid)
    return bool(stat) and int(stat[3]) == session and stat[0] != "Z"


def _cpu_ticks(pid: int) -> int:
    stat = _stat(pid)
    return int(stat[11]) + int(stat[12]) if stat else 0


def _environment(pid: int) -> str:
    """The environment a process was started with; empty if it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    return ""


def rss_mib(pid: int) -> float:
    """Resident memory of one process; 0 if it is gone."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES / 2**20
    return 0.0


def forget_peak(pid: int) -> None:
    """Let the peak of resident memory begin anew; where the kernel refuses, it stays what it was."""
    with suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mib(pid: int) -> float:
    """The peak of resident memory (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0
