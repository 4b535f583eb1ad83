"""The reverse map of one request's tools: what a target calls them -> what the client calls them. Pure.

A format without namespaces, custom tools or long names gets them as functions with other names; calls of
these in the answer are given back their kind, namespace and name. A custom tool stands there as a function
with one string, `input`: its calls carry that string in a JSON object, from which it is taken again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from sanic_proxy.openai import codec
from sanic_proxy.translation.conversation import (
    CallBegin,
    CallDelta,
    Event,
    Finish,
    Part,
    PartEnd,
    ToolCall,
)
from sanic_proxy.translation.format import Original

CUSTOM_INPUT = "input"


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
