"""The batches that have been created and are not paid yet: transactions. Blocking, as in `ledger_tables`.

A batch takes hours, and its worker may be gone by then. So what it has reserved is booked on its budgets when
it is created, and its row in `ledger_batch` stays open until its cost is known; then the difference is booked
and the ledger gets its row. Whichever worker learns of the cost first closes the batch, in one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import orjson

from sanic_proxy.governance.batches import Seen
from sanic_proxy.governance.leases import ESTIMATED, OVERDRAFT, Entry, Settlement
from sanic_proxy.governance.ledger_tables import add_rows
from sanic_proxy.state_store.base import Connection

_OPEN = """SELECT provider, batch, entry, reserved, is_strict, counters FROM ledger_batch
    WHERE is_open = 1 AND """
_CORRECT = """UPDATE budget_counter SET used = CASE WHEN used + ? > 0 THEN used + ? ELSE 0 END, touched_ms = ?
    WHERE id = ?"""


class OpenBatch(NamedTuple):
    """A batch whose cost is not known yet. `counters` are the keys of its budgets."""

    provider: str
    batch: str
    entry: Entry
    reserved: int
    is_strict: bool
    counters: list[str]


def of_output(connection: Connection, provider: str, file: str) -> OpenBatch | None:
    """The batch whose output is in that file."""
    row = connection.execute(f"{_OPEN} provider = ? AND output = ?", (provider, file)).fetchone()
    return None if row is None else _read(row)


def waiting(connection: Connection, provider: str, client: str) -> list[str]:
    """The open batches of a client whose output is not known, the oldest first."""
    rows = connection.execute(f"{_OPEN} provider = ? AND output = ''", (provider,)).fetchall()
    found = [batch for batch in map(_read, rows) if batch.entry.client == client]
    return [batch.batch for batch in sorted(found, key=lambda batch: batch.entry.started_ms)]


def note(connection: Connection, provider: str, seen: Iterable[Seen], now_ms: int) -> None:
    """How batches have ended, as their provider says. Those without output have cost nothing."""
    for each in seen:
        if each.output:
            connection.execute(
                "UPDATE ledger_batch SET output = ? WHERE provider = ? AND batch = ? AND is_open = 1",
                (each.output, provider, each.id),
            )
        else:
            row = connection.execute(f"{_OPEN} provider = ? AND batch = ?", (provider, each.id)).fetchone()
            if row is not None:
                settle(connection, _read(row), Settlement(0, f"batch_{each.status}", now_ms))


def settle(connection: Connection, batch: OpenBatch, settlement: Settlement) -> int | None:
    """Close a batch at its cost. Returns its flags; None if it has been closed before."""
    closed = connection.execute(
        "UPDATE ledger_batch SET is_open = 0 WHERE provider = ? AND batch = ? AND is_open = 1",
        (batch.provider, batch.batch),
    )
    if not closed.rowcount:
        return None
    more = settlement.nano - batch.reserved
    if batch.is_strict and more > 0:
        settlement = settlement._replace(flags=settlement.flags | OVERDRAFT)
    add_rows(connection, [(*batch.entry, *settlement, batch.reserved)])
    for counter in batch.counters:
        connection.execute(_CORRECT, (more, more, settlement.ended_ms, counter))
    return settlement.flags


def expire(connection: Connection, now_ms: int) -> int:
    """Close the batches whose output has not been fetched in time, at their reservation. Returns how many."""
    rows = connection.execute(f"{_OPEN} until_ms < ?", (now_ms,)).fetchall()
    for batch in map(_read, rows):
        settle(connection, batch, Settlement(batch.reserved, "batch_not_fetched", now_ms, ESTIMATED))
    connection.execute("DELETE FROM ledger_batch WHERE is_open = 0 AND until_ms < ?", (now_ms,))
    return len(rows)


def _read(row: tuple[str, str, str, int, int, str]) -> OpenBatch:
    provider, batch, entry, reserved, is_strict, counters = row
    return OpenBatch(
        provider, batch, Entry(*orjson.loads(entry)), reserved, bool(is_strict), orjson.loads(counters)
    )
