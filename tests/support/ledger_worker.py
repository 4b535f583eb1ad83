"""A worker with nothing but a ledger, as a program: it reserves and settles until it is ended or killed.

usage: python -m tests.support.ledger_worker DIRECTORY NAME SEED COUNT LIMIT [URL]

The store is in DIRECTORY, or at the URL of a PostgreSQL database; the journals are in DIRECTORY. What it has
done is appended to DIRECTORY/NAME.log, a line for each: `reserved ID AMOUNT`, `settled ID COST`, `spent`,
`reserved elsewhere`, `down`. Each line is written when the call has returned.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from pathlib import Path

from sanic_proxy.governance import ledger_tables
from sanic_proxy.governance.budgets import Charge, Counter
from sanic_proxy.governance.leases import Entry, Settlement
from sanic_proxy.governance.ledger import BudgetReserved, BudgetSpent, Ledger, LedgerDown
from tests.support.postgresql import postgresql_at
from tests.support.stores import sqlite_in

CONCURRENT = 8
MAX_AMOUNT = 1_000


def charges(limit: int) -> list[Charge]:
    """The budgets of the test: half of the limit for each of three clients, in all the limit."""
    return [
        Charge(Counter("client", "c", "total", 0), limit // 2, is_strict=True),
        Charge(Counter("all", "", "total", 0), limit, is_strict=True),
    ]


class Program:
    """See the module."""

    def __init__(self, directory: Path, name: str, seed: int, count: int, limit: int, url: str = "") -> None:
        self._url = url
        self._directory = directory
        self._name = name
        self._random = random.Random(seed)
        self._left = count
        self._limit = limit
        self._log = os.open(directory / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def run(self) -> None:
        """Until as many requests as wanted have been made."""
        make = postgresql_at(self._url) if self._url else sqlite_in(self._directory)
        store = make(ledger_tables.MIGRATIONS)
        ledger = Ledger(store, self._directory)
        ledger.start()
        await asyncio.gather(*(self._client(ledger, number) for number in range(CONCURRENT)))
        await ledger.aclose()
        await store.aclose()

    async def _client(self, ledger: Ledger, number: int) -> None:
        while self._left > 0:
            self._left -= 1
            id_ = f"{self._name}-{number}-{self._left}"
            amount = self._random.randrange(MAX_AMOUNT + 1)
            both = charges(self._limit)
            counted = both if self._random.random() < 0.5 else both[1:]
            holds = [(ledger.lease(charge), amount) for charge in counted]
            entry = Entry(id_, 1, "c", "", "p", "p/m", "m", "chat", "/chat/completions", "", _now_ms())
            try:
                reservation = ledger.reserve(entry, holds, amount)
                reservation = reservation or await ledger.acquire(entry, holds, amount)
            except BudgetSpent:
                self._note("spent")
                continue
            except BudgetReserved:
                self._note("reserved elsewhere")
                continue
            except LedgerDown as exc:
                self._note(f"down {exc}")
                continue
            self._note(f"reserved {id_} {amount}")
            await asyncio.sleep(self._random.choice((0, 0, 0.001, 0.02)))
            cost = self._random.randrange(amount + 1)
            settlement = Settlement(cost, "ok", _now_ms())
            ledger.settle(reservation, settlement)
            ledger.settle(reservation, Settlement(amount, "ok", _now_ms()))  # of no effect
            self._note(f"settled {id_} {cost}")

    def _note(self, line: str) -> None:
        os.write(self._log, f"{line}\n".encode())


def _now_ms() -> int:
    return int(1000 * time.time())


if __name__ == "__main__":
    _directory, _name, _seed, _count, _limit, *_url = sys.argv[1:]
    asyncio.run(Program(Path(_directory), _name, int(_seed), int(_count), int(_limit), *_url).run())
