"""OpenAI's Responses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from typing_extensions import override

from tests.clients.agents.shapes import base
from tests.clients.agents.shapes.base import Call, Refusal, Round, Shape, Turn
from tests.clients.agents.shapes.chat import ChatShape
from tests.support.upstream import Exchange, Seen

ENCRYPTED = "c2NyaXB0ZWQtcmVhc29uaW5n"
USAGE: Mapping[str, Any] = {
    "input_tokens": 1900,
    "input_tokens_details": {"cached_tokens": 1000},
    "output_tokens": 20,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 1920,
}
# https://platform.openai.com/docs/api-reference/responses/create; `client_metadata` is Codex's.
_FIELDS: base.Fields = {
    "model": base.TEXT,
    "input": (str, list),
    "instructions": base.TEXT_OR_NONE,
    "stream": base.FLAG,
    "stream_options": base.OBJECT,
    "store": base.FLAG,
    "tools": base.LIST,
    "tool_choice": (str, dict),
    "parallel_tool_calls": base.FLAG,
    "reasoning": (dict, type(None)),
    "include": base.LIST,
    "text": base.OBJECT,
    "max_output_tokens": (int,),
    "temperature": base.NUMBER,
    "top_p": base.NUMBER,
    "metadata": base.OBJECT,
    "client_metadata": base.OBJECT,
    "service_tier": base.TEXT,
    "prompt_cache_key": base.TEXT,
    "truncation": base.TEXT,
    "user": base.TEXT,
}
_COMMON: base.Fields = {"type": base.TEXT, "id": base.TEXT, "status": base.TEXT}
_CALLED: base.Fields = {**_COMMON, "call_id": base.TEXT, "name": base.TEXT, "namespace": base.TEXT}
_RESULT: base.Fields = {**_COMMON, "call_id": base.TEXT, "output": (str, list)}
_ITEMS: Mapping[str, base.Fields] = {
    "message": {**_COMMON, "role": base.TEXT, "content": (str, list), "phase": base.TEXT_OR_NONE},
    "reasoning": {
        **_COMMON,
        "summary": base.LIST,
        "content": (list, type(None)),
        "encrypted_content": base.TEXT_OR_NONE,
    },
    "function_call": {**_CALLED, "arguments": base.TEXT},
    "custom_tool_call": {**_CALLED, "input": base.TEXT},
    "function_call_output": _RESULT,
    "custom_tool_call_output": {**_RESULT, "name": base.TEXT},
    "tool_search_call": {**_COMMON, "call_id": base.TEXT, "execution": base.TEXT, "arguments": base.OBJECT},
    "tool_search_output": {**_COMMON, "call_id": base.TEXT, "execution": base.TEXT, "tools": base.LIST},
}
_CALLS = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
    "tool_search_call": "tool_search_output",
}
_ROLES: Mapping[str, str] = {
    "system": "input_text",
    "developer": "input_text",
    "user": "input_text",
    "assistant": "output_text",
}
# Type of a tool -> type of the item of a call, prefix of its id, field with the arguments.
_CALL_KINDS = {
    "function": ("function_call", "fc", "arguments"),
    "custom": ("custom_tool_call", "ctc", "input"),
    "tool_search": ("tool_search_call", "tsc", "arguments"),
}
_TOOL_KINDS = {"function", "custom", "namespace", "tool_search", "web_search"}


class ResponsesShape(Shape):
    name = "responses"
    path = "/responses/v1/responses"
    headers = ChatShape.headers
    keeps_reasoning = True
    refusals: Mapping[str, Refusal] = ChatShape.refusals

    @override
    async def answer(self, exchange: Exchange, turn: Turn, number: int) -> None:
        body = exchange.seen.json
        items = _items(turn, body, number)
        whole = {**_response(body, number), "status": "completed", "output": items, "usage": USAGE}
        if not self.is_streamed(exchange.seen):
            await exchange.answer(whole)
            return
        end = {"type": "response.completed", "response": whole}
        await exchange.stream(_numbered([*_opening(body, number), *_item_events(items), end]))

    @override
    async def break_off(self, exchange: Exchange, turn: Turn) -> None:
        body = exchange.seen.json
        events = [*_opening(body, 0), *_item_events(_items(turn, body, 0))[:4]]
        await exchange.begin_stream()
        for piece in _numbered(events):
            await exchange.chunk(piece)
        await exchange.end_stream()

    @override
    def is_streamed(self, seen: Seen) -> bool:
        return bool(seen.json.get("stream"))

    @override
    def tool_names(self, body: Mapping[str, Any]) -> list[str]:
        return [*_declared(body)]

    @override
    def rounds(self, body: Mapping[str, Any]) -> list[Round]:
        items = _input(body)
        results = {
            item["call_id"]: base.plain_text(item["output"]) if "output" in item else str(item["tools"])
            for item in items
            if item.get("type") in _CALLS.values()
        }
        rounds: list[Round] = []
        thought, was_call = "", False
        for item in items:
            is_call = item.get("type") in _CALLS
            if is_call:
                given = str(item.get("arguments", item.get("input")))
                call, result = Call(item.get("name", "tool_search"), given), results.get(item["call_id"], "")
                # Consecutive calls belong to one turn.
                past = rounds.pop() if was_call else Round((), (), thought)
                rounds.append(Round((*past.calls, call), (*past.results, result), past.thought))
                thought = ""
            elif item.get("type") == "reasoning":
                thought = base.plain_text(item["summary"])
            was_call = is_call
        return rounds

    @override
    def violations(self, body: Mapping[str, Any]) -> Iterator[str]:
        yield from base.field_faults(body, _FIELDS, "body")
        for tool in _flat(body):
            if tool.get("type") not in _TOOL_KINDS:
                yield f"a tool has the type {tool.get('type')}"
            if tool.get("type") == "function":
                yield from base.schema_faults(tool.get("parameters"), tool.get("name"))
        yield from base.name_faults(self.tool_names(body))
        yield from _item_faults(_input(body))


def _input(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    given = body["input"]
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


def _flat(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """All tools, including those found by a search and those inside namespaces."""
    tools = [*(body.get("tools") or []), *(tool for item in _input(body) for tool in item.get("tools") or [])]
    return [*tools, *(inner for tool in tools for inner in tool.get("tools") or [])]


def _declared(body: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Name of each callable tool -> its type, and its namespace if it has one."""
    found: dict[str, Mapping[str, Any]] = {}
    for tool in _flat(body):
        if tool["type"] in _CALL_KINDS:
            name = tool.get("name", tool["type"])
            found.setdefault(name, {"type": tool["type"]})
        for inner in tool.get("tools") or []:
            found[inner["name"]] = {"type": inner["type"], "namespace": tool["name"]}
    return found


def _response(body: Mapping[str, Any], number: int) -> dict[str, Any]:
    return {
        "id": f"resp_upstream_{number}",
        "object": "response",
        "created_at": 1761655357,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": body["model"],
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": body.get("tools") or [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
        "metadata": {},
    }


def _items(turn: Turn, body: Mapping[str, Any], number: int) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if turn.thought:
        summary = [{"type": "summary_text", "text": turn.thought}]
        items.append(
            {
                "type": "reasoning",
                "id": f"rs_upstream_{number}",
                "summary": summary,
                "encrypted_content": ENCRYPTED,
            }
        )
    if turn.text:
        content = [{"type": "output_text", "text": turn.text, "annotations": [], "logprobs": []}]
        items.append(
            {
                "type": "message",
                "id": f"msg_upstream_{number}",
                "role": "assistant",
                "status": "completed",
                "content": content,
            }
        )
    tools = _declared(body)
    for index, call in enumerate(turn.calls):
        name = base.declared(call.tool, [*tools])
        items.append(_call_item(call, name, tools[name], number, index))
    return items


def _call_item(call: Call, name: str, tool: Mapping[str, Any], number: int, index: int) -> dict[str, Any]:
    kind, prefix, field = _CALL_KINDS[tool["type"]]
    item: dict[str, Any] = {
        "type": kind,
        "id": f"{prefix}_upstream_{number}_{index}",
        "call_id": base.call_id(number, index),
        "status": "completed",
        field: call.arguments,
    }
    if kind == "tool_search_call":
        return {**item, "execution": "client"}
    if kind == "function_call":
        item[field] = json.dumps(call.arguments)
    if "namespace" in tool:
        item["namespace"] = tool["namespace"]
    return {**item, "name": name}


def _opening(body: Mapping[str, Any], number: int) -> list[dict[str, Any]]:
    response = _response(body, number)
    return [{"type": f"response.{kind}", "response": response} for kind in ("created", "in_progress")]


def _numbered(events: Sequence[Mapping[str, Any]]) -> list[bytes]:
    return [
        base.sse(event["type"], {**event, "sequence_number": number}) for number, event in enumerate(events)
    ]


def _item_events(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    for index, item in enumerate(items):
        empty, inner = _streamed(item)
        at = {"output_index": index}
        events.append({"type": "response.output_item.added", **at, "item": empty})
        events += [{**event, **at, "item_id": item["id"]} for event in inner]
        events.append({"type": "response.output_item.done", **at, "item": item})
    return events


def _streamed(item: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An item as it is added, and the events until it is done."""
    if item["type"] == "message":
        return {**item, "status": "in_progress", "content": []}, _text_events(item["content"][0])
    if item["type"] == "reasoning":
        return {**item, "summary": []}, _summary_events(item["summary"][0])
    if item["type"] == "tool_search_call":
        return {**item, "status": "in_progress"}, []
    field = "input" if item["type"] == "custom_tool_call" else "arguments"
    kind = f"response.{'custom_tool_call_input' if field == 'input' else 'function_call_arguments'}"
    deltas = [{"type": f"{kind}.delta", "delta": piece} for piece in base.pieces(item[field])]
    return {**item, "status": "in_progress", field: ""}, [
        *deltas,
        {"type": f"{kind}.done", field: item[field]},
    ]


def _text_events(part: Mapping[str, Any]) -> list[dict[str, Any]]:
    at = {"content_index": 0}
    deltas = [
        {"type": "response.output_text.delta", **at, "delta": piece, "logprobs": []}
        for piece in base.pieces(part["text"])
    ]
    return [
        {"type": "response.content_part.added", **at, "part": {**part, "text": ""}},
        *deltas,
        {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []},
        {"type": "response.content_part.done", **at, "part": part},
    ]


def _summary_events(part: Mapping[str, Any]) -> list[dict[str, Any]]:
    at = {"summary_index": 0}
    deltas = [
        {"type": "response.reasoning_summary_text.delta", **at, "delta": piece}
        for piece in base.pieces(part["text"])
    ]
    return [
        {"type": "response.reasoning_summary_part.added", **at, "part": {**part, "text": ""}},
        *deltas,
        {"type": "response.reasoning_summary_text.done", **at, "text": part["text"]},
        {"type": "response.reasoning_summary_part.done", **at, "part": part},
    ]


def _item_faults(items: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    pending = {kind: base.PendingCalls() for kind in _CALLS.values()}
    for index, item in enumerate(items):
        kind, where = str(item.get("type", "message")), f"input[{index}]"
        yield from base.variant_faults(item, _ITEMS, kind, where)
        if kind == "message":
            yield from _part_faults(item, where)
        elif kind in _CALLS:
            yield from pending[_CALLS[kind]].add([item["call_id"]], where)
        elif kind in pending:
            yield from pending[kind].settle(item["call_id"], where)
        elif kind == "reasoning" and item.get("encrypted_content") != ENCRYPTED:
            yield f"{where} has reasoning that is not the upstream's"
    for calls in pending.values():
        yield from calls.missing("at the end")


def _part_faults(item: Mapping[str, Any], where: str) -> Iterator[str]:
    role = str(item.get("role"))
    if role not in _ROLES:
        yield f"{where} has the role {role}"
        return
    if isinstance(item.get("content"), list):
        for part in item["content"]:
            if part.get("type") not in {_ROLES[role], "input_image", "input_file", "refusal"}:
                yield f"{where} has a part of type {part.get('type')} in the role {role}"
