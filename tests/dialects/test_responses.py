"""The Responses API as a dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sanic_proxy import errors
from sanic_proxy.dialects.responses import RESPONSES
from sanic_proxy.streams.responses_filter import ResponsesStreamFilter
from sanic_proxy.translation.signatures import wrapped
from tests.support.responses import events_of, judge_event

ANSWER: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "output": [],
    "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
}


def test_a_request_is_parsed_as_far_as_routing_needs_it() -> None:
    parsed = RESPONSES.parse(b"{}", {"model": "m", "input": "x", "stream": True}, None)
    assert (parsed.model, parsed.is_streaming, parsed.include_usage) == ("m", True, True)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": "x"}, "model"),
        ({"model": "m", "input": 5}, "input"),
        ({"model": "m", "stream": 1}, "stream"),
    ],
)
def test_wrong_types_are_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        RESPONSES.parse(b"{}", fields, None)
    assert caught.value.param == param


def test_errors_have_openai_s_shape() -> None:
    body = json.loads(RESPONSES.error_body(errors.InvalidRequest("wrong", param="input.0.role")))
    assert body["error"]["param"] == "input.0.role"
    assert body["error"]["type"] == "invalid_request_error"


def test_a_stream_of_pings_ends_with_its_failure() -> None:
    events = events_of(RESPONSES.error_event(errors.UpstreamTimeout("too late")))
    assert [event["type"] for event in events] == ["response.created", "response.failed"]
    for event in events:
        judge_event(event)


def test_the_guard_is_the_one_of_the_api() -> None:
    assert isinstance(RESPONSES.guard(include_usage=True, unify_reasoning=False), ResponsesStreamFilter)


def test_foreign_reasoning_is_removed_from_a_native_request() -> None:
    fields = {"model": "m", "input": [{"type": "reasoning", "encrypted_content": wrapped("acme", "x")}]}
    assert RESPONSES.prepared(json.dumps(fields).encode(), fields, "openai") == (
        {"model": "m", "input": []},
        ("messages.reasoning",),
    )
    assert RESPONSES.prepared(b"{}", {"model": "m"}, "openai") is None


def test_the_usage_of_a_whole_answer() -> None:
    usage = RESPONSES.usage_in(json.dumps(ANSWER).encode())
    assert usage is not None
    assert usage["total_tokens"] == 5


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"object": "chat.completion", "choices": []}, errors.UpstreamBadResponse),
        (
            {**ANSWER, "status": "failed", "error": {"code": "server_error", "message": "x"}},
            errors.ProxyError,
        ),
        (
            {**ANSWER, "status": "failed", "error": {"code": "insufficient_quota", "message": "x"}},
            errors.InsufficientQuota,
        ),
        ({"error": {"message": "no"}}, errors.ProxyError),
    ],
)
def test_a_failed_answer_is_an_error(answer: dict[str, Any], kind: type[errors.ProxyError]) -> None:
    with pytest.raises(kind):
        RESPONSES.usage_in(json.dumps(answer).encode())
