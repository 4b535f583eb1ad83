"""A whole chat completion as a stream of frames. Pure.

For providers that cannot stream, and those that answer a streaming request with a whole completion: initial
chunk -> [heartbeats] -> the answer in pieces -> finish -> usage -> done.

Nothing of the completion is lost: fields of a message become deltas, texts in pieces of about 20 characters,
as clients that show text while it arrives expect. Fields of a choice (except logprobs, which go with its
first content) and of the completion go with the choice's last chunk. A choice without a finish reason gets
none here.

Small pieces make many frames, so callers join the frames and send them in one write.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Container, Iterator
from typing import Any, Literal

from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import chunks, codec
from sanic_proxy.openai.choices import finish_reason_of
from sanic_proxy.streams import sse
from sanic_proxy.streams.graphemes import is_boundary
from sanic_proxy.streams.tool_deltas import ToolDeltas

# A piece is about as long as what a model streams at a time. Words up to twice that long stay whole.
PIECE_CHARS = 20
# A text longer than this many pieces comes in larger ones: each costs a frame.
_MAX_PIECES = 2000
# How far before and behind its end a large piece is searched for the end of a word.
_SEARCHED_CHARS = 200


def pieces(text: str) -> Iterator[str]:
    """`text` in pieces of about 20 characters that join to `text`, divided after white space.

    Where there is none (a long word, a script without spaces) a piece ends between two graphemes.
    """
    size = max(PIECE_CHARS, len(text) // _MAX_PIECES)
    # The usual case: white space, then a character that combines with nothing before it.
    searched = min(size, _SEARCHED_CHARS)
    words = re.compile(rf"(?s).{{{size - searched},{size - 1}}}\s(?=[^\s\u0300-\U0010ffff])")
    position = 0
    while len(text) - position > size:
        found = words.match(text, position)
        end = found.end() if found else _piece_end(text, position, position + size, searched)
        yield text[position:end]
        position = end
    if position < len(text):
        yield text[position:]


def _piece_end(text: str, start: int, limit: int, searched: int) -> int:
    """The last end of a word near `limit`, else the next one, else the last end of a grapheme."""
    before = range(limit, limit - searched, -1)
    later = range(limit + 1, min(limit + searched, len(text) - 1) + 1)
    for end in itertools.chain(before, later):
        if text[end - 1].isspace() and not text[end].isspace() and is_boundary(text, end, start):
            return end
    for end in before:
        if is_boundary(text, end, start):
            return end
    while not is_boundary(text, limit, start):
        limit += 1
    return limit


def frame(value: JsonMapping) -> bytes:
    return sse.encode(codec.dumps(value))


def initial_frame(head: chunks.ChunkHead) -> bytes:
    """The first chunk of the first choice: the role, and no content yet."""
    return _initial_frame(head, 0, head.initial_content)


def _initial_frame(head: chunks.ChunkHead, index: int, content: Literal[""] | None) -> bytes:
    return frame(chunks.chunk(head, {"role": "assistant", "content": content, "refusal": None}, index=index))


def stream_of(head: chunks.ChunkHead, completion: JsonMapping) -> bytes:
    """The whole stream of a completion, to be sent at once."""
    choices: list[Json] = completion["choices"]
    first: Json = min(choices, key=_index_of, default={})
    opening = _initial_frame(head, 0, initial_content(_message_of(first)))
    return b"".join([opening, *answer_frames(head, completion)])


def initial_content(message: JsonMapping | None) -> Literal[""] | None:
    """The content of the first chunk: null if the message has calls and no text.

    Clients then end with `content: null`, as OpenAI's answers have it beside calls, and not with an empty
    text.
    """
    is_calling = message is not None and (message.get("tool_calls") or message.get("function_call"))
    return None if is_calling and message is not None and message.get("content") is None else ""


def heartbeat_frame(head: chunks.ChunkHead, text: str) -> bytes:
    """A chunk of the stream it belongs to, with an empty delta or an invisible character."""
    return frame(chunks.chunk(head, {"content": text} if text else {}))


def answer_frames(head: chunks.ChunkHead, completion: JsonMapping) -> Iterator[bytes]:
    """All that follows the initial chunk of the first choice, `[DONE]` included."""
    choices = sorted(completion["choices"], key=_index_of)
    for index, choice in enumerate(choices):
        if index:
            yield _initial_frame(head, index, initial_content(_message_of(choice)))
        logprobs = choice.get("logprobs")
        for key, value in _fields(_message_of(choice)):
            yield from _delta_frames(head, index, key, value, logprobs)
            logprobs = None
        reason = choice.get("finish_reason")
        if finish_reason_of(reason) is None:
            reason = None
        end = chunks.chunk(head, {}, reason, index=index, logprobs=logprobs)
        end["choices"][0].update(_others(choice, _CHOICE_FIELDS))
        if index == len(choices) - 1:
            end.update(_others(completion, _COMPLETION_FIELDS))
        if end != chunks.chunk(head, {}, index=index):
            yield frame(end)
    if head.include_usage:
        yield frame(head.around([], completion.get("usage")))
    yield sse.DONE


def _delta_frames(head: chunks.ChunkHead, index: int, key: str, value: Any, logprobs: object) -> list[bytes]:
    """The frames of one field of a message. Those of a text differ in it only: the rest is encoded once."""
    if key not in _TEXTS:
        return [frame(chunks.chunk(head, {key: value}, index=index, logprobs=logprobs))]
    before, _, after = frame(chunks.chunk(head, {key: ""}, index=index)).rpartition(b'""')
    frames = [before + codec.dumps(piece) + after for piece in pieces(value)]
    if logprobs is not None:
        frames[0] = frame(chunks.chunk(head, {key: next(pieces(value))}, index=index, logprobs=logprobs))
    return frames


def is_replayable(completion: JsonMapping) -> bool:
    """Whether each choice of a completion has a message."""
    choices = completion["choices"]
    return all(isinstance(choice, dict) and _message_of(choice) is not None for choice in choices)


_CHOICE_FIELDS = frozenset({"index", "message", "delta", "logprobs", "finish_reason"})
_COMPLETION_FIELDS = frozenset({"id", "object", "created", "model", "choices", "usage"})
_TEXTS = ("reasoning_content", "reasoning", "reasoning_text", "content", "refusal")
_MESSAGE_FIELDS = frozenset({*_TEXTS, "role", "tool_calls"})


def _others(fields: JsonMapping, known: Container[str]) -> Json:
    return {key: value for key, value in fields.items() if key not in known}


def _index_of(choice: JsonMapping) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def _message_of(choice: JsonMapping) -> Any:
    """A choice's message. Some servers answer with a single chunk, whose delta is the message."""
    found = (choice.get(name) for name in ("message", "delta"))
    return next((part for part in found if isinstance(part, dict)), None)


def _fields(message: JsonMapping) -> Iterator[tuple[str, Any]]:
    """The fields of a message in the order in which they become deltas."""
    if isinstance(message.get("content"), list):
        message = {**message, **_text_of_parts(message["content"], message)}
    for key in _TEXTS:
        if text := _text(message.get(key)):
            yield key, text
    for call in _call_deltas(message.get("tool_calls")):
        yield "tool_calls", call
    yield from ((key, value) for key, value in _others(message, _MESSAGE_FIELDS).items() if value)


def _text(value: object) -> str:
    """A text field's value: anything but a string would be an illegal delta."""
    if isinstance(value, str):
        return value
    return codec.dumps(value).decode() if value else ""


def _call_deltas(calls: object) -> Iterator[list[Any]]:
    tools = ToolDeltas()
    for index, call in enumerate(calls if isinstance(calls, list) else ()):
        delta = [{**call, "index": index} if isinstance(call, dict) else call]
        tools.complete(0, delta)
        yield delta


def _text_of_parts(parts: list[Any], message: JsonMapping) -> Json:
    """Content in parts as deltas may have it: texts joined, thoughts and images under names of their own."""
    texts: list[str] = []
    thoughts = [message.get("reasoning_content") or ""]
    others: Json = {}
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
