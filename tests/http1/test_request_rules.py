"""Request heads that a parser accepts and the standard does not."""

from __future__ import annotations

import pytest

from sanic_proxy.errors import ClientError, InvalidRequest
from sanic_proxy.http1.request_rules import check_host, check_transfer_coding, host_in_target, is_host


@pytest.mark.parametrize("value", ["chunked", "Chunked", " chunked "])
def test_chunked_is_accepted(value: str) -> None:
    check_transfer_coding(value, version="1.1", is_repeated=False)


@pytest.mark.parametrize(
    ("value", "version", "is_repeated", "status"),
    [
        ("gzip, chunked", "1.1", False, 501),
        ("cow, chunked", "1.1", False, 501),
        ("cow", "1.1", False, 400),
        ("gzip", "1.1", False, 400),
        ("identity", "1.1", False, 400),
        ("chunked, gzip", "1.1", False, 400),
        (",chunked", "1.1", False, 400),
        ("chunked,", "1.1", False, 400),
        ("", "1.1", False, 400),
        ("chunked, chunked", "1.1", False, 400),
        ("chunked, chunked", "1.1", True, 400),
        ("chunked;q=1", "1.1", False, 400),
        ("chunked", "1.0", False, 400),
    ],
)
def test_other_transfer_codings_are_refused(value: str, version: str, is_repeated: bool, status: int) -> None:
    with pytest.raises(ClientError) as caught:
        check_transfer_coding(value, version=version, is_repeated=is_repeated)
    assert caught.value.status == status


@pytest.mark.parametrize(
    "host",
    [
        *(
            "localhost",
            "localhost:80",
            "LOCALHOST",
            "a.example.",
            "xn--bcher-kva.example",
            "under_score",
            "a:",
        ),
        *("127.0.0.1", "127.0.0.1:65535", "[::1]", "[::1]:8000", "[2001:db8::1]", "[fe80::1%25eth0]:1"),
    ],
)
def test_hosts(host: str) -> None:
    assert is_host(host)
    check_host(host, version="1.1", is_repeated=False)


@pytest.mark.parametrize(
    "host",
    [
        *("", " ", "[::1].evil.com", "[::1]evil", "[::1", "::1", "[]", "[x]", "[127.0.0.1]", "a]", "[[::1]]"),
        *(
            "a b",
            "a,b",
            "localhost, evil",
            "a/b",
            "a/admin?x=",
            "a?x",
            "a#x",
            "user@a",
            "http://a",
            "a\\b",
            "é",
        ),
        *("a:x", "a:-1", "a:+1", "a:65536", "a:8000000000", "a:1:2", "a:\u0661", ":80", "a\x00", "a\tb"),
        *("[::1]:x", "[::1]x:1", "<a>", '"a"'),
    ],
)
def test_malformed_hosts_are_refused(host: str) -> None:
    assert not is_host(host)
    with pytest.raises(InvalidRequest, match="not a valid host"):
        check_host(host, version="1.1", is_repeated=False)


@pytest.mark.parametrize(
    ("value", "version", "is_repeated"), [(None, "1.1", False), ("a, b", "1.1", True), ("a, a", "1.0", True)]
)
def test_a_request_has_one_host(value: str | None, version: str, is_repeated: bool) -> None:
    with pytest.raises(InvalidRequest):
        check_host(value, version=version, is_repeated=is_repeated)


def test_http_1_0_needs_no_host() -> None:
    check_host(None, version="1.0", is_repeated=False)


@pytest.mark.parametrize(
    ("target", "method", "host"),
    [
        (b"/", "GET", None),
        (b"//a/b", "GET", None),
        (b"/a?http://b", "GET", None),
        (b"*", "OPTIONS", None),
        (b"http://a", "GET", "a"),
        (b"HTTPS://a:1/b?c", "POST", "a:1"),
        (b"http://[::1]:1?x", "GET", "[::1]:1"),
    ],
)
def test_the_host_of_a_target(target: bytes, method: str, host: str | None) -> None:
    assert host_in_target(target, method) == host


@pytest.mark.parametrize(
    ("target", "method"),
    [
        (b"*", "GET"),
        (b"*", "POST"),
        (b"*x", "OPTIONS"),
        (b"localhost:80", "GET"),
        (b"localhost", "GET"),
        (b"", "GET"),
        (b"?x", "GET"),
        (b"ftp://a/b", "GET"),
        (b"file:///etc/passwd", "GET"),
        (b"http:/a", "GET"),
        (b"http://", "GET"),
        (b"http:///a", "GET"),
        (b"http://user@a/", "GET"),
        (b"http://a@b:1/", "GET"),
        (b"http://[::1].evil.com/", "GET"),
        (b"http://a:99999999/", "GET"),
        (b"\xff", "GET"),
    ],
)
def test_targets_that_do_not_fit_are_refused(target: bytes, method: str) -> None:
    with pytest.raises(InvalidRequest):
        host_in_target(target, method)
