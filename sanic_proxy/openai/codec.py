"""OpenAI's shapes and the JSON codec. No I/O, and no knowledge of any provider."""

from __future__ import annotations

import gc
import json
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import orjson
import ujson

from sanic_proxy.errors import InvalidRequest

# Of what a client sends. A key takes up to 0.3 microseconds and 100 bytes, a list or object half of that, and
# any other value next to nothing.
MAX_KEYS = 60_000
MAX_CONTAINERS = 100_000
MAX_VALUES = 500_000
_CHEAP_BYTES = 256 * 1024
_SLICE_BYTES = 1024 * 1024


def loads_strict(body: bytes) -> Any:
    """Parse what a client sent. Raises InvalidRequest.

    orjson refuses NaN, lone surrogates, invalid UTF-8, a BOM and nesting past 1024. What would take it
    more than a tenth of a second is refused before.
    """
    try:
        if len(body) <= _CHEAP_BYTES:
            return orjson.loads(body)
        if _is_dear(body):
            raise InvalidRequest("The JSON body of your request has too many parts")
        with _uncollected():
            return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidRequest(
            "We could not parse the JSON body of your request: it must be one JSON object in UTF-8"
        ) from None


@contextmanager
def _uncollected() -> Iterator[None]:
    """Many objects at once make the collector look at all there are, again and again: four times the work."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _is_dear(body: bytes) -> bool:
    """Whether `body` has more keys, containers or values than may be; found by counting bytes."""
    return not (_are_within(_slices(body)) or _are_within(_outside_texts(body)))


def _are_within(pieces: Iterable[bytes]) -> bool:
    keys = containers = values = 0
    for piece in pieces:  # piece by piece: the dearest body is soon known to be one
        keys += piece.count(b":")
        containers += piece.count(b"[") + piece.count(b"{")
        values += piece.count(b",")
        if keys > MAX_KEYS or containers > MAX_CONTAINERS or values > MAX_VALUES:
            return False
    return True


def _slices(body: bytes) -> Iterator[bytes]:
    return (body[start : start + _SLICE_BYTES] for start in range(0, len(body), _SLICE_BYTES))


def _outside_texts(body: bytes) -> Iterator[bytes]:
    """What stands between the strings: without what is escaped, that is every other piece between quotes."""
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    is_inside = False
    for piece in _slices(bare):
        parts = piece.split(b'"')
        yield b"".join(parts[is_inside::2])
        is_inside ^= len(parts) % 2 == 0


def loads_tolerant(body: bytes) -> Any:
    """Parse what a provider sent, or None. Takes NaN and lone surrogates, which orjson refuses."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return ujson.loads(body.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return None


def dumps(value: object) -> bytes:
    """Serialize. A lone surrogate, which UTF-8 cannot hold, is written as its escape."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return ujson.dumps(value, ensure_ascii=True, escape_forward_slashes=False).encode()


def new_completion_id() -> str:
    return f"chatcmpl-{secrets.token_hex(14)}"


def new_call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def now() -> int:
    """The wall clock in whole seconds, as `created` wants it."""
    return int(time.time())


def chunk(
    head: ChunkHead,
    delta: dict[str, Any],
    finish_reason: str | None = None,
    *,
    index: int = 0,
    logprobs: object = None,
) -> dict[str, Any]:
    """One chat.completion.chunk with all fields that OpenAI's specification requires."""
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
    return head.around([choice])


class ChunkHead:
    """What all chunks of one stream share: id, model and created.

    With `include_usage` every chunk but the last carries `usage: null`, as OpenAI's do.
    """

    __slots__ = ("created", "id", "include_usage", "model")

    def __init__(self, *, id: str, model: str, created: int, include_usage: bool) -> None:
        self.id = id
        self.model = model
        self.created = created
        self.include_usage = include_usage

    def around(self, choices: list[dict[str, Any]], usage: object = None) -> dict[str, Any]:
        made: dict[str, Any] = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }
        if self.include_usage:
            made["usage"] = usage
        return made


_MODEL = re.compile(rb'"model"\s*:\s*("[^"\\]*(?:\\.[^"\\]*)*")', re.DOTALL)
# A key of an object with what stands around it.
_KEY = re.compile(r'[\s,]*("[^"\\]*(?:\\.[^"\\]*)*")\s*:\s*', re.DOTALL)
_decoded = json.JSONDecoder().raw_decode
MAX_PARAMETERS = 1000


# Bodies up to this size are cheaper copied than written in pieces.
_JOINED_BYTES = 64 * 1024


def replace_model(body: bytes, *, old: str, new: str) -> Sequence[bytes | memoryview]:
    """`body` with the value of its top-level `model` changed, and no other byte: its pieces in order.

    `body` is a valid JSON object whose `model` is the string `old`. Raises InvalidRequest where
    the key stands there twice: proxy and provider could read different ones.
    """
    start, end = _model_span(body)
    if old == new:
        return (body,)
    value = orjson.dumps(new)
    if len(body) <= _JOINED_BYTES:
        return (body[:start] + value + body[end:],)
    view = memoryview(body)
    return (view[:start], value, view[end:])


def _model_span(body: bytes) -> tuple[int, int]:
    # Inside a JSON string the quotes would be escaped, so a key that stands there once is it, unless
    # one is spelled with escapes (\u006dodel) and the one that stands there is a nested one.
    if body.count(b'"model"') == 1 and b"\\u006" not in body and (found := _MODEL.search(body)):
        return found.span(1)
    return _scan_for_model(body)


def _scan_for_model(body: bytes) -> tuple[int, int]:
    """Key by key, with each value skipped by the standard library's parser: Python would take seconds."""
    text = body.decode("latin-1")  # a character a byte: offsets stay
    position = text.index("{") + 1
    found: list[tuple[int, int]] = []
    for _ in range(MAX_PARAMETERS):
        if (key := _KEY.match(text, position)) is None:
            break
        try:
            with _uncollected():
                _, position = _decoded(text, key.end())
        except RecursionError:
            raise InvalidRequest("The JSON body is nested too deeply") from None
        if _is_model(key[1]):
            found.append((key.end(), position))
    else:
        raise InvalidRequest("The JSON body has too many parameters")
    if len(found) != 1:
        raise InvalidRequest("The request body names `model` more than once", param="model")
    return found[0]


def _is_model(key: str) -> bool:
    return key == '"model"' or ("\\" in key and bool(json.loads(key) == "model"))


def loads_exact(payload: bytes) -> Any:
    """Parse what will be passed on as it is. Raises ValueError.

    Takes lone surrogate escapes and integers of any size, which are JSON; refuses NaN, which is not.
    """
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        try:
            return json.loads(payload.decode("utf-8"), parse_constant=_refuse_constant)
        except RecursionError as exc:
            raise ValueError("nested too deeply") from exc


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
