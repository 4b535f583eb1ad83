"""What has been spent today: read seldom, and never an error."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sanic_proxy.governance import ledger_tables
from sanic_proxy.governance.todays_spend import READ_S, TodaysSpend
from sanic_proxy.state_store.base import Connection
from sanic_proxy.state_store.sqlite import SQLiteStore

NOON = 1_795_867_200.0  # 2026-11-28T12:00:00Z
_ROW = "INSERT INTO ledger_day VALUES (?, ?, '', 'groq', 'm', 'groq/m', 1, 0, 1, 0, 0, 1, 0, ?)"


def book(connection: Connection) -> None:
    for row in (("2026-11-27", "a", 1), ("2026-11-28", "a", 20), ("2026-11-28", "b", 300)):
        connection.execute(_ROW, row)


def test_the_sum_of_the_day_is_read_every_few_seconds(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = SQLiteStore(tmp_path, ledger_tables.MIGRATIONS)
        at = [NOON]
        spend = TodaysSpend(store, lambda: at[0])
        assert await spend.nano() is None  # nothing was ever stored
        await store.run(book)
        assert await spend.nano() is None
        at[0] += READ_S
        assert await spend.nano() == 320
        await store.run(lambda connection: connection.execute(_ROW, ("2026-11-28", "c", 4000)))
        at[0] += READ_S / 2
        assert await spend.nano() == 320
        at[0] += READ_S / 2
        assert await spend.nano() == 4320
        at[0] -= 100  # a clock that is set back
        assert await spend.nano() == 4320
        at[0] += 86_400
        assert await spend.nano() == 0
        await store.aclose()

    asyncio.run(scenario())


def test_a_ledger_that_cannot_be_read_has_no_sum(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = SQLiteStore(tmp_path, ())
        await store.run(lambda connection: None)
        assert await TodaysSpend(store, lambda: NOON).nano() is None
        await store.aclose()

    asyncio.run(scenario())
