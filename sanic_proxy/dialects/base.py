"""The interface of a dialect: one API for conversations, as clients and providers speak it.

A dialect knows the shapes of its API: requests, errors, error events and pings of clients; the path, headers,
streams and whole answers of a provider that speaks it. A provider that speaks the client's dialect gets the
client's bytes and its answer is passed as it comes. For any other provider the request and its answer are
translated between the dialects' formats (`sanic_proxy.translation`). A dialect does no I/O and knows neither
routing nor providers.

A path belongs to one dialect, so that errors which happen before a request has been read (a wrong key, say)
have the right shape as well.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeVar

from sanic_proxy.dialects.effects import CHAT_EFFECTS, Effects
from sanic_proxy.errors import ProxyError
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai.codec import Span
from sanic_proxy.streams.filters import StreamFilter
from sanic_proxy.streams.stream import Heartbeat
from sanic_proxy.translation.format import Collector, Format


@dataclass(slots=True)
class ParsedRequest:
    """A request of a conversation, as far as routing and streaming have to know it.

    `body` has the client's bytes, `fields` the same parsed; `model_span` is the position of `model` in
    `body`, if known. `include_usage`: the stream reports its usage. `collect_s`: seconds that a whole answer
    may take, where that is too long for a silent connection; it is then collected from a stream.
    """

    body: bytes
    fields: Json
    model: str
    is_streaming: bool
    include_usage: bool = False
    model_span: Span | None = None
    collect_s: float | None = None


# The name of reasoning in the history that is not returned, as it is another provider's.
DROPPED_REASONING = "messages.reasoning"


class Prepared(NamedTuple):
    """The changed fields of a request, and the names of what was removed of it."""

    fields: JsonMapping
    dropped: Sequence[str] = ()


class Dialect(ABC):
    """See the module. One object per dialect serves all requests and keeps nothing of them.

    `path` follows the base URL of a provider that speaks the dialect, and `forward_headers` are those headers
    of a client that it gets; `headers` are sent where the client sends none of that name. `key_header` is the
    header of a provider's key, in place of a Bearer token; `key_parameter` the parameter of the query in
    which clients may send theirs. `has_model_in_path`: the model's name is in the URL, and not in the body.
    `reports_partly`: its streams report their usage as they go on, so what has been seen of one without its
    end is not all of it. `stream_type` is the content type of a streamed answer. `effects` says which
    requests do more than ask.
    """

    name: ClassVar[str]
    path: ClassVar[str]
    forward_headers: ClassVar[tuple[str, ...]] = ()
    headers: ClassVar[Mapping[str, str]] = {}
    key_header: ClassVar[str] = ""
    key_parameter: ClassVar[str] = ""
    has_model_in_path: ClassVar[bool] = False
    effects: ClassVar[Effects] = CHAT_EFFECTS
    stream_type: str = "text/event-stream; charset=utf-8"
    reports_partly: ClassVar[bool] = False
    format: Format

    # Towards clients

    @abstractmethod
    def parse(self, body: bytes, fields: Json, model_span: Span | None) -> ParsedRequest:
        """Read a request, whose JSON object is `fields`. Raises InvalidRequest if it cannot be served."""

    @abstractmethod
    def error_body(self, error: ProxyError) -> bytes:
        """The body of an error response."""

    @abstractmethod
    def error_event(self, error: ProxyError) -> bytes:
        """The event that ends a stream which failed after it began; see `StreamFilter.failed`.

        b"" where clients have to see a stream without an end.
        """

    def streams_failure(self, error: ProxyError, headers: Mapping[str, str]) -> bool:
        """Whether `error`, before a stream has sent anything, is better its only event than a status, as its
        client then repeats the request less often. `headers` are the client's.
        """
        return False

    @property
    @abstractmethod
    def ping(self) -> bytes:
        """What keeps a client waiting while a stream is silent."""

    def heartbeat(self, provider: Heartbeat) -> Heartbeat:
        """What keeps a client waiting until a stream begins; `provider` is the provider's own, a chat's."""
        return Heartbeat(self.ping)

    def framing(self) -> StreamFilter | None:
        """A new filter that makes the frames of a stream what clients get instead of events, if they do."""
        return None

    # Towards providers that speak it

    def base_url(self, provider: str) -> str:
        """The URL that the dialect's paths follow, for a provider with the base URL `provider`."""
        return provider

    def path_to(self, model: str, *, is_streaming: bool) -> str:
        """The path for an answer of a provider's model. Raises ModelNotFound for what cannot be in a path."""
        return self.path

    @abstractmethod
    def guard(self, *, include_usage: bool, unify_reasoning: bool) -> StreamFilter:
        """A new filter for a provider's stream: frames pass unchanged, their end and errors are noted."""

    def prepared(self, body: bytes, fields: JsonMapping, provider: str) -> Prepared | None:
        """A request of this dialect without what `provider` must not get; None where nothing is changed."""
        return None

    def may_collect(self, fields: JsonMapping) -> bool:
        """Whether the whole answer to a request can be put together from a provider's stream."""
        return False

    def as_stream(self, fields: JsonMapping, *, with_usage: bool) -> JsonMapping:
        """A request for a whole answer as one for a stream, which reports its usage if it can be asked to."""
        return {**fields, "stream": True}

    def collector(self) -> Collector:
        """A collector of a whole answer from a provider's stream, where `may_collect` says so."""
        raise NotImplementedError

    @abstractmethod
    def usage_in(self, body: bytes) -> JsonMapping | None:
        """The usage in a provider's whole answer, as a chat's. Raises ProxyError for what is no answer."""


D = TypeVar("D", bound=Dialect)
_BY_PATH: dict[str, Dialect] = {}
_BY_PATTERN: list[tuple[re.Pattern[str], Dialect]] = []


def register(dialect: D, *paths: str, pattern: re.Pattern[str] | None = None) -> D:
    """Make `paths`, and those that match `pattern`, those of `dialect`.

    Raises ValueError for a path that has another one.
    """
    for path in paths:
        if _BY_PATH.setdefault(path, dialect) is not dialect:
            raise ValueError(f"{path} belongs to the dialect {_BY_PATH[path].name!r}")
    if pattern is not None:
        _BY_PATTERN.append((pattern, dialect))
    return dialect


def dialect_of(path: str, default: Dialect) -> Dialect:
    """The dialect of a path; `default` where none is registered."""
    plain = path.rstrip("/")
    if (found := _BY_PATH.get(plain)) is not None:
        return found
    return next((dialect for pattern, dialect in _BY_PATTERN if pattern.fullmatch(plain)), default)
