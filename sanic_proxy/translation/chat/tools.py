"""The tools of a conversation as functions of a chat, and the names that they get there. Pure.

OpenAI's functions have names of up to 64 characters out of `[a-zA-Z0-9_-]`. A tool in a namespace is named
`<namespace>__<name>`; other characters become `_`; a longer name ends in 8 digits of its SHA-256 hash. A name
depends on the tool alone, so the calls of a history get the same names, even of tools that are gone.

Custom tools become functions with one string, `input` (`tool_names.CUSTOM_INPUT`). Their grammar cannot be
enforced there, so it stands in the description.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.openai import codec
from sanic_proxy.translation.chat.paragraphs import joined
from sanic_proxy.translation.conversation import Json, Tool, ToolCall, ToolChoice
from sanic_proxy.translation.format import Original
from sanic_proxy.translation.tool_names import CUSTOM_INPUT

MAX_NAME_CHARS = 64
# OpenAI has refused longer ids with 400 `string_above_max_length`; newer endpoints accept 64 characters.
MAX_ID_CHARS = 40
_HASH_CHARS = 8
_REPLACED = re.compile(r"[^a-zA-Z0-9_-]")
_NO_PARAMETERS: Json = {"type": "object", "properties": {}}


def function_name(namespace: str | None, name: str) -> str:
    """The name of a tool's function."""
    full = f"{namespace}__{name}" if namespace else name
    clean = _REPLACED.sub("_", full) or "_"
    if len(clean) <= MAX_NAME_CHARS:
        return clean
    return f"{clean[: MAX_NAME_CHARS - _HASH_CHARS - 1]}_{digest(full)[:_HASH_CHARS]}"


def call_id(original: str) -> str:
    """The id of a call, or a hash of one that is too long: the same for the call and its result."""
    return original if len(original) <= MAX_ID_CHARS else f"call_{digest(original)[:32]}"


def digest(text: str) -> str:
    """The SHA-256 hash of `text`, 64 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def written_call(call: ToolCall) -> Json:
    """A call of the history."""
    arguments = call.arguments or "{}"
    if call.kind == "custom":
        arguments = codec.dumps({CUSTOM_INPUT: call.arguments}).decode("utf-8", "surrogatepass")
    function = {"name": function_name(call.namespace, call.name), "arguments": arguments}
    return {"id": call_id(call.id), "type": "function", "function": function}


def written_tools(tools: list[Tool]) -> tuple[dict[str, Json], dict[str, Original]]:
    """The functions by name, and the originals of the tools that could not keep their kind or name.

    Raises InvalidRequest for two different tools of the same name.
    """
    functions: dict[str, Json] = {}
    known: dict[str, Tool] = {}
    originals: dict[str, Original] = {}
    namespaces: set[str | None] = set()
    for tool in tools:
        name = function_name(tool.namespace, tool.name)
        if (other := known.setdefault(name, tool)) is not tool:
            if other == tool:
                continue
            raise InvalidRequest(
                f"The tools {_shown(other)} and {_shown(tool)} are both named `{name}` for this model: "
                f"rename one of them",
                param="tools",
            )
        is_first = tool.namespace not in namespaces
        functions[name] = {"type": "function", "function": _function(tool, name, is_first=is_first)}
        namespaces.add(tool.namespace)
        if (tool.kind, tool.namespace, tool.name) != ("function", None, name):
            originals[name] = (tool.kind, tool.namespace, tool.name)
    return functions, originals


def _shown(tool: Tool) -> str:
    return f"`{tool.name}`" if tool.namespace is None else f"`{tool.name}` (namespace `{tool.namespace}`)"


def _function(tool: Tool, name: str, *, is_first: bool) -> Json:
    function: Json = {"name": name}
    if description := joined(_description(tool, is_first=is_first)):
        function["description"] = description
    if tool.kind == "custom":
        function["parameters"] = {
            "type": "object",
            "properties": {CUSTOM_INPUT: {"type": "string"}},
            "required": [CUSTOM_INPUT],
            "additionalProperties": False,
        }
        return function
    function["parameters"] = tool.parameters or _NO_PARAMETERS
    if tool.strict:
        function["strict"] = True
    return function


def _description(tool: Tool, *, is_first: bool) -> Iterator[str]:
    """The texts that describe a tool. The first one of a namespace describes the namespace as well."""
    if is_first and tool.namespace_description:
        yield f"All tools `{tool.namespace}__*`: {tool.namespace_description}"
    if tool.description:
        yield tool.description
    grammar = tool.format or {}
    if tool.kind == "custom" and (definition := grammar.get("definition")):
        yield f"`{CUSTOM_INPUT}` must match this {grammar.get('syntax') or ''} grammar:\n{definition}"


def allowed(tools: list[Tool], choice: ToolChoice | None) -> set[str]:
    """The names of the functions that may be called.

    Other servers do not know `allowed_tools`: they are sent these functions only.
    """
    is_limited = choice is not None and bool(choice.names) and choice.mode != "tool"
    return {
        function_name(tool.namespace, tool.name)
        for tool in tools
        if not is_limited or (choice is not None and _is_named(tool, choice))
    }


def written_choice(tools: list[Tool], choice: ToolChoice) -> str | Json:
    if choice.mode != "tool":
        return choice.mode
    for tool in tools:
        if _is_named(tool, choice):
            return {"type": "function", "function": {"name": function_name(tool.namespace, tool.name)}}
    raise InvalidRequest("`tool_choice` names a tool that is not in `tools`", param="tool_choice")


def _is_named(tool: Tool, choice: ToolChoice) -> bool:
    return tool.name in choice.names or function_name(tool.namespace, tool.name) in choice.names
