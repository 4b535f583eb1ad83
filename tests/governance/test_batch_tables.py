"""Batches in the store: each costs something once, whatever is said of it how often, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sanic_proxy.governance import batch_tables, ledger_tables
from sanic_proxy.governance.batch_tables import OpenBatch
from sanic_proxy.governance.batches import Seen
from sanic_proxy.governance.budgets import SESSION_REQUESTS, Charge, Counter
from sanic_proxy.governance.journal import Journal
from sanic_proxy.governance.leases import (
    ESTIMATED,
    KEPT,
    KEPT_STRICT,
    OVERDRAFT,
    Entry,
    Settlement,
    Standing,
)
from sanic_proxy.governance.ledger import FOLDER, Ledger
from sanic_proxy.state_store.base import Connection, StateStore
from tests.support.stores import MakeStore, using

NOW_MS = 2_000_000_000_000
TOTAL = Counter("client", "c", "total", 0)
SESSION = Counter(SESSION_REQUESTS, "c/s", "total", 0)
ENTRY = Entry("r", 1, "c", "t", "p", "p", "m", "", "/batches", "s", NOW_MS)
UNTIL_MS = NOW_MS + 1000


def run(
    make: MakeStore, directory: Path, *steps: Callable[[Connection], Any], flags: int = KEPT
) -> list[Any]:
    """What `steps` return, each in a transaction, when a batch has been created; and what is left then."""

    async def use(store: StateStore) -> list[Any]:
        ledger = Ledger(store, directory, wall=lambda: NOW_MS / 1000)
        holds = [
            (ledger.lease(Charge(TOTAL, 1000)), 100),
            (ledger.lease(Charge(SESSION, 5, is_money=False)), 1),
        ]
        ledger.settle(await ledger.acquire(ENTRY, holds, 100), Settlement(100, "b1", UNTIL_MS, flags))
        await ledger.aclose()
        return [await store.run(step) for step in (*steps, rows, used)]

    return using(make, use, ledger_tables.MIGRATIONS)


def rows(connection: Connection) -> list[tuple[Any, ...]]:
    return [
        tuple(row) for row in connection.execute("SELECT outcome, nano, flags FROM ledger_row").fetchall()
    ]


def used(connection: Connection) -> tuple[int, int]:
    sums = ledger_tables.sums(connection)
    assert all(leased == 0 for _, leased in sums.values())
    return sums[TOTAL.key][0], sums[SESSION.key][0]


def fetched(nano: int) -> Callable[[Connection], int | None]:
    def step(connection: Connection) -> int | None:
        batch = batch_tables.of_output(connection, "p", "f")
        return (
            None if batch is None else batch_tables.settle(connection, batch, Settlement(nano, "ok", NOW_MS))
        )

    return step


def noted(status: str, output: str = "", batch: str = "b1") -> Callable[[Connection], None]:
    seen = [Seen(batch, status, output, is_over=True, window_s=1)]
    return lambda connection: batch_tables.note(connection, "p", seen, NOW_MS)


def expired(now_ms: int) -> Callable[[Connection], int]:
    return lambda connection: batch_tables.expire(connection, now_ms)


def test_a_batch_is_booked_at_its_reservation_until_its_cost_is_known(
    make: MakeStore, tmp_path: Path
) -> None:
    assert run(make, tmp_path, lambda connection: batch_tables.of_output(connection, "p", "f")) == [
        None,
        [],
        (100, 1),
    ]
    steps = (noted("completed", "f"), fetched(30), fetched(40), noted("failed"), expired(2 * NOW_MS))
    assert run(make, tmp_path, *steps) == [None, 0, None, None, 0, [("ok", 30, 0)], (30, 1)]


def test_a_batch_that_costs_more_is_an_overdraft_of_a_strict_budget(make: MakeStore, tmp_path: Path) -> None:
    found = run(make, tmp_path, noted("expired", "f"), fetched(130), flags=KEPT | KEPT_STRICT)
    assert found == [None, OVERDRAFT, [("ok", 130, OVERDRAFT)], (130, 1)]


def test_batches_wait_until_their_output_is_known(make: MakeStore, tmp_path: Path) -> None:
    def waiting(client: str, provider: str = "p") -> Callable[[Connection], list[str]]:
        return lambda connection: batch_tables.waiting(connection, provider, client)

    steps = (waiting("c"), waiting("d"), waiting("c", "q"), noted("completed", "f"), waiting("c"))
    assert run(make, tmp_path, *steps)[:5] == [["b1"], [], [], None, []]


def test_a_batch_without_output_costs_nothing(make: MakeStore, tmp_path: Path) -> None:
    steps = (noted("failed", batch="other"), noted("cancelled"), noted("cancelled"))
    assert run(make, tmp_path, *steps)[3:] == [[("batch_cancelled", 0, 0)], (0, 1)]


def test_a_batch_that_nobody_fetches_costs_its_reservation(make: MakeStore, tmp_path: Path) -> None:
    steps = (expired(UNTIL_MS), expired(UNTIL_MS + 1), noted("failed"), expired(2 * NOW_MS))
    found = run(make, tmp_path, *steps)
    assert found == [0, 1, None, 0, [("batch_not_fetched", 100, ESTIMATED)], (100, 1)]


def test_the_batch_of_a_worker_that_was_killed_is_kept(make: MakeStore, tmp_path: Path) -> None:
    left = Journal.create(tmp_path / FOLDER, "dead")
    names = ledger_tables.kept_names(ENTRY, [(TOTAL, True), (SESSION, False)])
    for _ in range(2):  # a provider that gives one batch twice
        slot = left.open(ledger_tables.write_reservation(ENTRY, 100, names))
        left.settle(slot, ledger_tables.write_settlement(1, Settlement(100, "b2", UNTIL_MS, KEPT)))
    left.close()

    async def use(store: StateStore) -> tuple[OpenBatch | None, Standing]:
        ledger = Ledger(store, tmp_path, wall=lambda: NOW_MS / 1000)
        reservation = await ledger.acquire(ENTRY, [(ledger.lease(Charge(TOTAL, 1000)), 1)], 1)
        standing = reservation.holds[0][0].standing
        ledger.cancel(reservation)
        await ledger.aclose()
        await store.run(noted("completed", "f", "b2"))
        batch = await store.run(lambda connection: batch_tables.of_output(connection, "p", "f"))
        assert standing is not None
        return batch, standing

    batch, standing = using(make, use, ledger_tables.MIGRATIONS)
    assert standing.used == 100
    assert batch == OpenBatch("p", "b2", ENTRY, 100, is_strict=False, counters=[TOTAL.key])
