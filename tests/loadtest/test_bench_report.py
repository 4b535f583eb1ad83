"""The benchmark's tables and files."""

from __future__ import annotations

import json

from loadtest.bench import report
from loadtest.bench.rows import Check

SAMPLES = {
    "whole": {
        "nginx": [
            {"requests_per_s": rate, "errors": errors, "rss_mib": 18.0}
            for rate, errors in ((50_000.0, 0.0), (60_000.0, 2.0), (40_000.0, 0.0))
        ],
        "litellm": [],
    }
}
CHECKS = [
    Check(1, "CPU", "<= 6.9 x nginx", "0.1 against 0.02", 4.98765, True),
    Check(3, "Latency", "", "skipped: nginx: has ended;\nits log"),
]


def test_the_median_is_taken_and_the_most_of_the_faults() -> None:
    assert report.medians(SAMPLES)["whole"]["nginx"] == {
        "requests_per_s": 50_000,
        "errors": 2,
        "rss_mib": 18,
    }


def test_a_gateway_without_a_run_has_no_median() -> None:
    assert "litellm" not in report.medians(SAMPLES)["whole"]


def test_columns_of_a_table_are_aligned() -> None:
    assert report.table(["a", "bb"], [["xyz", "1"], ["", "22"]]).splitlines() == [
        "| a   | bb |",
        "|-----|---:|",
        "| xyz |  1 |",
        "|     | 22 |",
    ]


def test_the_table_of_gateways_has_median_and_spread() -> None:
    line = report.gateway_table(SAMPLES).splitlines()[-1]
    assert [cell.strip() for cell in line.split("|")[1:4]] == ["nginx", "50,000", "40,000-60,000"]
    assert line.rstrip(" |").endswith("18")


def test_a_verdict_keeps_to_its_line() -> None:
    lines = report.check_table(CHECKS).splitlines()
    assert len(lines) == 4
    assert "met" in lines[2]
    assert lines[3].rstrip(" |").endswith("-")


def test_the_baseline_has_rounded_medians_and_no_single_runs() -> None:
    kept = report.baseline(SAMPLES, CHECKS, {"machine": {"cpu": "x"}})
    assert "runs" not in kept
    assert kept["rows"][0]["ratio"] == 4.99
    assert kept["medians"]["whole"]["nginx"]["requests_per_s"] == 50_000


def test_the_results_have_all_runs_and_are_json() -> None:
    kept = json.loads(json.dumps(report.results(SAMPLES, CHECKS, {})))
    assert len(kept["runs"]["whole"]["nginx"]) == 3
