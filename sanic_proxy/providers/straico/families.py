"""Tools, calls and results as text for a model, in the markup of its family. Pure.

`tool_parser` is the counterpart: it parses what `render_calls` writes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sanic_proxy.providers.straico.json_schema import example_object
from sanic_proxy.providers.straico.tools import Family, Tool, ToolUse, compact, indented

_SECTION = ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>")
# GLM's markup has no escapes, so values must not contain these.
_GLM_TAGS = ("<arg_", "</arg_", "<tool_call", "</tool_call")


@dataclass(frozen=True, slots=True)
class PastCall:
    """A call of an earlier turn. `label` identifies it in its result.

    `arguments` is the client's text, which need not be JSON.
    """

    label: str
    name: str
    arguments: str


def instructions(tool_use: ToolUse, *, family: Family) -> str:
    """The text that describes `tools`, `tool_choice` and `parallel_tool_calls` to the model."""
    described = [
        {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
        for tool in tool_use.tools
    ]
    example = _RENDERERS[family]([_example(tool_use)])
    return "\n".join(
        [
            "# Tools",
            "",
            "You can call these functions. Each has a JSON Schema of its parameters:",
            "<tools>",
            indented(described),
            "</tools>",
            "",
            "To call a function, write exactly this markup, with its name and your arguments:",
            "",
            example,
            "",
            "You may write text before a call. Write nothing after it: its result is in the next message.",
            "Never invent a result. Call only the functions listed above, with valid arguments.",
            _PARALLEL_HINTS[family] if tool_use.parallel else "Make at most one call in each answer.",
            _choice_hint(tool_use),
        ]
    )


_PARALLEL_HINTS: Mapping[Family, str] = {
    "json": "To make several calls at once, put several objects into the one array.",
    "qwen": "To make several calls at once, write several <tool_call> blocks, one after the other.",
    "z-ai": "To make several calls at once, write several <tool_call> blocks, one after the other.",
    "moonshotai": "To make several calls at once, put several calls into the one section.",
}


def _choice_hint(tool_use: ToolUse) -> str:
    if isinstance(tool_use.choice, Tool):
        return (
            f"You must call the function {tool_use.choice.name} now, and no other; do not answer without it."
        )
    if tool_use.choice == "required":
        return "You must call at least one function now; do not answer without a call."
    return "Call a function only if it helps; otherwise answer as usual, without this markup."


def _example(tool_use: ToolUse) -> PastCall:
    tool = tool_use.choice if isinstance(tool_use.choice, Tool) else tool_use.tools[0]
    return PastCall("", tool.name, compact(example_object(tool.parameters)))


def label_for(call_id: str, name: str, number: int, *, family: Family) -> str:
    """The label of a past call: the client's id, except that Kimi's ids have a form of their own."""
    return f"functions.{name}:{number}" if family == "moonshotai" else call_id


def render_calls(calls: Sequence[PastCall], *, family: Family) -> str:
    """The calls of an earlier assistant turn, with their labels, so that results can be matched."""
    return _RENDERERS[family](calls)


def _as_json(call: PastCall) -> dict[str, object]:
    labelled = {"id": call.label} if call.label else {}
    return {**labelled, "name": call.name, "arguments": _arguments(call.arguments)}


def _arguments(text: str) -> object:
    """The arguments as an object; the unchanged text if it is not a JSON object."""
    try:
        parsed = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return text
    return parsed if isinstance(parsed, dict) else text


def _render_json(calls: Sequence[PastCall]) -> str:
    return f"<tool_calls>\n{indented([_as_json(call) for call in calls])}\n</tool_calls>"


def _render_qwen(calls: Sequence[PastCall]) -> str:
    return "\n".join(f"<tool_call>\n{compact(_as_json(call))}\n</tool_call>" for call in calls)


def _render_glm(calls: Sequence[PastCall]) -> str:
    return "\n".join(_render_glm_call(call) for call in calls)


def _render_glm_call(call: PastCall) -> str:
    arguments = _arguments(call.arguments)
    if not isinstance(arguments, dict) or not _is_valid_in_glm(arguments):
        return _render_qwen([call])
    opening = f'<tool_call id="{call.label}">' if call.label else "<tool_call>"
    texts = {key: value if isinstance(value, str) else compact(value) for key, value in arguments.items()}
    pairs = [f"<arg_key>{key}</arg_key>\n<arg_value>{text}</arg_value>" for key, text in texts.items()]
    return "\n".join([opening + call.name, *pairs, "</tool_call>"])


def _is_valid_in_glm(arguments: Mapping[str, object]) -> bool:
    texts = [*arguments, *(value for value in arguments.values() if isinstance(value, str))]
    texts += [compact(value) for value in arguments.values() if not isinstance(value, str)]
    return not any(tag in text for text in texts for tag in _GLM_TAGS) and all(
        key == key.strip() and key for key in arguments
    )


def _render_kimi(calls: Sequence[PastCall]) -> str:
    rendered = "".join(
        f"<|tool_call_begin|>{call.label or f'functions.{call.name}:0'}<|tool_call_argument_begin|>"
        f"{compact(_arguments(call.arguments))}<|tool_call_end|>"
        for call in calls
    )
    return _SECTION[0] + rendered + _SECTION[1]


_RENDERERS: Mapping[Family, Callable[[Sequence[PastCall]], str]] = {
    "json": _render_json,
    "qwen": _render_qwen,
    "z-ai": _render_glm,
    "moonshotai": _render_kimi,
}


def render_result(label: str, name: str, content: str, *, family: Family) -> str:
    """The result of a call, as a part of a user turn."""
    if family == "moonshotai":
        return f"## Return of {label}\n{content}"
    opening = f'<tool_response id="{label}" name="{name}">' if name else f'<tool_response id="{label}">'
    return f"{opening}\n{content}\n</tool_response>"
