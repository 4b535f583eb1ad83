"""Compare the ledger with a provider's bill: `scripts/money-check --help`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from loadtest.money.check import Plan, checked


def main() -> None:
    """Run the check and print its figures. Exit status 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="scripts/money-check", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20, help="how often a worker gets SIGKILL")
    parser.add_argument("--clients", type=int, default=48, help="requests at the same time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--instances", type=int, default=1, help="with --store; one of them is killed")
    parser.add_argument("--store", default="", help="the URL of an empty PostgreSQL database")
    options = parser.parse_args()
    plan = Plan(**vars(options))
    with tempfile.TemporaryDirectory() as directory:
        figures = asyncio.run(checked(plan, Path(directory)))
    print(figures.text())
    sys.exit(1 if figures.problems else 0)


main()
