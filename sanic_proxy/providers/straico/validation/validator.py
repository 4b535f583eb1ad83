"""Whether a reply is what the request asked for, and the chat completion it makes. Pure.

Strategy: a fault has a complaint, which is told to the model once, and an error, which the client gets if
the second answer is no better; a fault without an error is then handed on, as OpenAI hands on arguments
that do not fit. What a limit or a filter has cut is not asked for again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sanic_proxy.errors import ProxyError
from sanic_proxy.openai import codec
from sanic_proxy.providers.straico import families
from sanic_proxy.providers.straico.error_rules import InvalidArguments, InvalidJson, ViolatedToolChoice
from sanic_proxy.providers.straico.plan import Plan
from sanic_proxy.providers.straico.replies import Reply, summed
from sanic_proxy.providers.straico.stops import cut
from sanic_proxy.providers.straico.tool_parser.calls import Offer
from sanic_proxy.providers.straico.tool_parser.coercion import mended
from sanic_proxy.providers.straico.tool_parser.json_repair import strict_value
from sanic_proxy.providers.straico.tool_parser.parser import Reading, read, without_thought
from sanic_proxy.providers.straico.tools import Tool, ToolCall, ToolUse, compact
from sanic_proxy.providers.straico.validation import formats

_MAX_LISTED_TOOLS = 100


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with an answer. `complaint` None: asking again would not help."""

    complaint: str | None
    error: ProxyError | None


@dataclass(slots=True)
class Judged:
    """An answer as the client would get it, and what is wrong with it."""

    reply: Reply
    message: dict[str, Any]
    finish: str
    fault: Fault | None = None


def judged(reply: Reply, plan: Plan) -> Judged:
    """Read a reply by the request's plan."""
    tools = plan.use.tools if plan.use is not None else ()
    is_truncated = reply.finish == "length"
    native = _native_calls(reply.calls, plan.use)
    reading = read(reply.text, tools=() if native else tools, is_truncated=is_truncated, accepts_unknown=True)
    calls, is_torn = (
        _without_torn(native, is_truncated=is_truncated) if native else (list(reading.calls), reading.is_torn)
    )
    message: dict[str, Any] = {"role": "assistant", "content": reading.content, "refusal": reply.refusal}
    if reply.annotations:
        message["annotations"] = reply.annotations
    if reasoning := reply.reasoning or reading.reasoning:
        message["reasoning_content"] = reasoning
    made = Judged(reply, message, reply.finish)
    if plan.use is not None:
        calls, made.fault = _judged_calls(calls, plan, plan.use, reply)
    if calls and plan.use is not None:
        _put_calls(made, calls, plan.use)
        if is_torn and plan.use.parallel:
            made.finish = "length"
    elif not reading.content and reply.refusal is not None:
        message["content"] = None
    elif plan.wanted is not None and made.fault is None:
        _put_json(made, reading, plan.wanted, has_limit="max_tokens" in plan.numbers)
        return made
    _cut(made, plan.stops)
    return made


def _cut(made: Judged, stops: Sequence[str]) -> None:
    content = made.message["content"]
    if not stops or not content:
        return
    shorter = cut(content, stops)
    if shorter is None:
        return
    is_calling = "tool_calls" in made.message or "function_call" in made.message
    made.message["content"] = shorter or (None if is_calling else "")
    if not is_calling:
        made.finish = "stop"


def _put_calls(made: Judged, calls: Sequence[ToolCall], use: ToolUse) -> None:
    functions = [{"name": call.name, "arguments": call.arguments} for call in calls]
    made.message["content"] = made.message["content"] or None
    if use.is_older:
        made.message["function_call"] = functions[0]
        made.finish = "function_call"
        return
    made.message["tool_calls"] = [
        {"id": call.id or codec.new_call_id(), "type": "function", "function": function}
        for call, function in zip(calls, functions, strict=True)
    ]
    made.finish = "tool_calls"


def _native_calls(calls: Sequence[ToolCall], use: ToolUse | None) -> list[ToolCall]:
    """The calls that came as such, under the names of the tools that were offered."""
    if use is None:
        return []
    offer = Offer(use.tools, accepts_unknown=True)
    found = [(call, offer.find(call.name)) for call in calls]
    return [replace(call, name=tool.name) for call, tool in found if tool is not None]


def _without_torn(calls: list[ToolCall], *, is_truncated: bool) -> tuple[list[ToolCall], bool]:
    """The calls, and whether the limit of tokens cut the last one, which is kept only if it is the first."""
    if not is_truncated or not calls or _is_complete(calls[-1]):
        return calls, False
    return calls[:-1] or calls, True


def _is_complete(call: ToolCall) -> bool:
    try:
        return isinstance(strict_value(call.arguments), dict)
    except ValueError:
        return False


# Calls


def _judged_calls(
    calls: list[ToolCall], plan: Plan, use: ToolUse, reply: Reply
) -> tuple[list[ToolCall], Fault | None]:
    """The calls that count, and what is wrong with them. Nothing is, where the answer was cut."""
    known = [call for call in calls if use.find(call.name) is not None]
    if isinstance(use.choice, Tool):
        wanted = [call for call in known if call.name == use.choice.name]
    else:
        wanted = known if use.choice == "required" else calls
    is_whole = reply.finish == "stop" and not (reply.refusal and not calls)
    if not wanted and use.choice != "auto" and is_whole:
        return calls, _not_called(calls, use)
    wanted = wanted or calls
    if not use.parallel:
        wanted = wanted[:1]
    fitted = [_fitted(call, plan, use) for call in wanted]
    faults = [fault for _, fault in fitted if fault is not None]
    return [call for call, _ in fitted], _joined(faults) if is_whole else None


def _not_called(calls: Sequence[ToolCall], use: ToolUse) -> Fault:
    named = use.choice.name if isinstance(use.choice, Tool) else None
    must = f"the function {named}" if named else "at least one of the functions"
    did = f"called {calls[0].name} instead" if calls else "did not call it" if named else "called none"
    complaint = (
        f"You had to call {must} now, and you {did}. Answer once more: write the call, in the markup that "
        "was described, and nothing else."
    )
    message = f"The model had to call {must}, and {did}, twice in a row"
    return Fault(
        complaint, ViolatedToolChoice(message, param="function_call" if use.is_older else "tool_choice")
    )


def _fitted(call: ToolCall, plan: Plan, use: ToolUse) -> tuple[ToolCall, Fault | None]:
    """The call with arguments that fit its tool's schema, if they can be made to; else what is wrong."""
    tool = use.find(call.name)
    if tool is None:
        return call, _unknown_tool(call, use)
    try:
        arguments = strict_value(call.arguments)
    except ValueError as exc:
        return call, _bad_arguments(tool, f"they are not valid JSON: {exc}")
    if not isinstance(arguments, dict):
        return call, _bad_arguments(tool, "they must be an object")
    checker = plan.checker_of(tool)
    wrong = checker.fault(arguments) if checker is not None else None
    if checker is None or wrong is None:
        return call, None
    made = mended(arguments, tool.parameters)
    if checker.fault(made) is None:
        return replace(call, arguments=compact(made)), None
    return call, _bad_arguments(tool, wrong)


def _unknown_tool(call: ToolCall, use: ToolUse) -> Fault:
    names = ", ".join(tool.name for tool in use.tools[:_MAX_LISTED_TOOLS])
    more = ", ..." if len(use.tools) > _MAX_LISTED_TOOLS else ""
    return Fault(f"There is no function {call.name}. The functions are: {names}{more}.", None)


def _bad_arguments(tool: Tool, wrong: str) -> Fault:
    complaint = f"The arguments of your call of {tool.name} do not fit its JSON Schema: {wrong}."
    message = f"The model's arguments for the strict function {tool.name} do not fit its schema: {wrong}"
    return Fault(complaint, InvalidArguments(message) if tool.is_strict else None)


def _joined(faults: Sequence[Fault]) -> Fault | None:
    if not faults:
        return None
    complaints = [fault.complaint for fault in faults if fault.complaint]
    request = "Answer once more, with all your calls, whole, and with arguments that fit."
    error = next((fault.error for fault in faults if fault.error is not None), None)
    return Fault("\n".join([*complaints, request]), error)


# JSON

_CUT = {
    "length": "the model's own limit of tokens cut it off (the request has no `max_tokens`)",
    "content_filter": "the provider's content filter cut it off",
}


def _put_json(made: Judged, reading: Reading, wanted: formats.Format, *, has_limit: bool) -> None:
    """The JSON as the content; a fault where there is none.

    What the client's own limit cut is handed on as it is: the finish reason tells the client, as with OpenAI.
    """
    text, _ = without_thought(made.reply.text)
    found = formats.json_in(text, reading.content or "", wanted, is_cut=made.finish != "stop")
    if found.text is not None:
        made.message["content"] = found.text
        if text.strip() == found.text and not made.reply.reasoning:
            # What looks like a thought inside of a string is none.
            _keep_leading_thought(made)
        return
    if made.reply.refusal is not None:
        made.message["content"] = None
        return
    if made.finish == "length" and has_limit:
        made.message["content"] = formats.cut_json(reading.content or "")
        return
    cut_by = _CUT.get(made.finish)
    if cut_by is not None:
        message = f"The answer is not the JSON that was asked for, as {cut_by}"
        made.fault = Fault(None, InvalidJson(message, param="response_format"))
        return
    complaint = (
        f"Your answer is not the JSON that was asked for: {found.fault}. Answer once more, with the whole "
        "JSON value and nothing else."
    )
    message = f"The model's answer is not the JSON that was asked for, twice in a row: {found.fault}"
    made.fault = Fault(complaint, InvalidJson(message, param="response_format"))


def _keep_leading_thought(made: Judged) -> None:
    made.message.pop("reasoning_content", None)
    _, thought = without_thought(made.reply.text)
    if thought:
        made.message["reasoning_content"] = thought


# From the answers to the completion


def answer_of(reply: Reply, plan: Plan) -> str:
    """What the model answered, as a turn of the conversation that goes on."""
    text, _ = without_thought(reply.text)
    native = _native_calls(reply.calls, plan.use)
    if not native:
        return text
    past = [families.PastCall("", call.name, call.arguments) for call in native]
    return f"{text}\n\n{families.render_calls(past, family=plan.family)}".strip()


def with_cost_of(later: Judged, first: Reply) -> Judged:
    """The second answer, with what both have cost."""
    reply = later.reply
    reply.usage = summed(first.usage, reply.usage)
    reply.cost = {
        key: cost
        for key in ("price", "words")
        if (cost := summed(first.cost.get(key), reply.cost.get(key))) is not None
    }
    return later


def completion(made: Judged, *, model: str) -> dict[str, Any]:
    """The chat.completion, with all fields OpenAI requires; `model` is the client's name for it."""
    reply = made.reply
    choice = {"index": 0, "message": made.message, "logprobs": None, "finish_reason": made.finish}
    whole: dict[str, Any] = {
        "id": reply.id,
        "object": "chat.completion",
        "created": reply.created,
        "model": model,
        "choices": [choice],
    }
    if reply.usage is not None:
        whole["usage"] = reply.usage
    if reply.cost:
        whole["x_straico"] = reply.cost
    return whole
