"""Whether a reply is what was asked for, and the completion it makes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sanic_proxy.providers.straico.error_rules import InvalidArguments, InvalidJson, ViolatedToolChoice
from sanic_proxy.providers.straico.plan import plan_of
from sanic_proxy.providers.straico.replies import reply_of
from sanic_proxy.providers.straico.validation import validator
from sanic_proxy.providers.straico.validation.validator import Judged
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


def judged(
    text: str | None, *, finish: str = "stop", message: dict[str, Any] | None = None, **fields: Any
) -> Judged:
    upstream = straico_completion(text)
    upstream["choices"][0]["finish_reason"] = finish
    upstream["choices"][0]["message"].update(message or {})
    return validator.judged(reply_of(upstream), plan_of({"messages": HELLO, **fields}, "openai/gpt-4o"))


def calls_of(made: Judged) -> list[tuple[str, Any]]:
    functions = [entry["function"] for entry in made.message.get("tool_calls", ())]
    return [(function["name"], json.loads(function["arguments"])) for function in functions]


def test_a_plain_answer_is_openais() -> None:
    made = judged("Hi")
    assert (made.fault, made.finish) == (None, "stop")
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
    made = judged(f"Look: {call(p='/')}", **TOOLS)
    assert (made.finish, made.fault, made.message["content"]) == ("tool_calls", None, "Look:")
    (entry,) = made.message["tool_calls"]
    assert entry["id"].startswith("call_")
    assert (entry["type"], entry["function"]) == ("function", {"name": "ls", "arguments": '{"p":"/"}'})


def test_without_tools_markup_is_text() -> None:
    for fields in ({}, {**TOOLS, "tool_choice": "none"}):
        made = judged(call(p="/"), **fields)
        assert (made.message["content"], made.finish) == (call(p="/"), "stop")


def test_one_call_where_several_are_not_wanted() -> None:
    made = judged(call(n=1) + call(n=2), **TOOLS, parallel_tool_calls=False)
    assert calls_of(made) == [("ls", {"n": 1})]
    assert len(calls_of(judged(call(n=1) + call(n=2), **TOOLS))) == 2


def test_the_older_functions_get_a_function_call() -> None:
    made = judged(call(), functions=[{"name": "ls"}])
    assert made.finish == "function_call"
    assert made.message["function_call"] == {"name": "ls", "arguments": "{}"}


# Calls that came as calls

NATIVE = {
    "tool_calls": [{"id": "c1", "index": 0, "function": {"name": "functions.ls", "arguments": '{"p": "/"}'}}]
}
OLDER = {"function_call": {"name": "ls", "arguments": '{"p": "/"}'}}


@pytest.mark.parametrize("native", [NATIVE, OLDER], ids=["tool_calls", "function_call"])
def test_native_calls_come_as_the_client_asked(native: dict[str, Any]) -> None:
    made = judged(None, message=native, **TOOLS)
    assert (made.finish, made.message["content"]) == ("tool_calls", None)
    (entry,) = made.message["tool_calls"]
    assert entry["function"] == {"name": "ls", "arguments": '{"p": "/"}'}
    assert entry["id"] == "c1" if native is NATIVE else entry["id"].startswith("call_")
    made = judged("So.", message=native, functions=[{"name": "ls"}])
    assert made.message["function_call"]["name"] == "ls"
    assert (made.finish, made.message["content"]) == ("function_call", "So.")


def test_without_tools_native_calls_are_dropped() -> None:
    assert judged("x", message=NATIVE).finish == "stop"


# Calls of tools that were not offered

NATIVE_UNKNOWN = {"tool_calls": [{"id": "c1", "function": {"name": "nope", "arguments": '{"a": 1}'}}]}


@pytest.mark.parametrize(
    ("text", "message"), [(call("nope", a=1), {}), (None, NATIVE_UNKNOWN)], ids=["text", "native"]
)
def test_a_call_of_an_unknown_tool_is_asked_for_again_and_then_handed_on(
    text: str | None, message: dict[str, Any]
) -> None:
    made = judged(text, message=message, **TOOLS)
    assert made.fault is not None
    assert made.fault.complaint is not None
    assert "There is no function nope. The functions are: ls, rm." in made.fault.complaint
    assert made.fault.error is None
    assert (calls_of(made), made.finish) == ([("nope", {"a": 1})], "tool_calls")
    assert made.message["content"] is None


def test_beside_a_known_tool_an_unknown_one_is_named_too() -> None:
    made = judged(call("ls", n=1) + call("nope"), **TOOLS)
    assert calls_of(made) == [("ls", {"n": 1}), ("nope", {})]
    assert made.fault is not None
    assert "nope" in (made.fault.complaint or "")


def test_with_many_tools_not_all_are_named() -> None:
    made = judged(call("nope"), tools=[tool(f"f{number}") for number in range(500)])
    assert made.fault is not None
    assert "f99, ...." in (made.fault.complaint or "")
    assert "f100" not in (made.fault.complaint or "")


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
    made = judged(text, finish="length", message=message, **TOOLS, max_tokens=9)
    assert (calls_of(made), made.finish, made.fault) == (calls, finish, None)
    assert "tool_call" not in (made.message["content"] or "")


def test_a_torn_call_that_is_the_only_one_is_not_completed() -> None:
    torn = call("rm", p="abc")[:50]
    made = judged(torn, finish="length", **TOOLS)
    assert (made.message["content"], made.finish, calls_of(made)) == (torn, "length", [])
    made = judged(None, finish="length", message={"tool_calls": [TORN]}, **TOOLS)
    assert made.message["tool_calls"][0]["function"]["arguments"] == '{"p'
    assert made.finish == "length"


def test_where_one_call_is_wanted_a_torn_second_one_does_not_matter() -> None:
    text = call("ls", n=1) + call("rm", p="abc")[:50]
    made = judged(text, finish="length", **TOOLS, parallel_tool_calls=False)
    assert (calls_of(made), made.finish) == ([("ls", {"n": 1})], "tool_calls")


# What must be called


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
def test_no_call_or_another_one_is_a_fault(text: str, choice: Any) -> None:
    fault = judged(text, **TOOLS, tool_choice=choice).fault
    assert fault is not None
    assert fault.complaint is not None
    assert "You had to call" in fault.complaint
    assert isinstance(fault.error, ViolatedToolChoice)
    assert (fault.error.status, fault.error.code) == (502, "upstream_violated_tool_choice")
    assert not fault.error.retryable


def test_beside_a_named_one_other_calls_do_not_count() -> None:
    made = judged(call("ls") + call("rm", n=1), **TOOLS, tool_choice=NAMED_RM)
    assert (calls_of(made), made.fault) == ([("rm", {"n": 1})], None)


@pytest.mark.parametrize(
    ("finish", "message"), [("length", {}), ("content_filter", {}), ("stop", {"refusal": "I will not."})]
)
def test_what_was_cut_or_refused_is_not_asked_for_again(finish: str, message: dict[str, Any]) -> None:
    for choice in ("required", NAMED_RM):
        made = judged("", finish=finish, message=message, **TOOLS, tool_choice=choice)
        assert (made.fault, made.finish) == (None, finish)
    made = judged(call("ls", n="x"), finish="length", **TOOLS, tool_choice=NAMED_RM)
    assert (calls_of(made), made.fault) == ([("ls", {"n": "x"})], None)


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
def test_strings_are_decoded_where_the_schema_wants_none(given: Any, arguments: Any) -> None:
    made = judged(call(**given), **TOOLS)
    assert (calls_of(made), made.fault) == ([("ls", arguments)], None)


def test_good_arguments_stay_as_they_were() -> None:
    made = judged(
        None, message={"tool_calls": [{"function": {"name": "ls", "arguments": '{ "n" : 1.0 }'}}]}, **TOOLS
    )
    assert made.message["tool_calls"][0]["function"]["arguments"] == '{ "n" : 1.0 }'


@pytest.mark.parametrize(("fields", "is_error"), [(TOOLS, False), (STRICT, True)], ids=["loose", "strict"])
@pytest.mark.parametrize("arguments", [{"n": "many"}, {"x": 1}, {"deep": {"on": 1}}])
def test_arguments_that_do_not_fit_are_a_fault(fields: Any, is_error: bool, arguments: Any) -> None:
    made = judged(f"Now. {call(n=1)}{call(**arguments)}", **fields)
    assert calls_of(made) == [("ls", {"n": 1}), ("ls", arguments)]
    assert made.message["content"] == "Now."
    assert made.fault is not None
    assert made.fault.complaint is not None
    assert "of your call of ls do not fit" in made.fault.complaint
    assert isinstance(made.fault.error, InvalidArguments) is is_error


@pytest.mark.parametrize("arguments", ["{", "[1]", "7", '{"n": NaN}'])
def test_native_arguments_that_are_no_object_are_a_fault(arguments: str) -> None:
    made = judged(None, message={"function_call": {"name": "ls", "arguments": arguments}}, **TOOLS)
    assert made.fault is not None
    assert made.fault.error is None
    assert made.message["tool_calls"][0]["function"]["arguments"] == arguments


# Stops


@pytest.mark.parametrize(
    ("text", "finish", "content"),
    [
        ("one\ntwo", "stop", "one"),
        ("one\ntwo", "length", "one"),
        ("\ntwo", "stop", ""),
        ("one", "stop", "one"),
    ],
)
def test_a_stop_cuts_the_text(text: str, finish: str, content: str) -> None:
    made = judged(text, finish=finish, stop="\n")
    assert (made.message["content"], made.finish) == (content, "stop")


def test_a_stop_leaves_thoughts_and_calls() -> None:
    made = judged("<think>a\nb</think>c\nd", stop=["\n"])
    assert (made.message["content"], made.message["reasoning_content"]) == ("c", "a\nb")
    made = judged(f"c\nd{call(p='a b')}", stop=["\n", " "], **TOOLS)
    assert (made.message["content"], made.finish) == ("c", "tool_calls")
    assert calls_of(made) == [("ls", {"p": "a b"})]
    made = judged(f"\nd{call()}", stop="d", **TOOLS)
    assert made.message["content"] is None


def test_without_a_stop_the_finish_stays() -> None:
    assert judged("one", finish="length", stop="\n").finish == "length"


# JSON

OBJECT: dict[str, Any] = {"response_format": {"type": "json_object"}}
COUNT: dict[str, Any] = {
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "a", "schema": {**SCHEMA, "required": ["n"]}},
    }
}


@pytest.mark.parametrize(
    ("text", "content", "thought"),
    [
        ('{"n": 1}', '{"n": 1}', None),
        ('<think>{"n": 2}?</think>\n```json\n{"n": 1}\n```', '{"n": 1}', '{"n": 2}?'),
        ('Maybe {"n": 2}.\n</think>\n\n{"n": 1}', '{"n": 1}', 'Maybe {"n": 2}.'),
        ('{"n": 1, "p": "<think>x</think>"}', '{"n": 1, "p": "<think>x</think>"}', None),
        ('<think>y</think>{"n": 1, "p": "<think>x</think>"}', '{"n": 1, "p": "<think>x</think>"}', "y"),
    ],
)
@pytest.mark.parametrize("fields", [OBJECT, COUNT, {**COUNT, **TOOLS}], ids=["object", "schema", "tools"])
def test_json_is_the_content(text: str, content: str, thought: str | None, fields: Any) -> None:
    made = judged(text, **fields, stop='"')
    assert (made.message["content"], made.fault, made.finish) == (content, None, "stop")
    assert made.message.get("reasoning_content") == thought


def test_beside_a_format_tools_may_be_called() -> None:
    made = judged(call(n=1), **COUNT, **TOOLS)
    assert (calls_of(made), made.fault) == ([("ls", {"n": 1})], None)


@pytest.mark.parametrize("text", ["", "No.", '{"n": "x"}', "[1]"])
def test_what_is_no_json_is_a_fault(text: str) -> None:
    fault = judged(text, **COUNT).fault
    assert fault is not None
    assert fault.complaint is not None
    assert isinstance(fault.error, InvalidJson)
    assert (fault.error.status, fault.error.code) == (502, "upstream_invalid_json")


@pytest.mark.parametrize(("finish", "word"), [("length", "max_tokens"), ("content_filter", "filter")])
def test_cut_json_is_an_error_at_once(finish: str, word: str) -> None:
    fault = judged('{"n": 1, "p": "a', finish=finish, **COUNT).fault
    assert fault is not None
    assert fault.complaint is None
    assert isinstance(fault.error, InvalidJson)
    assert word in fault.error.message
    assert judged('{"n": 1}', finish=finish, **COUNT).fault is None


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
def test_json_cut_by_the_clients_limit_is_handed_on(text: str, content: str, limit: str) -> None:
    fields: dict[str, Any] = {**COUNT, limit: 5}
    made = judged(text, finish="length", **fields)
    assert (made.message["content"], made.finish, made.fault) == (content, "length", None)
    made = judged('{"n": 1}', finish="length", **fields)
    assert (made.message["content"], made.finish, made.fault) == ('{"n": 1}', "length", None)
    assert judged(text, finish="content_filter", **fields).fault is not None


def test_a_refusal_is_handed_on() -> None:
    for text in (None, "I will not."):
        made = judged(text, message={"refusal": "I will not."}, **COUNT)
        assert (made.message["content"], made.message["refusal"], made.fault) == (None, "I will not.", None)
    assert judged("", message={"refusal": "No."}).message["content"] is None


# Around a second answer


def test_the_model_reads_its_own_answer_again() -> None:
    plan = plan_of({"messages": HELLO, **TOOLS}, "openai/gpt-4o")
    upstream = straico_completion("<think>hm</think>So.")
    assert validator.answer_of(reply_of(upstream), plan) == "So."
    upstream["choices"][0]["message"].update(NATIVE)
    told = validator.answer_of(reply_of(upstream), plan)
    assert told.startswith("So.\n\n<tool_calls>")
    assert '"ls"' in told


def test_two_answers_cost_both() -> None:
    made = validator.with_cost_of(judged("second"), reply_of(straico_completion("first")))
    whole = validator.completion(made, model="m")
    assert whole["usage"] == {"prompt_tokens": 18, "completion_tokens": 4, "total_tokens": 22}
    assert whole["x_straico"]["price"] == {"input": 0.08, "output": 0.02, "total": 0.1}
    assert whole["x_straico"]["words"]["total"] == 12
    assert whole["choices"][0]["message"]["content"] == "second"
