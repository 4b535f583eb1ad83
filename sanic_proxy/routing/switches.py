"""Targets that an operator has switched off, in the shared state, so that they stay off over restarts.

A name is that of a provider (`groq`), of one of its keys (`groq#2`), or of a target (`groq/llama`,
`groq#2/llama`). Each worker reads the names when it starts, and again when another one has changed them.
"""

from __future__ import annotations

import logging
import time

from sanic_proxy.state_store.base import Connection, Migration, StateStore
from sanic_proxy.state_store.follower import Follower

logger = logging.getLogger(__name__)

MIGRATION = Migration(
    "targets switched off", ("CREATE TABLE target_off (name TEXT NOT NULL PRIMARY KEY, since REAL NOT NULL)",)
)


class TargetSwitches:
    """The names that are off, with the time since when, in seconds since the epoch.

    `off` is empty until the names have been read.
    """

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._follower = Follower(store, self._read, "the targets that are switched off")
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
        """Read the names that are off, now and after each change. To be called in the worker's event loop."""
        self._follower.start()

    def close(self) -> None:
        """End following."""
        self._follower.close()

    async def _read(self) -> None:
        rows = await self._store.run(_rows)
        off = {str(name): float(since) for name, since in rows}
        for name in sorted(off.keys() ^ self.off.keys()):
            logger.warning("target %s is switched %s", name, "off" if name in off else "on")
        self.off = off


def _rows(connection: Connection) -> list[tuple[str, float]]:
    return list(connection.execute("SELECT name, since FROM target_off", ()).fetchall())
