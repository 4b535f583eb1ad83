"""Requests as they are sent."""

from __future__ import annotations

import pytest

from sanic_proxy.upstream.request import Origin, request_head, request_pieces, target_of


@pytest.mark.parametrize(
    ("url", "origin", "path", "host"),
    [
        ("https://a.example/v1/x", Origin(True, "a.example", 443), b"/v1/x", b"a.example"),
        ("http://127.0.0.1:9000", Origin(False, "127.0.0.1", 9000), b"/", b"127.0.0.1:9000"),
        ("http://[::1]:9000/a?b=c", Origin(False, "::1", 9000), b"/a?b=c", b"[::1]:9000"),
    ],
)
def test_a_url_is_taken_apart(url: str, origin: Origin, path: bytes, host: bytes) -> None:
    assert target_of(url) == (origin, path, host)


def test_a_request_has_one_host_and_one_length() -> None:
    head = request_head("POST", target_of("http://h/p"), {"a": "b"})
    (made,) = request_pieces(head, {"c": "d"}, (b"{", b"}"))
    assert made == b"POST /p HTTP/1.1\r\nhost: h\r\na: b\r\nc: d\r\ncontent-length: 2\r\n\r\n{}"
    assert request_pieces(b"GET /p HTTP/1.1\r\nhost: h\r\n", {}, ()) == (
        b"GET /p HTTP/1.1\r\nhost: h\r\n\r\n",
    )


def test_a_large_body_is_not_copied() -> None:
    body = b"x" * 100_000
    head, piece = request_pieces(b"", {}, (body,))
    assert piece is body
    assert head == b"content-length: 100000\r\n\r\n"
