"""Tables of prices in the settings file."""

from __future__ import annotations

from typing import Any

import pytest

from sanic_proxy.config.prices import Prices, PriceTable, ServicePrices, Tier


def test_a_table_has_rates_pieces_tiers_and_services() -> None:
    table = {
        "input": 3,
        "output": 15.0,
        "cache_write_1h": 6,
        "web_search": 0.01,
        "tiers": [{"above": 200_000, "input": 6}, {"above": 100, "output": 1}],
        "batch": {"input": 1.5, "tiers": [{"above": 200_000, "input": 3}]},
        "regions": {"US": 1.1},
    }
    assert PriceTable().from_toml(table) == Prices(
        input=3,
        output=15,
        cache_write_1h=6,
        web_search=0.01,
        tiers=(Tier(above=100, output=1), Tier(above=200_000, input=6)),
        services={"batch": ServicePrices(input=1.5, tiers=(Tier(above=200_000, input=3),))},
        regions={"us": 1.1},
    )
    assert PriceTable().from_toml({}) == Prices()


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"inputs": 3}, "'inputs' is not a key of a table of prices"),
        ({"input": -1}, "input: expected a number from 0 to 1e"),
        ({"batch": {"web_search": 1}}, "batch: 'web_search' is not a key of a table of prices"),
        ({"batch": 0.5}, "batch: expected a table"),
        ({"tiers": [{"input": 6}]}, "tiers: expected a list of tables with `above`"),
        ({"tiers": [{"above": 0}]}, "tiers: above: expected a whole number"),
        ({"tiers": {}}, "tiers: expected a list"),
        ({"regions": {"us": "far"}}, "regions: expected a table of factors"),
        ({"regions": 1}, "regions: expected a table of factors"),
    ],
)
def test_wrong_entries_are_named(table: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        PriceTable().from_toml(table)


def test_a_table_is_no_text() -> None:
    with pytest.raises(ValueError, match=r"^$"):
        PriceTable().parse("3")
