"""Requests that pass to a provider that speaks Messages, and the estimate of their tokens."""

from __future__ import annotations

from typing import Any

import pytest

from sanic_proxy.translation.messages.native import with_own_reasoning
from sanic_proxy.translation.messages.tokens import IMAGE_TOKENS, TOOLS_TOKENS, estimate_tokens
from sanic_proxy.translation.signatures import wrapped

USER = {"role": "user", "content": "hello"}
TEXT = {"type": "text", "text": "a"}


def thinking(signature: Any) -> dict[str, Any]:
    return {"type": "thinking", "thinking": "x", "signature": signature}


def redacted(data: Any) -> dict[str, Any]:
    return {"type": "redacted_thinking", "data": data}


def answered(*blocks: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [USER, {"role": "assistant", "content": list(blocks)}]}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"messages": "x"},
        {"messages": [1, {}, {"content": 1}, {"content": [1, {}, {"type": []}, thinking(5)]}]},
        {"messages": [USER]},
        answered(thinking("sig"), redacted("x"), TEXT),
    ],
)
def test_a_request_without_foreign_reasoning_is_not_changed(fields: dict[str, Any]) -> None:
    assert with_own_reasoning(fields, "p") is fields


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (thinking(wrapped("p", "sig")), thinking("sig")),
        (thinking(wrapped("other", "sig")), None),
        (thinking(wrapped("p", "")), None),
        (thinking(""), None),
        (thinking(None), None),
        ({"type": "thinking", "thinking": "x"}, None),
        (redacted(wrapped("p", "x")), redacted("x")),
        (redacted(wrapped("other", "x")), None),
    ],
)
def test_reasoning_returns_to_whom_has_made_it(block: Any, expected: Any) -> None:
    fields = answered(block, TEXT)
    assert with_own_reasoning(fields, "p") == answered(*([expected] if expected else []), TEXT)
    assert fields == answered(block, TEXT)


def test_a_message_of_foreign_reasoning_alone_is_removed() -> None:
    assert with_own_reasoning(answered(thinking("")), "p") == {"model": "m", "messages": [USER]}


def counted(content: Any, **fields: Any) -> int:
    return estimate_tokens({"messages": [{"role": "user", "content": content}], **fields})


def test_text_is_counted_by_its_bytes() -> None:
    assert counted("x" * 3500) == 1003
    assert counted([{"type": "text", "text": "\u00e4" * 1750}]) == 1006
    assert counted("", system="x" * 350) == 103
    assert counted("", system=[{"type": "text", "text": "x" * 350}]) == 106


def test_images_cost_the_same_wherever_they_are() -> None:
    image = {"type": "image", "source": {"type": "base64", "data": "A" * 10_000_000}}
    assert counted([image]) == IMAGE_TOKENS + 3
    assert counted([{"type": "tool_result", "content": [image]}]) == IMAGE_TOKENS + 6


def test_tools_and_their_input_are_counted_as_json() -> None:
    tools = [{"name": "f", "input_schema": {"description": "x" * 3500}}]
    assert 1000 + TOOLS_TOKENS < counted("", tools=tools) < 1020 + TOOLS_TOKENS
    call = {"type": "tool_use", "id": "a", "name": "f", "input": {"a": "x" * 3500}}
    assert 1000 < counted([call]) < 1030


def test_documents() -> None:
    text = {"type": "document", "source": {"type": "text", "data": "x" * 3500}}
    pdf = {"type": "document", "source": {"type": "base64", "data": "A" * 400_000}}
    by_id = {"type": "document", "source": {"type": "file", "file_id": "f"}}
    assert [counted([block]) for block in (text, pdf, by_id)] == [1006, 12_006, 1606]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"messages": 1},
        {"messages": [1, {}, {"content": 1}, {"content": [1, {}]}]},
        {"system": 1},
        {
            "messages": [
                {"content": [{"type": "tool_result", "content": [{"type": "tool_result", "content": []}]}]}
            ]
        },
        {"messages": [{"content": [{"type": "text", "text": 1}, {"type": "document"}, {"type": "image"}]}]},
    ],
)
def test_values_of_other_types_are_counted_as_nothing_or_little(fields: dict[str, Any]) -> None:
    assert estimate_tokens(fields) < 4000
