"""Straico's answers as OpenAI has them."""

from __future__ import annotations

from typing import Any

import pytest

from sanic_proxy import errors
from sanic_proxy.providers.straico.answers import completion, model_list
from tests.support.upstream import straico_completion

REQUEST: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}
TOOLS = {"tools": [{"type": "function", "function": {"name": "ls", "parameters": {}}}]}


def made_of(reply: Any, **request: Any) -> dict[str, Any]:
    return completion(reply, request={**REQUEST, **request}, model="straico/openai/gpt-4o")


def with_message(**message: Any) -> dict[str, Any]:
    reply = straico_completion()
    reply["choices"][0]["message"] = message
    return reply


def test_all_required_fields_are_there_and_the_model_is_the_clients() -> None:
    made = made_of(straico_completion("Hi"))
    assert made["model"] == "straico/openai/gpt-4o"
    assert made["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert made["x_straico"]["price"]["total"] == 0.05
    assert (made["object"], made["created"]) == ("chat.completion", 1761655357)


def test_a_bare_reply_gets_what_is_missing() -> None:
    made = made_of({"choices": [{"message": {"content": "x"}}]})
    assert isinstance(made["created"], int)
    assert made["id"].startswith("chatcmpl-")
    assert "usage" not in made
    assert "x_straico" not in made


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        *((reason, "stop") for reason in ("end_turn", "STOP", None, "tool_use", "error", 7)),
        *((reason, "length") for reason in ("MAX_TOKENS", "model_length", "length")),
        ("SAFETY", "content_filter"),
    ],
)
def test_finish_reasons_are_openais(reason: object, expected: str) -> None:
    reply = straico_completion()
    reply["choices"][0]["finish_reason"] = reason
    assert made_of(reply)["choices"][0]["finish_reason"] == expected


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, ""), ("", ""), ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"), (7, "")],
)
def test_content_may_come_in_any_shape(content: object, text: str) -> None:
    assert made_of(with_message(content=content))["choices"][0]["message"]["content"] == text


def test_usage_may_be_of_floats_and_nulls() -> None:
    reply = straico_completion(
        usage={"prompt_tokens": 3.0, "completion_tokens": None, "total_tokens": float("nan")}
    )
    assert made_of(reply)["usage"] == {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}


@pytest.mark.parametrize(
    "wrap", [lambda r: {"data": r}, lambda r: {"data": {"completion": r}, "success": True}]
)
def test_wrappers_are_taken_off(wrap: Any) -> None:
    assert made_of(wrap(straico_completion("Hi")))["choices"][0]["message"]["content"] == "Hi"


def test_reasoning_is_kept_apart() -> None:
    message = made_of(with_message(content="<think>hm</think>\nYes"))["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Yes", "hm")
    message = made_of(with_message(content="Yes", reasoning="hm"))["choices"][0]["message"]
    assert message["reasoning_content"] == "hm"


CALL = '<tool_calls>[{"name":"ls","arguments":{"p":"/"}}]</tool_calls>'


def test_emulated_calls_become_tool_calls() -> None:
    choice = made_of(straico_completion(f"Look: {CALL}"), **TOOLS)["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Look:"
    (call,) = choice["message"]["tool_calls"]
    assert call["id"].startswith("call_")
    assert (call["type"], call["function"]) == ("function", {"name": "ls", "arguments": '{"p":"/"}'})


def test_without_tools_markup_is_text() -> None:
    assert made_of(straico_completion(CALL))["choices"][0]["message"]["content"] == CALL
    none = made_of(straico_completion(CALL), **TOOLS, tool_choice="none")
    assert none["choices"][0]["message"]["content"] == CALL


def test_one_call_where_several_are_not_wanted() -> None:
    choice = made_of(straico_completion(CALL + CALL), **TOOLS, parallel_tool_calls=False)["choices"][0]
    assert len(choice["message"]["tool_calls"]) == 1


def test_the_older_functions_get_a_function_call() -> None:
    choice = made_of(straico_completion(CALL), functions=[{"name": "ls"}])["choices"][0]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"]["name"] == "ls"


def test_native_calls_pass() -> None:
    calls = [{"id": "c1", "type": "function", "index": 0, "function": {"name": "f", "arguments": {"a": 1}}}]
    choice = made_of(with_message(content=None, tool_calls=calls))["choices"][0]
    assert choice["message"]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    ]
    assert choice["message"]["content"] is None


WARNING = "**Warning:** It seems we couldn't process your request this time. It may be due to ..."


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ([], errors.UpstreamBadResponse),
        ({}, errors.UpstreamBadResponse),
        ({"choices": []}, errors.UpstreamBadResponse),
        ({"choices": [{"message": "x"}]}, errors.UpstreamBadResponse),
        ({"error": "Token is weird", "success": False}, errors.UpstreamError),
        ({"error": "Model not found", "success": False}, errors.ModelNotFound),
        ({"error": "The daily API limit for spending coins has been reached"}, errors.InsufficientQuota),
        (straico_completion(WARNING), errors.UpstreamUnavailable),
    ],
)
def test_a_success_that_is_none_raises(reply: Any, kind: type[errors.ProxyError]) -> None:
    with pytest.raises(kind):
        made_of(reply)


def test_models_keep_their_fields() -> None:
    assert model_list({"data": [{"id": "a/b", "word_limit": 3}, {"name": "no id"}]}) == [
        {"id": "a/b", "word_limit": 3}
    ]
