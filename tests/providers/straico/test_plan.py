"""OpenAI's requests converted for Straico."""

from __future__ import annotations

from typing import Any

import pytest

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.openai import codec
from sanic_proxy.providers.straico.plan import build_plan, retry_turns

HELLO = [{"role": "user", "content": "Hello"}]
TOOLS = [
    {"type": "function", "function": {"name": "ls", "description": "list", "parameters": {"type": "object"}}},
    {"type": "function", "function": {"name": "rm", "parameters": {"type": "object"}}},
]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}


def body(model: str = "openai/gpt-4o", **fields: Any) -> dict[str, Any]:
    plan = build_plan({"messages": HELLO, **fields}, model)
    return plan.chat_body(plan.turns)


def roles(made: dict[str, Any]) -> list[str]:
    return [message["role"] for message in made["messages"]]


def test_only_supported_parameters_are_sent() -> None:
    made = body(temperature=0.5, max_tokens=9, stream=True, top_p=1, stop=["x"], user="u", metadata={})
    assert made == {"model": "openai/gpt-4o", "messages": HELLO, "temperature": 0.5, "max_tokens": 9}


def test_max_completion_tokens_takes_precedence() -> None:
    assert body(max_tokens=9, max_completion_tokens=7)["max_tokens"] == 7


def test_without_a_system_message_the_tools_get_one() -> None:
    assert roles(body(tools=TOOLS)) == ["system", "user"]


def test_a_model_without_system_role_gets_it_in_the_first_user_turn() -> None:
    made = body("claude-haiku-4-5-5", tools=TOOLS)
    assert roles(made) == ["user"]
    assert made["messages"][0]["content"].endswith("Hello")


def test_tool_choice_none_sends_no_tools() -> None:
    assert body(tools=TOOLS, tool_choice="none")["messages"] == HELLO


def test_a_named_tool_must_be_called() -> None:
    made = body(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "rm"}})
    assert "must call the function rm" in made["messages"][0]["content"]


def test_the_instructions_demand_one_call_at_a_time() -> None:
    assert "at most one call" in body(tools=TOOLS, parallel_tool_calls=False)["messages"][0]["content"]


def test_only_the_allowed_tools_are_described() -> None:
    allowed = {"mode": "required", "tools": [{"type": "function", "name": "rm"}]}
    made = body(tools=TOOLS, tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    text = made["messages"][0]["content"]
    assert '"rm"' in text
    assert '"ls"' not in text
    assert "must call at least one" in text


def test_a_response_format_is_described_beside_tools() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    text = body(tools=TOOLS, response_format=wanted)["messages"][0]["content"]
    assert '"integer"' in text
    assert "Unless you call a function" in text
    assert "Unless" not in body(response_format=wanted)["messages"][0]["content"]


def test_with_images_the_conversation_is_one_message() -> None:
    parts = [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {"url": "https://a/b.png"}}]
    plan = build_plan({"messages": [{"role": "user", "content": parts}], "max_tokens": 5}, "m")
    assert list(plan.images) == ["https://a/b.png"]
    assert plan.prompt_body(plan.turns, ["https://a/b.png"], mark="x") == {
        "models": ["m"],
        "message": "See\n[image 1]",
        "images": ["https://a/b.png"],
        "max_tokens": 5,
    }


def test_a_retry_prompt_follows_the_answer() -> None:
    turns = [{"role": "user", "content": "a"}]
    assert retry_turns(turns, "b", "c") == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    assert retry_turns(turns, " ", "c") == [{"role": "user", "content": "a\n\nc"}]
    assert turns == [{"role": "user", "content": "a"}]


STRICT = {"name": "a", "strict": True, "parameters": {"type": "nonsense"}}
LARGE = {**STRICT, "parameters": {"properties": {f"p{n}": {} for n in range(15_000)}}}


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
        ({"stop": []}, "stop"),
        ({"tools": "x"}, "tools"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"tools": [*TOOLS, {"function": STRICT}]}, "tools.2.function.parameters"),
        ({"functions": [STRICT]}, "functions.0.parameters"),
        (
            {"tools": [{"function": {**LARGE, "name": f"f{n}"}} for n in range(9)]},
            "tools.6.function.parameters",
        ),
        ({"messages": ["x"]}, "messages.0"),
    ],
)
def test_invalid_parameters_are_rejected_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        body(**fields)
    assert caught.value.param == param


def test_an_invalid_schema_of_a_tool_that_is_not_strict_is_ignored() -> None:
    odd = {"type": "function", "function": {**STRICT, "strict": False}}
    plan = build_plan({"messages": HELLO, "tools": [odd]}, "m")
    assert plan.tool_use is not None
    assert plan.checker_for(plan.tool_use.tools[0]) is None


@pytest.mark.parametrize("family", ["gpt", "qwen/x"])
@pytest.mark.parametrize("where", ["tool", "strict", "format"])
def test_a_schema_too_deep_to_be_described_is_rejected(family: str, where: str) -> None:
    deep = codec.loads_strict(b"[" * 990 + b"]" * 990)
    schema = {"type": "object", "default": deep}
    function = {"name": "f", "parameters": schema, "strict": where == "strict"}
    more: dict[str, object] = {"tools": [{"type": "function", "function": function}]}
    if where == "format":
        more = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
    with pytest.raises(InvalidRequest):
        build_plan({"messages": [{"role": "user", "content": "x"}], **more}, family)
