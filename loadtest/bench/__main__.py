"""The command: `scripts/bench --help`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from loadtest.bench import counts, instructions, machine, report
from loadtest.bench.cases import CASES, Case, case
from loadtest.bench.fixture import UPSTREAM, Fixture, opened
from loadtest.bench.gateways import SINGLE_PROCESS, found, proxy_python
from loadtest.bench.health import low_ceilings, wide_spreads
from loadtest.bench.load import LoadError, Metrics
from loadtest.bench.options import ROOT, Options, parsed
from loadtest.bench.peers import PEERS
from loadtest.bench.procedures import PROCEDURES
from loadtest.bench.processes import StartError
from loadtest.bench.rows import Figures, judged, number, plan

Samples = dict[str, dict[str, list[Metrics]]]
# What may go wrong with one measurement; the others go on.
FAILURES = (StartError, LoadError, OSError, HTTPException, subprocess.SubprocessError)


class Run:
    """One run of the benchmark: the samples so far, and why some are missing."""

    def __init__(self, options: Options, fixture: Fixture) -> None:
        self._options = options
        self._fixture = fixture
        self._reported: set[str] = set()
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
        if name in self._fixture.reasons and name not in self._reported:
            self._reported.add(name)
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
    note(f"written: {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}")


def baseline_section(path: Path, name: str) -> dict[str, Any]:
    """One section of the baseline, `times` or `instructions`; empty if there is none."""
    content = json.loads(path.read_text()) if path.exists() else {}
    section: dict[str, Any] = content.get(name, {})
    return section


def save_section(path: Path, name: str, section: Mapping[str, Any]) -> None:
    """Replace one section of the baseline and keep the other."""
    content = json.loads(path.read_text()) if path.exists() else {}
    write_json(path, {**content, name: section})


def results_path(suffix: str = "") -> Path:
    return ROOT / f"loadtest/results/{time.strftime('%Y-%m-%dT%H-%M-%S')}{suffix}.json"


def print_machine(described: Mapping[str, str | int]) -> None:
    print(f"\n{', '.join(f'{name} {value}' for name, value in described.items())}")


def measure_times(options: Options) -> int:
    """Measure, print, write. Raises StartError if the upstream cannot be started."""
    with opened(ROOT, options.proxy_root, options.cache) as fixture:
        described = machine.described(proxy_python(fixture.paths))
        if fixture.cores.are_shared:
            note("only one core: gateways, upstream and load share it; only CPU figures mean something")
        bench = Run(options, fixture)
        wanted = plan(options.rows, options.peers)
        ceiling = bench.ceiling() if any(each.name in wanted for each in CASES) else {}
        bench.measure(wanted)
        checks = judged(options.rows, bench.figures)
    reference = baseline_section(options.baseline, "times")
    busy = [*low_ceilings(ceiling, reference), *wide_spreads(bench.samples, set(PEERS))]
    about = {
        "machine": described,
        "runs_of_each": options.runs,
        "is_quick": options.is_quick,
        "ceiling": {metric: report.rounded(value) for metric, value in ceiling.items()},
    }
    print_machine(described)
    alone = ", ".join(f"{number(value)} {metric}" for metric, value in ceiling.items())
    print(f"upstream and load client alone: {alone or 'not measured'}\n")
    print(report.gateway_table(bench.samples), "", sep="\n")
    if busy:
        print("No verdict: the machine is busy or much slower than the baseline's.", *busy, "", sep="\n")
        checks = []
    else:
        print(report.check_table(checks), "", sep="\n")
    write_json(results_path(), report.results(bench.samples, checks, {**about, "busy": busy}))
    if options.saves_baseline:
        if spreads := wide_spreads(bench.samples, set(PEERS)):
            note(f"the baseline stays as it is: {spreads[0]}")
            return 1
        checks = judged(options.rows, bench.figures)
        save_section(options.baseline, "times", report.baseline(bench.samples, checks, about))
    return 0


def count_instructions(options: Options) -> int:
    """Count, print, write, compare; 1 if a ratio exceeds the baseline's. Raises StartError or LoadError."""
    amounts = instructions.QUICK_AMOUNTS if options.is_quick else instructions.AMOUNTS
    counted: dict[str, dict[str, float]] = {}
    with opened(ROOT, options.proxy_root, options.cache) as fixture:
        described = machine.described(proxy_python(fixture.paths))
        for name in SINGLE_PROCESS:
            started = time.monotonic()
            try:
                counted[name] = instructions.count_gateway(
                    fixture, name, amounts, dialects=options.counts_dialects
                )
            except FAILURES as exc:
                if name not in {"nginx", counts.METERED, counts.ROUTED, counts.GOVERNED}:
                    raise
                note(f"  {name}: {exc}")  # not needed for the comparison
                continue
            note(f"  {name:16} counted in {time.monotonic() - started:.0f} s")
    committed = baseline_section(options.baseline, "instructions").get("ratios", {})
    section = counts.section(
        counted, {"machine": described, "is_quick": options.is_quick, "burst": instructions.BURST}
    )
    print_machine(described)
    print("", counts.count_table(counted, committed), "", sep="\n")
    if more := counts.extra(counted, counts.METERED):
        print(
            f"Metrics: {more['whole']:,.0f} instructions more per whole answer,"
            f" {more['back_to_back']:,.0f} per back-to-back frame, {more['paced']:,.0f} per paced frame."
        )
    if (ratio := counts.extra_ratio(counted, counts.ROUTED)) is not None:
        print(f"A whole answer of a model with limits, to a session: {ratio:.3f} x one without.")
    if (ratio := counts.extra_ratio(counted, counts.GOVERNED)) is not None:
        print(f"A whole answer to a client with rates, budgets and a ledger: {ratio:.3f} x one without.")
    write_json(results_path("-instructions"), section)
    if options.saves_baseline:
        save_section(options.baseline, "instructions", section)
        return 0
    return judge_counts(counts.ratios(counted), committed, is_quick=options.is_quick)


def judge_counts(measured: counts.Figures, committed: counts.Figures, *, is_quick: bool) -> int:
    """Print the comparison with the baseline; 1 if a ratio exceeds it."""
    if is_quick or not committed:
        print(
            f"No verdict: {'a quick run is too short' if is_quick else 'the baseline has no instructions'}."
        )
        return 0
    excesses = counts.excesses(measured, committed)
    for line in excesses:
        print(f"EXCEEDED: {line}")
    if saved := counts.savings(measured, committed):
        print(
            f"Below the baseline: {', '.join(saved)}. Record it: scripts/bench --instructions --save-baseline"
        )
    if not excesses:
        print(f"No ratio exceeds the baseline's by more than {100 * counts.TOLERANCE:.0f} %.")
    return 1 if excesses else 0


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
        return count_instructions(options) if options.counts_instructions else measure_times(options)
    except (StartError, LoadError) as exc:
        note(f"scripts/bench: {exc}")
        return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
