"""Model lists in every shape that providers send."""

from __future__ import annotations

from typing import Any

import pytest

from sanic_proxy.errors import UpstreamBadResponse
from sanic_proxy.openai import models


@pytest.mark.parametrize(
    ("parsed", "ids"),
    [
        ({"object": "list", "data": [{"id": "a"}, {"id": "b"}]}, ["a", "b"]),
        ([{"id": "a"}, {"id": 7}, "x"], ["a", "x"]),
        (["a", "b"], ["a", "b"]),
        ({"data": ["a"]}, ["a"]),
        ({"data": None}, []),
        ({"data": []}, []),
        ({"data": None, "models": [{"name": "a"}]}, ["a"]),
        ({"data": [], "models": [{"id": "a"}]}, ["a"]),
        ({"data": [{"id": "a"}], "models": [{"id": "b"}]}, ["a"]),
        ({"models": [{"name": "llama3:latest", "model": "llama3:latest", "size": 4}]}, ["llama3:latest"]),
        ({"models": [{"model": "a"}, {"name": "b"}]}, ["a", "b"]),
        ([{"name": "GPT 4o", "model": "openai/gpt-4o"}], ["openai/gpt-4o"]),
        ({"models": [{"name": "models/gemini-pro"}]}, ["models/gemini-pro"]),
        ({"data": [{"id": "a"}, {"id": "a", "x": 1}, "a"]}, ["a"]),
        ({"data": [{"id": ""}, {"id": " ", "name": "b"}, None, 5, {}]}, ["b"]),
    ],
)
def test_ids(parsed: Any, ids: list[str]) -> None:
    assert [entry["id"] for entry in models.model_entries(parsed)] == ids


def test_further_fields_are_kept() -> None:
    assert models.model_entries({"models": [{"name": "a", "size": 4}]}) == [
        {"name": "a", "size": 4, "id": "a"}
    ]


@pytest.mark.parametrize("parsed", [None, {}, {"data": "x"}, "x", 5, {"error": {"message": "no"}}])
def test_no_list(parsed: Any) -> None:
    with pytest.raises(UpstreamBadResponse, match="no model list"):
        models.model_entries(parsed)


@pytest.mark.parametrize(("created", "expected"), [(5, 5), (5.9, 5), (None, 0), ("5", 0), (True, 0)])
def test_a_model_object_has_openais_fields(created: object, expected: int) -> None:
    entry = {"id": "a", "created": created, "extra": [1], "object": "x"}
    made = models.model_object(entry, id="p/a", owner="p")
    assert made == {"id": "p/a", "object": "model", "created": expected, "owned_by": "p", "extra": [1]}
