"""What is parsed and written, and what is refused."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.openai import codec, model_rewrite

T = TypeVar("T")

VALUES = st.recursive(
    st.none() | st.integers() | st.text() | st.sampled_from(["model", '"model"', '"model":"x"', "\\", "{"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("model"), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":"b","x":' + b"[" * 1010 + b"]" * 1010 + b',"y":"model","model":"b"}',
        b"{" + b"".join(b'"k%d":1,' % number for number in range(2000)) + b'"x":"model","model":"b"}',
    ],
    ids=["too deep", "too many"],
)
def test_a_search_that_would_take_long_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        model_rewrite.replace_model(body, old="b", new="c")


def test_a_long_text_is_no_reason_to_refuse() -> None:
    rows = '12:30:00, "x", [1, 2], {"a": 1}\n' * 60_000
    body = json.dumps({"model": "b", "messages": [rows, "\u0000model"]}).encode()
    assert codec.loads_strict(body)["messages"][0] == rows
    made = b"".join(model_rewrite.replace_model(body, old="b", new="c"))
    assert made == body.replace(b'"model": "b"', b'"model": "c"')


@pytest.mark.row(49)
@pytest.mark.parametrize("unit", [b"[],", b'"":1,', b"{},", b"1,", b'"a\\\\":1,'])
def test_more_parts_than_may_be_are_refused_and_many_are_not(unit: bytes) -> None:
    opening, closing = (b"{", b"}") if b":" in unit else (b"[", b"]")
    for count, is_taken in ((50_000, True), (800_000, False)):
        body = b'{"x":' + opening + (unit * count).rstrip(b",") + closing + b"}"
        if is_taken:
            assert codec.loads_strict(body)
            continue
        with pytest.raises(InvalidRequest, match="too many parts"):
            codec.loads_strict(body)


@pytest.mark.row(45, 47, 49, 50)
@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b'"\\ud83d"', b'"\xff"', b"\xef\xbb\xbf{}", b"[" * 2000])
def test_what_a_client_sends_is_parsed_strictly(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        codec.loads_strict(body)


@pytest.mark.parametrize("body", [b'{"a":"\\ud83d"}', b'\xef\xbb\xbf{"a":1}', b'{"a":"\xff"}', b'{"a":NaN}'])
def test_what_a_provider_sends_is_parsed_tolerantly(body: bytes) -> None:
    assert "a" in codec.loads_tolerant(body)


@pytest.mark.parametrize("body", [b"", b"<html>", b"{", b"[" * 100_000])
def test_text_that_is_not_json_gives_none(body: bytes) -> None:
    assert codec.loads_tolerant(body) is None


def test_what_is_passed_on_must_be_json() -> None:
    assert codec.loads_exact(b'{"a":"\\ud83d"}') == {"a": "\ud83d"}
    for body in (b"NaN", b"{", b"[-Infinity]", b'"\xff"', b"[" * 100_000):
        with pytest.raises(ValueError):  # noqa: PT011 - any of them
            codec.loads_exact(body)


def test_a_lone_surrogate_is_written_as_its_escape() -> None:
    assert codec.dumps({"a": "\ud83d/é", "b": 2**70}) == b'{"a":"\\ud83d/\\u00e9","b":1180591620717411303424}'
    assert codec.dumps({"a": "é"}) == '{"a":"é"}'.encode()


@given(VALUES)
def test_bytes_outside_strings_are_found_without_parsing(value: Any) -> None:
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    bare = re.sub(rb'"(?:[^"\\]|\\.)*"', b"", body, flags=re.DOTALL)
    assert b"".join(codec.outside_strings(body)) == bare


# Large bodies, in steps


def place(exc: InvalidRequest) -> tuple[int, int]:
    found = re.search(r"\(line (\d+), column (\d+)\)$", exc.message)
    assert found, exc.message
    return int(found[1]), int(found[2])


@pytest.mark.parametrize("body", [b"", b" \n"])
def test_an_empty_body_is_named_as_such(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="no body"):
        codec.loads_strict(body)
