"""Anthropic's list of models, made of OpenAI's model objects; judged by Anthropic's own types."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic.types import ModelInfo

from sanic_proxy.openai.anthropic_models import model_info, page_of

ENTRIES: list[dict[str, Any]] = [
    {"id": f"claude-{number}", "object": "model", "created": number, "owned_by": "x"} for number in range(5)
]


@pytest.mark.parametrize("created", [0, 1_700_000_000, -5, 10**30])
def test_every_entry_is_a_model_of_anthropics(created: int) -> None:
    info = ModelInfo.model_validate(model_info({"id": "a", "created": created}), strict=False)
    assert (info.id, info.display_name) == ("a", "a")


def test_the_providers_own_name_and_time_are_kept() -> None:
    entry = {"id": "a", "created": 0, "display_name": "Claude", "created_at": "2026-01-01T00:00:00Z"}
    info = model_info(entry)
    assert (info["display_name"], info["created_at"]) == ("Claude", "2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("query", "ids", "has_more"),
    [
        ({}, [0, 1, 2, 3, 4], False),
        ({"limit": ["1000"]}, [0, 1, 2, 3, 4], False),
        ({"limit": ["2"]}, [0, 1], True),
        ({"limit": ["2"], "after_id": ["claude-1"]}, [2, 3], True),
        ({"limit": ["2"], "after_id": ["claude-2"]}, [3, 4], False),
        ({"limit": ["2"], "before_id": ["claude-4"]}, [2, 3], True),
        ({"before_id": ["claude-0"]}, [], False),
        ({"limit": ["0"]}, [0], True),
        ({"limit": ["-1"], "after_id": ["unknown"]}, [0, 1, 2, 3, 4], False),
        ({"limit": ["²"]}, [0, 1, 2, 3, 4], False),
    ],
)
def test_pages(query: dict[str, list[str]], ids: list[int], *, has_more: bool) -> None:
    page = page_of(ENTRIES, query)
    assert [entry["id"] for entry in page["data"]] == [f"claude-{number}" for number in ids]
    assert page["has_more"] is has_more
    assert (page["first_id"], page["last_id"]) == (
        (f"claude-{ids[0]}", f"claude-{ids[-1]}") if ids else (None, None)
    )
