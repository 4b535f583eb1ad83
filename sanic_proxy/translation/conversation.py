"""The middle shape: a conversation, its answer, and the events of a streamed answer, independent of any API.

A request in one API is read into a `Conversation` and written in another one. The shape holds what two APIs
have in common, and what only one has but must survive a round trip (signatures of reasoning, cache marks,
system messages in the middle, errors and images in tool results, custom tools and namespaces). Each reader
puts the names of request fields that have no place here into `Conversation.extras`; a writer reports those,
and whatever else its API cannot express, as dropped.

These are plain data. Values are JSON values as `codec` parses them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from sanic_proxy.json_types import Json
from sanic_proxy.openai.usage import Usage as Usage  # noqa: PLC0414  part of this shape
from sanic_proxy.openai.usage import whole as whole  # noqa: PLC0414

Role = Literal["system", "developer", "user", "assistant", "tool"]
CallKind = Literal["function", "custom", "tool_search"]


@dataclass(slots=True)
class Text:
    """A text. `cache_control` and `citations` are Anthropic's; `annotations` OpenAI's."""

    text: str
    cache_control: Json | None = None
    citations: list[Any] | None = None
    annotations: list[Any] | None = None


@dataclass(slots=True)
class Refusal:
    """The model's own words for not answering."""

    text: str


@dataclass(slots=True)
class Image:
    """An image: `url` is an https or data URL, `file_id` a file of the provider's account."""

    url: str = ""
    file_id: str = ""
    detail: str | None = None
    cache_control: Json | None = None


@dataclass(slots=True)
class Document:
    """A document or file: exactly one of `url` (https or data), `text` and `file_id` is set."""

    url: str = ""
    text: str = ""
    file_id: str = ""
    name: str | None = None
    context: str | None = None
    citations: Json | None = None
    cache_control: Json | None = None


@dataclass(slots=True)
class Audio:
    """Recorded speech: base64 and its format ("wav", "mp3")."""

    data: str
    format: str


@dataclass(slots=True)
class Reasoning:
    """A piece of the model's reasoning.

    `summary`: `text` is a summary and not the reasoning itself. `signature` is what its vendor needs to
    accept it back (Anthropic's `signature`, OpenAI's `encrypted_content`); `origin` names the provider that
    made it, "" where that is not known. `redacted`: Anthropic's encrypted block, whose data is `signature`.
    """

    text: str = ""
    signature: str = ""
    origin: str = ""
    is_redacted: bool = False
    is_summary: bool = False
    id: str | None = None


@dataclass(slots=True)
class ToolCall:
    """A call: `arguments` is the text that the model wrote, valid JSON or not; any text for custom tools."""

    id: str
    name: str
    arguments: str
    kind: CallKind = "function"
    namespace: str | None = None
    cache_control: Json | None = None


@dataclass(slots=True)
class ToolResult:
    """The result of the call `call_id`: texts, images and documents."""

    call_id: str
    content: list[Part] = field(default_factory=list)
    is_error: bool = False
    kind: CallKind = "function"
    cache_control: Json | None = None


@dataclass(slots=True)
class Other:
    """A part that has no counterpart in another API, as its API wrote it. Always dropped, with notice."""

    type: str
    value: Json


Part = Text | Refusal | Image | Document | Audio | Reasoning | ToolCall | ToolResult | Other


@dataclass(slots=True)
class Turn:
    """One message. Results of tools stand in turns of the role "tool", which hold nothing else.

    `extras`: fields of the message that only the API of the request has. `Conversation.extras` names them
    too, as `messages.NAME`, so that writers report them.
    """

    role: Role
    parts: list[Part]
    name: str | None = None
    phase: str | None = None
    extras: Json = field(default_factory=dict)


@dataclass(slots=True)
class Tool:
    """A tool of the client's. `parameters` is a JSON Schema; `format` a custom tool's grammar.

    `extras`: fields that only the API of the request has. `Conversation.extras` names them too, as
    `tools.NAME`, so that writers report them.
    `namespace_description` describes the tools of its namespace as a group.
    """

    name: str
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None
    kind: CallKind = "function"
    format: Json | None = None
    namespace: str | None = None
    cache_control: Json | None = None
    extras: Json = field(default_factory=dict)
    namespace_description: str | None = None


@dataclass(slots=True)
class ToolChoice:
    """Which tools may or must be called. `names` limits the choice (allowed tools, or the forced one).

    `mode`: "auto", "none", "required" (any of them), "tool" (the one in `names`).
    """

    mode: Literal["auto", "none", "required", "tool"] = "auto"
    names: tuple[str, ...] = ()


@dataclass(slots=True)
class ReasoningOptions:
    """How much the model shall think. `effort` as OpenAI names it; `budget_tokens` as Anthropic does."""

    effort: str | None = None
    budget_tokens: int | None = None
    mode: Literal["enabled", "adaptive", "disabled"] | None = None
    summary: str | None = None  # OpenAI: auto, concise, detailed
    display: str | None = None  # Anthropic: summarized, omitted


@dataclass(slots=True)
class OutputFormat:
    """The demanded format of the answer; `schema` for "json_schema"."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: Json | None = None
    strict: bool | None = None
    description: str | None = None


@dataclass(slots=True)
class Conversation:
    """A request. None or empty: not set. `extras`: request fields without a place here, by name.

    A name may have a suffix: `tools.web_search` stands for the hosted tools of that type. `repeated` holds
    the request fields that the client's API repeats in its answer, in the form in which it does.
    """

    model: str
    turns: list[Turn]
    is_streaming: bool = False
    include_usage: bool = True
    tools: list[Tool] = field(default_factory=list)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: list[str] = field(default_factory=list)
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    top_logprobs: int | None = None
    reasoning: ReasoningOptions | None = None
    output: OutputFormat | None = None
    verbosity: str | None = None
    user: str | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    metadata: Json | None = None
    extras: Json = field(default_factory=dict)
    repeated: Json = field(default_factory=dict)


FinishReason = Literal[
    "stop", "stop_sequence", "length", "tool_calls", "content_filter", "refusal", "pause", "context_window"
]


@dataclass(slots=True)
class Answer:
    """A whole answer. `parts` are Text, Refusal, Reasoning, ToolCall, and Other, in order."""

    id: str
    model: str
    created: int
    parts: list[Part]
    finish: FinishReason = "stop"
    stop_sequence: str | None = None
    usage: Usage | None = None


# Events of a streamed answer. The order within one answer is: Begin; deltas; Finish and UsageReport in any
# order, each at most once. Deltas of calls are keyed, as chats may interleave them; `PartEnd` says that the
# part of the deltas before it is complete, where the API that is read tells so.


class Begin(NamedTuple):
    """The answer has begun. `usage` has the tokens of the input, where they are known by now."""

    id: str
    model: str
    created: int
    usage: Usage | None = None


class TextDelta(NamedTuple):
    text: str


class RefusalDelta(NamedTuple):
    text: str


class ReasoningDelta(NamedTuple):
    text: str
    is_summary: bool = False


class ReasoningEnd(NamedTuple):
    """The reasoning before it is complete, or is redacted; see `Reasoning`."""

    signature: str = ""
    origin: str = ""
    is_redacted: bool = False


class CallBegin(NamedTuple):
    key: int
    id: str
    name: str
    kind: CallKind = "function"
    namespace: str | None = None


class CallDelta(NamedTuple):
    """A piece of the arguments (for a custom tool: of its input)."""

    key: int
    arguments: str


class PartEnd(NamedTuple):
    """The current text, refusal or reasoning is complete; `key`: the call of that key is."""

    key: int | None = None


class Finish(NamedTuple):
    reason: FinishReason
    stop_sequence: str | None = None


class UsageReport(NamedTuple):
    usage: Usage


Event = (
    Begin
    | TextDelta
    | RefusalDelta
    | ReasoningDelta
    | ReasoningEnd
    | CallBegin
    | CallDelta
    | PartEnd
    | Finish
    | UsageReport
)
