"""Replies checked against their requests, and the completions made of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sanic_proxy.providers.straico.error_rules import InvalidArguments, InvalidJson, ViolatedToolChoice
from sanic_proxy.providers.straico.plan import build_plan
from sanic_proxy.providers.straico.replies import parse_reply
from sanic_proxy.providers.straico.validation import validator
from sanic_proxy.providers.straico.validation.validator import Validated
from tests.support.upstream import straico_completion

HELLO = [{"role": "user", "content": "Hi"}]
SCHEMA = {
    "type": "object",
    "properties": {
        "p": {"type": "string"},
        "n": {"type": "integer"},
        "deep": {
            "type": "object",
            "properties": {"on": {"type": "boolean"}, "ids": {"items": {"$ref": "#/$defs/n"}}},
        },
    },
    "additionalProperties": False,
    "$defs": {"n": {"type": "number"}},
}


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": SCHEMA, **more}}


TOOLS: dict[str, Any] = {"tools": [tool("ls"), tool("rm")]}
STRICT: dict[str, Any] = {"tools": [tool("ls", strict=True)]}
NAMED_RM = {"type": "function", "function": {"name": "rm"}}


def call(name: str = "ls", /, **arguments: Any) -> str:
    return f"<tool_calls>{json.dumps([{'name': name, 'arguments': arguments}])}</tool_calls>"


def validate(
    text: str | None, *, finish: str = "stop", message: dict[str, Any] | None = None, **fields: Any
) -> Validated:
    upstream = straico_completion(text)
    upstream["choices"][0]["finish_reason"] = finish
    upstream["choices"][0]["message"].update(message or {})
    return validator.validate(
        parse_reply(upstream), build_plan({"messages": HELLO, **fields}, "openai/gpt-4o")
    )


def calls_of(made: Validated) -> list[tuple[str, Any]]:
    functions = [entry["function"] for entry in made.message.get("tool_calls", ())]
    return [(function["name"], json.loads(function["arguments"])) for function in functions]


def test_a_plain_answer_has_openais_form() -> None:
    made = validate("Hi")
    assert (made.violation, made.finish) == (None, "stop")
    whole = validator.completion(made, model="straico/openai/gpt-4o")
    assert whole["model"] == "straico/openai/gpt-4o"
    assert whole["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert whole["x_straico"]["price"]["total"] == 0.05
    assert (whole["object"], whole["created"]) == ("chat.completion", 1761655357)


def test_emulated_calls_become_tool_calls() -> None:
    made = validate(f"Look: {call(p='/')}", **TOOLS)
    assert (made.finish, made.violation, made.message["content"]) == ("tool_calls", None, "Look:")
    (entry,) = made.message["tool_calls"]
    assert entry["id"].startswith("call_")
    assert (entry["type"], entry["function"]) == ("function", {"name": "ls", "arguments": '{"p":"/"}'})


def test_without_tools_markup_is_text() -> None:
    for fields in ({}, {**TOOLS, "tool_choice": "none"}):
        made = validate(call(p="/"), **fields)
        assert (made.message["content"], made.finish) == (call(p="/"), "stop")


def test_without_parallel_calls_the_first_call_is_kept() -> None:
    made = validate(call(n=1) + call(n=2), **TOOLS, parallel_tool_calls=False)
    assert calls_of(made) == [("ls", {"n": 1})]
    assert len(calls_of(validate(call(n=1) + call(n=2), **TOOLS))) == 2
    made = validate(call("nope") + call(n=2), **TOOLS, parallel_tool_calls=False)
    assert (calls_of(made), made.violation) == ([("ls", {"n": 2})], None)


def test_legacy_functions_get_a_function_call() -> None:
    made = validate(call(), functions=[{"name": "ls"}])
    assert made.finish == "function_call"
    assert made.message["function_call"] == {"name": "ls", "arguments": "{}"}


# Native calls

NATIVE = {
    "tool_calls": [{"id": "c1", "index": 0, "function": {"name": "functions.ls", "arguments": '{"p": "/"}'}}]
}
OLDER = {"function_call": {"name": "ls", "arguments": '{"p": "/"}'}}


@pytest.mark.parametrize("native", [NATIVE, OLDER], ids=["tool_calls", "function_call"])
def test_native_calls_have_the_form_of_the_request(native: dict[str, Any]) -> None:
    made = validate(None, message=native, **TOOLS)
    assert (made.finish, made.message["content"]) == ("tool_calls", None)
    (entry,) = made.message["tool_calls"]
    assert entry["function"] == {"name": "ls", "arguments": '{"p": "/"}'}
    assert entry["id"] == "c1" if native is NATIVE else entry["id"].startswith("call_")
    made = validate("So.", message=native, functions=[{"name": "ls"}])
    assert made.message["function_call"]["name"] == "ls"
    assert (made.finish, made.message["content"]) == ("function_call", "So.")


def test_without_tools_native_calls_are_dropped() -> None:
    assert validate("x", message=NATIVE).finish == "stop"


# Calls of tools that were not offered

NATIVE_UNKNOWN = {"tool_calls": [{"id": "c1", "function": {"name": "nope", "arguments": '{"a": 1}'}}]}


@pytest.mark.parametrize(
    ("text", "message"), [(call("nope", a=1), {}), (None, NATIVE_UNKNOWN)], ids=["text", "native"]
)
def test_a_call_of_an_unknown_tool_is_retried_and_then_passed_on(
    text: str | None, message: dict[str, Any]
) -> None:
    made = validate(text, message=message, **TOOLS)
    assert made.violation is not None
    assert made.violation.retry_prompt is not None
    assert "There is no function nope. The functions are: ls, rm." in made.violation.retry_prompt
    assert made.violation.error is None
    assert (calls_of(made), made.finish) == ([("nope", {"a": 1})], "tool_calls")
    assert made.message["content"] is None


def test_calls_of_known_and_unknown_tools_are_all_kept() -> None:
    made = validate(call("ls", n=1) + call("nope"), **TOOLS)
    assert calls_of(made) == [("ls", {"n": 1}), ("nope", {})]
    assert made.violation is not None
    assert "nope" in (made.violation.retry_prompt or "")


def test_a_retry_prompt_lists_a_bounded_number_of_tools() -> None:
    made = validate(call("nope"), tools=[tool(f"f{number}") for number in range(500)])
    assert made.violation is not None
    assert "f99, ...." in (made.violation.retry_prompt or "")
    assert "f100" not in (made.violation.retry_prompt or "")


# Cut by the limit of tokens

TORN = {"function": {"name": "rm", "arguments": '{"p'}}
NATIVE_TORN = {"tool_calls": [*NATIVE["tool_calls"], TORN]}


@pytest.mark.parametrize(
    ("text", "message", "calls", "finish"),
    [
        (call("ls", n=1) + call("rm", p="abc")[:50], {}, [("ls", {"n": 1})], "length"),
        (call("ls", n=1), {}, [("ls", {"n": 1})], "tool_calls"),
        (call("ls", n=1) + " And", {}, [("ls", {"n": 1})], "tool_calls"),
        (None, NATIVE_TORN, [("ls", {"p": "/"})], "length"),
        (None, NATIVE, [("ls", {"p": "/"})], "tool_calls"),
    ],
)
def test_complete_calls_are_kept_and_a_torn_one_is_dropped(
    text: str | None, message: dict[str, Any], calls: Any, finish: str
) -> None:
    made = validate(text, finish="length", message=message, **TOOLS, max_tokens=9)
    assert (calls_of(made), made.finish, made.violation) == (calls, finish, None)
    assert "tool_call" not in (made.message["content"] or "")


def test_a_torn_call_that_is_the_only_one_is_not_completed() -> None:
    torn = call("rm", p="abc")[:50]
    made = validate(torn, finish="length", **TOOLS)
    assert (made.message["content"], made.finish, calls_of(made)) == (torn, "length", [])
    made = validate(None, finish="length", message={"tool_calls": [TORN]}, **TOOLS)
    assert made.message["tool_calls"][0]["function"]["arguments"] == '{"p'
    assert made.finish == "length"


def test_without_parallel_calls_a_torn_second_call_is_ignored() -> None:
    text = call("ls", n=1) + call("rm", p="abc")[:50]
    made = validate(text, finish="length", **TOOLS, parallel_tool_calls=False)
    assert (calls_of(made), made.finish) == ([("ls", {"n": 1})], "tool_calls")


# Required calls


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("No.", "required"),
        ("", "required"),
        (call("nope"), "required"),
        ("No.", NAMED_RM),
        (call("ls"), NAMED_RM),
        ("No.", {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED_RM]}}),
        (call("ls"), {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED_RM]}}),
    ],
)
def test_a_missing_or_another_call_is_a_violation(text: str, choice: Any) -> None:
    violation = validate(text, **TOOLS, tool_choice=choice).violation
    assert violation is not None
    assert violation.retry_prompt is not None
    assert "You had to call" in violation.retry_prompt
    assert isinstance(violation.error, ViolatedToolChoice)
    assert (violation.error.status, violation.error.code) == (502, "upstream_violated_tool_choice")
    assert not violation.error.retryable


def test_other_calls_than_the_named_one_are_dropped() -> None:
    made = validate(call("ls") + call("rm", n=1), **TOOLS, tool_choice=NAMED_RM)
    assert (calls_of(made), made.violation) == ([("rm", {"n": 1})], None)


@pytest.mark.parametrize(
    ("finish", "message"), [("length", {}), ("content_filter", {}), ("stop", {"refusal": "I will not."})]
)
def test_cut_and_refused_answers_are_not_retried(finish: str, message: dict[str, Any]) -> None:
    for choice in ("required", NAMED_RM):
        made = validate("", finish=finish, message=message, **TOOLS, tool_choice=choice)
        assert (made.violation, made.finish) == (None, finish)
    made = validate(call("ls", n="x"), finish="length", **TOOLS, tool_choice=NAMED_RM)
    assert (calls_of(made), made.violation) == ([("ls", {"n": "x"})], None)


# Arguments


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({"n": "5"}, {"n": 5}),
        ({"p": "5"}, {"p": "5"}),
        ({"deep": '{"on": "true"}'}, {"deep": {"on": True}}),
        ({"deep": {"on": "False", "ids": ["1", 2.5]}}, {"deep": {"on": False, "ids": [1, 2.5]}}),
        ({"deep": {"ids": "[1]"}, "n": " 7 "}, {"deep": {"ids": "[1]"}, "n": 7}),
    ],
)
def test_strings_are_converted_to_the_type_of_the_schema(given: Any, arguments: Any) -> None:
    made = validate(call(**given), **TOOLS)
    assert (calls_of(made), made.violation) == ([("ls", arguments)], None)


def test_valid_arguments_are_not_changed() -> None:
    made = validate(
        None, message={"tool_calls": [{"function": {"name": "ls", "arguments": '{ "n" : 1.0 }'}}]}, **TOOLS
    )
    assert made.message["tool_calls"][0]["function"]["arguments"] == '{ "n" : 1.0 }'


@pytest.mark.parametrize(("fields", "is_error"), [(TOOLS, False), (STRICT, True)], ids=["loose", "strict"])
@pytest.mark.parametrize("arguments", [{"n": "many"}, {"x": 1}, {"deep": {"on": 1}}])
def test_invalid_arguments_are_a_violation(fields: Any, is_error: bool, arguments: Any) -> None:
    made = validate(f"Now. {call(n=1)}{call(**arguments)}", **fields)
    assert calls_of(made) == [("ls", {"n": 1}), ("ls", arguments)]
    assert made.message["content"] == "Now."
    assert made.violation is not None
    assert made.violation.retry_prompt is not None
    assert "of your call of ls do not match" in made.violation.retry_prompt
    assert isinstance(made.violation.error, InvalidArguments) is is_error


@pytest.mark.parametrize("arguments", ["{", "[1]", "7", '{"n": NaN}'])
def test_native_arguments_other_than_objects_are_a_violation(arguments: str) -> None:
    made = validate(None, message={"function_call": {"name": "ls", "arguments": arguments}}, **TOOLS)
    assert made.violation is not None
    assert made.violation.error is None
    assert made.message["tool_calls"][0]["function"]["arguments"] == arguments


# Stop sequences


@pytest.mark.parametrize(
    ("text", "finish", "content"),
    [
        ("one\ntwo", "stop", "one"),
        ("one\ntwo", "length", "one"),
        ("\ntwo", "stop", ""),
        ("one", "stop", "one"),
    ],
)
def test_a_stop_sequence_truncates_the_text(text: str, finish: str, content: str) -> None:
    made = validate(text, finish=finish, stop="\n")
    assert (made.message["content"], made.finish) == (content, "stop")


def test_a_stop_sequence_affects_neither_reasoning_nor_calls() -> None:
    made = validate("<think>a\nb</think>c\nd", stop=["\n"])
    assert (made.message["content"], made.message["reasoning_content"]) == ("c", "a\nb")
    made = validate(f"c\nd{call(p='a b')}", stop=["\n", " "], **TOOLS)
    assert (made.message["content"], made.finish) == ("c", "tool_calls")
    assert calls_of(made) == [("ls", {"p": "a b"})]
    made = validate(f"\nd{call()}", stop="d", **TOOLS)
    assert made.message["content"] is None


def test_without_a_stop_sequence_the_finish_reason_stays() -> None:
    assert validate("one", finish="length", stop="\n").finish == "length"


# JSON

OBJECT: dict[str, Any] = {"response_format": {"type": "json_object"}}
COUNT: dict[str, Any] = {
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "a", "schema": {**SCHEMA, "required": ["n"]}},
    }
}


@pytest.mark.parametrize(
    ("text", "content", "thinking"),
    [
        ('{"n": 1}', '{"n": 1}', None),
        ('<think>{"n": 2}?</think>\n```json\n{"n": 1}\n```', '{"n": 1}', '{"n": 2}?'),
        ('Maybe {"n": 2}.\n</think>\n\n{"n": 1}', '{"n": 1}', 'Maybe {"n": 2}.'),
        ('{"n": 1, "p": "<think>x</think>"}', '{"n": 1, "p": "<think>x</think>"}', None),
        ('<think>y</think>{"n": 1, "p": "<think>x</think>"}', '{"n": 1, "p": "<think>x</think>"}', "y"),
    ],
)
@pytest.mark.parametrize("fields", [OBJECT, COUNT, {**COUNT, **TOOLS}], ids=["object", "schema", "tools"])
def test_json_is_the_content(text: str, content: str, thinking: str | None, fields: Any) -> None:
    made = validate(text, **fields, stop='"')
    assert (made.message["content"], made.violation, made.finish) == (content, None, "stop")
    assert made.message.get("reasoning_content") == thinking


def test_tools_may_be_called_instead_of_a_json_answer() -> None:
    made = validate(call(n=1), **COUNT, **TOOLS)
    assert (calls_of(made), made.violation) == ([("ls", {"n": 1})], None)


@pytest.mark.parametrize("text", ["", "No.", '{"n": "x"}', "[1]"])
def test_a_missing_json_value_is_a_violation(text: str) -> None:
    violation = validate(text, **COUNT).violation
    assert violation is not None
    assert violation.retry_prompt is not None
    assert isinstance(violation.error, InvalidJson)
    assert (violation.error.status, violation.error.code) == (502, "upstream_invalid_json")


@pytest.mark.parametrize(("finish", "word"), [("length", "max_tokens"), ("content_filter", "filter")])
def test_json_cut_by_the_model_is_an_error_without_retry(finish: str, word: str) -> None:
    violation = validate('{"n": 1, "p": "a', finish=finish, **COUNT).violation
    assert violation is not None
    assert violation.retry_prompt is None
    assert isinstance(violation.error, InvalidJson)
    assert word in violation.error.message
    assert validate('{"n": 1}', finish=finish, **COUNT).violation is None


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ('{"n": 1, "p": "a', '{"n": 1, "p": "a'),
        ('```json\n{"n": 1, "p": "a', '{"n": 1, "p": "a'),
        ('<think>hm</think>{"n"', '{"n"'),
        ("```js", ""),
        ("", ""),
    ],
)
@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_json_cut_by_the_clients_limit_is_passed_on(text: str, content: str, limit: str) -> None:
    fields: dict[str, Any] = {**COUNT, limit: 5}
    made = validate(text, finish="length", **fields)
    assert (made.message["content"], made.finish, made.violation) == (content, "length", None)
    made = validate('{"n": 1}', finish="length", **fields)
    assert (made.message["content"], made.finish, made.violation) == ('{"n": 1}', "length", None)
    assert validate(text, finish="content_filter", **fields).violation is not None


def test_a_refusal_is_passed_on() -> None:
    for text in (None, "I will not."):
        made = validate(text, message={"refusal": "I will not."}, **COUNT)
        assert (made.message["content"], made.message["refusal"], made.violation) == (
            None,
            "I will not.",
            None,
        )
    assert validate("", message={"refusal": "No."}).message["content"] is None


# Retries


def test_the_assistant_turn_contains_text_and_calls() -> None:
    plan = build_plan({"messages": HELLO, **TOOLS}, "openai/gpt-4o")
    upstream = straico_completion("<think>hm</think>So.")
    assert validator.assistant_turn(parse_reply(upstream), plan) == "So."
    upstream["choices"][0]["message"].update(NATIVE)
    turn = validator.assistant_turn(parse_reply(upstream), plan)
    assert turn.startswith("So.\n\n<tool_calls>")
    assert '"ls"' in turn


def test_the_cost_of_both_answers_is_added() -> None:
    made = validator.add_cost(validate("second"), parse_reply(straico_completion("first")))
    whole = validator.completion(made, model="m")
    assert whole["usage"] == {"prompt_tokens": 18, "completion_tokens": 4, "total_tokens": 22}
    assert whole["x_straico"]["price"] == {"input": 0.08, "output": 0.02, "total": 0.1}
    assert whole["x_straico"]["words"]["total"] == 12
    assert whole["choices"][0]["message"]["content"] == "second"
