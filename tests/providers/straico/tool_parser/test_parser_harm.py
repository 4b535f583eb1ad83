"""Texts that contain quoted or hypothetical calls, and damage that must not change a call."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from sanic_proxy.providers.straico.tool_parser.parser import parse
from sanic_proxy.providers.straico.tools import Tool
from tests.support.machine import slowness


def tool(name: str, *keys: str) -> Tool:
    properties = {key: {"type": "string"} for key in keys}
    return Tool(name, "", {"type": "object", "properties": properties})


TOOLS = [tool("ls", "p"), tool("get_time", "tz"), tool("edit", "path", "new"), tool("grep", "pattern")]
CALL = '<tool_call>{"name":"ls","arguments":{}}</tool_call>'
INNER = "<tool_call>get_time</tool_call>"


@pytest.mark.parametrize(
    "text",
    [
        f'<tool_calls>[{{"name":"edit","arguments":{{"path":"a","new":"see {INNER} and',
        f'<tool_calls>[{{"name":"edit","arguments":{{"new":"a "quote" {INNER}"}}}}]</tool_calls>',
        f'<tool_call>{{"name":"unknown","arguments":{{"t":"{INNER}"}}}}</tool_call>',
        f"<tool_call>edit\n<arg_key>new</arg_key>\n<arg_value>see {INNER} and",
        f"<function=edit>\n<parameter=new>\nsee {INNER}",
        f'```python\nx = """{CALL}"""',
        f"```text\n{CALL}\n```\nThat is how.",
        f"```\n{CALL}\n```\nThat is how.",
        f"~~~\n{CALL}\n~~~",
        f"````md\n```xml\nfoo\n```\n{CALL}\n````",
        '```json\n{"name":"ls","parameters":{"type":"object","properties":{"p":{"type":"string"}}}}\n```',
        '<tool_call>{"name":"ls","arguments":{"p":1e999}}</tool_call>',
    ],
)
@pytest.mark.parametrize("is_truncated", [False, True])
def test_quoted_calls_are_not_made(text: str, is_truncated: bool) -> None:
    parsed = parse(text, tools=TOOLS, is_truncated=is_truncated)
    assert (parsed.calls, parsed.content) == ((), text)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (f"Hi.\n<think>maybe {CALL}", "Hi.\n"),
        (f"Hi.\n<think>maybe {CALL}</think>\nbye", "Hi.\nbye"),
        (f"<think>maybe {CALL}</think>\nbye", "bye"),
    ],
)
def test_calls_inside_thinking_are_not_made(text: str, content: str) -> None:
    parsed = parse(text, tools=TOOLS, is_truncated=False)
    assert (parsed.calls, parsed.content) == ((), content)
    assert parsed.reasoning == f"maybe {CALL}"


def test_calls_before_an_unopened_thinking_end_tag_are_not_made() -> None:
    parsed = parse(f"I could {CALL}\n</think>\n\nDone.", tools=TOOLS, is_truncated=False)
    assert (parsed.calls, parsed.content) == ((), "Done.")
    assert parsed.reasoning == f"I could {CALL}"


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        (
            r'<tool_calls>[{"name":"grep","arguments":{"pattern":"\d+\[x\]"}}]</tool_calls>',
            "grep",
            {"pattern": r"\d+\[x\]"},
        ),
        (
            r'<tool_calls>[\{"name":"edit","arguments":\{"new":"x = \"\\n\""\}\}]</tool_calls>',
            "edit",
            {"new": r'x = "\n"'},
        ),
        (
            '<tool_calls>[{"name":"edit","arguments":{"new":"x </tool_calls> y"},}]</tool_calls>',
            "edit",
            {"new": "x </tool_calls> y"},
        ),
        ('<tool_call>{"name":"ls","arguments":{"p":"a"}</tool_call>', "ls", {"p": "a"}),
        ('<tool_call>{"name":"ls","arguments":{"p":"a"}}}</tool_call>', "ls", {"p": "a"}),
        ('<tool_call>{"name":"get_time","tz":"UTC"}</tool_call>', "get_time", {"tz": "UTC"}),
        ('{"tool_calls":[{"name":"ls","arguments":{"p":"a"}},]}', "ls", {"p": "a"}),
        ('```json\n[{"name":"ls","arguments":{"p":"a"},}]\n```', "ls", {"p": "a"}),
        ("<function=edit><parameter=new>\n  x</parameter></function>", "edit", {"new": "  x"}),
    ],
)
def test_a_damaged_call_keeps_its_arguments(text: str, name: str, arguments: dict[str, Any]) -> None:
    parsed = parse(text, tools=TOOLS, is_truncated=False)
    assert [(call.name, json.loads(call.arguments)) for call in parsed.calls] == [(name, arguments)]
    assert parsed.content is None


def test_several_calls_in_one_fence_are_all_made() -> None:
    parsed = parse(f"```xml\n{CALL}\n{CALL}\n```", tools=TOOLS, is_truncated=False)
    assert (len(parsed.calls), parsed.content) == (2, None)


def test_a_lone_surrogate_can_be_encoded() -> None:
    text = '<tool_call>{"name":"ls","arguments":{"p":"\\ud83d"}}</tool_call>'
    parsed = parse(text, tools=TOOLS, is_truncated=False)
    assert parsed.calls[0].arguments.encode() == b'{"p":"\\ud83d"}'


def test_no_depth_of_nesting_raises() -> None:
    for depth in range(900, 1000):
        nested = "[" * depth + "]" * depth
        parse(f'<tool_call>{{"name":"ls","arguments":{{"p":{nested}}}}}', tools=TOOLS, is_truncated=False)


@pytest.mark.parametrize(
    "unit",
    [
        '<invoke name="get_time"><parameter name="tz"></parameter>',
        "<function=get_time><parameter=tz>a</parameter>",
        "<tool_call>get_time<arg_key>tz</arg_key><arg_value>v</arg_value>",
        '<tool_call>{"name":"get_time","arguments":{"tz":"a"},}</tool_call>',
    ],
)
def test_half_a_megabyte_of_unfinished_calls_is_parsed_in_linear_time(unit: str) -> None:
    started = time.process_time()
    parse(unit * (500_000 // len(unit)), tools=TOOLS, is_truncated=False)
    assert time.process_time() - started < slowness()
