"""Keeps what a worker has read from the state store up to date."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from sanic_proxy.state_store.base import StateStore, StoreError

logger = logging.getLogger(__name__)

# How often a worker looks whether another one has created the store.
LOOK_S = 0.5


class Follower:
    """Calls `read` in the worker's event loop when the store has something, and after each change of it.

    While nothing has been stored the store is not opened, only looked for. `what` names in the log what could
    not be read.
    """

    def __init__(self, store: StateStore, read: Callable[[], Awaitable[None]], what: str) -> None:
        self._store = store
        self._read = read
        self._what = what
        self._unsubscribe: Callable[[], None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._is_stale = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin. To be called in the worker's event loop."""
        if self._store.exists():
            self._unsubscribe = self._store.subscribe(self._changed)
            self._changed()
        else:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self.start)

    def close(self) -> None:
        """End following."""
        if self._timer is not None:
            self._timer.cancel()
        if self._unsubscribe is not None:
            self._unsubscribe()
        if self._reading is not None:
            self._reading.cancel()

    def _changed(self) -> None:
        self._is_stale = True
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._read_all())

    async def _read_all(self) -> None:
        """Read, and again if the store has changed meanwhile."""
        while self._is_stale:
            self._is_stale = False
            try:
                await self._read()
            except StoreError as exc:
                logger.error("%s could not be read: %s", self._what, exc)  # noqa: TRY400 - no bug
