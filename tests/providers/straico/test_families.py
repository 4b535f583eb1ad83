"""Instructions, calls and results as text. The parser's tests show that it can be parsed back."""

from __future__ import annotations

import json

import pytest

from sanic_proxy.providers.straico.families import PastCall, instructions, render_calls, render_result
from sanic_proxy.providers.straico.tool_parser.parser import parse
from sanic_proxy.providers.straico.tools import Family, Tool, ToolUse

LS = Tool("ls", "List files", {"type": "object", "properties": {"p": {"type": "string"}}})
MARKS: dict[Family, str] = {
    "json": "<tool_calls>",
    "qwen": "<tool_call>",
    "z-ai": "<arg_key>",
    "moonshotai": "<|tool_calls_section_begin|>",
}


@pytest.mark.parametrize("family", list(MARKS))
def test_the_instructions_show_the_familys_markup(family: Family) -> None:
    text = instructions(ToolUse((LS,)), family=family)
    assert MARKS[family] in text
    assert '"List files"' in text
    assert "several calls" in text


@pytest.mark.parametrize("family", list(MARKS))
def test_the_example_shows_values_of_the_right_types(family: Family) -> None:
    properties = {"days": {"type": "integer"}, "hourly": {"type": "boolean"}, "ids": {"type": "array"}}
    forecast = Tool("forecast", "", {"type": "object", "properties": properties, "required": [*properties]})
    example = instructions(ToolUse((forecast,)), family=family).partition("</tools>")[2]
    (call,) = parse(example.partition("Text before")[0], tools=[forecast], is_truncated=False).calls
    assert json.loads(call.arguments) == {"days": 1, "hourly": True, "ids": ["..."]}


def test_the_instructions_name_the_required_tool() -> None:
    assert "must call at least one" in instructions(ToolUse((LS,), "required"), family="json")
    assert "must call the function ls" in instructions(ToolUse((LS,), LS), family="json")
    assert "at most one call" in instructions(ToolUse((LS,), parallel=False), family="json")


def test_a_value_that_glm_cannot_hold_is_written_as_json() -> None:
    plain = render_calls([PastCall("c", "ls", '{"p":"/"}')], family="z-ai")
    odd = render_calls([PastCall("c", "ls", '{"p":"</arg_value>"}')], family="z-ai")
    assert "<arg_value>/</arg_value>" in plain
    assert '"</arg_value>"' in odd


@pytest.mark.parametrize("family", list(MARKS))
def test_a_result_names_its_call(family: Family) -> None:
    text = render_result("call_1", "ls", "etc", family=family)
    assert "call_1" in text
    assert "etc" in text
