"""OpenAI's requests as Straico takes them."""

from __future__ import annotations

from typing import Any

import pytest

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.providers.straico.requests import request_body, tool_use
from sanic_proxy.providers.straico.tools import Tool, ToolUse

HELLO = [{"role": "user", "content": "Hello"}]
TOOLS = [
    {"type": "function", "function": {"name": "ls", "description": "list", "parameters": {"type": "object"}}},
    {"type": "function", "function": {"name": "rm", "parameters": {"type": "object"}}},
]


def body(model: str = "openai/gpt-4o", **fields: Any) -> dict[str, Any]:
    return request_body({"messages": HELLO, **fields}, model)


def roles(made: dict[str, Any]) -> list[str]:
    return [message["role"] for message in made["messages"]]


def test_only_what_straico_knows_is_sent() -> None:
    made = body(temperature=0.5, max_tokens=9, stream=True, top_p=1, stop=["x"], user="u", metadata={})
    assert made == {"model": "openai/gpt-4o", "messages": HELLO, "temperature": 0.5, "max_tokens": 9}


def test_max_completion_tokens_wins() -> None:
    assert body(max_tokens=9, max_completion_tokens=7)["max_tokens"] == 7


def test_developer_is_system_and_parts_are_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    made = request_body(
        {"messages": [{"role": "developer", "content": "Be brief"}, {"role": "user", "content": parts}]}, "m"
    )
    assert made["messages"] == [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "a\nb"},
    ]


def test_an_assistant_turn_that_says_nothing_is_left_out() -> None:
    made = request_body({"messages": [*HELLO, {"role": "assistant", "content": None}, *HELLO]}, "m")
    assert roles(made) == ["user", "user"]


def history(model: str) -> list[dict[str, str]]:
    calls = [
        {"id": "call_a", "type": "function", "function": {"name": "ls", "arguments": '{"p":"/"}'}},
        {"id": "call_b", "type": "function", "function": {"name": "rm", "arguments": "not json"}},
    ]
    messages = [
        {"role": "system", "content": "Be brief"},
        *HELLO,
        {"role": "assistant", "content": "Looking.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_b", "content": "gone"},
        {"role": "tool", "tool_call_id": "call_a", "content": [{"type": "text", "text": "etc"}]},
    ]
    made: list[dict[str, str]] = request_body({"messages": messages, "tools": TOOLS}, model)["messages"]
    return made


@pytest.mark.parametrize("model", ["openai/gpt-4o", "qwen/qwen3", "z-ai/glm-4.6"])
def test_results_can_be_matched_to_their_calls(model: str) -> None:
    system, _user, calls, results = history(model)
    assert system["content"].startswith("Be brief\n\n# Tools")
    assert calls["content"].startswith("Looking.\n\n<tool_call")
    assert "call_a" in calls["content"]
    assert "not json" in calls["content"]
    assert results["role"] == "user"
    assert (
        results["content"].index("call_b")
        < results["content"].index("gone")
        < results["content"].index("call_a")
    )


def test_kimi_knows_its_calls_by_name_and_number() -> None:
    *_, calls, results = history("moonshotai/kimi-k2")
    assert "functions.ls:0" in calls["content"]
    assert "## Return of functions.rm:1\ngone" in results["content"]


def test_without_a_system_message_the_tools_get_one() -> None:
    assert roles(body(tools=TOOLS)) == ["system", "user"]


def test_a_model_without_system_reads_it_in_the_first_user_turn() -> None:
    made = body("claude-haiku-4-5-5", tools=TOOLS)
    assert roles(made) == ["user"]
    assert made["messages"][0]["content"].endswith("Hello")


def test_tool_choice_none_sends_no_tools() -> None:
    assert body(tools=TOOLS, tool_choice="none")["messages"] == HELLO


def test_a_named_tool_must_be_called() -> None:
    made = body(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "rm"}})
    assert "must call the function rm" in made["messages"][0]["content"]


def test_one_call_at_a_time_is_said_in_words() -> None:
    assert "at most one call" in body(tools=TOOLS, parallel_tool_calls=False)["messages"][0]["content"]


def test_the_older_functions_are_tools_too() -> None:
    fields = {"functions": [{"name": "ls"}], "function_call": {"name": "ls"}}
    assert tool_use(fields) == ToolUse((Tool("ls", "", {}),), Tool("ls", "", {}), parallel=False)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 2**40}, "max_tokens"),
        ({"max_completion_tokens": True}, "max_completion_tokens"),
        ({"tools": "x"}, "tools"),
        ({"tools": [{"type": "custom"}]}, "tools.0"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name"),
        ({"tools": [{"function": {"name": "a", "parameters": []}}], "x": 1}, None),
        ({"tools": [{"function": {"name": "a", "parameters": [1]}}]}, "tools.0.function.parameters"),
        ({"tools": TOOLS, "tool_choice": "maybe"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"function": {"name": "mv"}}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"messages": ["x"]}, "messages.0"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages.0.tool_calls.0"),
        ({"messages": [{"role": "assistant", "tool_calls": "x"}]}, "messages.0.tool_calls"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], param: str | None) -> None:
    if param is None:
        assert body(**fields)
        return
    with pytest.raises(InvalidRequest) as caught:
        body(**fields)
    assert caught.value.param == param
