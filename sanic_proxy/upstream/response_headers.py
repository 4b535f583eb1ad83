"""Which of a provider's response headers come back to the client, on answers and on errors alike."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

_MAX_VALUE_CHARS = 4096
_HEADER_VALUE = re.compile(rf"[\x20-\x7e\t]{{0,{_MAX_VALUE_CHARS}}}")
# Besides content-type: the rate limits, OpenAI's timing headers and the provider's request id.
_RETURNED = re.compile(r"(?:x-ratelimit-|openai-(?!organization))[a-z0-9-]+")
_LONGEST_RETURNED = 64


def is_header_value(value: str) -> bool:
    """Whether a value can be passed on in a header."""
    is_plain = len(value) <= _MAX_VALUE_CHARS and value.isascii() and value.isprintable()
    return is_plain or _HEADER_VALUE.fullmatch(value) is not None


def returned_headers(upstream: Mapping[str, str]) -> list[tuple[str, str]]:
    """The provider's headers that are returned to the client, under the names they are returned as."""
    returned = []
    for name, value in upstream.items():
        key = _returned_as(name) if len(name) <= _LONGEST_RETURNED else None
        if key is not None and is_header_value(value):
            returned.append((key, value))
    return returned


@lru_cache(maxsize=1024)
def _returned_as(name: str) -> str | None:
    key = name.lower()
    if key in {"x-request-id", "request-id"}:
        return "x-upstream-request-id"
    return key if _RETURNED.fullmatch(key) else None
