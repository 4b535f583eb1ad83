"""What a provider is to the rest of the proxy: four operations on chats, other endpoints, its models."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, TypeVar

from sanic_proxy.config.model import ProviderSettings, Settings
from sanic_proxy.dialects.base import Dialect
from sanic_proxy.dialects.chat import CHAT
from sanic_proxy.errors import EndpointNotFound, InvalidRequest
from sanic_proxy.governance.charge import Charge
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.openai import codec
from sanic_proxy.openai.chunks import ChunkHead
from sanic_proxy.openai.codec import Span
from sanic_proxy.streams.stream import PINGS, Heartbeat, Stream
from sanic_proxy.upstream.client import Response, UpstreamClient
from sanic_proxy.upstream.request import Body, Upload

# What is made anew for each request is not frozen: that would make each field cost a call.

ProviderKind = Literal["native", "emulated", "embedded"]


@dataclass(slots=True)
class ChatRequest:
    """One request of a conversation, as the provider that is asked now gets it.

    `dialect` is the client's, `wire` the one in which the provider is asked: one of its `dialects`. `body`
    and `fields` are the request in `wire`: the client's bytes where the dialects are the same, and the same
    parsed. `model` is the client's name for what the provider calls `upstream_model`; `model_span` is its
    position in `body`, if known. `headers` are the client's, keyed by lower-case name.
    `total_at` (loop time) is when the time for all its attempts is over, set by the attempts loop, as is
    `provider`, the one that is asked now. `head` is what the request's chunks share where a provider makes
    them, in all attempts. `collect_s` is how long a whole answer may take at least that is collected from a
    stream, because it may take longer than a silent connection lives (0: no longer than others, but its model
    has `collect`); None: it is not collected.
    `answer_headers` is set by the provider: headers for the client beside the answer. `dropped` has the names
    of what the provider cannot be asked for; a provider that drops more calls `drop`. `is_strict`: nothing
    may be dropped. `repeated` has fields of a translated answer, besides those that repeat the request's.
    `charge` is what its attempts are charged to; None: nothing is. `hides_usage`: the proxy alone wants the
    usage of a stream, not the client.
    `original` is the client's body, and `original_span` the position of `model` in it: each attempt begins
    with them, and with a stream where `is_for_stream`. The attempts loop sets the three.
    A stream's head is sent with its first frame or at the commit; what is set later is not sent.
    """

    body: bytes
    fields: JsonMapping
    model: str
    upstream_model: str
    is_streaming: bool
    headers: Mapping[str, str]
    record: RequestRecord

    model_span: Span | None = None
    include_usage: bool = False
    dialect: Dialect = CHAT
    wire: Dialect = CHAT
    collect_s: float | None = None
    total_at: float = math.inf
    head: ChunkHead | None = None
    provider: ChatProvider | None = None
    answer_headers: Sequence[tuple[str, str]] = ()
    dropped: Sequence[str] = ()
    is_strict: bool = False
    repeated: JsonMapping | None = None
    charge: Charge | None = None
    hides_usage: bool = False
    original: bytes = b""
    original_span: Span | None = None
    is_for_stream: bool = False

    @property
    def is_small(self) -> bool:
        """Whether a translation of it takes no longer than a turn of the event loop may."""
        return len(self.original) <= codec.SMALL_BYTES

    def drop(self, names: Sequence[str]) -> None:
        """Note that `names` cannot be passed on. Raises InvalidRequest where nothing may be dropped."""
        if not names:
            return
        if self.is_strict:
            raise InvalidRequest(
                f"The model {self.model} is strict, and its provider does not support: {', '.join(names)}",
                code="unsupported_parameters",
            )
        self.dropped = (*self.dropped, *(name for name in names if name not in self.dropped))

    def become(self, other: ChatRequest) -> None:
        """Take over everything of `other`, a copy that another attempt has changed."""
        other.head = self.head or other.head
        for field in fields(self):
            setattr(self, field.name, getattr(other, field.name))

    def forget_content(self) -> None:
        """Let go of the conversation: for a provider that has sent it and will not need it again.

        An answer may take minutes, and a conversation megabytes.
        """
        self.body = b""
        self.fields = {}


@dataclass(slots=True)
class Call:
    """A request for one of a provider's other endpoints, which passes as it is.

    `path` follows the provider's base URL and may have a query; it is checked. `headers` are the
    client's, keyed by lower-case name, and so is `record`. `content_type` is that of `body`, None where
    there is none. `model` is the client's name in a JSON body, where it is to be replaced by the
    provider's; `model_span` is its position, if known. `total_at` (loop time) ends all attempts;
    `is_once`: what it does must not be done twice. `resource` is the path of what it works on
    (`/files/file-abc`), where that belongs to one account. `dialect` is the one whose headers it takes along.
    `upstream_model` is the provider's name for the model, set by the attempts loop; "": none is known.
    `charge` is what its attempts are charged to; None: nothing is.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    record: RequestRecord
    body: Body | Upload = ()
    content_type: str | None = None
    model: str | None = None
    model_span: Span | None = None
    total_at: float = math.inf
    is_once: bool = False
    resource: str | None = None
    dialect: Dialect | None = None
    upstream_model: str = ""
    charge: Charge | None = None


@dataclass(slots=True)
class Answer:
    """A provider's answer whose status is known to be good. The caller must close it."""

    provider: ChatProvider
    request: ChatRequest
    source: Response

    def close(self) -> None:
        self.source.close()


@dataclass(slots=True)
class WholeAnswer:
    """A chat completion as the client gets it."""

    body: bytes
    headers: Sequence[tuple[str, str]] = ()


class ChatProvider(ABC):
    """A service that completes chats. One object per configured provider and key, for a worker's life.

    A subclass registers itself with `@protocol(NAME)`; rows of the catalog name their protocol. It is
    constructed with the row as configured, all settings, and the worker's client for upstream requests, which
    belongs to the worker: a provider does not close it.

    `name` is the prefix in model names, `dialects` are the names of those it can be asked in, the one for
    translated requests first. `commit_delay_s` is how long a stream's status line waits for the upstream,
    `ping_s` after how many silent seconds the client gets a heartbeat.

    Duties of every operation: it raises `ProxyError` for whatever goes wrong with the request or the
    upstream, complete when raised, and lets `CancelledError` pass. It does not retry: the attempts loop
    (`routing/attempts.py`) does, by calling it again, with another provider or the same. The loop also sets
    the deadline: an upstream request is sent with `total_at=request.total_at`.
    """

    def __init__(self, provider: ProviderSettings, settings: Settings, client: UpstreamClient) -> None:
        self.name = provider.name
        self.commit_delay_s = provider.commit_delay_s
        self.ping_s = settings.heartbeat_interval_s
        self.settings = provider
        self.dialects = provider.dialects
        self._total_s = provider.timeouts.total_s
        self.client = client

    def deadline(self, at_least_s: float = 0.0) -> float:
        """When a request that begins now is overdue, with all its attempts; loop time."""
        return self.client.now() + (max(self._total_s, at_least_s) if at_least_s else self._total_s)

    @property
    @abstractmethod
    def provider_kind(self) -> ProviderKind:
        """Native: speaks OpenAI's protocol. Emulated: is converted. Embedded: is in this process."""

    @abstractmethod
    async def send_request(self, request: ChatRequest) -> Answer:
        """Send the request, and wait for the status. Raises for any status of 400 or more.

        The caller closes the answer. Sets `request.answer_headers` and calls `request.drop`, where the client
        gets any of those headers, before it awaits anything: a stream may commit its head at any time. May
        call `request.forget_content`.
        """

    @abstractmethod
    async def parse_non_streaming(self, answer: Answer) -> WholeAnswer:
        """Read the whole answer; the caller closes it. Sets `record.usage` if the provider reported any."""

    @abstractmethod
    async def create_streaming_response(self, request: ChatRequest) -> Stream:
        """Send the request, and return its answer as a stream once the status is known to be good.

        The caller closes the stream. What is opened here and cannot be returned is closed here. An emulated
        provider returns when the whole answer is there; `heartbeat` is what the client gets until then.
        """

    def heartbeat(self, request: ChatRequest) -> Heartbeat:
        """The bytes that keep a client waiting for `request`; asked for only once the client has waited.

        Comments by default, which clients ignore.
        """
        return PINGS

    async def forward(self, call: Call) -> Response:
        """Send `call` to another endpoint, and wait for the status. The caller closes the answer.

        Raises EndpointNotFound where there is no such endpoint, and for any status of 400 or more.
        """
        raise EndpointNotFound(f"The provider {self.name} has no {call.path.partition('?')[0]}")

    @abstractmethod
    async def list_models(self) -> list[Json]:
        """The models as OpenAI's model objects, with whatever else the provider says of them."""


P = TypeVar("P", bound=ChatProvider)
_CLASSES: dict[str, type[ChatProvider]] = {}


def protocol(name: str) -> Callable[[type[P]], type[P]]:
    """Register a class as the one that speaks the protocol `name`, as rows of the catalog call it."""

    def register(cls: type[P]) -> type[P]:
        if name in _CLASSES:
            raise ValueError(f"Two classes speak the protocol {name!r}: {_CLASSES[name]} and {cls}")
        _CLASSES[name] = cls
        return cls

    return register


def provider_class(protocol_name: str) -> type[ChatProvider]:
    """The class that speaks a protocol. Raises LookupError if none has registered for it."""
    if protocol_name not in _CLASSES:
        known = ", ".join(sorted(_CLASSES))
        raise LookupError(f"No provider speaks the protocol {protocol_name!r}; known: {known}")
    return _CLASSES[protocol_name]
