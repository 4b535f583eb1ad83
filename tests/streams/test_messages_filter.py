"""Which frames of a provider's Messages stream pass, and when it is complete."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy import errors
from sanic_proxy.streams.messages_filter import MESSAGE_STOP, PING, MessagesStreamFilter
from tests.support.messages import (
    UNHURRIED,
    block,
    call_block,
    frame,
    judged,
    start,
    stop,
    text_block,
    thinking_block,
)

SERVER_CALL = block(3, {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}})
WHOLE = [
    start(input_tokens=5),
    PING,
    *thinking_block(0, "h\u00e4", "\\ud83d"),
    *text_block(1, "Hello ", "w\u00f6rld \U0001f600"),
    *call_block(2, '{"a":', "1}"),
    *SERVER_CALL,
    *stop("tool_use"),
]
STOPPED = WHOLE[:-1]


def fed(*pieces: bytes) -> tuple[bytes, MessagesStreamFilter]:
    stream = MessagesStreamFilter()
    return b"".join(stream.feed(piece) for piece in pieces), stream


# What passes


@pytest.mark.row(12)
@pytest.mark.parametrize("size", [1, 2, 7, 64, 100_000])
def test_a_proper_stream_passes_whole(size: int) -> None:
    data = b"".join(WHOLE)
    out, stream = fed(*(data[i : i + size] for i in range(0, len(data), size)))
    assert out == data
    assert (stream.is_done, stream.failure, stream.dropped_frames) == (True, None, 0)
    assert stream.end() == b""


@UNHURRIED
@given(st.lists(st.integers(0, len(b"".join(WHOLE)))))
def test_a_proper_stream_passes_whole_wherever_it_is_cut(cuts: list[int]) -> None:
    data = b"".join(WHOLE)
    ends = sorted({0, *cuts, len(data)})
    out, stream = fed(*(data[a:b] for a, b in pairwise(ends)))
    assert out == data
    assert stream.is_done
    assert stream.usage == fed(data)[1].usage


def test_whole_frames_are_not_copied() -> None:
    stream = MessagesStreamFilter()
    for piece in [WHOLE[0], b"".join(WHOLE[1:5]), *WHOLE[5:-2], b"".join(WHOLE[-2:])]:
        assert stream.feed(piece) is piece
    assert stream.is_done


@pytest.mark.row(11)
def test_what_follows_the_end_is_dropped() -> None:
    out, stream = fed(b"".join([*WHOLE, frame("ping"), b"data: [DONE]\n\n"]), WHOLE[2])
    assert out == b"".join(WHOLE)
    assert stream.is_done


@pytest.mark.row(13)
@pytest.mark.parametrize(
    "odd",
    [
        b"".join(WHOLE).replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + b"".join(WHOLE),
        b"".join(WHOLE).replace(b"data: ", b"data:"),
        b"\n".join(line for line in b"".join(WHOLE).split(b"\n") if not line.startswith(b"event:")),
        b"".join(WHOLE).replace(b"event: content_block_stop", b"event: message"),
    ],
)
def test_frames_spelled_differently_get_the_usual_form(odd: bytes) -> None:
    out, stream = fed(odd)
    assert out == b"".join(WHOLE)
    assert stream.is_done


@pytest.mark.row(13)
@pytest.mark.parametrize(
    "padding", [b": comment\n\n", b"data: [DONE]\n\n", b"data: ping\n\n", b"\n\n", b"event: x\n\n"]
)
def test_padding_is_dropped_without_being_counted(padding: bytes) -> None:
    out, stream = fed(WHOLE[0] + padding, padding, *WHOLE[1:])
    assert out == b"".join(WHOLE)
    assert stream.dropped_frames == 0


@pytest.mark.row(17)
@pytest.mark.parametrize(
    "event",
    [
        frame("new_event", value=1),
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":"\\ud83d","n":99999999999999999999}}\n\n',
        frame("content_block_delta", index=0, delta={"type": "new_delta", "x": 1}),
        frame("content_block_start", index=9, content_block={"type": "new_block"}),
    ],
)
def test_an_event_that_the_api_may_add_passes_unchanged(event: bytes) -> None:
    out, stream = fed(WHOLE[0], event)
    assert out == WHOLE[0] + event
    assert stream.failure is None


@pytest.mark.row(18)
@pytest.mark.parametrize("foreign", [b"{}", b'{"x":1}', b"[1]", b'{"type":3}'])
def test_a_foreign_object_is_dropped_and_counted(foreign: bytes) -> None:
    out, stream = fed(WHOLE[0], b"data: " + foreign + b"\n\n", *WHOLE[1:])
    assert out == b"".join(WHOLE)
    assert stream.dropped_frames == 1


def test_a_second_head_is_dropped() -> None:
    out, stream = fed(WHOLE[0], WHOLE[0], *WHOLE[1:])
    assert out == b"".join(WHOLE)
    assert stream.dropped_frames == 1
    assert fed(WHOLE[0] + b"data: x\n\n" + WHOLE[1])[0] == WHOLE[0] + WHOLE[1]


# Content, progress, usage


@pytest.mark.parametrize(
    ("piece", "has_content"),
    [
        (start(), False),
        (PING, False),
        (frame("content_block_start", index=0, content_block={"type": "text", "text": ""}), False),
        (thinking_block(0)[0], False),
        (call_block(0)[0], True),
        (SERVER_CALL[0], True),
        (
            frame("content_block_start", index=0, content_block={"type": "redacted_thinking", "data": "x"}),
            True,
        ),
        (text_block(0, "a")[1], True),
        (stop()[0], True),
    ],
)
@pytest.mark.parametrize("is_whole", [True, False])
def test_content(piece: bytes, has_content: bool, is_whole: bool) -> None:
    stream = fed(piece)[1] if is_whole else fed(piece[:9], piece[9:])[1]
    assert stream.has_content is has_content


@pytest.mark.parametrize("usage", [{"cache_read_input_tokens": 4, "cache_creation_input_tokens": 2}, {}])
def test_usage_counts_as_a_chats(usage: dict[str, int]) -> None:
    _, stream = fed(start(input_tokens=5, **usage), *text_block(0, "a"), *stop(output_tokens=9))
    assert stream.usage is not None
    cached, written = usage.get("cache_read_input_tokens", 0), usage.get("cache_creation_input_tokens", 0)
    assert stream.usage["prompt_tokens"] == 5 + cached + written
    assert stream.usage["completion_tokens"] == 9
    assert stream.usage["prompt_tokens_details"] == {"cached_tokens": cached, "cache_write_tokens": written}


def test_later_usage_replaces_what_it_states_alone() -> None:
    last = frame(
        "message_delta",
        delta={"stop_reason": "end_turn"},
        usage={"output_tokens": 9, "input_tokens": None, "output_tokens_details": {"thinking_tokens": 4}},
    )
    _, stream = fed(start(input_tokens=5), *text_block(0, "a"), last)
    assert stream.usage is not None
    assert (stream.usage["prompt_tokens"], stream.usage["completion_tokens"]) == (5, 9)
    assert stream.usage["completion_tokens_details"] == {"reasoning_tokens": 4}


def test_pings_are_no_progress() -> None:
    stream = MessagesStreamFilter()
    assert not stream.has_progress(PING + PING)
    assert stream.has_progress(PING + text_block(0, "event: ping")[1])


# Failures


def failed(*pieces: bytes) -> errors.ProxyError:
    failure = fed(*pieces)[1].failure
    assert failure is not None
    return failure


@pytest.mark.row(19)
@pytest.mark.parametrize(
    ("type_", "kind"),
    [
        ("overloaded_error", errors.UpstreamUnavailable),
        ("rate_limit_error", errors.RateLimited),
        ("api_error", errors.UpstreamError),
        ("invalid_request_error", errors.UpstreamRejected),
    ],
)
@pytest.mark.parametrize("is_joined", [True, False])
def test_an_error_event_ends_the_stream_with_the_providers_words(
    type_: str, kind: type[errors.ProxyError], is_joined: bool
) -> None:
    event = frame("error", error={"type": type_, "message": "Overloaded, it says"})
    pieces = [*WHOLE[:5], event, *WHOLE[5:]]
    out, stream = fed(*([b"".join(pieces)] if is_joined else pieces))
    assert out == b"".join(WHOLE[:5])
    assert isinstance(stream.failure, kind | errors.UpstreamRefusedRequest)
    assert stream.failure.message == "Overloaded, it says"
    assert not stream.is_done


@pytest.mark.row(19)
@pytest.mark.parametrize(
    "event",
    [
        b"event: error\ndata: it broke\n\n",
        b"event: error\ndata: {it broke\n\n",
        b'data: {"error":{"message":"it broke"}}\n\n',
        b'{"error":{"message":"it broke"}}\n\n',
    ],
)
def test_errors_of_other_shapes(event: bytes) -> None:
    assert "it broke" in failed(WHOLE[0], event).message


@pytest.mark.row(15, 16)
@pytest.mark.parametrize(
    "malformed",
    [
        b'event: content_block_delta\ndata: {"type":"content_block_delta",\n\n',
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":"\xff"}\n\n',
        frame("content_block_delta", index=0),
        frame("content_block_delta", index=0, delta="x"),
        frame("content_block_start", index=0, content_block=None),
        frame("message_start"),
        frame("message_delta", delta=None),
    ],
)
def test_a_malformed_frame_is_a_failure_until_the_answer_is_whole(malformed: bytes) -> None:
    assert isinstance(failed(WHOLE[0], malformed), errors.UpstreamBadFrame)
    assert isinstance(failed(WHOLE[0] + WHOLE[2] + malformed), errors.UpstreamBadFrame)
    out, stream = fed(*STOPPED, malformed, WHOLE[-1])
    assert out == b"".join(WHOLE)
    assert (stream.failure, stream.dropped_frames) == (None, 1)


@pytest.mark.parametrize("is_joined", [True, False])
def test_an_empty_answer_is_a_failure(is_joined: bool) -> None:
    pieces = [start(), frame("message_stop")]
    failure = failed(*([b"".join(pieces)] if is_joined else pieces))
    assert failure.code == "upstream_empty_response"


def test_an_answer_without_content_that_has_a_stop_reason_is_one() -> None:
    _, stream = fed(start(), *stop())
    assert (stream.is_done, stream.failure) == (True, None)


@pytest.mark.row(14)
def test_a_frame_without_end_is_a_failure_until_the_answer_is_whole() -> None:
    endless = b"event: content_block_delta\ndata: {" + b" " * (16 * 1024 * 1024)
    assert isinstance(failed(WHOLE[0], endless), errors.FrameTooLarge)
    out, stream = fed(*STOPPED, endless)
    assert out == b"".join(WHOLE)
    assert stream.is_done


@pytest.mark.row(21)
def test_a_whole_message_is_no_stream() -> None:
    assert isinstance(failed(b'{"type":"message","content":[]}\n\n'), errors.UpstreamBadResponse)


# The end of the connection


@pytest.mark.row(9)
@pytest.mark.parametrize("count", range(1, len(STOPPED)))
def test_an_end_before_the_stop_reason_is_a_cut(count: int) -> None:
    _, stream = fed(*WHOLE[:count])
    with pytest.raises(errors.UpstreamDisconnected):
        stream.end()


@pytest.mark.row(10)
def test_an_end_behind_the_stop_reason_completes_the_stream() -> None:
    out, stream = fed(*STOPPED)
    whole = out + stream.end()
    assert whole == b"".join(STOPPED) + MESSAGE_STOP
    assert judged(whole).types == ["thinking", "text", "tool_use", "server_tool_use"]


@pytest.mark.parametrize("lost", [1, 2])
def test_a_last_frame_without_its_blank_line_is_whole(lost: int) -> None:
    out, stream = fed(b"".join(WHOLE)[:-lost])
    assert out + stream.end() == b"".join(WHOLE)


@pytest.mark.row(9)
def test_half_a_frame_is_a_cut() -> None:
    _, stream = fed(b"".join(WHOLE[:5])[:-12])
    with pytest.raises(errors.UpstreamDisconnected):
        stream.end()


@pytest.mark.row(9)
def test_half_a_frame_behind_the_stop_reason_is_not_missed() -> None:
    out, stream = fed(b"".join(WHOLE)[:-10])
    assert out + stream.end() == b"".join(STOPPED) + MESSAGE_STOP


@pytest.mark.row(23)
@pytest.mark.parametrize("body", [b"", b"<html>no</html>", b": comment\n\n"])
def test_an_answer_without_events_is_no_stream(body: bytes) -> None:
    _, stream = fed(body)
    with pytest.raises(errors.UpstreamBadResponse, match="no event stream"):
        stream.end()


@UNHURRIED
@given(
    st.lists(st.sampled_from([*WHOLE, b"data: x\n\n", b"event: error\ndata: {}\n\n", b'data: {"a"\n\n'])),
    st.data(),
)
def test_any_stream_is_judged_alike_wherever_it_is_cut(frames: list[bytes], data: st.DataObject) -> None:
    body = b"".join(frames)
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=8))
    ends = sorted({0, *cuts, len(body)})
    whole, one = fed(body)
    pieces, other = fed(*(body[a:b] for a, b in pairwise(ends)))
    assert pieces == whole
    assert state(other) == state(one)


def state(stream: MessagesStreamFilter) -> tuple[Any, ...]:
    return (
        type(stream.failure),
        stream.is_done,
        stream.has_content,
        json.dumps(stream.usage),
        stream.dropped_frames,
    )


@pytest.mark.parametrize(
    "payload",
    [
        b'{"type":{}}',
        b'{"type":[]}',
        b'{"type":"content_block_start","index":0,"content_block":{"type":{}}}',
        b'{"type":"message_start","message":{"usage":true}}',
    ],
)
def test_odd_types_are_no_fault_of_the_filter(payload: bytes) -> None:
    MessagesStreamFilter().feed(b"event: x\ndata: " + payload + b"\n\n")
