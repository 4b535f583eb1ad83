"""How much the model shall think: options -> `thinking` and `output_config.effort`. Pure.

Options of a Messages client are written as they are. An effort of another API is written in one of two forms,
by `TargetTraits.thinking`:

| effort | "adaptive": thinking is that, with `output_config.effort` | "budget" (models before 4.6) |
|---|---|---|
| none | thinking disabled | thinking disabled |
| minimal | low | 1,024 |
| low | low | 2,048 |
| medium | medium | 8,192 |
| high | high | 16,384 |
| xhigh | xhigh | 32,768 |
| max | max | 32,768 |

A budget is at most half of `max_tokens`, and at least 1,024, the API's minimum; without room for that, the
effort is dropped. So is thinking beside a forced call and, with a budget, behind results of calls whose
answer has no thinking: the API refuses both. Sampling parameters that exclude thinking are dropped for it.
A wish for a summary alone is adaptive thinking too.
https://platform.claude.com/docs/en/build-with-claude/extended-thinking
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sanic_proxy.json_types import Json
from sanic_proxy.translation.conversation import ReasoningOptions
from sanic_proxy.translation.format import TargetTraits
from sanic_proxy.translation.messages.placement import lacks_thinking

MIN_BUDGET_TOKENS = 1024
_MIN_TOP_P = 0.95

_BUDGETS: Mapping[str, int] = {
    "minimal": 1024,
    "low": 2048,
    "medium": 8192,
    "high": 16384,
    "xhigh": 32768,
    "max": 32768,
}
_EFFORTS: Mapping[str, str] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}


def write(options: ReasoningOptions, fields: Json, target: TargetTraits, drop: Callable[[str], None]) -> None:
    """Add `options` to `fields`, a request that is complete otherwise."""
    if options.mode is not None:
        fields["thinking"] = _stated(options, fields["max_tokens"])
        _write_effort(options.effort, fields, drop)
    elif options.display is not None or (options.effort is not None and options.effort not in _EFFORTS):
        _write_effort(options.effort, fields, drop)
    elif options.effort is not None or options.summary is not None:
        _write_thinking(options, fields, target, drop)


def _stated(options: ReasoningOptions, max_tokens: int) -> Json:
    thinking: Json = {"type": options.mode}
    if options.mode == "enabled":
        budget = options.budget_tokens or MIN_BUDGET_TOKENS
        thinking["budget_tokens"] = min(budget, max(MIN_BUDGET_TOKENS, max_tokens - 1))
    if options.mode != "disabled" and options.display is not None:
        thinking["display"] = options.display
    return thinking


def _write_effort(effort: str | None, fields: Json, drop: Callable[[str], None]) -> None:
    if effort is not None and effort in _EFFORTS:
        fields.setdefault("output_config", {})["effort"] = _EFFORTS[effort]
    elif effort == "none":
        fields["thinking"] = {"type": "disabled"}
    elif effort is not None:
        drop("reasoning.effort")


def _write_thinking(
    options: ReasoningOptions, fields: Json, target: TargetTraits, drop: Callable[[str], None]
) -> None:
    thinking: Json | None = {"type": "adaptive"}
    if target.thinking == "adaptive":
        _write_effort(options.effort, fields, drop)
    else:
        thinking = _budgeted(options.effort, fields)
    is_forced = fields.get("tool_choice", {}).get("type") in {"any", "tool"}
    if thinking is None or is_forced:
        drop("reasoning.effort" if options.effort is not None else "reasoning.summary")
        return
    if options.summary is not None:
        thinking["display"] = "summarized"
    fields["thinking"] = thinking
    if fields.get("temperature", 1) != 1:
        del fields["temperature"]
        drop("temperature")
    if fields.pop("top_k", None) is not None:
        drop("top_k")
    if fields.get("top_p", 1) < _MIN_TOP_P:
        del fields["top_p"]
        drop("top_p")


def _budgeted(effort: str | None, fields: Json) -> Json | None:
    limit: int = fields["max_tokens"]
    if effort is None or limit <= MIN_BUDGET_TOKENS or lacks_thinking(fields["messages"]):
        return None
    budget = max(MIN_BUDGET_TOKENS, min(_BUDGETS[effort], limit // 2))
    return {"type": "enabled", "budget_tokens": budget}
