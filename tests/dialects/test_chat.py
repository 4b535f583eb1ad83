"""OpenAI's shapes of requests, errors and events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sanic_proxy import errors
from sanic_proxy.dialects.chat import CHAT, error_object
from sanic_proxy.dialects.registry import dialect_for
from sanic_proxy.streams.stream import PINGS, Heartbeat

MESSAGES = [{"role": "user", "content": "Hi"}]


def test_a_request_passes_as_it_is() -> None:
    fields: dict[str, Any] = {"model": "m", "messages": MESSAGES}
    parsed = CHAT.parse(b"body", fields, (1, 2))
    assert (parsed.body, parsed.fields, parsed.model, parsed.model_span) == (b"body", fields, "m", (1, 2))
    assert (parsed.is_streaming, parsed.include_usage) == (False, False)


@pytest.mark.parametrize(
    ("stream", "options", "expected"),
    [
        (True, {"include_usage": True}, True),
        (True, {"include_usage": 1}, False),
        (True, None, False),
        (False, {"include_usage": True}, False),
    ],
)
def test_usage_is_for_streams_that_request_it(stream: bool, options: object, *, expected: bool) -> None:
    fields = {"model": "m", "messages": MESSAGES, "stream": stream, "stream_options": options}
    assert CHAT.parse(b"", fields, None).include_usage is expected


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": MESSAGES}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": MESSAGES, "stream": "yes"}, "stream"),
    ],
)
def test_what_cannot_be_a_request_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        CHAT.parse(b"", fields, None)
    assert caught.value.param == param


def test_an_error_has_all_four_keys_in_a_body_and_in_an_event() -> None:
    error = errors.UpstreamTimeout("late")
    expected = {
        "error": {"message": "late", "type": "server_error", "param": None, "code": "upstream_timeout"}
    }
    assert json.loads(CHAT.error_body(error)) == expected
    event = CHAT.error_event(error)
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert json.loads(event[6:]) == expected


def test_details_come_after_the_standard_keys_and_replace_none() -> None:
    error = errors.UpstreamError("m", details={"code": "other", "metadata": 1})
    assert list(error_object(error)) == ["message", "type", "param", "code", "metadata"]
    assert error_object(error)["code"] == "upstream_error"


def test_answers_and_heartbeats_are_those_of_the_provider() -> None:
    beat = Heartbeat(b"beat", b"opening")
    assert CHAT.heartbeat(beat) is beat
    assert CHAT.ping == PINGS.beat


def test_it_is_the_dialect_of_every_path_without_another_one() -> None:
    assert dialect_for("/v1/chat/completions") is dialect_for("/nowhere") is CHAT
