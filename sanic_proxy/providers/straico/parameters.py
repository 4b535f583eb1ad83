"""OpenAI's parameters of a chat completion, and what becomes of each with Straico. Data.

What is left out is named to the client in a header; only what would change the shape of the answer is
refused. A value that asks for nothing (the default, or null) is neither.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sanic_proxy.errors import InvalidRequest

HEADER = "x-sanic-proxy-dropped-params"
_MAX_NAMES = 32
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")
_MAX_NAME_CHARS = 64

Handling = Literal["passed", "emulated", "refused", "left out"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: what becomes of it, in a sentence too, and the values that ask for nothing."""

    name: str
    handling: Handling
    note: str
    no_op_values: tuple[object, ...] = ()

    def row(self) -> str:
        """Its line in the README's table."""
        return f"| `{self.name}` | {self.handling} | {self.note} |"


_NOT_KNOWN = "Straico does not know it"

PARAMETERS: tuple[Parameter, ...] = (
    Parameter("model", "passed", "Straico's id, without the prefix"),
    Parameter("messages", "passed", "text; tool calls and results in words; images see below"),
    Parameter("temperature", "passed", "0 to 2"),
    Parameter("max_tokens", "passed", "a whole number above 0"),
    Parameter("max_completion_tokens", "passed", "as `max_tokens`, and wins over it"),
    Parameter("stream", "emulated", "heartbeats until the answer is there, then the answer at once"),
    Parameter("stream_options", "emulated", "`include_usage`; there is no obfuscation"),
    Parameter(
        "stop",
        "emulated",
        "the visible text is cut before the first of them; calls are kept, JSON is not cut",
    ),
    Parameter("tools", "emulated", "told in words; functions only"),
    Parameter("tool_choice", "emulated", "told in words and checked, `allowed_tools` included"),
    Parameter("parallel_tool_calls", "emulated", "told in words; where false, the first call counts"),
    Parameter("functions", "emulated", "as `tools`, one call at a time"),
    Parameter("function_call", "emulated", "as `tool_choice`"),
    Parameter("response_format", "emulated", "told in words, and the answer is checked"),
    Parameter("n", "refused", "Straico gives one answer", (1,)),
    Parameter("logprobs", "refused", "Straico gives none", (False,)),
    Parameter("top_logprobs", "refused", "Straico gives none", (0,)),
    Parameter("modalities", "refused", "text is all there is", (["text"], [])),
    Parameter("audio", "refused", "text is all there is"),
    Parameter("top_p", "left out", _NOT_KNOWN, (1,)),
    Parameter("frequency_penalty", "left out", _NOT_KNOWN, (0,)),
    Parameter("presence_penalty", "left out", _NOT_KNOWN, (0,)),
    Parameter("logit_bias", "left out", _NOT_KNOWN, ({},)),
    Parameter("seed", "left out", _NOT_KNOWN),
    Parameter("user", "left out", _NOT_KNOWN),
    Parameter("safety_identifier", "left out", _NOT_KNOWN),
    Parameter("moderation", "left out", _NOT_KNOWN),
    Parameter("metadata", "left out", "nothing is stored", ({},)),
    Parameter("store", "left out", "nothing is stored", (False,)),
    Parameter("service_tier", "left out", "there is one tier", ("auto", "default")),
    Parameter("reasoning_effort", "left out", _NOT_KNOWN),
    Parameter("verbosity", "left out", _NOT_KNOWN, ("medium",)),
    Parameter("prediction", "left out", _NOT_KNOWN),
    Parameter("prompt_cache_key", "left out", _NOT_KNOWN),
    Parameter("prompt_cache_options", "left out", _NOT_KNOWN),
    Parameter("prompt_cache_retention", "left out", _NOT_KNOWN),
    Parameter("web_search_options", "left out", _NOT_KNOWN),
)
_BY_NAME: Mapping[str, Parameter] = {row.name: row for row in PARAMETERS}
_SUPPORTED = frozenset(row.name for row in PARAMETERS if row.handling in {"passed", "emulated"})


def dropped_params(fields: Mapping[str, Any]) -> list[str]:
    """The names of what Straico will not hear of, in the order sent. Raises InvalidRequest, by name."""
    return [name for name, value in fields.items() if name not in _SUPPORTED and _is_dropped(name, value)]


def _is_dropped(name: str, value: object) -> bool:
    parameter = _BY_NAME.get(name)
    if value is None or (parameter is not None and any(_same(value, n) for n in parameter.no_op_values)):
        return False
    if parameter is not None and parameter.handling == "refused":
        raise InvalidRequest(f"`{name}` cannot be used with Straico: {parameter.note}", param=name)
    return True


def _same(value: object, no_op_values: object) -> bool:
    return value == no_op_values and isinstance(value, bool) == isinstance(no_op_values, bool)


def dropped_params_headers(names: list[str]) -> list[tuple[str, str]]:
    """The header that names what was left out; none where nothing was. Clients choose these names."""
    if not names:
        return []
    safe = [_UNSAFE.sub("_", name[:_MAX_NAME_CHARS]) or "_" for name in names[:_MAX_NAMES]]
    more = [f"and-{len(names) - _MAX_NAMES}-more"] if len(names) > _MAX_NAMES else []
    return [(HEADER, ",".join([*safe, *more]))]
