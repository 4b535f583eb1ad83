"""What requests tell of units that are billed, and what these cost."""

from __future__ import annotations

from typing import Any

import pytest

from sanic_proxy.config.prices import Prices as Declared
from sanic_proxy.governance.estimate import Asked, Tokens, estimated_cost, strict_cost
from sanic_proxy.governance.prices import FREE, MILLION, of_settings
from sanic_proxy.governance.units import IMAGE_OUTPUT_TOKENS, Units, units_of


@pytest.mark.parametrize(
    ("path", "fields", "units", "usage"),
    [
        ("/audio/speech", {"input": "Gr\u00fc\u00dfe"}, Units("character", 5), {"characters": 5}),
        ("/audio/speech", {"input": ["x"]}, Units("character", 0), {"characters": 0}),
        (
            "/images/generations",
            {"n": 2, "quality": "hd", "size": "1024x1792"},
            Units("image", 2, "hd", "1024x1792"),
            {"image_quality": "hd", "image_size": "1024x1792"},
        ),
        (
            "/images/generations",
            {"n": "2", "quality": None},
            Units("image", 1, "", "1024x1024"),
            {"image_quality": "", "image_size": "1024x1024"},
        ),
        ("/rerank", {"documents": ["a"] * 101}, Units("search_unit", 2), {"search_units": 2}),
        ("/rerank", {"documents": []}, Units("search_unit", 1), {"search_units": 1}),
        ("/rerank", {}, Units("search_unit", 1), {"search_units": 1}),
    ],
)
def test_units_are_read_from_requests(
    path: str, fields: dict[str, Any], units: Units, usage: dict[str, Any]
) -> None:
    found = units_of(path, fields)
    assert found == units
    assert found is not None
    assert found.added_to({"images": 3}) == {**usage, "images": 3}


def test_what_the_answer_reports_counts() -> None:
    assert Units("search_unit", 2).added_to({"search_units": 3}) == {"search_units": 3}
    assert Units("character", 2).added_to(None) == {"characters": 2}
    assert Units("image", 2).added_to(None) is None


def test_what_is_billed_by_tokens_has_no_units() -> None:
    assert units_of("/embeddings", {"input": "x"}) is None


@pytest.mark.parametrize(
    ("units", "declared", "nano"),
    [
        (Units("character", 1000), Declared(character=0.000015), 15_000_000),
        (Units("character", 1000), Declared(input=1, audio_output=12), None),
        (Units("image", 3), Declared(image=0.04), 120_000_000),
        (Units("image", 3), Declared(input=1, output=2), 3 * IMAGE_OUTPUT_TOKENS * 2000),
        (Units("image", 2), Declared(image_output=40), 2 * IMAGE_OUTPUT_TOKENS * 40_000),
        (Units("image", 2, "hd", "9x9"), Declared(image=1, images={"hd/9x9": 2}), 4 * 10**9),
        (Units("image", 3), Declared(second=1), None),
        (Units("search_unit", 2), Declared(search_unit=0.002), 4_000_000),
        (Units("search_unit", 2), Declared(input=0.05), 0),
        (Units("search_unit", 2), Declared(second=1), None),
    ],
)
def test_units_cost_before_they_are_used(units: Units, declared: Declared, nano: int | None) -> None:
    prices = of_settings(declared)
    asked = Asked(text_bytes=0, has_output=False, units=units)
    expected = None if nano is None else nano * MILLION
    assert units.price(prices) == expected
    assert estimated_cost(Tokens(0, 0), asked, prices) == nano
    assert strict_cost(Tokens(0, 0), asked, prices) == nano
    assert estimated_cost(Tokens(0, 0), asked, FREE) == 0
    assert estimated_cost(Tokens(0, 0), asked, None) is None


def test_the_text_of_a_request_is_added() -> None:
    prices = of_settings(Declared(input=1, image_output=40, request=0.001))
    asked = Asked(text_bytes=400, has_output=False, units=Units("image", 1))
    assert estimated_cost(Tokens(100, 0), asked, prices) == 100_000 + IMAGE_OUTPUT_TOKENS * 40_000 + 1_000_000
