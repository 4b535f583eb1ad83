"""The interface between an API's format and the middle shape of `conversation.py`. Pure.

Each API has one `Format`: a reader and a writer for requests, whole answers, and streams. Any two formats
translate into each other through the middle shape (`translate.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from sanic_proxy.errors import ProxyError
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.streams import sse
from sanic_proxy.translation.conversation import Answer, CallKind, Conversation, Event

# The original of a tool's name as it was written for a target: its kind, namespace and name.
Original = tuple[CallKind, str | None, str]


@dataclass(frozen=True, slots=True)
class TargetTraits:
    """What a writer has to know of the target of a request.

    `provider` is its name, which decides whose signatures are returned to it; `model` its name for the
    model. `max_tokens` is written where the client sets no limit and the format demands one. `stream_usage`:
    a stream is asked to report its usage. `hoists_system`: all system messages are joined into the first.
    `limit_field` is the name of the limit of tokens in a chat: OpenAI's reasoning models refuse `max_tokens`,
    and many other servers know nothing else. `omitted_fields` are fields of a chat request that the target
    does not know, and might refuse: by default those that only OpenAI has.
    `thinking`: how a model of the Messages API is made to think, with an effort or with a budget of tokens.
    `takes_sampling`: it takes `temperature`, `top_p` and `top_k`, which Anthropic's models since Opus 4.7,
    and all models with the API's version 2026-10-21, refuse.
    """

    provider: str
    model: str
    max_tokens: int = 8192
    stream_usage: bool = True
    hoists_system: bool = True
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    omitted_fields: frozenset[str] = frozenset({"prompt_cache_key", "service_tier", "verbosity"})
    thinking: Literal["adaptive", "budget"] = "adaptive"
    takes_sampling: bool = False


@dataclass(slots=True)
class WrittenRequest:
    """A request in a format: its fields; the names of what the format cannot express; renamed tools.

    `dropped` holds names of request fields, and of parts as `messages.thinking.signature`, each once.
    `originals` has, for each tool that could not keep its kind, namespace or name, the name that it was
    given and its original.
    """

    fields: Json
    dropped: Sequence[str] = ()
    originals: Mapping[str, Original] = field(default_factory=dict)


class StreamReader(ABC):
    """The frames of one stream in a format -> events."""

    @abstractmethod
    def read(self, frame: sse.Frame) -> Iterable[Event]:
        """The events of one frame, which has passed the guard of its dialect. Unknown frames give none.

        Raises ProxyError for a frame that reports a failure.
        """

    def end(self) -> Iterable[Event]:
        """The events behind the last frame of a complete stream."""
        return ()


class StreamWriter(ABC):
    """Events -> the frames of one stream in a format."""

    @abstractmethod
    def write(self, event: Event) -> bytes:
        """The whole frames that can be written now."""

    @abstractmethod
    def end(self) -> bytes:
        """The frames behind the last event of a complete stream, its end included."""

    def failed(self, error: ProxyError) -> bytes:
        """The frames that end a stream which `error` broke off after its head had been sent.

        They follow whatever `write` has returned, possibly nothing. b"" where the format needs nothing of the
        stream so far for that: the dialect's error event is sent then.
        """
        return b""


class Collector(ABC):
    """Collects the frames of a stream into the whole answer that they amount to."""

    @abstractmethod
    def feed(self, frames: bytes) -> None:
        """Add whole frames."""

    @abstractmethod
    def body(self) -> bytes:
        """The whole answer, once the stream is complete."""


class Format(ABC):
    """See the module. One object serves all requests and keeps nothing of them."""

    name: ClassVar[str]

    @abstractmethod
    def read_request(self, fields: JsonMapping) -> Conversation:
        """A client's request. Raises InvalidRequest, with the path of the parameter, for a wrong type."""

    @abstractmethod
    def write_request(self, conversation: Conversation, target: TargetTraits) -> WrittenRequest:
        """The request for a target. Raises InvalidRequest for what cannot even be dropped (`n` above 1)."""

    @abstractmethod
    def read_answer(self, fields: JsonMapping) -> Answer:
        """A provider's whole answer. Raises UpstreamBadResponse."""

    @abstractmethod
    def write_answer(self, answer: Answer, asked: Conversation) -> Json:
        """The whole answer to `asked` for a client."""

    @abstractmethod
    def reader(self, target: TargetTraits) -> StreamReader:
        """A reader for one stream of `target`."""

    @abstractmethod
    def writer(self, asked: Conversation) -> StreamWriter:
        """A writer for the one stream that answers `asked`."""
