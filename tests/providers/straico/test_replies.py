"""Parsing of Straico's replies."""

from __future__ import annotations

from typing import Any

import pytest

from sanic_proxy import errors
from sanic_proxy.providers.straico.replies import add_numbers, model_list, parse_reply
from sanic_proxy.providers.straico.tools import ToolCall
from tests.support.upstream import straico_completion


def with_message(**message: Any) -> dict[str, Any]:
    reply = straico_completion()
    reply["choices"][0]["message"] = message
    return reply


def test_a_reply_is_parsed() -> None:
    reply = parse_reply(straico_completion("Hi"))
    assert (reply.id, reply.created, reply.finish) == ("chatcmpl-upstream", 1761655357, "stop")
    assert (reply.text, reply.refusal, reply.reasoning, reply.calls) == ("Hi", None, None, [])
    assert reply.cost["price"]["total"] == 0.05


def test_missing_fields_of_a_reply_are_filled_in() -> None:
    reply = parse_reply({"choices": [{"message": {"content": "x"}}]})
    assert isinstance(reply.created, int)
    assert reply.id.startswith("chatcmpl-")
    assert (reply.usage, reply.cost) == (None, {})


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        *((reason, "stop") for reason in ("end_turn", "STOP", None, "", "null", "tool_use", "odd", 7)),
        *((reason, "length") for reason in ("MAX_TOKENS", "model_length", "length")),
        ("SAFETY", "content_filter"),
    ],
)
def test_finish_reasons_are_openais(reason: object, expected: str) -> None:
    reply = straico_completion()
    reply["choices"][0]["finish_reason"] = reason
    assert parse_reply(reply).finish == expected


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, ""), ("", ""), ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"), (7, "")],
)
def test_content_may_have_any_shape(content: object, text: str) -> None:
    assert parse_reply(with_message(content=content)).text == text


def test_usage_may_contain_floats_and_nulls() -> None:
    reply = straico_completion(
        usage={"prompt_tokens": 3.0, "completion_tokens": None, "total_tokens": float("nan")}
    )
    assert parse_reply(reply).usage == {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}


def v1(reply: dict[str, Any], **data: Any) -> dict[str, Any]:
    """The wrapper of the prompt endpoint; its key may differ from the requested model."""
    bare = {key: value for key, value in reply.items() if key not in ("price", "words")}
    entry = {"completion": bare, **{key: reply[key] for key in ("price", "words") if "entry" in data}}
    data.pop("entry", None)
    return {"success": True, "data": {**data, "completions": {"other/model": entry}}}


COST = {"overall_price": {"total": 0.05}, "overall_words": {"total": 6}}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda r: {"data": r},
        lambda r: {"data": {"completion": r}, "success": True},
        lambda r: v1(r, **COST),
        lambda r: v1(r, entry=True),
        lambda r: v1(r, entry=True, overall_price={"total": 9}, overall_words={"total": 9}),
    ],
    ids=["data", "v0", "v1 overall", "v1 inside", "v1 both"],
)
def test_wrappers_are_removed(wrap: Any) -> None:
    reply = parse_reply(wrap(straico_completion("Hi")))
    assert reply.text == "Hi"
    assert (reply.cost["price"]["total"], reply.cost["words"]["total"]) == (0.05, 6)


def test_reasoning_may_be_a_separate_field() -> None:
    assert parse_reply(with_message(content="Yes", reasoning="hm")).reasoning == "hm"
    assert parse_reply(with_message(content="Yes", reasoning_content="hm", reasoning="x")).reasoning == "hm"


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (
            {"tool_calls": [{"id": "c1", "index": 0, "function": {"name": "f", "arguments": {"a": 1}}}]},
            ToolCall("f", '{"a":1}', "c1"),
        ),
        ({"tool_calls": [{"function": {"name": "f", "arguments": ""}}]}, ToolCall("f", "{}")),
        ({"function_call": {"name": "f", "arguments": '{"a": 1}'}}, ToolCall("f", '{"a": 1}')),
        ({"tool_calls": [], "function_call": {"name": "f"}}, ToolCall("f", "{}")),
    ],
)
def test_native_calls_are_parsed(message: dict[str, Any], call: ToolCall) -> None:
    assert parse_reply(with_message(content=None, **message)).calls == [call]


@pytest.mark.parametrize("calls", [None, 7, [7], [{}], [{"function": 7}], [{"function": {"name": 7}}]])
def test_malformed_calls_are_ignored(calls: object) -> None:
    assert parse_reply(with_message(content="x", tool_calls=calls)).calls == []


WARNING = "**Warning:** It seems we couldn't process your request this time. It may be due to ..."


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ([], errors.UpstreamBadResponse),
        ({}, errors.UpstreamBadResponse),
        ({"choices": []}, errors.UpstreamBadResponse),
        ({"choices": [{"message": "x"}]}, errors.UpstreamBadResponse),
        ({"data": {"completions": {}}}, errors.UpstreamBadResponse),
        (
            {"data": {"completions": {"m": {"completion": {"error": "Model not found"}}}}},
            errors.UpstreamRejected,
        ),
        ({"error": "Token is weird", "success": False}, errors.UpstreamError),
        ({"error": "Model not found", "success": False}, errors.UpstreamRejected),
        ({"error": "The daily API limit for spending coins has been reached"}, errors.InsufficientQuota),
        (straico_completion(WARNING), errors.UpstreamUnavailable),
    ],
)
def test_an_error_with_status_200_raises(reply: Any, kind: type[errors.ProxyError]) -> None:
    with pytest.raises(kind):
        parse_reply(reply)


@pytest.mark.parametrize(
    ("first", "second", "total"),
    [
        (None, None, None),
        ({"a": 1}, None, {"a": 1}),
        (None, {"a": 1}, {"a": 1}),
        (
            {"a": 1, "b": {"c": 2}, "x": "s"},
            {"a": 0.5, "b": {"c": 3, "d": 1}},
            {"a": 1.5, "b": {"c": 5, "d": 1}, "x": "s"},
        ),
        ({"a": True, "b": 1}, {"a": True, "b": None}, {"a": True, "b": None}),
    ],
)
def test_the_numbers_of_two_answers_are_added(first: Any, second: Any, total: Any) -> None:
    assert add_numbers(first, second) == total


def test_models_keep_their_fields() -> None:
    assert model_list({"data": [{"id": "a/b", "word_limit": 3}, {"word_limit": 1}]}) == [
        {"id": "a/b", "word_limit": 3}
    ]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("model_context_window_exceeded", "length"),
        ("incomplete", "length"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("SPII", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "stop"),
    ],
)
def test_finish_reasons_of_vendors_are_converted(reason: str, finish: str) -> None:
    assert parse_reply({"choices": [{"message": {"content": "x"}, "finish_reason": reason}]}).finish == finish


@pytest.mark.parametrize(
    "reply",
    [
        {"choices": []},
        {"choices": None},
        {"choices": [{"message": {"content": None}}]},
        {"choices": [{"message": {"role": "assistant", "content": ""}, "finish_reason": "null"}]},
    ],
)
def test_a_reply_without_content_and_finish_reason_is_empty(reply: Any) -> None:
    with pytest.raises(errors.UpstreamBadResponse) as caught:
        parse_reply(reply)
    assert caught.value.code == "upstream_empty_response"


@pytest.mark.parametrize("reason", ["error", "insufficient_system_resource"])
def test_an_answer_that_failed_in_the_middle_raises(reason: str) -> None:
    with pytest.raises(errors.UpstreamBadResponse):
        parse_reply({"choices": [{"message": {"content": "half of it"}, "finish_reason": reason}]})


def test_only_chat_models_are_listed() -> None:
    entries = [{"id": kind, "model_type": kind} for kind in ("chat", "image", "video", "audio")]
    listed = model_list({"data": [*entries, {"id": "untyped"}]})
    assert [entry["id"] for entry in listed] == ["chat", "untyped"]
