"""The background responses that one worker runs: how many, their leases, and how they end early.

A task counts as a request in flight: a worker that stops waits for it as long as for any request, and then
cuts it. While there are tasks, their leases are renewed (see `responses`), and a change of the store by
another worker is looked through for responses that have been cancelled or deleted there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from typing_extensions import override

from sanic_proxy.errors import ProxyError
from sanic_proxy.observability.in_flight import Traffic, UnderWay
from sanic_proxy.state_store.base import StoreError
from sanic_proxy.state_store.responses import RENEW_S, ResponseStore

logger = logging.getLogger(__name__)


class BackgroundTask(UnderWay):
    """One response that is made in the background. `cut_by` is why the proxy has ended it, if it has."""

    def __init__(self, id_: str, run: Callable[[BackgroundTask], Coroutine[Any, Any, None]]) -> None:
        self.id = id_
        self.held_bytes = 0
        self.cut_by: ProxyError | None = None
        self.task = asyncio.get_running_loop().create_task(run(self))

    @override
    def end_connection(self) -> None:
        """It has none."""

    @override
    def cut(self, error: ProxyError) -> None:
        if self.cut_by is None:
            self.cut_by = error
            self.task.cancel()


class BackgroundResponses:
    """See the module. `limit` is how many there may be at once."""

    def __init__(self, store: ResponseStore, traffic: Traffic, limit: int) -> None:
        self._store = store
        self._traffic = traffic
        self._limit = limit
        self._tasks: dict[str, BackgroundTask] = {}
        self._renewing: asyncio.Task[None] | None = None
        self._checking: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] = lambda: None

    @property
    def is_full(self) -> bool:
        """Whether no further one may begin."""
        return len(self._tasks) >= self._limit

    def start(self, id_: str, run: Callable[[BackgroundTask], Coroutine[Any, Any, None]]) -> None:
        """Run the response `id_`, which has been stored as queued."""
        task = BackgroundTask(id_, run)
        self._tasks[id_] = task
        self._traffic.begin(task)
        task.task.add_done_callback(lambda done: self._end(task, done))
        if self._renewing is None:
            self._renewing = asyncio.get_running_loop().create_task(self._renew())
            self._unsubscribe = self._store.store.subscribe(self.check)

    def check(self) -> None:
        """Cancel the tasks whose responses have been cancelled or deleted, soon."""
        if self._tasks and self._checking is None:
            self._checking = asyncio.get_running_loop().create_task(self._check())

    async def aclose(self) -> None:
        """Wait until all have ended: by themselves, or cut when the time to stop is over."""
        while self._tasks:
            await asyncio.wait([task.task for task in self._tasks.values()])
            await asyncio.sleep(0)  # for the callbacks

    def _end(self, task: BackgroundTask, done: asyncio.Task[None]) -> None:
        del self._tasks[task.id]
        self._traffic.end(task)
        if not done.cancelled() and (error := done.exception()) is not None:
            logger.error("background response %s failed", task.id, exc_info=error)
        if not self._tasks and self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None
            self._unsubscribe()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                self._store.renew()
            except StoreError as exc:
                logger.error("leases of background responses were not renewed: %s", exc)  # noqa: TRY400

    async def _check(self) -> None:
        try:
            running = set(self._tasks)
            wanted = await self._store.unfinished()
        except StoreError as exc:
            logger.error("background responses cannot be checked: %s", exc)  # noqa: TRY400 - no bug of ours
            return
        finally:
            self._checking = None
        for id_ in running - wanted:
            if (task := self._tasks.get(id_)) is not None:
                task.task.cancel()
