"""The comparison of the ledger with a provider's bill, in small."""

from __future__ import annotations

import asyncio
from pathlib import Path

from loadtest.money.check import Plan, checked
from tests.support.postgresql import PostgreSQL, needs_postgresql


def test_the_ledger_equals_the_bill_though_workers_are_killed(tmp_path: Path) -> None:
    figures = asyncio.run(checked(Plan(requests=250, kills=2, clients=16), tmp_path))
    assert figures.problems == []
    assert figures.exact_rows > 50
    assert figures.statuses["200"] > 50


@needs_postgresql
def test_so_it_does_for_two_machines_with_one_database(postgresql: PostgreSQL, tmp_path: Path) -> None:
    store = postgresql.new_database()
    plan = Plan(requests=400, kills=2, clients=16, instances=2, store=store)
    figures = asyncio.run(checked(plan, tmp_path))
    assert figures.problems == []
    assert figures.instance_kills == 1
    assert figures.exact_rows > 50
