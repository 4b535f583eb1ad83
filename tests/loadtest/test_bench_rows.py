"""The rows of the benchmark: what they want measured, and how they judge."""

from __future__ import annotations

import pytest

from loadtest.bench import cases, gateways, procedures, rows
from loadtest.bench.fixture import UPSTREAM
from loadtest.bench.rows import Check, Figures

Medians = dict[str, dict[str, dict[str, float]]]


def checks_of(number: int, medians: Medians, reasons: dict[str, str] | None = None) -> list[Check]:
    return rows.judged(rows.chosen(str(number)), Figures(medians, reasons or {}))


def whole(**cpu_s: float) -> Medians:
    """Gateways by their CPU s per 1,000 answers; requests/s go with it."""
    return {
        "whole": {
            name.replace("_", "-"): {"cpu_s_per_1000": cpu, "requests_per_s": 1 / cpu, "errors": 0}
            for name, cpu in cpu_s.items()
        }
    }


def test_every_case_and_gateway_that_a_row_needs_exists() -> None:
    known = {case.name for case in cases.CASES}
    for row in rows.ROWS:
        for case, names in row.needs.items():
            assert case in known or case in procedures.PROCEDURES
            assert set(names) <= {*gateways.LAUNCHERS, UPSTREAM}
        assert set(row.peers_in) <= known


def test_rows_are_numbered_without_gaps() -> None:
    assert [row.number for row in rows.ROWS] == list(range(1, 13))


def test_no_list_means_all_rows() -> None:
    assert rows.chosen("") == list(rows.ROWS)


def test_a_list_is_taken_in_the_order_of_the_rows() -> None:
    assert [row.number for row in rows.chosen("5, 1")] == [1, 5]


@pytest.mark.parametrize("text", ["13", "0", "one", "1;2"])
def test_an_unknown_row_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="there are 1 to 12"):
        rows.chosen(text)


def test_the_plan_names_only_what_the_rows_need() -> None:
    assert rows.plan(rows.chosen("2"), ()) == {"whole": ["constant", "proxy"]}


def test_the_plan_names_each_gateway_once_and_the_peers_last() -> None:
    plan = rows.plan(rows.chosen("1,2"), ("vllm-router",))
    assert plan["whole"] == ["direct", "nginx", "proxy", "constant", "vllm-router"]


def test_peers_are_not_put_through_rows_that_do_not_concern_them() -> None:
    assert rows.plan(rows.chosen("6"), ("litellm",)) == {"thousand": ["direct", "nginx", "proxy"]}


@pytest.mark.parametrize(
    ("measured", "target", "is_met"),
    [
        (whole(proxy=0.1, nginx=0.02), "<= 6.9 x nginx", True),
        (whole(proxy=0.2, nginx=0.02), "<= 6.9 x nginx", False),
        (whole(proxy=0.1, nginx=0.001, vllm_router=0.1), "<= 1 x vllm-router", True),
        (whole(proxy=0.1, nginx=0.02, vllm_router=0.09), "<= 1 x vllm-router", False),
    ],
    ids=["below nginx's", "above nginx's", "as vllm-router", "above vllm-router"],
)
def test_whole_answers_are_held_to_vllm_router_where_it_was_measured(
    measured: Medians, target: str, is_met: bool
) -> None:
    first = checks_of(1, measured)[0]
    assert (first.target, first.is_met) == (target, is_met)


def test_the_share_of_nginx_is_reported_but_not_judged() -> None:
    share = checks_of(1, whole(proxy=0.1, nginx=0.02))[1]
    assert share.ratio == pytest.approx(0.2)
    assert share.is_met is None


def test_failed_answers_spoil_a_row() -> None:
    measured = whole(proxy=0.1, nginx=0.02)
    measured["whole"]["proxy"]["errors"] = 3
    assert [check.is_met for check in checks_of(1, measured)] == [True, None, False]


def test_the_bare_app_is_a_floor() -> None:
    assert checks_of(2, whole(proxy=0.1, constant=0.09))[0].is_met
    assert checks_of(2, whole(proxy=0.1, constant=0.08))[0].is_met is False


def test_both_percentiles_of_the_latency_are_judged() -> None:
    measured: Medians = {
        "single": {
            "proxy": {"p50_ms": 0.2, "p99_ms": 0.4},
            "nginx": {"p50_ms": 0.1, "p99_ms": 0.1},
        }
    }
    assert [check.is_met for check in checks_of(3, measured)] == [True, False]


def test_frames_unchecked_are_reported_where_they_were_measured() -> None:
    measured: Medians = {
        "back_to_back": {
            "proxy": {"cpu_s_per_1000": 0.008, "lost": 0},
            "proxy-unchecked": {"cpu_s_per_1000": 0.006},
            "nginx": {"cpu_s_per_1000": 0.004},
        }
    }
    assert [(check.ratio, check.is_met) for check in checks_of(4, measured)] == [(2.0, False), (1.5, None)]


def test_the_added_time_is_the_proxys_less_the_upstreams_own() -> None:
    measured: Medians = {
        "paced": {
            "proxy": {"cpu_s_per_1000": 0.05, "first_p99_ms": 22.5},
            "nginx": {"cpu_s_per_1000": 0.02},
            "direct": {"first_p99_ms": 20.5},
        }
    }
    assert [(check.measured, check.is_met) for check in checks_of(5, measured)] == [
        ("0.05 against 0.02", True),
        ("2 ms", True),
    ]


def test_one_stream_lost_of_a_thousand_is_too_many() -> None:
    proxy: dict[str, float] = {
        "lost": 1,
        "streams": 999,
        "rss_mib": 200,
        "total_p50_ms": 1500,
        "total_p99_ms": 2000,
    }
    first, _, delay = checks_of(6, {"thousand": {"proxy": proxy}})
    assert (first.measured, first.is_met) == ("1 of 1000", False)
    assert delay.measured == "500 / 1,000 ms"


def test_memory_is_judged_in_the_units_of_its_targets() -> None:
    proxy: dict[str, float] = {"stream_mib": 0.03, "idle_mib": 65, "growth_mib": 1.5, "growth_after": 200_000}
    checks = checks_of(7, {"memory": {"proxy": proxy}})
    assert [(check.measured, check.is_met) for check in checks] == [
        ("30.7 KiB", True),
        ("65 MiB", False),
        ("1.5 MiB", True),
    ]


def test_tls_is_held_to_nginx_with_the_same_upstream() -> None:
    by_case: dict[str, dict[str, float]] = {
        "proxy-tls": {"cpu_s_per_1000": 0.3},
        "nginx-tls": {"cpu_s_per_1000": 0.1},
        "proxy": {"cpu_s_per_1000": 0.2},
        "nginx": {"cpu_s_per_1000": 0.1},
    }
    checks = checks_of(12, dict.fromkeys(("whole", "back_to_back", "paced"), by_case))
    assert [check.is_met for check in checks] == [True, False, False]
    assert checks[0].measured == "0.3 against 0.1; without TLS 2.00"


def test_a_row_without_figures_has_the_reason() -> None:
    (check,) = checks_of(3, {}, {"single": "needs wrk"})
    assert (check.measured, check.is_met) == ("skipped: proxy: needs wrk", None)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.00542, "0.00542"), (0.000054, "5.4e-05"), (12.345, "12.3"), (54834.2, "54,834")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert rows.number(value) == text
