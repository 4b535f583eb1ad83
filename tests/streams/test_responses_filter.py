"""Which frames of a native Responses stream pass, when it is complete, and how it ends after a failure."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.streams.filters import FilterChain, StreamFilter
from sanic_proxy.streams.responses_filter import ResponsesStreamFilter
from tests.support.responses import events_of, judge_event

Json = dict[str, Any]

RESPONSE = {"id": "resp_1", "object": "response", "status": "in_progress", "model": "gpt", "output": []}
USAGE = {
    "input_tokens": 5,
    "input_tokens_details": {"cached_tokens": 1},
    "output_tokens": 2,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 7,
}


def event(kind: str, number: int = 0, *, named: bool = True, **fields: Any) -> bytes:
    data = json.dumps({"type": kind, "sequence_number": number, **fields})
    return (f"event: {kind}\n" if named else "").encode() + f"data: {data}\n\n".encode()


def ended(status: str, number: int = 9, **fields: Any) -> bytes:
    return event(f"response.{status}", number, response={**RESPONSE, "status": status, **fields})


CREATED = event("response.created", 0, response=RESPONSE)
ADDED = event("response.output_item.added", 1, output_index=0, item={"id": "msg_1", "type": "message"})
DELTA = event("response.output_text.delta", 2, item_id="msg_1", output_index=0, content_index=0, delta="a")
COMPLETED = ended("completed", 3, usage=USAGE)
FAILED = ended("failed", 3, error={"code": "server_error", "message": "broken"})
ERROR = event("error", 3, code="server_error", message="broken", param=None)
WHOLE = CREATED + ADDED + DELTA + COMPLETED


def fed(*pieces: bytes) -> tuple[bytes, ResponsesStreamFilter]:
    stream = ResponsesStreamFilter("m")
    return b"".join(map(stream.feed, pieces)), stream


# What passes


@pytest.mark.parametrize("data", [WHOLE, WHOLE.replace(b"\n", b"\r\n")])
@pytest.mark.parametrize("size", [1, 2, 7, 64, 100_000])
def test_a_whole_stream_passes_as_it_is(data: bytes, size: int) -> None:
    out, stream = fed(*(data[at : at + size] for at in range(0, len(data), size)))
    assert out == data
    assert stream.is_done
    assert stream.failure is None
    assert stream.end() == b""


def test_whole_frames_are_not_copied() -> None:
    stream = ResponsesStreamFilter()
    for data in (CREATED + ADDED, DELTA, DELTA + DELTA, COMPLETED):
        assert stream.feed(data) is data


def test_usage_is_noted_in_the_form_of_a_chat() -> None:
    _, stream = fed(WHOLE)
    assert stream.usage is not None
    assert stream.usage["prompt_tokens"] == 5
    assert stream.usage["completion_tokens"] == 2
    assert stream.usage["prompt_tokens_details"]["cached_tokens"] == 1


@pytest.mark.parametrize("status", ["completed", "incomplete"])
def test_nothing_passes_behind_the_end(status: str) -> None:
    end = ended(status)
    out, stream = fed(CREATED + DELTA + end + b"data: [DONE]\n\n", DELTA)
    assert out == CREATED + DELTA + end
    assert stream.is_done
    assert stream.has_content


def test_frames_without_an_event_line_are_judged_by_their_data() -> None:
    frames = [
        event("response.created", 0, named=False, response=RESPONSE),
        event("response.output_text.delta", 1, named=False, delta="a"),
        event("response.completed", 2, named=False, response={**RESPONSE, "status": "completed"}),
    ]
    out, stream = fed(*frames)
    assert out == b"".join(frames)
    assert stream.is_done


def test_unknown_events_comments_and_keep_alives_pass() -> None:
    others = b": ping\n\n" + event("keepalive", 3) + event("response.future", 4) + b"data: x\n\n"
    out, stream = fed(CREATED, others)
    assert out == CREATED + others
    assert not stream.has_content


@pytest.mark.parametrize(
    ("frame", "has_content"),
    [
        (CREATED, False),
        (ADDED, False),
        (event("response.in_progress", 1, response=RESPONSE), False),
        (event("response.content_part.added", 1), False),
        (DELTA, True),
        (event("response.function_call_arguments.delta", 1, delta="{"), True),
        (event("response.reasoning_summary_text.delta", 1, delta="{"), True),
        (event("response.output_item.done", 1, item={}), True),
        (COMPLETED, True),
    ],
)
def test_content_begins_with_a_delta_or_a_finished_item(frame: bytes, has_content: bool) -> None:
    _, stream = fed(frame)
    assert stream.has_content is has_content


@pytest.mark.parametrize(
    ("frames", "has_progress"),
    [
        (DELTA, True),
        (COMPLETED, True),
        (event("response.web_search_call.searching"), True),
        (b": ping\n", False),
        (event("keepalive"), False),
        (CREATED, False),
        (event("response.in_progress", response=RESPONSE), False),
    ],
)
def test_what_counts_as_progress(frames: bytes, has_progress: bool) -> None:
    assert ResponsesStreamFilter().has_progress(frames) is has_progress


# Failures that the provider reports


@pytest.mark.parametrize("report", [FAILED, ERROR])
def test_a_failure_before_content_does_not_pass(report: bytes) -> None:
    out, stream = fed(CREATED + ADDED + report)
    assert out == CREATED + ADDED
    assert not stream.is_done
    assert stream.failure is not None
    assert stream.failure.message == "broken"


def test_the_code_of_a_failure_gives_it_its_class() -> None:
    _, stream = fed(CREATED, ended("failed", error={"code": "rate_limit_exceeded", "message": "slow down"}))
    assert isinstance(stream.failure, errors.RateLimited)


def test_a_failure_after_content_passes_and_is_the_end() -> None:
    out, stream = fed(CREATED + DELTA, FAILED + DELTA)
    assert out == CREATED + DELTA + FAILED
    assert stream.is_done
    assert stream.failure is None
    assert stream.reported is not None
    assert stream.reported.message == "broken"
    assert stream.end() == b""


def test_an_error_after_content_passes_with_the_failure_behind_it() -> None:
    out, stream = fed(CREATED + DELTA + ERROR + FAILED)
    assert out == CREATED + DELTA + ERROR + FAILED
    assert stream.is_done
    assert stream.reported is not None


def test_an_error_without_a_failure_behind_it_is_the_failure() -> None:
    out, stream = fed(CREATED + DELTA + ERROR)
    assert out == CREATED + DELTA + ERROR
    assert not stream.is_done
    with pytest.raises(errors.ProxyError, match="broken") as caught:
        stream.end()
    (failed,) = events_of(stream.failed(caught.value))
    assert failed["sequence_number"] == 4


@pytest.mark.parametrize("begun", [b"", CREATED + DELTA])
def test_an_error_without_a_type_never_passes(begun: bytes) -> None:
    out, stream = fed(begun + b'data: {"error": {"message": "no upstream", "code": 502}}\n\n')
    assert out == begun
    assert stream.failure is not None
    assert stream.failure.message == "no upstream"


# Cuts


@pytest.mark.parametrize("data", [CREATED, CREATED + DELTA, CREATED + DELTA + COMPLETED[:-9]])
def test_a_connection_that_ends_before_a_terminal_event_is_a_cut(data: bytes) -> None:
    _, stream = fed(data)
    with pytest.raises(errors.UpstreamDisconnected):
        stream.end()


def test_a_terminal_event_without_its_blank_line_is_the_end() -> None:
    out, stream = fed(CREATED + DELTA + COMPLETED[:-2])
    assert out + stream.end() == WHOLE.replace(ADDED, b"")
    assert stream.is_done


def test_a_body_without_events_is_no_stream() -> None:
    stream = ResponsesStreamFilter()
    with pytest.raises(errors.UpstreamBadResponse, match="no event stream"):
        stream.end()


def test_a_terminal_event_that_is_not_json_is_a_failure() -> None:
    _, stream = fed(CREATED + DELTA + b'event: response.completed\ndata: {"type": "resp\n\n')
    assert isinstance(stream.failure, errors.UpstreamBadFrame)


def test_a_frame_without_end_is_too_large() -> None:
    stream = ResponsesStreamFilter()
    for _ in range(17):
        stream.feed(b"x" * 2**20)
    assert isinstance(stream.failure, errors.FrameTooLarge)


# The end that the proxy writes


def test_a_cut_stream_ends_with_a_failure_of_the_same_response() -> None:
    _, stream = fed(CREATED + ADDED + DELTA + b": ping\n\n" + COMPLETED[:20])
    (failed,) = events_of(stream.failed(errors.UpstreamDisconnected("cut")))
    assert failed["type"] == "response.failed"
    assert failed["sequence_number"] == 3
    assert failed["response"]["id"] == "resp_1"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": "server_error", "message": "cut"}


def test_a_stream_that_has_sent_nothing_gets_its_beginning_as_well() -> None:
    created, failed = events_of(ResponsesStreamFilter("m").failed(errors.RateLimited("slow", wait_s=1.41)))
    assert [created["sequence_number"], failed["sequence_number"]] == [0, 1]
    assert created["response"]["id"] == failed["response"]["id"]
    assert created["response"]["model"] == "m"
    assert failed["response"]["error"]["message"] == "slow. Please try again in 1.5s."
    judge_event(created)
    judge_event(failed)


# In front of a translation


class Failing(StreamFilter):
    """A translation that finds a failure in the last frames."""

    def __init__(self) -> None:
        self.failure: errors.ProxyError | None = None

    @override
    def feed(self, data: bytes) -> bytes:
        if b"response.failed" in data:
            self.failure = errors.UpstreamError("broken")
        return b"x"

    @override
    def end(self) -> bytes:
        return b"end"

    @override
    def failed(self, error: errors.ProxyError) -> bytes:
        return error.message.encode()


def test_a_translation_that_fails_is_not_complete() -> None:
    chain = FilterChain(ResponsesStreamFilter(), Failing())
    assert chain.feed(CREATED + DELTA) == b"x"
    assert chain.feed(FAILED) == b"x"  # without its end
    assert chain.failure is not None
    assert not chain.is_done
    assert chain.reported is None
    assert chain.failed(chain.failure) == b"broken"


def test_the_chain_reports_what_passed() -> None:
    chain = FilterChain(ResponsesStreamFilter(), StreamFilter())
    chain.feed(CREATED + DELTA + FAILED)
    assert chain.is_done
    assert chain.reported is not None


# Any bytes


frames = st.lists(
    st.sampled_from(
        [CREATED, ADDED, DELTA, FAILED, ERROR, COMPLETED, b": c\n\n", b"\n", b"data: x\n\n", b"\r\n"]
    )
)


@given(frames, st.integers(1, 50))
@settings(deadline=None)
def test_the_pieces_make_no_difference(blocks: list[bytes], size: int) -> None:
    data = b"".join(blocks)
    whole, expected = fed(data)
    out, stream = fed(*(data[at : at + size] for at in range(0, len(data), size)))
    # Blank lines between frames mean nothing.
    assert out.translate(None, b"\r\n") == whole.translate(None, b"\r\n")
    assert (stream.is_done, stream.has_content) == (expected.is_done, expected.has_content)
    assert type(stream.failure) is type(expected.failure)


@given(st.binary(max_size=60))
@settings(deadline=None)
def test_arbitrary_bytes_do_no_harm(data: bytes) -> None:
    out, stream = fed(CREATED + DELTA, data)
    assert out.startswith(CREATED + DELTA)
    assert events_of(stream.failed(errors.UpstreamError("broken")))[-1]["type"] == "response.failed"
