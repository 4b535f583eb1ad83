"""Forms that pass through: the field is found, no byte is lost, and ambiguous forms are refused."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.http1.multipart import MAX_PART_HEAD_BYTES, MAX_VALUE_BYTES, FieldFinder, Value, boundary_of
from tests.support.machine import slowness

FILE = (
    b'Content-Disposition: form-data; name="file"; filename="a\\"; name=model.wav"\r\nContent-Type: audio/wav'
)
MODEL = b'Content-Disposition: form-data; name="model"'


def form(*parts: tuple[bytes, bytes], boundary: bytes = b"XX", end: bytes = b"--\r\n") -> bytes:
    pieces = b"".join(
        b"--" + boundary + b"\r\n" + head + b"\r\n\r\n" + body + b"\r\n" for head, body in parts
    )
    return pieces + b"--" + boundary + end


def found(data: bytes, *cuts: int, boundary: bytes = b"XX") -> list[bytes | Value]:
    finder = FieldFinder(boundary, "model")
    pieces: list[bytes | Value] = []
    edges = [0, *sorted(cuts), len(data)]
    for start, stop in pairwise(edges):
        pieces += finder.feed(data[start:stop])
    finder.end()
    assert finder.is_found == any(isinstance(piece, Value) for piece in pieces)
    return pieces


def joined(pieces: list[bytes | Value]) -> bytes:
    return b"".join(piece.raw if isinstance(piece, Value) else piece for piece in pieces)


def values(pieces: list[bytes | Value]) -> list[bytes]:
    return [piece.raw for piece in pieces if isinstance(piece, Value)]


BODY = b"RIFF\r\n--X\r\n-\r\r\n--\n--XY\n\x00\xff"
WHOLE = form((FILE, BODY), (MODEL, b"groq/whisper"), (b'Content-Disposition: form-data; name="n"', b""))


def test_the_value_is_found_and_every_byte_kept() -> None:
    pieces = found(WHOLE)
    assert values(pieces) == [b"groq/whisper"]
    assert joined(pieces) == WHOLE


def test_it_is_found_however_the_bytes_are_split() -> None:
    for cut in range(len(WHOLE)):
        pieces = found(WHOLE, cut)
        assert values(pieces) == [b"groq/whisper"], cut
        assert joined(pieces) == WHOLE
    pieces = found(WHOLE, *range(len(WHOLE)))
    assert (values(pieces), joined(pieces)) == ([b"groq/whisper"], WHOLE)


@given(
    body=st.lists(st.sampled_from([b"\r", b"\n", b"-", b"X", b"--X", b"\r\n--", b"a"]), max_size=30).map(
        b"".join
    ),
    cuts=st.lists(st.integers(0, 400), max_size=6),
    value=st.binary(max_size=20).filter(lambda value: b"\r" not in value and b"\n" not in value),
)
def test_no_content_is_taken_for_a_boundary(body: bytes, cuts: list[int], value: bytes) -> None:
    data = form((FILE, body), (MODEL, value))
    if b"\n--XX" in body or body.startswith(b"--XX"):
        return
    pieces = found(data, *(cut for cut in cuts if cut < len(data)))
    assert (values(pieces), joined(pieces)) == ([value], data)


def test_content_is_returned_as_it_arrives() -> None:
    finder = FieldFinder(b"XX", "model")
    list(finder.feed(b"--XX\r\n" + FILE + b"\r\n\r\n"))
    assert list(finder.feed(b"a" * 1000)) == [b"a" * 1000]
    assert list(finder.feed(b"b\r\n--X")) == [b"b"]
    assert list(finder.feed(b"c")) == [b"\r\n--Xc"]


def test_a_form_without_the_field_has_none() -> None:
    pieces = found(form((FILE, b"x")))
    assert values(pieces) == []


def test_an_empty_form_is_one() -> None:
    assert joined(found(form())) == form()


def test_what_follows_the_end_is_kept() -> None:
    data = form((MODEL, b"m")) + b"epilogue\r\n--XX"
    assert joined(found(data)) == data


@pytest.mark.parametrize(
    "head",
    [
        b"content-disposition:form-data;name=model",
        b'CONTENT-DISPOSITION: FORM-DATA; NAME="model"',
        b'X-Other: 1\r\nContent-Disposition: form-data ; filename="x" ; name = "model"',
        b"Content-Disposition: form-data; filename*=utf-8''n%C3%A4me; name=\"model\"",
    ],
)
def test_the_spellings_of_clients_are_understood(head: bytes) -> None:
    assert values(found(form((head, b"m")))) == [b"m"]


@pytest.mark.parametrize(
    "data",
    [
        form((MODEL, b"a"), (MODEL, b"b")),
        form((b'Content-Disposition: form-data; name="model"; name="x"', b"a")),
        form((b"Content-Disposition: form-data; name*=utf-8''model", b"a")),
        form((b'Content-Disposition: form-data; name="mod\\el"', b"a")),
        form((b'Content-Disposition: form-data;\r\n name="model"', b"a")),
        form((b'Content-Disposition:\r\n form-data; name="model"', b"a")),
        form((b'X: y\nContent-Disposition: form-data; name="model"', b"a")),
        form((b'Content-Disposition: attachment; name="model"', b"a")),
        form((b'Content-Disposition: form-data; name="model" x', b"a")),
        form((b'Content-Disposition: form-data; name="model', b"a")),
        form((FILE, b"x\n--XX\r\n" + MODEL + b"\r\n\r\na")),
        b"--XX\r\n" + FILE + b"\r\n\r\n--XX\r\n" + MODEL + b"\r\n\r\nhidden\r\n--XX--\r\n",
        form((MODEL, b"x" * (MAX_VALUE_BYTES + 1))),
        form((b"x" * (MAX_PART_HEAD_BYTES + 1), b"a")),
        form((MODEL, b"a"), end=b""),
        form((MODEL, b"a"), end=b"junk"),
        form((MODEL, b"a"))[:-20],
        b"preamble\r\n" + form((MODEL, b"a")),
        b"",
        b"--X",
        b"{}",
    ],
    ids=range(21),
)
def test_ambiguous_or_unreadable_forms_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        found(data)
    with pytest.raises(InvalidRequest):
        found(data, *range(len(data)))


@pytest.mark.parametrize("opening", [MODEL + b"\r\n\r\n", b"X-Long: "], ids=["value", "head"])
def test_what_never_ends_is_not_gathered(opening: bytes) -> None:
    finder = FieldFinder(b"XX", "model")
    list(finder.feed(b"--XX\r\n" + opening))
    with pytest.raises(InvalidRequest):
        list(finder.feed(b"x" * (MAX_PART_HEAD_BYTES + 1)))


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('Multipart/Form-Data;charset=utf-8; boundary="a b:c"', b"a b:c"),
        ("multipart/form-data; boundary=----WebKitFormBoundaryx; charset=utf-8", b"----WebKitFormBoundaryx"),
    ],
)
def test_the_boundary_is_read(content_type: str, boundary: bytes) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary="a',
        "multipart/mixed; boundary=a",
        "multipart/form-data; boundary=" + "a" * 201,
        "multipart/form-data; boundary=ü",
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary=a\x00",
    ],
)
def test_a_form_without_a_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidRequest):
        boundary_of(content_type)


def test_many_small_parts_take_no_longer_than_their_bytes() -> None:
    piece = b"--b" + b"\r\n\r\n.\r\n--b" * 100_000
    finder = FieldFinder(b"b", "model")
    began = time.process_time()
    assert b"".join(part for part in finder.feed(piece) if isinstance(part, bytes)) == piece
    assert time.process_time() - began < 1 * slowness()
