"""The value of `model` in the JSON body of a request: its place, and another value in it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Sequence
from functools import lru_cache

import orjson

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.openai.codec import Span, exhausted, uncollected

_MODEL = re.compile(rb'"model"\s*:\s*("[^"\\]*(?:\\.[^"\\]*)*")', re.DOTALL)
# A key of an object with what stands around it.
_KEY = re.compile(r'[\s,]*("[^"\\]*(?:\\.[^"\\]*)*")\s*:\s*', re.DOTALL)
_decoded = json.JSONDecoder().raw_decode
MAX_PARAMETERS = 1000


# Bodies up to this size are cheaper copied than written in pieces.
_JOINED_BYTES = 64 * 1024


def replace_model(body: bytes, old: str, new: str, span: Span | None = None) -> Sequence[bytes | memoryview]:
    """`body` with the value of its top-level `model` changed, and no other byte: its pieces in order.

    `body` is a valid JSON object whose `model` is the string `old`; `span` is its position, if known.
    Raises InvalidRequest where the key stands there twice: proxy and provider could read different ones.
    """
    if span is None and len(body) <= _JOINED_BYTES:
        written, rewritten = _spellings(old, new)
        before, found, after = body.partition(written)
        is_only_one = found and before.find(_MODEL_KEY) < 0 and after.find(_MODEL_KEY) < 0
        if is_only_one and (_BACKSLASH not in body or body.find(_ESCAPED_LETTER) < 0):
            return (body if old == new else b"".join((before, rewritten, after)),)
    start, end = _model_span(body) if span is None else span
    if old == new:
        return (body,)
    value = orjson.dumps(new)
    if len(body) <= _JOINED_BYTES:
        return (body[:start] + value + body[end:],)
    view = memoryview(body)
    return (view[:start], value, view[end:])


@lru_cache(maxsize=1024)
def _spellings(old: str, new: str) -> tuple[bytes, bytes]:
    """`model` with its value as Python's clients write it, old and new."""
    written = f'"model": "{old}"'.encode("utf-8", "surrogatepass")
    return written, b'"model": ' + orjson.dumps(new)


def _model_span(body: bytes) -> Span:
    # Inside a JSON string the quotes would be escaped, so a key that stands there once is it, unless
    # one is spelled with escapes (\u006dodel) and the one that stands there is a nested one.
    if body.count(_MODEL_KEY) == 1 and body.find(_ESCAPED_LETTER) < 0 and (found := _MODEL.search(body)):
        return found.span(1)
    return exhausted(_scanning_for_model(body))


def finding_model(body: bytes) -> Generator[None, None, Span]:
    """As `_model_span`, in steps."""
    count, first, has_escapes = 0, -1, False
    for start in range(0, len(body), _SEARCHED_BYTES):
        end = start + _SEARCHED_BYTES
        count += body.count(_MODEL_KEY, start, end + len(_MODEL_KEY) - 1)
        if count and first < 0:
            first = body.find(_MODEL_KEY, start)
        has_escapes = has_escapes or body.find(_ESCAPED_LETTER, start, end + len(_ESCAPED_LETTER) - 1) >= 0
        yield
    if count == 1 and not has_escapes and (found := _MODEL.match(body, first)):
        return found.span(1)
    return (yield from _scanning_for_model(body))


_MODEL_KEY, _ESCAPED_LETTER, _BACKSLASH = b'"model"', b"\\u006", ord("\\")
_SEARCHED_BYTES = 1024 * 1024


def _scanning_for_model(body: bytes) -> Generator[None, None, Span]:
    """Key by key, with each value skipped by the standard library's parser: Python would take seconds."""
    text = body.decode("latin-1")  # a character a byte: offsets stay
    position = text.index("{") + 1
    found: list[Span] = []
    for _ in range(MAX_PARAMETERS):
        if (key := _KEY.match(text, position)) is None:
            break
        start = position
        try:
            with uncollected():
                _, position = _decoded(text, key.end())
        except RecursionError:
            raise InvalidRequest("The JSON body is nested too deeply") from None
        if _is_model(key[1]):
            found.append((key.end(), position))
        if position - start > _SEARCHED_BYTES:
            yield
    else:
        raise InvalidRequest(f"The JSON body has more than {MAX_PARAMETERS} parameters")
    if len(found) != 1:
        raise InvalidRequest("The request body names `model` more than once", param="model")
    return found[0]


def _is_model(key: str) -> bool:
    return key == '"model"' or ("\\" in key and bool(json.loads(key) == "model"))
