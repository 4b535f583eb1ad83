"""The comparison of the ledger with a provider's bill, in small."""

from __future__ import annotations

import asyncio
from pathlib import Path

from loadtest.money.check import Plan, checked


def test_the_ledger_equals_the_bill_though_workers_are_killed(tmp_path: Path) -> None:
    figures = asyncio.run(checked(Plan(requests=250, kills=2, clients=16), tmp_path))
    assert figures.problems == []
    assert figures.exact_rows > 50
    assert figures.statuses["200"] > 50
