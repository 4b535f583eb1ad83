"""The JSON in a model's answer."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.providers.straico.validation.formats import (
    Extracted,
    ResponseFormat,
    extract_json,
    instructions,
    parse_response_format,
)
from tests.support.machine import slowness
from tests.support.odd import JSON

OBJECT = ResponseFormat(None, "", None)


def of_schema(schema: dict[str, Any]) -> ResponseFormat:
    made = parse_response_format(
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}}
    )
    assert made is not None
    return made


COUNT = of_schema({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"n":1}', '{"n":1}'),
        (' {"n": 1}\n', '{"n": 1}'),
        ('```json\n{"n": 1}\n```', '{"n": 1}'),
        ('```\n{"n": 1}', '{"n": 1}'),
        ('Here it is:\n\n{"n": 1}\n\nHope it helps!', '{"n": 1}'),
        ('Sure [1]: {"n": 1}', '{"n": 1}'),
        ('e.g. {"m": 2} but {"n": 1}', '{"n": 1}'),
        ('An example: ```json\n{"m":0,"x":"longer"}\n``` and ```json\n{"n":1}\n```', '{"n":1}'),
        ('"{\\"n\\": 1}"', '{"n":1}'),
        ('Of {these}, [note]: {"n": 1}', '{"n": 1}'),
        ('{"m": [{"n": 1}, oops]}', None),
        ('{\\"n\\": 1}', '{"n":1}'),
        ('{"n": 1,}', '{"n":1}'),
        ("```json\n{'n': 1}\n```", None),
        ('{"n": 1', '{"n":1}'),
        ('{"n": "1"}', '{"n":1}'),
        ('{"n": 12345678901234567890123}', '{"n": 12345678901234567890123}'),
        ('{"n": "x"}', None),
        ('{"n": NaN}', None),
        ("", None),
        ("No.", None),
    ],
)
def test_the_json_is_found(text: str, found: str | None) -> None:
    assert extract_json(text, text, COUNT).text == found


@pytest.mark.parametrize(
    ("text", "violation"),
    [
        ("[1]", "it is not a JSON object"),
        ("No.", "it contains no JSON"),
        ('{"a": "x\ny"}', None),
        ('{"a": "<think>b</think>"}', None),
    ],
)
def test_without_a_schema_any_object_is_valid(text: str, violation: str | None) -> None:
    found = extract_json(text, text, OBJECT)
    assert found.violation == violation
    if found.text is not None:
        assert isinstance(json.loads(found.text), dict)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"n": 1}', '{"n": 1}'),
        ('```json\n{"n": 1}', '{"n": 1}'),
        ('{"n": 1', None),
        ('{"m": [{"n": 1}, {"n"', None),
        ('So: {"n": 1}', None),
    ],
)
def test_a_truncated_answer_is_not_repaired(text: str, found: str | None) -> None:
    assert extract_json(text, text, COUNT, is_cut=True).text == found


def test_a_violation_names_its_location() -> None:
    assert extract_json('{"n": "x"}', '{"n": "x"}', COUNT) == Extracted(
        None, 'at /n: "x" is not of type "integer"'
    )


def test_a_schema_may_describe_other_values_than_objects() -> None:
    assert extract_json("```\n7\n```", "```\n7\n```", of_schema({"type": "integer"})).text == "7"


@pytest.mark.parametrize("wanted", [None, {"type": "text"}])
def test_text_needs_no_response_format(wanted: object) -> None:
    assert parse_response_format({"response_format": wanted}) is None


@pytest.mark.parametrize(
    "wanted",
    [
        7,
        {},
        {"type": "yaml"},
        {"type": ["text"]},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "a"}},
        {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "nonsense"}}},
        {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "http://127.0.0.1:1/"}}},
    ],
)
def test_an_invalid_response_format_is_rejected(wanted: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_response_format({"response_format": wanted})
    assert caught.value.param == "response_format"


def test_the_instructions_contain_schema_and_name() -> None:
    schema = {"type": "object"}
    named = {"name": "person", "description": "who it is", "schema": schema, "strict": True}
    made = parse_response_format({"response_format": {"type": "json_schema", "json_schema": named}})
    assert made is not None
    text = instructions(made, may_call=False)
    assert "(person: who it is)" in text
    assert '"type": "object"' in text
    assert "one JSON object" in instructions(OBJECT, may_call=False)


OBJECTS = st.dictionaries(st.text(max_size=8), JSON, max_size=4)
INDENTS = st.sampled_from([None, 2])
PROSE = st.text(alphabet=st.characters(exclude_characters="{[`", exclude_categories=["Cs"]), max_size=30)
WRAPPINGS = st.sampled_from(
    [
        "{json}",
        "{before}\n{json}\n{after}",
        "```json\n{json}\n```",
        "{before}\n```\n{json}\n```\n{after}",
        "```\n{json}",
    ]
)


@given(OBJECTS, INDENTS, st.booleans(), WRAPPINGS, PROSE, PROSE)
def test_json_is_extracted_from_any_wrapping(
    value: dict[str, Any], indent: int | None, is_ascii: bool, wrapping: str, before: str, after: str
) -> None:
    written = json.dumps(value, indent=indent, ensure_ascii=is_ascii)
    if not is_ascii and "\ud800" <= max(written, default="") <= "\udfff":
        written = json.dumps(value, indent=indent)
    text = wrapping.replace("{before}", before).replace("{after}", after).replace("{json}", written)
    if "```" in written and "```" in wrapping:
        return  # a fence inside of a fence ends it; then what is found need not be all
    found = extract_json(text, text, OBJECT)
    assert found.text is not None
    assert json.loads(found.text) == value


@given(
    st.text() | st.lists(st.sampled_from(['{"', '":', "}", "[", "]", "```", '\\"', ",", "1"])).map("".join)
)
def test_extracted_json_is_always_valid(text: str) -> None:
    found = extract_json(text, text, OBJECT)
    if found.text is not None:
        assert isinstance(json.loads(found.text), dict)
    else:
        assert found.violation


@pytest.mark.parametrize("unit", ["{", "[", '{"a":', '"', "```", "{}", "\\", '{"a":1},', "[{", '{"a":"\\"'])
@pytest.mark.parametrize("wanted", [OBJECT, COUNT], ids=["object", "schema"])
def test_half_a_megabyte_is_read_in_linear_time(unit: str, wanted: ResponseFormat) -> None:
    text = "x " + unit * (500_000 // len(unit))
    started = time.process_time()
    extract_json(text, text, wanted)
    extract_json(text[2:], text[2:], wanted)
    assert time.process_time() - started < 3 * slowness()
