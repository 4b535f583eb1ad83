"""The shapes of the Responses API that streams and translations share."""

from __future__ import annotations

from typing import Any

import pytest

from sanic_proxy import errors
from sanic_proxy.openai.responses import (
    error_of,
    event_frame,
    failed_frames,
    new_response_id,
    read_usage,
    response_object,
    write_usage,
)
from sanic_proxy.openai.usage import Usage
from tests.support.responses import events_of, judge_event, judge_response


def test_a_response_has_every_key_that_its_judges_require() -> None:
    judge_response(response_object("resp_1", "m", 1, {}))


def test_the_request_s_fields_are_repeated() -> None:
    response = response_object("resp_1", "m", 1, {"temperature": 0.5, "instructions": "x"})
    judge_response(response)
    assert response["temperature"] == 0.5
    assert response["instructions"] == "x"


def test_an_event_is_one_frame_with_its_type_in_both_places() -> None:
    event = {"type": "response.output_text.delta", "delta": "a\nb\u2028"}
    frame = event_frame(event)
    assert frame.startswith(b"event: response.output_text.delta\ndata: {")
    assert events_of(frame) == [event]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InsufficientQuota("no credit"), "insufficient_quota"),
        (errors.RateLimited("slow"), "rate_limit_exceeded"),
        (errors.ContextLengthExceeded("too long"), "context_length_exceeded"),
        (errors.ContentFiltered("no"), "invalid_prompt"),
        (errors.InvalidRequest("wrong"), "invalid_prompt"),
        (errors.ModelNotFound("none"), "invalid_prompt"),
        (errors.UpstreamStalled("stalled"), "server_error"),
        (errors.UpstreamUnavailable("down"), "server_error"),
        (errors.Overloaded("full"), "server_error"),
        (errors.UpstreamAuthFailed("key"), "server_error"),
        (errors.ProxyError("bug"), "server_error"),
    ],
)
def test_the_code_of_an_error_is_one_that_codex_knows(error: errors.ProxyError, code: str) -> None:
    assert error_of(error) == {"code": code, "message": error.message}


@pytest.mark.parametrize(
    ("facts", "message", "expected"),
    [
        ({"wait_s": 1.5}, "Slow down.", "Slow down. Please try again in 1.5s."),
        ({"wait_s": 1.41}, "Slow down", "Slow down. Please try again in 1.5s."),
        ({"wait_s": 20}, "Slow down", "Slow down. Please try again in 20s."),
        ({"retry_after_s": 3}, "Slow down", "Slow down. Please try again in 3s."),
        ({"wait_s": 2}, "Please try again in 1.2s", "Please try again in 1.2s"),
        ({}, "Slow down", "Slow down"),
    ],
)
def test_a_rate_limit_says_when_to_try_again(facts: Any, message: str, expected: str) -> None:
    assert error_of(errors.RateLimited(message, **facts))["message"] == expected


def test_a_failed_stream_ends_with_its_own_response() -> None:
    response = response_object("resp_1", "m", 1, {})
    (failed,) = events_of(failed_frames(response, 7, errors.UpstreamError("broken")))
    judge_event(failed)
    assert failed["sequence_number"] == 7
    assert failed["response"] == {
        **response,
        "status": "failed",
        "error": {"code": "server_error", "message": "broken"},
    }


def test_a_stream_that_has_not_begun_gets_its_first_event() -> None:
    events = events_of(
        failed_frames(response_object("resp_1", "m", 1, {}), 0, errors.UpstreamError("broken"))
    )
    assert [event["type"] for event in events] == ["response.created", "response.failed"]
    assert [event["sequence_number"] for event in events] == [0, 1]


def test_usage_is_read_as_it_is_written() -> None:
    usage = Usage(5, 4, 3, 2, 1)
    written = write_usage(usage)
    assert written["total_tokens"] == 9
    assert read_usage(written) == usage


@pytest.mark.parametrize("usage", [{}, {"input_tokens": "5", "input_tokens_details": 3}])
def test_odd_usage_counts_nothing(usage: Any) -> None:
    assert read_usage(usage) == Usage()


def test_ids_are_new() -> None:
    assert new_response_id() != new_response_id()
    assert new_response_id().startswith("resp_")
