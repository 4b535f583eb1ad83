"""Processes that keep one ledger and are killed at random: four on one machine, and two on each of two."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from sanic_proxy.governance import ledger_tables
from sanic_proxy.governance.budgets import Charge, Counter
from sanic_proxy.governance.leases import ESTIMATED, ORPHANED, Entry, Settlement
from sanic_proxy.governance.ledger import BudgetSpent, Ledger
from sanic_proxy.state_store.base import Statements
from sanic_proxy.state_store.sqlite import FILE_NAME
from tests.support.ledger_worker import charges
from tests.support.postgresql import PostgreSQL, needs_postgresql, postgresql_at
from tests.support.stores import sqlite_in

ROOT = Path(__file__).parents[1]
WORKERS, REQUESTS, KILLS = 4, 1_500, 8
LIMIT = 1_200_000


class Machines:
    """Directories, one for each machine, and the store of all of them: in the first one, or at `url`."""

    def __init__(self, directories: list[Path], url: str = "") -> None:
        self.directories = directories
        self._url = url
        for directory in directories:
            directory.mkdir(exist_ok=True)

    def start(self, machine: int, name: str, seed: int) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-m", "tests.support.ledger_worker", str(self.directories[machine])]
        options = [name, str(seed), str(REQUESTS), str(LIMIT), *filter(None, [self._url])]
        return subprocess.Popen([*program, *options], cwd=ROOT)

    def run(self, machine: int, use: Callable[[Ledger], Any], later_s: float = 0.0) -> None:
        """Use a ledger, whose clock is so much later."""
        directory = self.directories[machine]
        make = postgresql_at(self._url) if self._url else sqlite_in(directory)

        async def work() -> None:
            store = make(ledger_tables.MIGRATIONS)
            ledger = Ledger(store, directory, wall=lambda: time.time() + later_s)
            ledger.start()
            try:
                await use(ledger)
            finally:
                await ledger.aclose()
                await store.aclose()

        asyncio.run(work())

    @contextmanager
    def connection(self) -> Iterator[Statements]:
        if self._url:
            import psycopg  # noqa: PLC0415 - an extra

            with psycopg.connect(self._url) as found:
                yield found
        else:
            with closing(sqlite3.connect(self.directories[0] / FILE_NAME, timeout=60)) as opened:
                yield opened

    def sums(self) -> dict[str, tuple[int, int]]:
        with self.connection() as connection:
            return dict(ledger_tables.sums(connection))

    def read(self, sql: str) -> list[tuple[Any, ...]]:
        with self.connection() as connection:
            return [tuple(row) for row in connection.execute(sql).fetchall()]

    def check_limits(self) -> None:
        limits = {charge.counter.key: charge.limit for charge in charges(LIMIT)}
        for key, (used, leased) in self.sums().items():
            assert used + leased <= limits[key]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=needs_postgresql)])
def machines(request: pytest.FixtureRequest, tmp_path: Path) -> Machines:
    if request.param == "sqlite":
        return Machines([tmp_path])
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return Machines([tmp_path / "a", tmp_path / "b"], server.new_database())


def test_workers_that_are_killed_at_random_keep_the_books_and_the_limits(machines: Machines) -> None:
    machines.run(0, made)
    chance, count = random.Random(1), len(machines.directories)
    running = [machines.start(number % count, f"w{number}", number) for number in range(WORKERS)]
    kills = starts = 0
    while kills < KILLS:  # a fast machine may finish a worker first: another takes its place
        time.sleep(chance.uniform(0.1, 0.5))
        machines.check_limits()
        number = chance.randrange(WORKERS)
        if running[number].poll() is None:
            running[number].send_signal(signal.SIGKILL)
            kills += 1
        assert running[number].wait() in {0, -signal.SIGKILL}
        starts += 1
        running[number] = machines.start(number % count, f"w{number}-{starts}", starts)
    assert [process.wait() for process in running] == [0] * WORKERS
    for machine in range(count):  # takes over what the killed ones have left
        machines.run(machine, made, later_s=2 * ledger_tables.LEASE_S)
    machines.check_limits()
    check_books(machines, kills)


def check_books(machines: Machines, kills: int) -> None:
    logs = [log for directory in machines.directories for log in directory.glob("*.log")]
    lines = [line for log in logs for line in log.read_text().splitlines()]
    was_reserved, was_settled = found("reserved", lines), found("settled", lines)
    assert len(was_settled) > REQUESTS
    booked = machines.read("SELECT request_id, nano, flags FROM ledger_row WHERE request_id <> 'made'")
    assert max(Tally(id_ for id_, _, _ in booked).values()) == 1
    costs = {id_: nano for id_, nano, _ in booked}
    assert {id_: costs[id_] for id_ in was_settled} == was_settled
    flags = {id_: flag for id_, _, flag in booked}
    for id_ in was_reserved.keys() - was_settled.keys():
        # But one that was killed between the call and its line in the log.
        assert costs[id_] == was_reserved[id_] if flags[id_] == ESTIMATED | ORPHANED else flags[id_] == 0
    assert len(costs.keys() - was_reserved.keys()) <= 8 * kills
    ((total,),) = machines.read("SELECT SUM(nano) FROM ledger_day")
    sums = machines.sums()
    assert total == sum(costs.values()) == sums["all::total:0"][0]
    assert all(leased == 0 for _, leased in sums.values())


def found(word: str, lines: list[str]) -> dict[str, int]:
    matches = (re.fullmatch(rf"{word} (\S+) (\d+)", line) for line in lines)
    return {match[1]: int(match[2]) for match in matches if match}


def entry(id_: str) -> Entry:
    return Entry(id_, 1, "c", "", "p", "p/m", "m", "chat", "/chat/completions", "", int(1000 * time.time()))


async def spent(ledger: Ledger, id_: str, nano: int, charge: Charge) -> None:
    holds = [(ledger.lease(charge), nano)]
    reservation = await ledger.acquire(entry(id_), holds, nano)
    ledger.settle(reservation, Settlement(nano, "ok", int(1000 * time.time())))


async def made(ledger: Ledger) -> None:
    await spent(ledger, "made", 0, charges(LIMIT)[1])


@needs_postgresql
def test_a_machine_that_is_lost_pins_money_for_the_time_of_a_lease(
    postgresql: PostgreSQL, tmp_path: Path
) -> None:
    machines = Machines([tmp_path / "a", tmp_path / "b"], postgresql.new_database())
    charge = Charge(Counter("client", "c", "total", 0), LIMIT // 2)
    lost = machines.start(1, "lost", 1)
    while not leased(machines):
        assert lost.poll() is None
        time.sleep(0.02)
    lost.kill()
    lost.wait()
    pinned = sum(held for _, held in machines.sums().values())
    assert pinned > 0

    async def spend_all(ledger: Ledger) -> None:
        # In amounts of which the last one fits only if nothing is pinned any more.
        ((used,),) = machines.read("SELECT used FROM budget_counter WHERE kind = 'client'")
        await spent(ledger, "all", LIMIT // 2 - used, charge)
        with pytest.raises(BudgetSpent):
            await spent(ledger, "more", 1, charge)

    machines.run(0, spend_all, later_s=2 * ledger_tables.LEASE_S)
    assert machines.sums()[charge.counter.key] == (LIMIT // 2, 0)


def leased(machines: Machines) -> int:
    """What is leased of the client's budget; 0 while there is no table."""
    ((exists,),) = machines.read("SELECT COUNT(*) FROM pg_class WHERE relname = 'budget_lease'")
    if not exists:
        return 0
    ((nano,),) = machines.read("SELECT COALESCE(SUM(nano), 0) FROM budget_lease WHERE counter LIKE 'client%'")
    return int(nano)
