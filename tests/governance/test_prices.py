"""The prices of a provider's model: settings, free providers, and the table of the package."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sanic_proxy.config.catalog import ROWS, vendor_at
from sanic_proxy.config.model import ProviderSettings, Timeouts
from sanic_proxy.config.prices import Prices as Declared
from sanic_proxy.config.prices import PriceTable, ServicePrices, Tier
from sanic_proxy.governance.prices import FEATURES, FREE, PRICE_FILE, RATES, PriceBook, Prices, of_settings

BOOK = PriceBook()


def provider(name: str, **changes: Any) -> ProviderSettings:
    row = next((row for row in ROWS if row.name == name), None)
    found = ProviderSettings(
        name,
        "openai",
        "",
        None,
        10,
        Timeouts(),
        model_prefix=row.model_prefix if row else "",
        is_free=row.is_free if row else False,
        cost_unit=row.cost_unit if row else None,
        priced_as=vendor_at(name, ""),
    )
    return replace(found, **changes)


def test_every_row_of_the_table_is_one_of_prices() -> None:
    table = json.loads(PRICE_FILE.read_text("utf-8"))
    assert "Permission is hereby granted" in table["licence"]
    assert len(table["models"]) > 1000
    vendors = {row.name for row in ROWS}
    for name, row in table["models"].items():
        assert name.partition("/")[0] in vendors
        assert name == name.lower()
        described = {"max_input", "max_output", "mode", "supports"}
        prices = of_settings(PriceTable().from_toml({key: row[key] for key in row if key not in described}))
        assert prices.has_rates or prices.pieces or prices.images, name


def test_the_table_is_dated() -> None:
    assert BOOK.date >= "2026-11-01"


@pytest.mark.parametrize(
    ("vendor", "model"),
    [
        ("openai", "gpt-4o-2024-08-06"),
        ("openai", "GPT-4o"),
        ("openai", "gpt-4o-2099-01-01"),
        ("openai", "ft:gpt-4o-2024-08-06:acme::abc123"),
        ("anthropic", "claude-sonnet-4-5"),
        ("anthropic", "claude-sonnet-4-5-20991231"),
        ("google", "models/gemini-2.5-pro"),
        ("google", "gemini-2.5-flash"),
        ("fireworks", "accounts/fireworks/models/deepseek-v3p1"),
        ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
        ("mistral", "mistral-large-latest"),
        ("azure", "gpt-4o"),
        ("openrouter", "openai/gpt-4o"),
        ("openrouter", "anthropic/claude-sonnet-4.5"),
        ("xai", "grok-4.5"),
    ],
)
def test_models_are_found_by_their_vendors_names(vendor: str, model: str) -> None:
    found = BOOK.find(provider(vendor), model)
    assert found is not None
    assert found.has_rates
    assert found.source.startswith("table 20")


def test_limits_of_the_model_come_with_its_prices() -> None:
    found = BOOK.find(provider("anthropic"), "claude-sonnet-4-5")
    assert found is not None
    assert (found.max_input, found.max_output) == (200_000, 64_000)
    assert found.band(1).rates["cache_write_1h"] == 6 * 10**9
    shorter = BOOK.find(provider("anthropic"), "claude-sonnet-4-5", max_output=4096)
    assert shorter == replace(found, max_output=4096)
    declared = BOOK.find(provider("anthropic"), "claude-sonnet-4-5", Declared(input=1.0), max_input=1000)
    assert declared is not None
    assert (declared.max_input, declared.max_output) == (1000, 64_000)
    assert BOOK.find(provider("local", is_free=True), "x", max_input=1000) is FREE


def test_the_table_says_what_models_are_for_and_can() -> None:
    found = BOOK.find(provider("anthropic"), "claude-sonnet-4-5")
    assert found is not None
    assert found.mode == "chat"
    assert (
        {"vision", "function_calling", "prompt_caching", "reasoning"} <= set(found.supports) <= set(FEATURES)
    )
    assert "audio_output" not in found.supports
    spoken, ranked = BOOK.find(provider("openai"), "tts-1"), BOOK.find(provider("cohere"), "rerank-v3.5")
    assert spoken is not None
    assert (spoken.mode, spoken.pieces["character"]) == ("audio_speech", 15_000 * 10**6)
    assert ranked is not None
    assert (ranked.mode, ranked.pieces["search_unit"]) == ("rerank", 2 * 10**6 * 10**6)


def test_images_have_prices_by_quality_and_size() -> None:
    found = BOOK.find(provider("azure"), "dall-e-3")
    assert found is not None
    dollar = 10**9 * 10**6
    prices = [found.image(quality, size) for quality, size in IMAGES]
    assert prices == [44 * dollar // 1000, 44 * dollar // 1000, 132 * dollar // 1000, 132 * dollar // 1000]
    declared = of_settings(Declared(image=1, images={"512x512": 0.5}))
    assert declared.image("hd", "512x512") == dollar // 2
    assert declared.image("", "9x9") == dollar
    assert of_settings(Declared(input=1)).image("", "1024x1024") is None


# The last one is in no row: the dearest counts.
IMAGES = [("", "1024x1024"), ("standard", "1024x1024"), ("hd", "1024x1792"), ("hd", "9x9")]


def test_unknown_models_have_no_prices() -> None:
    assert BOOK.find(provider("openai"), "gpt-of-tomorrow") is None
    assert BOOK.find(provider("work"), "gpt-4o") is None
    assert BOOK.find(provider("openai"), "\n") is None


def test_a_provider_of_ones_own_may_name_the_vendor() -> None:
    found = PriceBook().find(provider("work", priced_as="openai"), "gpt-4o")
    assert found is not None
    assert found == BOOK.find(provider("openai"), "gpt-4o")
    assert vendor_at("work", "https://api.openai.com/v1") == "openai"
    assert vendor_at("work", "https://llm.example/v1") == ""


def test_local_models_cost_nothing() -> None:
    assert BOOK.find(provider("ollama"), "llama3.2") is FREE
    assert BOOK.find(provider("echo"), "echo") is FREE
    assert set(FREE.band(10**6, "priority").rates.values()) == {0}


def test_settings_prevail() -> None:
    declared = Declared(input=1, output=2)
    found = BOOK.find(provider("ollama"), "llama3.2", declared, 100)
    assert found is not None
    assert found.band(1).rates["output"] == 2 * 10**9
    assert (found.max_output, found.unit, found.source) == (100, None, "settings")


def test_the_unit_of_a_provider_that_reports_costs() -> None:
    assert PriceBook().find(provider("straico", cost_unit=0.0001), "acme/one") == Prices(
        unit=100_000, source="provider"
    )
    assert PriceBook().find(provider("straico"), "acme/one") is None


def test_many_names_are_not_all_remembered(tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text('{"date":"2026-01-02","models":{\n"openai/a":{"input":1}\n}}', "utf-8")
    book = PriceBook(file)
    for number in range(10_000):
        assert book.find(provider("openai"), f"model{number}x") is None
    found = book.find(provider("openai"), "a")
    assert found is not None
    assert (book.date, found.band(1).rates["input"]) == ("2026-01-02", 10**9)


DECLARED = Declared(
    input=2,
    output=10,
    cached_input=0.5,
    reasoning=12,
    tiers=(Tier(above=100, input=4, output=15), Tier(above=200, input=6)),
    services={
        "flex": ServicePrices(input=1, output=5),
        "priority": ServicePrices(input=4, output=20, cached_input=1.5, tiers=(Tier(above=100, input=9),)),
    },
)


@pytest.mark.parametrize(
    ("tokens", "service", "expected"),
    [
        (100, "", {"input": 2, "output": 10, "cached_input": 0.5, "reasoning": 12}),
        (101, "", {"input": 4, "output": 15, "cached_input": 1, "reasoning": 18}),
        (201, "", {"input": 6, "output": 10, "cached_input": 1.5, "reasoning": 12}),
        (1, "flex", {"input": 1, "output": 5, "cached_input": 0.25, "reasoning": 6}),
        (101, "flex", {"input": 2, "output": 7.5, "cached_input": 0.5, "reasoning": 9}),
        (1, "priority", {"input": 4, "output": 20, "cached_input": 1.5, "reasoning": 24}),
        (101, "priority", {"input": 9, "output": 30, "cached_input": 3, "reasoning": 36}),
        (1, "scale", {"input": 2, "output": 10}),
    ],
)
def test_what_a_tier_does_not_state_is_scaled(tokens: int, service: str, expected: dict[str, float]) -> None:
    rates = of_settings(DECLARED).band(tokens, service).rates
    assert {name: rates[name] / 10**9 for name in expected} == expected


def test_parts_without_a_price_are_text() -> None:
    rates = of_settings(Declared(input=2, output=10)).band(1).rates
    assert set(rates) == set(RATES)
    assert rates["cache_write_1h"] == rates["audio_input"] == 2 * 10**9
    assert rates["image_output"] == 10**10
    written = of_settings(Declared(input=2, output=10, cache_write=2.5)).band(1).rates
    assert (written["cache_write"], written["cache_write_1h"]) == (25 * 10**8, 4 * 10**9)
    embeddings = of_settings(Declared(input=2)).band(1).rates
    assert "output" not in embeddings
    assert not of_settings(Declared(image=0.04)).has_rates
