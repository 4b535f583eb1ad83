"""The content of error bodies, and which bodies are errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.openai import codec
from sanic_proxy.upstream import error_body
from sanic_proxy.upstream.error_body import is_error, message_of, report_of, safe_text

COMPLETION = {
    "id": "c",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
}
CHUNK = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "Hi"}}]}


@pytest.mark.parametrize(
    "parsed",
    [
        {"error": {"message": "m"}},
        {"error": "text"},
        {"error": True},
        {"error": {"code": 429}},
        {**CHUNK, "error": {"code": 502, "message": "m"}},
        {**COMPLETION, "error": {"message": "m"}},
        {"object": "error", "message": "m", "code": 500},
        {"object": "error", "message": "m"},
        {"type": "error", "message": "m", "code": None, "param": None},
        {"detail": "no"},
        {"detail": [{"loc": ["body"], "msg": "m"}]},
        {"errors": ["m"]},
        {"success": False, "errors": [{"code": 1, "message": "m"}]},
        {"success": False, "message": "m"},
        {"code": 20012, "message": "m", "data": None},
        {"code": "InvalidParameter", "message": "m", "request_id": "r"},
        {"code": 500, "msg": "m"},
        {"code": "500", "message": "m", "choices": []},
        {"status": 429, "message": "m"},
        {"status": "error", "message": "m"},
        {"statusCode": 503, "message": "m"},
        {"error_code": 336003, "error_msg": "m"},
        {"base_resp": {"status_code": 1004, "status_msg": "m"}},
        {**CHUNK, "choices": None, "base_resp": {"status_code": 1026, "status_msg": "m"}},
        {"object": "list", "data": [], "error": {"message": "m"}},
        [{"error": {"code": 429, "message": "m"}}],
    ],
    ids=json.dumps,
)
def test_what_is_an_error(parsed: Any) -> None:
    assert is_error(parsed)


@pytest.mark.parametrize(
    "parsed",
    [
        None,
        "text",
        7,
        [],
        [1],
        [CHUNK, CHUNK],
        {},
        {"message": "m"},
        {"code": 500},
        {"ping": 1},
        COMPLETION,
        CHUNK,
        {**CHUNK, "error": None},
        {**COMPLETION, "code": 0, "message": "success"},
        {**COMPLETION, "code": 200, "msg": "ok"},
        {**COMPLETION, "status": "success", "message": "fine"},
        {**COMPLETION, "code": 1, "message": "odd, but an answer"},
        {**COMPLETION, "base_resp": {"status_code": 0, "status_msg": ""}},
        {**COMPLETION, "error": {"code": 0, "message": "success"}},
        {**COMPLETION, "errors": [], "detail": ""},
        {"code": 0, "message": "success", "data": {}},
        {"code": "0", "message": "ok"},
        {"code": "success", "message": "m"},
        {"code": 200, "message": "m"},
        {"status": "processing", "message": "queued", "id": "t"},
        {"status": True, "message": "m"},
        {"object": "chat.completion.chunk", "choices": [], "usage": {"total_tokens": 3}},
        {"object": "list", "data": [{"embedding": [0.1]}], "model": "m"},
        {"results": [{"index": 0}], "code": 7, "message": "m"},
        {"data": [{"url": "u"}], "detail": "high"},
        {"text": "t", "detail": "d"},
        {"object": "batch", "status": "failed", "errors": {"object": "list", "data": [{"code": "c"}]}},
        {"object": "fine_tuning.job", "error": {"code": "c", "message": "m"}},
        {"object": "file", "status": "error", "message": "m"},
        {"object": "response", "status": "failed", "error": {"code": "server_error", "message": "m"}},
    ],
    ids=json.dumps,
)
def test_what_is_an_answer(parsed: Any) -> None:
    assert not is_error(parsed)


@pytest.mark.parametrize(
    ("parsed", "message"),
    [
        ({"error": "text"}, "text"),
        ({"error": {"message": "inner"}}, "inner"),
        ({"error": {"error": {"message": "deep"}}}, "deep"),
        ({"error": {"completions": {"m": {"completion": {"error": "vendor"}}}}}, "vendor"),
        ({"message": "m"}, "m"),
        ({"Message": "m"}, "m"),
        ({"msg": "m"}, "m"),
        ({"detail": "d"}, "d"),
        ({"detail": {"error": {"message": "d"}}}, "d"),
        ({"errors": [{"message": "a"}, {"message": "b"}]}, "a; b"),
        ({"fault": {"faultstring": "f"}}, "f"),
        ({"base_resp": {"status_code": 1, "status_msg": "b"}}, "b"),
        ({"error": "Not Found", "message": "better"}, "better"),
        ({"error_msg": "e"}, "e"),
        ([{"error": {"message": "first"}}], "first"),
        (
            {"detail": [{"loc": ["body", "a", 1], "msg": "bad"}, {"loc": [], "msg": "worse"}]},
            "a.1: bad; worse",
        ),
        ({"error": {"message": 7}}, ""),
        ({"error": {"message": "  "}}, ""),
        ({}, ""),
        (None, ""),
    ],
)
def test_the_sentence_is_found_in_every_shape(parsed: Any, message: str) -> None:
    assert message_of(parsed) == message


@pytest.mark.row(76)
@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-4fT7xQ2mZ8cVb1LwN5dR",
        "sk_live_51HxT9bKq2LmW7vRz0PdY3",
        "gsk_Zk3Jw8pQ1rT6yU4iO9aS2dF7",
        "AIzaSyD3k9Qm2XwL7Rt5Vb8Nc1Zp4Hj6Gf",
        "hf_aB3dE5gH7jK9mN1pQ3sT5vW7",
        "key-8f14e45fceea167a5a36dedd",
        "Bearer eyJhbGciOi.4fT7xQ2mZ8cVb1LwN5dR",
        "sk-abcd****************wxyz",
    ],
)
def test_what_has_the_length_and_randomness_of_a_key_is_cut_out(key: str) -> None:
    for text in (f"the key {key} is bad", f"?key={key}", f'"{key}"'):
        assert safe_text(text) == text.replace(key, "[redacted]").replace("Bearer [redacted]", "[redacted]")


@pytest.mark.parametrize(
    "text",
    [
        "'key_findings' is not a valid name",
        "provider hf-inference failed",
        "no tool sk_search_docs",
        "key-value-store-for-the-archive-2024",
        "sk_search_documents_in_the_archive",
        "sk_SearchDocumentsInTheArchive",
        "Bearer authentication is required for this resource",
        "hf-internal-testing/tiny-random-gpt2",
        "xai-grok-4-fast-non-reasoning",
        "pplx-7b-online",
        "task-0123456789-sk",
    ],
)
def test_names_are_no_keys(text: str) -> None:
    assert safe_text(text) == text


def test_a_text_is_printable_and_bounded() -> None:
    assert safe_text("a\r\x00\x1b[31mb") == "a   [31mb"
    assert len(safe_text("x" * 10_000)) == 2000


def test_a_page_has_no_message() -> None:
    for body, kind in [
        (b"<html><b>x</b>", ""),
        (b"plain", "text/html"),
        (b"\xef\xbb\xbf <!doctype html>", ""),
    ]:
        report = report_of(None, body, kind)
        assert (report.message, report.words) == ("", "")
        assert report.page
    assert report_of(None, b'{"a": cut', "text/html").page == ""
    assert len(report_of(None, b"<p>" + b"x" * 100_000).page) == error_body.MAX_PAGE_CHARS


def test_fields_of_the_error_object_are_details() -> None:
    error = {"message": "m", "type": "t", "param": None, "code": "c", "metadata": {"raw": "r", "n": [1, {}]}}
    assert report_of({"error": error, "user_id": "org_1"}).details == {"metadata": {"raw": "r", "n": [1, {}]}}
    assert report_of({"message": "m", "code": 1, "object": "error", "n_ctx": 5}).details == {"n_ctx": 5}
    assert report_of({"error": "text", "success": False}).details == {}
    assert report_of({"detail": "text"}).details == {}


NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), NESTED, max_size=6))
def test_details_are_bounded_and_can_be_written(fields: dict[str, Any]) -> None:
    details = report_of({"error": {"message": "m", **fields}}).details
    assert len(codec.dumps(details)) < 8 * error_body.MAX_DETAIL_CHARS


@pytest.mark.parametrize(
    "value",
    [
        "x" * 100_000,
        ["y" * 3000] * 1000,
        [1] * 100_000,
        {str(n): n for n in range(100_000)},
        {"k" * 100_000: 1},
        json.loads("[" * 500 + "]" * 500),
        10**400,
        10**20,
    ],
    ids=["text", "texts", "list", "object", "key", "deep", "huge", "large"],
)
def test_large_details_are_cut(value: Any) -> None:
    details = report_of({"error": {"message": "m", "more": value}}).details
    assert len(codec.dumps(details)) <= error_body.MAX_DETAIL_CHARS + 2000


def test_keys_are_cut_out_of_details() -> None:
    details = report_of({"error": {"message": "m", "raw": "sk-proj-4fT7xQ2mZ8cVb1LwN5dR"}}).details
    assert details == {"raw": "[redacted]"}


def test_codes_come_from_known_places_only() -> None:
    echoed = {"code": "invalid_api_key", "type": "insufficient_quota", "error": {"code": 401}}
    body = {
        "detail": [{"loc": ["body"], "msg": "no", "input": echoed, "ctx": echoed}],
        "error": {"message": "m", "request": echoed, "input": echoed},
    }
    assert report_of(body).codes == ()
    assert report_of(body).status is None
