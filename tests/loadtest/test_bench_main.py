"""The command `scripts/bench`: its verdict on counted instructions, and the files it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.bench import __main__ as bench
from loadtest.bench.options import ROOT, parsed
from tests.support.callgrind import installed, needs_callgrind

MEASURED = {"proxy": {"whole": 1.5}}


@pytest.mark.parametrize(
    ("limit", "is_quick", "code", "message"),
    [
        (1.5, False, 0, "No ratio exceeds the baseline's by more than 3 %."),
        (1.4, False, 1, "EXCEEDED: whole answer: 1.500 x the stock Sanic app, the baseline is 1.400"),
        (1.6, False, 0, "Below the baseline: whole answer."),
        (1.4, True, 0, "No verdict: a quick run is too short."),
        (None, False, 0, "No verdict: the baseline has no instructions."),
    ],
)
def test_the_exit_code_shows_whether_a_ratio_exceeds_the_baseline(
    limit: float | None, is_quick: bool, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    committed = {} if limit is None else {"proxy": {"whole": limit}}
    assert bench.judge_counts(MEASURED, committed, is_quick=is_quick) == code
    assert message in capsys.readouterr().out


def test_a_section_of_the_baseline_is_replaced_and_the_other_kept(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    bench.save_section(path, "times", {"runs": 3})
    bench.save_section(path, "instructions", {"burst": 1})
    bench.save_section(path, "instructions", {"burst": 8})
    assert json.loads(path.read_text()) == {"times": {"runs": 3}, "instructions": {"burst": 8}}
    assert bench.baseline_section(path, "times") == {"runs": 3}
    assert bench.baseline_section(tmp_path / "none.json", "times") == {}


def test_the_baseline_is_written_only_with_its_flag() -> None:
    options = parsed(["--instructions"])
    assert options is not None
    assert options.counts_instructions
    assert not options.saves_baseline


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = (sys.executable, "-m", "loadtest.bench", *arguments)
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)


def test_the_rows_are_listed() -> None:
    done = run("--list")
    assert done.returncode == 0
    assert "Whole answers, 64 connections" in done.stdout


@pytest.mark.slow
@needs_callgrind
def test_the_command_fails_when_the_proxy_exceeds_the_baseline(tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.json"
    bench.save_section(baseline, "instructions", {"ratios": {"proxy": {"whole": 0.5, "paced": 50.0}}})
    done = run("--instructions", "--baseline", str(baseline), "--cache", str(tmp_path))
    assert done.returncode == 1, done.stderr
    assert "EXCEEDED: whole answer" in done.stdout
    assert "Below the baseline: paced frame." in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not installed("wrk", "cc"), reason="needs wrk and a C compiler")
def test_a_busy_machine_gets_no_verdict(tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.json"
    bench.save_section(baseline, "times", {"ceiling": {"requests_per_s": 1e9}})
    done = run("--rows", "1", "--quick", "--baseline", str(baseline), "--cache", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "No verdict: the machine is busy" in done.stdout
    assert "NOT MET" not in done.stdout
    assert "target" not in done.stdout
