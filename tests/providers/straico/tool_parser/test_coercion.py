"""Strings converted to the types of a schema."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sanic_proxy.providers.straico.tool_parser.coercion import coerce_strings, coerce_text
from tests.support.machine import slowness

ROOT: dict[str, Any] = {"$defs": {"n": {"type": "integer"}, "loop": {"$ref": "#/$defs/loop"}}}


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("01234", {"type": "string"}, "01234"),
        (" x\n", {"type": "string"}, " x\n"),
        ("true", {"type": "string"}, "true"),
        ("3", {"type": "integer"}, 3),
        ("3.5", {"type": "integer"}, "3.5"),
        ("3.5", {"type": "number"}, 3.5),
        ("NaN", {"type": "number"}, "NaN"),
        ("True", {"type": "boolean"}, True),
        ("1", {"type": "boolean"}, "1"),
        ("null", {"type": ["string", "null"]}, None),
        ("7", {"type": ["integer", "string"]}, "7"),
        ("7", {"anyOf": [{"type": "integer"}, {"type": "null"}]}, 7),
        ("null", {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}, None),
        ('["a"]', {"type": "array"}, ["a"]),
        ("a, b", {"type": "array"}, "a, b"),
        ('{"a":1}', {"type": "object"}, {"a": 1}),
        ("2", {"enum": [1, 2]}, 2),
        ("b", {"enum": ["a", "b"]}, "b"),
        ("5", {"$ref": "#/$defs/n"}, 5),
        ("5", {"$ref": "#/$defs/loop"}, 5),
        ("5", None, 5),
        ('"5"', None, '"5"'),
        ("five", {}, "five"),
        ("[" * 5000, {"type": "array"}, "[" * 5000),
    ],
)
def test_the_schema_decides_the_type(text: str, schema: object, value: object) -> None:
    made = coerce_text(text, schema, ROOT)
    assert made == value
    assert type(made) is type(value)


def test_a_value_too_expensive_to_convert_is_not_changed() -> None:
    value = {f"k{number}": "1" for number in range(400)}
    schema = {"allOf": [{"title": str(number)} for number in range(9000)]}
    began = time.process_time()
    assert coerce_strings(value, schema) == value
    assert time.process_time() - began < 1 * slowness()
