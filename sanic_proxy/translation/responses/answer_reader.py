"""A provider's whole response -> an answer. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sanic_proxy import errors
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import codec
from sanic_proxy.openai.responses import read_usage
from sanic_proxy.translation.conversation import (
    Answer,
    CallKind,
    FinishReason,
    Other,
    Part,
    Refusal,
    Text,
    ToolCall,
    Usage,
)
from sanic_proxy.translation.responses.items import reasoning_parts
from sanic_proxy.translation.responses.tools import TOOL_SEARCH
from sanic_proxy.upstream import error_parser

_CALLS: Mapping[str, tuple[CallKind, str]] = {
    "function_call": ("function", "arguments"),
    "custom_tool_call": ("custom", "input"),
    "tool_search_call": (TOOL_SEARCH, "arguments"),
}


def read_answer(fields: JsonMapping) -> Answer:
    """The answer. Raises the error that a failed response reports, and UpstreamBadResponse."""
    raise_if_failed(fields)
    output = fields.get("output")
    if not isinstance(output, list):
        raise errors.UpstreamBadResponse("The provider's answer is not a response: it has no output")
    parts = [part for item in output if isinstance(item, dict) for part in parts_of(item)]
    return Answer(
        id=text_of(fields, "id"),
        model=text_of(fields, "model"),
        created=created_of(fields),
        parts=parts,
        finish=finish_of(fields, has_calls=any(isinstance(part, ToolCall) for part in parts)),
        usage=usage_of(fields),
    )


def raise_if_failed(response: JsonMapping) -> None:
    """Raises the error of a response that has failed or was cancelled."""
    error = response.get("error")
    if error or response.get("status") in ("failed", "cancelled"):
        raise error_parser.error_in_band({"error": error or "The provider's response has failed"})


def parts_of(item: Json) -> Iterator[Part]:
    """The parts in one item of a response's output."""
    kind = item.get("type")
    if kind == "message":
        content = item.get("content")
        yield from map(_part, content if isinstance(content, list) else ())
    elif kind == "reasoning":
        yield from reasoning_parts(item)
    elif (call := call_of(item)) is not None:
        yield call
    else:
        yield Other(str(kind), item)


def call_of(item: Json) -> ToolCall | None:
    """The call in an item of a response's output; None for other items and what the provider executes."""
    kind, name = _CALLS.get(str(item.get("type")), (None, ""))
    if kind is None or (kind == TOOL_SEARCH and item.get("execution") != "client"):
        return None
    arguments = item.get(name)
    if not isinstance(arguments, str):
        arguments = codec.dumps(arguments).decode() if arguments else ""
    called = TOOL_SEARCH if kind == TOOL_SEARCH else text_of(item, "name")
    namespace = item.get("namespace")
    return ToolCall(
        text_of(item, "call_id") or text_of(item, "id"),
        called,
        arguments,
        kind,
        namespace if isinstance(namespace, str) and namespace else None,
    )


def _part(part: object) -> Part:
    fields = part if isinstance(part, dict) else {}
    match fields.get("type"):
        case "output_text" | "text":
            annotations = fields.get("annotations")
            listed = annotations if isinstance(annotations, list) and annotations else None
            return Text(text_of(fields, "text"), annotations=listed)
        case "refusal":
            return Refusal(text_of(fields, "refusal"))
        case kind:
            return Other(str(kind), fields)


def finish_of(response: JsonMapping, *, has_calls: bool) -> FinishReason:
    """Why a response has ended."""
    if response.get("status") == "incomplete":
        details = response.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, Mapping) else None
        return "content_filter" if reason == "content_filter" else "length"
    return "tool_calls" if has_calls else "stop"


def usage_of(response: JsonMapping) -> Usage | None:
    usage = response.get("usage")
    return read_usage(usage) if isinstance(usage, Mapping) else None


def created_of(response: JsonMapping) -> int:
    """When a response was created; some servers write fractions of a second."""
    created = response.get("created_at")
    if isinstance(created, bool) or not isinstance(created, int | float):
        return 0
    return int(created) if 0 <= created < 1e12 else 0


def text_of(fields: JsonMapping, name: str) -> str:
    """The string of that name; "" for anything else."""
    value = fields.get(name)
    return value if isinstance(value, str) else ""
