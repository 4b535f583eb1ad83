"""Straico's replies -> their parts. Pure.

Fields differ from model to model, because some answers are relayed from the vendor unchanged: every field may
be missing, null, or of another type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sanic_proxy.errors import UpstreamBadResponse
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import chunks, models
from sanic_proxy.openai.choices import FAILED, finish_reason_of, has_content
from sanic_proxy.providers.straico.error_rules import RULES, WARNING
from sanic_proxy.providers.straico.tools import ToolCall, compact
from sanic_proxy.upstream import error_parser
from sanic_proxy.upstream.answers import empty_answer

_FINISH_REASONS: Mapping[str, str] = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "max_output_tokens": "length",
    "model_context_window_exceeded": "length",
    "incomplete": "length",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "refusal": "content_filter",
    "recitation": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
    "spii": "content_filter",
}
# Finish reasons of vendors for an answer that the model could not complete.
_FAILURES = frozenset({FAILED, "insufficient_system_resource"})
_COST_KEYS = ("price", "words")

Numbers = Json


@dataclass(slots=True)
class Reply:
    """One reply. `text` is unparsed; `calls` are native calls; `cost` has `price` and `words`."""

    id: str
    created: int
    finish: str
    text: str
    refusal: str | None
    reasoning: str | None
    annotations: list[Any]
    calls: list[ToolCall]
    usage: Numbers | None
    cost: dict[str, Numbers]


def parse_reply(parsed: object) -> Reply:
    """Parse a reply. Raises UpstreamBadResponse, or the error that Straico returned with status 200."""
    reply = _unwrapped(parsed)
    choice = _first_choice(reply)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise UpstreamBadResponse("The provider's answer has no message")
    text = _text(message.get("content"))
    if WARNING.match(text):
        raise error_parser.error_in_band({"error": text}, rules=RULES)
    annotations = message.get("annotations")
    finish = finish_reason_of(choice.get("finish_reason"))
    if finish in _FAILURES:
        raise UpstreamBadResponse("The model failed in the middle of its answer")
    if not has_content(choice):
        raise empty_answer()
    return Reply(
        id=_string(reply.get("id")) or chunks.new_completion_id(),
        created=_whole(reply.get("created")) or chunks.now(),
        finish=_FINISH_REASONS.get(finish or "", "stop"),
        text=text,
        refusal=_string(message.get("refusal")),
        reasoning=_string(message.get("reasoning_content")) or _string(message.get("reasoning")),
        annotations=annotations if isinstance(annotations, list) else [],
        calls=list(_calls(message)),
        usage=_usage(reply.get("usage")),
        cost={key: reply[key] for key in _COST_KEYS if isinstance(reply.get(key), dict)},
    )


def _unwrapped(parsed: Any) -> JsonMapping:
    """The completion in a reply.

    v0 wraps it in `data` and `completion`, v1 in `data` and `completions` by model.
    """
    reply = parsed
    for key in ("data", "completions", "completion"):
        inner = reply.get(key) if isinstance(reply, dict) and "choices" not in reply else None
        if key == "completions" and isinstance(inner, dict):
            inner = next(iter(inner.values()), None)  # its key may differ from the requested model
        if isinstance(inner, dict):
            reply = {**_cost_around(reply), **inner}
    if not isinstance(reply, dict):
        raise UpstreamBadResponse("The provider's answer is not a chat completion")
    if reply.get("error") or (reply.get("success") is False and "choices" not in reply):
        raise error_parser.error_in_band(reply, rules=RULES)
    return reply


def _cost_around(outer: Mapping[str, object]) -> dict[str, object]:
    """The cost in a wrapper. The overall cost of all models is that of the one model."""
    found = ((key, outer.get(key, outer.get(f"overall_{key}"))) for key in _COST_KEYS)
    return {key: value for key, value in found if value is not None}


def _first_choice(reply: Mapping[str, object]) -> Mapping[str, object]:
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if choices in ([], None) and "choices" in reply:
        raise empty_answer()
    if not isinstance(choice, dict):
        raise UpstreamBadResponse("The provider's answer has no choices")
    return choice


def _text(content: object) -> str:
    if isinstance(content, list):
        texts = [part.get("text") if isinstance(part, dict) else part for part in content]
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def _string(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _calls(message: Mapping[str, object]) -> Iterator[ToolCall]:
    """The native calls of a message: `tool_calls`, or the legacy `function_call`."""
    entries = message.get("tool_calls")
    if not isinstance(entries, list) or not entries:
        entries = [{"function": message.get("function_call")}]
    for entry in entries:
        function = entry.get("function") if isinstance(entry, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            arguments = function.get("arguments")
            text = arguments if isinstance(arguments, str) else compact(arguments or {})
            yield ToolCall(function["name"], text.strip() or "{}", _string(entry.get("id")) or "")


def _usage(usage: object) -> Numbers | None:
    """Token counts as integers; None if there are none, because clients bill by them."""
    if not isinstance(usage, dict):
        return None
    prompt, completed = _whole(usage.get("prompt_tokens")), _whole(usage.get("completion_tokens"))
    if prompt is None and completed is None:
        return None
    total = _whole(usage.get("total_tokens"))
    counted = {
        "prompt_tokens": prompt or 0,
        "completion_tokens": completed or 0,
        "total_tokens": (prompt or 0) + (completed or 0) if total is None else total,
    }
    details = {
        key: value for key, value in usage.items() if key.endswith("_details") and isinstance(value, dict)
    }
    return {**counted, **details}


def recorded_usage(reply: Reply) -> Numbers | None:
    """The tokens of a reply with its `cost` in coins, as records keep them; None if neither is known."""
    coins = reply.cost.get("price", {}).get("total")
    return {**(reply.usage or {}), "cost": coins} if _is_number(coins) else reply.usage


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if value == value and abs(value) < 2**53 else None  # noqa: PLR0124 - NaN


def add_numbers(first: Numbers | None, second: Numbers | None) -> Numbers | None:
    """The sums of two answers' numbers by key, including nested ones."""
    if first is None or second is None:
        return second if first is None else first
    total = {**first, **second}
    for key in first.keys() & second.keys():
        one, other = first[key], second[key]
        if isinstance(one, dict) and isinstance(other, dict):
            total[key] = add_numbers(one, other)
        elif _is_number(one) and _is_number(other):
            total[key] = one + other
    return total


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def model_list(parsed: object) -> list[dict[str, object]]:
    """The chat models of `GET /v2/models`, with all of their fields.

    `model_type` is chat, image, video or audio; an entry without it counts as a chat model.
    """
    entries = models.model_entries(parsed)
    return [entry for entry in entries if entry.get("model_type") in {None, "", "chat"}]
