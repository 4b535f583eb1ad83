"""A whole response as the events of its stream. Pure.

The events of one response are the same whenever they are made, so a client that has lost its connection can
go on behind the last `sequence_number` that it has seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.streams.replay import pieces

UNFINISHED = frozenset({"queued", "in_progress"})
# Fields of a response that only its end has.
_UNKNOWN_AT_FIRST: JsonMapping = {
    "completed_at": None,
    "error": None,
    "incomplete_details": None,
    "output": [],
    "usage": None,
}
# The events of an item that is one text: its field, and the beginning of their names.
_TEXTS: Mapping[str, tuple[str, str]] = {
    "function_call": ("arguments", "function_call_arguments"),
    "custom_tool_call": ("input", "custom_tool_call_input"),
}
# The same for the parts of an item: its field, the names of the part and of its index, and the part's own
# field with the beginning of its events.
_PARTS: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "message": (("content", "content_part", "content_index"),),
    "reasoning": (
        ("summary", "reasoning_summary_part", "summary_index"),
        ("content", "content_part", "content_index"),
    ),
}
_PART_TEXTS: Mapping[str, tuple[str, str]] = {
    "output_text": ("text", "output_text"),
    "refusal": ("refusal", "refusal"),
    "summary_text": ("text", "reasoning_summary_text"),
    "reasoning_text": ("text", "reasoning_text"),
}


def events(response: JsonMapping) -> list[Json]:
    """The events of a response so far: of one that is not finished, those before its output."""
    is_finished = response.get("status") not in UNFINISHED
    made = [*_opening(response), *(_rest(response) if is_finished else ())]
    return [{**event, "sequence_number": number} for number, event in enumerate(made)]


def _opening(response: JsonMapping) -> Iterator[Json]:
    begun = {**response, **_UNKNOWN_AT_FIRST}
    if response.get("background"):
        queued = {**begun, "status": "queued"}
        yield {"type": "response.created", "response": queued}
        yield {"type": "response.queued", "response": queued}
        if response["status"] == "queued":
            return
    else:
        yield {"type": "response.created", "response": {**begun, "status": "in_progress"}}
    yield {"type": "response.in_progress", "response": {**begun, "status": "in_progress"}}


def _rest(response: JsonMapping) -> Iterator[Json]:
    for index, item in enumerate(response.get("output") or ()):
        at = {"output_index": index}
        yield {"type": "response.output_item.added", **at, "item": _begun(item)}
        yield from _item(item, {**at, "item_id": item.get("id")})
        yield {"type": "response.output_item.done", **at, "item": item}
    status = response["status"]
    # A response that was cancelled has no event of its own for that.
    end = status if status in {"completed", "failed", "incomplete"} else "incomplete"
    yield {"type": f"response.{end}", "response": response}


def _begun(item: Json) -> Json:
    kind = str(item.get("type"))
    empty: Json = {name: [] for name, *_ in _PARTS.get(kind, ()) if name in item}
    if kind in _TEXTS:
        empty[_TEXTS[kind][0]] = ""
    if "status" in item:
        empty["status"] = "in_progress"
    return {**item, **empty}


def _item(item: Json, at: Json) -> Iterator[Json]:
    kind = str(item.get("type"))
    if kind in _TEXTS:
        field, name = _TEXTS[kind]
        named = {"name": item.get("name")} if kind == "function_call" else {}
        yield from _text(item.get(field), field, name, at, named)
    for field, name, index_name in _PARTS.get(kind, ()):
        for index, part in enumerate(item.get(field) or ()):
            yield from _part(part, name, {**at, index_name: index})


def _part(part: Json, name: str, at: Json) -> Iterator[Json]:
    known = _PART_TEXTS.get(str(part.get("type")))
    if known is None:
        return
    field, text_name = known
    logprobs: Json = {"logprobs": []} if text_name == "output_text" else {}
    empty = {**part, field: ""} | ({"annotations": []} if "annotations" in part else {})
    yield {"type": f"response.{name}.added", **at, "part": empty}
    yield from _text(part.get(field), field, text_name, at, logprobs, logprobs)
    for index, annotation in enumerate(part.get("annotations") or ()):
        added = {"annotation_index": index, "annotation": annotation}
        yield {"type": "response.output_text.annotation.added", **at, **added}
    yield {"type": f"response.{name}.done", **at, "part": part}


def _text(
    text: Any, field: str, name: str, at: Json, at_end: JsonMapping, each: JsonMapping | None = None
) -> Iterator[Json]:
    text = text if isinstance(text, str) else ""
    for piece in pieces(text):
        yield {"type": f"response.{name}.delta", **at, "delta": piece, **(each or {})}
    yield {"type": f"response.{name}.done", **at, field: text, **at_end}
