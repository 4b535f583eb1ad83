"""Decoding and repairing JSON as models write it."""

from __future__ import annotations

from typing import Any

import pytest

from sanic_proxy.providers.straico.tool_parser.json_repair import decode_values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('{"a":1}', [{"a": 1}]),
        ('{"a":1}\n{"b":2}', [{"a": 1}, {"b": 2}]),
        ('{"a":"x\ny"}', [{"a": "x\ny"}]),
        ('{"a":1} tail', [{"a": 1}]),
    ],
)
def test_consecutive_values_are_decoded(text: str, values: list[Any]) -> None:
    decoded = decode_values(text, 0, repair=False)
    assert decoded is not None
    assert decoded.values == values


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"a":"b"}\n```',
        '{"a":"b",}',
        '{\\"a\\":\\"b\\"}',
        '{\\\\"a\\\\":\\\\"b\\\\"}',
        '\\{"a":"b"\\}',
    ],
)
def test_one_repair_after_another_is_tried(text: str) -> None:
    decoded = decode_values(text, 0, repair=True)
    assert decoded is not None
    assert decoded.values == [{"a": "b"}]


def test_a_comma_inside_a_string_is_kept() -> None:
    decoded = decode_values('{"a":"x,]",}', 0, repair=True)
    assert decoded is not None
    assert decoded.values == [{"a": "x,]"}]


def test_complete_elements_of_a_damaged_array_are_decoded() -> None:
    decoded = decode_values('[{"a":1},{"b":', 0, repair=True)
    assert decoded is not None
    assert (decoded.values, decoded.unparsed) == ([{"a": 1}], '{"b":')


@pytest.mark.parametrize("text", ["", "x", "{", '{"a":NaN}', "[" * 100_000])
def test_text_without_a_value_gives_none(text: str) -> None:
    assert decode_values(text, 0, repair=True) is None
