"""The names and ids of tools as a Messages target accepts them. Pure.

A tool's name consists of letters, digits, `_` and `-`, at most 64 of them (newer models take 128). Tools of a
namespace become `NAMESPACE__NAME`; characters that are not accepted become `_`; a name that was cut or
changed ends in a hash of the original, so that it is the same in every request of a conversation. Custom
tools become functions with one string, `input`. `originals` is the way back (`tool_names`).
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64encode

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.translation.conversation import CallKind, Json, Tool
from sanic_proxy.translation.format import Original
from sanic_proxy.translation.messages.values import json_text
from sanic_proxy.translation.tool_names import CUSTOM_INPUT

MAX_NAME_CHARS = 64

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_ODD = re.compile(r"[^a-zA-Z0-9_-]")


def tool_id(original: str) -> str:
    """An id that Anthropic accepts: `original` itself, or its base64url under a prefix.

    Calls and their results get the same id, and different ids stay different.
    """
    if _ID.fullmatch(original):
        return original
    return "sp1_" + urlsafe_b64encode(original.encode("utf-8", "surrogatepass")).decode().rstrip("=")


def written_name(name: str, namespace: str | None) -> str:
    """The name of a tool for the target; the same for the same tool, in definitions and in the history."""
    flat = f"{namespace}__{name}" if namespace else name
    if _NAME.fullmatch(flat):
        return flat
    tail = "_" + hashlib.sha256(flat.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return _ODD.sub("_", flat)[: MAX_NAME_CHARS - len(tail)] + tail


class ToolMap:
    """The tools of one request: their names for the target, and the originals of those."""

    __slots__ = ("_by_name", "originals")

    def __init__(self) -> None:
        self._by_name: dict[str, Original] = {}
        self.originals: dict[str, Original] = {}

    def add(self, kind: CallKind, name: str, namespace: str | None) -> str:
        """The name for the target. Raises InvalidRequest where two different tools would get the same."""
        original: Original = (kind, namespace, name)
        written = written_name(name, namespace)
        other = self._by_name.setdefault(written, original)
        if other[1:] != original[1:]:
            raise InvalidRequest(f"Two tools have the name `{written}` for this provider", param="tools")
        if other == original and (kind != "function" or namespace or written != name):
            self.originals[written] = original
        return written


def definition(tool: Tool, name: str) -> Json:
    """The definition of a client's tool."""
    written: Json = {"name": name}
    if description := _description(tool):
        written["description"] = description
    if tool.kind == "custom":
        written["input_schema"] = {
            "type": "object",
            "properties": {CUSTOM_INPUT: {"type": "string"}},
            "required": [CUSTOM_INPUT],
        }
    else:
        written["input_schema"] = {"type": "object", **(tool.parameters or {"properties": {}})}
    if tool.strict is not None and tool.kind == "function":
        written["strict"] = tool.strict
    if tool.cache_control:
        written["cache_control"] = tool.cache_control
    return {**written, **tool.extras}


def _description(tool: Tool) -> str:
    """A custom tool's grammar is described, as the API has no place for it."""
    text = tool.description or ""
    if tool.kind != "custom" or not tool.format or tool.format.get("type") == "text":
        return text
    grammar = tool.format.get("definition")
    syntax = tool.format.get("syntax")
    rule = (
        f"The string `{CUSTOM_INPUT}` must match this {syntax} grammar:\n{grammar}"
        if isinstance(grammar, str) and isinstance(syntax, str)
        else f"The string `{CUSTOM_INPUT}` must have this format: {json_text(tool.format)}"
    )
    return f"{text}\n\n{rule}" if text else rule
