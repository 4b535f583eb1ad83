"""The simulation of balancing: the same each time, as documented, and nothing is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadtest.simulation.__main__ import PAGE, WORKERS, cases, replaced, row, tables
from loadtest.simulation.engine import REQUESTS_PER_S, Case, run
from loadtest.simulation.scenarios import NAMES, SCENARIOS, Scenario
from sanic_proxy.config.targets import STRATEGIES, Strategy

SHORT_S = 15.0
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
STRATEGY = pytest.mark.parametrize("strategy", STRATEGIES)


def short(scenario: str, strategy: Strategy, workers: int = 2, *, has_sessions: bool = False) -> Case:
    return Case(BY_NAME[scenario], strategy, workers, has_sessions=has_sessions, duration_s=SHORT_S)


@pytest.mark.parametrize("name", ["slow", "recovering"])
def test_the_document_has_what_the_simulation_prints(name: str) -> None:
    scenario, page = BY_NAME[name], PAGE.read_text("utf-8")
    missing = [
        line
        for title, case in cases(scenario, WORKERS[:1])
        if (line := row(title, case.workers, run(case))) not in page
    ]
    assert missing == [], "run `python -m loadtest.simulation --write`"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
@STRATEGY
@pytest.mark.parametrize("workers", [3])
def test_no_request_is_lost_or_answered_twice(scenario: Scenario, strategy: Strategy, workers: int) -> None:
    figures = run(short(scenario.name, strategy, workers))
    answered = figures.served.total()
    assert figures.lost == 0
    assert answered == len(figures.times) <= figures.sent_in_all
    assert abs(answered - REQUESTS_PER_S * SHORT_S) < 0.1 * REQUESTS_PER_S * SHORT_S


def test_a_case_has_the_same_result_each_time() -> None:
    case = short("flapping", "least_latency", has_sessions=True)
    assert run(case) == run(case)


@pytest.mark.parametrize("strategy", ["weighted", "least_in_flight", "least_latency"])
def test_equal_targets_get_equal_shares(strategy: Strategy) -> None:
    figures = run(short("healthy", strategy))
    assert all(0.2 < figures.share(name) < 0.3 for name in NAMES)


def test_a_slow_target_gets_less_from_strategies_that_see_it() -> None:
    shares = [
        run(short("slow", strategy)).share("a")
        for strategy in ("weighted", "least_in_flight", "least_latency")
    ]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.5 * shares[0]


@STRATEGY
def test_a_failing_target_costs_few_attempts(strategy: Strategy) -> None:
    figures = run(short("failing", strategy, 1))
    assert figures.served["a"] == 0
    assert figures.sent_in_all < 1.05 * figures.served.total()


def test_a_recovered_target_is_used_again() -> None:
    case = Case(BY_NAME["recovering"], "weighted", 1)
    assert run(case).sent["a", 50] > 0


@pytest.mark.parametrize("workers", [1, 8])
def test_sessions_keep_their_targets(workers: int) -> None:
    plain = run(short("healthy", "weighted", workers))
    kept = run(short("healthy", "weighted", workers, has_sessions=True))
    assert kept.repeated > 1.8 * plain.repeated


@pytest.mark.parametrize("scenario", ["healthy", "failing", "flapping"])
def test_several_workers_keep_sessions_as_well_as_one(scenario: str) -> None:
    """Of the requests of a few runs, as one run may differ by some per cent either way."""
    share = dict.fromkeys((1, 8), 0.0)
    for workers in share:
        runs = [
            run(replace(short(scenario, "weighted", workers, has_sessions=True), seed=n)) for n in range(4)
        ]
        share[workers] = sum(figures.repeated for figures in runs) / sum(len(each.times) for each in runs)
    assert share[8] > share[1] - 0.05


def test_several_workers_know_where_a_prompt_is_as_well_as_one() -> None:
    one, eight = (run(short("healthy", "prefix", workers)) for workers in (1, 8))
    assert eight.repeated / len(eight.times) > one.repeated / len(one.times) - 0.05


def test_tables_take_the_place_of_the_old_ones() -> None:
    page = f"# Title\n\n**{SCENARIOS[0].name}**: old\n\n## After\n"
    made = f"**{SCENARIOS[0].name}**: new\n"
    assert replaced(page, made) == f"# Title\n\n**{SCENARIOS[0].name}**: new\n\n## After\n"
    assert tables(()).count("| strategy |") == len(SCENARIOS)
