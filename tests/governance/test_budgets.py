"""Periods in time zones, what a request is counted against, and thresholds."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.config.rules import PERIODS, Budget, Period, ScopeLimits
from sanic_proxy.governance import budgets
from sanic_proxy.governance.budgets import EVER, Charge, Counter, Periods, passed, window
from sanic_proxy.governance.rules import ALL, Scope, ScopedLimits

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "America/Havana", "Pacific/Apia")
INSTANTS = st.integers(1_577_836_800, 2_208_988_800)  # 2020 to 2040


def at(text: str, zone: str = "UTC") -> int:
    return int(dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


@pytest.mark.parametrize(
    ("per", "now", "start", "end"),
    [
        ("day", "2026-11-28T23:59:59", "2026-11-28", "2026-11-29"),
        ("week", "2026-11-29T12:00:00", "2026-11-23", "2026-11-30"),
        ("month", "2026-12-31T23:00:00", "2026-12-01", "2027-01-01"),
        ("month", "2028-02-29T00:00:00", "2028-02-01", "2028-03-01"),
    ],
)
def test_a_period_begins_at_midnight_of_its_time_zone(per: Period, now: str, start: str, end: str) -> None:
    for zone in ("UTC", "Europe/Berlin", "Asia/Kathmandu"):
        assert window(per, zone, at(now, zone)) == (at(start, zone), at(end, zone))


def test_the_total_never_begins_anew() -> None:
    assert window("total", "Europe/Berlin", at("2026-11-28")) == EVER


def test_a_day_has_as_many_hours_as_the_clocks_make_it_have() -> None:
    for day, hours in (("2026-03-29", 23), ("2026-10-25", 25), ("2026-11-28", 24)):
        start, end = window("day", "Europe/Berlin", at(f"{day}T12:00:00", "Europe/Berlin"))
        assert (end - start) // 3600 == hours


def test_a_day_whose_midnight_is_skipped_begins_when_the_clocks_change() -> None:
    start, end = window("day", "America/Havana", at("2026-03-08T12:00:00", "America/Havana"))
    before = window("day", "America/Havana", start - 1)
    assert before.end == start
    assert (end - start) // 3600 == 23


@given(per=st.sampled_from(PERIODS), zone=st.sampled_from(ZONES), now=INSTANTS)
def test_each_instant_is_in_one_period_and_the_next_begins_where_it_ends(
    per: Period, zone: str, now: int
) -> None:
    found = window(per, zone, now)
    assert found.start <= now < found.end
    if per != "total":
        assert window(per, zone, found.end).start == found.end
        assert window(per, zone, found.start) == window(per, zone, found.end - 1) == found


@given(zone=st.sampled_from(ZONES), times=st.lists(INSTANTS, min_size=2, max_size=6))
def test_a_clock_that_is_set_back_finds_the_period_it_was_in(zone: str, times: list[int]) -> None:
    periods, budget = Periods(), Budget(1, "day", zone)
    found = [periods.current(budget, now) for now in times]
    assert [periods.current(budget, now) for now in reversed(times)] == found[::-1]
    assert found == [window("day", zone, now) for now in times]


def test_a_request_is_counted_against_each_budget_of_each_scope() -> None:
    now = at("2026-11-28T10:00:00")
    mine = ScopeLimits(budgets=(Budget(5, "day"), Budget(50, "total", strict=True)), soft=(50,))
    scopes = [ScopedLimits(Scope("client", "c1"), mine), ScopedLimits(ALL, ScopeLimits(budgets=(Budget(9),)))]
    found = budgets.charges(scopes, Periods(), now)
    assert found == [
        Charge(Counter("client", "c1", "day", at("2026-11-28")), 5, at("2026-11-29"), (50,)),
        Charge(Counter("client", "c1", "total", 0), 50, soft=(50,), is_strict=True),
        Charge(Counter("all", "", "total", 0), 9, soft=(50, 80, 100)),
    ]
    assert [charge.describe() for charge in found] == [
        "budget of the client c1 per day",
        "budget of the client c1",
        "budget of all clients",
    ]


def test_another_limit_counts_on_with_the_same_sum() -> None:
    now = at("2026-11-28T10:00:00")
    keys = [
        budgets.charges([ScopedLimits(ALL, ScopeLimits(budgets=(Budget(limit, "day"),)))], Periods(), now)[
            0
        ].counter.key
        for limit in (5, 50)
    ]
    assert keys[0] == keys[1]


def test_of_two_budgets_for_the_same_sum_the_smaller_counts() -> None:
    limits = ScopeLimits(budgets=(Budget(9), Budget(5, strict=True), Budget(7)))
    (found,) = budgets.charges([ScopedLimits(ALL, limits)], Periods(), 0)
    assert (found.limit, found.is_strict) == (5, True)


def test_a_session_is_its_clients_own() -> None:
    headers = {"session-id": "s1"}
    first = budgets.session_charges("c1", headers, 10, 500)
    second = budgets.session_charges("c2", {"x-claude-code-session-id": "s1"}, 10, 500)
    assert [(charge.limit, charge.is_money) for charge in first] == [(10, False), (500, True)]
    assert {charge.counter for charge in first}.isdisjoint(charge.counter for charge in second)
    assert [charge.describe() for charge in first] == [
        "number of requests of this agent session",
        "budget of this agent session",
    ]


def test_a_request_without_a_session_or_a_client_without_caps_has_no_session_charge() -> None:
    assert budgets.session_charges("c1", {}, 10, 500) == []
    assert budgets.session_charges("c1", {"session-id": "s1"}, None, None) == []
    assert len(budgets.session_of({"session-id": "x" * 1000})) == budgets.MAX_SESSION_CHARS
    assert budgets.session_of({"session-id": "s\udcff"}) == "s\\udcff"


def test_a_threshold_is_announced_once_and_the_highest_wins() -> None:
    soft = (50, 80, 100)
    assert passed(1000, 499, soft, 0) == 0
    assert passed(1000, 500, soft, 0) == 50
    assert passed(1000, 799, soft, 50) == 0
    assert passed(1000, 1200, soft, 50) == 100
    assert passed(1000, 1200, soft, 100) == 0
