"""The command: `scripts/bench --help`."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from types import FrameType
from typing import NoReturn

from loadtest.bench import machine, report
from loadtest.bench.cases import CASES, Case, case
from loadtest.bench.fixture import UPSTREAM, Fixture, opened
from loadtest.bench.gateways import found, proxy_python
from loadtest.bench.load import LoadError, Metrics
from loadtest.bench.peers import PEERS
from loadtest.bench.procedures import PROCEDURES
from loadtest.bench.processes import StartError
from loadtest.bench.rows import ROWS, Figures, Row, chosen, judged, number, plan

ROOT = Path(__file__).parents[2]
Samples = dict[str, dict[str, list[Metrics]]]
# What may go wrong with one measurement; the others go on.
FAILURES = (StartError, LoadError, OSError, HTTPException, subprocess.SubprocessError)


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for."""

    rows: list[Row]
    runs: int
    is_quick: bool
    peers: tuple[str, ...]
    is_baseline: bool
    cache: Path
    proxy_root: Path


def parsed(arguments: Sequence[str]) -> Options | None:
    """The options; None if only a list was wanted, which is then printed."""
    parser = argparse.ArgumentParser("scripts/bench", description="Measure the proxy beside other gateways.")
    parser.add_argument("--rows", default="", metavar="1,4,5", help="only these rows (see --list)")
    parser.add_argument("--runs", type=int, metavar="N", help="runs of each load; default 3")
    parser.add_argument(
        "--quick", action="store_true", help="short loads, one run: a trial, not a measurement"
    )
    parser.add_argument("--peers", default="", metavar="NAMES", help=f"also these: {','.join(PEERS)}")
    parser.add_argument("--list", action="store_true", help="say which rows there are")
    parser.add_argument("--save-baseline", action="store_true", help="also write loadtest/baseline.json")
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
    paths = given.cache.resolve(), given.proxy_root.resolve()
    return Options(rows, runs, given.quick, peers, given.save_baseline, *paths)


class Run:
    """One run of the benchmark: the samples so far, and why some are missing."""

    def __init__(self, options: Options, fixture: Fixture) -> None:
        self._options = options
        self._fixture = fixture
        self._told: set[str] = set()
        self.samples: Samples = {}

    @property
    def figures(self) -> Figures:
        return Figures(report.medians(self.samples), self._fixture.reasons)

    def ceiling(self) -> dict[str, float]:
        """What upstream and load client do alone: if a gateway comes near it, they were the limit."""
        reached: dict[str, float] = {}
        for name, metric in (("whole", "requests_per_s"), ("back_to_back", "frames_per_s")):
            metrics = self._once(case(name), UPSTREAM, 2) if self._is_possible(case(name)) else None
            if metrics is not None:
                reached[metric] = metrics[metric]
                note(f"upstream and load client alone, on one core: {number(metrics[metric])} {metric}")
        return reached

    def measure(self, wanted: dict[str, list[str]]) -> None:
        """Everything of the plan; what fails is noted and left out."""
        for each in CASES:
            if each.name in wanted and self._is_possible(each):
                self._rounds(each, wanted[each.name])
        for name, procedure in PROCEDURES.items():
            if name not in wanted:
                continue
            note(name.replace("_", " "))
            try:
                results = procedure(self._fixture, self._options.is_quick)
            except FAILURES as exc:
                self._failed(name, exc)
                continue
            self.samples[name] = {gateway: [metrics] for gateway, metrics in results.items()}
            for gateway, metrics in results.items():
                note(f"  {gateway:16} {', '.join(f'{k} {number(v)}' for k, v in metrics.items())}")

    def _is_possible(self, each: Case) -> bool:
        try:
            found("cc" if each.frames else "wrk")
        except StartError as exc:
            self._fixture.reasons.setdefault(each.name, str(exc))
            return False
        return True

    def _rounds(self, each: Case, gateways: list[str]) -> None:
        """The gateways in turn, as often as there are runs: a machine that slows down slows all of them."""
        samples = self.samples.setdefault(each.name, {})
        seconds = each.quick_seconds if self._options.is_quick else each.seconds
        left = list(gateways)
        for run in range(self._options.runs):
            note(f"{each.title}, run {run + 1} of {self._options.runs}")
            for name in tuple(left):
                metrics = self._once(each, name, seconds)
                if metrics is None:
                    left.remove(name)
                    samples.pop(name, None)
                    self._report_absence(name)
                    continue
                samples.setdefault(name, []).append(metrics)
                note(f"  {name:16} {line_of(metrics)}")

    def _once(self, each: Case, name: str, seconds: int) -> Metrics | None:
        try:
            return self._fixture.measure(each, name, seconds)
        except FAILURES as exc:
            self._failed(f"{each.name}/{name}", exc)
            return None

    def _failed(self, what: str, exc: Exception) -> None:
        self._fixture.reasons[what] = str(exc)
        note(f"  {what}: {exc}")

    def _report_absence(self, name: str) -> None:
        if name in self._fixture.reasons and name not in self._told:
            self._told.add(name)
            note(f"  {name}: {self._fixture.reasons[name]}")


def line_of(metrics: Metrics) -> str:
    """A run in one line."""
    parts = [
        f"{number(metrics[name])} {unit}"
        for name, unit in (
            ("requests_per_s", "req/s"),
            ("p50_ms", "ms p50"),
            ("p99_ms", "ms p99"),
            ("frames_per_s", "frames/s"),
            ("first_p99_ms", "ms to first frame p99"),
            ("cpu_s_per_1000", "CPU s/1,000"),
        )
        if name in metrics
    ]
    faults = metrics.get("errors", 0) + metrics.get("lost", 0)
    return ", ".join([*parts, *([f"{faults:.0f} FAILED"] if faults else [])])


def note(line: str) -> None:
    """Progress, beside the tables."""
    print(line, file=sys.stderr, flush=True)


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    note(f"written: {path.relative_to(ROOT)}")


def run(options: Options) -> None:
    """Measure, print, write. Raises StartError if there is not even an upstream."""
    with opened(ROOT, options.proxy_root, options.cache) as fixture:
        described = machine.described(proxy_python(fixture.paths))
        if fixture.cores.are_shared:
            note("only one core: gateways, upstream and load share it; only CPU figures mean something")
        bench = Run(options, fixture)
        wanted = plan(options.rows, options.peers)
        ceiling = bench.ceiling() if any(each.name in wanted for each in CASES) else {}
        bench.measure(wanted)
        checks = judged(options.rows, bench.figures)
    about = {
        "machine": described,
        "runs_of_each": options.runs,
        "is_quick": options.is_quick,
        "ceiling": {metric: report.rounded(value) for metric, value in ceiling.items()},
    }
    print(f"\n{', '.join(f'{name} {value}' for name, value in described.items())}")
    alone = ", ".join(f"{number(value)} {metric}" for metric, value in ceiling.items())
    print(f"upstream and load client alone: {alone or 'not measured'}\n")
    print(report.gateway_table(bench.samples), "", report.check_table(checks), "", sep="\n")
    stamp = time.strftime("%Y-%m-%dT%H-%M-%S")
    write_json(ROOT / f"loadtest/results/{stamp}.json", report.results(bench.samples, checks, about))
    if options.is_baseline:
        write_json(ROOT / "loadtest/baseline.json", report.baseline(bench.samples, checks, about))


def _leave(number_: int, _: FrameType | None) -> NoReturn:
    """As an exception, so that all children are ended; a second signal does not interrupt that."""
    for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number_)


def main(arguments: Sequence[str]) -> int:
    options = parsed(arguments)
    if options is None:
        return 0
    for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(each, _leave)
    try:
        run(options)
    except StartError as exc:
        note(f"scripts/bench: {exc}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
