"""Whole answers with a good status."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sanic_proxy import errors
from sanic_proxy.upstream.answers import checked, checked_completion, checked_message
from tests.support.upstream import completion

TEXT = completion("x")["choices"]


def body(value: Any) -> bytes:
    return json.dumps(value).encode()


def with_choice(finish: Any, content: Any = None, **fields: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return completion(choices=[{"index": 0, "message": message, "finish_reason": finish, **fields}])


@pytest.mark.row(20)
@pytest.mark.parametrize(
    "parsed",
    [
        {"error": {"message": "no"}},
        {"error": "no"},
        {"object": "error", "message": "no", "code": 500},
        {"code": 20012, "message": "no"},
        {"code": "20012", "message": "no", "data": None},
        {"detail": "no"},
        {"errors": ["no"]},
        {"base_resp": {"status_code": 1004, "status_msg": "no"}},
        [{"error": {"message": "no"}}],
        {"object": "list", "error": {"message": "no"}},
    ],
)
@pytest.mark.parametrize("check", [checked, checked_completion])
def test_an_error_with_a_good_status_is_an_error(check: Any, parsed: Any) -> None:
    with pytest.raises(errors.ProxyError) as caught:
        check(body(parsed))
    assert not isinstance(caught.value, errors.UpstreamBadResponse)


@pytest.mark.parametrize(
    "answer",
    [
        {"object": "list", "data": [], "model": "m"},
        {"id": "b", "object": "batch", "status": "failed", "errors": {"data": [{"message": "m"}]}},
        {"id": "b", "object": "batch", "error": {"message": "a field of it"}},
        {"id": "f", "object": "file", "status": "error", "status_details": "m"},
        {"code": 0, "message": "ok", "data": []},
        {"code": "0", "message": "success"},
        {"text": "hello"},
        {"results": []},
        [],
        [{"x": 1}, {"error": 1}],
        7,
    ],
)
def test_any_other_json_is_an_answer(answer: Any) -> None:
    assert checked(body(answer)) == answer


@pytest.mark.parametrize("check", [checked, checked_completion])
@pytest.mark.parametrize("data", [b"", b"<html>", b"{", b"\xff", b'{"x":NaN}'])
def test_what_is_not_json_is_a_bad_response(check: Any, data: bytes) -> None:
    with pytest.raises(errors.UpstreamBadResponse):
        check(data)


@pytest.mark.parametrize(
    "answer",
    [
        completion("x"),
        completion("x", code=0, message="ok"),
        completion("x", code=0, message="ok", error=None, detail="d"),
        with_choice(None, "x"),
        with_choice("", "x"),
        with_choice("null", "x"),
        with_choice("stop"),
        with_choice("odd"),
        {"choices": [{"text": "x"}]},
        {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]},
    ],
)
def test_content_or_a_finish_reason_is_an_answer(answer: Any) -> None:
    assert checked_completion(body(answer)) == answer


@pytest.mark.row(23)
@pytest.mark.parametrize(
    "answer",
    [
        completion(choices=[]),
        completion(choices=None),
        completion(choices=[None]),
        with_choice(None),
        with_choice("", ""),
        with_choice("null", tool_calls=[]),
        {"choices": [{"text": ""}]},
    ],
)
def test_an_answer_without_both_is_empty(answer: Any) -> None:
    with pytest.raises(errors.UpstreamBadResponse) as caught:
        checked_completion(body(answer))
    assert caught.value.code == "upstream_empty_response"


@pytest.mark.row(23)
@pytest.mark.parametrize("answer", [{}, {"hello": "world"}, {"choices": "x"}, [], 7, "text", None])
def test_what_has_no_choices_is_no_completion(answer: Any) -> None:
    with pytest.raises(errors.UpstreamBadResponse) as caught:
        checked_completion(body(answer))
    assert caught.value.code == "upstream_bad_response"


@pytest.mark.row(19)
@pytest.mark.parametrize(
    ("fields", "kind", "text"),
    [
        ({}, errors.UpstreamError, "failed"),
        ({"error": {"code": 429, "message": "slow down"}}, errors.RateLimited, "slow down"),
    ],
)
def test_the_finish_reason_error_is_a_failure(
    fields: dict[str, Any], kind: type[errors.ProxyError], text: str
) -> None:
    with pytest.raises(kind, match=text) as caught:
        checked_completion(body(with_choice("error", "half", **fields)))
    assert caught.value.upstream_status in {429, 502}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"nonsense", errors.UpstreamBadResponse),
        (b"error: broken", errors.UpstreamReportedError),
        (b'{"error": {"message": "m", "code": "429"}}', errors.RateLimited),
        (b'{"code": 20012, "message": "no"}', errors.UpstreamReportedError),
    ],
)
def test_a_whole_answer_that_is_an_error_raises_it(body: bytes, kind: type[errors.ProxyError]) -> None:
    for read in (checked, checked_completion):
        with pytest.raises(errors.ProxyError) as caught:
            read(body)
        assert type(caught.value) is kind


MESSAGE = {"type": "message", "content": [{"type": "text", "text": "a"}], "stop_reason": "end_turn"}


@pytest.mark.parametrize(
    "answer",
    [MESSAGE, {**MESSAGE, "stop_reason": None}, {**MESSAGE, "content": []}, {**MESSAGE, "error": None}],
)
def test_a_message_with_content_or_a_stop_reason_is_an_answer(answer: Any) -> None:
    assert checked_message(json.dumps(answer).encode()) == answer


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        ({**MESSAGE, "content": [], "stop_reason": None}, errors.UpstreamBadResponse, "is empty"),
        ({"type": "message"}, errors.UpstreamBadResponse, "not a message"),
        ([MESSAGE], errors.UpstreamBadResponse, "not a message"),
        (
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            errors.UpstreamUnavailable,
            "Overloaded",
        ),
    ],
)
def test_what_is_no_message_is_a_failure(answer: Any, kind: type[errors.ProxyError], message: str) -> None:
    with pytest.raises(kind, match=message):
        checked_message(json.dumps(answer).encode())
