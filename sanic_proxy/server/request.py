"""The request and the response as this proxy extends Sanic's: nothing is built before it is read.

Sanic's request builds two header maps and two more dictionaries before a handler runs, and its response a
third map that is then formatted header by header. The proxy's own code reads `fields` (a plain dictionary)
and writes `Reply.lines` (text). Sanic's `request.headers` and `response.headers` exist as well and may be
changed, by a middleware for instance: they are made from the plain form on their first use. From then on a
change of `request.headers` is written through to `fields`, and the head of a response is formatted from
its `headers` in place of its `lines`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from httptools import parse_url
from httptools.parser.errors import HttpParserInvalidURLError
from sanic.compat import Header
from sanic.exceptions import BadURL, RequestCancelled, ServerError, URITooLong
from sanic.http import Http
from sanic.request.parameters import RequestParameters
from sanic.response import BaseHTTPResponse
from typing_extensions import override

from sanic_proxy.config.model import is_loopback
from sanic_proxy.errors import ProxyError
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.openai.codec import Span
from sanic_proxy.openai.large_bodies import ParsedBody
from sanic_proxy.routing.sessions import HeaderName
from sanic_proxy.server import compat

logger = logging.getLogger(__name__)

# httptools keeps offsets into a URL in 16 bits.
MAX_URL_BYTES = 65535

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_UNSAFE = re.compile(r"[\r\n\x00]")
# Ids must be unique, not secret. Seeded from the operating system when a worker imports this.
_bits = random.Random().getrandbits  # noqa: S311


_NONE: Mapping[str, list[str]] = MappingProxyType({})


class HeaderFields(dict[str, str]):
    """The headers of one request by lower-case name.

    Values of a header that was sent more than once are joined by commas (RFC 9110, 5.3), those of Cookie by
    semicolons (RFC 9113, 8.2.3). `repeated` has the separate values, for the places where a second one is an
    attack.
    """

    repeated: Mapping[str, list[str]] = _NONE  # of the class: most requests need none of their own

    def add(self, name: bytes, value: bytes) -> None:
        key = KNOWN_NAMES.get(name) or name.decode("latin-1").lower()
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = value.decode("utf-8", "surrogateescape")
        if key in self:
            self._repeat(key, text)
        else:
            self[key] = text

    def _repeat(self, key: str, text: str) -> None:
        values = [*self.repeated.get(key, [self[key]]), text]
        self.repeated = {**self.repeated, key: values}
        self[key] = ("; " if key == "cookie" else ", ").join(values)

    def items_sent(self) -> list[tuple[str, str]]:
        """Each name and value, a repeated header as often as it was sent."""
        pairs = [(name, self.repeated.get(name, [value])) for name, value in self.items()]
        return [(name, value) for name, values in pairs for value in values]

    def replace(self, headers: Iterable[tuple[str, object]]) -> None:
        """Hold `headers` and nothing else."""
        pairs = [(name.lower(), str(value)) for name, value in headers]
        self.clear()
        self.repeated = _NONE
        for name, value in pairs:
            if name in self:
                self._repeat(name, value)
            else:
                self[name] = value

    @property
    def size_chars(self) -> int:
        """What they take in a head."""
        return sum(len(name) + len(value) + 4 for name, value in self.items())


def _written_through(name: str) -> Callable[..., Any]:
    """A mutating method of Sanic's header map that brings the change to `fields`."""
    change = getattr(Header, name)

    def method(self: RequestHeaders, *args: Any, **kwargs: Any) -> Any:
        try:
            return change(self, *args, **kwargs)
        finally:
            if self.fields is not None:
                self.fields.replace(self.items())

    method.__name__ = name
    return method


class RequestHeaders(Header):
    """`request.headers`: Sanic's header map of the fields, which follow its changes; not those of a copy."""

    fields: HeaderFields | None = None

    @classmethod
    def of(cls, fields: HeaderFields) -> RequestHeaders:
        headers = cls(fields.items_sent())
        headers.fields = fields
        return headers


_MUTATORS = (
    *("__delitem__", "__ior__", "__setitem__", "add", "clear", "extend", "merge"),
    *("pop", "popall", "popitem", "popone", "setdefault", "update"),
)
for _name in _MUTATORS:
    if hasattr(Header, _name):  # multidict has more of them with each year
        setattr(RequestHeaders, _name, _written_through(_name))


# The spellings that nearly all requests use, so that they need no decoding.
KNOWN_NAMES = {
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


def is_own_origin(origin: str, headers: HeaderFields, peer: str) -> bool:
    """Whether a page of `origin` was served by the proxy, at the address that this request goes to."""
    return _normal(origin) == _normal(public_url(headers, peer))


def _normal(origin: str) -> str:
    """An origin as browsers write it: lower case, without the scheme's default port."""
    scheme, _, host = origin.lower().partition("://")
    return f"{scheme}://{host.removesuffix(':443' if scheme == 'https' else ':80')}"


def client_address(headers: HeaderFields, peer: str) -> str:
    """The address of the client, by a reverse proxy on this machine if there is one; else `peer`."""
    if peer and not is_loopback(peer):
        return peer
    forwarded = headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
    return forwarded or headers.get("x-real-ip", "").strip() or peer


def port_of(request: ProxyRequest) -> str:
    """The port that the request came to: "admin", "metrics", or "" for the main one."""
    return "" if request.conn_info is None else getattr(request.conn_info.ctx, "port", "")


def _first(values: str) -> str:
    """The value of the outermost of several reverse proxies."""
    return values.partition(",")[0].strip()


def header_lines(headers: Collection[tuple[str, str]]) -> str:
    """Headers as in an answer's head. Line breaks and NULs are removed."""
    text = ""
    for name, value in headers:
        text += f"{name}: {value}\r\n"
    if text.count("\n") == text.count("\r") == len(headers) and "\0" not in text:
        return text
    return "".join([_UNSAFE.sub("", f"{name}: {value}") + "\r\n" for name, value in headers])


def parsed_lines(lines: str) -> list[tuple[str, str]]:
    """The headers of what `header_lines` has made."""
    pairs = [line.partition(": ") for line in lines.split("\r\n") if line]
    return [(name, value) for name, _, value in pairs]


class Reply(compat.Response):
    """A response whose header lines are text already: `lines` is what `header_lines` makes.

    Once `headers` has been read, they count and `lines` do not: `has_headers` says so.
    """

    __slots__ = ("_headers", "has_headers", "lines")

    def __init__(self, lines: str, body: bytes = b"", *, status: int = 200) -> None:
        self.asgi = self.has_headers = False
        self.body = body
        self.content_type = None
        self.stream = None
        self.status = status
        self.cookie_jar = None
        self.lines = lines

    @property  # type: ignore[explicit-override]
    def headers(self) -> Header:
        """Sanic's header map, made from the lines."""
        if not self.has_headers:
            self._headers = Header(parsed_lines(self.lines))
            self.has_headers = True
        return self._headers

    @headers.setter
    def headers(self, headers: Header) -> None:
        self._headers = headers
        self.has_headers = True

    @override
    async def send(self, data: Any = None, end_stream: bool | None = None) -> None:
        """Sanic's, for bytes."""
        stream = self.stream
        if stream is not None and (send := stream.send) is not None:
            ends = data is None if end_stream is None else end_stream
            await send(data or b"", ends)


class ProxyRequest(compat.BareRequest):
    """Sanic's request and the record of what becomes of it."""

    __slots__ = (
        "_grouped_args",
        "_header_map",
        "_plain_args",
        "answer_lines",
        "cut_by",
        "failure",
        "fields",
        "header_name",
        "held_bytes",
        "is_form",
        "is_received",
        "is_upload",
        "keeps_alive",
        "model_span",
        "parsed",
        "path",
        "pieces",
        "record",
        "size_bytes",
        "state",
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
        stream_id: int = 0,
        path: str | None = None,
    ) -> None:
        # Sanic's own, without the expensive fields that are rarely read: see the properties below.
        self.raw_url = url_bytes
        self.app = app
        self.version = version
        self.method = method
        self.transport = transport
        self.body = b""
        self.responded = self.has_run_request_middleware = self.has_run_response_middleware = False
        self.ctx_object = self.route_name = self.protocol_object = None
        self.conn_info = self.route = self.stream = None
        self.parsed_accept = self.parsed_cookies = self.parsed_credentials = self.parsed_files = None
        self.parsed_form = self.parsed_forwarded = self.parsed_json = self.parsed_token = None
        self.http3_stream = stream_id
        self.path_parameters = {}
        # Ours
        self.fields = headers
        # The name of the session in the headers, if it is known from an earlier request.
        self.header_name: HeaderName | None = None
        self.path = path = _path_of(url_bytes) if path is None else path  # type: ignore[misc]
        given = headers.get("x-request-id")
        request_id = given if given and _REQUEST_ID.fullmatch(given) else _bits(128).to_bytes(16).hex()
        self.given_id = request_id
        self.record = RequestRecord(request_id, method, path)
        self.answer_lines = f"x-request-id: {request_id}\r\n"
        # The body on its way: its pieces, how much came, whether it is whole, why it never will be.
        self.pieces: list[bytes] = []
        self.size_bytes = 0
        self.is_received = False
        # A form with files may be large: its body is read piece by piece, by the handler alone.
        kind = headers.get("content-type")
        self.is_upload = self.is_form = (
            kind is not None and kind != "application/json" and kind[:10].lower() == "multipart/"
        )
        self.unread_bytes = 0
        self.state: Any  # the worker's when the request began; a reload replaces it for later ones
        self.failure: BaseException | None = None
        self.keeps_alive = True
        self.cut_by: ProxyError | None = None
        self.held_bytes = 0
        # Of a large JSON body, once it has been parsed: its value until a handler takes it, and the place of
        # its model's name.
        self.parsed: ParsedBody | None = None
        self.model_span: Span | None = None

    @property
    def headers(self) -> Header:  # type: ignore[explicit-override, override]
        """Sanic's header map; a change of it is a change of `fields`, which the proxy's own code reads."""
        if not hasattr(self, "_header_map"):
            self._header_map = RequestHeaders.of(self.fields)
            self.header_name = None  # it may be changed
        return self._header_map

    @property
    def head(self) -> bytes:  # type: ignore[explicit-override, override]
        """The request's head as parsed: names in lower case, values trimmed."""
        lines = header_lines(self.fields.items_sent())
        text = f"{self.method} {self.raw_url.decode('latin-1')} HTTP/{self.version}\r\n{lines}"
        return text.encode("utf-8", "surrogateescape")

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

    @override
    def parse_url(self) -> Any:
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
            self.failure = RequestCancelled()

    def end_connection(self) -> None:
        """Close the connection when the answer that has begun is over."""
        if isinstance(self.stream, Http):
            self.stream.keep_alive = False

    def cut(self, error: ProxyError) -> None:
        """End the handler by a cancellation, whose reason the client gets."""
        if self.cut_by is None and isinstance(self.stream, Http):
            self.cut_by = error
            self.end_connection()
            compat.cancel_handler(self.stream.protocol)

    def abort(self) -> None:
        """Break the connection off at once, so that nothing on it looks like an end."""
        transport: Any = self.transport  # uvloop's is no asyncio.Transport
        if transport is not None:
            transport.abort()

    async def read_piece(self) -> bytes:
        """The bytes of an upload's body received since the last call; b"" at its end. Waits for some."""
        stream: Any = self.stream
        if stream is None or not stream.request_body:
            return b""
        return await stream.read() or b""

    @override
    async def receive_body(self) -> None:
        """Receive the whole body, if that has not happened yet. Raises what the limits of a body raise."""
        await self.app.receive_body(self)

    def take_body(self) -> bytes:
        """The bytes of the body received since the last call."""
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
        self._note(response)

    def begin(self, response: Reply, first: bytes, size_bytes: int | None = None) -> None:
        """Make `response` a streamed answer, and send its head and `first` without waiting.

        `size_bytes` is the length of the whole answer, where it is known.
        """
        self.answer(response)
        stream: Any = self.stream
        stream.begin(first, size_bytes)
        self.record.sent(len(first))

    async def change_streamed(self, middlewares: Any) -> None:
        """Run response middlewares on a streamed answer whose head has not been sent.

        The stream goes on with its own body whatever they return: of a response that one puts in its place
        the status and the headers count.
        """
        stream: Any = self.stream
        response = stream.response
        if not self.has_run_response_middleware:
            self.has_run_response_middleware = True
            try:
                other = await compat.run_response_middleware(self, response, middlewares)
                if other is not response:
                    response.status, response.headers = other.status, other.headers
            except Exception:
                logger.exception("a response middleware failed")
            if stream.response is not response:
                stream.response, response.stream = response, stream
        self.record.status = response.status

    def push(self, frames: bytes) -> None:
        """Send a part of the streamed answer at once, unless the client is slow."""
        stream: Any = self.stream
        if stream.is_writable:
            stream.push(frames)
            self.record.sent(len(frames))

    @property
    def sent_at(self) -> float:
        """When the client was last sent something; monotonic seconds."""
        stream: Any = self.stream
        return float(stream.sent_at)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The worker's. Before Python 3.12, asking asyncio for it asks the kernel each time."""
        stream: Any = self.stream
        loop: asyncio.AbstractEventLoop = stream.loop
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
        """Sanic's, response middlewares included, and the record's share."""
        final = await super().respond(response, status=status, headers=headers, content_type=content_type)
        if isinstance(final, BaseHTTPResponse):
            self._note(final)
        return final

    def _note(self, response: BaseHTTPResponse) -> None:
        record = self.record
        record.status = response.status
        if response.body:
            record.sent(len(response.body))


def _path_of(url: bytes) -> str:
    if len(url) > MAX_URL_BYTES or not url.startswith(b"/"):
        path: bytes = _parsed(url).path or b"/"  # raises for an invalid URL
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
