"""The options of `scripts/bench`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench import counts
from loadtest.bench.peers import PEERS
from loadtest.bench.rows import ROWS, Row, chosen

ROOT = Path(__file__).parents[2]
BASELINE = ROOT / "loadtest/baseline.json"


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a run."""

    rows: list[Row]
    runs: int
    is_quick: bool
    peers: tuple[str, ...]
    counts_instructions: bool
    counts_dialects: bool
    saves_baseline: bool
    baseline: Path
    cache: Path
    proxy_root: Path


def parsed(arguments: Sequence[str]) -> Options | None:
    """The options; None for `--list`, which prints the rows."""
    parser = argparse.ArgumentParser("scripts/bench", description="Measure the proxy beside other gateways.")
    parser.add_argument("--rows", default="", metavar="1,4,5", help="only these rows (see --list)")
    parser.add_argument("--runs", type=int, metavar="N", help="runs of each load; default 3")
    parser.add_argument(
        "--quick", action="store_true", help="short loads, one run: a trial, not a measurement"
    )
    parser.add_argument("--peers", default="", metavar="NAMES", help=f"also these: {','.join(PEERS)}")
    parser.add_argument("--list", action="store_true", help="list the rows")
    parser.add_argument(
        "--instructions",
        action="store_true",
        help="count instructions with callgrind instead of measuring times; exit code 1 if a ratio of the"
        f" proxy to the stock Sanic app exceeds the baseline's by more than {100 * counts.TOLERANCE:.0f} %%",
    )
    parser.add_argument(
        "--dialects", action="store_true", help="with --instructions: count the other dialects as well"
    )
    parser.add_argument("--save-baseline", action="store_true", help="also write the figures to the baseline")
    parser.add_argument(
        "--baseline",
        type=Path,
        default=BASELINE,
        metavar="FILE",
        help="the reference figures; default loadtest/baseline.json",
    )
    parser.add_argument(
        "--cache", type=Path, default=ROOT / ".bench", help="where things are built and installed"
    )
    parser.add_argument("--proxy-root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.list:
        print("\n".join(f"{row.number:3}  {row.title}" for row in ROWS))
        return None
    if given.runs is not None and given.runs < 1:
        parser.error("--runs: at least 1")
    peers = tuple(name for name in given.peers.split(",") if name)
    if unknown := set(peers) - set(PEERS):
        parser.error(f"no peer {', '.join(sorted(unknown))}: there are {', '.join(PEERS)}")
    try:
        rows = chosen(given.rows)
    except ValueError as exc:
        parser.error(str(exc))
    runs = given.runs or (1 if given.quick else 3)
    return Options(
        rows,
        runs,
        given.quick,
        peers,
        given.instructions,
        given.dialects,
        given.save_baseline,
        given.baseline.resolve(),
        given.cache.resolve(),
        given.proxy_root.resolve(),
    )
