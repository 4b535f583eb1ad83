"""Common to all upstream APIs: the model's turns, and the rules for requests.

A scenario is a list of turns that do not depend on an API. A shape renders them, reads how far a
conversation has come from its messages, and finds what a strict server would reject.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tests.support.upstream import Exchange, Seen

# `busy`: a rate limit that passes. `quota`: the account is used up. `cut`: an answer breaks off.
Fault = Literal["busy", "quota", "cut", "cut-always"]
RETRY_AFTER_S = 1
QUOTA = "You exceeded your current quota, please check your plan and billing details."
BUSY = "Rate limit reached, please try again in 1s."

Fields = Mapping[str, tuple[type, ...]]
NUMBER = (int, float)
TEXT = (str,)
TEXT_OR_NONE = (str, type(None))
FLAG = (bool,)
OBJECT = (dict,)
LIST = (list,)
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call. `tool` may lack a prefix under which the tool is declared (`mcp__server__`).

    `arguments` is an object, or the text of a custom tool.
    """

    tool: str
    arguments: Mapping[str, Any] | str


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer of the model: text, then calls. `thought` precedes both where the API has reasoning."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    thought: str = ""


@dataclass(frozen=True, slots=True)
class Round:
    """The calls of one assistant turn of a request, their results in the same order, and the thought."""

    calls: tuple[Call, ...]
    results: tuple[str, ...]
    thought: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error answer."""

    status: int
    body: Mapping[str, Any]
    headers: tuple[tuple[str, str], ...] = ()


class Shape(ABC):
    """An upstream API.

    `path` is requested for streams and `whole_path` for whole answers, which most APIs have in common.
    `headers` are the names of the headers that a request to it may have; `key_header` is the one that
    holds the provider's key. `refusals` are the error answers by the fault that they are for. An API
    that `keeps_reasoning` gets the thoughts of earlier turns back, one that `counts_tokens` does so at
    `/count_tokens` below its path.
    """

    name: str
    path: str
    headers: frozenset[str]
    key_header: str = "authorization"
    refusals: Mapping[str, Refusal]
    keeps_reasoning: bool = False
    counts_tokens: bool = False

    @property
    def whole_path(self) -> str:
        return self.path

    def serves(self, path: str) -> bool:
        """Whether the API answers a POST request at `path`, which has no query."""
        return path == self.path

    @property
    def root(self) -> str:
        """The part of the path before `/v1`."""
        return self.path.rpartition("/v1/")[0]

    @abstractmethod
    async def answer(self, exchange: Exchange, turn: Turn, number: int) -> None:
        """Answer with the turn of that number, as a stream if the request asks for one."""

    @abstractmethod
    async def break_off(self, exchange: Exchange, turn: Turn) -> None:
        """Begin to answer with the turn's text, and close the connection."""

    @abstractmethod
    def is_streamed(self, seen: Seen) -> bool:
        """Whether the request asks for a stream."""

    @abstractmethod
    def tool_names(self, body: Mapping[str, Any]) -> list[str]:
        """The names of the declared tools."""

    @abstractmethod
    def rounds(self, body: Mapping[str, Any]) -> list[Round]:
        """The completed rounds of tool calls in the request."""

    @abstractmethod
    def violations(self, body: Mapping[str, Any]) -> Iterator[str]:
        """The reasons for which a strict server would reject the request."""

    async def fail(self, exchange: Exchange, fault: str, turn: Turn) -> None:
        """Send the error answer of `fault`, or begin the turn and break off."""
        if fault not in self.refusals:
            await self.break_off(exchange, turn)
            return
        refusal = self.refusals[fault]
        await exchange.answer(refusal.body, refusal.status, *refusal.headers)


def declared(name: str, names: Sequence[str]) -> str:
    """The declared name of the tool `name`. Raises LookupError if there is none, or several."""
    found = [known for known in names if known == name or known.endswith(f"__{name}")]
    if len(found) != 1:
        raise LookupError(f"the tool {name!r} is declared {len(found)} times among {sorted(names)}")
    return found[0]


def call_id(number: int, index: int) -> str:
    """The id of a call: of the turn `number`, the call `index`."""
    return f"call_upstream_{number}_{index}"


class PendingCalls:
    """The ids of the calls of a conversation that have no result yet."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self._used: set[str] = set()

    def add(self, called: Sequence[str], where: str) -> Iterator[str]:
        """Add calls; yields a fault for each id that is used twice."""
        for used in called:
            if used in self._used:
                yield f"{where}: the call id {used} is used twice"
            self._used.add(used)
            self.ids.append(used)

    def settle(self, answered: object, where: str) -> Iterator[str]:
        """Remove the call that has a result; yields a fault if there is none."""
        if answered in self.ids:
            self.ids.remove(str(answered))
        else:
            yield f"{where} is a result without its call"

    def missing(self, where: str) -> Iterator[str]:
        """Yields a fault if calls have no result although the conversation continues, or ends, at `where`."""
        if self.ids:
            yield f"{where}: results are missing for {self.ids}"
            self.ids = []


def pieces(text: str) -> list[str]:
    """A text in up to four pieces, as a model streams it."""
    size = max(1, -(-len(text) // 4))
    return [text[start : start + size] for start in range(0, len(text), size)]


def sse(name: str, value: Mapping[str, Any]) -> bytes:
    """An event of an API whose events have names."""
    return f"event: {name}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def field_faults(value: object, fields: Fields, where: str) -> Iterator[str]:
    """Unknown fields, and fields of a wrong type."""
    if not isinstance(value, dict):
        yield f"{where} is not an object"
        return
    for name, item in value.items():
        if name not in fields:
            yield f"{where}.{name} is unknown"
        elif type(item) not in fields[name]:
            yield f"{where}.{name} is a {type(item).__name__}"


def variant_faults(value: object, variants: Mapping[str, Fields], kind: str, where: str) -> Iterator[str]:
    """The faults of an object whose fields depend on its role or type `kind`."""
    if kind in variants:
        yield from field_faults(value, variants[kind], where)
    else:
        yield f"{where} is a {kind}"


def name_faults(names: Sequence[object]) -> Iterator[str]:
    """Names of tools that are invalid or used twice."""
    for name in names:
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            yield f"the tool name {name!r} is invalid"
        elif names.count(name) > 1:
            yield f"the tool {name} is declared twice"


def schema_faults(schema: object, name: object) -> Iterator[str]:
    """A tool's parameters have to be an object's schema."""
    if not isinstance(schema, dict) or schema.get("type") != "object":
        yield f"the parameters of the tool {name!r} are not the schema of an object"


def json_object(text: object) -> dict[str, Any] | None:
    """The JSON object in `text`; None if it contains no object."""
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def plain_text(content: object) -> str:
    """The text of a content that is a string or a list of parts."""
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
