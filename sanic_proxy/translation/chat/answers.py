"""Whole answers: chat completions <-> the middle shape. Pure.

A call whose arguments are an empty text gets `{}` when it is written for a client of this API: clients parse
the text, and `""` is no JSON. Reading keeps what the model wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from sanic_proxy.errors import UpstreamBadResponse
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import chunks, codec
from sanic_proxy.translation.chat import citations, finish, reasoning
from sanic_proxy.translation.chat.paragraphs import Paragraphs, joined
from sanic_proxy.translation.conversation import (
    Answer,
    Conversation,
    Finish,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    Usage,
    whole,
)
from sanic_proxy.translation.tool_names import digest, function_name

_ID_PREFIX = re.compile(r"^(?:msg|resp|gen|chatcmpl)[_-]")


def completion_id(original: str) -> str:
    """The id of a completion, derived from the answer's in another API (`msg_01A` -> `chatcmpl-01A`)."""
    rest = _ID_PREFIX.sub("", original)
    return f"chatcmpl-{rest}" if rest else chunks.new_completion_id()


def read(fields: JsonMapping) -> Answer:
    """A provider's completion: its first choice. Raises UpstreamBadResponse."""
    choice = first_choice(fields.get("choices"))
    message = None if choice is None else message_of(choice)
    if choice is None or message is None:
        raise UpstreamBadResponse("The provider's answer has no message")
    answer_id = _text(fields.get("id"))
    parts = list(_parts(message, answer_id))
    end = finish.read(
        finish.reason_of(choice),
        choice.get("stop_reason"),
        has_calls=any(isinstance(part, ToolCall) for part in parts),
        has_refusal=any(isinstance(part, Refusal) for part in parts),
    )
    usage = fields.get("usage")
    return Answer(
        answer_id,
        _text(fields.get("model")),
        whole(fields.get("created")),
        parts,
        end.reason,
        end.stop_sequence,
        Usage.of_chat(usage) if isinstance(usage, dict) else None,
    )


def first_choice(choices: object) -> JsonMapping | None:
    """The choice of the index 0. Some servers leave the index out."""
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and (choice.get("index") or 0) == 0:
            return choice
    return None


def message_of(choice: JsonMapping) -> JsonMapping | None:
    """The message or the delta of a choice."""
    found = (choice.get(name) for name in ("delta", "message"))
    return next((part for part in found if isinstance(part, dict) and part), None) or next(
        (part for part in (choice.get("delta"), choice.get("message")) if isinstance(part, dict)), None
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _parts(message: JsonMapping, answer_id: str) -> Iterator[Part]:
    yield from reasoning.of_provider(message)
    marks = citations.read(message)
    for part in content_parts(message.get("content")):
        if marks and isinstance(part, Text):
            part.annotations, marks = marks, None
        yield part
    if refusal := _text(message.get("refusal")):
        yield Refusal(refusal)
    calls = message.get("tool_calls")
    made = [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    for index, call in enumerate(made):
        yield _call(call, _text(call.get("id")) or made_call_id(answer_id, index))
    if not made and isinstance(function := message.get("function_call"), dict):
        yield _call({"function": function}, made_call_id(answer_id, 0))


def content_parts(content: object) -> Iterator[Text | Reasoning | Refusal]:
    """The parts of a content: a text, or a list in which Mistral's thoughts may stand as well."""
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            text = Text(part)
        elif not isinstance(part, dict):
            continue
        elif part.get("type") == "thinking":
            yield from _thoughts(part.get("thinking"))
            continue
        elif part.get("type") == "refusal":
            if refusal := _text(part.get("refusal")):
                yield Refusal(refusal)
            continue
        else:
            text = Text(_text(part.get("text")))
        if text.text:
            yield text


def _thoughts(thinking: object) -> Iterator[Reasoning]:
    for piece in thinking if isinstance(thinking, list) else [thinking]:
        text = _text(piece.get("text")) if isinstance(piece, dict) else _text(piece)
        if text:
            yield Reasoning(text)


def made_call_id(answer_id: str, index: int) -> str:
    """An id for the call number `index` of an answer, which has none."""
    return f"call_{digest(f'{answer_id}:{index}', 24)}"


def _call(call: JsonMapping, call_id: str) -> ToolCall:
    if isinstance(custom := call.get("custom"), dict):
        return ToolCall(call_id, _text(custom.get("name")), _text(custom.get("input")), "custom")
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    return ToolCall(call_id, _text(function.get("name")), arguments_text(function.get("arguments")))


def arguments_text(arguments: object) -> str:
    """Arguments as text. Some servers send the object itself."""
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else codec.dumps(arguments).decode("utf-8", "surrogatepass")


def write(answer: Answer, asked: Conversation) -> Json:
    """The completion for a client."""
    message = _message(answer.parts)
    end = finish.written(
        Finish(answer.finish, answer.stop_sequence),
        has_calls="tool_calls" in message,
        has_refusal=message["refusal"] is not None,
    )
    return {
        "id": completion_id(answer.id),
        "object": "chat.completion",
        "created": answer.created or chunks.now(),
        "model": answer.model or asked.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, **end}],
        **({} if answer.usage is None else {"usage": answer.usage.as_chat()}),
    }


def _message(parts: Iterable[Part]) -> Json:
    content, refusal = Paragraphs(), Paragraphs()
    thoughts: list[Reasoning] = []
    marks: list[Any] = []
    calls: list[ToolCall] = []
    for part in parts:
        match part:
            case Text(text):
                content.add(text)
                refusal.end()
                marks += citations.written(part.annotations or [])
                continue
            case Refusal(text):
                refusal.add(text)
                content.end()
                continue
            case Reasoning():
                thoughts.append(part)
            case ToolCall():
                calls.append(part)
            case _:
                continue
        content.end()
        refusal.end()
    refused = refusal.text or None
    message: Json = {
        "role": "assistant",
        "content": content.text or (None if calls or refused else ""),
        "refusal": refused,
    }
    if marks:
        message["annotations"] = marks
    if text := joined(part.text for part in thoughts):
        message["reasoning_content"] = text
    if details := [made for part in thoughts if (made := reasoning.client_detail(part, 0))]:
        message["reasoning_details"] = [{**detail, "index": index} for index, detail in enumerate(details)]
    if calls:
        message["tool_calls"] = [written_call(call) for call in calls]
    return message


def written_call(call: ToolCall) -> Json:
    """A call of an answer. Clients of this API know no namespaces."""
    name = function_name(call.name, call.namespace) if call.namespace else call.name
    if call.kind == "custom":
        return {"id": call.id, "type": "custom", "custom": {"name": name, "input": call.arguments}}
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": name, "arguments": call.arguments or "{}"},
    }
