"""What a request says of its tools."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.providers.straico.choices import offers_tools, tool_use
from sanic_proxy.providers.straico.tools import Tool, ToolUse

TOOLS = [{"type": "function", "function": {"name": name}} for name in ("ls", "rm", "cp")]
LS, RM = Tool("ls", "", {}), Tool("rm", "", {})


def test_the_older_functions_are_tools_too() -> None:
    fields = {"functions": [{"name": "ls"}], "function_call": {"name": "ls"}}
    assert tool_use(fields) == ToolUse((LS,), LS, parallel=False, is_older=True)


@pytest.mark.parametrize("fields", [{}, {"tools": []}, {"tools": TOOLS, "tool_choice": "none"}])
def test_without_tools_there_is_no_use_of_them(fields: dict[str, Any]) -> None:
    assert tool_use(fields) is None


@pytest.mark.parametrize(
    "named", [{"type": "function", "function": {"name": "rm"}}, {"type": "function", "name": "rm"}]
)
def test_a_named_function_must_be_called(named: dict[str, Any]) -> None:
    use = tool_use({"tools": TOOLS, "tool_choice": named})
    assert use is not None
    assert use.choice == RM


@pytest.mark.parametrize("mode", ["auto", "required"])
@pytest.mark.parametrize("flat", [False, True])
def test_allowed_tools_leave_those_alone(mode: str, flat: bool) -> None:
    entries = [{"type": "function", "name": "ls"}, {"type": "function", "function": {"name": "rm"}}]
    allowed = {"mode": mode, "tools": entries}
    choice = {"type": "allowed_tools", **(allowed if flat else {"allowed_tools": allowed})}
    use = tool_use({"tools": TOOLS, "tool_choice": choice})
    assert use is not None
    assert (use.tools, use.choice) == ((LS, RM), mode)


def test_a_strict_tool_knows_where_it_came_from() -> None:
    use = tool_use({"tools": [*TOOLS, {"function": {"name": "x", "strict": True}}]})
    assert use is not None
    assert (use.tools[3].is_strict, use.tools[3].path) == (True, "tools.3.function")


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
def test_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        tool_use(fields)
    assert caught.value.param == param


def test_parameters_may_be_left_out_or_empty() -> None:
    use = tool_use({"tools": [{"function": {"name": "a", "parameters": None}}]})
    assert use is not None
    assert use.tools == (Tool("a", "", {}),)


def test_allowed_tools_are_found_at_once() -> None:
    tools = [{"type": "function", "function": {"name": f"a{number}"}} for number in range(8000)]
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"name": "a7999"}] * 8000}
    began = time.process_time()
    use = tool_use({"tools": tools, "tool_choice": allowed})
    assert time.process_time() - began < 1
    assert use is not None
    assert [tool.name for tool in use.tools] == ["a7999"]
