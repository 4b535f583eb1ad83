"""Tools, tool calls and model families: the data types of this package. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

Family = Literal["json", "qwen", "z-ai", "moonshotai"]
Choice = Literal["auto", "required"]

# By the vendor's prefix of a Straico id, or by a part of the name in ids without one.
_VENDORS: Mapping[str, Family] = {"qwen": "qwen", "z-ai": "z-ai", "moonshotai": "moonshotai"}
_NAME_PARTS: tuple[tuple[str, Family], ...] = (
    ("glm", "z-ai"),
    ("kimi", "moonshotai"),
    ("qwen", "qwen"),
    ("qwq", "qwen"),
)


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is a JSON Schema.

    Calls of a tool with `is_strict` must match the schema, or the request fails. `path` is its place in the
    request, for error messages.
    """

    name: str
    description: str
    parameters: Mapping[str, object]
    is_strict: bool = False
    path: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool; `arguments` is the text of a JSON object. `id` is the vendor's id, if any."""

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The tools of a request and how they may be called.

    `choice` is "auto", "required", or the Tool that must be called. `parallel`: several calls in one answer
    are allowed. `is_legacy`: the request uses `functions`, so the answer has a `function_call`.
    """

    tools: tuple[Tool, ...]
    choice: Choice | Tool = "auto"
    parallel: bool = True
    is_legacy: bool = False

    def find(self, name: str) -> Tool | None:
        return next((tool for tool in self.tools if tool.name == name), None)


@lru_cache(maxsize=1024)
def family_of(model: str) -> Family:
    """The markup family of a model, by the requested id: the id in the reply is the vendor's."""
    vendor, slash, _ = model.lower().partition("/")
    if slash and vendor in _VENDORS:
        return _VENDORS[vendor]
    name = model.lower()
    return next((family for part, family in _NAME_PARTS if part in name), "json")


def compact(value: object) -> str:
    """JSON without white space, in UTF-8 except for lone surrogates, which are escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if text.isprintable() or _is_encodable(text) else json.dumps(value, separators=(",", ":"))


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def indented(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)
