"""Whole answers: chat completions <-> the middle shape."""

from __future__ import annotations

from typing import Any

import pytest

from sanic_proxy.errors import UpstreamBadResponse
from sanic_proxy.translation.conversation import (
    Answer,
    FinishReason,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    Usage,
)
from sanic_proxy.translation.signatures import wrapped
from tests.support.chat_translation import ASKED, CHAT

CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def read(message: dict[str, Any], finish: Any = "stop", **fields: Any) -> Answer:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return CHAT.read_answer({"id": "x", "model": "m", "created": 1, "choices": [choice], **fields})


MESSAGES: list[tuple[dict[str, Any], list[Part]]] = [
    ({"content": "hi"}, [Text("hi")]),
    ({"content": None}, []),
    ({"content": [{"type": "text", "text": "a"}, "b", 3]}, [Text("a"), Text("b")]),
    (
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "a"},
            ]
        },
        [Reasoning("hm"), Text("a")],
    ),
    ({"content": None, "refusal": "no"}, [Refusal("no")]),
    ({"reasoning_content": "hm", "content": "a"}, [Reasoning("hm", "reasoning_content"), Text("a")]),
    ({"reasoning": "hm", "content": "a"}, [Reasoning("hm", "reasoning"), Text("a")]),
    ({"reasoning_text": "hm", "content": ""}, [Reasoning("hm", "reasoning_text")]),
    (
        {
            "reasoning": "hm",
            "reasoning_details": [
                {"type": "reasoning.text", "text": "hm", "signature": "s", "index": 0, "id": None},
                {"type": "reasoning.encrypted", "data": "d", "index": 1},
            ],
        },
        [
            Reasoning("hm", '{"type":"reasoning.text","signature":"s","index":0}'),
            Reasoning("", '{"type":"reasoning.encrypted","data":"d","index":1}', is_redacted=True),
        ],
    ),
    (
        {
            "content": "",
            "tool_calls": [CALL, {"id": "b", "type": "custom", "custom": {"name": "c", "input": "x"}}],
        },
        [ToolCall("a", "f", "{}"), ToolCall("b", "c", "x", "custom")],
    ),
    (
        {"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}]},
        [ToolCall("a", "f", '{"x":1}')],
    ),
    ({"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": None}}]}, [ToolCall("a", "f", "")]),
]


@pytest.mark.parametrize(("message", "parts"), MESSAGES)
def test_parts(message: dict[str, Any], parts: list[Part]) -> None:
    assert read(message).parts == parts


def test_calls_without_an_id_get_the_same_one_each_time() -> None:
    messages: list[dict[str, Any]] = [
        {"function_call": {"name": "f", "arguments": "{}"}},
        {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
    ]
    for message in messages:
        answer = read(message, "function_call")
        assert answer == read(message, "function_call")
        assert answer.finish == "tool_calls"
        (call,) = answer.parts
        assert isinstance(call, ToolCall)
        assert call.id.startswith("call_")


def test_annotations_are_flat_in_the_middle_shape() -> None:
    nested = {"type": "url_citation", "url_citation": {"url": "https://a", "start_index": 0}}
    answer = read({"content": "x", "annotations": [nested]})
    flat = {"type": "url_citation", "url": "https://a", "start_index": 0}
    assert answer.parts == [Text("x", annotations=[flat])]
    assert CHAT.write_answer(answer, ASKED)["choices"][0]["message"]["annotations"] == [nested]


@pytest.mark.parametrize(
    ("reason", "message", "finish"),
    [
        ("stop", {"content": "x"}, "stop"),
        (None, {"content": "x"}, "stop"),
        ("", {"content": "x"}, "stop"),
        ("eos", {"content": "x"}, "stop"),
        ("STOP", {"content": "x"}, "stop"),
        ("length", {"content": "x"}, "length"),
        ("max_tokens", {"content": "x"}, "length"),
        ("length", {"tool_calls": [CALL]}, "length"),
        ("content_filter", {"content": ""}, "content_filter"),
        ("stop", {"tool_calls": [CALL]}, "tool_calls"),
        (None, {"tool_calls": [CALL]}, "tool_calls"),
        ("tool_calls", {"content": "x"}, "stop"),
        ("stop", {"refusal": "no"}, "refusal"),
    ],
)
def test_how_an_answer_ended(reason: Any, message: dict[str, Any], finish: FinishReason) -> None:
    assert read(message, reason).finish == finish


def test_the_stop_sequence_of_vllm() -> None:
    choice = {"index": 0, "message": {"content": "x"}, "finish_reason": "stop", "stop_reason": "END"}
    answer = CHAT.read_answer({"choices": [choice]})
    assert (answer.finish, answer.stop_sequence) == ("stop_sequence", "END")
    written = CHAT.write_answer(answer, ASKED)["choices"][0]
    assert (written["finish_reason"], written["stop_reason"]) == ("stop", "END")


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "total_tokens": 14,
                "prompt_tokens_details": {"cached_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
            Usage(9, 5, 4, 0, 2),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 5, "prompt_cache_hit_tokens": 4}, Usage(9, 5, 4)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "cached_tokens": 4}, Usage(9, 5, 4)),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "total_tokens": 16,
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
            Usage(9, 7, 0, 0, 2),
        ),
        ({"prompt_tokens": "9", "completion_tokens": None}, Usage()),
        (None, None),
        ([], None),
    ],
)
def test_usage(usage: Any, expected: Usage | None) -> None:
    assert read({"content": "x"}, usage=usage).usage == expected


def test_the_first_choice_counts() -> None:
    choices = [
        {"index": 1, "message": {"content": "b"}},
        {"index": 0, "message": {"content": "a"}},
    ]
    assert CHAT.read_answer({"choices": choices}).parts == [Text("a")]
    assert CHAT.read_answer({"choices": [{"delta": {"content": "a"}}]}).parts == [Text("a")]


@pytest.mark.parametrize("choices", [None, [], {}, [1], [{}], [{"message": None}], [{"message": "x"}]])
def test_an_answer_without_a_message_is_bad(choices: Any) -> None:
    with pytest.raises(UpstreamBadResponse):
        CHAT.read_answer({"choices": choices})


# Writing.


def write(*parts: Part, **fields: Any) -> dict[str, Any]:
    return CHAT.write_answer(Answer("msg_1", "claude", 1, list(parts), **fields), ASKED)


def message_of(*parts: Part) -> dict[str, Any]:
    made: dict[str, Any] = write(*parts)["choices"][0]["message"]
    return made


def test_a_whole_answer() -> None:
    assert write(Text("hi"), usage=Usage(9, 5, 4, 3, 2)) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "claude",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hi", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 9,
            "completion_tokens": 5,
            "total_tokens": 14,
            "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
    }


def test_contents() -> None:
    call = ToolCall("a", "f", "")
    assert message_of()["content"] == ""
    assert message_of(call)["content"] is None
    assert message_of(Refusal("no"))["content"] is None
    assert message_of(Text("a"), Text("b"), call, Text("c"))["content"] == "ab\n\nc"


def test_calls() -> None:
    calls = [
        ToolCall("a", "f", ""),
        ToolCall("b", "g", '{"x": ', namespace="ns"),
        ToolCall("c", "h", "raw", "custom"),
    ]
    assert message_of(*calls)["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "b", "type": "function", "function": {"name": "ns__g", "arguments": '{"x": '}},
        {"id": "c", "type": "custom", "custom": {"name": "h", "input": "raw"}},
    ]


def test_reasoning_and_its_signatures() -> None:
    message = message_of(
        Reasoning("one", "s1", "claude"),
        Reasoning("", "s2", "claude", is_redacted=True),
        Reasoning("two", "s3", "gpt", is_summary=True, id="rs_1"),
        Reasoning("three"),
        Text("a"),
    )
    assert message["reasoning_content"] == "one\n\ntwo\n\nthree"
    assert message["reasoning_details"] == [
        {"type": "reasoning.text", "index": 0, "text": "one", "signature": wrapped("claude", "s1")},
        {"type": "reasoning.encrypted", "index": 1, "data": wrapped("claude", "s2")},
        {
            "type": "reasoning.summary",
            "index": 2,
            "summary": "two",
            "signature": wrapped("gpt", "s3"),
            "id": "rs_1",
        },
    ]


def test_signatures_come_back_with_the_history() -> None:
    parts: list[Part] = [
        Reasoning("one", "s1", "claude"),
        Reasoning("", "s2", "claude", is_redacted=True),
        Reasoning("two", "s3", "gpt", is_summary=True, id="rs_1"),
        Text("a"),
    ]
    request = {"model": "m", "messages": [message_of(*parts)]}
    assert CHAT.read_request(request).turns[0].parts == parts


@pytest.mark.parametrize(
    ("finish", "parts", "reason"),
    [
        ("stop", [Text("x")], "stop"),
        ("stop_sequence", [Text("x")], "stop"),
        ("length", [Text("x")], "length"),
        ("tool_calls", [ToolCall("a", "f", "{}")], "tool_calls"),
        ("stop", [ToolCall("a", "f", "{}")], "tool_calls"),
        ("tool_calls", [Text("x")], "stop"),
        ("length", [ToolCall("a", "f", "{}")], "length"),
        ("content_filter", [], "content_filter"),
        ("refusal", [], "content_filter"),
        ("refusal", [Refusal("no")], "stop"),
        ("pause", [Text("x")], "length"),
        ("context_window", [Text("x")], "length"),
    ],
)
def test_finish_reasons(finish: FinishReason, parts: list[Part], reason: str) -> None:
    assert write(*parts, finish=finish)["choices"][0]["finish_reason"] == reason


def test_ids_are_derived_from_the_answers() -> None:
    ids = ["msg_01A", "resp_01A", "gen-01A", "chatcmpl-01A", "01A"]
    made = [CHAT.write_answer(Answer(id_, "m", 1, []), ASKED)["id"] for id_ in ids]
    assert set(made) == {"chatcmpl-01A"}
    assert CHAT.write_answer(Answer("", "", 0, []), ASKED)["id"].startswith("chatcmpl-")
    assert CHAT.write_answer(Answer("", "", 0, []), ASKED)["model"] == ASKED.model
