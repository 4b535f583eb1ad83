"""The interface of a dialect: the shapes of one API that clients speak to the proxy.

Inside the proxy every conversation is a chat completion: that is what providers get and what they answer. A
dialect is what surrounds it. It reads a request of its API into a chat request, and gives the chat's answers,
streams, errors and heartbeats the shapes of its API. It does no I/O and knows neither routing nor providers.

A path belongs to one dialect, so that errors which happen before a request has been read (a wrong key, say)
have the right shape as well.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, TypeVar

from sanic_proxy.errors import ProxyError
from sanic_proxy.openai.codec import Span
from sanic_proxy.streams.filters import StreamFilter
from sanic_proxy.streams.stream import Heartbeat


@dataclass(slots=True)
class ParsedRequest:
    """A chat request as a dialect has read it.

    `body` is the request as a chat completion, `fields` the same parsed; `model_span` is the position of
    `model` in `body`, if known. `include_usage`: the stream reports its usage.
    """

    body: bytes
    fields: dict[str, Any]
    model: str
    is_streaming: bool
    include_usage: bool = False
    model_span: Span | None = None


class Dialect(ABC):
    """See the module. One object per dialect serves all requests and keeps nothing of them."""

    name: str

    @abstractmethod
    def parse(self, body: bytes, fields: dict[str, Any], model_span: Span | None) -> ParsedRequest:
        """Read a request, whose JSON object is `fields`. Raises InvalidRequest if it cannot be served."""

    @abstractmethod
    def whole(self, body: bytes) -> bytes:
        """The body of a whole answer, made of the one of a chat completion."""

    @abstractmethod
    def stream_filter(self) -> StreamFilter | None:
        """A new filter from a chat's frames to this dialect's; None where they are the same.

        It is fed whole frames of a stream that has been checked, `[DONE]` included, and its `end` is called
        behind the last one.
        """

    @abstractmethod
    def error_body(self, error: ProxyError) -> bytes:
        """The body of an error response."""

    @abstractmethod
    def error_event(self, error: ProxyError) -> bytes:
        """The event that ends a stream which failed after it began."""

    @abstractmethod
    def heartbeat(self, provider: Heartbeat) -> Heartbeat:
        """What keeps a client waiting for a stream, made of the provider's heartbeat (frames of a chat)."""

    @property
    @abstractmethod
    def ping(self) -> bytes:
        """What keeps a client waiting while a stream that has begun is silent."""


D = TypeVar("D", bound=Dialect)
_BY_PATH: dict[str, Dialect] = {}


def register(dialect: D, *paths: str) -> D:
    """Make `paths` those of `dialect`. Raises ValueError for a path that has one."""
    for path in paths:
        if _BY_PATH.setdefault(path, dialect) is not dialect:
            raise ValueError(f"{path} belongs to the dialect {_BY_PATH[path].name!r}")
    return dialect


def dialect_of(path: str, default: Dialect) -> Dialect:
    """The dialect of a path; `default` where none is registered."""
    return _BY_PATH.get(path.rstrip("/"), default)
