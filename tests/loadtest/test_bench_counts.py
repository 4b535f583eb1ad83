"""Counted instructions: ratios, and the comparison with the committed ones."""

from __future__ import annotations

import json

import pytest

from loadtest.bench import counts
from loadtest.bench.options import BASELINE

COUNTS = {
    "constant": {"whole": 200_000.4, "paced": 20_000.0},
    "nginx": {"whole": 20_000.0, "paced": 2_000.0},
    "proxy": {"whole": 300_000.0, "paced": 30_000.0},
}


def committed(**proxy: float) -> dict[str, dict[str, float]]:
    return {"proxy": proxy}


def test_ratios_are_to_the_stock_app_of_the_same_run() -> None:
    ratios = counts.ratios(COUNTS)
    assert set(ratios) == {"nginx", "proxy"}
    assert ratios["proxy"]["paced"] == 1.5
    assert ratios["nginx"]["paced"] == 0.1


@pytest.mark.parametrize(
    ("limit", "exceeded", "saved"),
    [
        (1.5, [], []),
        (1.457, [], []),  # 2.95 % above
        (1.455, ["paced frame"], []),  # 3.09 % above
        (1.0, ["paced frame"], []),
        (1.54, [], []),  # 2.6 % below
        (1.56, [], ["paced frame"]),
    ],
)
def test_three_per_cent_above_the_baseline_are_allowed(
    limit: float, exceeded: list[str], saved: list[str]
) -> None:
    ratios = counts.ratios(COUNTS)
    lines = counts.excesses(ratios, committed(paced=limit))
    assert [line.partition(":")[0] for line in lines] == exceeded
    assert counts.savings(ratios, committed(paced=limit)) == saved


def test_an_excess_names_both_ratios_and_the_limit() -> None:
    (line,) = counts.excesses(counts.ratios(COUNTS), committed(paced=1.2))
    assert "1.500 x the stock Sanic app, the baseline is 1.200: 25.0 % more, 3 % are allowed" in line


def test_routing_is_judged_as_well() -> None:
    ratios = counts.ratios({**COUNTS, counts.ROUTED: {"whole": 320_000.0}})
    assert counts.excesses(ratios, {counts.ROUTED: {"whole": 1.59}}) == []
    (line,) = counts.excesses(ratios, {counts.ROUTED: {"whole": 1.5}})
    assert line.startswith("whole answer (proxy-routed): 1.600 x")


def test_a_dialect_is_compared_with_the_same_kind_of_the_stock_app() -> None:
    measured = {**COUNTS, "proxy": {"messages/whole": 400_000.0, "messages/paced": 30_000.0}}
    ratios = counts.ratios(measured)
    assert ratios["proxy"] == {"messages/whole": pytest.approx(2.0, abs=1e-3), "messages/paced": 1.5}
    (line,) = counts.excesses(ratios, {"proxy": {"messages/paced": 1.2, "messages/whole": 2.0}})
    assert line.startswith("paced frame of Messages: 1.500 x")


def test_the_cost_of_routing_is_that_of_a_whole_answer_over_a_plain_one() -> None:
    counted = {counts.JUDGED: {"whole": 200.0, "paced": 40.0}, counts.ROUTED: {"whole": 230.0}}
    assert counts.extra_ratio(counted, counts.ROUTED) == 1.15
    assert counts.extra_ratio(counted, counts.GOVERNED) is None


def test_what_metrics_cost_is_counted_of_frames_as_well() -> None:
    counted = {
        counts.JUDGED: {"whole": 200.0, "paced": 40.0, "messages/whole": 300.0},
        counts.METERED: {"whole": 207.0, "paced": 40.0},
    }
    assert counts.extra(counted, counts.METERED) == {"whole": 7.0, "paced": 0.0}
    assert counts.extra(counted, counts.ROUTED) == {}


def test_a_kind_that_was_not_counted_is_not_judged() -> None:
    ratios = counts.ratios(COUNTS)
    limits = {"proxy": {"whole": 1.5, "messages/whole": 0.1}}
    assert counts.excesses(ratios, limits) == []
    assert counts.savings(ratios, {"proxy": {"messages/whole": 9.0}}) == []


def test_gateways_other_than_the_proxy_are_not_judged() -> None:
    assert counts.excesses(counts.ratios(COUNTS), {"nginx": {"whole": 0.01}}) == []


def test_the_table_shows_counts_ratios_and_the_baseline() -> None:
    lines = counts.count_table(COUNTS, committed(paced=1.4)).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert cells[0] == ["constant", "whole answer", "200,000", "-", "-"]
    assert cells[-1] == ["proxy", "paced frame", "30,000", "1.500", "1.400"]


def test_the_written_section_is_json_with_rounded_figures() -> None:
    section = json.loads(json.dumps(counts.section(COUNTS, {"burst": 8})))
    assert section["counts"]["constant"]["whole"] == 200_000
    assert section["ratios"]["proxy"]["whole"] == 1.5
    assert section["burst"] == 8


def test_the_committed_baseline_has_times_and_every_judged_ratio() -> None:
    baseline = json.loads(BASELINE.read_text())
    assert set(baseline) == {"times", "instructions"}
    assert set(counts.TITLES) <= set(baseline["instructions"]["ratios"]["proxy"])
    assert baseline["instructions"]["is_quick"] is False
