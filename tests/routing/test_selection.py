"""Which target is first, by weight and load."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from sanic_proxy.config.targets import TargetSettings
from sanic_proxy.routing.load import TargetLoad
from sanic_proxy.routing.selection import Choice, ordered, shares
from sanic_proxy.routing.targets import Target

DRAWS = 20_000


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


def test_equal_loads_are_chosen_at_random() -> None:
    drawn = random.Random(4).random
    choices = [choice("a"), choice("b")]
    results = Counter(names(ordered(choices, "least_in_flight", drawn)) for _ in range(DRAWS))
    assert results["ab"] / DRAWS == pytest.approx(0.5, abs=0.02)


def test_a_providers_keys_stay_together() -> None:
    two_keys = Choice((Target("a", "a"), Target("A", "a")), weight=1.0)
    drawn = random.Random(5).random
    found = {names(ordered([two_keys, choice("b")], "weighted", drawn)) for _ in range(100)}
    assert found == {"aAb", "baA"}


def test_shares_are_those_of_the_first_place() -> None:
    choices = [choice("a", weight=1), choice("b", weight=3), choice("c", order=2)]
    assert shares(choices, "weighted") == [0.25, 0.75, 0.0]
    assert shares(choices, "order") == [1.0, 0.0, 0.0]
    assert shares(choices, "least_in_flight") == [None, None, 0.0]
