"""Judges of the Responses API: the types of `openai` and of `openresponses-types`, strictly applied."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

import httpx2
import openresponses_types.types as open_responses
from openai import OpenAI
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel

Json = dict[str, Any]


def _type_of(model: type[BaseModel]) -> str:
    (name,) = get_args(model.model_fields["type"].annotation)
    return str(name)


def _open_type_of(model: type[BaseModel]) -> str:
    names: Any = model.model_fields["type"].annotation
    (name,) = names
    return str(name)


# OpenAI's model of each event, by its type, and Open Responses' models of those that it has.
OPENAI_EVENTS: Mapping[str, type[BaseModel]] = {
    _type_of(model): model for model in get_args(get_args(ResponseStreamEvent)[0])
}
OPEN_EVENTS: Mapping[str, type[BaseModel]] = {
    _open_type_of(model): model
    for name, model in vars(open_responses).items()
    if name.endswith("StreamingEvent")
}
# Open Responses has no custom tools and no searches for tools, and only functions among the tools.
_OPEN_ITEMS = frozenset({"message", "function_call", "reasoning"})


def events_of(frames: bytes) -> list[Json]:
    """The events of whole frames, of which each has its name in an `event:` line and in its data."""
    assert frames == b"" or frames.endswith(b"\n\n")
    events = []
    for block in frames.decode().split("\n\n")[:-1]:
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    return events


def judge_event(event: Json) -> None:
    """Raises ValidationError unless `event` is valid for both judges, as far as they know its type."""
    encoded = json.dumps(event)
    OPENAI_EVENTS[event["type"]].model_validate_json(encoded, strict=True)
    if event["type"] in OPEN_EVENTS and _is_open(event):
        OPEN_EVENTS[event["type"]].model_validate_json(encoded, strict=True)


def judge_response(response: Json) -> None:
    """The same for a whole response."""
    encoded = json.dumps(response)
    Response.model_validate_json(encoded, strict=True)
    if _is_open({"response": response}):
        open_responses.ResponseResource.model_validate_json(encoded, strict=True)


def _is_open(event: Json) -> bool:
    response = event.get("response") or {}
    items = [event["item"]] if "item" in event else response.get("output", [])
    is_about_functions = all(tool["type"] == "function" for tool in response.get("tools", []))
    return is_about_functions and all(item["type"] in _OPEN_ITEMS for item in items)


def judge_stream(events: list[Json]) -> Json:
    """Check all events and their order; the response that the stream ends with.

    The rules: numbers rise by one from 0; items do not interleave, and each is added, written and done with
    one id; the deltas of a part join to its text; exactly one terminal event, whose output is those items.
    """
    for event in events:
        judge_event(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    items = _judged_items(events[2:-1])
    final: Json = events[-1]["response"]
    assert events[-1]["type"] in {"response.completed", "response.incomplete"}
    assert final["output"] == items
    assert {event["response"]["id"] for event in (*events[:2], events[-1])} == {final["id"]}
    if any(item["status"] == "incomplete" for item in items):
        assert final["status"] == "incomplete"
        assert [item["status"] for item in items].index("incomplete") == len(items) - 1
    return final


def _judged_items(events: list[Json]) -> list[Json]:
    """The items that are done, in order."""
    items: list[Json] = []
    item_id = None
    texts: list[str] = []
    for event in events:
        assert event["output_index"] == len(items)
        kind = event["type"]
        if kind == "response.output_item.added":
            assert item_id is None
            item_id = event["item"]["id"]
        elif kind == "response.output_item.done":
            assert event["item"]["id"] == item_id
            items.append(event["item"])
            item_id = None
        else:
            assert event["item_id"] == item_id
            if kind.endswith(".delta"):
                texts.append(event["delta"])
            elif kind.endswith(".done") and not kind.endswith("part.done"):
                names = ("text", "refusal", "arguments", "input")
                whole = next(event[name] for name in names if name in event)
                assert "".join(texts) == whole
                texts.clear()
    assert item_id is None
    return items


def accumulated(frames: bytes) -> Json:
    """The response that openai-python's stream helper makes of a stream."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=frames)

    http_client = httpx2.Client(transport=httpx2.MockTransport(answer))
    with (
        OpenAI(api_key="none", base_url="http://upstream.invalid/v1", http_client=http_client) as client,
        client.responses.stream(model="m", input="x") as stream,
    ):
        return stream.get_final_response().to_dict()
