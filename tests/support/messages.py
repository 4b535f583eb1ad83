"""Streams and requests of the Messages API for tests, judged by Anthropic's own types."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.message_create_params import (
    MessageCreateParamsNonStreaming,
    MessageCreateParamsStreaming,
)
from hypothesis import HealthCheck, settings
from pydantic import BaseModel, TypeAdapter

# For property tests: a busy machine may take its time.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

_EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
_WHOLE: TypeAdapter[Any] = TypeAdapter(MessageCreateParamsNonStreaming)
_STREAMED: TypeAdapter[Any] = TypeAdapter(MessageCreateParamsStreaming)
_DELTAS: Mapping[str, set[str]] = {
    "text": {"text_delta", "citations_delta"},
    "thinking": {"thinking_delta", "signature_delta"},
    "tool_use": {"input_json_delta"},
    "redacted_thinking": set(),
    "server_tool_use": {"input_json_delta"},
}

_SAMPLING = {"temperature", "top_p", "top_k"}

Json = dict[str, Any]


def frame(type_: str, **fields: Any) -> bytes:
    """One event as Anthropic writes it."""
    body = json.dumps({"type": type_, **fields}, separators=(",", ":"), ensure_ascii=False)
    return f"event: {type_}\ndata: {body}\n\n".encode()


def start(**usage: int) -> bytes:
    message: Json = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 1, **usage},
    }
    return frame("message_start", message=message)


def block(index: int, content: Json, *deltas: Json) -> list[bytes]:
    """The frames of one content block."""
    return [
        frame("content_block_start", index=index, content_block=content),
        *(frame("content_block_delta", index=index, delta=delta) for delta in deltas),
        frame("content_block_stop", index=index),
    ]


def text_block(index: int, *texts: str) -> list[bytes]:
    deltas = ({"type": "text_delta", "text": text} for text in texts)
    return block(index, {"type": "text", "text": ""}, *deltas)


def call_block(index: int, *pieces: str, name: str = "f") -> list[bytes]:
    deltas = ({"type": "input_json_delta", "partial_json": piece} for piece in pieces)
    start_ = {"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": {}}
    return block(index, start_, *deltas)


def thinking_block(index: int, *texts: str, signature: str = "c2ln") -> list[bytes]:
    deltas: list[Json] = [{"type": "thinking_delta", "thinking": text} for text in texts]
    if signature:
        deltas.append({"type": "signature_delta", "signature": signature})
    return block(index, {"type": "thinking", "thinking": "", "signature": ""}, *deltas)


def stop(reason: str = "end_turn", stop_sequence: str | None = None, **usage: int) -> list[bytes]:
    delta = {"stop_reason": reason, "stop_sequence": stop_sequence}
    return [
        frame("message_delta", delta=delta, usage={"output_tokens": 7, **usage}),
        frame("message_stop"),
    ]


class Judged(NamedTuple):
    """A stream that is legal: its events, and for each block its first state and its deltas."""

    events: list[Json]
    blocks: list[tuple[Json, list[Json]]]

    @property
    def message(self) -> Json:
        """The message that the SDK puts together. Raises for input that is not JSON."""
        snapshot: Any = None
        buffers: dict[int, bytes] = {}
        for event in self.events:
            snapshot = accumulate_event(
                event=_EVENTS.validate_python(event), current_snapshot=snapshot, json_bufs=buffers
            )
        Message.model_validate(snapshot.to_dict())
        return dict(snapshot.to_dict())

    def joined(self, index: int) -> str:
        """The text of a block's deltas, signatures apart."""
        names = ("text", "thinking", "partial_json")
        return "".join(delta[name] for delta in self.blocks[index][1] for name in names if name in delta)

    @property
    def types(self) -> list[str]:
        return [start_["type"] for start_, _ in self.blocks]


def judged(frames: bytes) -> Judged:
    """The stream, if all of its events are valid and stand in a legal order."""
    events = [_event(lines) for lines in _split(frames) if not lines.startswith(b"event: ping\n")]
    order = [event["type"] for event in events]
    assert order[0] == "message_start"
    assert order[-2:] == ["message_delta", "message_stop"]
    assert not {"message_start", "message_delta", "message_stop"} & set(order[1:-2])
    blocks: list[tuple[Json, list[Json]]] = []
    open_index: int | None = None
    for event in events[1:-2]:
        match event["type"]:
            case "content_block_start":
                assert open_index is None
                assert event["index"] == len(blocks)
                open_index = len(blocks)
                blocks.append((event["content_block"], []))
            case "content_block_delta":
                assert event["index"] == open_index
                assert event["delta"]["type"] in _DELTAS[blocks[-1][0]["type"]]
                earlier = [delta["type"] for delta in blocks[-1][1]]
                assert "signature_delta" not in earlier
                blocks[-1][1].append(event["delta"])
            case "content_block_stop":
                assert event["index"] == open_index
                open_index = None
            case other:
                raise AssertionError(other)
    assert open_index is None
    return Judged(events, blocks)


def _split(frames: bytes) -> Iterable[bytes]:
    assert frames.endswith(b"\n\n")
    return frames[:-2].split(b"\n\n")


def _event(lines: bytes) -> Json:
    name, data = lines.split(b"\n")
    event: Json = json.loads(data.removeprefix(b"data: "))
    assert name == b"event: " + event["type"].encode()
    parsed = _EVENTS.validate_python(event, strict=True)
    assert parsed.type == event["type"]
    return event


def check_request(fields: Mapping[str, Any]) -> None:
    """Raise if `fields` is not a request of Anthropic's specification, or has fields that are not in it.

    Parameters of sampling are left out: version 2026-10-21 of the API has none.
    """
    fields = {name: value for name, value in fields.items() if name not in _SAMPLING}
    validated = (_STREAMED if fields.get("stream") else _WHOLE).validate_python(dict(fields))
    assert _consumed(validated) == fields


def _consumed(value: Any) -> Any:
    """A validated value with its lists, which pydantic validates when they are iterated."""
    if isinstance(value, BaseModel):
        return _consumed(value.model_dump(exclude_unset=True))
    if isinstance(value, dict):
        return {name: _consumed(inner) for name, inner in value.items()}
    if isinstance(value, str) or not isinstance(value, Iterable):
        return value
    return [_consumed(inner) for inner in value]
