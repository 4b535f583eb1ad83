"""The tools of a request, and which of them may be called."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.providers.straico.choices import offers_tools, parse_tool_use
from sanic_proxy.providers.straico.tools import Tool, ToolUse
from tests.support.machine import slowness

TOOLS = [{"type": "function", "function": {"name": name}} for name in ("ls", "rm", "cp")]
LS, RM = Tool("ls", "", {}), Tool("rm", "", {})


def test_legacy_functions_are_tools() -> None:
    fields = {"functions": [{"name": "ls"}], "function_call": {"name": "ls"}}
    assert parse_tool_use(fields) == ToolUse((LS,), LS, parallel=False, is_legacy=True)


@pytest.mark.parametrize("fields", [{}, {"tools": []}, {"tools": TOOLS, "tool_choice": "none"}])
def test_without_callable_tools_there_is_no_tool_use(fields: dict[str, Any]) -> None:
    assert parse_tool_use(fields) is None


@pytest.mark.parametrize(
    "named", [{"type": "function", "function": {"name": "rm"}}, {"type": "function", "name": "rm"}]
)
def test_a_named_function_must_be_called(named: dict[str, Any]) -> None:
    tool_use = parse_tool_use({"tools": TOOLS, "tool_choice": named})
    assert tool_use is not None
    assert tool_use.choice == RM


@pytest.mark.parametrize("mode", ["auto", "required"])
@pytest.mark.parametrize("flat", [False, True])
def test_allowed_tools_restrict_the_tools(mode: str, flat: bool) -> None:
    entries = [{"type": "function", "name": "ls"}, {"type": "function", "function": {"name": "rm"}}]
    allowed = {"mode": mode, "tools": entries}
    choice = {"type": "allowed_tools", **(allowed if flat else {"allowed_tools": allowed})}
    tool_use = parse_tool_use({"tools": TOOLS, "tool_choice": choice})
    assert tool_use is not None
    assert (tool_use.tools, tool_use.choice) == ((LS, RM), mode)


def test_a_strict_tool_has_the_path_of_its_parameter() -> None:
    tool_use = parse_tool_use({"tools": [*TOOLS, {"function": {"name": "x", "strict": True}}]})
    assert tool_use is not None
    assert (tool_use.tools[3].is_strict, tool_use.tools[3].path) == (True, "tools.3.function")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, False),
        ({"tools": []}, False),
        ({"tools": TOOLS}, True),
        ({"tools": TOOLS, "tool_choice": "none"}, False),
        ({"functions": [{"name": "ls"}]}, True),
        ({"functions": [{"name": "ls"}], "function_call": "none"}, False),
        ({"tools": "odd", "tool_choice": []}, True),
    ],
)
def test_tools_are_offered_unless_none_may_be_called(fields: dict[str, Any], expected: bool) -> None:
    assert offers_tools(fields) is expected


ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": "x"}, "tools"),
        ({"tools": [{"type": "custom"}]}, "tools.0"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name"),
        ({"tools": [{"function": {"name": "a", "parameters": [1]}}]}, "tools.0.function.parameters"),
        ({"tools": [{"function": {"name": "a", "description": 1}}]}, "tools.0.function.description"),
        ({"tools": TOOLS, "tool_choice": "maybe"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"function": {"name": "mv"}}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": ALLOWED}, "tool_choice.allowed_tools"),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools"),
        (
            {
                "tools": TOOLS,
                "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"name": "mv"}]},
            },
            "tool_choice",
        ),
        ({"tools": TOOLS, "parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"functions": [{}]}, "functions.0.name"),
    ],
)
def test_invalid_parameters_are_rejected_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_tool_use(fields)
    assert caught.value.param == param


def test_parameters_may_be_missing_or_empty() -> None:
    tool_use = parse_tool_use({"tools": [{"function": {"name": "a", "parameters": None}}]})
    assert tool_use is not None
    assert tool_use.tools == (Tool("a", "", {}),)


def test_allowed_tools_are_found_at_once() -> None:
    tools = [{"type": "function", "function": {"name": f"a{number}"}} for number in range(8000)]
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"name": "a7999"}] * 8000}
    began = time.process_time()
    tool_use = parse_tool_use({"tools": tools, "tool_choice": allowed})
    assert time.process_time() - began < 1 * slowness()
    assert tool_use is not None
    assert [tool.name for tool in tool_use.tools] == ["a7999"]
