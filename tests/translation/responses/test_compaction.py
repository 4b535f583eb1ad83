"""Compaction by a model's summary, and the estimate of tokens."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import CompactedResponse

from sanic_proxy import errors
from sanic_proxy.openai.usage import Usage
from sanic_proxy.translation.conversation import Answer, Other, Text
from sanic_proxy.translation.responses import ResponsesFormat
from sanic_proxy.translation.responses.compaction import compacted, compaction_request
from sanic_proxy.translation.responses.tokens import estimate_tokens

FORMAT = ResponsesFormat()


def test_the_task_is_the_last_item_and_no_tool_may_be_called() -> None:
    items = [{"role": "user", "content": "x"}]
    request = compaction_request(
        {
            "model": "m",
            "input": items,
            "tools": [{"type": "function", "name": "f"}],
            "text": {},
            "stream": True,
        }
    )
    assert request["input"][:-1] == items
    assert request["input"][-1]["role"] == "user"
    assert (request["stream"], request["store"], request["tool_choice"]) == (False, False, "none")
    assert "text" not in request
    assert len(items) == 1
    FORMAT.read_request(request)


@pytest.mark.parametrize(("items", "count"), [("x", 2), (None, 1), ([], 1)])
def test_any_input_can_be_compacted(items: object, count: int) -> None:
    request = compaction_request({"model": "m", "input": items})
    assert len(request["input"]) == count
    assert "tool_choice" not in request


def response(*texts: str) -> dict[str, Any]:
    answer = Answer("chatcmpl-1", "m", 5, [Text(text) for text in texts], usage=Usage(9, 3))
    return FORMAT.write_answer(answer, FORMAT.read_request({"model": "m", "input": "x"}))


def test_a_summary_travels_as_an_item_and_is_read_back() -> None:
    made = compacted(response("The user ", "wants x."))
    CompactedResponse.model_validate(made, strict=True)
    (item,) = made["output"]
    assert item["type"] == "compaction"
    assert "wants" not in item["encrypted_content"]
    conversation = FORMAT.read_request({"model": "m", "input": [item, {"role": "user", "content": "go on"}]})
    (summary,) = conversation.turns[0].parts
    assert isinstance(summary, Text)
    assert summary.text.endswith("The user wants x.")


def test_a_foreign_compaction_is_dropped_with_notice() -> None:
    item = {"type": "compaction", "encrypted_content": "gAAA"}
    conversation = FORMAT.read_request({"model": "m", "input": [item, {"role": "user", "content": "x"}]})
    assert conversation.turns[0].parts == [Other("compaction", item)]


def test_an_empty_summary_is_a_failure() -> None:
    with pytest.raises(errors.UpstreamBadResponse, match="empty"):
        compacted(response(" "))


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, 0),
        ({"input": "12345678"}, 6),
        ({"instructions": "1234", "input": "1"}, 6),
        ({"input": [{"role": "user", "content": "1234"}]}, 5),
        ({"input": [{"id": "long-id-of-no-weight", "role": "user", "content": []}]}, 4),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "12345"}]}]}, 6),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x" * 999}]}]}, 769),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "name", "arguments": "{12}"}]}, 6),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "12345678"}]}, 6),
        ({"input": [{"type": "reasoning", "summary": [{"text": "1234"}], "encrypted_content": "x"}]}, 5),
        ({"tools": [{"a": 1}]}, 3),
        ({"input": 5, "tools": None}, 0),
        ({"input": ["x", 5, None]}, 12),
    ],
)
def test_the_estimate_of_tokens(fields: Any, tokens: int) -> None:
    assert estimate_tokens(fields) == tokens
