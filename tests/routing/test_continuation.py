"""Requests for the rest of an answer."""

from __future__ import annotations

from typing import Any

import pytest

from sanic_proxy.config.saving import CONTINUATIONS
from sanic_proxy.routing.continuation import continuing, may_be_saved

USER = {"role": "user", "content": "Hi"}
FIELDS = {"model": "m", "messages": [USER], "stream": True}


@pytest.mark.parametrize(
    "fields",
    [{}, {"n": 1}, {"n": None}, {"logprobs": False}, {"response_format": {"type": "text"}}, {"tools": []}],
)
def test_a_plain_answer_may_be_put_together(fields: dict[str, Any]) -> None:
    assert may_be_saved({**FIELDS, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"n": [1]},
        {"logprobs": True},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        {"response_format": {"type": ["text"]}},
        {"response_format": "json"},
        {"guided_json": {}, "guided_regex": "a+"},
        {"structured_outputs": {"json": {}}},
        {"grammar": "root ::= x"},
    ],
)
def test_these_answers_may_not(fields: dict[str, Any]) -> None:
    assert not may_be_saved({**FIELDS, **fields})


@pytest.mark.parametrize(
    ("how", "marks", "fields"),
    [
        ("assistant", {}, {}),
        ("prefix", {"prefix": True}, {}),
        ("partial", {"partial": True}, {}),
        (
            "continue_final_message",
            {},
            {"continue_final_message": True, "add_generation_prompt": False},
        ),
    ],
)
def test_the_text_is_the_last_message_with_the_providers_mark(
    how: Any, marks: dict[str, Any], fields: dict[str, Any]
) -> None:
    assert how in CONTINUATIONS
    made = continuing(FIELDS, "Hello the ", how, tokens=3)
    last = {"role": "assistant", "content": "Hello the", **marks}
    assert made == {**FIELDS, "messages": [USER, last], **fields}
    assert FIELDS["messages"] == [USER]


def test_an_answer_that_the_client_has_begun_is_continued_as_one_message() -> None:
    begun = {"role": "assistant", "content": "Hel", "prefix": True}
    made = continuing({**FIELDS, "messages": [USER, begun]}, "lo", "assistant", tokens=1)
    assert made is not None
    assert made["messages"] == [USER, {"role": "assistant", "content": "Hello", "prefix": True}]


@pytest.mark.parametrize(
    ("fields", "text", "how"),
    [
        ({}, "Hello", ""),
        ({}, "", "prefix"),
        ({}, " \n", "prefix"),
        ({"messages": "Hi"}, "Hello", "prefix"),
        ({"messages": []}, "Hello", "prefix"),
        ({"messages": [{"role": "assistant", "content": [{"type": "text", "text": "a"}]}]}, "a", "prefix"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}, "a", "prefix"),
        ({"messages": [{"role": "assistant", "content": None}]}, "a", "prefix"),
    ],
)
def test_where_no_such_request_can_be_made(fields: dict[str, Any], text: str, how: Any) -> None:
    assert continuing({**FIELDS, **fields}, text, how, tokens=1) is None


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(("limit", "left"), [(100, 60), (40, 1), (10, 1), (None, None), (True, True)])
def test_tokens_that_were_sent_count_towards_the_limit(name: str, limit: object, left: object) -> None:
    made = continuing({**FIELDS, name: limit}, "Hello", "assistant", tokens=40)
    assert made is not None
    assert made[name] == left
