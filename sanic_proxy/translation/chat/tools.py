"""The tools of a conversation as functions of a chat; their names: `translation.tool_names`. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.json_types import Json
from sanic_proxy.openai import codec
from sanic_proxy.translation.chat.paragraphs import joined
from sanic_proxy.translation.conversation import Tool, ToolCall, ToolChoice
from sanic_proxy.translation.format import Original
from sanic_proxy.translation.tool_names import (
    CUSTOM_INPUT,
    CUSTOM_SCHEMA,
    Functions,
    digest,
    function_name,
    grammar_of,
)

# OpenAI has refused longer ids with 400 `string_above_max_length`; newer endpoints accept 64 characters.
MAX_ID_CHARS = 40
_NO_PARAMETERS: Json = {"type": "object", "properties": {}}


def call_id(original: str) -> str:
    """The id of a call, or a hash of one that is too long: the same for the call and its result."""
    return original if len(original) <= MAX_ID_CHARS else f"call_{digest(original, 32)}"


def written_call(call: ToolCall) -> Json:
    """A call of the history."""
    arguments = call.arguments or "{}"
    if call.kind == "custom":
        arguments = codec.dumps({CUSTOM_INPUT: call.arguments}).decode("utf-8", "surrogatepass")
    function = {"name": function_name(call.name, call.namespace), "arguments": arguments}
    return {"id": call_id(call.id), "type": "function", "function": function}


def written_tools(tools: list[Tool]) -> tuple[dict[str, Json], dict[str, Original]]:
    """The functions by name, and the originals of the tools that could not keep their kind or name.

    Raises InvalidRequest for two different tools of the same name.
    """
    functions: dict[str, Json] = {}
    names = Functions()
    namespaces: set[str | None] = set()
    for tool in tools:
        name = names.add(tool.kind, tool.name, tool.namespace)
        if name in functions:
            continue
        is_first = tool.namespace not in namespaces
        functions[name] = {"type": "function", "function": _function(tool, name, is_first=is_first)}
        namespaces.add(tool.namespace)
    return functions, names.originals


def _function(tool: Tool, name: str, *, is_first: bool) -> Json:
    function: Json = {"name": name}
    if description := joined(_description(tool, is_first=is_first)):
        function["description"] = description
    if tool.kind == "custom":
        function["parameters"] = CUSTOM_SCHEMA
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
    yield grammar_of(tool)


def allowed(tools: list[Tool], choice: ToolChoice | None) -> set[str]:
    """The names of the functions that may be called.

    Other servers do not know `allowed_tools`: they are sent these functions only.
    """
    names = frozenset(choice.names) if choice is not None and choice.mode != "tool" else frozenset()
    return {function_name(tool.name, tool.namespace) for tool in tools if not names or _is_named(tool, names)}


def written_choice(tools: list[Tool], choice: ToolChoice) -> str | Json:
    if choice.mode != "tool":
        return choice.mode
    names = frozenset(choice.names)
    for tool in tools:
        if _is_named(tool, names):
            return {"type": "function", "function": {"name": function_name(tool.name, tool.namespace)}}
    raise InvalidRequest("`tool_choice` names a tool that is not in `tools`", param="tool_choice")


def _is_named(tool: Tool, names: frozenset[str]) -> bool:
    return tool.name in names or function_name(tool.name, tool.namespace) in names
