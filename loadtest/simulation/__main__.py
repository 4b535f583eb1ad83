"""The simulation of balancing: `python -m loadtest.simulation` prints its table.

With `--write` the table takes the place of the one in scripts/docs/balancing.md.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from loadtest.simulation.engine import DURATION_S, Case, Figures, run
from loadtest.simulation.scenarios import NAMES, SCENARIOS, Scenario
from sanic_proxy.config.targets import STRATEGIES, Strategy

PAGE = Path(__file__).parents[2] / "scripts" / "docs" / "balancing.md"
WORKERS = (1, 2, 4, 8)
# Sessions keep their targets whatever the strategy is.
WITH_SESSIONS: Strategy = "weighted"
_HEAD = """\
| strategy | workers | answers by a, b, c, d in % | p50 s | p99 s | lost | herding | same target |
|---|---:|---|---:|---:|---:|---:|---:|
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtest.simulation", description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS, help="numbers of workers")
    parser.add_argument("--write", action="store_true", help="write the table into the document")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # that circuits open and close
    made = tables(options.workers)
    if options.write:
        PAGE.write_text(replaced(PAGE.read_text("utf-8"), made), "utf-8")
    sys.stdout.write(made)


def cases(
    scenario: Scenario, workers: Iterable[int], duration_s: float = DURATION_S
) -> Iterator[tuple[str, Case]]:
    """The cases of a scenario, with the names of their rows."""
    for strategy in STRATEGIES:
        for number in workers:
            yield f"`{strategy}`", Case(scenario, strategy, number, duration_s=duration_s)
    for number in workers:
        yield (
            f"`{WITH_SESSIONS}`, sessions",
            Case(scenario, WITH_SESSIONS, number, has_sessions=True, duration_s=duration_s),
        )


def tables(workers: Sequence[int]) -> str:
    """A table for each scenario, in Markdown."""
    parts = []
    for scenario in SCENARIOS:
        rows = "".join(row(name, case.workers, run(case)) for name, case in cases(scenario, workers))
        parts.append(f"**{scenario.name}**: {scenario.text}\n\n{_HEAD}{rows}")
    return "\n".join(parts)


def row(name: str, workers: int, figures: Figures) -> str:
    """The row of one case."""
    shares = " ".join(f"{100 * figures.share(target):.0f}" for target in NAMES)
    repeated = 100 * figures.repeated / max(1, len(figures.times))
    return (
        f"| {name} | {workers} | {shares} | {figures.percentile(0.5):.2f} | {figures.percentile(0.99):.2f} "
        f"| {figures.lost} | {figures.herding:.1f} | {repeated:.0f} % |\n"
    )


def replaced(page: str, made: str) -> str:
    """`page` with `made` in place of its tables."""
    first, last = f"**{SCENARIOS[0].name}**", "\n## "
    start = page.index(first)
    end = page.find(last, start)
    return page[:start] + made + (page[end:] if end >= 0 else "")


if __name__ == "__main__":
    main()
