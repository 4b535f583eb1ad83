"""Names and small values of Gemini's API, for both directions. Pure.

Source: the types of `google-genai` 3.6.1 and https://ai.google.dev/api/generate-content.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sanic_proxy import errors
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.translation.conversation import FinishReason

API = "gemini"

FINISH_REASONS: Mapping[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "MODEL_ARMOR": "content_filter",
}
# The model did not manage to write a call: an answer without content is a failure then.
FAILED_CALLS = frozenset(
    {
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "MISSING_THOUGHT_SIGNATURE",
        "TOO_MANY_TOOL_CALLS",
        "UNEXPECTED_TOOL_CALL",
    }
)

_WRITTEN: Mapping[FinishReason, str] = {
    "stop": "STOP",
    "stop_sequence": "STOP",
    "tool_calls": "STOP",
    "length": "MAX_TOKENS",
    "pause": "MAX_TOKENS",  # the answer is incomplete, so `STOP` would be wrong
    "context_window": "MAX_TOKENS",
    "content_filter": "SAFETY",
    "refusal": "SAFETY",
}


def finish_of(reason: str, *, has_calls: bool) -> FinishReason:
    """The finish reason for a `finishReason`; "stop" for an unknown one."""
    finish = FINISH_REASONS.get(reason, "stop")
    return "tool_calls" if has_calls and finish == "stop" else finish


def reason_of(finish: FinishReason) -> str:
    """The `finishReason` for a finish reason."""
    return _WRITTEN[finish]


def failed_call(reason: str) -> errors.UpstreamBadResponse:
    """The error for an answer without content that ended because of a call that cannot be read."""
    return errors.UpstreamBadResponse(f"The model's tool call could not be read ({reason})")


_LETTER_AFTER_UNDERSCORE = re.compile(r"(?<=[a-z0-9])_([a-z0-9])")


def camel(name: str) -> str:
    """A field's name in lowerCamelCase: protocol buffers accept their snake_case names in JSON as well."""
    if "_" not in name:
        return name
    return _LETTER_AFTER_UNDERSCORE.sub(lambda found: found[1].upper(), name)


def camel_keys(fields: JsonMapping) -> Json:
    """`fields` of one object of the API, by their names in lowerCamelCase."""
    return {camel(name): value for name, value in fields.items()}


def text_of(fields: JsonMapping, name: str) -> str:
    """A string of a provider's answer; "" for anything else."""
    value = fields.get(name)
    return value if isinstance(value, str) else ""
