"""OpenAI's chat completions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from typing_extensions import override

from tests.clients.agents.shapes import base
from tests.clients.agents.shapes.base import Call, Refusal, Round, Shape, Turn
from tests.support.upstream import DONE, Exchange, Seen, completion, frame

USAGE: Mapping[str, Any] = {
    "prompt_tokens": 1900,
    "completion_tokens": 20,
    "total_tokens": 1920,
    "prompt_tokens_details": {"cached_tokens": 1000},
}
# https://platform.openai.com/docs/api-reference/chat/create
_FIELDS: base.Fields = {
    "model": base.TEXT,
    "messages": base.LIST,
    "stream": base.FLAG,
    "stream_options": base.OBJECT,
    "tools": base.LIST,
    "tool_choice": (str, dict),
    "parallel_tool_calls": base.FLAG,
    "max_tokens": (int,),
    "max_completion_tokens": (int,),
    "temperature": base.NUMBER,
    "top_p": base.NUMBER,
    "stop": (str, list),
    "response_format": base.OBJECT,
    "reasoning_effort": base.TEXT,
    "verbosity": base.TEXT,
    "metadata": base.OBJECT,
    "store": base.FLAG,
    "user": base.TEXT,
    "prompt_cache_key": base.TEXT,
    "safety_identifier": base.TEXT,
    "service_tier": base.TEXT,
}
_MESSAGE: Mapping[str, base.Fields] = {
    "system": {"role": base.TEXT, "content": (str, list), "name": base.TEXT},
    "developer": {"role": base.TEXT, "content": (str, list), "name": base.TEXT},
    "user": {"role": base.TEXT, "content": (str, list), "name": base.TEXT},
    "assistant": {
        "role": base.TEXT,
        "content": (str, list, type(None)),
        "tool_calls": base.LIST,
        "refusal": base.TEXT_OR_NONE,
        "name": base.TEXT,
        # An extension of providers of reasoning models.
        "reasoning_content": base.TEXT,
    },
    "tool": {"role": base.TEXT, "content": (str, list), "tool_call_id": base.TEXT},
}
_TOOL: base.Fields = {"type": base.TEXT, "function": base.OBJECT}
_FUNCTION: base.Fields = {
    "name": base.TEXT,
    "description": base.TEXT,
    "parameters": base.OBJECT,
    "strict": (bool, type(None)),
}
_CALL: base.Fields = {"id": base.TEXT, "type": base.TEXT, "function": base.OBJECT}
_CALLED: base.Fields = {"name": base.TEXT, "arguments": base.TEXT}
_PART_KINDS = {"text", "image_url", "input_audio", "file", "refusal"}


class ChatShape(Shape):
    name = "chat"
    path = "/openai/v1/chat/completions"
    headers = frozenset(
        {"host", "content-type", "content-length", "authorization", "accept", "accept-encoding", "user-agent"}
    )
    refusals: Mapping[str, Refusal] = {
        "busy": Refusal(
            429,
            {"error": {"message": base.BUSY, "type": "tokens", "param": None, "code": "rate_limit_exceeded"}},
            (("retry-after", str(base.RETRY_AFTER_S)),),
        ),
        "quota": Refusal(
            429,
            {
                "error": {
                    "message": base.QUOTA,
                    "type": "insufficient_quota",
                    "param": None,
                    "code": "insufficient_quota",
                }
            },
        ),
    }

    @override
    async def answer(self, exchange: Exchange, turn: Turn, number: int) -> None:
        body = exchange.seen.json
        calls = [_call(call, self.tool_names(body), number, index) for index, call in enumerate(turn.calls)]
        finish = "tool_calls" if calls else "stop"
        if not self.is_streamed(exchange.seen):
            whole = completion(turn.text or None, usage=USAGE)
            message = whole["choices"][0]["message"]
            if calls:
                message["tool_calls"] = calls
            if turn.thought:
                message["reasoning_content"] = turn.thought
            whole["choices"][0]["finish_reason"] = finish
            await exchange.answer(whole)
            return
        is_usage_wanted = (body.get("stream_options") or {}).get("include_usage")
        usage = [frame(choices=[], usage=USAGE)] if is_usage_wanted else []
        await exchange.stream([*_frames(turn, calls), frame(finish=finish), *usage, DONE])

    @override
    async def break_off(self, exchange: Exchange, turn: Turn) -> None:
        await exchange.begin_stream()
        for piece in _frames(turn, [])[:3]:
            await exchange.chunk(piece)
        await exchange.end_stream()

    @override
    def is_streamed(self, seen: Seen) -> bool:
        return bool(seen.json.get("stream"))

    @override
    def tool_names(self, body: Mapping[str, Any]) -> list[str]:
        return [tool["function"]["name"] for tool in body.get("tools") or []]

    @override
    def rounds(self, body: Mapping[str, Any]) -> list[Round]:
        messages = body["messages"]
        results = {
            message["tool_call_id"]: base.plain_text(message["content"])
            for message in messages
            if message["role"] == "tool"
        }
        return [
            Round(
                tuple(
                    Call(call["function"]["name"], call["function"]["arguments"])
                    for call in message["tool_calls"]
                ),
                tuple(results.get(call["id"], "") for call in message["tool_calls"]),
            )
            for message in messages
            if message.get("tool_calls")
        ]

    @override
    def violations(self, body: Mapping[str, Any]) -> Iterator[str]:
        yield from base.field_faults(body, _FIELDS, "body")
        if "stream_options" in body and not body.get("stream"):
            yield "stream_options without a stream"
        for tool in body.get("tools") or []:
            yield from base.field_faults(tool, _TOOL, "tool")
            yield from base.field_faults(tool.get("function"), _FUNCTION, "function")
            if "parameters" in tool["function"]:
                yield from base.schema_faults(tool["function"]["parameters"], tool["function"].get("name"))
        yield from base.name_faults(self.tool_names(body))
        yield from _message_faults(body["messages"])


def _call(call: Call, names: Sequence[str], number: int, index: int) -> dict[str, Any]:
    # A custom tool is declared as a function with one argument.
    arguments = {"input": call.arguments} if isinstance(call.arguments, str) else call.arguments
    function = {"name": base.declared(call.tool, names), "arguments": json.dumps(arguments)}
    return {"id": base.call_id(number, index), "type": "function", "function": function}


def _frames(turn: Turn, calls: Sequence[Mapping[str, Any]]) -> list[bytes]:
    frames = [frame({"role": "assistant", "content": ""})]
    frames += [frame({"reasoning_content": piece}) for piece in base.pieces(turn.thought)]
    frames += [frame({"content": piece}) for piece in base.pieces(turn.text)]
    for index, call in enumerate(calls):
        head = {**call, "index": index, "function": {"name": call["function"]["name"], "arguments": ""}}
        frames.append(frame({"tool_calls": [head]}))
        frames += [
            frame({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
            for piece in base.pieces(call["function"]["arguments"])
        ]
    return frames


def _message_faults(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    pending = base.PendingCalls()
    has_begun = False
    for index, message in enumerate(messages):
        where, role = f"messages[{index}]", str(message.get("role"))
        yield from base.variant_faults(message, _MESSAGE, role, where)
        yield from _content_faults(message, where)
        if role in {"system", "developer"}:
            if has_begun:
                yield f"{where}: {role} after the conversation has begun"
        elif role == "tool":
            yield from pending.settle(message.get("tool_call_id"), where)
        else:
            has_begun = True
            yield from pending.missing(where)
            calls = message.get("tool_calls") or []
            yield from (fault for call in calls for fault in _call_faults(call, where))
            yield from pending.add([call["id"] for call in calls], where)
    yield from pending.missing("at the end")
    if messages[-1].get("role") == "assistant":
        yield "the last message is the assistant's"


def _content_faults(message: Mapping[str, Any], where: str) -> Iterator[str]:
    content = message.get("content")
    if isinstance(content, list):
        for part in content:
            if not isinstance(part, dict) or part.get("type") not in _PART_KINDS:
                yield f"{where} has the part {str(part)[:80]}"
            elif part["type"] == "text" and not part.get("text"):
                yield f"{where} has an empty text part"
    if not content and not message.get("tool_calls") and message["role"] != "tool":
        yield f"{where} is empty"


def _call_faults(call: Mapping[str, Any], where: str) -> Iterator[str]:
    yield from base.field_faults(call, _CALL, f"{where}.tool_calls")
    yield from base.field_faults(call.get("function"), _CALLED, f"{where}.tool_calls.function")
    if base.json_object(call["function"]["arguments"]) is None:
        yield f"{where}: the arguments of {call['function']['name']} are not a JSON object"
