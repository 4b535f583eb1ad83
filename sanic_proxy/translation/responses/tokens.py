"""How many tokens a request has, estimated for providers that do not count them. Pure.

The rule: a token for every four bytes (UTF-8) of the texts that the model reads, rounded up: instructions,
all texts of the input, arguments and outputs of calls, and the definitions of tools as JSON. Each item of the
input adds 4 for its frame, an image 765 (OpenAI's price for a square of 1,024 pixels in high detail), and a
file a token for every four bytes of its data. Keys such as ids, types and statuses do not count.

Four bytes are an average of English text; other languages and code have up to twice as many tokens, of which
their longer encoding makes up a part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sanic_proxy.json_types import JsonMapping
from sanic_proxy.openai import codec

_BYTES_PER_TOKEN = 4
_ITEM_TOKENS = 4
_IMAGE_TOKENS = 765
_TEXTS = frozenset({"text", "refusal", "arguments", "input", "output", "name", "file_data"})
_NESTED = frozenset({"content", "summary", "output", "action", "tools"})
_MAX_DEPTH = 4


def estimate_tokens(fields: JsonMapping) -> int:
    """The tokens of a Responses request by the rule above. Wrong types count nothing."""
    tokens = 0
    text_bytes = sum(map(_size, (fields.get("instructions"), fields.get("tools"), fields.get("text"))))
    input_ = fields.get("input")
    if isinstance(input_, str):
        return _tokens(text_bytes + _size(input_)) + _ITEM_TOKENS
    for item in input_ if isinstance(input_, list) else ():
        tokens += _ITEM_TOKENS
        for value in _read_by_model(item, _MAX_DEPTH):
            if value is None:
                tokens += _IMAGE_TOKENS
            else:
                text_bytes += _size(value)
    return tokens + _tokens(text_bytes)


def _tokens(size_bytes: int) -> int:
    return -(-size_bytes // _BYTES_PER_TOKEN)


def _size(value: object) -> int:
    if value is None:
        return 0
    return len(value.encode("utf-8", "surrogatepass")) if isinstance(value, str) else len(codec.dumps(value))


def _read_by_model(item: object, depth: int) -> Iterator[object]:
    """The texts and definitions in an item; None for each image."""
    if isinstance(item, list) and depth:
        for part in item:
            yield from _read_by_model(part, depth - 1)
    if not isinstance(item, Mapping) or not depth:
        return
    if item.get("type") == "input_image":
        yield None
        return
    for name, value in item.items():
        if name == "tools" or (name == "arguments" and not isinstance(value, str)):
            yield value
        elif isinstance(value, str):
            if name in _TEXTS or name == "content":
                yield value
        elif name in _NESTED:
            yield from _read_by_model(value, depth - 1)
