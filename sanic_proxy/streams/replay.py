"""A whole chat completion, told again as a stream of frames. Pure.

For providers that cannot stream (Straico), the echo, and those that answer a streaming request with
a whole completion: initial chunk -> [heartbeats] -> the answer in pieces -> finish -> usage -> done.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sanic_proxy.openai import codec
from sanic_proxy.streams import sse

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


def initial_frame(head: codec.ChunkHead) -> bytes:
    """The first chunk: the role, and no content yet."""
    return frame(codec.chunk(head, {"role": "assistant", "content": "", "refusal": None}))


def heartbeat_frame(head: codec.ChunkHead, text: str) -> bytes:
    """A chunk of the stream it belongs to, with an empty delta or an invisible character."""
    return frame(codec.chunk(head, {"content": text} if text else {}))


def answer_frames(head: codec.ChunkHead, completion: Mapping[str, Any]) -> Iterator[bytes]:
    """All that follows the initial chunk, `[DONE]` included."""
    choice = completion["choices"][0]
    message = choice["message"]
    for delta in _deltas(message):
        yield frame(codec.chunk(head, delta))
    last = codec.chunk(head, {}, choice.get("finish_reason") or "stop")
    if "x_straico" in completion:
        last["x_straico"] = completion["x_straico"]
    yield frame(last)
    if head.include_usage:
        yield frame(head.around([], completion.get("usage")))
    yield sse.DONE


def _deltas(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for key in ("reasoning_content", "content", "refusal"):
        for piece in pieces(message.get(key) or ""):
            yield {key: piece}
    for index, call in enumerate(message.get("tool_calls") or ()):
        yield {"tool_calls": [{"index": index, **call}]}
    if message.get("function_call"):
        yield {"function_call": message["function_call"]}
    if message.get("annotations"):
        yield {"annotations": message["annotations"]}
