"""A whole chat completion as a stream of frames. Pure.

For providers that cannot stream (Straico), the echo, and those that answer a streaming request with
a whole completion: initial chunk -> [heartbeats] -> the answer in pieces -> finish -> usage -> done.

Nothing of the completion is lost: fields of a message become deltas, long texts in pieces; fields of a choice
(logprobs apart, which go with its first content) and of the completion go with a choice's last chunk. A
choice without a finish reason gets none here either.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from typing import Any

from sanic_proxy.openai import codec
from sanic_proxy.openai.choices import finish_reason_of
from sanic_proxy.streams import sse
from sanic_proxy.streams.tool_deltas import ToolDeltas

MAX_PIECE_CHARS = 200

# As much as fits and ends in white space; a longer word is cut. No piece is empty, none is lost.
_PIECE = re.compile(rf"(?s).{{0,{MAX_PIECE_CHARS - 1}}}\s(?=\S)|.{{1,{MAX_PIECE_CHARS}}}")


def pieces(text: str) -> Iterator[str]:
    """`text` in pieces of at most 200 characters, split at white space, which join to `text`."""
    position = 0
    while len(text) - position > MAX_PIECE_CHARS:
        match = _PIECE.match(text, position)
        if match is None:  # pragma: no cover - the second branch takes any character
            break
        yield match[0]
        position = match.end()
    if position < len(text):
        yield text[position:]


def frame(value: Mapping[str, Any]) -> bytes:
    return sse.encode(codec.dumps(value))


def initial_frame(head: codec.ChunkHead, index: int = 0) -> bytes:
    """The first chunk of a choice: the role, and no content yet."""
    return frame(codec.chunk(head, {"role": "assistant", "content": "", "refusal": None}, index=index))


def heartbeat_frame(head: codec.ChunkHead, text: str) -> bytes:
    """A chunk of the stream it belongs to, with an empty delta or an invisible character."""
    return frame(codec.chunk(head, {"content": text} if text else {}))


def answer_frames(head: codec.ChunkHead, completion: Mapping[str, Any]) -> Iterator[bytes]:
    """All that follows the initial chunk of the first choice, `[DONE]` included."""
    choices = sorted(completion["choices"], key=_index_of)
    for index, choice in enumerate(choices):
        if index:
            yield initial_frame(head, index)
        logprobs = choice.get("logprobs")
        for delta in _deltas(_message_of(choice)):
            yield frame(codec.chunk(head, delta, index=index, logprobs=logprobs))
            logprobs = None
        reason = choice.get("finish_reason")
        if finish_reason_of(reason) is None:
            reason = None
        end = codec.chunk(head, {}, reason, index=index, logprobs=logprobs)
        end["choices"][0].update(_others(choice, _CHOICE_FIELDS))
        if index == len(choices) - 1:
            end.update(_others(completion, _COMPLETION_FIELDS))
        if end != codec.chunk(head, {}, index=index):
            yield frame(end)
    if head.include_usage:
        yield frame(head.around([], completion.get("usage")))
    yield sse.DONE


def is_replayable(completion: Mapping[str, Any]) -> bool:
    """Whether each choice of a completion has a message."""
    choices = completion["choices"]
    return all(isinstance(choice, dict) and _message_of(choice) is not None for choice in choices)


_CHOICE_FIELDS = frozenset({"index", "message", "delta", "logprobs", "finish_reason"})
_COMPLETION_FIELDS = frozenset({"id", "object", "created", "model", "choices", "usage"})
_TEXTS = ("reasoning_content", "reasoning", "reasoning_text", "content", "refusal")
_MESSAGE_FIELDS = frozenset({*_TEXTS, "role", "tool_calls"})


def _others(fields: Mapping[str, Any], known: Container[str]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key not in known}


def _index_of(choice: Mapping[str, Any]) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def _message_of(choice: Mapping[str, Any]) -> Any:
    """A choice's message. Some servers answer with a single chunk, whose delta is the message."""
    found = (choice.get(name) for name in ("message", "delta"))
    return next((part for part in found if isinstance(part, dict)), None)


def _deltas(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if isinstance(message.get("content"), list):
        message = {**message, **_text_of_parts(message["content"], message)}
    for key in _TEXTS:
        for piece in pieces(_text(message.get(key))):
            yield {key: piece}
    yield from _call_deltas(message.get("tool_calls"))
    yield from ({key: value} for key, value in _others(message, _MESSAGE_FIELDS).items() if value)


def _text(value: object) -> str:
    """A text field's value: anything but a string would be an illegal delta."""
    if isinstance(value, str):
        return value
    return codec.dumps(value).decode() if value else ""


def _call_deltas(calls: object) -> Iterator[dict[str, Any]]:
    tools = ToolDeltas()
    for index, call in enumerate(calls if isinstance(calls, list) else ()):
        delta = [{**call, "index": index} if isinstance(call, dict) else call]
        tools.complete(0, delta)
        yield {"tool_calls": delta}


def _text_of_parts(parts: list[Any], message: Mapping[str, Any]) -> dict[str, Any]:
    """Content in parts as deltas may have it: texts joined, thoughts and images under names of their own."""
    texts: list[str] = []
    thoughts = [message.get("reasoning_content") or ""]
    others: dict[str, Any] = {}
    for part in parts:
        text, thought = _texts_of_part(part)
        texts.append(text)
        thoughts.append(thought)
        if not text and not thought and part:
            is_image = isinstance(part, dict) and part.get("type") == "image_url"
            others.setdefault("images" if is_image else "content_parts", []).append(part)
    return {"content": "".join(texts), "reasoning_content": "".join(thoughts), **others}


def _texts_of_part(part: object) -> tuple[str, str]:
    """The text and the thought in a part; Mistral has thoughts as parts, with a list of texts in them."""
    if not isinstance(part, dict):
        return (part, "") if isinstance(part, str) else ("", "")
    if part.get("type") == "thinking":
        inner = part.get("thinking")
        inner = inner if isinstance(inner, list) else [inner]
        return "", "".join(_texts_of_part(piece)[0] for piece in inner)
    text = part.get("text")
    return (text, "") if isinstance(text, str) else ("", "")
