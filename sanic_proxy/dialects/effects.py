"""Which requests do more than ask for an answer, by each dialect: data, read in favour of caution.

A request that stores something, runs in the background or lets the provider's own tools act must not be
worked on twice. Fields and tools that are not known here to be harmless count as effects.
"""

from __future__ import annotations

from dataclasses import dataclass

from sanic_proxy.json_types import JsonMapping

# In any dialect: an operator's `set_params` may add them.
_FIELDS = ("background", "container", "conversation", "mcp_servers", "plugins", "web_search_options")


@dataclass(frozen=True, slots=True)
class Effects:
    """What of a dialect's requests has effects.

    `stores_by_default`: the answer is stored unless `store` is false. `client_tools` are the types of the
    tools that the client runs, "" for those without a type; a trailing `*` stands for a version. `tool_lists`
    are the names below which an entry of `tools` declares functions, where entries have no type.
    """

    client_tools: tuple[str, ...] = ("", "function", "custom")
    stores_by_default: bool = False
    tool_lists: frozenset[str] = frozenset()

    def of(self, fields: JsonMapping) -> bool:
        """Whether a request with `fields` has, or may have, effects."""
        store = fields.get("store")
        if (self.stores_by_default if store is None else store) is not False:
            return True
        if any(fields.get(name) for name in _FIELDS):
            return True
        tools = fields.get("tools")
        if not tools:
            return False
        return not (isinstance(tools, list) and all(map(self._is_client_tool, tools)))

    def _is_client_tool(self, tool: object) -> bool:
        if not isinstance(tool, dict):
            return False
        if self.tool_lists:
            return self.tool_lists.issuperset(tool)
        kind = tool.get("type") or ""
        if not isinstance(kind, str):
            return False
        return kind in self.client_tools or any(
            known.endswith("*") and kind.startswith(known[:-1]) for known in self.client_tools
        )


CHAT_EFFECTS = Effects()
# Claude runs the versioned ones in the client: https://docs.anthropic.com/en/docs/agents-and-tools/tool-use
MESSAGES_EFFECTS = Effects(("", "custom", "bash_*", "computer_*", "memory_*", "text_editor_*"))
RESPONSES_EFFECTS = Effects(("function", "custom"), stores_by_default=True)
GEMINI_EFFECTS = Effects(tool_lists=frozenset({"functionDeclarations", "function_declarations"}))
