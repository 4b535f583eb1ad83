"""Compaction by a model's summary, and the estimate of tokens."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import CompactedResponse

from sanic_proxy import errors
from sanic_proxy.openai.responses import write_usage
from sanic_proxy.translation.conversation import (
    Answer,
    Conversation,
    Other,
    Text,
    Tool,
    ToolChoice,
    Turn,
    Usage,
)
from sanic_proxy.translation.responses import ResponsesFormat
from sanic_proxy.translation.responses.compaction import compacted, compaction_request, is_ours
from sanic_proxy.translation.responses.tokens import estimate_tokens

FORMAT = ResponsesFormat()


def test_the_task_is_the_last_turn_and_no_tool_may_be_called() -> None:
    conversation = Conversation("m", [Turn("user", [Text("x")])], is_streaming=True, tools=[Tool("f")])
    request = compaction_request(conversation)
    assert request.turns[:-1] == conversation.turns
    assert request.turns[-1].role == "user"
    assert not request.is_streaming
    assert request.tools == conversation.tools
    assert request.tool_choice == ToolChoice("none")
    assert len(conversation.turns) == 1


def test_a_summary_travels_as_an_item_and_is_read_back() -> None:
    answer = Answer("chatcmpl-1", "m", 5, [Text("The user "), Text("wants x.")])
    made = compacted(answer, write_usage(Usage(9, 3)), "resp_1")
    CompactedResponse.model_validate(made, strict=True)
    (item,) = made["output"]
    assert is_ours(item)
    assert "wants" not in item["encrypted_content"]
    conversation = FORMAT.read_request({"model": "m", "input": [item, {"role": "user", "content": "go on"}]})
    (summary,) = conversation.turns[0].parts
    assert isinstance(summary, Text)
    assert summary.text.endswith("The user wants x.")


def test_a_foreign_compaction_is_dropped_with_notice() -> None:
    item = {"type": "compaction", "encrypted_content": "gAAA"}
    assert not is_ours(item)
    conversation = FORMAT.read_request({"model": "m", "input": [item, {"role": "user", "content": "x"}]})
    assert conversation.turns[0].parts == [Other("compaction", item)]


def test_an_empty_summary_is_a_failure() -> None:
    with pytest.raises(errors.UpstreamBadResponse, match="empty"):
        compacted(Answer("1", "m", 5, [Text(" ")]), {}, "resp_1")


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
