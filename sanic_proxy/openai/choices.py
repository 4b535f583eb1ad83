"""The choices of a completion, whole or streamed: how one ends, and whether it has any content. Pure."""

from __future__ import annotations

from sanic_proxy.json_types import JsonMapping

# What some servers send in every chunk, or at the end of a cut answer, instead of null.
_NO_REASON = frozenset({"", "null", "none"})
FAILED = "error"


def finish_reason_of(value: object) -> str | None:
    """A `finish_reason` in lower case; None for null, an empty text and the words `null` and `none`."""
    if not isinstance(value, str):
        return str(value).lower() if value else None
    reason = value.strip().lower()
    return None if reason in _NO_REASON else reason


def has_content(choice: JsonMapping) -> bool:
    """Whether a choice, or one chunk of it, holds any part of an answer: text, reasoning, a call, a refusal,
    audio, or a finish reason. A role alone and empty fields do not count.
    """
    if choice.get("text") or finish_reason_of(choice.get("finish_reason")) is not None:
        return True
    part = choice.get("delta") or choice.get("message")
    return isinstance(part, dict) and any(value for key, value in part.items() if key != "role")
