"""Sums of usage."""

from __future__ import annotations

from typing import Any

import pytest

from sanic_proxy.openai.usage import Usage, added, prompt_of_chat


@pytest.mark.parametrize(
    ("first", "second", "total"),
    [
        ({}, {"total_tokens": 3}, {"total_tokens": 3}),
        ({"total_tokens": 3}, {}, {"total_tokens": 3}),
        (
            {"total_tokens": 3, "cost": 0.5},
            {"total_tokens": 4, "cost": 0.25},
            {"total_tokens": 7, "cost": 0.75},
        ),
        (
            {"prompt_tokens_details": {"cached_tokens": 1}, "service": "a"},
            {"prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": 0}, "service": "b"},
            {"prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 0}, "service": "b"},
        ),
        ({"cost": 10**400}, {"cost": 0.5}, {"cost": 0.5}),
        (
            {"a": None, "b": {"c": 1}, "d": True},
            {"a": 1, "b": None, "d": True},
            {"a": 1, "b": None, "d": True},
        ),
    ],
)
def test_numbers_are_added_also_in_details(
    first: dict[str, Any], second: dict[str, Any], total: dict[str, Any]
) -> None:
    before = (repr(first), repr(second))
    assert added(first, second) == total
    assert (repr(first), repr(second)) == before


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {"prompt_tokens": 9},
        {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}},
        {"prompt_tokens": 9, "prompt_tokens_details": None, "prompt_cache_hit_tokens": 5},
        {"prompt_tokens": 9, "cached_tokens": 6},
        {"prompt_tokens": "9", "cached_tokens": 6},
    ],
)
def test_the_tokens_of_the_prompt_are_those_of_the_whole_usage(usage: dict[str, Any]) -> None:
    whole = Usage.of_chat(usage)
    assert prompt_of_chat(usage) == (whole.input, min(whole.cached, whole.input))
