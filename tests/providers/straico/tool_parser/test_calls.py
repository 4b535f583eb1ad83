"""Decoded values -> calls of offered tools."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sanic_proxy.providers.straico.tool_parser.calls import OfferedTools, parse_arguments
from sanic_proxy.providers.straico.tool_parser.json_repair import Decoded
from sanic_proxy.providers.straico.tools import Tool

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
}
WEATHER = Tool("weather", "", SCHEMA)
OFFERED = OfferedTools([WEATHER])


@pytest.mark.parametrize(
    "name",
    [
        "weather",
        " weather ",
        '"weather"',
        "functions.weather",
        "functions.weather:0",
        "default_api.weather",
        "tools.weather",
    ],
)
def test_prefixes_and_numbers_of_names_are_ignored(name: str) -> None:
    assert OFFERED.find(name) is WEATHER


@pytest.mark.parametrize("name", ["", "Weather", "weather2", "x.weather", "weather:"])
def test_other_names_do_not_match(name: str) -> None:
    assert OFFERED.find(name) is None


@pytest.mark.parametrize(
    "value",
    [
        {"name": "weather", "arguments": {"city": "Rome"}},
        {"name": "weather", "arguments": '{"city": "Rome"}'},
        {"tool": "weather", "parameters": {"city": "Rome"}},
        {"tool_name": "weather", "args": {"city": "Rome"}},
        {"name": "weather", "input": {"city": "Rome"}},
        {"id": "1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}},
        {"tool_calls": [{"name": "weather", "arguments": {"city": "Rome"}}]},
        [{"name": "weather", "arguments": {"city": "Rome"}}],
        {"name": "weather", "city": "Rome"},
    ],
)
def test_every_shape_of_a_call_is_parsed(value: object) -> None:
    found = OFFERED.parse_values(Decoded([value], 7))
    assert [(call.name, json.loads(call.arguments)) for call in found.calls] == [
        ("weather", {"city": "Rome"})
    ]
    assert found.end == 7
    assert not found.unparsed


@pytest.mark.parametrize(
    "value",
    [
        {"name": "other", "arguments": {}},
        {"name": "weather", "arguments": [1]},
        {"name": "weather", "arguments": "no JSON"},
        {"name": "weather", "unknown": 1},
        {"name": "weather", "parameters": SCHEMA},
        {"arguments": {}},
    ],
)
def test_values_that_are_not_calls_stay_unparsed(value: object) -> None:
    found = OFFERED.parse_values(Decoded([value], 0))
    assert not found.calls
    assert json.loads(found.unparsed) == value


def test_a_good_call_beside_a_bad_one_is_kept() -> None:
    found = OFFERED.parse_values(Decoded([[{"name": "weather", "arguments": {}}, {"name": "other"}]], 0))
    assert [call.name for call in found.calls] == ["weather"]
    assert found.unparsed == '{"name":"other"}'


def test_untagged_json_needs_a_key_for_its_arguments() -> None:
    value = {"name": "weather", "city": "Rome"}
    assert not OFFERED.parse_values(Decoded([value], 0), is_tagged=False).calls


def test_a_bare_value_takes_the_type_of_the_schema() -> None:
    assert OFFERED.coerce_argument(WEATHER, "days", "3") == 3
    assert OFFERED.coerce_argument(WEATHER, "city", "3") == "3"


@pytest.mark.parametrize(
    ("value", "arguments"),
    [
        ({}, {}),
        (None, {}),
        ("", {}),
        (" ", {}),
        ('{"a": 1}', {"a": 1}),
        ("[]", None),
        (3, None),
        ("{}{}", None),
    ],
)
def test_arguments_are_an_object(value: object, arguments: object) -> None:
    assert parse_arguments(value) == arguments
