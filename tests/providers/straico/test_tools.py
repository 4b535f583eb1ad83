"""Families of models."""

from __future__ import annotations

import pytest

from sanic_proxy.providers.straico.tools import Family, compact, family_of


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("anthropic/claude-3.7-sonnet:thinking", "json"),
        ("openai/gpt-4o", "json"),
        ("Qwen/Qwen3-Coder", "qwen"),
        ("z-ai/glm-4.6", "z-ai"),
        ("moonshotai/kimi-k2", "moonshotai"),
        ("glm-4.6", "z-ai"),
        ("kimi-k2", "moonshotai"),
        ("qwen3", "qwen"),
        ("o3-2025-04-16", "json"),
        ("", "json"),
    ],
)
def test_the_family_follows_from_the_id(model: str, family: Family) -> None:
    assert family_of(model) == family


def test_json_is_compact_and_readable() -> None:
    assert compact({"b": "é", "a": [1, 2]}) == '{"b":"é","a":[1,2]}'
