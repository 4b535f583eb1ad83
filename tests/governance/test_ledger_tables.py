"""What the transactions of the ledger do: beginnings of counters, thresholds, old rows, lost workers."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from sanic_proxy.governance import ledger_tables
from sanic_proxy.governance.accounts import Sum, sums
from sanic_proxy.governance.budgets import Charge, Counter
from sanic_proxy.governance.leases import Entry, Message, Row, Settlement, Standing, Want
from sanic_proxy.state_store.base import Connection
from tests.support.postgresql import PostgreSQL, needs_postgresql, postgresql_at
from tests.support.stores import sqlite_in, using

DAY_MS = 86_400_000
NOW_MS = 20_000 * DAY_MS + 5
TOTAL = Counter("client", "c", "total", 0)
TODAY = Counter("client", "c", "day", NOW_MS // 1000 - 5)


@pytest.fixture
def connection() -> sqlite3.Connection:
    made = sqlite3.connect(":memory:", isolation_level=None)
    for migration in ledger_tables.MIGRATIONS:
        for statement in migration.statements:
            made.execute(statement)
    return made


def row(number: int, nano: int, *, started_ms: int = NOW_MS, client: str = "c", model: str = "m") -> Row:
    entry = Entry(
        f"r{number}", 1, client, "t", "p", "p/m", model, "chat", "/chat/completions", "", started_ms
    )
    return *entry, *Settlement(nano, "ok", started_ms, input=3, output=4), nano


def booked(worker: str, number: int, nano: int, *counters: Counter, **more: Any) -> Message:
    """The message with the attempt `number`."""
    costs = dict.fromkeys(counters, nano)
    return Message(worker, number, NOW_MS, [row(number, nano)], costs, **more)


def said(connection: sqlite3.Connection, counter: Counter, limit: int = 10**6) -> Standing:
    """What a counter says to a worker that asks for nothing but one nano-dollar."""
    want = Want(Charge(counter, limit), (1,), 0)
    message = Message("asking", 1, NOW_MS, wants=[want])
    return ledger_tables.exchange(connection, message).standings[counter]


def test_absurd_sums_stay_within_64_bits(connection: sqlite3.Connection) -> None:
    for worker in "abc":
        rows = [row(number, 10**15) for number in range(10_000)]
        message = Message(worker, 1, NOW_MS, rows, {TOTAL: 10_000 * 10**15})
        ledger_tables.exchange(connection, message)
    most = ledger_tables.MAX_SUM_NANO
    assert connection.execute("SELECT used FROM budget_counter").fetchall() == [(most,)]
    assert connection.execute("SELECT nano FROM ledger_day").fetchall() == [(most,)]
    for per, start in (("day", NOW_MS // 1000 - 5), ("total", 0)):
        assert said(connection, Counter("client", "c", per, start)).used == most
        assert said(connection, Counter("all", "", per, start)).used == most


def test_a_new_counter_begins_with_what_its_scope_has_cost_in_its_period(
    connection: sqlite3.Connection,
) -> None:
    rows = [
        row(1, 100, started_ms=NOW_MS),
        row(2, 10, started_ms=NOW_MS - DAY_MS),
        row(3, 1000, client="other", model="gpt-5"),
        row(4, 10_000, client="other", model="gpt%5"),
    ]
    ledger_tables.add_rows(connection, rows)
    assert said(connection, TODAY).used == 100
    assert said(connection, TOTAL).used == 110
    assert said(connection, Counter("team", "t", "total", 0)).used == 11_110
    assert said(connection, Counter("model", "gpt-*", "day", TODAY.start)).used == 1000
    assert said(connection, Counter("model", "gpt%5", "total", 0)).used == 10_000
    assert said(connection, Counter("all", "", "total", 0)).used == 11_110
    assert said(connection, Counter("session", "c/s", "total", 0)).used == 0


def test_a_threshold_is_announced_once_whoever_passes_it(connection: sqlite3.Connection) -> None:
    charge = Charge(TOTAL, 1000, soft=(50, 80, 100))
    found = []
    for number, (worker, nano) in enumerate([("a", 499), ("b", 1), ("a", 100), ("b", 300), ("a", 300)], 1):
        message = booked(worker, number, nano, TOTAL, charges={TOTAL: charge})
        reply = ledger_tables.exchange(connection, message)
        found += [(notice.percent, notice.used) for notice in reply.notices]
    assert found == [(50, 500), (80, 900), (100, 1200)]


def test_a_message_is_applied_once(connection: sqlite3.Connection) -> None:
    message = booked("a", 2, 5, TOTAL)
    replies = [ledger_tables.exchange(connection, message) for _ in range(3)]
    assert [reply.standings[TOTAL] for reply in replies] == [Standing(used=5, leased=0, held=0)] * 3
    assert ledger_tables.sums(connection) == {TOTAL.key: (5, 0)}


def test_old_rows_are_deleted_and_the_sums_of_days_stay(connection: sqlite3.Connection) -> None:
    rows = [row(1, 7, started_ms=NOW_MS - 91 * DAY_MS), row(2, 5), row(3, 6)]
    ledger_tables.add_rows(connection, rows)
    said(connection, TOTAL)
    assert ledger_tables.clean(connection, NOW_MS, 90) == 1
    assert connection.execute("SELECT SUM(nano) FROM ledger_row").fetchone() == (11,)
    days = connection.execute("SELECT day, attempts, input, output, nano FROM ledger_day ORDER BY day")
    assert days.fetchall() == [("2024-07-05", 1, 3, 4, 7), ("2024-10-04", 2, 6, 8, 11)]
    assert said(connection, TOTAL).used == 18


def test_counters_and_workers_of_the_past_are_deleted(connection: sqlite3.Connection) -> None:
    session = Counter("session", "c/s", "total", 0)
    ledger_tables.exchange(connection, booked("a", 1, 5, TOTAL, TODAY, session))
    ledger_tables.end(connection, "a")
    ledger_tables.clean(connection, NOW_MS + 100 * DAY_MS, 90)
    assert ledger_tables.sums(connection) == {TOTAL.key: (5, 0)}
    assert connection.execute("SELECT COUNT(*) FROM ledger_worker").fetchone() == (0,)


def test_a_silent_worker_of_another_machine_loses_its_leases_and_asks_again(
    connection: sqlite3.Connection,
) -> None:
    charge = Charge(TOTAL, 1000)
    want = [Want(charge, (1000,), 1000)]
    ledger_tables.exchange(connection, Message("far", 1, NOW_MS, wants=want))
    late_ms = NOW_MS + int(1000 * ledger_tables.LEASE_S) + 1
    near = ledger_tables.exchange(connection, Message("near", 1, late_ms, wants=want, here=["far", "near"]))
    assert near.standings[TOTAL] == Standing(used=0, leased=1000, held=0)
    near = ledger_tables.exchange(connection, Message("near", 2, late_ms, wants=want, here=["near"]))
    assert near.standings[TOTAL] == Standing(used=0, leased=1000, held=1000)
    far = ledger_tables.exchange(
        connection, Message("far", 2, late_ms, [row(1, 5)], {TOTAL: 5}, is_tick=True)
    )
    assert far.standings[TOTAL] == Standing(used=5, leased=1000, held=0)


def test_a_worker_that_was_declared_dead_is_not_listened_to(connection: sqlite3.Connection) -> None:
    assert ledger_tables.adopt(connection, "a", [], NOW_MS) == (0, 0)
    ledger_tables.exchange(connection, booked("a", 9, 5, TOTAL))
    assert ledger_tables.sums(connection) == {TOTAL.key: (0, 0)}


def test_many_rows_are_booked_at_once(connection: sqlite3.Connection) -> None:
    ledger_tables.add_rows(connection, [row(number, 1) for number in range(1000)])
    assert connection.execute("SELECT COUNT(*), SUM(nano) FROM ledger_row").fetchone() == (1000, 1000)
    assert connection.execute("SELECT attempts, nano FROM ledger_day").fetchall() == [(1000, 1000)]


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=needs_postgresql)])
def test_sums_from_before_they_had_a_target_are_kept(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    make = sqlite_in(tmp_path)
    if database == "postgresql":
        server: PostgreSQL = request.getfixturevalue("postgresql")
        make = postgresql_at(server.new_database())

    def write(connection: Connection) -> None:
        day = ("2026-11-28", "c", "t", "p", "m", 2, 1, 30, 0, 0, 40, 0, 500)
        connection.execute(f"INSERT INTO ledger_day VALUES ({', '.join('?' * len(day))})", day)

    def read(connection: Connection) -> list[Sum]:
        ledger_tables.add_rows(connection, [row(1, 100)])
        return sums(connection, ["target", "key"])

    using(make, lambda store: store.run(write), ledger_tables.MIGRATIONS[:1])
    assert using(make, lambda store: store.run(read), ledger_tables.MIGRATIONS) == [
        Sum(("", "c"), 2, 1, 30, 0, 0, 40, 0, 500),
        Sum(("p/m", "c"), 1, 0, 3, 0, 0, 4, 0, 100),
    ]
