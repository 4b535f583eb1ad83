"""The failover check: each fault, streamed and whole, over new and over used connections."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from loadtest.failover.runner import Cell, Result, measure
from loadtest.failover.scenarios import PROFILES, SCENARIOS, VERDICTS, Scenario
from loadtest.own_proxy import ROOT
from sanic_proxy.config.saving import ON_CUT

RESULTS = ROOT / "loadtest" / "results"
FAILED = 1  # the exit status if a cell fails; a clean error is no failure


def main() -> None:
    options = _options()
    cells = _cells(options)
    results = asyncio.run(_measured(cells, options.jobs))
    sys.stdout.write(table(results))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"failover-{options.profile}-{datetime.now().astimezone():%Y%m%d-%H%M%S}.json"
    report = {
        "profile": options.profile,
        "workers": options.workers,
        "saving": _saving(options),
        "cells": [asdict(result) for result in results],
    }
    path.write_text(json.dumps(report, indent=1), "utf-8")
    sys.stdout.write(f"\n{path.relative_to(ROOT)}\n")
    sys.exit(FAILED if any(result.verdict == "fail" for result in results) else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/failover", description=__doc__)
    parser.add_argument("--profile", choices=PROFILES, default="fast")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scenario", action="append", metavar="S05", help="only this one; may be repeated")
    parser.add_argument("--whole", action="store_true", help="only answers that are not streamed")
    parser.add_argument("--streamed", action="store_true", help="only streamed answers")
    parser.add_argument("--on-cut", choices=ON_CUT, default="continue", help="of the model that is asked")
    parser.add_argument("--hold-back", metavar="TEXT", help="the same: 2s, '20 frames', all")
    parser.add_argument("--jobs", type=int, default=4, help="cells measured at the same time")
    options = parser.parse_args()
    known = {scenario.name for scenario in SCENARIOS}
    if unknown := set(options.scenario or ()) - known:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    return options


def _cells(options: argparse.Namespace) -> list[Cell]:
    kinds = [True] * (not options.whole or options.streamed) + [False] * (not options.streamed)
    return [
        Cell(
            scenario,
            is_streaming,
            is_warm,
            options.workers,
            PROFILES[options.profile],
            saving=_saving(options),
        )
        for scenario in SCENARIOS
        if not options.scenario or scenario.name in options.scenario
        for is_streaming in kinds
        for is_warm in (False, True)
    ]


def _saving(options: argparse.Namespace) -> str:
    """The keys of the model's table that decide about broken streams."""
    lines = [f"on_cut = {json.dumps(options.on_cut)}"]
    if options.hold_back:
        lines.append(f"hold_back = {json.dumps(options.hold_back)}")
    return "\n".join(lines)


async def _measured(cells: Sequence[Cell], jobs: int) -> list[Result]:
    free = asyncio.Semaphore(jobs)

    async def one(cell: Cell) -> Result:
        async with free:
            result = await measure(cell)
            sys.stderr.write(f"{result.scenario} {result.cell}: {result.verdict}\n")
            return result

    return await asyncio.gather(*(one(cell) for cell in cells))


def table(results: Sequence[Result]) -> str:
    """A row for each scenario, a column for each cell, and what was wrong."""
    columns = list(dict.fromkeys(result.cell for result in results))
    by_cell = {(result.scenario, result.cell): result for result in results}
    lines = [
        "| scenario | " + " | ".join(columns) + " | remarks |",
        "|---|" + "---|" * len(columns) + "---|",
    ]
    for scenario in _shown(results):
        row = [by_cell[scenario.name, column] for column in columns]
        remarks = "; ".join(sorted({text for result in row for text in _remarks(result)}))
        verdicts = " | ".join(result.verdict for result in row)
        lines.append(f"| {scenario.name} {scenario.title} | {verdicts} | {remarks} |")
    for column in columns:
        counts = Counter(result.verdict for result in results if result.cell == column)
        score = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
        lines.append(f"\n{column}: {score}{_cost(results, column)}")
    return "\n".join(lines) + "\n"


def _cost(results: Sequence[Result], column: str) -> str:
    """What the settings behind a score cost a healthy stream, beside that score."""
    added = [result.added_s for result in results if result.cell == column and result.added_s is not None]
    if not added:
        return ""
    return f"; first content of a healthy stream: {1000 * statistics.median(added):+.1f} ms"


def _shown(results: Sequence[Result]) -> list[Scenario]:
    names = {result.scenario for result in results}
    return [scenario for scenario in SCENARIOS if scenario.name in names]


def _remarks(result: Result) -> list[str]:
    errors = {outcome["error"] for outcome in result.outcomes if outcome["error"] is not None}
    return [*result.required, *result.wished, *sorted(errors)]


if __name__ == "__main__":
    main()
