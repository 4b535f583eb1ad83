"""Decoded JSON values -> tool calls, in any of the shapes that models write. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sanic_proxy.providers.straico.tool_parser.coercion import coerce_text
from sanic_proxy.providers.straico.tool_parser.json_repair import Decoded, decode_values
from sanic_proxy.providers.straico.tools import Tool, ToolCall, compact

_NAME_KEYS = ("name", "tool_name", "tool", "function")
_ARGUMENT_KEYS = ("arguments", "parameters", "args", "input")
_CALL_KEYS = frozenset({*_NAME_KEYS, "id", "type", "index"})
_PREFIXES = ("", "functions.", "default_api.", "tools.")
# The names that OpenAI allows for functions.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ORDINAL = re.compile(r":\d+\Z")


class ParsedCalls(NamedTuple):
    """Calls, the position in the text after them, and the part of their markup that is not a valid call."""

    calls: list[ToolCall]
    end: int
    unparsed: str = ""


class OfferedTools:
    """The tools that a client offered.

    With `accepts_unknown` calls of other functions are accepted as well, if they are inside tags.
    """

    def __init__(self, tools: Sequence[Tool], *, accepts_unknown: bool = False) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._accepts_unknown = accepts_unknown

    def find(self, name: str) -> Tool | None:
        """The tool of that name, with or without the prefixes and numbers that models add to names."""
        bare = name.strip().strip("\"'")
        candidates = [
            candidate[len(prefix) :]
            for candidate in (bare, _ORDINAL.sub("", bare))
            for prefix in _PREFIXES
            if candidate.startswith(prefix)
        ]
        known = next((self._tools[candidate] for candidate in candidates if candidate in self._tools), None)
        if known is None and self._accepts_unknown and _NAME.fullmatch(candidates[-1]):
            return Tool(candidates[-1], "", {})
        return known

    def is_offered(self, name: str) -> bool:
        """Whether `name` is exactly the name of an offered tool."""
        return name in self._tools

    @staticmethod
    def coerce_argument(tool: Tool, key: str, text: str) -> object:
        properties = tool.parameters.get("properties")
        schema = properties.get(key) if isinstance(properties, dict) else None
        return coerce_text(text, schema, tool.parameters)

    def parse_values(self, decoded: Decoded, *, is_tagged: bool = True) -> ParsedCalls:
        calls: list[ToolCall] = []
        unparsed: list[str] = [decoded.unparsed] if decoded.unparsed else []
        for value in _flatten(decoded.values):
            call = self._parse_call(value, is_tagged=is_tagged)
            if call is None:
                unparsed.append(value if isinstance(value, str) else compact(value))
            else:
                calls.append(call)
        return ParsedCalls(calls, decoded.end, "\n".join(unparsed))

    def _parse_call(self, value: object, *, is_tagged: bool) -> ToolCall | None:
        """The call that an object of any shape describes; None if it is not a call."""
        if not isinstance(value, dict):
            return None
        inner = value.get("function")
        if isinstance(inner, dict):
            return self._parse_call(inner, is_tagged=is_tagged)
        name = next((value[key] for key in _NAME_KEYS if isinstance(value.get(key), str)), None)
        tool = self.find(name) if name is not None else None
        if tool is None or not (is_tagged or self.is_offered(tool.name)):
            return None
        key = next((key for key in _ARGUMENT_KEYS if key in value), None)
        if key is None:
            # Without a key for arguments they are members beside the name, or there are none.
            beside = {name: value[name] for name in value if name not in _CALL_KEYS}
            known = tool.parameters.get("properties")
            is_known = not beside or (isinstance(known, dict) and beside.keys() <= known.keys())
            given: object = beside if is_tagged and is_known else []
        else:
            given = [] if key == "parameters" and _is_schema(value[key], tool) else value[key]
        arguments = parse_arguments(given)
        return None if arguments is None else ToolCall(tool.name, compact(arguments))


def _is_schema(given: object, tool: Tool) -> bool:
    """Whether a tool's description was repeated instead of arguments being given."""
    return isinstance(given, dict) and given.get("type") == "object" and given == tool.parameters


def parse_arguments(value: object) -> dict[str, object] | None:
    """Arguments as an object, decoded if they are a string of JSON; None if they are something else."""
    if isinstance(value, str):
        if not value.strip():
            return {}
        decoded = decode_values(value, 0, repair=True)
        if decoded is None or decoded.unparsed or len(decoded.values) != 1:
            return None
        value = decoded.values[0]
    return value if isinstance(value, dict) else {} if value is None else None


def _flatten(values: Sequence[object]) -> Iterator[object]:
    for value in values:
        if isinstance(value, list):
            yield from value
        elif isinstance(value, dict) and isinstance(value.get("tool_calls"), list):
            yield from value["tool_calls"]
        else:
            yield value
