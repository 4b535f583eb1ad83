"""A store whose blocking calls run in a thread of its own: the queue of jobs, and their transactions.

Theory. Calls of a database block, so they never run on an event loop: each store has one thread that owns one
connection and takes jobs from a queue. Two kinds of jobs exist. `run` is a job whose result is awaited: it
is committed at once, together with whatever has been queued by then. `write` is fire-and-forget: such jobs
are collected for up to `BATCH_S` seconds or `BATCH_JOBS` jobs and committed together, because a commit costs
as much as hundreds of inserts. Each job has a savepoint, so that one that fails does not take
the others with it.

A transaction that fails as a whole (a full disk, a damaged file, a lost connection) ends the connection; the
next job opens a new one, so the store recovers when its cause is gone.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from typing_extensions import override

from sanic_proxy.state_store.base import (
    Connection,
    StateStore,
    StoreError,
    StoreRefused,
    StoreUnavailable,
    Work,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

BATCH_S = 0.05
BATCH_JOBS = 500
POLL_S = 0.2
MAX_QUEUED = 100_000


class Session(ABC):
    """One open connection. Its methods are called in the store's thread, and raise the database's errors."""

    @property
    @abstractmethod
    def connection(self) -> Connection:
        """What jobs get."""

    @abstractmethod
    def begin(self) -> None:
        """Begin a transaction that excludes those of others."""

    @abstractmethod
    def commit(self) -> None:
        """Commit the transaction."""

    @abstractmethod
    def concerns_all(self, error: Exception) -> bool:
        """Whether an error of one job is one of the whole transaction: a full disk, a lost connection."""

    @abstractmethod
    def refusal(self, error: Exception) -> str | None:
        """Why the database refused a statement or a value; None for errors of other origin."""

    @abstractmethod
    def others_changed(self) -> bool:
        """Whether another process has committed something since the last call."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection; a transaction under way is rolled back. Raises nothing."""


@dataclass(slots=True)
class _Job:
    work: Callable[[Connection], object]
    is_batched: bool
    done: Future[Any] = field(default_factory=Future)


class ThreadedStore(StateStore):
    """See the module. A subclass opens the connection."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._subscribers: list[tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = []
        self._is_closed = False

    @abstractmethod
    def open_session(self) -> Session:
        """A connection with its schema up to date, opened in the thread. Raises StoreError."""

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
        self._submit(lambda connection: None, is_batched=True)  # from now on the thread polls

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
        session: Session | None = None
        is_last = False
        while not is_last:
            jobs, is_last = self._next_jobs()
            # From here on a future cannot be cancelled, so each can be given its result.
            jobs = [job for job in jobs if job.done.set_running_or_notify_cancel()]
            if jobs:
                try:
                    session = session or self.open_session()
                except Exception as exc:  # noqa: BLE001 - given to all jobs; the thread goes on
                    for job in jobs:
                        job.done.set_exception(exc)
                else:
                    session = _run_all(session, jobs)
            if self._subscribers:
                session = self._watch(session)
        if session is not None:
            session.close()

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

    def _watch(self, session: Session | None) -> Session | None:
        """Call the subscribers if there is something new. Returns the session, None if it was lost.

        Nobody knows what was missed before a session was opened, so that counts as a change.
        """
        is_changed = True
        if session is None:
            try:
                session = self.open_session()
            except Exception:  # noqa: BLE001 - the next job shows it
                return None
        else:
            try:
                is_changed = session.others_changed()
            except Exception as exc:  # noqa: BLE001 - opened again at the next turn
                logger.warning("the connection to the state store is lost: %s", session.refusal(exc) or exc)
                session.close()
                return None
        for loop, on_change in list(self._subscribers) if is_changed else ():
            if not loop.is_closed():
                loop.call_soon_threadsafe(on_change)
        return session


def _run_all(session: Session, jobs: Sequence[_Job]) -> Session | None:
    """Run `jobs` in one transaction, each within a savepoint of its own.

    Returns the session; None if the transaction failed: the file may be damaged, the connection lost.
    """
    results: list[tuple[_Job, object, Exception | None]] = []
    try:
        session.begin()
        results.extend((job, *_in_savepoint(session, job)) for job in jobs)
        session.commit()
    except Exception as exc:  # noqa: BLE001 - given to all jobs
        session.close()
        failure = StoreUnavailable(f"The state store cannot be written: {session.refusal(exc) or exc}")
        failure.__cause__ = exc
        for job in jobs:
            job.done.set_exception(failure)
        return None
    for job, result, error in results:
        if error is None:
            job.done.set_result(result)
        else:
            job.done.set_exception(error)
    return session


def _in_savepoint(session: Session, job: _Job) -> tuple[object, Exception | None]:
    connection = session.connection
    connection.execute("SAVEPOINT job")
    try:
        result = job.work(connection)
    except Exception as exc:
        if session.concerns_all(exc):
            raise
        connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")
        return None, _as_store_error(session, exc)
    connection.execute("RELEASE job")
    return result, None


def _as_store_error(session: Session, error: Exception) -> Exception:
    """StoreRefused for what the database or the conversion of a value (a lone surrogate) raises."""
    reason = session.refusal(error)
    if reason is None:
        if not isinstance(error, ValueError | OverflowError):
            return error
        reason = type(error).__name__  # never with the value
    found = StoreRefused(f"The state store has refused an operation: {reason}")
    found.__cause__ = error
    return found


def _log_failure(done: Future[object]) -> None:
    error = done.exception()
    if error is not None:
        logger.error("a write to the state store failed: %s", error)
