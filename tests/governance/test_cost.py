"""What a request costs, to the nano-dollar."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.config.prices import Prices as Declared
from sanic_proxy.config.prices import ServicePrices, Tier
from sanic_proxy.governance.cost import Cost, PlainRates, cost
from sanic_proxy.governance.prices import FREE, RATES, Prices, of_settings
from sanic_proxy.governance.usage import Usage
from tests.support.prices import text_prices, usage_of

SONNET = of_settings(
    text_prices(
        above=200_000,
        web_search=0.01,
        services={"batch": ServicePrices(input=1.5, output=7.5)},
        regions={"us": 1.1},
    )
)


@pytest.mark.parametrize(
    ("usage", "nano"),
    [
        (Usage(), 0),
        (Usage(input=1), 3000),
        (Usage(input=10, output=50), 780_000),
        (Usage(input=10, cached_input=60, cache_write=10, cache_write_1h=20, output=30), 655_500),
        (Usage(web_searches=2), 20_000_000),
        # A long input prices the whole request, cached tokens counted.
        (Usage(input=200_000, output=1), 600_015_000),
        (Usage(input=200_001, output=1), 1_200_028_500),
        (Usage(cached_input=200_001), 120_000_600),
        (Usage(input=10, output=50, service_tier="batch"), 390_000),
        (Usage(input=10, output=50, service_tier="flex"), 780_000),
        (Usage(input=10, output=50, region="us"), 858_000),
        (Usage(input=10, output=50, region="moon"), 780_000),
        (Usage(input=1, reported_cost_nano=1), 3000),
    ],
)
def test_costs(usage: Usage, nano: int) -> None:
    assert cost(usage, SONNET) == Cost(nano, is_known=True)


def test_a_part_of_a_nano_dollar_counts_as_one() -> None:
    prices = of_settings(Declared(input=0.0001, output=0.0001))
    assert cost(Usage(input=1), prices).nano == 1
    assert cost(Usage(input=10, output=1), prices).nano == 2


@pytest.mark.parametrize(
    ("usage", "prices", "expected"),
    [
        (Usage(input=1), None, Cost(0, is_known=False)),
        (Usage(output=1), of_settings(Declared(input=1)), Cost(0, is_known=False)),
        (Usage(input=1, web_searches=1), of_settings(Declared(input=1)), Cost(1000, is_known=False)),
        (Usage(input=1, service_tier="priority"), SONNET, Cost(3000, is_known=False)),
        (Usage(images=2), of_settings(Declared(input=1)), Cost(0, is_known=False)),
        (Usage(images=2), of_settings(Declared(image=0.04)), Cost(80_000_000, is_known=True)),
        (
            Usage(output=100, images=1),
            of_settings(Declared(output=40, image=1)),
            Cost(4_000_000, is_known=True),
        ),
        (Usage(seconds=3), of_settings(Declared(second=0.0001)), Cost(300_000, is_known=True)),
        (Usage(characters=300), of_settings(Declared(character=0.000015)), Cost(4_500_000, is_known=True)),
        (Usage(characters=300), of_settings(Declared(input=1)), Cost(0, is_known=False)),
        (Usage(search_units=2), of_settings(Declared(search_unit=0.002)), Cost(4_000_000, is_known=True)),
        (Usage(input=5, search_units=2), of_settings(Declared(input=1)), Cost(5000, is_known=True)),
        (
            Usage(images=2, image_quality="hd", image_size="1024x1024"),
            of_settings(Declared(image=1, images={"hd/1024x1024": 0.08})),
            Cost(160_000_000, is_known=True),
        ),
        (Usage(web_searches=3), of_settings(Declared(grounding=0.035)), Cost(35_000_000, is_known=True)),
        (Usage(input=1), of_settings(Declared(input=1, request=0.005)), Cost(5_001_000, is_known=True)),
        (Usage(input=9, images=1, web_searches=3, service_tier="x"), FREE, Cost(0, is_known=False)),
        (Usage(input=9, images=1, web_searches=3), FREE, Cost(0, is_known=True)),
        # What a provider reports counts where its unit is known.
        (Usage(input=1, reported_cost_nano=5_000_000), Prices(unit=10**9), Cost(5_000_000, is_known=True)),
        (Usage(reported_cost_nano=50_000_001), Prices(unit=100_000), Cost(5001, is_known=True)),
        (Usage(input=1), Prices(unit=100_000), Cost(0, is_known=False)),
    ],
)
def test_what_has_no_price_is_flagged(usage: Usage, prices: Prices | None, expected: Cost) -> None:
    assert cost(usage, prices) == expected


RATE = st.integers(0, 10**12)
COUNT = st.integers(0, 10**10)


@given(st.lists(RATE, min_size=10, max_size=10), st.lists(COUNT, min_size=10, max_size=10))
def test_a_cost_is_the_exact_sum_rounded_up_once(rates: list[int], counts: list[int]) -> None:
    named: dict[str, Any] = {name: rate / 10**9 for name, rate in zip(RATES, rates, strict=True)}
    prices = of_settings(Declared(**named))
    usage = usage_of(counts)
    exact = sum(Fraction(rate * count, 10**6) for rate, count in zip(rates, counts, strict=True))
    assert cost(usage, prices) == Cost(min(ceil(exact), 10**15), is_known=True)


@given(st.lists(COUNT, min_size=10, max_size=10), st.sampled_from(RATES))
def test_more_usage_never_costs_less(counts: list[int], more: str) -> None:
    larger = [count + (name == more) for name, count in zip(RATES, counts, strict=True)]
    assert cost(usage_of(counts), SONNET).nano <= cost(usage_of(larger), SONNET).nano


PRICE = st.none() | st.floats(0, 100)


@given(
    st.builds(
        Declared,
        input=PRICE,
        output=PRICE,
        request=st.none() | st.floats(0, 1),
        tiers=st.sampled_from([(), (Tier(above=1000, input=2.0, output=3.0),)]),
        services=st.sampled_from([{}, {"flex": ServicePrices(input=0.5, output=0.5)}]),
        regions=st.sampled_from([{}, {"us": 1.1}]),
    ),
    st.integers(0, 10**10),
    st.integers(0, 10**10),
)
def test_plain_text_costs_the_same_by_its_rates_alone(declared: Declared, given_: int, made: int) -> None:
    prices = of_settings(declared)
    rates = PlainRates.of(prices)
    if rates is not None:
        assert cost(Usage(input=given_, output=made), prices) == Cost(rates.cost(given_, made), is_known=True)


def test_plain_rates_are_those_of_models_without_tiers() -> None:
    assert PlainRates.of(of_settings(Declared(input=1.0, output=2.0))) is not None
    assert PlainRates.of(FREE) is not None
    assert PlainRates.of(SONNET) is None
    assert PlainRates.of(of_settings(Declared(input=1.0))) is None
    assert PlainRates.of(Prices(unit=1)) is None
    assert PlainRates.of(None) is None
