"""Which client made a file or batch at a provider, in the shared state. Providers know only their own key.

A resource is named by the path that describes it, as in `/files/file-abc`. Nothing is kept in a worker: an
answer must hold in all workers at once, and a provider's own answer takes far longer than a look-up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping

from sanic_proxy.state_store.base import Connection, Migration, StateStore

MIGRATION = Migration(
    "clients of files and batches",
    (
        """CREATE TABLE resource_client (
            provider TEXT NOT NULL, resource TEXT NOT NULL, client TEXT NOT NULL, used INTEGER NOT NULL,
            PRIMARY KEY (provider, resource))""",
        "CREATE INDEX resource_client_used ON resource_client (used)",
    ),
)
# What has not been used for so long is dropped. Providers delete files after 30 days, or never.
KEPT_S = 400 * 86_400
# The time of use is written again only when it is older than that.
RENEWED_S = 86_400
# Databases limit the parameters of a statement.
_AT_ONCE = 500
_SELECT = "SELECT resource, client, used FROM resource_client"
_INSERT = """INSERT INTO resource_client (provider, resource, client, used) VALUES (?, ?, ?, ?)
    ON CONFLICT (provider, resource) DO """


class ResourceClients:
    """The clients of resources. Its operations raise StoreError; `now` is in seconds since the epoch."""

    __slots__ = ("_now", "_store")

    def __init__(self, store: StateStore, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now = now

    async def find(self, provider: str, resources: Collection[str]) -> Mapping[str, str]:
        """Those of `resources` whose client is known, with its id."""
        now = int(self._now())
        return await self._store.run(lambda connection: _find(connection, provider, resources, now))

    async def created(self, provider: str, resource: str, client: str) -> None:
        """`client` has created `resource`. It belonged to nobody, or the provider uses an id again."""
        await self._insert(
            provider, (resource,), client, "UPDATE SET client = excluded.client, used = excluded.used"
        )

    async def made_of(self, provider: str, resources: Collection[str], client: str) -> None:
        """The provider has made `resources` for `client`. Those whose client is known stay as they are."""
        await self._insert(provider, resources, client, "NOTHING")

    async def _insert(self, provider: str, resources: Iterable[str], client: str, on_conflict: str) -> None:
        now = int(self._now())

        def work(connection: Connection) -> None:
            connection.execute("DELETE FROM resource_client WHERE used < ?", (now - KEPT_S,))
            connection.executemany(
                _INSERT + on_conflict,
                [(provider, resource, client, now) for resource in resources],
            )

        await self._store.run(work)


def _find(connection: Connection, provider: str, resources: Collection[str], now: int) -> dict[str, str]:
    names = list(dict.fromkeys(resources))
    found: dict[str, str] = {}
    stale: list[tuple[int, str, str]] = []
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        marks = ", ".join("?" * len(some))
        rows = connection.execute(
            f"{_SELECT} WHERE provider = ? AND resource IN ({marks})",
            (provider, *some),
        )
        for resource, client, used in rows:
            found[resource] = client
            if used < now - RENEWED_S:
                stale.append((now, provider, resource))
    if stale:
        connection.executemany(
            "UPDATE resource_client SET used = ? WHERE provider = ? AND resource = ?", stale
        )
    return found
