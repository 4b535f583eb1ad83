"""Frames, however the network cuts them."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.errors import FrameTooLarge
from sanic_proxy.streams import sse

PLAIN = b'data: {"a":1}\n\ndata:{"b":"\xc3\xbc\xf0\x9f\x98\x80"}\n\ndata: [DONE]\n\n'
ODD = (
    b'\xef\xbb\xbf: hi\r\n\r\ndata: {"a":\r\ndata: 1}\r\n\r\n'
    b'id: 7\r\nevent: error\r\nretry: 1\r\ndata: {"b":2}\r\n\r\n'
    b": ping\n\ndata: x\r\rdata:\n\ndata: [DONE]\n\n"
)


def frames_of(data: bytes, cuts: list[int]) -> list[sse.Frame]:
    splitter = sse.FrameSplitter()
    found = []
    edges = [0, *sorted(cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        found += splitter.feed(data[start:end])
    return found


@pytest.mark.row(12)
@pytest.mark.parametrize("data", [PLAIN, ODD], ids=["plain", "odd"])
def test_every_split_gives_the_same_frames(data: bytes) -> None:
    whole = frames_of(data, [])
    for cut in range(len(data) + 1):
        assert frames_of(data, [cut]) == whole
    assert frames_of(data, list(range(len(data)))) == whole


@given(st.lists(st.integers(0, len(ODD)), max_size=20))
def test_any_number_of_splits_gives_the_same_frames(cuts: list[int]) -> None:
    assert frames_of(ODD, cuts) == frames_of(ODD, [])


def test_plain_frames_keep_their_bytes() -> None:
    assert b"".join(frame.raw for frame in frames_of(PLAIN, [])) == PLAIN


@pytest.mark.row(13)
def test_odd_frames_become_one_data_line() -> None:
    frames = frames_of(ODD, [])
    assert [frame.raw for frame in frames] == [
        b'data: {"a": 1}\n\n',
        b'data: {"b":2}\n\n',
        b"data: x\n\n",
        b"data: [DONE]\n\n",
    ]
    assert frames[1].event == b"error"


@pytest.mark.row(19)
@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b'{"a":1}', [(b'{"a":1}', b"")]),
        (b'{\n  "a": 1\n}', [(b'{   "a": 1 }', b"")]),
        (b"error: no", [(b"no", b"error")]),
        (b'{"a":1}\ndata: x', [(b'{"a":1}', b""), (b"x", b"")]),
        (b"Internal Server Error", []),
        (b"id: 1\nretry: 2", []),
    ],
)
def test_json_and_errors_without_data_are_read(block: bytes, expected: list[tuple[bytes, bytes]]) -> None:
    found = frames_of(block + b"\n\n", [])
    assert [(frame.payload, frame.event) for frame in found] == expected
    assert [frame.raw for frame in found] == [sse.encode(payload) for payload, _ in expected]


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_any_bytes_are_split_the_same_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    inside = [cut for cut in cuts if cut <= len(data)]
    assert frames_of(data, inside) == frames_of(data, [])


def test_the_unfinished_tail_is_pending() -> None:
    splitter = sse.FrameSplitter()
    assert splitter.feed(b"data: a\n\ndata: b") == [sse.Frame(b"data: a\n\n", b"a")]
    assert splitter.pending == b"data: b"


@pytest.mark.row(14)
def test_a_frame_past_the_limit_is_refused() -> None:
    splitter = sse.FrameSplitter()
    for _ in range(16):
        assert splitter.feed(b"x" * 1024 * 1024) == []
    with pytest.raises(FrameTooLarge):
        splitter.feed(b"x")


def test_line_ends_without_end_are_not_kept() -> None:
    splitter = sse.FrameSplitter()
    lines = b"\n" * 100_001
    tracemalloc.start()
    for _ in range(10):
        assert splitter.feed(lines) == []
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept_bytes < len(lines)
    assert splitter.feed(b"data: a\n\n") == [sse.Frame(b"data: a\n\n", b"a")]


def test_encode_makes_one_frame() -> None:
    assert frames_of(sse.encode(b"{}"), []) == [sse.Frame(b"data: {}\n\n", b"{}")]


EVENT = b'event: a\ndata: {"x":"data: y"}\n\n'


@pytest.mark.parametrize(
    ("data", "payloads"),
    [
        (EVENT, [(b"a", b'{"x":"data: y"}')]),
        (EVENT * 3, [(b"a", b'{"x":"data: y"}')] * 3),
        (b"event: \ndata: \n\n" * 2, [(b"", b"")] * 2),
        (b"", None),
        (b"\n\n", None),
        (EVENT[:-1], None),
        (EVENT + b"\n", None),
        (EVENT + EVENT[:-2], None),
        (b"event: a\n\n", None),
        (b"event: a\ndata:{}\n\n", None),
        (b"event: a\nevent: b\n\n", None),
        (b"data: {}\nevent: a\n\n", None),
        (b"event: a\ndata: 1\ndata: 2\n\n", None),
        (b"event: a\r\ndata: 1\n\n", None),
        (b"data: {}\n\n" + EVENT, None),
        (b"data: {}\n\n", None),
        (b": ping\n\n", None),
    ],
)
def test_payloads_of_whole_events(data: bytes, payloads: list[tuple[bytes, bytes]] | None) -> None:
    splitter = sse.FrameSplitter()
    assert splitter.event_payloads(data) == payloads
    splitter.feed(b"x")
    assert splitter.event_payloads(EVENT) is None


@pytest.mark.parametrize(
    "data",
    [
        b"data: {}\n\n",
        b"data: 1\n\ndata: 2\n\n",
        EVENT,
        EVENT + EVENT,
        b"event: a\ndata: \n\nevent: b\ndata: 1\n\n",
    ],
)
def test_whole_frames_are_those_of_feed(data: bytes) -> None:
    assert sse.FrameSplitter().whole_frames(data) == sse.FrameSplitter().feed(data)


@pytest.mark.parametrize(
    "data", [b"data: {}\n", b"data: {}\r\n\r\n", b": ping\n\n", b"\xef\xbb\xbfdata: 1\n\n"]
)
def test_other_bytes_are_left_to_feed(data: bytes) -> None:
    splitter = sse.FrameSplitter()
    assert splitter.whole_frames(data) is None
    assert splitter.feed(data) == sse.FrameSplitter().feed(data)
