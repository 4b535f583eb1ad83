"""Requests as HTTP/1.1 sends them. Pure."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

# A request larger than this is written in its pieces, without being copied together.
MAX_JOINED_BYTES = 64 * 1024


class Origin(NamedTuple):
    """The server a connection leads to. Connections to the same origin are interchangeable."""

    is_tls: bool
    host: str
    port: int


class Target(NamedTuple):
    """A URL, split into what an HTTP/1.1 request needs."""

    origin: Origin
    path: bytes
    host_header: bytes


def target_of(url: str) -> Target:
    """Split a URL of the settings."""
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    port = parts.port or (443 if is_tls else 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(Origin(is_tls, parts.hostname or "", port), path.encode(), parts.netloc.encode())


def request_head(method: str, target: Target, headers: Mapping[str, str]) -> bytes:
    """A request's head without its last lines. The caller has checked that all values are printable."""
    return b"%b %b HTTP/1.1\r\nhost: %b\r\n%b" % (
        method.encode(),
        target.path,
        target.host_header,
        _lines(headers.items()),
    )


def _lines(headers: Iterable[tuple[str, str]]) -> bytes:
    return "".join([f"{name}: {value}\r\n" for name, value in headers]).encode()


Body = Sequence[bytes | memoryview]


def request_pieces(head: bytes, more: Mapping[str, str], body: Body) -> Body:
    """A request as it is sent: `head`, further headers, the content length, and the body's pieces."""
    lines = _lines(more.items()) if more else b""
    if not body:
        return (b"%b%b\r\n" % (head, lines),)
    size = len(body[0]) if len(body) == 1 else sum(map(len, body))
    if size <= MAX_JOINED_BYTES and len(body) == 1 and isinstance(content := body[0], bytes):
        return (b"%b%bcontent-length: %d\r\n\r\n%b" % (head, lines, size, content),)
    whole_head = b"%b%bcontent-length: %d\r\n\r\n" % (head, lines, size)
    return (b"".join((whole_head, *body)),) if size <= MAX_JOINED_BYTES else (whole_head, *body)


@dataclass(frozen=True, slots=True)
class Upload:
    """A body that is received while it is sent. Without `size_bytes` it is sent with chunked encoding."""

    pieces: AsyncIterator[bytes]
    size_bytes: int | None

    def head(self, head: bytes, more: Iterable[tuple[str, str]]) -> bytes:
        """The complete head of its request."""
        framing = "transfer-encoding: chunked"
        if self.size_bytes is not None:
            framing = f"content-length: {self.size_bytes}"
        return b"%b%b%b\r\n\r\n" % (head, _lines(more), framing.encode())

    def framed(self, piece: bytes) -> bytes:
        """One piece of the body as it is sent."""
        return piece if self.size_bytes is not None else b"%x\r\n%b\r\n" % (len(piece), piece)

    @property
    def end(self) -> bytes:
        return b"0\r\n\r\n" if self.size_bytes is None else b""


class CallOptions(NamedTuple):
    """How a request is sent through an outbound proxy.

    `connect_s` are the seconds for a connection. `until` (loop time) ends the wait for the status;
    `first_byte_s` counts from the end of a body that is received while it is sent. `is_fresh`: on a new
    connection.
    """

    proxy: str
    connect_s: float
    until: float
    first_byte_s: float
    is_fresh: bool = False
