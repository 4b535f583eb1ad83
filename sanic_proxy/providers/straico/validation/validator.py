"""Checks whether a reply is what the request demands, and builds the chat completion. Pure.

A violation may have two parts. The retry prompt is sent to the model once. The error is what the client gets
if the second answer violates the request as well; without an error that answer is passed on as it is, just
as OpenAI passes on arguments that do not match their schema. Answers cut by a limit or a filter are not
requested again.

    violation                             retry prompt   error
    no call although one is required      yes            ViolatedToolChoice
    call of a function not offered        yes            none
    arguments do not match the schema     yes            InvalidArguments if the tool is strict
    no (valid) JSON                       yes            InvalidJson
    JSON cut by the model or a filter     no             InvalidJson
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sanic_proxy.errors import ProxyError
from sanic_proxy.json_types import Json
from sanic_proxy.openai import chunks
from sanic_proxy.providers.straico import families
from sanic_proxy.providers.straico.error_rules import InvalidArguments, InvalidJson, ViolatedToolChoice
from sanic_proxy.providers.straico.plan import UpstreamPlan
from sanic_proxy.providers.straico.replies import Reply, add_numbers
from sanic_proxy.providers.straico.stops import truncate
from sanic_proxy.providers.straico.tool_parser.calls import OfferedTools
from sanic_proxy.providers.straico.tool_parser.coercion import coerce_strings
from sanic_proxy.providers.straico.tool_parser.json_repair import parse_strict
from sanic_proxy.providers.straico.tool_parser.parser import ParsedText, parse, split_thinking
from sanic_proxy.providers.straico.tools import Tool, ToolCall, ToolUse, compact
from sanic_proxy.providers.straico.validation import formats

_MAX_LISTED_TOOLS = 100


@dataclass(frozen=True, slots=True)
class Violation:
    """How an answer violates its request. See the module for the two parts."""

    retry_prompt: str | None
    error: ProxyError | None


@dataclass(slots=True)
class Validated:
    """An answer in the form the client gets it, and its violation if there is one."""

    reply: Reply
    message: Json
    finish: str
    violation: Violation | None = None


def validate(reply: Reply, plan: UpstreamPlan) -> Validated:
    """Convert a reply to a message and check it against the plan of its request."""
    calls, is_torn, parsed = _parse(reply, plan.tool_use)
    message: dict[str, object] = {"role": "assistant", "content": parsed.content, "refusal": reply.refusal}
    if reply.annotations:
        message["annotations"] = reply.annotations
    if reasoning := reply.reasoning or parsed.reasoning:
        message["reasoning_content"] = reasoning
    validated = Validated(reply, message, reply.finish)
    if plan.tool_use is not None:
        calls, validated.violation = _validate_calls(calls, plan, plan.tool_use, reply)
    if calls and plan.tool_use is not None:
        _set_calls(validated, calls, plan.tool_use)
        if is_torn and plan.tool_use.parallel:
            validated.finish = "length"
    elif not parsed.content and reply.refusal is not None:
        message["content"] = None
    elif plan.response_format is not None and validated.violation is None:
        _set_json(validated, parsed, plan.response_format, has_limit="max_tokens" in plan.numbers)
        return validated
    _apply_stop(validated, plan.stops)
    return validated


def _parse(reply: Reply, tool_use: ToolUse | None) -> tuple[list[ToolCall], bool, ParsedText]:
    """The calls of a reply, whether a further one was cut, and the text. Native calls take precedence."""
    is_truncated = reply.finish == "length"
    if native := _native_calls(reply.calls, tool_use):
        calls, is_torn = _without_torn(native, is_truncated=is_truncated)
        return calls, is_torn, parse(reply.text, tools=(), is_truncated=is_truncated)
    tools = tool_use.tools if tool_use is not None else ()
    parsed = parse(reply.text, tools=tools, is_truncated=is_truncated, accepts_unknown=True)
    return list(parsed.calls), parsed.is_torn, parsed


def _native_calls(calls: Sequence[ToolCall], tool_use: ToolUse | None) -> list[ToolCall]:
    """The calls that are not in the text, under the names of the offered tools where these are meant."""
    if tool_use is None:
        return []
    offered = OfferedTools(tool_use.tools, accepts_unknown=True)
    found = [(call, offered.find(call.name)) for call in calls]
    return [replace(call, name=tool.name) for call, tool in found if tool is not None]


def _without_torn(calls: list[ToolCall], *, is_truncated: bool) -> tuple[list[ToolCall], bool]:
    """The complete calls, or a torn one if it is the only call; and whether the last call is torn."""
    if not is_truncated or _is_complete(calls[-1]):
        return calls, False
    return calls[:-1] or calls, True


def _is_complete(call: ToolCall) -> bool:
    try:
        return isinstance(parse_strict(call.arguments), dict)
    except ValueError:
        return False


def _apply_stop(validated: Validated, stops: Sequence[str]) -> None:
    content = validated.message["content"]
    if not stops or not content:
        return
    truncated = truncate(content, stops)
    if truncated is None:
        return
    is_calling = "tool_calls" in validated.message or "function_call" in validated.message
    validated.message["content"] = truncated or (None if is_calling else "")
    if not is_calling:
        validated.finish = "stop"


def _set_calls(validated: Validated, calls: Sequence[ToolCall], tool_use: ToolUse) -> None:
    functions = [{"name": call.name, "arguments": call.arguments} for call in calls]
    validated.message["content"] = validated.message["content"] or None
    if tool_use.is_legacy:
        validated.message["function_call"] = functions[0]
        validated.finish = "function_call"
        return
    validated.message["tool_calls"] = [
        {"id": call.id or chunks.new_call_id(), "type": "function", "function": function}
        for call, function in zip(calls, functions, strict=True)
    ]
    validated.finish = "tool_calls"


# Calls


def _validate_calls(
    calls: list[ToolCall], plan: UpstreamPlan, tool_use: ToolUse, reply: Reply
) -> tuple[list[ToolCall], Violation | None]:
    """The calls for the client, and their violation. A truncated answer has none."""
    offered = [call for call in calls if tool_use.find(call.name) is not None]
    if isinstance(tool_use.choice, Tool):
        selected = [call for call in offered if call.name == tool_use.choice.name]
    else:
        selected = offered if tool_use.choice == "required" else calls
    is_complete = reply.finish == "stop" and not (reply.refusal and not calls)
    if not selected and tool_use.choice != "auto" and is_complete:
        return calls, _missing_call(calls, tool_use)
    selected = selected or calls
    if not tool_use.parallel:
        selected = ([call for call in selected if call in offered] or selected)[:1]
    checked = [_check_call(call, plan, tool_use) for call in selected]
    violations = [violation for _, violation in checked if violation is not None]
    return [call for call, _ in checked], _combined(violations) if is_complete else None


def _missing_call(calls: Sequence[ToolCall], tool_use: ToolUse) -> Violation:
    named = tool_use.choice.name if isinstance(tool_use.choice, Tool) else None
    must = f"the function {named}" if named else "at least one of the functions"
    did = f"called {calls[0].name} instead" if calls else "did not call it" if named else "called none"
    retry_prompt = (
        f"You had to call {must} now, and you {did}. Answer once more: write the call, in the markup that "
        "was described, and nothing else."
    )
    message = f"The model had to call {must}, but {did}, in two answers in a row"
    param = "function_call" if tool_use.is_legacy else "tool_choice"
    return Violation(retry_prompt, ViolatedToolChoice(message, param=param))


def _check_call(call: ToolCall, plan: UpstreamPlan, tool_use: ToolUse) -> tuple[ToolCall, Violation | None]:
    """The call, with strings converted where the schema demands another type, and its violation."""
    tool = tool_use.find(call.name)
    if tool is None:
        return call, _unknown_function(call, tool_use)
    try:
        arguments = parse_strict(call.arguments)
    except ValueError as exc:
        return call, _invalid_arguments(tool, f"they are not valid JSON: {exc}")
    if not isinstance(arguments, dict):
        return call, _invalid_arguments(tool, "they must be an object")
    checker = plan.checker_for(tool)
    reason = checker.violation(arguments) if checker is not None else None
    if checker is None or reason is None:
        return call, None
    coerced = coerce_strings(arguments, tool.parameters)
    if checker.violation(coerced) is None:
        return replace(call, arguments=compact(coerced)), None
    return call, _invalid_arguments(tool, reason)


def _unknown_function(call: ToolCall, tool_use: ToolUse) -> Violation:
    names = ", ".join(tool.name for tool in tool_use.tools[:_MAX_LISTED_TOOLS])
    more = ", ..." if len(tool_use.tools) > _MAX_LISTED_TOOLS else ""
    return Violation(f"There is no function {call.name}. The functions are: {names}{more}.", None)


def _invalid_arguments(tool: Tool, reason: str) -> Violation:
    retry_prompt = f"The arguments of your call of {tool.name} do not match its JSON Schema: {reason}."
    message = f"The model's arguments for the strict function {tool.name} do not match its schema: {reason}"
    return Violation(retry_prompt, InvalidArguments(message) if tool.is_strict else None)


def _combined(violations: Sequence[Violation]) -> Violation | None:
    if not violations:
        return None
    retry_prompts = [violation.retry_prompt for violation in violations if violation.retry_prompt]
    request = "Answer once more with all your calls, complete, and with valid arguments."
    error = next((violation.error for violation in violations if violation.error is not None), None)
    return Violation("\n".join([*retry_prompts, request]), error)


# JSON

_CUT_BY = {
    "length": "the model's own token limit (the request has no `max_tokens`)",
    "content_filter": "the provider's content filter",
}


def _set_json(
    validated: Validated, parsed: ParsedText, response_format: formats.ResponseFormat, *, has_limit: bool
) -> None:
    """Make the JSON the content, or record the violation.

    JSON cut by the client's own limit is passed on: the finish reason tells the client, as with OpenAI.
    """
    text, _ = split_thinking(validated.reply.text)
    is_cut = validated.finish != "stop"
    found = formats.extract_json(text, parsed.content or "", response_format, is_cut=is_cut)
    if found.text is not None:
        validated.message["content"] = found.text
        if text.strip() == found.text and not validated.reply.reasoning:
            # The whole text is JSON, so a `<think>` tag inside it is part of a string.
            _keep_leading_thinking(validated)
    elif validated.reply.refusal is not None:
        validated.message["content"] = None
    elif validated.finish == "length" and has_limit:
        validated.message["content"] = formats.cut_json(parsed.content or "")
    else:
        validated.violation = _no_json(validated.finish, found.violation)


def _no_json(finish: str, reason: str | None) -> Violation:
    if cut_by := _CUT_BY.get(finish):
        message = f"The model's answer is not the requested JSON: it was cut by {cut_by}"
        return Violation(None, InvalidJson(message, param="response_format"))
    retry_prompt = (
        f"Your answer is not the JSON that was requested: {reason}. Answer once more, with the complete JSON "
        "value and nothing else."
    )
    message = f"The model's answer is not the requested JSON, in two answers in a row: {reason}"
    return Violation(retry_prompt, InvalidJson(message, param="response_format"))


def _keep_leading_thinking(validated: Validated) -> None:
    validated.message.pop("reasoning_content", None)
    _, thinking = split_thinking(validated.reply.text)
    if thinking:
        validated.message["reasoning_content"] = thinking


# From the answers to the completion


def assistant_turn(reply: Reply, plan: UpstreamPlan) -> str:
    """The answer as an assistant turn of the conversation, for the retry prompt to follow."""
    text, _ = split_thinking(reply.text)
    native = _native_calls(reply.calls, plan.tool_use)
    if not native:
        return text
    past = [families.PastCall("", call.name, call.arguments) for call in native]
    return f"{text}\n\n{families.render_calls(past, family=plan.family)}".strip()


def add_cost(second: Validated, first: Reply) -> Validated:
    """The second answer, with the usage and cost of both."""
    reply = second.reply
    reply.usage = add_numbers(first.usage, reply.usage)
    reply.cost = {
        key: cost
        for key in ("price", "words")
        if (cost := add_numbers(first.cost.get(key), reply.cost.get(key))) is not None
    }
    return second


def completion(validated: Validated, *, model: str) -> Json:
    """The chat.completion, with all fields that OpenAI requires; `model` is the client's name for it."""
    reply = validated.reply
    choice = {
        "index": 0,
        "message": validated.message,
        "logprobs": None,
        "finish_reason": validated.finish,
    }
    made: dict[str, object] = {
        "id": reply.id,
        "object": "chat.completion",
        "created": reply.created,
        "model": model,
        "choices": [choice],
    }
    if reply.usage is not None:
        made["usage"] = reply.usage
    if reply.cost:
        made["x_straico"] = reply.cost
    return made
