"""The predicted cost of a validation."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest

from sanic_proxy.providers.straico.validation.cost import (
    MAX_NODES,
    MAX_PATTERNS,
    LimitExceeded,
    schema_size,
    validation_cost,
)
from tests.support.machine import slowness


def nested(levels: int, key: str = "items") -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {key: schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        nested(101),
        {"properties": {f"a{n}": {} for n in range(MAX_NODES)}},
        {"allOf": [{"pattern": "a"}] * (MAX_PATTERNS + 1)},
        {"patternProperties": {f"a{n}": {} for n in range(MAX_PATTERNS + 1)}},
        {"$ref": "http://127.0.0.1:1/x"},
        {"properties": {"a": {"$ref": "file:///etc/passwd"}}},
        {"$ref": "other.json#/a"},
        {"$ref": "#name"},
        {"$dynamicRef": "#node"},
        {"properties": {"a": {"$id": "http://x/", "$ref": "#/y"}}},
    ],
)
def test_a_schema_beyond_a_limit_is_rejected(schema: Any) -> None:
    with pytest.raises(LimitExceeded):
        schema_size(schema)


@pytest.mark.parametrize(
    "schema",
    [
        nested(99),
        {"$id": "https://x/y", "$ref": "#/$defs/a", "$defs": {"a": {}}},
        {"properties": {"$ref": {"type": "string"}, "pattern": {}, "$id": {}}},
        {"const": {"$ref": "http://x/"}, "enum": [{"$id": "a"}], "default": {"$ref": "b"}},
        {"$ref": "#"},
    ],
)
def test_usual_schemas_are_within_the_limits(schema: Any) -> None:
    assert schema_size(schema) > 0


def doubling(levels: int) -> dict[str, Any]:
    """Each level refers to the next one twice."""
    steps_ = {f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(levels)}
    return {"$defs": {**steps_, f"a{levels}": {"type": "string"}}, "$ref": "#/$defs/a0"}


def unevaluated(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"allOf": [schema], "unevaluatedProperties": {}}
    return schema


def lists(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


TREE = {"anyOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (doubling(40), 1),
        (unevaluated(30), {"a": 1}),
        (TREE, lists(40)),
        ({"items": {"$ref": "#"}}, lists(900)),
        ({"$ref": "#"}, 1),
        ({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}, 1),
        ({"$defs": {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(999)}, "$ref": "#/$defs/a0"}, 1),
        ({"pattern": "(x|y)*x(x|y){300}z"}, "xy" * 100_000),
        ({"patternProperties": {f"{n}.*z": {} for n in range(100)}}, {"xy" * 1000: 1}),
        ({"items": {"enum": list(range(10_000))}}, [-1] * 1000),
        ({"items": {"type": "integer"}}, [[n] for n in range(200_000)]),
    ],
)
def test_an_expensive_validation_is_predicted(schema: dict[str, Any], value: object) -> None:
    started = time.process_time()
    with pytest.raises(LimitExceeded):
        validation_cost(schema, value)
    assert time.process_time() - started < 2 * slowness()


EXPRESSION = {
    "$defs": {
        "e": {
            "anyOf": [
                {
                    "properties": {
                        "op": {"enum": ["+", "*"]},
                        "left": {"$ref": "#/$defs/e"},
                        "right": {"$ref": "#/$defs/e"},
                    },
                    "required": ["op", "left", "right"],
                },
                {"properties": {"call": {"type": "string"}, "args": {"items": {"$ref": "#/$defs/e"}}}},
                {"type": "number"},
            ]
        }
    },
    "$ref": "#/$defs/e",
}


def expression(levels: int) -> Any:
    if levels == 0:
        return 1
    return {
        "op": "+",
        "left": expression(levels - 1),
        "right": {"call": "f", "args": [expression(levels - 1)]},
    }


def test_a_recursive_schema_accepts_a_usual_value() -> None:
    assert validation_cost(EXPRESSION, expression(8)).steps < 300_000


def test_the_steps_of_each_kind_of_keyword_are_counted() -> None:
    schema = {
        "prefixItems": [{"type": "string", "pattern": "a"}],
        "items": {
            "properties": {"a": True},
            "additionalProperties": {"enum": [1, 2]},
            "propertyNames": {"maxLength": 3},
            "dependentSchemas": {"a": {"required": ["b"]}},
            "if": {"type": "object"},
            "then": {"not": {"type": "string"}},
        },
        "contains": {},
        "uniqueItems": True,
    }
    assert 300 < validation_cost(schema, ["a", {"a": 1, "b": 2}, 3]).steps < 3000


def test_each_branch_copies_the_value_into_its_error() -> None:
    value = {"a": ["x" * 100] * 100}
    assert validation_cost({"type": "integer"}, value).error_bytes < 12_000
    assert validation_cost({"anyOf": [{"type": "integer"}] * 100}, value).error_bytes > 1_000_000


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": {"allOf": [True] * 19_000}}, list(range(1000))),
        (
            {"patternProperties": {f"^a{number}": True for number in range(500)}},
            {f"k{n}": 1 for n in range(8000)},
        ),
        ({"allOf": [{"title": str(number)} for number in range(9000)]}, {f"k{n}": n for n in range(4000)}),
        ({"allOf": [{"items": True, "n": number} for number in range(9000)]}, list(range(4000))),
    ],
)
def test_the_walk_itself_is_bounded(schema: dict[str, object], value: object) -> None:
    began = time.process_time()
    with suppress(LimitExceeded):
        validation_cost(schema, value)
    assert time.process_time() - began < 1 * slowness()
