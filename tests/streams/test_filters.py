"""Which frames of an upstream's stream pass, and when the stream is complete."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk

from sanic_proxy import errors
from sanic_proxy.streams.filters import ChatStreamFilter, SSEFilter
from sanic_proxy.streams.reasoning import ReasoningRenamer
from tests.support.upstream import DONE, frame, text_stream

A = frame({"content": "a"})
ROLE = frame({"role": "assistant", "content": ""})
STOP = frame(finish="stop")
HALF_A_CALL = frame({"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f"}}]})
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def fed(*pieces: bytes) -> tuple[bytes, ChatStreamFilter]:
    stream = ChatStreamFilter()
    return b"".join(stream.feed(piece) for piece in pieces), stream


def event(payload: bytes, name: bytes = b"") -> bytes:
    return (b"event: " + name + b"\n" if name else b"") + b"data: " + payload + b"\n\n"


def choice(index: int, finish: str | None = None, text: str = "a") -> bytes:
    return frame(choices=[{"index": index, "delta": {"content": text}, "finish_reason": finish}])


def chunks_of(frames: bytes) -> list[Any]:
    parts = [part.removeprefix(b"data: ") for part in frames.split(b"\n\n") if part]
    return [json.loads(part) for part in parts if part != b"[DONE]"]


# What passes


@pytest.mark.parametrize("size", [1, 2, 7, 64, 100_000])
def test_a_proper_stream_passes_whole(size: int) -> None:
    data = b"".join(text_stream("Hello ", "wörld"))
    out, stream = fed(*(data[i : i + size] for i in range(0, len(data), size)))
    assert out == data
    assert stream.is_done
    assert stream.end() == b""
    assert stream.dropped_frames == 0


def test_plain_frames_are_not_copied() -> None:
    stream = ChatStreamFilter()
    for data in (A, A + A, HALF_A_CALL, STOP + DONE):
        assert stream.feed(data) is data


def test_what_follows_done_is_dropped() -> None:
    out, stream = fed(*text_stream("a"), frame({"content": "late"}))
    assert stream.is_done
    assert out == b"".join(text_stream("a"))


@pytest.mark.row(17, 18)
@pytest.mark.parametrize(
    "odd",
    [
        b'{"choices":[]}',
        b'{"choices":[],"code":0,"message":"ok"}',
        b'{"choices":[{"delta":null}]}',
        b'{"choices":[null,1,{"index":"x"}]}',
        b'{"choices":[{"x":"\\ud83d","n":99999999999999999999}]}',
        b'{"choices":[{"index":0,"delta":{"content":"x"}}],"code":3,"message":"m","detail":"d","error":null}',
    ],
)
def test_a_frame_that_clients_take_passes_unchanged(odd: bytes) -> None:
    out, stream = fed(event(odd))
    assert out == event(odd)
    assert stream.failure is None


# Rule by rule


@pytest.mark.row(11, 13)
@pytest.mark.parametrize(
    "marker", [b"[DONE]", b"[DONE] ", b" [DONE]", b"  [DONE]  ", b"\t[DONE]", b'"[DONE]"']
)
@pytest.mark.parametrize("is_joined", [True, False])
def test_a_done_marker_ends_the_stream_in_any_surroundings(marker: bytes, is_joined: bool) -> None:
    pieces = [A, STOP, event(marker), A]
    out, stream = fed(*([b"".join(pieces)] if is_joined else pieces))
    assert out == A + STOP + DONE
    assert (stream.is_done, stream.failure) == (True, None)


KEEP_ALIVES = [
    event(b": keepalive"),
    event(b": OPENROUTER PROCESSING"),
    event(b"ping"),
    event(b"Ping "),
    event(b'"ping"'),
    event(b"null"),
    event(b"keep-alive"),
    event(b"{}", b"ping"),
    event(b'{"type":"ping"}', b"ping"),
    event(b"12:00:01", b"heartbeat"),
    b"event: ping\n\n",
    b": comment\n\n",
    b"data:\n\n",
    b"\n\n",
]


@pytest.mark.row(13)
@pytest.mark.parametrize("keep_alive", KEEP_ALIVES)
def test_a_keep_alive_is_dropped_without_being_counted(keep_alive: bytes) -> None:
    out, stream = fed(keep_alive + A, keep_alive, keep_alive + STOP, DONE)
    assert out == A + STOP + DONE
    assert stream.dropped_frames == 0


@pytest.mark.row(18)
@pytest.mark.parametrize(
    "foreign",
    [
        b"{}",
        b'{"choices":null}',
        b'{"id":"x","object":"chat.completion.chunk"}',
        b'{"type":"progress","percent":3}',
        b'{"code":0,"message":"ok"}',
        b'{"message":"queued"}',
        b"[1]",
        b"7",
        b"true",
        b"warming up",
    ],
)
def test_what_is_not_understood_is_dropped_and_counted(foreign: bytes) -> None:
    out, stream = fed(event(foreign), A, event(foreign) + STOP, DONE)
    assert out == A + STOP + DONE
    assert (stream.dropped_frames, stream.failure) == (2, None)


ERRORS: list[tuple[bytes, type[errors.ProxyError], str]] = [
    (event(b'{"error":{"message":"no","type":"t"}}'), errors.UpstreamReportedError, "no"),
    (event(b'{"error":{"message":"no"},"choices":[]}'), errors.UpstreamError, "no"),
    (event(b'{"error":{"message":"no"},"choices":[{"delta":{}}]}'), errors.UpstreamError, "no"),
    (event(b'{"message":"no"}', b"error"), errors.UpstreamError, "no"),
    (event(b"out of memory", b"error"), errors.UpstreamError, "out of memory"),
    (event(b'{"error":{"message":"no","code":429}}'), errors.RateLimited, "no"),
    (event(b'{"error":{"message":"no","code":"invalid_api_key"}}'), errors.UpstreamAuthFailed, ""),
    (event(b'{"object":"error","message":"no","code":500}'), errors.UpstreamError, "no"),
    (event(b'{"object":"error","message":"no","type":"x","code":40303}'), errors.UpstreamError, "no"),
    (event(b'{"code":20012,"message":"no"}'), errors.UpstreamError, "no"),
    (event(b'{"code":"20012","message":"no","data":null}'), errors.UpstreamError, "no"),
    (event(b'{"status":500,"message":"no"}'), errors.UpstreamError, "no"),
    (event(b'{"detail":"no"}'), errors.UpstreamError, "no"),
    (event(b'{"errors":[{"message":"no"}]}'), errors.UpstreamError, ""),
    (event(b'[{"error":{"message":"no","code":429}}]'), errors.ProxyError, "no"),
    (b'{"code":20012,"message":"no"}\n\n', errors.UpstreamError, "no"),
    (b'{\n "code": 20012,\n "message": "no"\n}\n\n', errors.UpstreamError, "no"),
    (b'error: {"message":"no"}\n\n', errors.UpstreamError, "no"),
    (b"error: no\n\n", errors.UpstreamError, "no"),
    (b'{"error":{"message":"no"}}\ndata: [DONE]\n\n', errors.UpstreamError, "no"),
]


@pytest.mark.row(19)
@pytest.mark.parametrize(("bad", "kind", "text"), ERRORS)
def test_an_error_ends_the_stream_after_the_good_frames(
    bad: bytes, kind: type[errors.ProxyError], text: str
) -> None:
    out, stream = fed(A + bad + A, DONE)
    assert out == A
    assert isinstance(stream.failure, kind)
    assert text in stream.failure.message
    before, first = fed(bad)
    assert (before, type(first.failure)) == (b"", type(stream.failure))


@pytest.mark.row(9, 19)
@pytest.mark.parametrize("bad", [b'{"code":20012,"message":"no"}', b'error: {"message":"no"}'])
def test_an_error_without_its_blank_line_is_read_at_the_end(bad: bytes) -> None:
    stream = fed(A, bad)[1]
    with pytest.raises(errors.UpstreamError, match="no"):
        stream.end()


@pytest.mark.row(15, 16)
@pytest.mark.parametrize(
    "bad",
    [
        b"{",
        b'{"choices":[{"delta":{"con',
        b'{"choices":[],"x":NaN}',
        b'{"choices":["\xff"]}',
        b'[{"choices":[{"delta":{"content":"x"}}]}]',
    ],
)
def test_a_malformed_frame_is_a_failure_until_the_answer_is_complete(bad: bytes) -> None:
    out, stream = fed(A + event(bad) + A)
    assert out == A
    assert isinstance(stream.failure, errors.UpstreamBadFrame)
    out, stream = fed(A + STOP + event(bad) + frame(usage=USAGE, choices=[]) + DONE)
    assert out == A + STOP + frame(usage=USAGE, choices=[]) + DONE
    assert (stream.failure, stream.dropped_frames) == (None, 1)


def skipping(*pieces: bytes) -> tuple[bytes, ChatStreamFilter]:
    stream = ChatStreamFilter()
    stream.skip_malformed()
    return b"".join(stream.feed(piece) for piece in pieces), stream


BAD = b'{"choices":[{"delta":{"con'


@pytest.mark.row(16)
def test_malformed_frames_can_be_skipped_and_are_counted() -> None:
    out, stream = skipping(ROLE + event(BAD), A, event(b"{") + A, STOP + DONE)
    assert out == ROLE + A + A + STOP + DONE
    assert (stream.failure, stream.dropped_frames, stream.is_done) == (None, 2, True)


@pytest.mark.parametrize(
    "before",
    [HALF_A_CALL, A + HALF_A_CALL, HALF_A_CALL.replace(b'"index": 0, "id": "c"', b'"index": 0')],
    ids=["plain", "behind text", "incomplete"],
)
def test_no_malformed_frame_is_skipped_in_a_stream_with_calls(before: bytes) -> None:
    out, stream = skipping(before, event(BAD), A)
    assert out
    assert isinstance(stream.failure, errors.UpstreamBadFrame)


@pytest.mark.parametrize("name", [b"tool_calls", b"function_call"])
def test_no_malformed_frame_of_a_call_is_skipped(name: bytes) -> None:
    _, stream = skipping(A, event(b'{"choices":[{"delta":{"%b":[{"ind' % name))
    assert isinstance(stream.failure, errors.UpstreamBadFrame)


def test_a_connection_that_ends_inside_a_frame_is_a_cut_where_malformed_frames_are_skipped() -> None:
    _, stream = skipping(A, b"data: " + BAD)
    with pytest.raises(errors.UpstreamDisconnected):
        stream.end()


@pytest.mark.row(14)
@pytest.mark.parametrize("is_finished", [True, False])
def test_a_frame_without_end_is_a_failure_until_the_answer_is_complete(is_finished: bool) -> None:
    out, stream = fed(A, STOP if is_finished else A, *[b"x" * 1024 * 1024] * 17)
    assert stream.is_done == is_finished
    assert isinstance(stream.failure, errors.FrameTooLarge) != is_finished
    assert out.endswith(DONE) == is_finished


# Usage


@pytest.mark.row(38)
@pytest.mark.parametrize("fields", [{}, {"choices": None}, {"choices": []}])
@pytest.mark.parametrize("is_wanted", [True, False])
def test_usage_without_choices_passes_where_it_is_wanted(fields: dict[str, Any], is_wanted: bool) -> None:
    stream = ChatStreamFilter(include_usage=is_wanted)
    stream.feed(A + STOP)
    data = event(json.dumps({"usage": USAGE, "x": 1, **fields}).encode())
    out = stream.feed(data) + stream.feed(DONE)
    assert stream.usage == USAGE
    assert stream.dropped_frames == 0
    if "choices" in fields and fields["choices"] == []:
        assert out == data + DONE
    elif is_wanted:
        (chunk,) = chunks_of(out)
        assert (chunk["choices"], chunk["usage"], chunk["x"]) == ([], USAGE, 1)
        ChatCompletionChunk.model_validate(chunk)
        assert chunk["id"] == "chatcmpl-upstream"
    else:
        assert out == DONE


# The end


@pytest.mark.row(9)
def test_a_cut_at_any_byte_before_the_finish_is_no_end() -> None:
    data = b"".join(text_stream("a")[:-2])
    for end in range(len(data)):
        with pytest.raises(errors.UpstreamError):
            fed(data[:end])[1].end()


NO_REASONS = [None, "", " ", "null", "None", "NONE", False]


@pytest.mark.row(9)
@pytest.mark.parametrize("reason", NO_REASONS)
@pytest.mark.parametrize("content", [A, HALF_A_CALL])
def test_what_is_no_finish_reason_ends_nothing(reason: Any, content: bytes) -> None:
    delta = json.loads(content[6:])["choices"][0]["delta"]
    piece = frame(choices=[{"index": 0, "delta": delta, "finish_reason": reason}])
    out, stream = fed(piece, piece)
    assert out == piece + piece
    assert not stream.is_complete
    with pytest.raises(errors.UpstreamDisconnected):
        stream.end()
    assert fed(piece, DONE)[1].is_done


@pytest.mark.row(10)
@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "STOP", "eos", "end_turn", "abort"])
def test_any_other_finish_reason_ends_its_choice_and_passes_unchanged(reason: str) -> None:
    out, stream = fed(A, frame(finish=reason))
    assert out == A + frame(finish=reason)
    assert stream.end() == DONE


@pytest.mark.row(19)
@pytest.mark.parametrize("reason", ["error", "ERROR"])
def test_the_finish_reason_error_is_a_failure(reason: str) -> None:
    out, stream = fed(A, frame(finish=reason), DONE)
    assert out == A
    assert isinstance(stream.failure, errors.UpstreamError)
    assert stream.failure.status >= 500
    choice_with_error = {
        "index": 0,
        "delta": {},
        "finish_reason": reason,
        "error": {"code": 429, "message": "slow down"},
    }
    assert isinstance(fed(A, frame(choices=[choice_with_error]))[1].failure, errors.RateLimited)


@pytest.mark.parametrize(
    ("pieces", "is_whole"),
    [
        ([choice(0), choice(1), choice(0, "stop")], False),
        ([choice(0), choice(1), choice(1, "stop"), choice(0, "stop")], True),
        ([choice(0), choice(1, text=""), choice(0, "stop")], False),
        ([choice(0, "stop"), choice(1)], False),
    ],
)
def test_each_of_several_choices_has_its_own_end(pieces: list[bytes], is_whole: bool) -> None:
    stream = fed(*pieces)[1]
    assert stream.is_complete == is_whole
    if is_whole:
        assert stream.end() == DONE
    else:
        with pytest.raises(errors.UpstreamDisconnected):
            stream.end()


@pytest.mark.row(10)
@pytest.mark.parametrize(
    ("tail", "rest"),
    [
        (STOP[:-2], STOP + DONE),
        (STOP + b"data: [DONE]", DONE),
        (STOP + b"data: [DO", DONE),
        (STOP + b'data: {"choices":[],"usa', DONE),
        (STOP + b"upstream connect error", DONE),
    ],
)
def test_behind_a_finish_reason_half_a_frame_is_no_cut(tail: bytes, rest: bytes) -> None:
    assert fed(A, tail)[1].end() == rest


@pytest.mark.row(23)
@pytest.mark.parametrize(
    "pieces",
    [
        [DONE],
        [ROLE, DONE],
        [ROLE + DONE],
        [frame(choices=[]), DONE],
        [frame(choices=[{"index": 0, "delta": {"content": None}, "finish_reason": None}]), DONE],
        [frame(finish=""), DONE],
        [frame({"role": "assistant", "tool_calls": []}, "null"), event(b"[DONE] ")],
        [b": ping\n\n", event(b"{}"), DONE],
    ],
)
def test_an_empty_answer_is_a_failure(pieces: list[bytes]) -> None:
    out, stream = fed(*pieces)
    assert isinstance(stream.failure, errors.UpstreamBadResponse)
    assert stream.failure.code == "upstream_empty_response"
    assert DONE not in out
    assert not stream.has_content


@pytest.mark.row(23)
@pytest.mark.parametrize("data", [b"<html>", b"", b"Internal Server Error\n\n"])
def test_no_event_stream_at_all_is_a_bad_response(data: bytes) -> None:
    with pytest.raises(errors.UpstreamBadResponse):
        fed(data)[1].end()


@pytest.mark.parametrize("make", [choice, lambda n: frame({"tool_calls": [{"index": n, "id": f"c{n}"}]})])
def test_what_is_remembered_of_a_stream_is_bounded(make: Any) -> None:
    stream = ChatStreamFilter()
    for number in range(10_000):
        stream.feed(make(number))
    assert isinstance(stream.failure, errors.UpstreamBadFrame)


# Content and progress

CONTENT: list[Any] = [
    {"content": "a"},
    {"reasoning_content": "a"},
    {"reasoning": "a"},
    {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]},
    {"function_call": {"name": "f"}},
    {"refusal": "no"},
    {"audio": {"id": "x"}},
]
EMPTY: list[Any] = [
    {},
    None,
    {"role": "assistant", "content": ""},
    {"content": None, "refusal": None, "tool_calls": []},
]


@pytest.mark.parametrize(
    ("piece", "is_content"),
    [
        *((frame(delta), True) for delta in CONTENT),
        *((frame(choices=[{"index": 0, "delta": delta}]), False) for delta in EMPTY),
        (STOP, True),
        (frame(finish="null"), False),
        (frame(choices=[{"index": 0, "text": "a", "finish_reason": None}]), True),
        (frame(choices=[]), False),
        (frame(choices=[None, {"delta": None}]), False),
        (ROLE + A, True),
        (b"data: {}\n\n: ping\n\n", False),
    ],
)
def test_content_is_what_a_reader_waits_for(piece: bytes, is_content: bool) -> None:
    out, stream = fed(piece)
    assert stream.has_content is is_content
    assert stream.has_progress(out) is is_content


def test_done_is_progress() -> None:
    assert ChatStreamFilter().has_progress(DONE)


# Reasoning under one name


def test_reasoning_is_renamed_where_the_provider_is_configured_so() -> None:
    stream = ChatStreamFilter(reasoning=ReasoningRenamer())
    pieces = [frame({"reasoning": "hm"}), A, frame({"content": "<th"}), STOP, DONE]
    out = stream.feed(b"".join(pieces))
    assert [chunk["choices"][0]["delta"] for chunk in chunks_of(out)] == [
        {"reasoning_content": "hm"}, {"content": "a"}, {"content": "<th"}, {}
    ]  # fmt: skip
    assert A in out
    assert out.endswith(DONE)


def test_text_held_back_is_sent_before_done() -> None:
    stream = ChatStreamFilter(reasoning=ReasoningRenamer())
    out = stream.feed(frame({"content": "<think>a</th"}) + DONE)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks_of(out)]
    assert deltas == [{"reasoning_content": "a"}, {"reasoning_content": "</th"}]
    assert out.endswith(DONE)


# Frames are judged the same however the network cuts them

PARTS = st.sampled_from(
    [
        A,
        ROLE,
        STOP,
        choice(1),
        frame(finish=""),
        frame(finish="error"),
        frame(usage=USAGE),
        DONE,
        b"data: [DONE] \n\n",
        b'data: {"choices":[]}\n\n',
        b"data: {}\n\n",
        b'data: {"usage":{"a":1}}\n\n',
        b'data:{"choices":[]}\n\n',
        b'data: {"choices":[1,{"finish_reason":"length"}],"usage":{"a":1}}\n\n',
        b'data: {"error":{"message":"no"}}\n\n',
        b'event: error\ndata: {"message":"no"}\n\n',
        b'error: {"message":"no"}\n\n',
        b'{"code":1,"message":"no"}\n\n',
        b"data: {nope}\n\n",
        b"data: [1]\n\n",
        b"data: ping\n\n",
        HALF_A_CALL,
        b'data: {"choices":\ndata: []}\n\n',
        b"data: \n\n",
        b"data: \xff\n\n",
        b": ping\n\n",
        b"\n",
        b"\r\n",
        b"data: ",
        b"id: 1\n",
        b"\xef\xbb\xbf",
    ]
)


def seen(stream: ChatStreamFilter, out: bytes) -> tuple[object, ...]:
    state = stream.is_done, stream.is_complete, stream.has_content, stream.dropped_frames, stream.usage
    return out, type(stream.failure), *state


@pytest.mark.row(12)
@given(st.lists(PARTS, max_size=8))
def test_a_stream_is_judged_the_same_however_it_is_cut(parts: list[bytes]) -> None:
    data = b"".join(parts)
    whole, part_by_part, byte_by_byte = ChatStreamFilter(), ChatStreamFilter(), ChatStreamFilter()
    out = whole.feed(data)
    assert seen(part_by_part, b"".join(map(part_by_part.feed, parts))) == seen(whole, out)
    pieces = (data[i : i + 1] for i in range(len(data)))
    assert seen(byte_by_byte, b"".join(map(byte_by_byte.feed, pieces))) == seen(whole, out)


# Event streams of other dialects


@pytest.mark.parametrize(
    ("data", "is_whole"),
    [
        (b'data: {"type":"a.done"}\n\n: bye\n\n', True),
        (b"data: [DONE]\n\n", True),
        (b'data: {"type":"a.delta","delta":"write [DONE] and"}\n\n', False),
        (b'data: {"type":"a.delta"}\n\n', False),
        (b"", False),
    ],
)
def test_without_length_only_an_event_ends_a_stream(data: bytes, is_whole: bool) -> None:
    stream = SSEFilter(has_length=False)
    assert stream.feed(data) == data
    if is_whole:
        assert stream.end() == b""
    else:
        with pytest.raises(errors.UpstreamDisconnected):
            stream.end()


@pytest.mark.parametrize("mark", [b"\n\n", b"\r\n\r\n", b"\r\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_half_an_event_waits(mark: bytes, size: int) -> None:
    data = mark.join([b'data: {"type":"a.delta"}', b"data: more", b"data: half"])
    stream = SSEFilter(has_length=True)
    out = b"".join(stream.feed(data[i : i + size]) for i in range(0, len(data), size))
    assert out == data.removesuffix(b"data: half")
    assert stream.end() == b"data: half\n\n"


@pytest.mark.row(19, 20)
@pytest.mark.parametrize(
    "bad",
    [
        event(b'{"error":{"message":"no","code":429}}'),
        event(b'{"code":20012,"message":"no"}'),
        event(b'{"object":"error","message":"no"}'),
        b'{"code":20012,"message":"no"}',
        b'error: {"error":{"message":"no"}}\n\n',
        b"error: no\n\n",
        b'event: error\ndata: {"message":"no"}\n\n',
    ],
)
def test_an_error_as_the_first_event_is_a_failure(bad: bytes) -> None:
    stream = SSEFilter(has_length=True)
    assert stream.feed(bad) == b""
    if stream.failure is None:
        with pytest.raises(errors.ProxyError, match="no"):
            stream.end()
    else:
        assert stream.failure.message == "no"


@pytest.mark.row(19)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_usage_in_events_of_any_endpoint_is_counted(size: int) -> None:
    stream = SSEFilter(has_length=True)
    done = (
        b'data: {"type":"transcript.text.done","text":"a","usage":{"input_tokens":14,"output_tokens":45}}\n\n'
    )
    data = b'data: {"type":"transcript.text.delta","delta":"a"}\n\n' + done + b'data: "usage"\n\n'
    passed = b"".join(stream.feed(data[at : at + size]) for at in range(0, len(data), size))
    assert passed == data
    assert stream.usage == {"input_tokens": 14, "output_tokens": 45}


def test_a_later_error_event_is_a_failure_behind_the_good_ones() -> None:
    good = event(b'{"type":"a.delta","delta":"an \\"error\\" in a text"}')
    stream = SSEFilter(has_length=True)
    assert stream.feed(good) == good
    assert stream.feed(good + event(b'{"error":{"message":"no"}}') + good) == good
    assert stream.failure is not None
    assert stream.feed(good) == b""


# Time


@pytest.mark.parametrize(
    "make", [ChatStreamFilter, lambda: SSEFilter(has_length=True)], ids=["chat", "events"]
)
def test_a_large_frame_in_small_pieces_takes_linear_time(make: Any) -> None:
    """Four times the pieces may take eight times as long; with a copy of all that came it is sixteen."""

    def took_s(count: int) -> float:
        stream = make()
        began = time.process_time()
        for _ in range(count):
            stream.feed(b"x" * 512)
        return time.process_time() - began

    took_s(100)
    assert min(took_s(24_000) for _ in range(3)) < 8 * min(took_s(6_000) for _ in range(3)) + 0.05
