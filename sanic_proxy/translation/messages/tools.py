"""The tools and their ids as a Messages target accepts them; their names: `translation.tool_names`. Pure."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode

from sanic_proxy.json_types import Json
from sanic_proxy.translation.conversation import Tool
from sanic_proxy.translation.tool_names import CUSTOM_SCHEMA, grammar_of

_ID = re.compile(r"[a-zA-Z0-9_-]+")


def tool_id(original: str) -> str:
    """An id that Anthropic accepts: `original` itself, or its base64url under a prefix.

    Calls and their results get the same id, and different ids stay different.
    """
    if _ID.fullmatch(original):
        return original
    return "sp1_" + urlsafe_b64encode(original.encode("utf-8", "surrogatepass")).decode().rstrip("=")


def definition(tool: Tool, name: str) -> Json:
    """The definition of a client's tool."""
    written: Json = {"name": name}
    if description := "\n\n".join(filter(None, (tool.description, grammar_of(tool)))):
        written["description"] = description
    if tool.kind == "custom":
        written["input_schema"] = CUSTOM_SCHEMA
    else:
        written["input_schema"] = {"type": "object", **(tool.parameters or {"properties": {}})}
    if tool.strict is not None and tool.kind == "function":
        written["strict"] = tool.strict
    if tool.cache_control:
        written["cache_control"] = tool.cache_control
    return {**written, **tool.extras}
