"""How each of OpenAI's chat completion parameters is handled for Straico. Data.

A dropped parameter is named in a response header. A parameter that would change the form of the answer is
rejected. A value without an effect (the default, or null) is ignored in both cases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from sanic_proxy.errors import InvalidRequest

Handling = Literal["passed", "emulated", "rejected", "dropped"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: how it is handled, a note for users, and the values that have no effect."""

    name: str
    handling: Handling
    note: str
    no_op_values: tuple[object, ...] = ()

    def row(self) -> str:
        """Its row in the table of the documents."""
        return f"| `{self.name}` | {self.handling} | {self.note} |"


_UNSUPPORTED = "not supported by Straico"

PARAMETERS: tuple[Parameter, ...] = (
    Parameter("model", "passed", "Straico's id, without the prefix"),
    Parameter("messages", "passed", "text; tool calls and results as text; images see below"),
    Parameter("temperature", "passed", "0 to 2"),
    Parameter("max_tokens", "passed", "a positive integer"),
    Parameter("max_completion_tokens", "passed", "as `max_tokens`, and takes precedence over it"),
    Parameter("stream", "emulated", "heartbeats until the answer has arrived, then all of it"),
    Parameter("stream_options", "emulated", "`include_usage`; no obfuscation"),
    Parameter(
        "stop",
        "emulated",
        "the text is truncated before the first of them; calls and JSON are not",
    ),
    Parameter("tools", "emulated", "described in the prompt; functions only"),
    Parameter("tool_choice", "emulated", "described in the prompt and checked, including `allowed_tools`"),
    Parameter(
        "parallel_tool_calls", "emulated", "described in the prompt; if false, only the first call is kept"
    ),
    Parameter("functions", "emulated", "as `tools`, one call at a time"),
    Parameter("function_call", "emulated", "as `tool_choice`"),
    Parameter("response_format", "emulated", "described in the prompt, and the answer is checked"),
    Parameter("n", "rejected", "Straico returns one answer", (1,)),
    Parameter("logprobs", "rejected", "Straico returns none", (False,)),
    Parameter("top_logprobs", "rejected", "Straico returns none", (0,)),
    Parameter("modalities", "rejected", "only text is supported", (["text"], [])),
    Parameter("audio", "rejected", "only text is supported"),
    Parameter("top_p", "dropped", _UNSUPPORTED, (1,)),
    Parameter("frequency_penalty", "dropped", _UNSUPPORTED, (0,)),
    Parameter("presence_penalty", "dropped", _UNSUPPORTED, (0,)),
    Parameter("logit_bias", "dropped", _UNSUPPORTED, ({},)),
    Parameter("seed", "dropped", _UNSUPPORTED),
    Parameter("user", "dropped", _UNSUPPORTED),
    Parameter("safety_identifier", "dropped", _UNSUPPORTED),
    Parameter("moderation", "dropped", _UNSUPPORTED),
    Parameter("metadata", "dropped", "nothing is stored", ({},)),
    Parameter("store", "dropped", "nothing is stored", (False,)),
    Parameter("service_tier", "dropped", "there is only one tier", ("auto", "default")),
    Parameter("reasoning_effort", "dropped", _UNSUPPORTED),
    Parameter("verbosity", "dropped", _UNSUPPORTED, ("medium",)),
    Parameter("prediction", "dropped", _UNSUPPORTED),
    Parameter("prompt_cache_key", "dropped", _UNSUPPORTED),
    Parameter("prompt_cache_options", "dropped", _UNSUPPORTED),
    Parameter("prompt_cache_retention", "dropped", _UNSUPPORTED),
    Parameter("web_search_options", "dropped", _UNSUPPORTED),
)
_REASONING = ("reasoning_content", "reasoning", "reasoning_text", "reasoning_details")
_BY_NAME: Mapping[str, Parameter] = {row.name: row for row in PARAMETERS}
_SUPPORTED = frozenset(row.name for row in PARAMETERS if row.handling in {"passed", "emulated"})


def dropped_params(fields: Mapping[str, object]) -> list[str]:
    """The names of the parameters that are dropped, in the order sent.

    Raises InvalidRequest for a rejected one.
    """
    return [name for name, value in fields.items() if name not in _SUPPORTED and _is_dropped(name, value)]


def dropped_parts(messages: object) -> list[str]:
    """The names of what messages have and Straico cannot get, each once: `messages.image.detail`, say."""
    listed = messages if isinstance(messages, list) else []
    names = (
        name for message in listed if isinstance(message, dict) for name in _parts_without_place(message)
    )
    return list(dict.fromkeys(names))


def _parts_without_place(message: Mapping[str, object]) -> Iterator[str]:
    if message.get("name") and message.get("role") not in {"tool", "function"}:
        yield "messages.name"
    content = message.get("content")
    for part in (message, *(content if isinstance(content, list) else ())):
        if not isinstance(part, dict):
            continue
        if part.get("cache_control"):
            yield "messages.cache_control"
        image = part.get("image_url")
        if isinstance(image, dict) and image.get("detail") not in {None, "auto"}:
            yield "messages.image.detail"
    if any(message.get(name) for name in _REASONING):
        yield "messages.reasoning"


def _is_dropped(name: str, value: object) -> bool:
    parameter = _BY_NAME.get(name)
    if value is None or (parameter is not None and any(_same(value, n) for n in parameter.no_op_values)):
        return False
    if parameter is not None and parameter.handling == "rejected":
        raise InvalidRequest(f"`{name}` is not supported by Straico: {parameter.note}", param=name)
    return True


def _same(value: object, no_op_values: object) -> bool:
    return value == no_op_values and isinstance(value, bool) == isinstance(no_op_values, bool)
