"""An estimate of a request's tokens, for providers that do not count them. Pure.

| part | tokens |
|---|---|
| text, arguments, results, JSON of tool definitions | a token per 4 bytes of UTF-8 |
| image or other file | 258: an image of up to 384 pixels, a tile of a larger one, a page of a document |

https://ai.google.dev/gemini-api/docs/tokens
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Any

from sanic_proxy.json_types import JsonMapping
from sanic_proxy.openai import codec
from sanic_proxy.translation.gemini.values import camel_keys

BYTES_PER_TOKEN = 4
FILE_TOKENS = 258
_FILES = frozenset({"inlineData", "fileData"})


def estimate_tokens(fields: JsonMapping) -> int:
    """The tokens of the input of `fields`, a request to count tokens or to answer."""
    request = camel_keys(fields)
    if isinstance(inner := request.get("generateContentRequest"), dict):
        request = camel_keys(inner)
    tokens = sum(map(_part, _parts(request)))
    if tools := request.get("tools"):
        tokens += _size(tools)
    return ceil(tokens)


def _parts(request: JsonMapping) -> Iterator[Any]:
    contents = request.get("contents")
    for content in (request.get("systemInstruction"), *(contents if isinstance(contents, list) else ())):
        parts = content.get("parts") if isinstance(content, dict) else None
        yield from parts if isinstance(parts, list) else (content,)


def _part(part: Any) -> float:
    if part is None:
        return 0
    if not isinstance(part, dict):
        return _size(part)
    fields = camel_keys(part)
    if _FILES & fields.keys():
        return FILE_TOKENS
    text = fields.get("text")
    return _size(text if isinstance(text, str) else fields)


def _size(value: Any) -> float:
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else codec.dumps(value)
    return len(data) / BYTES_PER_TOKEN
