"""The request and the answer as this proxy extends Sanic's: no work that nobody asked for.

Sanic's request builds two header maps and two more dictionaries before a handler runs. Here they are
built when somebody reads them.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from httptools import parse_url
from httptools.parser.errors import HttpParserInvalidURLError
from sanic import HTTPResponse, Request
from sanic.compat import Header
from sanic.exceptions import BadURL, RequestCancelled, ServerError, URITooLong
from sanic.http import Http
from sanic.request.parameters import RequestParameters
from sanic.response import BaseHTTPResponse
from typing_extensions import override

from sanic_proxy.config.model import is_loopback
from sanic_proxy.errors import ProxyError
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.openai.codec import ParsedBody, Span

# httptools keeps offsets into a URL in 16 bits.
MAX_URL_BYTES = 65535

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_UNSAFE = re.compile(r"[\r\n\x00]")
# Ids must be unique, not secret. Seeded from the operating system when a worker imports this.
_random_bits = random.Random().getrandbits  # noqa: S311


def new_request_id() -> str:
    """32 hexadecimal digits."""
    return f"{_random_bits(128):032x}"


_NONE: frozenset[str] = frozenset()


class HeaderFields(dict[str, str]):
    """The headers of one request by lower-case name.

    Those sent more than once are joined by commas (RFC 9110, 5.3) and named in `repeated`, for the
    places where a second one is an attack.
    """

    __slots__ = ("repeated",)

    def __init__(self) -> None:  # a dictionary of nothing needs no making
        self.repeated = _NONE

    def add(self, name: bytes, value: bytes) -> None:
        key = _KNOWN_NAMES.get(name) or name.decode("latin-1").lower()
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = value.decode("utf-8", "surrogateescape")
        if key in self:
            self.repeated |= {key}
            text = f"{self[key]}, {text}"
        self[key] = text

    @property
    def size_chars(self) -> int:
        """What they take in a head."""
        return sum(len(name) + len(value) + 4 for name, value in self.items())


# The spellings that nearly all requests use, so that they need no decoding.
_KNOWN_NAMES = {
    spelling.encode(): name
    for name in (
        *("accept", "accept-encoding", "authorization", "connection", "content-length", "content-type"),
        *("host", "user-agent", "x-stainless-arch", "x-stainless-async", "x-stainless-lang"),
        *("x-stainless-os", "x-stainless-package-version", "x-stainless-read-timeout"),
        *("x-stainless-retry-count", "x-stainless-runtime", "x-stainless-runtime-version"),
    )
    for spelling in (name, name.title())
}


def public_url(headers: HeaderFields, peer: str) -> str:
    """The scheme and host by which the client reaches the proxy.

    X-Forwarded-Proto and -Host are trusted where the peer is on this machine: it is the reverse proxy in
    front, which has to set them. A page cannot set them for another origin: they need a preflight, which
    does not carry them.
    """
    host = headers.get("host") or "127.0.0.1:8000"
    scheme = "http"
    if not peer or is_loopback(peer):  # a Unix socket has no address
        host = _first(headers.get("x-forwarded-host", "")) or host
        scheme = "https" if _first(headers.get("x-forwarded-proto", "")).lower() == "https" else scheme
    return f"{scheme}://{host}"


def _first(values: str) -> str:
    """The value of the outermost of several reverse proxies."""
    return values.partition(",")[0].strip()


def header_lines(headers: Iterable[tuple[str, str]]) -> str:
    """Headers as they stand in an answer's head. A line break or NUL in one is taken out."""
    lines = [f"{name}: {value}\r\n" for name, value in headers]
    text = "".join(lines)
    if text.count("\n") == text.count("\r") == len(lines) and "\0" not in text:
        return text
    return "".join([_UNSAFE.sub("", line) + "\r\n" for line in lines])


class Reply(HTTPResponse):
    """An answer whose header lines are text already: `lines` is what `header_lines` makes."""

    __slots__ = ("lines",)

    def __init__(self, lines: str, body: bytes = b"", *, status: int = 200) -> None:
        self.asgi = False
        self.body = body
        self.content_type = None
        self.stream = None
        self.status = status
        self.headers = Header()
        self._cookies = None
        self.lines = lines

    @override
    async def send(self, data: Any = None, end_stream: bool | None = None) -> None:
        """Sanic's, for bytes."""
        stream = self.stream
        if stream is not None and (send := stream.send) is not None:
            ends = data is None if end_stream is None else end_stream
            await send(data or b"", ends)


class ProxyRequest(Request[Any, Any]):
    """Sanic's request and the record of what becomes of it."""

    __slots__ = (
        "_grouped_args",
        "_plain_args",
        "answer_lines",
        "cut_by",
        "failure",
        "fields",
        "held_bytes",
        "is_received",
        "is_upload",
        "keeps_alive",
        "model_span",
        "parsed",
        "path",
        "pieces",
        "record",
        "size_bytes",
        "unread_bytes",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913, PLR0917 - Sanic's signature
        self,
        url_bytes: bytes,
        headers: HeaderFields,
        version: str,
        method: str,
        transport: Any,
        app: Any,
        head: bytes = b"",
        stream_id: int = 0,
    ) -> None:
        # Sanic's own, without what is dear and nobody reads: see the properties below.
        self.raw_url = url_bytes
        self.app = app
        self.version = version
        self.method = method
        self.transport = transport
        self.head = head
        self.body = b""
        self.responded = self._request_middleware_started = self._response_middleware_started = False
        self._ctx = self._id = self._name = self._protocol = self.conn_info = self.route = self.stream = None
        self.parsed_accept = self.parsed_cookies = self.parsed_credentials = self.parsed_files = None
        self.parsed_form = self.parsed_forwarded = self.parsed_json = self.parsed_token = None
        self._stream_id = stream_id
        # Ours
        self.fields = headers
        self.path = _path_of(url_bytes)  # type: ignore[misc]
        given = headers.get("x-request-id")
        request_id = given if given and _REQUEST_ID.fullmatch(given) else new_request_id()
        self.record = RequestRecord(request_id, method, self.path)
        self.answer_lines = f"x-request-id: {request_id}\r\n"
        # The body on its way: its pieces, how much came, whether it is whole, why it never will be.
        self.pieces: list[bytes] = []
        self.size_bytes = 0
        self.is_received = False
        # A form with files may be large: its body is read piece by piece, by the handler alone.
        kind = headers.get("content-type")
        self.is_upload = kind is not None and kind != "application/json" and kind[:10].lower() == "multipart/"
        self.unread_bytes = 0
        self.failure: Exception | None = None
        self.keeps_alive = True
        self.cut_by: ProxyError | None = None
        self.held_bytes = 0
        # Of a large JSON body, once it has been parsed: its value until a handler takes it, and the place of
        # its model's name.
        self.parsed: ParsedBody | None = None
        self.model_span: Span | None = None

    @property
    def headers(self) -> Header:  # type: ignore[explicit-override, override]
        """Sanic's header map, for the code that wants it; the proxy's own reads `fields`."""
        return Header(self.fields)

    @property
    def parsed_args(self) -> defaultdict[Any, Any]:  # type: ignore[explicit-override, override]
        """Sanic's memory of the query, made when it is read."""
        if not hasattr(self, "_grouped_args"):
            self._grouped_args: defaultdict[Any, Any] = defaultdict(RequestParameters)
        return self._grouped_args

    @property
    def parsed_not_grouped_args(self) -> defaultdict[Any, Any]:  # type: ignore[explicit-override, override]
        """The same for the query as a list."""
        if not hasattr(self, "_plain_args"):
            self._plain_args: defaultdict[Any, Any] = defaultdict(list)
        return self._plain_args

    @property
    def _parsed_url(self) -> Any:  # type: ignore[explicit-override, override]
        """httptools's view of the URL, for Sanic's properties of it."""
        return _parsed(self.raw_url)

    @property
    def declared_bytes(self) -> int | None:
        """The length that the body is to have; None where it comes in chunks, or there is none."""
        length = self.fields.get("content-length")
        return None if length is None else int(length)

    def drop_body(self) -> None:
        """Whatever else comes of the body is not kept."""
        self.pieces.clear()
        self.unread_bytes = 0
        if self.failure is None:
            self.failure = RequestCancelled()  # type: ignore[assignment]

    def end_connection(self) -> None:
        """Close the connection when the answer that has begun is over."""
        if isinstance(self.stream, Http):
            self.stream.keep_alive = False

    def cut(self, error: ProxyError) -> None:
        """End the handler by a cancellation, whose reason the client is to be told."""
        if self.cut_by is None and isinstance(self.stream, Http):
            self.cut_by = error
            self.end_connection()
            task = self.stream.protocol._task
            if task is not None:
                task.cancel()

    def abort(self) -> None:
        """Break the connection off at once, so that nothing on it looks like an end."""
        transport: Any = self.transport  # uvloop's is no asyncio.Transport
        if transport is not None:
            transport.abort()

    async def read_piece(self) -> bytes:
        """What has come of an upload's body since it was last read; b"" at its end. Waits for it."""
        if self.stream is None or not self.stream.request_body:
            return b""
        return await self.stream.read() or b""  # type: ignore[attr-defined]

    @override
    async def receive_body(self) -> None:
        if self.stream is not None and (not self.is_received or self.failure is not None):
            await self.stream.receive_all()  # type: ignore[attr-defined]
        self.body = self.take_body()

    def take_body(self) -> bytes:
        """What has come of the body since it was last taken."""
        pieces = self.pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.unread_bytes = 0
        return data

    def answer(self, response: BaseHTTPResponse) -> None:
        """Make `response` the answer; nothing is sent yet. Raises ServerError for a second one."""
        stream = self.stream
        if stream is None or self.responded:
            raise ServerError("A request has one answer")
        stream.respond(response)
        self.responded = True
        record = self.record
        record.status = response.status
        if response.body:
            record.sent(len(response.body))

    def begin(self, response: Reply, first: bytes, size_bytes: int | None = None) -> None:
        """Make `response` a streamed answer, and send its head and `first` without waiting.

        `size_bytes` is the length of the whole answer, where it is known.
        """
        self.answer(response)
        self.stream.begin(first, size_bytes)  # type: ignore[union-attr]
        self.record.sent(len(first))

    def push(self, frames: bytes) -> None:
        """Send a part of the streamed answer at once, unless the client is slow."""
        if self.stream.is_writable:  # type: ignore[union-attr]
            self.stream.push(frames)  # type: ignore[union-attr]
            self.record.sent(len(frames))

    @property
    def sent_at(self) -> float:
        """When the client was last sent something; monotonic seconds."""
        sent_at: float = self.stream.sent_at  # type: ignore[union-attr]
        return sent_at

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The worker's. Before Python 3.12, asking asyncio for it asks the kernel each time."""
        loop: asyncio.AbstractEventLoop = self.stream.loop  # type: ignore[union-attr]
        return loop

    @override
    async def respond(
        self,
        response: BaseHTTPResponse | None = None,
        *,
        status: int = 200,
        headers: Any = None,
        content_type: str | None = None,
    ) -> Any:
        made = response or HTTPResponse(status=status, headers=headers, content_type=content_type)
        self.answer(made)
        return made


def _path_of(url: bytes) -> str:
    if len(url) > MAX_URL_BYTES or not url.startswith(b"/"):
        path: bytes = _parsed(url).path or b"/"  # raises for what is none; http://host is one
    else:
        path = url.partition(b"?")[0].partition(b"#")[0]
    return path.decode()


def _parsed(url: bytes) -> Any:
    if len(url) > MAX_URL_BYTES:
        raise URITooLong("The URL is longer than 65535 bytes")
    try:
        return parse_url(url)
    except HttpParserInvalidURLError:
        raise BadURL("The URL is not valid") from None
