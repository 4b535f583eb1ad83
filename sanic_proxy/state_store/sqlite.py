"""Shared state in SQLite: one file in the state directory, one thread per worker.

Theory. SQLite in WAL mode lets any number of processes read while one writes, and a commit survives
`kill -9`. Its calls block, so they never run on an event loop: each worker has one thread that owns one
connection and takes jobs from a queue. Two kinds of jobs exist. `run` is a job whose result is awaited: it
is committed at once, together with whatever has been queued by then. `write` is fire-and-forget: such jobs
are collected for up to `BATCH_S` seconds or `BATCH_JOBS` jobs and committed together, because a commit costs
as much as hundreds of inserts. Each job has a savepoint, so that one that fails does not take the others
with it.

Other processes' commits are noticed by `PRAGMA data_version`, a number that changes whenever another
connection has committed. While there are subscribers, the thread reads it every `POLL_S` seconds.

The schema's version is `PRAGMA user_version`: the number of migrations applied. Migrations run inside one
`BEGIN IMMEDIATE` transaction, so of several processes that start at once one migrates and the others wait.
A file with a higher number than this version of the proxy knows is refused and not changed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from typing_extensions import override

from sanic_proxy.state_store.base import (
    Migration,
    StateStore,
    StoreError,
    StoreTooNew,
    StoreUnavailable,
    Work,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

FILE_NAME = "state.sqlite"
BATCH_S = 0.05
BATCH_JOBS = 500
POLL_S = 0.2
# How long one process waits for another's write; a transaction takes milliseconds.
BUSY_TIMEOUT_S = 5.0
MAX_QUEUED = 100_000


@dataclass(slots=True)
class _Job:
    work: Callable[[sqlite3.Connection], object]
    is_batched: bool
    done: Future[Any] = field(default_factory=Future)


class SQLiteStore(StateStore):
    """See the module. `directory` is created with mode 0700 when the store is first used.

    `prepare` is called in the store's thread before the file is opened; what it raises fails the jobs.
    """

    def __init__(
        self,
        directory: Path,
        migrations: Sequence[Migration],
        file_name: str = FILE_NAME,
        *,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self._path = directory / file_name
        self._migrations = migrations
        self._prepare = prepare
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._subscribers: list[tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = []
        self._is_closed = False

    @property
    def is_open(self) -> bool:
        """Whether the store has been used."""
        return self._thread is not None

    @override
    async def run(self, work: Work[T]) -> T:
        return await asyncio.wrap_future(self._submit(work, is_batched=False))

    @override
    def write(self, work: Work[object]) -> None:
        if self._jobs.qsize() >= MAX_QUEUED:
            raise StoreUnavailable(f"More than {MAX_QUEUED} writes wait for the state store")
        self._submit(work, is_batched=True).add_done_callback(_log_failure)

    @override
    async def flush(self) -> None:
        if self._thread is not None and not self._is_closed:
            await self.run(lambda connection: None)

    @override
    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        entry = asyncio.get_running_loop(), on_change
        self._subscribers.append(entry)
        self._start()

        def unsubscribe() -> None:
            if entry in self._subscribers:
                self._subscribers.remove(entry)

        return unsubscribe

    @override
    async def aclose(self) -> None:
        self._is_closed = True
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            await asyncio.get_running_loop().run_in_executor(None, thread.join)

    def _submit(self, work: Work[T], *, is_batched: bool) -> Future[T]:
        if self._is_closed:
            raise StoreError("The state store is closed")
        job = _Job(work, is_batched)
        self._jobs.put(job)
        self._start()
        return job.done

    def _start(self) -> None:
        if self._thread is None and not self._is_closed:
            self._thread = threading.Thread(target=self._serve, name="state-store", daemon=True)
            self._thread.start()

    # In the thread

    def _serve(self) -> None:
        connection: sqlite3.Connection | None = None
        version = 0
        while True:
            jobs, is_last = self._next_jobs()
            if jobs:
                try:
                    connection = connection or self._opened()
                except StoreError as exc:
                    for job in jobs:
                        job.done.set_exception(exc)
                else:
                    _run_all(connection, jobs)
            if connection is not None and self._subscribers:
                version = self._notify(connection, version)
            if is_last:
                break
        if connection is not None:
            connection.close()

    def _next_jobs(self) -> tuple[list[_Job], bool]:
        """The jobs to run now, in order, and whether the store is being closed."""
        try:
            job = self._jobs.get(timeout=POLL_S if self._subscribers else None)
        except queue.Empty:
            return [], False
        jobs: list[_Job] = []
        until = time.monotonic() + BATCH_S
        while job is not None:
            jobs.append(job)
            if not job.is_batched:
                until = 0.0  # somebody waits: take only what is here already
            if len(jobs) >= BATCH_JOBS:
                return jobs, False
            try:
                job = self._jobs.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return jobs, False
        return jobs, True

    def _opened(self) -> sqlite3.Connection:
        try:
            self._prepare()
        except OSError as exc:
            raise StoreUnavailable(f"The directory of {self._path} cannot be made: {exc}") from exc
        return _opened(self._path, self._migrations)

    def _notify(self, connection: sqlite3.Connection, known: int) -> int:
        version: int = connection.execute("PRAGMA data_version").fetchone()[0]
        if known not in {0, version}:
            for loop, on_change in list(self._subscribers):
                if not loop.is_closed():
                    loop.call_soon_threadsafe(on_change)
        return version


def _run_all(connection: sqlite3.Connection, jobs: Sequence[_Job]) -> None:
    """Run `jobs` in one transaction, each within a savepoint of its own."""
    results: list[tuple[_Job, object, BaseException | None]] = []
    try:
        connection.execute("BEGIN IMMEDIATE")
        results.extend((job, *_in_savepoint(connection, job)) for job in jobs)
        connection.execute("COMMIT")
    except sqlite3.Error as exc:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        failure = StoreUnavailable(f"The state store cannot be written: {exc}")
        for job in jobs:
            job.done.set_exception(failure)
        return
    for job, result, error in results:
        if error is None:
            job.done.set_result(result)
        else:
            job.done.set_exception(error)


def _in_savepoint(connection: sqlite3.Connection, job: _Job) -> tuple[object, BaseException | None]:
    connection.execute("SAVEPOINT job")
    try:
        result = job.work(connection)
    except sqlite3.OperationalError:
        raise  # for example a full disk: it concerns the whole transaction
    except Exception as exc:  # noqa: BLE001 - raised where the job was submitted
        connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")
        return None, _as_store_error(exc)
    connection.execute("RELEASE job")
    return result, None


def _as_store_error(error: Exception) -> Exception:
    """StoreError for what the database or the conversion of a value (a lone surrogate) raises."""
    if not isinstance(error, sqlite3.Error | ValueError | OverflowError):
        return error
    reason = error if isinstance(error, sqlite3.Error) else type(error).__name__  # never with the value
    found = StoreError(f"The state store has refused an operation: {reason}")
    found.__cause__ = error
    return found


def _opened(path: Path, migrations: Sequence[Migration]) -> sqlite3.Connection:
    """A connection to the file, with its schema up to date. Raises StoreUnavailable or StoreTooNew."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
    except (OSError, sqlite3.Error) as exc:
        raise StoreUnavailable(f"The state store {path} cannot be opened: {exc}") from exc
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        _migrate(connection, migrations, path)
    except sqlite3.Error as exc:
        connection.close()
        raise StoreUnavailable(f"The state store {path} cannot be used: {exc}") from exc
    except StoreError:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, migrations: Sequence[Migration], path: Path) -> None:
    if _version(connection) == len(migrations):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for migration in migrations[_known_version(connection, len(migrations), path) :]:
            for statement in migration.statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _known_version(connection: sqlite3.Connection, known: int, path: Path) -> int:
    version = _version(connection)
    if version > known:
        raise StoreTooNew(
            f"The state store {path} has schema version {version}, this version of the proxy knows {known}. "
            "Upgrade the proxy, or set SANIC_PROXY_STATE_DIR to another directory"
        )
    return version


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _log_failure(done: Future[object]) -> None:
    error = done.exception()
    if error is not None:
        logger.error("a write to the state store failed: %s", error)


def state_directory(configured: str, environ: dict[str, str] | None = None) -> Path:
    """The state directory: as configured, else systemd's STATE_DIRECTORY, else below XDG_STATE_HOME."""
    values = os.environ if environ is None else environ
    if configured:
        return Path(configured)
    if directory := values.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(directory)
    home = values.get("XDG_STATE_HOME") or Path(values.get("HOME", "~")).expanduser() / ".local" / "state"
    return Path(home) / "sanic-proxy"
