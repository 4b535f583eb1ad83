"""Anthropic's Messages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from typing_extensions import override

from tests.clients.agents.shapes import base
from tests.clients.agents.shapes.base import Call, Refusal, Round, Shape, Turn
from tests.support.upstream import Exchange, Seen

SIGNATURE = "c2lnbmF0dXJlLW9mLXRoZS1zY3JpcHRlZC11cHN0cmVhbQ=="
USAGE: Mapping[str, Any] = {
    "input_tokens": 900,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 1000,
    "output_tokens": 20,
}
# https://docs.claude.com/en/api/messages, and what Claude Code 2.1.332 sends
_FIELDS: base.Fields = {
    "model": base.TEXT,
    "max_tokens": (int,),
    "messages": base.LIST,
    "system": (str, list),
    "stream": base.FLAG,
    "tools": base.LIST,
    "tool_choice": base.OBJECT,
    "thinking": base.OBJECT,
    "output_config": base.OBJECT,
    "context_management": base.OBJECT,
    "cache_control": base.OBJECT,
    "metadata": base.OBJECT,
    "stop_sequences": base.LIST,
    "temperature": base.NUMBER,
    "top_p": base.NUMBER,
    "top_k": (int,),
    "service_tier": base.TEXT,
}
_MESSAGE: base.Fields = {"role": base.TEXT, "content": (str, list)}
# A system message in the middle of a conversation, which is a beta.
_SYSTEM_MESSAGE: base.Fields = {**_MESSAGE, "output_config": base.OBJECT}
_COMMON: base.Fields = {"type": base.TEXT, "cache_control": base.OBJECT}
_BLOCKS: Mapping[str, base.Fields] = {
    "text": {**_COMMON, "text": base.TEXT, "citations": (list, type(None))},
    "image": {**_COMMON, "source": base.OBJECT},
    "document": {**_COMMON, "source": base.OBJECT, "title": base.TEXT},
    "thinking": {**_COMMON, "thinking": base.TEXT, "signature": base.TEXT},
    "redacted_thinking": {**_COMMON, "data": base.TEXT},
    "tool_use": {
        **_COMMON,
        "id": base.TEXT,
        "name": base.TEXT,
        "input": base.OBJECT,
        "caller": base.OBJECT,
    },
    "tool_result": {
        **_COMMON,
        "tool_use_id": base.TEXT,
        "content": (str, list),
        "is_error": base.FLAG,
    },
}
_ROLE_BLOCKS: Mapping[str, frozenset[str]] = {
    "user": frozenset({"text", "image", "document", "tool_result"}),
    "assistant": frozenset({"text", "thinking", "redacted_thinking", "tool_use"}),
    "system": frozenset({"text"}),
}
_TOOL: base.Fields = {
    "name": base.TEXT,
    "description": base.TEXT,
    "input_schema": base.OBJECT,
    "cache_control": base.OBJECT,
    "defer_loading": base.FLAG,
    "eager_input_streaming": base.FLAG,
    "strict": base.FLAG,
    "type": base.TEXT,
}
_ID = re.compile(r"[a-zA-Z0-9_-]+")


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_upstream"}


class MessagesShape(Shape):
    name = "messages"
    path = "/v1/messages"
    key_header = "x-api-key"
    keeps_reasoning = True
    counts_tokens = True
    headers = frozenset(
        {
            *("host", "content-type", "content-length", "accept", "accept-encoding", "user-agent"),
            *("x-api-key", "anthropic-version", "anthropic-beta"),
        }
    )
    refusals: Mapping[str, Refusal] = {
        "busy": Refusal(
            429, _error("rate_limit_error", base.BUSY), (("retry-after", str(base.RETRY_AFTER_S)),)
        ),
        "quota": Refusal(402, _error("billing_error", base.QUOTA)),
    }

    @override
    async def answer(self, exchange: Exchange, turn: Turn, number: int) -> None:
        body = exchange.seen.json
        blocks = _blocks(turn, self.tool_names(body), number)
        stop = "tool_use" if turn.calls else "end_turn"
        if not self.is_streamed(exchange.seen):
            await exchange.answer({**_message(body, number), "content": blocks, "stop_reason": stop})
            return
        delta = {"stop_reason": stop, "stop_sequence": None}
        end: list[dict[str, Any]] = [
            {"type": "message_delta", "delta": delta, "usage": {"output_tokens": USAGE["output_tokens"]}},
            {"type": "message_stop"},
        ]
        events = [*_opening(body, number), *_block_events(blocks), *end]
        await exchange.stream([base.sse(event["type"], event) for event in events])

    @override
    async def break_off(self, exchange: Exchange, turn: Turn) -> None:
        body = exchange.seen.json
        await exchange.begin_stream()
        for event in [*_opening(body, 0), *_block_events(_blocks(turn, [], 0))[:3]]:
            await exchange.chunk(base.sse(event["type"], event))
        await exchange.end_stream()

    @override
    def is_streamed(self, seen: Seen) -> bool:
        return bool(seen.json.get("stream"))

    @override
    def tool_names(self, body: Mapping[str, Any]) -> list[str]:
        return [tool["name"] for tool in body.get("tools") or []]

    @override
    def rounds(self, body: Mapping[str, Any]) -> list[Round]:
        blocks = [(message, block) for message in body["messages"] for block in _content(message)]
        results = {
            block["tool_use_id"]: base.plain_text(block.get("content"))
            for _, block in blocks
            if block["type"] == "tool_result"
        }
        rounds = []
        for message in body["messages"]:
            content = _content(message)
            uses = [block for block in content if block["type"] == "tool_use"]
            if uses:
                calls = tuple(Call(use["name"], use["input"]) for use in uses)
                thought = "".join(block["thinking"] for block in content if block["type"] == "thinking")
                rounds.append(Round(calls, tuple(results.get(use["id"], "") for use in uses), thought))
        return rounds

    @override
    def violations(self, body: Mapping[str, Any]) -> Iterator[str]:
        yield from base.field_faults(body, _FIELDS, "body")
        if "max_tokens" not in body:
            yield "max_tokens is missing"
        for tool in body.get("tools") or []:
            yield from base.field_faults(tool, _TOOL, "tool")
            yield from base.schema_faults(tool.get("input_schema"), tool.get("name"))
        yield from base.name_faults(self.tool_names(body))
        yield from _message_faults(body["messages"])


def _message(body: Mapping[str, Any], number: int) -> dict[str, Any]:
    return {
        "id": f"msg_upstream_{number}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": USAGE,
    }


def _blocks(turn: Turn, names: Sequence[str], number: int) -> list[dict[str, Any]]:
    thought = {"type": "thinking", "thinking": turn.thought, "signature": SIGNATURE}
    return [
        *([thought] if turn.thought else []),
        *([{"type": "text", "text": turn.text}] if turn.text else []),
        *(
            {
                "type": "tool_use",
                "id": base.call_id(number, index),
                "name": base.declared(call.tool, names),
                "input": {"input": call.arguments} if isinstance(call.arguments, str) else call.arguments,
            }
            for index, call in enumerate(turn.calls)
        ),
    ]


def _opening(body: Mapping[str, Any], number: int) -> list[dict[str, Any]]:
    usage = {**USAGE, "output_tokens": 1}
    start = {"type": "message_start", "message": {**_message(body, number), "usage": usage}}
    return [start, {"type": "ping"}]


def _block_events(blocks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    for index, block in enumerate(blocks):
        empty, deltas = _streamed(block)
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    return events


def _streamed(block: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A block as it starts, and its deltas."""
    if block["type"] == "text":
        deltas = [{"type": "text_delta", "text": piece} for piece in base.pieces(block["text"])]
        return {**block, "text": ""}, deltas
    if block["type"] == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in base.pieces(block["thinking"])]
        signature = {"type": "signature_delta", "signature": block["signature"]}
        return {**block, "thinking": "", "signature": ""}, [*deltas, signature]
    parts = ["", *base.pieces(json.dumps(block["input"]))]
    return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": part} for part in parts]


def _content(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _message_faults(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    pending = base.PendingCalls()
    last_role = "assistant"
    for index, message in enumerate(messages):
        where, role = f"messages[{index}]", str(message.get("role"))
        if role == "system":
            yield from base.field_faults(message, _SYSTEM_MESSAGE, where)
            yield from _block_faults(message, where)
            continue
        yield from base.field_faults(message, _MESSAGE, where)
        yield from _block_faults(message, where)
        if role == last_role:
            yield f"{where}: the turns do not alternate, beginning with the user's"
        last_role = role
        blocks = _content(message)
        kinds = [block["type"] for block in blocks]
        results = [block for block in blocks if block["type"] == "tool_result"]
        if "tool_result" in kinds[len(results) :]:
            yield f"{where} has results after other blocks"
        for block in results:
            yield from pending.settle(block["tool_use_id"], where)
        yield from pending.missing(where)
        yield from pending.add([block["id"] for block in blocks if block["type"] == "tool_use"], where)
    yield from pending.missing("at the end")
    if last_role == "assistant":
        yield "the last message is the assistant's"


def _block_faults(message: Mapping[str, Any], where: str) -> Iterator[str]:
    role = message["role"]
    if role not in _ROLE_BLOCKS:
        yield f"{where} has the role {role}"
        return
    if not message["content"]:
        yield f"{where} is empty"
    for block in _content(message):
        kind = block.get("type")
        if kind not in _ROLE_BLOCKS[role]:
            yield f"{where} has a block of type {kind} in the role {role}"
            continue
        yield from base.field_faults(block, _BLOCKS[kind], f"{where}.{kind}")
        if kind == "tool_use" and not _ID.fullmatch(block["id"]):
            yield f"{where}: the id {block['id']!r} is invalid"
        if kind == "text" and not block["text"].strip():
            yield f"{where} has an empty text block"
        if kind == "thinking" and block.get("signature") != SIGNATURE:
            yield f"{where} has a thinking block whose signature is not the upstream's"
