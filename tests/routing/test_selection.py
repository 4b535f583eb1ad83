"""Which target is first, by weight and load."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from sanic_proxy.config.targets import Strategy, TargetSettings
from sanic_proxy.errors import UpstreamError
from sanic_proxy.routing.affinity import Candidate
from sanic_proxy.routing.engines import EngineQueue
from sanic_proxy.routing.load import TargetLoad
from sanic_proxy.routing.selection import Choice, by_prefix, ordered, shares
from sanic_proxy.routing.statistics import TargetStatistics
from sanic_proxy.routing.targets import Target

DRAWS = 20_000
NOW = 1000.0


def choice(name: str, order: int = 1, weight: float = 1.0, in_flight: int = 0) -> Choice[str]:
    load = TargetLoad(TargetSettings("p", name))
    for _ in range(in_flight):
        load.begin(0.0)
    return Choice((Target(name, name, name, load=load),), order, weight)


def names(targets: list[Target[str]]) -> str:
    return "".join(target.provider for target in targets)


def test_in_order_a_lower_number_is_first_and_equal_ones_stay_as_written() -> None:
    choices = [choice("a", order=2), choice("b"), choice("c"), choice("d", order=2)]
    assert names(ordered(choices, "order", random.random)) == "bcad"


def test_each_place_is_drawn_by_weight() -> None:
    drawn = random.Random(1).random
    choices = [choice("a", weight=1), choice("b", weight=3), choice("c", weight=0), choice("d", order=2)]
    results = Counter(names(ordered(choices, "weighted", drawn)) for _ in range(DRAWS))
    assert set(results) == {"abcd", "bacd"}
    assert results["bacd"] / DRAWS == pytest.approx(0.75, abs=0.02)


def test_the_second_place_is_drawn_from_the_rest() -> None:
    drawn = random.Random(2).random
    choices = [choice("a", weight=2), choice("b", weight=1), choice("c", weight=1)]
    results = Counter(names(ordered(choices, "weighted", drawn)) for _ in range(DRAWS))
    assert results["abc"] / DRAWS == pytest.approx(0.25, abs=0.02)
    assert results["bac"] / DRAWS == pytest.approx(0.25 * 2 / 3, abs=0.02)


def test_the_one_with_the_fewest_in_flight_per_weight_is_first() -> None:
    drawn = random.Random(3).random
    choices = [choice("a", in_flight=2), choice("b", in_flight=3, weight=3), choice("c", in_flight=4)]
    assert names(ordered(choices, "least_in_flight", drawn)) == "bac"


@pytest.mark.parametrize("strategy", ["least_in_flight", "prefix"])
def test_what_waits_in_an_engine_is_load(strategy: Strategy) -> None:
    made = choice("a", in_flight=1)
    queued = replace(made, targets=(replace(made.targets[0], queue=EngineQueue(waiting=2)),))
    assert names(ordered([queued, choice("b", in_flight=2)], strategy, random.random)) == "ba"


def test_equal_loads_are_chosen_at_random() -> None:
    drawn = random.Random(4).random
    choices = [choice("a"), choice("b")]
    results = Counter(names(ordered(choices, "least_in_flight", drawn)) for _ in range(DRAWS))
    assert results["ab"] / DRAWS == pytest.approx(0.5, abs=0.02)


def keyed(name: str, *in_flight: int) -> Choice[str]:
    """A target with a key for each number of requests in flight."""
    targets = []
    for number, count in enumerate(in_flight):
        statistics = TargetStatistics()
        statistics.in_flight = count
        targets.append(Target(f"{name}{number}", name, statistics=statistics))
    return Choice(tuple(targets))


def test_a_providers_keys_stay_together() -> None:
    drawn = random.Random(5).random
    choices = [keyed("a", 0, 0), choice("b")]
    found = {names(ordered(choices, "weighted", drawn)) for _ in range(100)}
    assert found == {"a0a1b", "a1a0b", "ba0a1", "ba1a0"}
    assert names(ordered(choices, "order", drawn)) == "a0a1b"


def test_a_providers_keys_share_its_requests() -> None:
    drawn = random.Random(6).random
    assert names(ordered([keyed("a", 2, 1)], "least_in_flight", drawn)) == "a1a0"
    firsts = Counter(names(ordered([keyed("a", 1, 1)], "least_in_flight", drawn)) for _ in range(DRAWS))
    assert firsts["a0a1"] / DRAWS == pytest.approx(0.5, abs=0.02)


def timed(name: str, slowness: float, pending: int = 0, weight: float = 1.0, begun: int = 0) -> Choice[str]:
    """A target that has answered just now, with requests that wait for content and others that have begun."""
    made = choice(name, weight=weight, in_flight=pending + begun)
    target = replace(made.targets[0], statistics=TargetStatistics())
    assert target.statistics is not None
    target.statistics.slowness.observe(slowness, NOW)
    target.statistics.pending = pending
    return replace(made, targets=(target,))


def test_the_fastest_for_its_load_is_first() -> None:
    drawn = random.Random(7).random
    assert names(ordered([timed("a", 1.0), timed("b", 0.5)], "least_latency", drawn, NOW)) == "ba"
    # 0.5 with three that wait costs 2, as much as 2 with none; a weight of 2 halves that.
    assert names(ordered([timed("a", 1.9), timed("b", 0.5, 3)], "least_latency", drawn, NOW)) == "ab"
    assert names(ordered([timed("a", 1.9), timed("b", 0.5, 3, 2.0)], "least_latency", drawn, NOW)) == "ba"
    assert names(ordered([timed("a", 0.1, weight=0.0), timed("b", 9)], "least_latency", drawn, NOW)) == "ba"


def test_streams_that_have_begun_do_not_hide_a_slow_target() -> None:
    drawn = random.Random(7).random
    choices = [timed("a", 5.0), timed("b", 1.0, 2, begun=40)]
    assert names(ordered(choices, "least_latency", drawn, NOW)) == "ba"


def test_the_first_is_the_better_of_two_that_are_drawn() -> None:
    drawn = random.Random(8).random
    choices = [timed("a", 1.0), timed("b", 2.0), timed("c", 3.0)]
    results = Counter(names(ordered(choices, "least_latency", drawn, NOW)) for _ in range(DRAWS))
    assert set(results) == {"abc", "bac"}  # the worst of three is always the loser
    assert results["abc"] / DRAWS == pytest.approx(2 / 3, abs=0.02)


def test_a_target_that_cannot_be_asked_now_is_last() -> None:
    drawn = random.Random(9).random
    choices = [timed("a", 0.1), timed("b", 1.0), timed("c", 2.0)]
    choices[0].targets[0].rate_limit.limit(NOW, 5.0)
    firsts = {names(ordered(choices, "least_latency", drawn, NOW)) for _ in range(100)}
    assert firsts == {"bca"}
    assert {names(ordered(choices, "least_latency", drawn, NOW + 6))[0] for _ in range(100)} == {"a", "b"}


def test_an_open_circuit_may_be_probed_when_it_is_due() -> None:
    drawn = random.Random(10).random
    choices = [timed("a", 0.1), timed("b", 1.0)]
    health = choices[0].targets[0].health
    for _ in range(5):
        health.record_failure(UpstreamError("x"), "target", NOW, health.generation, "")
    assert health.until is not None
    assert names(ordered(choices, "least_latency", drawn, NOW)) == "ba"
    assert names(ordered(choices, "least_latency", drawn, health.until)) == "ab"


def known(name: str, in_flight: int = 0, weight: float = 1.0) -> Candidate[str]:
    return Candidate(Target(name, "m", name), weight, in_flight)


@pytest.mark.parametrize(
    ("in_flight", "matched", "expected"),
    [
        ((0, 0, 0), {}, "abc"),
        ((0, 0, 0), {"b": 3, "c": 1}, "bca"),
        ((2, 1, 0), {}, "cba"),
        ((0, 1, 0), {"b": 3, "c": 3}, "cba"),
        ((0, 5, 0), {"b": 3}, "bac"),  # within the bound
        ((2, 40, 1), {"b": 3}, "cab"),  # beyond it
    ],
)
def test_the_longest_prefix_wins_unless_its_queue_is_too_long(
    in_flight: tuple[int, ...], matched: dict[str, int], expected: str
) -> None:
    made = [known(name, count) for name, count in zip("abc", in_flight, strict=True)]
    order = by_prefix(made, matched, iter((0.1, 0.2, 0.3)).__next__)
    assert "".join(found.target.provider for found in order) == expected


def test_equal_targets_are_chosen_at_random() -> None:
    order = by_prefix([known("a"), known("b"), known("c")], {}, iter((0.9, 0.1, 0.5)).__next__)
    assert [found.target.provider for found in order] == ["b", "c", "a"]


def test_a_target_without_weight_is_last() -> None:
    order = by_prefix([known("a", weight=0.0), known("b", 9)], {"a": 9}, iter((0.1, 0.2)).__next__)
    assert [found.target.provider for found in order] == ["b", "a"]


def test_shares_are_those_of_the_first_place() -> None:
    choices = [choice("a", weight=1), choice("b", weight=3), choice("c", order=2)]
    assert shares(choices, "weighted") == [0.25, 0.75, 0.0]
    assert shares(choices, "order") == [1.0, 0.0, 0.0]
    assert shares(choices, "least_in_flight") == [None, None, 0.0]
    assert shares(choices, "least_latency") == [None, None, 0.0]


@pytest.mark.parametrize("strategy", ["order", "weighted"])
def test_keys_are_drawn_by_their_weights(strategy: Strategy) -> None:
    drawn = random.Random(5).random
    targets = tuple(
        Target(name, name, name, key_weight=weight) for name, weight in (("a", 1), ("b", 3), ("c", 0))
    )
    results = Counter(names(ordered([Choice(targets)], strategy, drawn)) for _ in range(DRAWS))
    assert set(results) == {"abc", "bac"}
    assert results["bac"] / DRAWS == pytest.approx(0.75, abs=0.02)


def test_keys_with_the_fewest_in_flight_per_weight_are_first() -> None:
    targets = []
    for name, weight, in_flight in (("a", 1.0, 2), ("b", 3.0, 3), ("c", 0.0, 0)):
        statistics = TargetStatistics()
        statistics.in_flight = in_flight
        targets.append(Target(name, name, name, key_weight=weight, statistics=statistics))
    assert names(ordered([Choice(tuple(targets))], "least_in_flight", random.random)) == "bac"
