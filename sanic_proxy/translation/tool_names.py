"""Tools of a client as functions of a target, and the calls of these back as calls of the tools. Pure.

Names of functions have up to 64 characters out of `[a-zA-Z0-9_-]`. A tool in a namespace is named
`NAMESPACE__NAME`; other characters become `_`; a name that was changed or cut ends in a hash of the original.
A name depends on the tool alone, so calls in the history get the same names, even of tools that are gone.

A custom tool becomes a function with one string, `input`, its grammar a part of the description. Its calls
carry that string in a JSON object, from which it is taken again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.json_types import Json
from sanic_proxy.openai import codec
from sanic_proxy.translation.conversation import (
    CallBegin,
    CallDelta,
    CallKind,
    Event,
    Finish,
    Part,
    PartEnd,
    Tool,
    ToolCall,
)
from sanic_proxy.translation.format import Original

MAX_NAME_CHARS = 64
CUSTOM_INPUT = "input"
CUSTOM_SCHEMA: Json = {
    "type": "object",
    "properties": {CUSTOM_INPUT: {"type": "string"}},
    "required": [CUSTOM_INPUT],
    "additionalProperties": False,
}
_HASH_CHARS = 8
_NAME = re.compile(rf"[a-zA-Z0-9_-]{{1,{MAX_NAME_CHARS}}}")
_REPLACED = re.compile(r"[^a-zA-Z0-9_-]")


def digest(text: str, chars: int) -> str:
    """The beginning of the SHA-256 hash of `text`, in hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:chars]


def function_name(name: str, namespace: str | None = None) -> str:
    """The name of the function that stands for a tool."""
    full = f"{namespace}__{name}" if namespace else name
    if _NAME.fullmatch(full):
        return full
    return f"{_REPLACED.sub('_', full)[: MAX_NAME_CHARS - _HASH_CHARS - 1]}_{digest(full, _HASH_CHARS)}"


class Functions:
    """The names of one request's functions. `originals` has the tools that lost their kind or name."""

    __slots__ = ("_by_name", "originals")

    def __init__(self) -> None:
        self._by_name: dict[str, Original] = {}
        self.originals: dict[str, Original] = {}

    def add(self, kind: CallKind, name: str, namespace: str | None) -> str:
        """The name for a tool. Raises InvalidRequest where two different tools would have the same."""
        original: Original = (kind, namespace, name)
        function = function_name(name, namespace)
        other = self._by_name.setdefault(function, original)
        if other[1:] != original[1:]:
            raise InvalidRequest(
                f"The tools {_shown(other)} and {_shown(original)} are both named `{function}` for this "
                "model: rename one of them",
                param="tools",
            )
        if other == original and original != ("function", None, function):
            self.originals[function] = original
        return function


def _shown(tool: Original) -> str:
    _, namespace, name = tool
    return f"`{name}`" if not namespace else f"`{name}` (namespace `{namespace}`)"


def grammar_of(tool: Tool) -> str:
    """How the description of a custom tool's function states the format of its string; "" for any text."""
    if tool.kind != "custom" or not tool.format or tool.format.get("type") == "text":
        return ""
    definition, syntax = tool.format.get("definition"), tool.format.get("syntax")
    if isinstance(definition, str) and isinstance(syntax, str):
        return f"The string `{CUSTOM_INPUT}` must match this {syntax} grammar:\n{definition}"
    return f"The string `{CUSTOM_INPUT}` must have this format: {codec.dumps(tool.format).decode()}"


def restored_parts(parts: Iterable[Part], originals: Mapping[str, Original]) -> list[Part]:
    """`parts` of an answer, with their calls as the client knows the tools."""
    return [_restored(part, originals) if isinstance(part, ToolCall) else part for part in parts]


def _restored(call: ToolCall, originals: Mapping[str, Original]) -> ToolCall:
    if (original := originals.get(call.name)) is None:
        return call
    kind, namespace, name = original
    arguments = custom_input(call.arguments) if kind == "custom" else call.arguments
    return replace(call, name=name, kind=kind, namespace=namespace, arguments=arguments)


def custom_input(arguments: str) -> str:
    """The input of a custom tool from the arguments of the function in its place.

    Arguments that are no such object are passed as the model wrote them: the client reports what is wrong.
    """
    parsed = codec.loads_tolerant(arguments.encode("utf-8", "surrogatepass"))
    value = parsed.get(CUSTOM_INPUT) if isinstance(parsed, dict) else None
    return value if isinstance(value, str) else arguments


class EventRestorer:
    """The same for the events of one stream. The input of a custom tool is passed on when it is complete."""

    __slots__ = ("_inputs", "_originals")

    def __init__(self, originals: Mapping[str, Original]) -> None:
        self._originals = originals
        self._inputs: dict[int, list[str]] = {}

    def restored(self, event: Event) -> Iterator[Event]:
        """The events in place of `event`."""
        match event:
            case CallBegin(key, id_, name) if name in self._originals:
                kind, namespace, original = self._originals[name]
                if kind == "custom":
                    self._inputs[key] = []
                yield CallBegin(key, id_, original, kind, namespace)
            case CallDelta(key, arguments) if key in self._inputs:
                self._inputs[key].append(arguments)
            case PartEnd(int() as key):
                yield from self._complete(key)
                yield event
            case Finish():
                for key in list(self._inputs):
                    yield from self._complete(key)
                yield event
            case _:
                yield event

    def _complete(self, key: int) -> Iterator[Event]:
        if (pieces := self._inputs.pop(key, None)) is not None:
            yield CallDelta(key, custom_input("".join(pieces)))
