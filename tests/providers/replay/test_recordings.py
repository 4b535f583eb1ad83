"""Which captured answer a request gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sanic_proxy.errors import ModelNotFound
from sanic_proxy.providers.replay.recordings import Recordings, as_events, recording_of


def line(model: str, digest: str, text: str, *, stream: bool = False) -> str:
    answer = {"frames": [[5.0, text]]} if stream else {"body": text}
    fields = {"dialect": "chat", "model": model, "digest": digest, "stream": stream, "ended": "complete"}
    return json.dumps({**fields, **answer})


@pytest.fixture
def recordings(tmp_path: Path) -> Recordings:
    path = tmp_path / "captures"
    lines = [
        *(line("m", "a", "a1"), "no json", line("m", "b", "b1"), line("m", "a", "a2"), "[1]", '{"x":1}'),
        *(line("m", "a", "streamed", stream=True), line("other", "", "o")),
    ]
    path.write_text("\n".join(lines))
    return Recordings(path)


def texts(recordings: Recordings, digest: str, times: int) -> list[str]:
    found = [recordings.find("chat", "m", digest, is_streaming=False) for _ in range(times)]
    return [recording.frames[0][1].decode() for recording in found]


def test_equal_requests_get_their_answers_in_turn(recordings: Recordings) -> None:
    assert texts(recordings, "a", 3) == ["a1", "a2", "a1"]
    assert texts(recordings, "b", 2) == ["b1", "b1"]


def test_other_requests_get_those_of_the_model_in_turn(recordings: Recordings) -> None:
    assert texts(recordings, "?", 4) == ["a1", "b1", "a2", "a1"]
    assert recordings.models == ["m", "other"]
    assert recordings.find("chat", "m", "?", is_streaming=True).frames == ((0.005, b"streamed"),)


@pytest.mark.parametrize(("dialect", "model"), [("messages", "m"), ("chat", "x")])
def test_what_was_not_captured_is_not_found(recordings: Recordings, dialect: str, model: str) -> None:
    with pytest.raises(ModelNotFound, match=r"captured: m \(chat, whole\), m \(chat, streamed\)"):
        recordings.find(dialect, model, "a", is_streaming=False)


def test_an_answer_without_its_end_is_not_complete() -> None:
    assert recording_of({"body": "x", "ended": "complete"}).is_complete
    assert not recording_of({"body": "x", "ended": "complete", "cut": True}).is_complete
    assert not recording_of({"frames": None, "ended": "upstream_stalled", "status": 504}).is_complete


@pytest.mark.parametrize(
    ("piece", "events"),
    [
        ('[{"a": 1}', 'data: {"a":1}\n\n'),
        (',\n{"a": "]"},\n{"b": [2]}', 'data: {"a":"]"}\n\ndata: {"b":[2]}\n\n'),
        (',\n{"a": [1]}]', 'data: {"a":[1]}\n\n'),
        ("]", ""),
        ("[]", ""),
        ('data: {"a": 1}\n\n', 'data: {"a": 1}\n\n'),
    ],
)
def test_elements_of_an_array_become_events(piece: str, events: str) -> None:
    assert as_events(piece) == events
