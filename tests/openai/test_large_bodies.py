"""Large bodies, parsed in steps: the value and the place of `model` as in one go."""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from typing import TypeVar

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.openai import codec, large_bodies, model_rewrite

T = TypeVar("T")

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
    parsed, steps = run(large_bodies.parsing(body))
    assert parsed.value == fields
    assert parsed.model_span is not None
    assert body[slice(*parsed.model_span)] == b'"old"'
    assert steps > 4
    made = model_rewrite.replace_model(body, old="old", new="new", span=parsed.model_span)
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
    parsed, _ = run(large_bodies.parsing(body))
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
    assert run(large_bodies.parsing(whole))[0].value == json.loads(whole)


@pytest.mark.parametrize("bad", [b"\xff", b"\n", b"\\x", b"\\ud83d", b"\\ude00", b"\xc3", b"\\u12g4", b'"'])
@pytest.mark.parametrize("place", [LARGE // 2, codec.SMALL_BYTES * 2, LARGE])
def test_what_is_wrong_inside_a_long_string_is_refused(bad: bytes, place: int) -> None:
    body = b'{"model":"m","x":"' + b"y" * place + bad + b"y" * (LARGE - place) + b'"}'
    with pytest.raises(InvalidRequest):
        run(large_bodies.parsing(body))


@pytest.mark.parametrize("offset", range(-8, 9))
def test_a_model_key_at_the_edge_of_a_slice_is_found(offset: int) -> None:
    start = b'{"x":"'
    body = start + b"y" * (1024 * 1024 - len(start) - 2 + offset) + b'","model":"old"}'
    parsed, _ = run(large_bodies.parsing(body))
    assert parsed.model_span is not None
    assert body[slice(*parsed.model_span)] == b'"old"'


def test_parsing_in_steps_refuses_two_models() -> None:
    body = b'{"model":"a","x":"' + b"y" * LARGE + b'","model":"b"}'
    with pytest.raises(InvalidRequest, match="more than once"):
        run(large_bodies.parsing(body))


@pytest.mark.parametrize("value", [5, None, "m" * 10_000, ["x"]])
def test_a_model_that_is_no_name_is_not_looked_for(value: object) -> None:
    parsed, _ = run(large_bodies.parsing(json.dumps({"model": value, "x": "y" * LARGE}).encode()))
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
        run(large_bodies.parsing(text.encode()))
    assert place(caught.value) == (expected.value.lineno, expected.value.colno)


def test_invalid_utf8_in_a_large_body_is_located() -> None:
    with pytest.raises(InvalidRequest, match="invalid UTF-8") as caught:
        run(large_bodies.parsing(b'{\n"a": "' + "é".encode() * LARGE + b"\xff" + b"x" * LARGE + b'"}'))
    assert place(caught.value) == (2, 7 + LARGE)


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
    for read in (codec.loads_strict, lambda data: run(large_bodies.parsing(data))):
        with pytest.raises(InvalidRequest, match=reason) as caught:
            read(data)
        assert place(caught.value) == expected
        assert "secret" not in caught.value.message
