"""Whole answers told as streams."""

from __future__ import annotations

import json
from typing import Any

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
        {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f"}}]},
        {},
    ]
    assert frames[-1] == DONE


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
