"""Whole answers converted to streams."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.openai import chunks
from sanic_proxy.streams import replay
from tests.support.machine import least_cost
from tests.support.upstream import DONE, completion


def head(*, include_usage: bool = False) -> chunks.ChunkHead:
    return chunks.ChunkHead(id="i", model="m", created=1, include_usage=include_usage)


def deltas(frames: list[bytes]) -> list[dict[str, Any]]:
    chunks = [json.loads(frame[6:]) for frame in frames if frame != DONE]
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


@given(st.text(max_size=1500) | st.text("ab \n", min_size=19, max_size=900))
def test_pieces_join_to_the_text(text: str) -> None:
    pieces = list(replay.pieces(text))
    assert "".join(pieces) == text
    assert all(pieces)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("one", ["one"]),
        ("one two three four five six", ["one two three four ", "five six"]),
        ("one two three four\n\nfive six", ["one two three four\n\n", "five six"]),
        ("one " + "x" * 30 + " two", ["one ", "x" * 30 + " ", "two"]),
        ("x" * 30 + " two three", ["x" * 30 + " ", "two three"]),
        ("x" * 45, ["x" * 20, "x" * 20, "xxxxx"]),
        ("\u6f22" * 30, ["\u6f22" * 20, "\u6f22" * 10]),
        (" " * 50, [" " * 20, " " * 20, " " * 10]),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_pieces_are_divided_after_words(text: str, expected: list[str]) -> None:
    assert list(replay.pieces(text)) == expected


@pytest.mark.parametrize(
    "grapheme",
    [
        "e\u0301",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\U0001f1e9\U0001f1ea",
        "a" + "\u0301" * 60,
        "\r\n",
    ],
    ids=ascii,
)
@pytest.mark.parametrize("offset", range(6))
def test_no_piece_divides_a_grapheme(grapheme: str, offset: int) -> None:
    text = "x" * offset + grapheme * 40
    assert all(
        piece[offset if not index else 0 :].replace(grapheme, "") == ""
        for index, piece in enumerate(replay.pieces(text))
    )


@pytest.mark.parametrize("unit", ["a ", "x", "\u0301", " "])
def test_a_huge_text_comes_in_a_bounded_number_of_pieces(unit: str) -> None:
    text = unit * (2_000_000 // len(unit))
    made = list(replay.pieces(text))
    assert "".join(made) == text
    assert len(made) <= 4000


def test_a_huge_word_is_divided_without_a_search_through_all_of_it() -> None:
    text = "x" * 4_000_000
    assert least_cost(lambda: list(replay.pieces(text)), enough=20) < 20


def test_an_answer_is_sent_in_order() -> None:
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


CALLS = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ({"content": None, "tool_calls": CALLS}, None),
        ({"content": None, "function_call": {"name": "f", "arguments": "{}"}}, None),
        ({"content": "So.", "tool_calls": CALLS}, ""),
        ({"content": "So."}, ""),
        ({"content": None}, ""),
    ],
)
def test_content_is_null_before_calls_without_text(message: dict[str, Any], content: str | None) -> None:
    other = {**completion("x")["choices"][0], "index": 1, "message": message}
    for answer in (
        completion(choices=[{**other, "index": 0}]),
        completion(choices=[other, completion("x")["choices"][0]]),
    ):
        made = [chunk for chunk in chunks_of(replay.stream_of(head(), answer)) if "role" in delta_of(chunk)]
        assert delta_of(made[-1]) == {"role": "assistant", "content": content, "refusal": None}


def chunks_of(stream: bytes) -> list[dict[str, Any]]:
    *frames, done, rest = stream.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    return [json.loads(frame[6:]) for frame in frames]


def delta_of(chunk: dict[str, Any]) -> dict[str, Any]:
    delta: dict[str, Any] = chunk["choices"][0]["delta"]
    return delta


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
def test_a_missing_finish_reason_is_not_invented(reason: str | None) -> None:
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
