"""Heads that come again: only the digits of the length may differ."""

from __future__ import annotations

import pytest

from sanic_proxy.http1.repeated_head import MAX_BODY_BYTES, MAX_HEAD_BYTES, RepeatedHead

START = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n"


def request(length: bytes, body: bytes, *, before: bytes = START, after: bytes = b"\r\n\r\n") -> bytes:
    return before + b"Content-Length: " + length + after + body


def known(data: bytes, length: str) -> RepeatedHead:
    head = RepeatedHead.of(data, length)
    assert head is not None
    return head


@pytest.mark.parametrize("after", [b"\r\n\r\n", b"\r\nx: y\r\n\r\n", b" \r\n\r\n"])
def test_the_same_head_is_recognised_with_any_length_of_as_many_digits(after: bytes) -> None:
    head = known(request(b"12", b"x" * 12, after=after), "12")
    assert head.body_bytes(request(b"12", b"y" * 12, after=after)) == 12
    assert head.body_bytes(request(b"99", b"y" * 99, after=after)) == 99


@pytest.mark.parametrize(
    "other",
    [
        request(b"12", b"x" * 11),
        request(b"12", b"x" * 13),
        request(b"012", b"x" * 12),
        request(b"+2", b"x" * 12),
        request(b"1 ", b"x" * 12),
        request(b"0c", b"x" * 12),
        request(b"123", b"x" * 123),
        request(b"5", b"x" * 5),
        request(b"12", b"x" * 12, before=START.replace(b"a", b"b")),
        request(b"12", b"x" * 12, before=START.replace(b"POST", b"GET")),
        request(b"12", b"x" * 12, after=b"\r\ncontent-length: 12\r\n\r\n"),
        request(b"12", b"x" * 12, after=b"\r\ntransfer-encoding: chunked\r\n\r\n"),
        request(b"12", b"x" * 12, after=b"\n\n"),
        b"\r\n" + request(b"12", b"x" * 12),
        request(b"12", b"x" * 12) * 2,
        request(b"12", b"x" * 12)[:-20],
        b"",
    ],
)
def test_anything_else_is_parsed(other: bytes) -> None:
    assert known(request(b"12", b"x" * 12), "12").body_bytes(other) == -1


@pytest.mark.parametrize(
    "data",
    [
        request(b"12", b"x" * 11),
        request(b"12", b"x" * 12, after=b"\r\ncontent-length: 12\r\n\r\n"),
        request(b"12", b"x" * 12, before=START + b"x-content-length: 12\r\n"),
        request(b"12", b"x" * 12, before=b"POST /?content-length: 12 HTTP/1.1\r\n"),
        request(b"12", b"x" * 12, after=b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
        request(b"12", b"x" * 12, after=b"\r\nExpect: 100-continue\r\n\r\n"),
        request(b"12", b"x" * 12, after=b"\n\n"),
        request(b"12", b"x" * 12, before=START + b"x: " + b"y" * MAX_HEAD_BYTES + b"\r\n"),
        b"\r\n\r\n" + request(b"12", b"x" * 12),
    ],
)
def test_an_unusual_head_is_not_remembered(data: bytes) -> None:
    assert RepeatedHead.of(data, "12") is None


@pytest.mark.parametrize("length", ["", "a", "-1", "1_0", "\u0661"])
def test_a_length_has_plain_digits(length: str) -> None:
    assert RepeatedHead.of(request(length.encode(), b""), length) is None


def test_a_large_body_is_parsed() -> None:
    head = known(request(b"10000", b"x" * 10_000), "10000")
    size = MAX_BODY_BYTES + 1
    assert head.body_bytes(request(b"%d" % size, b"x" * size)) == -1
