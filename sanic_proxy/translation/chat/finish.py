"""Why an answer ended: finish reasons of chats <-> those of the middle shape. Pure.

| middle | chat | |
|---|---|---|
| stop | `stop` | |
| stop_sequence | `stop` | the sequence goes into the choice's `stop_reason`, as vLLM has it |
| length | `length` | |
| tool_calls | `tool_calls` | also for any other good end of an answer with calls |
| content_filter | `content_filter` | |
| refusal | `content_filter` | `stop` where the model's own refusal is in the answer |
| pause | `length` | the answer is incomplete, so `stop` would be wrong |
| context_window | `length` | |
"""

from __future__ import annotations

from collections.abc import Mapping

from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import choices
from sanic_proxy.translation.conversation import Finish, FinishReason

_READ: Mapping[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "function_call": "tool_calls",
    # Words of other APIs, which some servers pass on.
    "max_tokens": "length",
    "model_length": "length",
    "max_output_tokens": "length",
    "tool_use": "tool_calls",
    "tool_call": "tool_calls",
    "safety": "content_filter",
    "recitation": "content_filter",
    "refusal": "refusal",
    "stop_sequence": "stop_sequence",
    "pause_turn": "pause",
    "model_context_window_exceeded": "context_window",
}
_WRITTEN: Mapping[FinishReason, str] = {
    "stop": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "content_filter",
    "pause": "length",
    "context_window": "length",
}
_GOOD_ENDS = frozenset({"stop", "stop_sequence", "tool_calls"})


def reason_of(choice: JsonMapping) -> FinishReason | None:
    """The reason in a choice or in one chunk of it; None if it has none. Unknown words count as `stop`."""
    reason = choices.finish_reason_of(choice.get("finish_reason"))
    return None if reason is None else _READ.get(reason, "stop")


def read(
    reason: FinishReason | None, stop_reason: object, *, has_calls: bool, has_refusal: bool = False
) -> Finish:
    """The end of an answer whose choice says `reason` and, as vLLM's do, `stop_reason`.

    Several servers report `stop` for answers with calls, and a few `tool_calls` for answers without.
    """
    if reason is None or reason in _GOOD_ENDS:
        if has_calls:
            return Finish("tool_calls")
        if has_refusal:
            return Finish("refusal")
        if isinstance(stop_reason, str) and stop_reason and reason in {"stop", "stop_sequence"}:
            return Finish("stop_sequence", stop_reason)
        return Finish("stop_sequence" if reason == "stop_sequence" else "stop")
    return Finish(reason)


def written(finish: Finish, *, has_calls: bool, has_refusal: bool) -> Json:
    """The fields of a choice that say why it ended."""
    reason = _WRITTEN[finish.reason]
    if finish.reason in _GOOD_ENDS:
        reason = "tool_calls" if has_calls else "stop"
    elif finish.reason == "refusal" and has_refusal:
        reason = "stop"
    if finish.reason == "stop_sequence" and reason == "stop" and finish.stop_sequence:
        return {"finish_reason": reason, "stop_reason": finish.stop_sequence}
    return {"finish_reason": reason}
