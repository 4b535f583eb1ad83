"""How the budgets of the settings and of keys stand, for those who look often: read every few seconds.

One reading is one transaction. Whoever asks gets the last one, and waits for a new one for a second at most:
a store that is slow or down delays nobody.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

from sanic_proxy.config.model import Settings
from sanic_proxy.governance import keys
from sanic_proxy.governance.accounts import BudgetUse, budget_use
from sanic_proxy.governance.rules import Rulebook, Scope, ScopedLimits
from sanic_proxy.state_store.base import Connection, StateStore, StoreError

logger = logging.getLogger(__name__)

FRESH_S = 5.0
WAIT_S = 1.0
# Readings of so many budgets, and of so many keys that may have some, take milliseconds.
MAX_BUDGETS = 200
MAX_KEYS = 1000

Standings = Sequence[tuple[str, BudgetUse]]  # with the name of the client, team or model


class BudgetStandings:
    """See the module. Nothing is read, and no file opened, before the first question."""

    def __init__(
        self,
        settings: Settings,
        rulebook: Rulebook,
        store: StateStore,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._now = now
        self._has_keys = settings.admin_key is not None or settings.require_keys
        rules = [client.rules for client in settings.clients]
        named = {each.id: each.name for each in rules}
        own = [ScopedLimits(Scope("client", each.id), each.limits) for each in rules]
        self._scopes = [
            (named.get(scoped.scope.name, scoped.scope.name), scoped)
            for scoped in (*own, *rulebook.scopes)
            if scoped.limits.budgets
        ]
        self._latest: Standings = ()
        self._read_at: float | None = None
        self._reading: asyncio.Task[None] | None = None

    async def latest(self) -> Standings:
        """The budgets, of which only the first `MAX_BUDGETS` are read."""
        is_needed = bool(self._scopes) or (self._has_keys and self._store.exists())
        is_fresh = self._read_at is not None and self._now() < self._read_at + FRESH_S
        if is_needed and not is_fresh:
            if self._reading is None:
                self._reading = asyncio.get_running_loop().create_task(self._read())
            await asyncio.wait([self._reading], timeout=WAIT_S)
        return self._latest

    async def aclose(self) -> None:
        """Wait for a reading that is under way."""
        if self._reading is not None:
            await asyncio.wait([self._reading], timeout=WAIT_S)

    async def _read(self) -> None:
        try:
            self._latest = await self._store.run(
                partial(_standings, scopes=self._scopes, has_keys=self._has_keys, now=time.time())
            )
        except StoreError as exc:
            logger.warning("budgets cannot be shown in the metrics: %s", exc)
            self._latest = ()
        finally:
            self._read_at = self._now()
            self._reading = None


def _standings(
    connection: Connection, *, scopes: Sequence[tuple[str, ScopedLimits]], has_keys: bool, now: float
) -> Standings:
    found = list(scopes)
    if has_keys:
        _, listed = keys.select(connection, keys.KeyFilter(status="active"), now, MAX_KEYS)
        found += [
            (key.rules.name, ScopedLimits(Scope("client", key.id), key.rules.limits))
            for key in listed
            if key.rules.limits.budgets
        ]
    shown: list[tuple[str, BudgetUse]] = []
    for name, scoped in found:
        if len(shown) >= MAX_BUDGETS:
            break
        shown += [(name, use) for use in budget_use(connection, [scoped], now)]
    return shown
