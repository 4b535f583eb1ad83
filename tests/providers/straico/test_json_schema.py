"""Clients' schemas as data."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sanic_proxy.providers.straico.json_schema import (
    example_object,
    example_value,
    resolve_pointer,
    resolve_refs,
    types_of,
)
from sanic_proxy.providers.straico.validation.schemas import compile_schema
from tests.support.machine import slowness

ROOT: dict[str, Any] = {
    "$defs": {
        "n": {"type": "integer"},
        "a/b": [{"type": "null"}],
        "loop": {"$ref": "#/$defs/loop"},
        "tree": {"type": "object", "required": ["next"], "properties": {"next": {"$ref": "#/$defs/tree"}}},
    }
}


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("#", {"a/b": [{"~": 1}], "c d": 2}),
        ("#/a~1b/0/~0", 1),
        ("#/c%20d", 2),
        ("#/a~1b/7", None),
        ("#/a~1b/x", None),
        ("#/c d/e", None),
        ("#/none", None),
    ],
)
def test_a_reference_is_a_json_pointer(reference: str, found: object) -> None:
    assert resolve_pointer({"a/b": [{"~": 1}], "c d": 2}, reference) == found


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"$ref": "#/$defs/n"}, {"type": "integer"}),
        ({"$ref": "#/$defs/loop"}, {}),
        ({"$ref": "https://example.com"}, {"$ref": "https://example.com"}),
        (None, {}),
        ([], {}),
    ],
)
def test_references_are_followed(schema: object, expected: object) -> None:
    assert resolve_refs(schema, ROOT) == expected


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, {"string"}),
        ({"type": ["string", "null"]}, {"string", "null"}),
        ({"type": "string", "nullable": True}, {"string", "null"}),
        ({"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}, {"integer", "null"}),
        ({"type": 7, "anyOf": "odd"}, set()),
    ],
)
def test_types_are_collected_from_branches(schema: dict[str, Any], expected: set[str]) -> None:
    assert types_of(schema, ROOT) == expected


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, "..."),
        ({"type": "integer"}, 1),
        ({"type": "integer", "minimum": 10}, 10),
        ({"type": "number"}, 1),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"type": "array", "items": {"type": "integer"}}, [1]),
        ({"type": "array"}, ["..."]),
        ({"items": {"type": "boolean"}}, [True]),
        ({"type": "object"}, {}),
        (
            {"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["b"]},
            {"b": "..."},
        ),
        ({"properties": {"a": {"type": "integer"}, "b": {}}}, {"a": 1}),
        ({"type": ["null", "integer"]}, 1),
        ({"enum": ["metric", "imperial"]}, "metric"),
        ({"const": 7}, 7),
        ({"type": "string", "default": "UTC"}, "UTC"),
        ({"type": "string", "examples": ["Rome"]}, "Rome"),
        ({"type": "string", "default": "x" * 1000}, "..."),
        ({"type": "integer", "default": None}, 1),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 1),
        ({"oneOf": [{"$ref": "#/$defs/n"}]}, 1),
        ({"$ref": "#/$defs/n"}, 1),
        ({}, "..."),
        (True, "..."),
        (None, "..."),
    ],
)
def test_an_example_has_the_type_of_its_schema(schema: object, expected: object) -> None:
    made = example_value(schema, ROOT)
    assert made == expected
    assert type(made) is type(expected)


@pytest.mark.parametrize("name", ["loop", "tree"])
def test_a_schema_that_refers_to_itself_has_a_finite_example(name: str) -> None:
    example_value({"$ref": f"#/$defs/{name}"}, ROOT)


def test_an_example_object_has_the_required_properties_and_is_valid() -> None:
    schema = {
        "type": "object",
        "properties": {
            "note": {"type": "string"},
            "days": {"type": "integer"},
            "hourly": {"type": "boolean"},
            "places": {
                "type": "array",
                "items": {"type": "object", "properties": {"lat": {"type": "number"}}},
            },
        },
        "required": ["places", "days", "hourly"],
        "additionalProperties": False,
    }
    made = example_object(schema)
    assert made == {"days": 1, "hourly": True, "places": [{"lat": 1}]}
    assert compile_schema(schema).violation(made) is None
    del schema["required"]
    assert example_object(schema) == {"note": "...", "days": 1}
    assert example_object({"properties": 7, "required": 8}) == {}


def test_a_large_schema_has_its_example_at_once() -> None:
    names = [f"n{number}" for number in range(20_000)]
    began = time.process_time()
    made = example_object({"properties": {name: {"type": "integer"} for name in names}, "required": names})
    assert time.process_time() - began < 1 * slowness()
    assert made == {f"n{number}": 1 for number in range(8)}
