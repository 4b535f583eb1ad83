"""`tools`, `tool_choice` and their legacy forms -> the tool use of a request. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.providers.straico.tools import Choice, Tool, ToolUse

_TOOL_FIELDS = frozenset({"tools", "functions", "tool_choice", "function_call"})


def parse_tool_use(fields: Mapping[str, object]) -> ToolUse | None:
    """Parse the tools of a request; None if none may be called. Raises InvalidRequest."""
    if _TOOL_FIELDS.isdisjoint(fields):
        return None
    is_legacy = bool(fields.get("functions")) and not fields.get("tools")
    tools = tuple(_parse_functions(fields) if is_legacy else _parse_tools(fields))
    name = "function_call" if is_legacy else "tool_choice"
    choice = fields.get(name, "auto") or "auto"
    if choice not in ("none", "auto") and not tools:
        raise InvalidRequest(f"`{name}` requires `tools`", param=name)
    if not tools or choice == "none":
        return None
    parallel = fields.get("parallel_tool_calls")
    if parallel is not None and not isinstance(parallel, bool):
        raise InvalidRequest("`parallel_tool_calls` must be true or false", param="parallel_tool_calls")
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        tools, choice = _allowed(choice, tools, name)
    return ToolUse(
        tools, _parse_choice(choice, tools, name), parallel is not False and not is_legacy, is_legacy
    )


def offers_tools(fields: Mapping[str, object]) -> bool:
    """Whether the answer to a request may contain calls. Does not validate the request."""
    is_legacy = not fields.get("tools")
    choice = fields.get("function_call" if is_legacy else "tool_choice")
    return bool(fields.get("functions") if is_legacy else fields["tools"]) and choice != "none"


def _parse_tools(fields: Mapping[str, object]) -> Iterator[Tool]:
    for index, entry in enumerate(_list_of_objects(fields, "tools")):
        function = entry.get("function")
        if entry.get("type", "function") != "function" or not isinstance(function, dict):
            raise InvalidRequest("Straico supports only tools of type `function`", param=f"tools.{index}")
        yield _parse_tool(function, f"tools.{index}.function")


def _parse_functions(fields: Mapping[str, object]) -> Iterator[Tool]:
    for index, function in enumerate(_list_of_objects(fields, "functions")):
        yield _parse_tool(function, f"functions.{index}")


def _list_of_objects(fields: Mapping[str, object], name: str) -> list[dict[str, object]]:
    entries = fields.get(name) or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InvalidRequest(f"`{name}` must be a list of objects", param=name)
    return entries


def _parse_tool(function: Mapping[str, object], path: str) -> Tool:
    name = function.get("name")
    description = function.get("description") or ""
    parameters = function.get("parameters") or {}
    if not isinstance(name, str) or not name:
        raise InvalidRequest("A function must have a `name`", param=f"{path}.name")
    if not isinstance(description, str):
        raise InvalidRequest("A function's description must be a string", param=f"{path}.description")
    if not isinstance(parameters, dict):
        raise InvalidRequest("A function's parameters must be a JSON Schema", param=f"{path}.parameters")
    return Tool(name, description, parameters, function.get("strict") is True, path)


def _allowed(
    choice: Mapping[str, object], tools: tuple[Tool, ...], param: str
) -> tuple[tuple[Tool, ...], Choice]:
    """The tools that `allowed_tools` selects, and its mode. The model does not see the others."""
    allowed = choice.get("allowed_tools", choice)  # flat, as the Responses API has it
    mode = allowed.get("mode") if isinstance(allowed, dict) else None
    entries = allowed.get("tools") if isinstance(allowed, dict) else None
    if mode not in ("auto", "required") or not isinstance(entries, list) or not entries:
        raise InvalidRequest(
            "`allowed_tools` must have a `mode` (auto or required) and a non-empty list of `tools`",
            param=f"{param}.allowed_tools",
        )
    by_name = {tool.name: [tool] for tool in tools}
    names = {_find_named(entry, by_name.get(_name_of(entry) or "", []), param).name for entry in entries}
    return tuple(tool for tool in tools if tool.name in names), mode


def _name_of(entry: object) -> str | None:
    named = entry.get("function", entry) if isinstance(entry, dict) else None
    name = named.get("name") if isinstance(named, dict) else None
    return name if isinstance(name, str) else None


def _parse_choice(choice: object, tools: tuple[Tool, ...], param: str) -> Choice | Tool:
    return (
        "auto"
        if choice == "auto"
        else "required"
        if choice == "required"
        else _find_named(choice, tools, param)
    )


def _find_named(entry: object, tools: Sequence[Tool], param: str) -> Tool:
    """The tool of `{"type": "function", "function": {"name": ...}}`, or of the flat form."""
    name = _name_of(entry)
    tool = next((tool for tool in tools if tool.name == name), None)
    if tool is None:
        raise InvalidRequest(f"`{param}` must be none, auto, required or name one of the tools", param=param)
    return tool
