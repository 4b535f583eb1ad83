"""LiteLLM's names for costs -> tables of prices."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.config.litellm.costs import NAMES, prices_of
from sanic_proxy.config.prices import PriceTable


def test_tiers_and_services_are_tables() -> None:
    costs = {
        "input_cost_per_token": 2.5e-6,
        "output_cost_per_token": "1.5e-05",
        "input_cost_per_token_above_272k_tokens": 5e-6,
        "cache_creation_input_token_cost_above_1hr": 6e-6,
        "input_cost_per_token_priority": 5e-6,
        "input_cost_per_token_above_272k_tokens_priority": 1e-5,
        "input_cost_per_token_batches": 1.25e-6,
        "input_cost_per_token_ultrafast": 1,
        "max_tokens": 5,
    }
    assert prices_of(costs) == {
        "input": 2.5,
        "output": 15.0,
        "cache_write_1h": 6.0,
        "tiers": [{"above": 272_000, "input": 5.0}],
        "priority": {"input": 5.0, "tiers": [{"above": 272_000, "input": 10.0}]},
        "batch": {"input": 1.25},
    }


@pytest.mark.parametrize(
    ("costs", "prices"),
    [
        ({"output_cost_per_image": 0.04, "input_cost_per_image": 0.001}, {"image": 0.04}),
        ({"input_cost_per_second": 0.0001}, {"second": 0.0001}),
        ({"input_cost_per_query": 0.002}, {"request": 0.002}),
        ({"search_context_cost_per_query": {"search_context_size_medium": 0.01}}, {"web_search": 0.01}),
        (
            {
                "litellm_provider": "gemini",
                "search_context_cost_per_query": {"search_context_size_medium": 1},
            },
            {"grounding": 1.0},
        ),
        ({"search_context_cost_per_query": 0.01}, {}),
        ({"file_search_cost_per_1k_calls": 2.5}, {"file_search": 0.0025}),
        (
            {
                "tiered_pricing": [
                    {"input_cost_per_token": 1e-6, "range": [0, 32_000.0]},
                    {"input_cost_per_token": 2e-6, "range": [32_000.0, 128_000.0]},
                    "odd",
                ]
            },
            {"input": 1.0, "tiers": [{"above": 32_000, "input": 2.0}]},
        ),
        (
            {"input_cost_per_token": 5e-6, "provider_specific_entry": {"us": 1.1, "fast": 2}},
            {"input": 5.0, "regions": {"us": 1.1}, "fast": {"input": 10.0}},
        ),
        ({"input_cost_per_token": True, "output_cost_per_token": -1}, {}),
        ({"input_cost_per_token": 2, "output_cost_per_token": None}, {}),
    ],
)
def test_prices(costs: dict[str, Any], prices: dict[str, Any]) -> None:
    assert prices_of(costs) == prices


VALUES = (
    st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.lists(st.integers(), max_size=2)
)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES | st.dictionaries(st.text(), VALUES)))
def test_any_values_give_a_table_that_is_accepted(costs: dict[str, Any]) -> None:
    PriceTable().from_toml(prices_of(costs))
