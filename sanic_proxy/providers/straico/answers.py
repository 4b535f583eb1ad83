"""What Straico answers -> OpenAI's objects. Pure.

Fields vary from model to model, as some answers are relayed raw from the vendor: every one may be
missing, null, or of another type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sanic_proxy import failures, wire
from sanic_proxy.errors import UpstreamBadResponse
from sanic_proxy.providers.straico.failures import RULES, WARNING
from sanic_proxy.providers.straico.reading import Reading, read, without_thought
from sanic_proxy.providers.straico.requests import tool_use, uses_functions
from sanic_proxy.providers.straico.tools import compact

_FINISH_REASONS: Mapping[str, str] = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "max_output_tokens": "length",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "refusal": "content_filter",
    "recitation": "content_filter",
}

_WARNING_RULE = next((rule for rule in RULES if rule.pattern is WARNING), None)


def completion(parsed: Any, *, request: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The chat.completion, with all fields OpenAI requires; `model` is the client's name for it.

    Raises UpstreamBadResponse, or the error that Straico put into a success.
    """
    reply = _unwrapped(parsed)
    choice = _first_choice(reply)
    upstream = choice.get("message")
    if not isinstance(upstream, dict):
        raise UpstreamBadResponse("The provider's answer has no message")
    finish = _FINISH_REASONS.get(str(choice.get("finish_reason") or "").lower(), "stop")
    message, is_calling = _message(upstream, request, is_truncated=finish == "length")
    if is_calling:
        finish = "function_call" if "function_call" in message else "tool_calls"
    made: dict[str, Any] = {
        "id": reply["id"] if isinstance(reply.get("id"), str) and reply["id"] else wire.new_completion_id(),
        "object": "chat.completion",
        "created": _whole(reply.get("created")) or wire.now(),
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
    }
    if (usage := _usage(reply.get("usage"))) is not None:
        made["usage"] = usage
    if extra := {key: reply[key] for key in ("price", "words") if isinstance(reply.get(key), dict)}:
        made["x_straico"] = extra
    return made


def _unwrapped(parsed: Any) -> Mapping[str, Any]:
    """The reply itself: v0 wrapped it in `data` and `completion`."""
    reply = parsed
    for key in ("data", "completion"):
        if isinstance(reply, dict) and "choices" not in reply and isinstance(reply.get(key), dict):
            outer = reply
            reply = {**{name: outer[name] for name in ("price", "words") if name in outer}, **outer[key]}
    if not isinstance(reply, dict):
        raise UpstreamBadResponse("The provider's answer is not a chat completion")
    if reply.get("error") or (reply.get("success") is False and "choices" not in reply):
        text = failures.safe_text(failures.message_of(reply))
        rule = next((rule for rule in RULES if rule.fits(422, text) or rule.fits(500, text)), None)
        raise rule.error(text) if rule is not None else failures.error_in_band(reply)
    return reply


def _first_choice(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        raise UpstreamBadResponse("The provider's answer has no choices")
    return choice


def _message(
    upstream: Mapping[str, Any], request: Mapping[str, Any], *, is_truncated: bool
) -> tuple[dict[str, Any], bool]:
    """The assistant's message, and whether it calls tools."""
    text = _text(upstream.get("content"))
    if _WARNING_RULE is not None and WARNING.match(text):
        raise _WARNING_RULE.error(failures.safe_text(text))
    refusal = upstream.get("refusal")
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text,
        "refusal": refusal if isinstance(refusal, str) and refusal else None,
    }
    if isinstance(upstream.get("annotations"), list) and upstream["annotations"]:
        message["annotations"] = upstream["annotations"]
    use = tool_use(request)
    calls = _native_calls(upstream.get("tool_calls"))
    if calls or use is None:
        rest, thought = without_thought(text)
        reading = Reading(rest or (None if calls else ""), (), thought)
    else:
        reading = read(text, tools=use.tools, is_truncated=is_truncated)
        found = reading.calls if use.parallel else reading.calls[:1]
        calls = [_call(call.name, call.arguments, None) for call in found]
    message["content"] = reading.content
    reasoning = upstream.get("reasoning_content") or upstream.get("reasoning") or reading.reasoning
    if isinstance(reasoning, str) and reasoning:
        message["reasoning_content"] = reasoning
    if calls and uses_functions(request):
        message["function_call"] = calls[0]["function"]
    elif calls:
        message["tool_calls"] = calls
    return message, bool(calls)


def _text(content: object) -> str:
    if isinstance(content, list):
        texts = [part.get("text") if isinstance(part, dict) else part for part in content]
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def _native_calls(calls: object) -> list[dict[str, Any]]:
    """Calls that came as calls, in OpenAI's shape."""
    made = []
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            arguments = function.get("arguments")
            text = arguments if isinstance(arguments, str) else compact(arguments or {})
            made.append(_call(function["name"], text or "{}", call.get("id")))
    return made


def _call(name: str, arguments: str, call_id: object) -> dict[str, Any]:
    return {
        "id": call_id if isinstance(call_id, str) and call_id else wire.new_call_id(),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _usage(usage: object) -> dict[str, Any] | None:
    """Token counts as integers; None where there are none, as an invented number would be billed."""
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


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if value == value and abs(value) < 2**53 else None  # noqa: PLR0124 - NaN


def model_list(parsed: Any) -> list[dict[str, Any]]:
    """The models of `GET /v2/models`, whatever their type, with all that Straico says of them."""
    return wire.model_entries(parsed)
