"""The codec, and the model's bytes replaced in place."""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from typing import Any, TypeVar

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.openai import codec

T = TypeVar("T")

VALUES = st.recursive(
    st.none() | st.integers() | st.text() | st.sampled_from(["model", '"model"', '"model":"x"', "\\", "{"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("model"), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text().filter(lambda key: key != "model"), VALUES, max_size=4),
    st.dictionaries(st.text().filter(lambda key: key != "model"), VALUES, max_size=4),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_only_the_models_value_changes(
    before: dict[str, Any], after: dict[str, Any], old: str, indent: int | None, ascii_only: bool
) -> None:
    fields = {**before, "model": old, **after}
    body = json.dumps(fields, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    made = b"".join(codec.replace_model(body, old=old, new="the-new-name"))
    value = json.dumps(old, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert json.loads(made.decode("utf-8", "surrogatepass")) == {**fields, "model": "the-new-name"}
    assert len(made) == len(body) - len(value) + len(b'"the-new-name"') or old == "the-new-name"


def test_an_escaped_key_is_found() -> None:
    body = b'{"x":{"model":"a"},"mod\\u0065l":"b"}'
    assert b"".join(codec.replace_model(body, old="b", new="c")) == b'{"x":{"model":"a"},"mod\\u0065l":"c"}'


@pytest.mark.row(46)
@pytest.mark.parametrize("body", [b'{"model":"a","model":"b"}', b'{"mod\\u0065l":"a","model":"b"}'])
def test_two_models_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        codec.replace_model(body, old="b", new="c")
    assert caught.value.param == "model"


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
        codec.replace_model(body, old="b", new="c")


def test_a_long_text_is_no_reason_to_refuse() -> None:
    rows = '12:30:00, "x", [1, 2], {"a": 1}\n' * 60_000
    body = json.dumps({"model": "b", "messages": [rows, "\u0000model"]}).encode()
    assert codec.loads_strict(body)["messages"][0] == rows
    made = b"".join(codec.replace_model(body, old="b", new="c"))
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


def test_an_unchanged_name_leaves_the_bytes_alone() -> None:
    body = b'{"model":"a"}'
    assert codec.replace_model(body, old="a", new="a") == (body,)


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


def test_chunks_hold_every_required_field() -> None:
    head = codec.ChunkHead(id="i", model="m", created=1, include_usage=False)
    assert codec.chunk(head, {"content": "x"}) == {
        "id": "i",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": "x"}, "logprobs": None, "finish_reason": None}],
    }
    with_usage = codec.ChunkHead(id="i", model="m", created=1, include_usage=True)
    assert codec.chunk(with_usage, {})["usage"] is None


@given(VALUES)
def test_bytes_outside_strings_are_found_without_parsing(value: Any) -> None:
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    bare = re.sub(rb'"(?:[^"\\]|\\.)*"', b"", body, flags=re.DOTALL)
    assert b"".join(codec.outside_strings(body)) == bare


# Large bodies, in steps

LARGE = codec.SMALL_BYTES * 5


def run(steps: Generator[None, None, T]) -> tuple[T, int]:
    """The result of a generator of steps, and how many there were."""
    count = 1
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value, count
        count += 1


@pytest.mark.parametrize("filling", ["x", "\\", '"', "\n", "é", "🎉", ': {"model": [1, '])
@pytest.mark.parametrize("nested", [{}, {"model": "y"}])
@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("shift", range(3))
def test_parsing_in_steps_finds_value_and_model(
    filling: str, nested: dict[str, str], is_first: bool, shift: int
) -> None:
    rest = {"pad": "p" * shift, "tools": [nested], "text": filling * (LARGE // len(filling))}
    fields = {"model": "old", **rest} if is_first else {**rest, "model": "old"}
    body = json.dumps(fields, ensure_ascii=False).encode()
    parsed, steps = run(codec.parsing(body))
    assert parsed.value == fields
    assert parsed.model_span is not None
    assert body[slice(*parsed.model_span)] == b'"old"'
    assert steps > 4
    made = codec.replace_model(body, old="old", new="new", span=parsed.model_span)
    assert json.loads(b"".join(made)) == {**fields, "model": "new"}


CHARACTERS = ["x", "\\", '"', "\n", "é", "中", "🎉", "\u0001", "/", "u", "d83d"]


@settings(max_examples=30)
@given(
    st.lists(st.sampled_from(CHARACTERS), min_size=1, max_size=12).map("".join),
    st.integers(0, 30),
    st.booleans(),
)
def test_long_strings_are_decoded_in_slices_as_in_one_go(unit: str, shift: int, ascii_only: bool) -> None:
    """Slices end at every place of the repeated unit, its escapes and characters included."""
    text = unit * (6 * codec.SMALL_BYTES // len(unit))
    value = {"a": ["x" * shift, {"model": 1, "b": f"{text}!"}], "model": "old", "c": [text[: 10**6]]}
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    parsed, _ = run(codec.parsing(body))
    assert parsed.value == value
    assert parsed.model_span is not None
    assert body[slice(*parsed.model_span)] == b'"old"'


@pytest.mark.parametrize(
    "body",
    [
        b'{"%b":1,"model":"m"}',
        b'{"a":"%b","a":1,"model":"m"}',
        b'{"a":1,"a":"%b","model":"m"}',
        b'"%b"',
        b'["%b"]',
        b'{"model":"%b"}',
    ],
)
def test_long_strings_may_stand_anywhere(body: bytes) -> None:
    whole = body % (b"y" * LARGE)
    assert run(codec.parsing(whole))[0].value == json.loads(whole)


@pytest.mark.parametrize("bad", [b"\xff", b"\n", b"\\x", b"\\ud83d", b"\\ude00", b"\xc3", b"\\u12g4", b'"'])
@pytest.mark.parametrize("place", [LARGE // 2, codec.SMALL_BYTES * 2, LARGE])
def test_what_is_wrong_inside_a_long_string_is_refused(bad: bytes, place: int) -> None:
    body = b'{"model":"m","x":"' + b"y" * place + bad + b"y" * (LARGE - place) + b'"}'
    with pytest.raises(InvalidRequest):
        run(codec.parsing(body))


@pytest.mark.parametrize("offset", range(-8, 9))
def test_a_model_key_at_the_edge_of_a_slice_is_found(offset: int) -> None:
    start = b'{"x":"'
    body = start + b"y" * (1024 * 1024 - len(start) - 2 + offset) + b'","model":"old"}'
    parsed, _ = run(codec.parsing(body))
    assert parsed.model_span is not None
    assert body[slice(*parsed.model_span)] == b'"old"'


def test_parsing_in_steps_refuses_two_models() -> None:
    body = b'{"model":"a","x":"' + b"y" * LARGE + b'","model":"b"}'
    with pytest.raises(InvalidRequest, match="more than once"):
        run(codec.parsing(body))


@pytest.mark.parametrize("value", [5, None, "m" * 10_000, ["x"]])
def test_a_model_that_is_no_name_is_not_looked_for(value: object) -> None:
    parsed, _ = run(codec.parsing(json.dumps({"model": value, "x": "y" * LARGE}).encode()))
    assert parsed.model_span is None


@pytest.mark.row(49, 70)
@pytest.mark.parametrize(
    ("unit", "count", "is_accepted"),
    [
        (b"\\n", 16_000_000, True),
        (b"\\u4e2d", 5_000_000, True),
        (b"\\n" * 1000 + b'","', 4_000, True),
        (b"\\n" * 1000 + b'","', 16_000, False),
        (b"x" * 1000 + b'","', 30_000, True),
        (b"x", 60_000_000, True),  # as large as an operator allows
    ],
)
def test_escapes_count_outside_of_long_strings(unit: bytes, count: int, is_accepted: bool) -> None:
    body = b'["' + unit * count + b'"]'
    if is_accepted:
        assert codec.loads_strict(body)
    else:
        with pytest.raises(InvalidRequest, match="too many parts"):
            codec.loads_strict(body)


# The place of an error


def place(exc: InvalidRequest) -> tuple[int, int]:
    found = re.search(r"\(line (\d+), column (\d+)\)$", exc.message)
    assert found, exc.message
    return int(found[1]), int(found[2])


@pytest.mark.parametrize(
    ("body", "reason", "expected"),
    [
        ('{"a":1,}', "trailing comma", (1, 7)),
        ('{"a":\n  xyz}', "unexpected character", (2, 3)),
        ('{"é":\r\n"€😀" x}', "unexpected character", (2, 6)),
        ("{'a':1}", "expected a string key", (1, 2)),
        ('{"a":1', "unexpected end", (1, 7)),
        ('{"a":NaN}', "unexpected character", (1, 6)),
        ('{"a":"\x01"}', "control character", (1, 7)),
        ("{} secret", "after document", (1, 4)),
        ("\ufeff{}", "BOM", (1, 1)),
        (b'{"\xc3\xa9":\n\n "\xff"}', "invalid UTF-8", (3, 3)),
        (b'{"a":"\xc3"}', "invalid UTF-8", (1, 7)),
    ],
)
def test_invalid_json_is_located_and_never_quoted(
    body: str | bytes, reason: str, expected: tuple[int, int]
) -> None:
    data = body if isinstance(body, bytes) else body.encode()
    for read in (codec.loads_strict, lambda data: run(codec.parsing(data))):
        with pytest.raises(InvalidRequest, match=reason) as caught:
            read(data)
        assert place(caught.value) == expected
        assert "secret" not in caught.value.message


@pytest.mark.parametrize("body", [b"", b" \n"])
def test_an_empty_body_is_named_as_such(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="no body"):
        codec.loads_strict(body)


@pytest.mark.parametrize("letter", ["x", "é", "😀"])
@pytest.mark.parametrize("line_end", ["", "\n"])
@pytest.mark.parametrize(
    "tail",
    [
        '",}',
        "",
        '\\q"}',
        '\t"}',
        '", "b": "' + "y" * LARGE + '" 3}',
        '", "b": "' + "y" * LARGE + '\\q"}',
    ],
)
def test_an_error_in_a_large_body_has_its_place_in_the_whole_of_it(
    letter: str, line_end: str, tail: str
) -> None:
    text = f'{{"model": "m",{line_end} "a": "{letter * LARGE}{tail}'
    with pytest.raises(orjson.JSONDecodeError) as expected:
        orjson.loads(text)
    with pytest.raises(InvalidRequest, match=re.escape(expected.value.msg)) as caught:
        run(codec.parsing(text.encode()))
    assert place(caught.value) == (expected.value.lineno, expected.value.colno)


def test_invalid_utf8_in_a_large_body_is_located() -> None:
    with pytest.raises(InvalidRequest, match="invalid UTF-8") as caught:
        run(codec.parsing(b'{\n"a": "' + "é".encode() * LARGE + b"\xff" + b"x" * LARGE + b'"}'))
    assert place(caught.value) == (2, 7 + LARGE)
