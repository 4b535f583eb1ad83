"""Signs of a busy machine, which leave no room for a verdict on times."""

from __future__ import annotations

import pytest

from loadtest.bench import health

BASELINE = {
    "machine": {"cpu": "Some CPU"},
    "ceiling": {"requests_per_s": 80_000.0, "frames_per_s": 160_000.0},
}


@pytest.mark.parametrize(
    ("ceiling", "low"),
    [
        ({"requests_per_s": 80_000.0, "frames_per_s": 160_000.0}, []),
        ({"requests_per_s": 50_000.0}, []),
        ({"requests_per_s": 40_000.0, "frames_per_s": 160_000.0}, ["requests/s"]),
        ({"requests_per_s": 40_000.0, "frames_per_s": 50_000.0}, ["requests/s", "frames/s"]),
        ({}, []),
    ],
)
def test_a_ceiling_far_below_the_baselines_is_a_sign(ceiling: dict[str, float], low: list[str]) -> None:
    lines = health.low_ceilings(ceiling, BASELINE)
    assert len(lines) == len(low)
    assert all(unit in line for unit, line in zip(low, lines, strict=True))


def test_the_message_names_both_ceilings_the_cpu_and_the_limit() -> None:
    (line,) = health.low_ceilings({"requests_per_s": 40_000.0}, BASELINE)
    assert "40,000 requests/s; the baseline has 80,000 (Some CPU), and at least 60 % of that" in line


def test_without_a_baseline_no_ceiling_is_too_low() -> None:
    assert health.low_ceilings({"requests_per_s": 1.0}, {}) == []


@pytest.mark.parametrize(
    ("values", "expected"), [([], 0), ([5], 0), ([90, 100, 110], 0.2), ([100, 100, 50], 0.5), ([0, 0], 0)]
)
def test_the_spread_is_the_range_over_the_middle(values: list[float], expected: float) -> None:
    assert health.spread(values) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rates", "is_wide"), [([90.0, 100.0, 110.0], False), ([89.0, 100.0, 111.0], True), ([10.0], False)]
)
@pytest.mark.parametrize("metric", ["requests_per_s", "frames_per_s"])
def test_runs_that_differ_by_more_than_a_fifth_are_a_sign(
    metric: str, rates: list[float], is_wide: bool
) -> None:
    samples = {"whole": {"nginx": [{metric: rate, "errors": 0.0} for rate in rates]}}
    lines = health.wide_spreads(samples, set())
    assert bool(lines) is is_wide
    assert all("whole, nginx: 89 to 111" in line and "22 %" in line for line in lines)


def test_other_gateways_may_vary_by_themselves() -> None:
    samples = {"whole": {"litellm": [{"requests_per_s": 50.0}, {"requests_per_s": 100.0}]}}
    assert health.wide_spreads(samples, {"litellm"}) == []


def test_procedures_without_rates_have_no_spread() -> None:
    assert health.wide_spreads({"memory": {"proxy": [{"idle_mib": 50.0}]}}, set()) == []
