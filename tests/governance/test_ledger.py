"""The ledger of a worker on a real store: what it refuses, what it survives, and workers that are killed."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sanic_proxy.governance import ledger_tables
from sanic_proxy.governance.budgets import Charge, Counter
from sanic_proxy.governance.journal import OPEN, SLOT_BYTES, SUFFIX, Journal, journals
from sanic_proxy.governance.leases import (
    ESTIMATED,
    ORPHANED,
    OVERDRAFT,
    UNRESERVED,
    Entry,
    Notice,
    Settlement,
)
from sanic_proxy.governance.ledger import FOLDER, BudgetReserved, BudgetSpent, Ledger, LedgerDown
from sanic_proxy.state_store.sqlite import FILE_NAME, SQLiteStore
from sanic_proxy.state_store.threaded import ThreadedStore
from tests.support.postgresql import PostgreSQL, needs_postgresql, postgresql_at
from tests.support.stores import using

ROOT = Path(__file__).parents[2]
NOW_MS = int(1000 * time.time())
TOTAL = Counter("client", "c", "total", 0)


def entry(id_: str) -> Entry:
    return Entry(id_, 1, "c", "t", "p", "p/m", "m", "chat", "/chat/completions", "", NOW_MS)


def cost(nano: int, flags: int = 0) -> Settlement:
    return Settlement(nano, "ok", NOW_MS, flags)


def with_ledger(directory: Path, use: Callable[[Ledger], Awaitable[Any]], **options: Any) -> Any:
    async def work() -> Any:
        store = SQLiteStore(directory, ledger_tables.MIGRATIONS)
        ledger = Ledger(store, directory, **options)
        try:
            return await use(ledger)
        finally:
            await ledger.aclose()
            await store.aclose()

    return asyncio.run(work())


def rows(directory: Path) -> list[tuple[str, int, int]]:
    with sqlite3.connect(directory / FILE_NAME) as connection:
        return connection.execute("SELECT request_id, nano, flags FROM ledger_row ORDER BY 1").fetchall()


def sums(directory: Path) -> dict[str, tuple[int, int]]:
    with sqlite3.connect(directory / FILE_NAME) as connection:
        return dict(ledger_tables.sums(connection))


async def reserved(ledger: Ledger, id_: str, amount: int, *charges: Charge) -> Any:
    holds = [(ledger.lease(charge), amount) for charge in charges]
    return ledger.reserve(entry(id_), holds, amount) or await ledger.acquire(entry(id_), holds, amount)


def test_what_ended_is_booked_and_nothing_is_leased_any_more(tmp_path: Path) -> None:
    async def use(ledger: Ledger) -> None:
        charge = Charge(TOTAL, 1000)
        first = await reserved(ledger, "a", 100, charge)
        second = await reserved(ledger, "b", 200, charge)
        ledger.settle(first, cost(60))
        ledger.settle(second, cost(0))
        ledger.settle(second, cost(200))

    with_ledger(tmp_path, use)
    assert rows(tmp_path) == [("a", 60, 0), ("b", 0, 0)]
    assert sums(tmp_path) == {TOTAL.key: (60, 0)}
    assert journals(tmp_path / FOLDER) == []


def test_a_request_without_a_budget_is_booked_without_asking_the_store(tmp_path: Path) -> None:
    async def use(ledger: Ledger) -> None:
        reservation = ledger.reserve(entry("a"), [], 7)
        assert reservation is not None
        ledger.settle(reservation, cost(9))

    with_ledger(tmp_path, use)
    assert rows(tmp_path) == [("a", 9, 0)]


def test_a_budget_can_be_spent_to_its_last_nano_dollar(tmp_path: Path) -> None:
    async def use(ledger: Ledger) -> list[int]:
        charge = Charge(TOTAL, 1000)
        for number in range(10):
            ledger.settle(await reserved(ledger, str(number), 99, charge), cost(99))
        with pytest.raises(BudgetSpent) as caught:
            await reserved(ledger, "x", 11, charge)
        ledger.settle(await reserved(ledger, "y", 10, charge), cost(10))
        with pytest.raises(BudgetSpent):
            await reserved(ledger, "z", 1, charge)
        return [caught.value.used, caught.value.amount, caught.value.charge.limit]

    assert with_ledger(tmp_path, use) == [990, 11, 1000]
    assert sums(tmp_path) == {TOTAL.key: (1000, 0)}


def test_money_that_others_have_reserved_is_not_called_spent(tmp_path: Path) -> None:
    async def use(ledger: Ledger) -> None:
        charge = Charge(TOTAL, 1000)
        first = await reserved(ledger, "a", 900, charge)
        with pytest.raises(BudgetReserved):
            await reserved(ledger, "b", 200, charge)
        waiting = asyncio.create_task(reserved(ledger, "c", 200, charge))
        await asyncio.sleep(0)
        ledger.settle(first, cost(100))
        ledger.settle(await waiting, cost(200))

    with_ledger(tmp_path, use)
    assert sums(tmp_path) == {TOTAL.key: (300, 0)}


def test_a_request_that_leaves_while_it_waits_takes_nothing_along(tmp_path: Path) -> None:
    async def use(ledger: Ledger) -> None:
        charge = Charge(TOTAL, 1000)
        waiting = asyncio.create_task(reserved(ledger, "a", 1000, charge))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        ledger.settle(await reserved(ledger, "b", 1000, charge), cost(1000))

    with_ledger(tmp_path, use)
    assert sums(tmp_path) == {TOTAL.key: (1000, 0)}


def test_the_tightest_of_several_budgets_is_named(tmp_path: Path) -> None:
    async def use(ledger: Ledger) -> str:
        wide, tight = Charge(TOTAL, 1000), Charge(Counter("team", "t", "total", 0), 50)
        with pytest.raises(BudgetSpent) as caught:
            await reserved(ledger, "a", 60, wide, tight)
        ledger.settle(await reserved(ledger, "b", 40, wide, tight), cost(40))
        return str(caught.value)

    assert with_ledger(tmp_path, use) == "The budget of the team t is spent"


def test_thresholds_are_announced(tmp_path: Path) -> None:
    found: list[Notice] = []

    async def use(ledger: Ledger) -> None:
        charge = Charge(TOTAL, 1000, soft=(50, 100))
        for number, nano in enumerate((400, 200, 300, 100)):
            ledger.settle(await reserved(ledger, str(number), nano, charge), cost(nano))

    with_ledger(tmp_path, use, announce=found.append)
    assert found[-1].percent == 100
    assert len({notice.percent for notice in found}) == len(found)


def test_a_strict_budget_that_is_overdrawn_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def use(ledger: Ledger) -> None:
        strict = Charge(TOTAL, 1000, is_strict=True)
        ledger.settle(await reserved(ledger, "a", 10, strict), cost(30))
        ledger.settle(await reserved(ledger, "b", 10, Charge(TOTAL, 1000)), cost(30))

    with_ledger(tmp_path, use)
    assert rows(tmp_path) == [("a", 30, OVERDRAFT), ("b", 30, 0)]
    assert "request a cost 30 nano-dollars and had reserved 10" in caplog.text
    assert sums(tmp_path) == {TOTAL.key: (60, 0)}


def test_what_a_dead_worker_has_left_is_booked_by_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left = Journal.create(tmp_path / FOLDER, "dead")
    counters = [(TOTAL, True), (Counter("session requests", "c/s", "total", 0), False)]
    names = ledger_tables.kept_names(entry("open"), counters)
    left.open(ledger_tables.write_reservation(entry("open"), 50, names))
    slot = left.open(ledger_tables.write_reservation(entry("settled"), 50, names))
    left.settle(slot, ledger_tables.write_settlement(1, cost(20)))
    left.close()

    async def use(ledger: Ledger) -> None:
        ledger.settle(await reserved(ledger, "a", 930, Charge(TOTAL, 1000)), cost(930))
        with pytest.raises(BudgetSpent):
            await reserved(ledger, "b", 1, Charge(TOTAL, 1000))

    with_ledger(tmp_path, use)
    assert rows(tmp_path) == [("a", 930, 0), ("open", 50, ESTIMATED | ORPHANED), ("settled", 20, 0)]
    assert sums(tmp_path) == {TOTAL.key: (1000, 0), "session requests:c/s:total:0": (2, 0)}
    assert "1 attempts in flight are booked at their reservation, 1 at their cost" in caplog.text


def test_a_store_that_is_locked_refuses_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with_ledger(tmp_path, lambda ledger: reserved(ledger, "made", 0))

    async def use(ledger: Ledger) -> None:
        charge = Charge(TOTAL, 1000)
        kept = await reserved(ledger, "a", 10, charge)
        locked = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
        locked.execute("BEGIN IMMEDIATE")
        with monkeypatch.context() as patched:
            patched.setattr("sanic_proxy.governance.ledger.STORE_WAIT_S", 0.1)
            with pytest.raises(LedgerDown):
                await reserved(ledger, "b", 900, charge)
        ledger.settle(kept, cost(5))  # what has been granted can be spent
        locked.execute("ROLLBACK")
        locked.close()
        await until_it_succeeds(ledger, charge)

    with_ledger(tmp_path, use)
    assert ("a", 5, 0) in rows(tmp_path)


async def until_it_succeeds(ledger: Ledger, charge: Charge) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            ledger.settle(await reserved(ledger, "c", 900, charge), cost(900))
        except LedgerDown:
            assert time.monotonic() < until
            await asyncio.sleep(0.05)
        else:
            return


def test_a_file_that_is_damaged_refuses_until_it_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database, " * 1000)

    async def use(ledger: Ledger) -> None:
        charge = Charge(TOTAL, 1000)
        with pytest.raises(LedgerDown):
            await reserved(ledger, "a", 10, charge)
        (tmp_path / FILE_NAME).unlink()
        await until_it_succeeds(ledger, charge)

    with_ledger(tmp_path, use)
    assert sums(tmp_path) == {TOTAL.key: (900, 0)}
    assert "the ledger cannot be written" in caplog.text
    assert "the ledger can be written again" in caplog.text


def test_requests_pass_where_that_is_wanted_and_are_booked_later(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database, " * 1000)

    async def use(ledger: Ledger) -> None:
        charge = Charge(TOTAL, 1000)
        ledger.settle(await reserved(ledger, "a", 10, charge), cost(7))
        ledger.settle(await reserved(ledger, "b", 10, charge), cost(8))
        (tmp_path / FILE_NAME).unlink()

    with_ledger(tmp_path, use, passes=True)
    assert rows(tmp_path) == [("a", 7, UNRESERVED), ("b", 8, UNRESERVED)]
    assert sums(tmp_path) == {TOTAL.key: (15, 0)}


def test_a_journal_that_cannot_be_made_refuses_or_lets_pass(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("in the way")

    async def refuse(ledger: Ledger) -> None:
        with pytest.raises(LedgerDown):
            ledger.reserve(entry("a"), [], 5)

    async def let_pass(ledger: Ledger) -> None:
        reservation = ledger.reserve(entry("b"), [], 5)
        assert reservation is not None
        assert reservation.flags == UNRESERVED
        (tmp_path / FOLDER).unlink()
        ledger.settle(await reserved(ledger, "c", 5), cost(5))
        ledger.settle(reservation, cost(3))

    with_ledger(tmp_path, refuse)
    with_ledger(tmp_path, let_pass, passes=True)
    assert rows(tmp_path) == [("b", 3, UNRESERVED), ("c", 5, 0)]


@needs_postgresql
def test_what_the_store_does_not_take_is_set_aside(
    postgresql: PostgreSQL, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(store: ThreadedStore) -> tuple[list[Any], dict[str, tuple[int, int]]]:
        ledger = Ledger(store, tmp_path)
        charge = Charge(TOTAL, 1000)
        held = [await reserved(ledger, id_, 10, charge) for id_ in ("a", "b", "c")]
        ledger.settle(held[0], cost(5))
        ledger.settle(held[1], Settlement(7, "no\0text", NOW_MS))
        ledger.settle(held[2], cost(6))
        ledger.settle(await reserved(ledger, "d", 900, charge), cost(900))
        await ledger.aclose()
        sql = "SELECT request_id, nano FROM ledger_row ORDER BY 1"
        booked = await store.run(lambda connection: connection.execute(sql).fetchall())
        return booked, dict(await store.run(ledger_tables.sums))

    make = postgresql_at(postgresql.new_database())
    booked, counted = using(make, use, ledger_tables.MIGRATIONS)
    assert booked == [("a", 5), ("c", 6), ("d", 900)]
    assert counted == {TOTAL.key: (918, 0)}  # the budget has all of it
    (file,) = (tmp_path / FOLDER).iterdir()
    (line,) = file.read_text().splitlines()
    assert json.loads(line)["request_id"] == "b"
    assert f"the store does not take 1 attempts, see {file}" in caplog.text


def test_a_worker_that_was_refused_leaves_no_lease(tmp_path: Path) -> None:
    async def use(ledger: Ledger) -> None:
        with pytest.raises(BudgetSpent):
            await reserved(ledger, "a", 1001, Charge(TOTAL, 1000))

    with_ledger(tmp_path, use)
    assert sums(tmp_path) == {TOTAL.key: (0, 0)}


def test_a_journal_that_cannot_be_read_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(ledger: Ledger) -> None:
        ledger.settle(await reserved(ledger, "a", 10, Charge(TOTAL, 1000)), cost(7))

    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / f"empty{SUFFIX}").touch()
    damaged = folder / f"damaged{SUFFIX}"
    damaged.write_bytes(bytes([OPEN, 0, 9, 0, 0, 0]).ljust(SLOT_BYTES, b"?"))
    with_ledger(tmp_path, use)
    assert rows(tmp_path) == [("a", 7, 0)]
    assert "cannot be read" in caplog.text
    assert [path.name for path in folder.iterdir()] == ["damaged.damaged"]
