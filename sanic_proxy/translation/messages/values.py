"""Names and small values of the Messages API, for both directions. Pure.

Source: the types of `anthropic` 2.14.0, which are generated from Anthropic's specification.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Mapping

from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import codec
from sanic_proxy.translation.conversation import FinishReason, ToolCall
from sanic_proxy.translation.tool_names import CUSTOM_INPUT

API = "messages"

# Blocks without a counterpart in another API. They pass from Messages to Messages.
OWN_BLOCKS = frozenset(
    {
        "bash_code_execution_tool_result",
        "code_execution_tool_result",
        "container_upload",
        "document",
        "image",
        "mcp_tool_result",
        "mcp_tool_use",
        "search_result",
        "server_tool_use",
        "text_editor_code_execution_tool_result",
        "tool_reference",
        "tool_search_tool_result",
        "web_fetch_tool_result",
        "web_search_tool_result",
    }
)

# Request fields without a counterpart, and their types: other APIs have fields of the same names.
OWN_FIELDS: Mapping[str, type | tuple[type, ...]] = {
    "cache_control": dict,
    "compaction": dict,
    "container": (str, dict),
    "context_management": dict,
    "diagnostics": dict,
    "fallbacks": list,
    "inference_geo": str,
    "mcp_servers": list,
    "speed": str,
    "thinking": dict,  # of a type that has no place in the middle shape
    "thread": dict,
}

FINISH_REASONS: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop_sequence",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "pause_turn": "pause",
    "refusal": "refusal",
    "model_context_window_exceeded": "context_window",
}

_STOP_REASONS: Mapping[FinishReason, str] = {
    "stop": "end_turn",
    "stop_sequence": "stop_sequence",
    "length": "max_tokens",
    "tool_calls": "end_turn",  # unless there are calls
    "content_filter": "refusal",
    "refusal": "refusal",
    "pause": "pause_turn",
    "context_window": "model_context_window_exceeded",
}

# An answer that ended for one of these may end inside a call, which must not be executed then. Anthropic
# states them beside `tool_use` blocks as well.
_BEFORE_CALLS = frozenset({"length", "context_window", "content_filter", "refusal"})


def finish_of(stop_reason: object) -> FinishReason:
    """The finish reason for a `stop_reason`; "stop" for an unknown one."""
    return FINISH_REASONS.get(stop_reason, "stop") if isinstance(stop_reason, str) else "stop"


def stop_reason_of(finish: FinishReason, *, has_calls: bool, has_refusal: bool) -> str:
    """The `stop_reason` for a finish reason. Calls make it `tool_use`, whatever else the provider said."""
    if finish in _BEFORE_CALLS:
        return _STOP_REASONS[finish]
    if has_calls:
        return "tool_use"
    return "refusal" if has_refusal else _STOP_REASONS[finish]


# Input of a tool that is not a JSON object, under the name by which Claude Code keeps what it cannot parse.
UNPARSED_INPUT = "__unparsedToolInput"


def tool_input(call: ToolCall) -> Json:
    """The `input` of a call: an object, always.

    No arguments are no input. Arguments that are not a JSON object are kept as `{"__unparsedToolInput":
    {"raw": ...}}`, so that the client's check of the input fails with the text that the model wrote. The
    input of a custom tool is the field `input`, as its function declares it (`tool_names`).
    """
    if call.kind == "custom":
        return {CUSTOM_INPUT: call.arguments}
    return input_of(call.arguments)


def input_of(arguments: str) -> Json:
    """The input that a text of arguments stands for; see `tool_input`."""
    if not arguments.strip():
        return {}
    try:
        # Python's own parser keeps integers of any size.
        parsed = json.loads(arguments, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        parsed = None
    return parsed if isinstance(parsed, dict) else {UNPARSED_INPUT: {"raw": arguments}}


def _finite(number: str) -> float:
    """Raises ValueError for a number that JSON cannot hold again."""
    if not math.isfinite(value := float(number)):
        raise ValueError(number)
    return value


def arguments_of(value: JsonMapping) -> str:
    """The arguments of a call whose `input` is `value`: the text that `tool_input` kept, or JSON."""
    if len(value) == 1 and isinstance(kept := value.get(UNPARSED_INPUT), dict):
        raw = kept.get("raw")
        if isinstance(raw, str):
            return raw
    return json_text(value)


def json_text(value: object) -> str:
    return codec.dumps(value).decode()


_ODD = re.compile(r"[^a-zA-Z0-9_-]")


def message_id(upstream_id: str) -> str:
    """A new id for a message that a provider calls `upstream_id`, of which it keeps the text.

    Claude Code takes messages of the same id for pieces of one message, joins them in the next request, and
    then repeats that request without end. Not all servers make their ids unique: Ollama has a thousand.
    """
    if upstream_id.startswith("msg_"):
        return upstream_id
    made = secrets.token_hex(8)
    return f"msg_{_ODD.sub('_', upstream_id)}_{made}" if upstream_id else f"msg_{made}"


def new_tool_id(of_message: str, number: int) -> str:
    """The id of the call `number` of a message, for a provider that gave it none."""
    return f"toolu_{of_message.removeprefix('msg_')}_{number}"
