"""The tables of the ledger, and the transactions on them. Blocking: they run in the store's thread.

The statements are those that SQLite and PostgreSQL have in common. Money is in nano-dollars, times of day in
milliseconds since the epoch, the beginnings of periods in seconds.
"""

from __future__ import annotations

import datetime as dt
import struct
from collections import Counter as Tally
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from sanic_proxy.governance.budgets import FOREVER, SESSION_REQUESTS, Counter, passed
from sanic_proxy.governance.journal import Left
from sanic_proxy.governance.leases import (
    ESTIMATED,
    KEPT,
    KEPT_STRICT,
    ORPHANED,
    Booking,
    Entry,
    Message,
    Notice,
    Reply,
    Row,
    Settlement,
    Standing,
    granted,
)
from sanic_proxy.state_store.base import Connection, Migration, Statements

# So long after its last message a worker is believed dead whose journal is not on this machine. One whose
# journal is here shows by its lock whether it lives.
LEASE_S = 10.0
# What a worker that has left has for the number of its last message.
ENDED = 2**62
_DAY_MS = 86_400_000

_TABLES = Migration(
    "ledger",
    (
        """CREATE TABLE ledger_row (
            request_id TEXT NOT NULL, attempt INTEGER NOT NULL, client TEXT NOT NULL, team TEXT NOT NULL,
            provider TEXT NOT NULL, target TEXT NOT NULL, model TEXT NOT NULL, dialect TEXT NOT NULL,
            endpoint TEXT NOT NULL, session TEXT NOT NULL, started_ms INTEGER NOT NULL,
            nano INTEGER NOT NULL, outcome TEXT NOT NULL, ended_ms INTEGER NOT NULL, flags INTEGER NOT NULL,
            input INTEGER NOT NULL, cached INTEGER NOT NULL, cache_write INTEGER NOT NULL,
            output INTEGER NOT NULL, reasoning INTEGER NOT NULL, price TEXT NOT NULL,
            reserved INTEGER NOT NULL)""",
        "CREATE INDEX ledger_row_client ON ledger_row (client, started_ms)",
        "CREATE INDEX ledger_row_request ON ledger_row (request_id)",
        """CREATE TABLE ledger_day (
            day TEXT NOT NULL, client TEXT NOT NULL, team TEXT NOT NULL, provider TEXT NOT NULL,
            model TEXT NOT NULL, attempts INTEGER NOT NULL, estimated INTEGER NOT NULL,
            input INTEGER NOT NULL, cached INTEGER NOT NULL, cache_write INTEGER NOT NULL,
            output INTEGER NOT NULL, reasoning INTEGER NOT NULL, nano INTEGER NOT NULL,
            PRIMARY KEY (day, client, team, provider, model))""",
        """CREATE TABLE budget_counter (
            id TEXT NOT NULL PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, per TEXT NOT NULL,
            start INTEGER NOT NULL, used INTEGER NOT NULL, announced INTEGER NOT NULL,
            touched_ms INTEGER NOT NULL)""",
        """CREATE TABLE budget_lease (
            counter TEXT NOT NULL, worker TEXT NOT NULL, nano INTEGER NOT NULL,
            PRIMARY KEY (counter, worker))""",
        "CREATE INDEX budget_lease_worker ON budget_lease (worker)",
        """CREATE TABLE ledger_worker (
            id TEXT NOT NULL PRIMARY KEY, number INTEGER NOT NULL, expires_ms INTEGER NOT NULL)""",
    ),
)
# Sums of days before this have no target.
_TARGETS_OF_DAYS = Migration(
    "ledger: sums by target",
    (
        "ALTER TABLE ledger_day RENAME TO ledger_day_before",
        """CREATE TABLE ledger_day (
            day TEXT NOT NULL, client TEXT NOT NULL, team TEXT NOT NULL, provider TEXT NOT NULL,
            model TEXT NOT NULL, target TEXT NOT NULL, attempts INTEGER NOT NULL, estimated INTEGER NOT NULL,
            input INTEGER NOT NULL, cached INTEGER NOT NULL, cache_write INTEGER NOT NULL,
            output INTEGER NOT NULL, reasoning INTEGER NOT NULL, nano INTEGER NOT NULL,
            PRIMARY KEY (day, client, team, provider, model, target))""",
        """INSERT INTO ledger_day (day, client, team, provider, model, target, attempts, estimated,
            input, cached, cache_write, output, reasoning, nano)
            SELECT day, client, team, provider, model, '', attempts, estimated,
            input, cached, cache_write, output, reasoning, nano FROM ledger_day_before""",
        "DROP TABLE ledger_day_before",
    ),
)
# Batches that have been created. `entry` and `counters` are JSON, `output` is the id of its file.
_BATCHES = Migration(
    "batches",
    (
        """CREATE TABLE ledger_batch (
            provider TEXT NOT NULL, batch TEXT NOT NULL, entry TEXT NOT NULL, counters TEXT NOT NULL,
            reserved INTEGER NOT NULL, is_strict INTEGER NOT NULL, until_ms INTEGER NOT NULL,
            output TEXT NOT NULL, is_open INTEGER NOT NULL, PRIMARY KEY (provider, batch))""",
    ),
)
MIGRATIONS = (_TABLES, _TARGETS_OF_DAYS, _BATCHES)

ROW_COLUMNS = (*Entry._fields, *Settlement._fields, "reserved")
_CLIENT, _TEAM, _PROVIDER, _MODEL, _TARGET, _STARTED, _NANO, _FLAGS, _UNITS = map(
    ROW_COLUMNS.index,
    ("client", "team", "provider", "model", "target", "started_ms", "nano", "flags", "input"),
)
_MARKS = ", ".join("?" for _ in ROW_COLUMNS)
_INSERT_ROW = f"INSERT INTO ledger_row ({', '.join(ROW_COLUMNS)}) VALUES ({_MARKS})"  # noqa: S608 - of ours
# Larger sums are not kept: twice as much is still a number of 64 bits.
MAX_SUM_NANO = 2**61
_ADD_TO_DAY = f"""INSERT INTO ledger_day (day, client, team, provider, model, target,
    attempts, estimated, input, cached, cache_write, output, reasoning, nano)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (day, client, team, provider, model, target) DO UPDATE SET
    attempts = ledger_day.attempts + excluded.attempts, estimated = ledger_day.estimated + excluded.estimated,
    input = ledger_day.input + excluded.input, cached = ledger_day.cached + excluded.cached,
    cache_write = ledger_day.cache_write + excluded.cache_write,
    output = ledger_day.output + excluded.output, reasoning = ledger_day.reasoning + excluded.reasoning,
    nano = CASE WHEN ledger_day.nano + excluded.nano > {MAX_SUM_NANO} THEN {MAX_SUM_NANO}
    ELSE ledger_day.nano + excluded.nano END"""  # noqa: S608 - a number of ours
_ADD_TO_COUNTER = f"""UPDATE budget_counter SET
    used = CASE WHEN used + ? > {MAX_SUM_NANO} THEN {MAX_SUM_NANO} ELSE used + ? END, touched_ms = ?
    WHERE id = ? RETURNING used, announced"""  # noqa: S608
_ADD_TO_LEASE = """INSERT INTO budget_lease (counter, worker, nano) VALUES (?, ?, ?)
    ON CONFLICT (counter, worker) DO UPDATE SET nano = budget_lease.nano + excluded.nano"""
_TAKE_FROM_LEASE = """UPDATE budget_lease SET nano = CASE WHEN nano > ? THEN nano - ? ELSE 0 END
    WHERE counter = ? AND worker = ?"""
# The rows of a scope; a model's may be a pattern.
_SCOPES = {"client": "client = ?", "team": "team = ?", "model": "model LIKE ? ESCAPE '!'", "all": "1 = 1"}
_KEEP_BATCH = """INSERT INTO ledger_batch
    (provider, batch, entry, counters, reserved, is_strict, until_ms, output, is_open)
    VALUES (?, ?, ?, ?, ?, ?, ?, '', 1) ON CONFLICT (provider, batch) DO NOTHING"""
_ALL_STANDINGS = """SELECT c.kind, c.name, c.per, c.start, c.used,
    (SELECT SUM(others.nano) FROM budget_lease others WHERE others.counter = l.counter), l.nano
    FROM budget_lease l JOIN budget_counter c ON c.id = l.counter WHERE l.worker = ?"""


def exchange(connection: Connection, message: Message) -> Reply:
    """Apply a message, unless it has been applied before, and grant what it wants."""
    reply = Reply()
    number = _number_of(connection, message.worker)
    if number is not None and number < message.number:
        _book(connection, message, reply)
        for counter, amount in message.releases.items():
            connection.execute(_TAKE_FROM_LEASE, (amount, amount, counter.key, message.worker))
        expires_ms = message.now_ms + int(1000 * LEASE_S)
        connection.execute(
            "UPDATE ledger_worker SET number = ?, expires_ms = ? WHERE id = ?",
            (message.number, expires_ms, message.worker),
        )
    if message.here is not None:
        _expire(connection, message.now_ms, message.here)
    booked = (counter for booking in message.kept for counter, _ in booking.costs)
    touched = {*message.releases, *message.costs, *booked}
    for want in message.wants:
        counter = want.charge.counter
        used = _used(connection, counter, message.now_ms, want.charge.end)
        leased, _ = _leased(connection, counter, message.worker)
        if given := granted(want, used, leased):
            connection.execute(_ADD_TO_LEASE, (counter.key, message.worker, given))
        touched.add(counter)
    if message.is_tick:
        for *counter, used, leased, held in connection.execute(_ALL_STANDINGS, (message.worker,)).fetchall():
            reply.standings[Counter(*counter)] = Standing(used, int(leased), held)
    for counter in touched:
        leased, held = _leased(connection, counter, message.worker)
        reply.standings[counter] = Standing(_used(connection, counter, message.now_ms), leased, held)
    return reply


class Tried(Exception):
    """The database takes what was tried."""


def attempt(connection: Connection, row: Row) -> None:
    """Book a row to see whether the database takes it. Raises Tried if so, which rolls it back."""
    add_rows(connection, [row])
    raise Tried


def _number_of(connection: Connection, worker: str) -> int | None:
    """The number of the worker's last message; None if others have declared it dead for good."""
    row = connection.execute("SELECT number FROM ledger_worker WHERE id = ?", (worker,)).fetchone()
    if row is None:
        connection.execute("INSERT INTO ledger_worker (id, number, expires_ms) VALUES (?, 0, 0)", (worker,))
        return 0
    number: int = row[0]
    return None if number == ENDED else number


def _book(connection: Connection, message: Message, reply: Reply) -> None:
    """Book what has ended: its rows, the sums of its days, its costs on counters and from leases."""
    costs = Tally(message.costs)
    for booking in _kept(connection, message.kept):
        for counter, cost in booking.costs:
            costs[counter] += cost
    # Before the rows are there: a counter that begins now begins with the sum of the rows before.
    for counter in costs:
        charge = message.charges.get(counter)
        _used(connection, counter, message.now_ms, FOREVER if charge is None else charge.end)
    add_rows(connection, message.rows)
    for counter, cost in costs.items():
        bounded = min(cost, MAX_SUM_NANO)
        connection.execute(_TAKE_FROM_LEASE, (bounded, bounded, counter.key, message.worker))
        added = (bounded, bounded, message.now_ms, counter.key)
        used, announced = connection.execute(_ADD_TO_COUNTER, added).fetchone()
        charge = message.charges.get(counter)
        if charge is not None and (percent := passed(charge.limit, used, charge.soft, announced)):
            connection.execute("UPDATE budget_counter SET announced = ? WHERE id = ?", (percent, counter.key))
            reply.notices.append(Notice(charge, percent, used))


def _kept(connection: Connection, bookings: Iterable[Booking]) -> list[Booking]:
    """Note the batches that have been created, and return those that are new.

    What they have reserved is booked as if it were their cost, since they may take days. When that is known
    the difference is booked (`batch_tables`).
    """
    new = []
    for booking in bookings:
        entry, settlement = booking.entry, booking.settlement
        money = [counter.key for counter, _ in booking.costs if counter.kind != SESSION_REQUESTS]
        values = (
            entry.provider,
            settlement.outcome,
            orjson.dumps(tuple(entry)).decode(),
            orjson.dumps(money).decode(),
            booking.reserved,
            int(bool(settlement.flags & KEPT_STRICT)),
            settlement.ended_ms,
        )
        if connection.execute(_KEEP_BATCH, values).rowcount:
            new.append(booking)
    return new


def add_rows(connection: Connection, rows: Sequence[Row]) -> None:
    """Insert the rows of ended attempts, and add them to the sums of their days (in UTC)."""
    if not rows:
        return
    connection.executemany(_INSERT_ROW, rows)
    # First by the number of the day, as rows are many and days are few.
    days: dict[tuple[Any, ...], list[int]] = {}
    for row in rows:
        names = row[_CLIENT], row[_TEAM], row[_PROVIDER], row[_MODEL], row[_TARGET]
        key = (row[_STARTED] // _DAY_MS, *names)
        sums = days.get(key)
        if sums is None:
            sums = days[key] = [0] * 8
        sums[0] += 1
        if row[_FLAGS] & ESTIMATED:
            sums[1] += 1
        sums[2] += row[_UNITS]
        sums[3] += row[_UNITS + 1]
        sums[4] += row[_UNITS + 2]
        sums[5] += row[_UNITS + 3]
        sums[6] += row[_UNITS + 4]
        sums[7] += row[_NANO]
    for key, sums in days.items():
        bounded = (min(total, MAX_SUM_NANO) for total in sums)
        connection.execute(_ADD_TO_DAY, (day_of(key[0] * _DAY_MS), *key[1:], *bounded))


def day_of(time_ms: int) -> str:
    """The day (UTC) of an instant: `2026-11-28`."""
    return dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC).date().isoformat()


def _used(connection: Connection, counter: Counter, now_ms: int, end: int = FOREVER) -> int:
    """The sum of a counter, whose period ends at `end`. A new one begins with what its rows have cost."""
    row = connection.execute("SELECT used FROM budget_counter WHERE id = ?", (counter.key,)).fetchone()
    if row is not None:
        used: int = row[0]
        return used
    used = spent(connection, counter, end)
    connection.execute(
        "INSERT INTO budget_counter (id, kind, name, per, start, used, announced, touched_ms) "
        "VALUES (?, ?, ?, ?, ?, ?, 0, ?) ON CONFLICT (id) DO NOTHING",
        (counter.key, *counter, used, now_ms),
    )
    return used


def spent(connection: Connection, counter: Counter, end: int) -> int:
    """What the rows of a counter's scope and period have cost; for all time, what the sums of days say."""
    scope = _SCOPES.get(counter.kind)
    if scope is None:
        return 0  # of an agent's session
    name = counter.name
    if counter.kind == "model":
        name = name.replace("!", "!!").replace("%", "!%").replace("_", "!_").replace("*", "%")
    values: list[object] = [name] if counter.kind != "all" else []
    rows = f"ledger_day WHERE {scope}"
    if counter.per != "total":
        values += (1000 * counter.start, 1000 * end)
        rows = f"ledger_row WHERE {scope} AND started_ms >= ? AND started_ms < ?"
    # In two parts, neither of which has more than 64 bits, whatever the sum.
    text = f"SELECT SUM(nano / 1000000000), SUM(nano % 1000000000) FROM {rows}"  # noqa: S608 - of the table above
    dollars, nano = connection.execute(text, values).fetchone()
    return min(int(dollars or 0) * 10**9 + int(nano or 0), MAX_SUM_NANO)


def _leased(connection: Connection, counter: Counter, worker: str) -> tuple[int, int]:
    """What all workers have of a counter, and what this one has."""
    row = connection.execute(
        "SELECT COALESCE(SUM(nano), 0), COALESCE(SUM(CASE WHEN worker = ? THEN nano END), 0) "
        "FROM budget_lease WHERE counter = ?",
        (worker, counter.key),
    ).fetchone()
    return int(row[0]), int(row[1])


def end(connection: Connection, worker: str) -> None:
    """A worker has gone: its leases end, and no message of its is applied any more."""
    connection.execute("DELETE FROM budget_lease WHERE worker = ?", (worker,))
    connection.execute("UPDATE ledger_worker SET number = ? WHERE id = ?", (ENDED, worker))


class Orphans(NamedTuple):
    """What became of a dead worker's attempts: how many had been settled, how many were still open."""

    settled: int
    open: int


def adopt(connection: Connection, worker: str, left: Iterable[Left], now_ms: int) -> Orphans:
    """Book what a dead worker has left, once: what was still open at its reservation."""
    number = _number_of(connection, worker)
    if number is None:
        return Orphans(0, 0)
    found = [read_left(each, now_ms) for each in left]
    was_settled = [booking for booking in found if booking.number > number]
    was_open = [booking for booking in found if not booking.number]
    costs: Tally[Counter] = Tally()
    rows, kept = [], []
    for booking in (*was_settled, *was_open):
        if booking.settlement.flags & KEPT:
            kept.append(booking)
            continue
        rows.append(booking.row)
        for counter, cost in booking.costs:
            costs[counter] += cost
    _book(connection, Message(worker, ENDED, now_ms, rows, costs, kept), Reply())
    end(connection, worker)
    return Orphans(len(was_settled), len(was_open))


# Numbers of a reservation: started_ms, reserved, attempt, the length of the request's id, which follows with
# the text of `kept_names`. Of a settlement: its number, nano, ended_ms, flags, the five units, the length of
# its outcome, which follows with the price.
_RESERVATION = struct.Struct("<qqIH")
_SETTLEMENT = struct.Struct("<9qH")


def kept_names(entry: Entry, counters: Iterable[tuple[Counter, bool]]) -> bytes:
    """What the journal keeps of a reservation besides its own numbers; the same for many of them.

    `counters` are what it is counted on, and whether that counts money. Other counters count requests.
    """
    return orjson.dumps((entry[2:-1], [(tuple(counter), is_money) for counter, is_money in counters]))


def write_reservation(entry: Entry, reserved: int, names: bytes) -> bytes:
    """A reservation as the journal keeps it, with what `kept_names` returned for it."""
    id_ = entry[0].encode()
    return _RESERVATION.pack(entry[-1], reserved, entry[1], len(id_)) + id_ + names


def write_settlement(number: int, settlement: Settlement) -> bytes:
    """A settlement as the journal keeps it."""
    nano, outcome, ended_ms, flags, given, cached, written, made, reasoning, price = settlement
    text = outcome.encode()
    numbers = _SETTLEMENT.pack(
        number, nano, ended_ms, flags, given, cached, written, made, reasoning, len(text)
    )
    return numbers + text + price.encode()


def row_text(row: Row) -> bytes:
    """A row as JSON, for an operator to read."""
    return orjson.dumps(dict(zip(ROW_COLUMNS, row, strict=True)))


def read_left(left: Left, now_ms: int) -> Booking:
    """The booking of what was left in a slot; its number is 0 where the attempt had not ended.

    Raises ValueError if it cannot be read.
    """
    try:
        started_ms, reserved, attempt, size = _RESERVATION.unpack_from(left.reservation)
        begin = _RESERVATION.size + size
        names, counters = orjson.loads(left.reservation[begin:])
        entry = Entry._make(
            (left.reservation[_RESERVATION.size : begin].decode(), attempt, *names, started_ms)
        )
        number, settlement = 0, Settlement(reserved, "worker_died", now_ms, ESTIMATED | ORPHANED)
        if left.settlement:
            number, nano, ended_ms, flags, *units, size = _SETTLEMENT.unpack_from(left.settlement)
            text = left.settlement[_SETTLEMENT.size :]
            outcome, price = text[:size].decode(), text[size:].decode()
            settlement = Settlement._make((nano, outcome, ended_ms, flags, *units, price))
        costs = tuple(
            (Counter(*counter), settlement.nano if is_money else 1) for counter, is_money in counters
        )
    except (struct.error, TypeError) as exc:
        raise ValueError(f"not a reservation: {exc}") from exc
    return Booking(number, entry, settlement, reserved, costs)


def _expire(connection: Connection, now_ms: int, here: Sequence[str]) -> None:
    """End the leases of workers that have not been heard of and whose journals are not `here`.

    Such a worker may still live, on another machine: it goes on with the leases that it then asks for.
    """
    silent = connection.execute(
        "SELECT DISTINCT worker FROM budget_lease JOIN ledger_worker ON id = worker WHERE expires_ms < ?",
        (now_ms,),
    ).fetchall()
    for (worker,) in silent:
        if worker not in here:
            connection.execute("DELETE FROM budget_lease WHERE worker = ?", (worker,))


def clean(connection: Connection, now_ms: int, days: int) -> int:
    """Delete the rows that are older than `days`, and counters and workers that nobody needs any more.

    The sums of days stay. Returns how many rows were deleted.
    """
    before_ms = now_ms - days * _DAY_MS
    deleted = 0
    for (client,) in connection.execute("SELECT DISTINCT client FROM ledger_day").fetchall():
        cursor = connection.execute(
            "DELETE FROM ledger_row WHERE client = ? AND started_ms < ?", (client, before_ms)
        )
        deleted += cursor.rowcount
    # A total counts for ever; a session's is one only in name.
    connection.execute(
        "DELETE FROM budget_counter WHERE touched_ms < ? AND (per <> 'total' OR kind LIKE 'session%') "
        "AND NOT EXISTS (SELECT 1 FROM budget_lease WHERE budget_lease.counter = budget_counter.id)",
        (before_ms,),
    )
    connection.execute("DELETE FROM ledger_worker WHERE expires_ms < ? AND number = ?", (before_ms, ENDED))
    connection.execute("DELETE FROM budget_lease WHERE nano = 0")
    return deleted


def sums(connection: Statements) -> Mapping[str, tuple[int, int]]:
    """For each counter by its key: what is booked, and what is leased."""
    rows = connection.execute(
        "SELECT id, used, (SELECT COALESCE(SUM(nano), 0) FROM budget_lease WHERE counter = id) "
        "FROM budget_counter"
    )
    return {key: (used, int(leased)) for key, used, leased in rows.fetchall()}
