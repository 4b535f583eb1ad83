"""The tools of a Responses request and the choice among them, read and written. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, Literal

from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.translation.conversation import CallKind, Tool, ToolChoice
from sanic_proxy.translation.format import Original
from sanic_proxy.translation.responses.checked import Checked, wrong
from sanic_proxy.translation.tool_names import function_name

TOOL_SEARCH: Final = "tool_search"
_NO_PARAMETERS: JsonMapping = {"type": "object", "properties": {}}

_MODES: Mapping[str, Literal["auto", "none", "required"]] = {
    "auto": "auto",
    "none": "none",
    "required": "required",
}

ToolKey = tuple[str | None, str]


class Tools:
    """The tools of a request, from all places where it declares some.

    A tool that is declared again replaces the earlier one. `hosted` has the tools that the provider would
    run, by type: no other API has them. `dropped` names what else of the tools has no counterpart.
    """

    __slots__ = ("by_key", "dropped", "hosted")

    def __init__(self) -> None:
        self.by_key: dict[ToolKey, Tool] = {}
        self.dropped: Json = {}
        self.hosted: dict[str, Json] = {}

    def read(self, declared: Iterable[Checked]) -> None:
        """Add the tools of a list."""
        for tool in declared:
            match tool.text("type"):
                case "function" | "custom":
                    self._add(tool, None)
                case "namespace":
                    self._read_namespace(tool)
                case "tool_search" if tool.fields.get("execution") == "client":
                    self._put(
                        Tool(
                            TOOL_SEARCH,
                            tool.optional_text("description"),
                            tool.json_object("parameters"),
                            kind="tool_search",
                        )
                    )
                case kind:
                    self.hosted[kind] = tool.fields

    def _read_namespace(self, namespace: Checked) -> None:
        name, description = namespace.text("name"), namespace.optional_text("description")
        for tool in namespace.children("tools"):
            if tool.text("type") in {"function", "custom"}:
                self._add(tool, name, description)
            else:
                self.hosted[tool.fields["type"]] = tool.fields

    def _add(self, tool: Checked, namespace: str | None, namespace_description: str | None = None) -> None:
        is_custom = tool.fields["type"] == "custom"
        if tool.flag("defer_loading"):
            self.dropped["tools.defer_loading"] = True
        self._put(
            Tool(
                tool.text("name"),
                tool.optional_text("description"),
                None if is_custom else tool.json_object("parameters"),
                None if is_custom else tool.flag("strict"),
                "custom" if is_custom else "function",
                tool.json_object("format") if is_custom else None,
                namespace,
                namespace_description=namespace_description,
            )
        )

    def _put(self, tool: Tool) -> None:
        self.by_key[tool.namespace, tool.name] = tool

    def choice(self, request: Checked) -> ToolChoice | None:
        """The request's `tool_choice`. A hosted tool cannot be chosen: `dropped` names the choice then."""
        value = request.fields.get("tool_choice")
        if value is None:
            return None
        if isinstance(value, str):
            if (mode := _MODES.get(value)) is not None:
                return ToolChoice(mode)
            raise wrong("tool_choice", '"auto", "none", "required" or an object')
        chosen = Checked(value, "tool_choice.")
        match chosen.text("type"):
            case "function" | "custom":
                return ToolChoice("tool", (chosen.text("name"),))
            case "tool_search" if (None, TOOL_SEARCH) in self.by_key:
                return ToolChoice("tool", (TOOL_SEARCH,))
            case "allowed_tools":
                return self._allowed(chosen)
            case kind:
                self.dropped["tool_choice"] = kind
                return None

    def _allowed(self, chosen: Checked) -> ToolChoice:
        """A choice among some tools. None of them is left where all are hosted: then no call is allowed."""
        mode = chosen.optional_text("mode") or "auto"
        if mode not in {"auto", "required"}:
            raise wrong("tool_choice.mode", '"auto" or "required"')
        names = tuple(name for tool in chosen.children("tools") for name in self._named(tool))
        if not names:
            return ToolChoice("none")
        return ToolChoice("required" if mode == "required" else "auto", names)

    def _named(self, tool: Checked) -> Sequence[str]:
        match tool.text("type"):
            case "function" | "custom":
                return (tool.text("name"),)
            case "namespace":
                within = tool.text("name")
                return [name for namespace, name in self.by_key if namespace == within]
            case "tool_search":
                return (TOOL_SEARCH,)
            case _:
                self.dropped["tool_choice"] = tool.fields["type"]
                return ()


class ToolWriter:
    """The tools of a conversation as Responses has them.

    Names that Responses does not accept are replaced; `originals` has those.
    """

    __slots__ = ("_by_name", "_tools", "originals")

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools = tools
        self._by_name = {tool.name: tool for tool in tools}
        self.originals: dict[str, Original] = {}
        for tool in tools:
            if (name := function_name(tool.name)) != tool.name:
                self.originals[name] = (tool.kind, tool.namespace, tool.name)

    def declared(self) -> list[Json]:
        """The value of `tools`. Tools of one namespace stand together."""
        written: list[Json] = []
        for namespace, tools in groupby(sorted(self._tools, key=_namespace), _namespace):
            group = list(tools)
            declared = [_declared(tool) for tool in group]
            if not namespace:
                written += declared
                continue
            description = group[0].namespace_description or ""
            written.append(
                {"type": "namespace", "name": namespace, "description": description, "tools": declared}
            )
        return written

    def choice(self, choice: ToolChoice) -> str | Json:
        """The value of `tool_choice`."""
        chosen = [self._reference(name) for name in choice.names]
        match choice.mode:
            case "tool" if len(chosen) == 1 and chosen[0]["type"] != TOOL_SEARCH:
                return chosen[0]
            case "tool":
                return {"type": "allowed_tools", "mode": "required", "tools": chosen}
            case "none":
                return "none"
            case mode:
                return {"type": "allowed_tools", "mode": mode, "tools": chosen} if chosen else mode

    def _reference(self, name: str) -> Json:
        tool = self._by_name.get(name)
        kind: CallKind = tool.kind if tool is not None else "function"
        return {"type": TOOL_SEARCH} if kind == TOOL_SEARCH else {"type": kind, "name": function_name(name)}


def _namespace(tool: Tool) -> str:
    return tool.namespace or ""


def _declared(tool: Tool) -> Json:
    declared: Json = {"type": tool.kind}
    if tool.kind == TOOL_SEARCH:
        declared |= {"execution": "client", "parameters": tool.parameters}
    elif tool.kind == "custom":
        declared |= {"name": function_name(tool.name), "format": tool.format}
    else:
        # Without `strict` Responses would make the schema a strict one, which chats and Messages do not.
        parameters = tool.parameters if tool.parameters is not None else dict(_NO_PARAMETERS)
        declared |= {
            "name": function_name(tool.name),
            "parameters": parameters,
            "strict": tool.strict is True,
        }
    declared["description"] = tool.description
    return {key: value for key, value in declared.items() if value is not None}


def echoed_tools(tools: object) -> list[Any]:
    """The request's `tools` as a response repeats them: functions with all of their keys."""
    listed = tools if isinstance(tools, list) else []
    return [
        {"description": None, "parameters": None, "strict": None, **tool}
        if isinstance(tool, dict) and tool.get("type") == "function"
        else tool
        for tool in listed
    ]
