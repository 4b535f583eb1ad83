"""What all clients together have spent today, for the operator's page."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sanic_proxy.governance.accounts import sums
from sanic_proxy.governance.ledger_tables import day_of
from sanic_proxy.state_store.base import StateStore, StoreError

# The ledger is read no more often than that, however many listeners there are.
READ_S = 5.0


class TodaysSpend:
    """The sum of the present day (UTC). `clock` has the seconds since the epoch."""

    def __init__(self, store: StateStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._read_at = 0.0
        self._nano: int | None = None

    async def nano(self) -> int | None:
        """The sum in nano-dollars, a few seconds old; None if there is no ledger to be read."""
        now = self._clock()
        if not 0 <= now - self._read_at < READ_S:
            self._read_at = now
            self._nano = await self._read(day_of(round(1000 * now)))
        return self._nano

    async def _read(self, day: str) -> int | None:
        if not self._store.exists():
            return None
        try:
            found = await self._store.run(partial(sums, by=("day",), since=day, until=day))
        except StoreError:
            return None
        return found[0].nano if found else 0
