"""Targets that an operator has switched off, in the shared state, so that they stay off over restarts.

A name is that of a provider (`groq`), of one of its keys (`groq#2`), or of a target (`groq/llama`,
`groq#2/llama`). Each worker reads the names when it starts, and again when another one has changed them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from sanic_proxy.state_store.base import Connection, Migration, StateStore, StoreError

logger = logging.getLogger(__name__)

MIGRATION = Migration(
    "targets switched off", ("CREATE TABLE target_off (name TEXT NOT NULL PRIMARY KEY, since REAL NOT NULL)",)
)
# How often a worker looks whether another one has created the store.
LOOK_S = 0.5


class TargetSwitches:
    """The names that are off, with the time since when, in seconds since the epoch.

    `off` is empty until the names have been read.
    """

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._unsubscribe: Callable[[], None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._is_stale = False
        self._timer: asyncio.TimerHandle | None = None
        self.off: dict[str, float] = {}

    def is_off(self, label: str) -> bool:
        """Whether the target with this label may not be asked."""
        if not self.off:
            return False
        key, _, _ = label.partition("/")
        return not self.off.keys().isdisjoint({label, key, key.partition("#")[0]})

    async def switch(self, name: str, *, is_on: bool) -> None:
        """Switch a target off or on. Raises StoreError."""

        def change(connection: Connection) -> None:
            if is_on:
                connection.execute("DELETE FROM target_off WHERE name = ?", (name,))
            else:
                connection.execute(
                    "INSERT INTO target_off (name, since) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
                    (name, time.time()),
                )

        await self._store.run(change)
        await self._read()

    def follow(self) -> None:
        """Read the names that are off, now and after each change. To be called in the worker's event loop.

        While nothing has been stored the store is not opened, only looked for.
        """
        if self._store.exists():
            self._unsubscribe = self._store.subscribe(self._changed)
            self._changed()
        else:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self.follow)

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
        """Read the names, and again if they have changed meanwhile."""
        while self._is_stale:
            self._is_stale = False
            try:
                await self._read()
            except StoreError as exc:
                logger.error("the targets that are switched off could not be read: %s", exc)  # noqa: TRY400 - no bug

    async def _read(self) -> None:
        rows = await self._store.run(_rows)
        off = {str(name): float(since) for name, since in rows}
        for name in sorted(off.keys() ^ self.off.keys()):
            logger.warning("target %s is switched %s", name, "off" if name in off else "on")
        self.off = off


def _rows(connection: Connection) -> list[tuple[str, float]]:
    return list(connection.execute("SELECT name, since FROM target_off", ()).fetchall())
