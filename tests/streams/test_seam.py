"""What a client has of an answer, and what a later attempt brings behind it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from sanic_proxy import errors
from sanic_proxy.streams import seam as module
from sanic_proxy.streams import sse
from sanic_proxy.streams.filters import ChatStreamFilter, FilterChain
from sanic_proxy.streams.seam import Seam, SentText
from tests.support.upstream import DONE, frame

OPENING = frame({"role": "assistant", "content": ""})
WORDS = [f"word{number:02} " for number in range(12)]


def content(*texts: str) -> list[bytes]:
    return [frame({"content": text}) for text in texts]


def sent(*frames: bytes) -> SentText:
    text = SentText()
    for piece in frames:
        text.note(piece)
    return text


def chunks(frames: bytes) -> list[dict[str, Any]]:
    parsed = (frame.payload for frame in sse.FrameSplitter().feed(frames) if frame.payload != b"[DONE]")
    return [json.loads(payload) for payload in parsed]


def text_of(frames: bytes) -> str:
    deltas = [choice["delta"] for chunk in chunks(frames) for choice in chunk["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


# What has been sent


def test_the_text_and_the_head_of_a_stream_are_known() -> None:
    text = sent(OPENING, *content("Hel", "lo"), b"".join(content(" th", "ere")))
    assert text.can_go_on
    assert text.text == "Hello there"
    assert text.frames == 4
    assert text.head == {"id": "chatcmpl-upstream", "created": 1761655357, "model": "upstream-model"}


def test_frames_are_parsed_while_they_come_once_there_are_many() -> None:
    piece = frame({"content": "x" * 100})
    count = 2 * module.FOLD_BYTES // len(piece)
    assert len(sent(*[piece] * count).text) == 100 * count


@pytest.mark.parametrize(
    "last",
    [
        frame({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]}),
        frame({"function_call": {"name": "f", "arguments": "{"}}),
        frame({"content": "a", "reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}),
        frame({"content": "a", "extra_content": {"google": {"thought_signature": "x"}}}),
        frame({"refusal": "No"}),
        frame({"audio": {"data": "x"}}),
        frame({"content": [{"type": "text", "text": "a"}]}),
        frame({"content": "a"}, "stop"),
        frame(finish="stop"),
        frame({"content": "a"}).replace(b'"index": 0', b'"index": 1'),
        frame({"content": "a"}).replace(b'"finish_reason"', b'"logprobs": {"content": []}, "finish_reason"'),
        DONE,
    ],
    ids=[
        "tool call",
        "function call",
        "signed reasoning",
        "thought signature",
        "refusal",
        "audio",
        "parts",
        "finished with text",
        "finished",
        "second choice",
        "logprobs",
        "done",
    ],
)
def test_no_other_attempt_can_go_on_behind(last: bytes) -> None:
    assert not sent(OPENING, *content("a"), last, *content("b")).can_go_on


@pytest.mark.parametrize(
    "plain",
    [
        frame({"content": None, "tool_calls": [], "refusal": None}),
        frame({"reasoning_content": "Hm"}),
        b'data: {"choices": [], "usage": {"total_tokens": 1}}\n\n',
    ],
)
def test_another_attempt_can_go_on_behind(plain: bytes) -> None:
    assert sent(*content("a"), plain, *content("b")).can_go_on


def test_a_text_that_is_too_long_is_not_kept() -> None:
    piece = frame({"content": "x" * (module.MAX_TEXT_CHARS // 4)})
    assert sent(*[piece] * 4).can_go_on
    long = sent(*[piece] * 4, *content("x"))
    assert not long.can_go_on
    assert long.text == ""


def test_the_usage_of_a_failed_attempt_is_what_it_reported_or_its_frames() -> None:
    text = sent(OPENING, *content("a", "b", "c"))
    text.end_attempt(None)
    assert text.usage == {"completion_tokens": 3, "total_tokens": 3}
    text.note(content("d")[0])
    text.end_attempt({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7})
    assert text.usage == {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}


# What a later attempt brings


def joined(before: Sequence[str], later: Sequence[bytes], *, continues: bool) -> tuple[bytes, Seam]:
    """What the client gets of `later` behind `before`, and the seam."""
    text = sent(OPENING, *content(*before))
    text.end_attempt(None)
    seam = Seam(text, continues=continues)
    return b"".join(seam.feed(piece) for piece in later), seam


OTHER_HEAD: dict[str, Any] = {"id": "other", "created": 5, "model": "other-model"}


def test_a_continuation_follows_under_the_head_of_the_first_stream() -> None:
    later = [
        frame({"role": "assistant", "content": ""}, **OTHER_HEAD),
        frame({"content": "word03"}, **OTHER_HEAD),
        frame(finish="stop", **OTHER_HEAD),
        DONE,
    ]
    frames, seam = joined(WORDS[:3], later, continues=True)
    first, last = chunks(frames)
    assert first["choices"][0] == {"index": 0, "delta": {"content": "word03"}, "finish_reason": None}
    assert last["choices"][0]["finish_reason"] == "stop"
    assert {(chunk["id"], chunk["created"], chunk["model"]) for chunk in (first, last)} == {
        ("chatcmpl-upstream", 1761655357, "upstream-model")
    }
    assert frames.endswith(DONE)
    assert seam.has_content
    assert seam.failure is None


def test_a_repeat_brings_what_is_new() -> None:
    later = [OPENING, *content(*WORDS), frame(finish="stop"), DONE]
    frames, seam = joined(WORDS[:5], later, continues=False)
    assert text_of(frames) == "".join(WORDS[5:])
    assert seam.failure is None


@pytest.mark.parametrize("size", [1, 2, 5, 7, 16, 200])
@pytest.mark.parametrize("cut", [1, 4, 5, 33, 70])
def test_a_repeat_fits_however_it_is_cut(size: int, cut: int) -> None:
    whole = "".join(WORDS)
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    frames, seam = joined([whole[:cut]], [*content(*pieces), frame(finish="stop")], continues=False)
    assert whole[:cut] + text_of(frames) == whole
    assert seam.failure is None


def test_a_repeat_has_no_content_until_it_brings_something_new() -> None:
    text = sent(*content("Hello"))
    seam = Seam(text, continues=False)
    for piece in [OPENING, *content("Hel", "lo"), frame({"reasoning_content": "Hm"})]:
        assert seam.feed(piece) == b""
        assert not seam.has_content
    assert text_of(seam.feed(content(" you")[0])) == " you"
    assert seam.has_content


@pytest.mark.parametrize(
    "later",
    [
        content("Help"),
        content("Hel", "p"),
        [*content("Hel"), frame(finish="stop")],
        [*content("Hel"), DONE],
        [*content("Hel"), frame({"tool_calls": [{"index": 0, "function": {"name": "f"}}]})],
        content("hello"),
    ],
    ids=["another text", "another piece", "shorter", "shorter without reason", "a call", "case"],
)
def test_a_repeat_that_differs_fails_and_shows_nothing(later: list[bytes]) -> None:
    frames, seam = joined(["Hello"], [*later, *content("more"), DONE], continues=False)
    assert isinstance(seam.failure, errors.UpstreamDiverged)
    assert frames == b""
    assert not seam.has_content


def test_a_stream_whose_repeat_differs_is_not_complete() -> None:
    chain = FilterChain(ChatStreamFilter(), Seam(sent(*content("Hello")), continues=False))
    assert chain.feed(b"".join([*content("Hi"), frame(finish="stop"), DONE])) == b""
    assert isinstance(chain.failure, errors.UpstreamDiverged)
    assert not chain.is_done


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("one ", " two", "one two"),
        ("one ", "two", "one two"),
        ("one", " two", "one two"),
        ("one\n\n", "\ntwo", "one\n\ntwo"),
        ("one\n", "\n\ntwo", "one\n\ntwo"),
        ("one ", "\ttwo", "one \ttwo"),
    ],
)
def test_white_space_at_the_seam_comes_once(before: str, after: str, expected: str) -> None:
    frames, _ = joined([before], [*content(after), frame(finish="stop")], continues=True)
    assert before + text_of(frames) == expected


@pytest.mark.parametrize("size", [3, 7, 30])
def test_a_continuation_that_begins_anew_is_taken_as_a_repeat(size: int) -> None:
    whole = "".join(WORDS)
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    frames, seam = joined(WORDS[:6], [*content(*pieces), frame(finish="stop"), DONE], continues=True)
    assert "".join(WORDS[:6]) + text_of(frames) == whole
    assert seam.failure is None


@pytest.mark.parametrize("ending", [frame(finish="stop"), DONE])
def test_a_continuation_that_begins_like_the_answer_is_not_held_for_ever(ending: bytes) -> None:
    frames, seam = joined(WORDS[:6], [*content("word", "00 "), ending], continues=True)
    assert text_of(frames) == "word00 "
    assert seam.has_content
    assert seam.failure is None


def test_the_usage_of_both_attempts_is_added() -> None:
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 2,
        "total_tokens": 11,
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    counted = b"data: " + json.dumps({"id": "x", "choices": [], "usage": usage}).encode() + b"\n\n"
    frames, _ = joined(WORDS[:3], [*content("word03"), frame(finish="stop"), counted], continues=True)
    assert chunks(frames)[-1]["usage"] == {**usage, "completion_tokens": 5, "total_tokens": 14}
    assert chunks(frames)[-1]["id"] == "chatcmpl-upstream"


def test_usage_beside_removed_text_makes_no_frame() -> None:
    later = [
        frame({"content": "Hel"}, usage={"total_tokens": 1}),
        frame({"content": "lo you"}, usage={"total_tokens": 2}),
    ]
    frames, _ = joined(["Hello"], later, continues=False)
    (chunk,) = chunks(frames)
    assert chunk["choices"][0]["delta"] == {"content": " you"}
    assert chunk["usage"] == {"completion_tokens": 1, "total_tokens": 3}


def test_calls_may_follow_the_text() -> None:
    call = {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f"}}]}
    frames, seam = joined(["Hello"], [*content("Hello"), frame(call), DONE], continues=False)
    assert chunks(frames)[0]["choices"][0]["delta"] == call
    assert seam.failure is None


def test_a_stream_that_broke_off_while_it_reasoned_gets_its_whole_text() -> None:
    text = sent(OPENING, frame({"reasoning_content": "Hm"}))
    assert text.can_go_on
    seam = Seam(text, continues=False)
    frames = b"".join(map(seam.feed, [frame({"reasoning_content": "Well"}), *content("Hello"), DONE]))
    assert text_of(frames) == "Hello"
    assert b"Well" not in frames
