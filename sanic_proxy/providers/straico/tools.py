"""Tools and calls of them, as the rest of this folder passes them around. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

Family = Literal["json", "qwen", "z-ai", "moonshotai"]
Choice = Literal["auto", "required"]

# The vendor's prefix in a Straico id, or for ids without one a part of the name.
_VENDORS: Mapping[str, Family] = {"qwen": "qwen", "z-ai": "z-ai", "moonshotai": "moonshotai"}
_NAME_PARTS: tuple[tuple[str, Family], ...] = (
    ("glm", "z-ai"),
    ("kimi", "moonshotai"),
    ("qwen", "qwen"),
    ("qwq", "qwen"),
)


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call; `parameters` is a JSON Schema.

    With `is_strict` its calls must fit that schema, or there is no answer. `path` is where the client put it.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    is_strict: bool = False
    path: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool; `arguments` is the text of a JSON object. `id` is the vendor's, where it gave one."""

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class ToolUse:
    """What one request says of its tools: which, whether it must, and whether several at once.

    `choice` is "auto", "required", or the Tool that must be called. `is_older`: by `functions`, which are
    answered with a `function_call`.
    """

    tools: tuple[Tool, ...]
    choice: Choice | Tool = "auto"
    parallel: bool = True
    is_legacy: bool = False

    def find(self, name: str) -> Tool | None:
        return next((tool for tool in self.tools if tool.name == name), None)


@lru_cache(maxsize=1024)
def family_of(model: str) -> Family:
    """How a model writes tool calls, from the id that was asked for: the one in the reply is the vendor's."""
    vendor, slash, _ = model.lower().partition("/")
    if slash and vendor in _VENDORS:
        return _VENDORS[vendor]
    name = model.lower()
    return next((family for part, family in _NAME_PARTS if part in name), "json")


def compact(value: object) -> str:
    """JSON without blanks, keys in order, other scripts readable; half a surrogate pair stays escaped."""
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
