"""Random requests and replies: the result is an answer or one of our errors, never another exception."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.errors import InvalidRequest, ProxyError
from sanic_proxy.openai import codec
from sanic_proxy.providers.straico.parameters import dropped_params
from sanic_proxy.providers.straico.plan import build_plan, retry_turns
from sanic_proxy.providers.straico.replies import parse_reply
from sanic_proxy.providers.straico.validation import validator
from sanic_proxy.providers.straico.validation.schemas import InvalidSchema, compile_schema
from tests.support.odd import CONVERSATIONS, KEYS, OBJECTS, VALUES, WORDS


@given(CONVERSATIONS | st.lists(VALUES, max_size=3), OBJECTS)
def test_no_request_breaks_the_plan(messages: list[Any], fields: dict[str, Any]) -> None:
    with suppress(InvalidRequest):
        fields["messages"] = messages
        dropped_params(fields)
        plan = build_plan(fields, "openai/gpt-4o")
        codec.dumps(plan.chat_body(retry_turns(plan.turns, "a", "b")))
        codec.dumps(plan.prompt_body(plan.turns, ["https://a"], mark="m"))


LS = {"name": "ls", "parameters": {"type": "object", "properties": {"p": {"type": "integer"}}}}
REQUESTS = st.sampled_from(
    [
        {},
        {"tools": [{"function": LS}]},
        {"tools": [{"function": {**LS, "strict": True}}], "tool_choice": "required", "stop": "a"},
        {"functions": [LS], "function_call": {"name": "ls"}},
        {"response_format": {"type": "json_object"}, "stop": ["}", "1"]},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": LS["parameters"]}}},
    ]
)
MESSAGES = st.dictionaries(KEYS, VALUES, max_size=5) | st.fixed_dictionaries({"content": st.text()})
REPLIES = VALUES | st.builds(
    lambda message, finish, more: {**more, "choices": [{"message": message, "finish_reason": finish}]},
    MESSAGES,
    WORDS,
    OBJECTS,
)


@given(REPLIES, REQUESTS)
def test_no_reply_breaks_the_validation(parsed: Any, fields: dict[str, Any]) -> None:
    plan = build_plan({"messages": [], **fields}, "openai/gpt-4o")
    try:
        reply = parse_reply(parsed)
    except ProxyError:
        return
    made = validator.validate(reply, plan)
    whole = validator.completion(made, model="m")
    assert isinstance(whole["choices"][0]["message"]["content"], str | None)
    assert codec.dumps(whole)
    validator.assistant_turn(reply, plan)


SCHEMA_KEYS = st.sampled_from(
    ["type", "properties", "items", "enum", "const", "anyOf", "allOf", "$ref", "$defs", "a", "required", "if"]
)
SCHEMAS: st.SearchStrategy[Any] = st.recursive(
    WORDS | st.booleans() | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCHEMA_KEYS, inner, max_size=4),
    max_leaves=15,
)


@given(st.dictionaries(SCHEMA_KEYS, SCHEMAS, max_size=4), VALUES)
def test_no_schema_breaks_the_validator(schema: dict[str, Any], value: Any) -> None:
    with suppress(InvalidSchema):
        assert compile_schema(schema).violation(value) != ""
