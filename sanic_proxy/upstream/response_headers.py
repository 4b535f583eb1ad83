"""Which of a provider's response headers come back to the client, on answers and on errors alike."""

from __future__ import annotations

import re
from collections.abc import Mapping

_MAX_VALUE_CHARS = 4096
_HEADER_VALUE = re.compile(rf"[\x20-\x7e\t]{{0,{_MAX_VALUE_CHARS}}}")
# Besides content-type: the rate limits, OpenAI's timing headers and the provider's request id.
_RETURNED = re.compile(r"(?:x-ratelimit-|openai-(?!organization))[a-z0-9-]+")
_LONGEST_RETURNED = 64
_MAX_NAMES = 1024


def is_header_value(value: str) -> bool:
    """Whether a value can be passed on in a header."""
    is_plain = len(value) <= _MAX_VALUE_CHARS and value.isascii() and value.isprintable()
    return is_plain or _HEADER_VALUE.fullmatch(value) is not None


def returned_headers(upstream: Mapping[str, str]) -> list[tuple[str, str]]:
    """The provider's headers that are returned to the client, under the names they are returned as."""
    returned = []
    for name, value in upstream.items():
        try:
            key = _returned_as[name]
        except KeyError:
            key = _learned(name)
        if key is not None and is_header_value(value):
            returned.append((key, value))
    return returned


# A look-up is cheaper than a call of a cached function, and providers send twenty headers.
_returned_as: dict[str, str | None] = {}


def _learned(name: str) -> str | None:
    """The name that a header is returned as, None if it is not; remembered, unless there are too many."""
    key = name.lower()
    returned = key if len(name) <= _LONGEST_RETURNED and _RETURNED.fullmatch(key) else None
    if key in {"x-request-id", "request-id"}:
        returned = "x-upstream-request-id"
    if len(_returned_as) < _MAX_NAMES and len(name) <= _LONGEST_RETURNED:
        _returned_as[name] = returned
    return returned
