"""Whole answers told as streams."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.openai import codec
from sanic_proxy.streams import replay
from tests.support.upstream import DONE, completion


def head(*, include_usage: bool = False) -> codec.ChunkHead:
    return codec.ChunkHead(id="i", model="m", created=1, include_usage=include_usage)


def deltas(frames: list[bytes]) -> list[dict[str, Any]]:
    chunks = [json.loads(frame[6:]) for frame in frames if frame != DONE]
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


@given(st.text(max_size=1500) | st.text("ab \n", min_size=190, max_size=900))
def test_pieces_join_to_the_text_and_split_at_white_space(text: str) -> None:
    pieces = list(replay.pieces(text))
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= 200 for piece in pieces)
    assert all(piece[-1].isspace() or len(piece) == 200 for piece in pieces[:-1])


def test_an_answer_is_told_in_order() -> None:
    answer = completion("one two")
    answer["choices"][0]["message"]["reasoning_content"] = "hm"
    answer["choices"][0]["message"]["tool_calls"] = [
        {"id": "c", "type": "function", "function": {"name": "f"}}
    ]
    frames = list(replay.answer_frames(head(), answer))
    assert deltas(frames) == [
        {"reasoning_content": "hm"},
        {"content": "one two"},
        {"tool_calls": [{"id": "c", "type": "function", "function": {"name": "f"}, "index": 0}]},
        {},
    ]
    assert frames[-1] == DONE


def test_nothing_of_a_choice_is_lost() -> None:
    answer = completion("one", system_fingerprint="fp", citations=["https://a"], service_tier=None)
    choice = answer["choices"][0]
    choice["logprobs"] = {"content": [{"token": "one"}]}
    choice["native_finish_reason"] = "STOP"
    choice["message"] |= {"reasoning": "hm", "images": [{"type": "image_url"}], "audio": {"id": "a"}}
    chunks = [json.loads(frame[6:]) for frame in replay.answer_frames(head(), answer) if frame != DONE]
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"reasoning": "hm"},
        {"content": "one"},
        {"images": [{"type": "image_url"}]},
        {"audio": {"id": "a"}},
        {},
    ]
    assert [chunk["choices"][0]["logprobs"] for chunk in chunks if chunk["choices"][0]["logprobs"]] == [
        {"content": [{"token": "one"}]}
    ]
    last = chunks[-1]
    assert (last["system_fingerprint"], last["citations"]) == ("fp", ["https://a"])
    assert last["choices"][0]["native_finish_reason"] == "STOP"


def test_each_choice_is_replayed_under_its_index() -> None:
    one, two = completion("one")["choices"][0], completion("two")["choices"][0]
    answer = completion(choices=[{**two, "index": 1, "finish_reason": "length"}, one])
    frames = [replay.initial_frame(head()), *replay.answer_frames(head(), answer)]
    texts: dict[int, str] = {}
    roles: dict[int, int] = {}
    ends: dict[int, str | None] = {}
    for frame in frames[:-1]:
        (choice,) = json.loads(frame[6:])["choices"]
        index, delta = choice["index"], choice["delta"]
        texts[index] = texts.get(index, "") + (delta.get("content") or "")
        roles[index] = roles.get(index, 0) + ("role" in delta)
        ends[index] = choice["finish_reason"] or ends.get(index)
    assert (texts, roles) == ({0: "one", 1: "two"}, {0: 1, 1: 1})
    assert ends == {0: "stop", 1: "length"}


@pytest.mark.parametrize("reason", [None, "", "null", "none"])
def test_a_missing_finish_reason_is_not_made_up(reason: str | None) -> None:
    answer = completion("one")
    answer["choices"][0]["finish_reason"] = reason
    *frames, done = replay.answer_frames(head(), answer)
    assert [json.loads(frame[6:])["choices"][0]["finish_reason"] for frame in frames] == [None]
    assert done == DONE


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], [{"content": "ab"}]),
        (["a", "b"], [{"content": "ab"}]),
        (
            [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "a"},
            ],
            [{"reasoning_content": "hm"}, {"content": "a"}],
        ),
        (
            [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}, {"type": "x"}],
            [
                {"content": "a"},
                {"images": [{"type": "image_url", "image_url": {}}]},
                {"content_parts": [{"type": "x"}]},
            ],
        ),
        ({"odd": 1}, [{"content": '{"odd":1}'}]),
        (None, []),
    ],
)
def test_content_in_parts_becomes_legal_deltas(content: Any, expected: list[dict[str, Any]]) -> None:
    answer = completion()
    answer["choices"][0]["message"]["content"] = content
    assert deltas(list(replay.answer_frames(head(), answer)))[:-1] == expected


@pytest.mark.parametrize(
    ("choices", "is_replayable"),
    [
        ([{"message": {}}], True),
        ([{"delta": {"content": "a"}}], True),
        ([{"message": {}}, {"text": "x"}], False),
        ([None], False),
    ],
)
def test_a_choice_needs_a_message(choices: list[Any], is_replayable: bool) -> None:
    assert replay.is_replayable({"choices": choices}) is is_replayable


def test_usage_comes_last_when_it_is_wanted() -> None:
    frames = list(replay.answer_frames(head(include_usage=True), completion("x")))
    last = json.loads(frames[-2][6:])
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 11)
    assert json.loads(frames[0][6:])["usage"] is None


def test_a_heartbeat_is_a_chunk_of_its_stream() -> None:
    assert deltas(
        [
            replay.initial_frame(head()),
            replay.heartbeat_frame(head(), ""),
            replay.heartbeat_frame(head(), "\u200b"),
        ]
    ) == [
        {"role": "assistant", "content": "", "refusal": None},
        {},
        {"content": "\u200b"},
    ]
