"""What the load test takes for a whole stream, and what for a cut one."""

from __future__ import annotations

import json

import pytest

from loadtest.sse_meter import StreamMeter, StreamReport


def frame(delta: dict[str, object]) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"


ROLE = frame({"role": "assistant", "content": ""})
TOKEN = frame({"content": "x"})
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"Gone","type":"server_error","param":null,"code":"gone"}}\n\n'


def judged(stream: bytes, broken_by: str = "") -> StreamReport:
    """The report on `stream`, whose lines come one second apart."""
    meter = StreamMeter()
    for second, line in enumerate(stream.splitlines(keepends=True)):
        meter.feed(line, float(second))
    return meter.report(broken_by)


@pytest.mark.parametrize(
    "stream",
    [
        ROLE + TOKEN + DONE,
        (ROLE + TOKEN + DONE).replace(b"\n", b"\r\n"),
        b": ping\n\n" + TOKEN + b": ping\n\n" + DONE,
        TOKEN.replace(b"data: ", b"data:") + DONE,
        b'event: x\nid: 7\ndata: {"choices":\ndata: []}\n\n' + DONE,
        b'data: {"error":null,"choices":[]}\n\n' + DONE,
        TOKEN + DONE + b"\n",
    ],
    ids=["plain", "crlf", "comments", "no space", "several data lines", "no error", "blank lines at the end"],
)
def test_a_stream_that_reaches_its_end_is_whole(stream: bytes) -> None:
    report = judged(stream)
    assert report.fault == ""
    assert report.is_whole
    assert report.size_bytes == len(stream)


@pytest.mark.parametrize(
    ("stream", "fault"),
    [
        (b"", "ended without [DONE]"),
        (TOKEN, "ended without [DONE]"),
        (TOKEN + b": data: [DONE]\n\n", "ended without [DONE]"),
        (TOKEN + b"data: [DONE]\n", "ended inside a frame"),
        (TOKEN + TOKEN[:20], "ended inside a frame"),
        (DONE, "[DONE] without a chunk before it"),
        (TOKEN + ERROR, "error frame: gone"),
        (TOKEN + ERROR + DONE, "error frame: gone"),
        (TOKEN + b'data: {"error":"bad"}\n\n', "error frame: unnamed"),
        (TOKEN + DONE + TOKEN, "something came after [DONE]"),
        (TOKEN + DONE + DONE, "something came after [DONE]"),
        (TOKEN + DONE + b": ping\n", "something came after [DONE]"),
        (TOKEN + b"data: {]\n\n" + DONE, "a frame is not JSON"),
        (TOKEN + b"data: \xff\n\n" + DONE, "a frame is not JSON"),
        (TOKEN + b"data: []\n\n" + DONE, "a frame is not an object"),
    ],
)
def test_every_other_outcome_is_a_named_fault(stream: bytes, fault: str) -> None:
    report = judged(stream)
    assert report.fault == fault
    assert not report.is_whole


def test_a_stream_cut_at_any_byte_is_not_whole() -> None:
    stream = ROLE + TOKEN + DONE
    for end in range(len(stream)):
        assert not judged(stream[:end]).is_whole


def test_a_broken_connection_is_named_by_what_broke_it() -> None:
    assert judged(TOKEN, broken_by="TimeoutError").fault == "connection broke: TimeoutError"
    assert judged(TOKEN + DONE, broken_by="TimeoutError").fault == "connection broke: TimeoutError"


def test_the_first_fault_is_the_one_that_counts() -> None:
    assert judged(TOKEN + ERROR, broken_by="TimeoutError").fault == "error frame: gone"


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "x"},
        {"reasoning_content": "x"},
        {"reasoning": "x"},
        {"refusal": "x"},
        {"tool_calls": [{"index": 0}]},
    ],
    ids=lambda delta: next(iter(delta)),
)
def test_all_generated_content_counts_as_tokens(delta: dict[str, object]) -> None:
    assert len(judged(frame(delta) + DONE).token_times_s) == 1


def test_role_usage_and_odd_shapes_are_no_tokens() -> None:
    odd = b'data: {}\n\ndata: {"choices":[]}\n\ndata: {"choices":[null,{"delta":null}]}\n\n'
    report = judged(ROLE + odd + frame({}) + DONE)
    assert report.is_whole
    assert report.token_times_s == ()


def test_a_token_has_the_time_its_frame_ended() -> None:
    # A frame is two lines, and lines come one second apart.
    report = judged(ROLE + TOKEN + TOKEN + TOKEN + DONE)
    assert report.token_times_s == (3.0, 5.0, 7.0)
    assert report.gaps_s == [2.0, 2.0]
    assert report.tokens_per_s == 0.5


def test_there_is_no_rate_without_time_between_tokens() -> None:
    assert judged(TOKEN + DONE).tokens_per_s is None
    at_once = StreamReport("", (1.0, 1.0, 1.0), 0)
    assert at_once.tokens_per_s is None
    assert at_once.gaps_s == [0.0, 0.0]
