"""Whole answers of the Messages API, read and written. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sanic_proxy import errors
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import chunks
from sanic_proxy.streams.messages_usage import usage_fields, usage_of
from sanic_proxy.translation import signatures
from sanic_proxy.translation.conversation import (
    Answer,
    Conversation,
    Other,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    Usage,
)
from sanic_proxy.translation.messages import values


def read(fields: JsonMapping) -> Answer:
    """See `Format.read_answer`. Signatures get their origin from the caller, who knows the provider."""
    content = fields.get("content")
    if not isinstance(content, list):
        raise errors.UpstreamBadResponse("The provider's answer is not a message: it has no list `content`")
    usage = fields.get("usage")
    stop_sequence = fields.get("stop_sequence")
    return Answer(
        id=_text(fields, "id"),
        model=_text(fields, "model"),
        created=chunks.now(),
        parts=[part for block in content if (part := _part(block)) is not None],
        finish=values.finish_of(fields.get("stop_reason")),
        stop_sequence=stop_sequence if isinstance(stop_sequence, str) else None,
        usage=usage_of(usage) if isinstance(usage, dict) else None,
    )


def _text(block: JsonMapping, name: str) -> str:
    value = block.get(name)
    return value if isinstance(value, str) else ""


def _part(block: object) -> Part | None:
    """The part of a block; None for a text without characters."""
    if not isinstance(block, dict) or not isinstance(kind := block.get("type"), str):
        raise errors.UpstreamBadResponse("The provider's answer has a content block without a type")
    match kind:
        case "text":
            citations = block.get("citations")
            text = _text(block, "text")
            return Text(text, citations=citations if isinstance(citations, list) else None) if text else None
        case "thinking":
            return Reasoning(_text(block, "thinking"), signature=_text(block, "signature"))
        case "redacted_thinking":
            return Reasoning(signature=_text(block, "data"), is_redacted=True)
        case "tool_use":
            value = block.get("input")
            arguments = values.arguments_of(value) if isinstance(value, dict) else values.json_text(value)
            return ToolCall(_text(block, "id"), _text(block, "name"), arguments)
        case _:
            return Other(kind, block)


def write(answer: Answer, asked: Conversation) -> Json:
    """See `Format.write_answer`. `asked` has the model's name where the provider states none."""
    id_ = values.message_id(answer.id)
    has_calls = any(isinstance(part, ToolCall) for part in answer.parts)
    has_refusal = any(isinstance(part, Refusal) for part in answer.parts)
    stop_reason = values.stop_reason_of(answer.finish, has_calls=has_calls, has_refusal=has_refusal)
    return {
        "id": id_,
        "type": "message",
        "role": "assistant",
        "model": answer.model or asked.model,
        "content": list(_blocks(answer.parts, id_)),
        "stop_reason": stop_reason,
        "stop_sequence": answer.stop_sequence if stop_reason == "stop_sequence" else None,
        "usage": usage_fields(answer.usage or Usage()),
    }


def _blocks(parts: list[Part], id_: str) -> Iterator[Json]:
    for number, part in enumerate(parts):
        match part:
            case Text(text) if text:
                yield text_block(text, part.citations)
            case Refusal(text) if text:
                yield text_block(text)
            case Reasoning() if (block := reasoning_block(part)) is not None:
                yield block
            case ToolCall():
                yield {
                    "type": "tool_use",
                    "id": part.id or values.new_tool_id(id_, number),
                    "name": part.name,
                    "input": values.tool_input(part),
                }
            case Other(kind, value) if kind in values.OWN_BLOCKS:
                yield value
            case _:
                pass


def text_block(text: str, citations: list[Any] | None = None) -> Json:
    return {"type": "text", "text": text, **({"citations": citations} if citations else {})}


def reasoning_block(part: Reasoning) -> Json | None:
    """The block of a piece of reasoning for a client; None where it is empty."""
    signature = signatures.wrapped(part.origin, part.signature)
    if part.is_redacted:
        return {"type": "redacted_thinking", "data": signature} if part.signature else None
    if not part.text and not part.signature:
        return None
    return {"type": "thinking", "thinking": part.text, "signature": signature}
