"""Native streams of Gemini's API."""

from __future__ import annotations

import pytest

from sanic_proxy import errors
from sanic_proxy.streams.gemini_filter import GeminiStreamFilter, JsonArray
from tests.support.gemini import frame

USAGE = {"promptTokenCount": 3, "candidatesTokenCount": 2, "thoughtsTokenCount": 1}
TEXT = frame({"text": "Hel"}, end="\n\n")
LAST = frame({"text": "lo"}, finish="STOP", usageMetadata=USAGE, end="\n\n")


def passed(*pieces: bytes) -> bytes:
    guard = GeminiStreamFilter()
    frames = b"".join(map(guard.feed, pieces))
    assert guard.failure is None
    return frames + guard.end()


def test_frames_pass_byte_for_byte() -> None:
    guard = GeminiStreamFilter()
    assert guard.feed(TEXT) is TEXT
    assert guard.has_content
    assert guard.feed(LAST) is LAST
    assert guard.end() == b""
    assert guard.is_done
    assert guard.usage is not None
    assert (guard.usage["prompt_tokens"], guard.usage["completion_tokens"]) == (3, 3)
    assert guard.usage["completion_tokens_details"] == {"reasoning_tokens": 1}


@pytest.mark.row(12, 13)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_line_ends_become_lf_wherever_the_network_cuts(size: int) -> None:
    sent = TEXT.replace(b"\n", b"\r\n") + LAST.replace(b"\n", b"\r\n")
    assert passed(*(sent[at : at + size] for at in range(0, len(sent), size))) == TEXT + LAST


def test_the_end_of_the_connection_without_a_finish_reason_is_a_cut() -> None:
    guard = GeminiStreamFilter()
    guard.feed(TEXT)
    with pytest.raises(errors.UpstreamDisconnected):
        guard.end()
    guard = GeminiStreamFilter()
    guard.feed(LAST + TEXT[:20])
    with pytest.raises(errors.UpstreamDisconnected):
        guard.end()


def test_every_candidate_needs_a_finish_reason() -> None:
    second = TEXT.replace(b'"index": 0', b'"index": 1')
    guard = GeminiStreamFilter()
    guard.feed(TEXT + second + LAST)
    with pytest.raises(errors.UpstreamDisconnected):
        guard.end()
    assert passed(TEXT, second, LAST, LAST.replace(b'"index": 0', b'"index": 1'))


def test_frames_behind_a_finish_reason_pass() -> None:
    usage = b'data: {"usageMetadata": {"promptTokenCount": 1}}\n\n'
    assert passed(LAST, TEXT, usage) == LAST + TEXT + usage


def test_a_refused_prompt_is_complete() -> None:
    refused = b'data: {"promptFeedback": {"blockReason": "SAFETY"}}\n\n'
    assert passed(refused) == refused


@pytest.mark.row(19)
@pytest.mark.parametrize(
    "sent",
    [
        b'data: {"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}\n\n',
        b'event: error\ndata: {"code": 503, "message": "busy"}\n\n',
        b'{"error": {"code": 503, "message": "busy"}}\n\n',
    ],
)
def test_an_error_ends_the_stream(sent: bytes) -> None:
    guard = GeminiStreamFilter()
    assert guard.feed(TEXT + sent) == TEXT
    assert guard.failure is not None
    assert "busy" in guard.failure.message


def test_padding_and_foreign_objects_are_dropped() -> None:
    assert passed(b": ping\n\n", b'data: {"x": 1}\n\n', TEXT, LAST, b"data: [DONE]\n\n") == TEXT + LAST


@pytest.mark.row(16)
def test_a_malformed_frame_is_a_failure_before_the_end() -> None:
    for odd in (b'data: {"candidates": \n\n', b'data: {"candidates": [1]}\n\n'):
        guard = GeminiStreamFilter()
        assert guard.feed(TEXT + odd) == TEXT
        assert isinstance(guard.failure, errors.UpstreamBadFrame)
        assert passed(LAST, odd) == LAST


def test_no_stream_at_all() -> None:
    with pytest.raises(errors.UpstreamBadResponse):
        GeminiStreamFilter().end()


def test_an_array_has_the_payloads_as_its_elements() -> None:
    framing = JsonArray()
    assert framing.feed(b'data: {"a":1}\n\ndata: {"b":2}\n\n') == b'[{"a":1},\n{"b":2}'
    assert framing.feed(b"data: {}\n\n") + framing.end() == b",\n{}]"
    assert JsonArray().end() == b"[]"
