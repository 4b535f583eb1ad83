"""The frames of a chat stream as the completion that they amount to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.errors import UpstreamBadResponse
from sanic_proxy.translation.chat.accumulate import CompletionAccumulator
from tests.support.upstream import DONE, frame

USAGE = {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}


def completion_of(*frames: bytes, size: int = 10_000) -> dict[str, Any]:
    collector = CompletionAccumulator()
    data = b"".join(frames) + DONE
    for start in range(0, len(data), size):
        collector.feed(data[start : start + size])
    made: dict[str, Any] = json.loads(collector.body())
    return made


@given(st.integers(1, 400))
def test_texts_grow_and_the_rest_is_that_of_a_whole_answer(size: int) -> None:
    made = completion_of(
        frame({"role": "assistant", "content": "", "refusal": None}, system_fingerprint="fp"),
        frame({"reasoning_content": "Hm"}),
        frame({"reasoning_content": "."}),
        frame({"content": "Hel"}),
        frame({"content": "lo"}, service_tier="default"),
        frame(finish="stop"),
        frame(choices=[], usage=USAGE),
        size=size,
    )
    assert made == {
        "id": "chatcmpl-upstream",
        "object": "chat.completion",
        "created": 1761655357,
        "model": "upstream-model",
        "system_fingerprint": "fp",
        "service_tier": "default",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hello",
                    "refusal": None,
                    "reasoning_content": "Hm.",
                },
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }


def test_calls_grow_by_their_index() -> None:
    def call(index: int, **fields: Any) -> bytes:
        return frame({"tool_calls": [{"index": index, **fields}]})

    made = completion_of(
        frame({"role": "assistant", "content": None}),
        call(0, id="call_1", type="function", function={"name": "f", "arguments": ""}),
        call(0, function={"arguments": '{"a"'}),
        call(1, id="call_2", type="function", function={"name": "g", "arguments": "{"}),
        call(0, id="call_1", function={"name": "f", "arguments": ": 1}"}),
        call(1, function={"name": "", "arguments": "}"}),
        frame(finish="tool_calls"),
    )
    (choice,) = made["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
            {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
    }


def test_choices_are_kept_apart_and_sorted() -> None:
    def chunk(index: int, text: str, finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": {"content": text}, "finish_reason": finish}
        return frame(choices=[choice])

    made = completion_of(chunk(1, "b"), chunk(0, "a"), chunk(1, "B", "stop"), chunk(0, "A", "length"))
    assert [
        (choice["index"], choice["message"]["content"], choice["finish_reason"]) for choice in made["choices"]
    ] == [(0, "aA", "length"), (1, "bB", "stop")]


def test_lists_without_an_index_grow() -> None:
    def chunk(token: str) -> bytes:
        choice = {
            "index": 0,
            "delta": {"content": token, "annotations": [{"type": "url_citation", "url": token}]},
            "logprobs": {"content": [{"token": token, "logprob": -0.5, "bytes": [97]}], "refusal": None},
            "finish_reason": None,
        }
        return frame(choices=[choice])

    (choice,) = completion_of(chunk("a"), chunk("b"), frame(finish="stop"))["choices"]
    assert [entry["token"] for entry in choice["logprobs"]["content"]] == ["a", "b"]
    assert choice["logprobs"]["refusal"] is None
    assert [mark["url"] for mark in choice["message"]["annotations"]] == ["a", "b"]


def test_the_last_value_of_what_does_not_grow_counts() -> None:
    choices = [{"index": 0, "delta": {"content": "a", "flag": flag}} for flag in (False, True)]
    (choice,) = completion_of(*(frame(choices=[choice]) for choice in choices))["choices"]
    assert choice["message"]["flag"] is True
    assert choice["finish_reason"] is None


def test_a_stream_without_choices_is_no_answer() -> None:
    with pytest.raises(UpstreamBadResponse):
        completion_of(frame(choices=[]))


@pytest.mark.parametrize(
    "delta", [None, [], "text", {"content": 1}, {"tool_calls": "x"}, {"tool_calls": [1]}]
)
def test_odd_deltas_do_no_harm(delta: object) -> None:
    choice = {"index": 0, "delta": delta, "finish_reason": "stop"}
    assert len(completion_of(frame(choices=[choice]))["choices"]) == 1
