"""JSON as models write it -> values. Strictly first, then with one repair after another. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

_BLANK_OR_COMMA = re.compile(r"[\s,;]*")
_FENCE = re.compile(r"\A\s*```[A-Za-z0-9_+-]*\s*|\s*```\s*\Z")
_STRING_OR_COMMA = re.compile(r'("[^"\\]*(?:\\.[^"\\]*)*")|,(\s*[\]}])', re.DOTALL)
_STRAY_FUNCTION = re.compile(r'(?m)^\s*"function",\s*$')
_OPEN_ARGUMENTS = re.compile(r'("(?:arguments|parameters|args|input)"\s*:\s*)(\{\s*\\")')
_OVER_ESCAPED = re.compile(r'\\([{}\[\]"\n\\])')
_STRAY_ESCAPE = re.compile(r'\\+(?=[{}\[\]\n])|\\+(?=")')

MAX_REPAIRED_CHARS = 262_144


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


# Not strict: models write line breaks inside strings as they are.
_DECODER = json.JSONDecoder(strict=False, parse_constant=_refuse_constant)


class Decoded(NamedTuple):
    """One or more values, the position after the last, and what between them could not be read."""

    values: list[Any]
    end: int
    unread: str = ""


def decode_values(text: str, start: int, *, may_repair: bool) -> Decoded | None:
    """The JSON values at `start`, one behind the other; None if there is none.

    Without repair only what is whole counts. With it, `text` is taken to its end, and an array whose
    elements are not all whole gives those that are, and the rest as `unread`.
    """
    decoded = _values(text, start)
    if decoded is not None or not may_repair or len(text) - start > MAX_REPAIRED_CHARS:
        return decoded
    region = text[start:]
    for repair in _REPAIRS:
        region = repair(region)
        decoded = _values(region.lstrip(), 0)
        if decoded is not None and not region.lstrip()[decoded.end :].strip():
            return decoded._replace(end=len(text))
    return _elements(text, start)


def _values(text: str, start: int) -> Decoded | None:
    values: list[Any] = []
    end = position = start
    while text.startswith(("{", "[", '"'), position):
        try:
            value, end = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError):
            break
        values.append(value)
        separator = _BLANK_OR_COMMA.match(text, end)
        position = separator.end() if separator else end
    return Decoded(values, end) if values else None


def _elements(text: str, start: int) -> Decoded | None:
    """The whole objects of a damaged array."""
    if not text.startswith("[", start):
        return None
    rest = text[start + 1 :].lstrip()
    decoded = _values(rest, 0)
    if decoded is None:
        return None
    unread = rest[decoded.end :].strip(" \t\r\n,]")
    return Decoded(decoded.values, len(text), unread)


def _without_fence(text: str) -> str:
    return _FENCE.sub("", text)


def _without_stray_line(text: str) -> str:
    return _STRAY_FUNCTION.sub("", text)


def _without_trailing_commas(text: str) -> str:
    return _STRING_OR_COMMA.sub(lambda match: match[1] or match[2], text)


def _with_opening_quote(text: str) -> str:
    return _OPEN_ARGUMENTS.sub(r'\1"\2', text)


def _unescaped_once(text: str) -> str:
    return _OVER_ESCAPED.sub(r"\1", text)


def _without_stray_escapes(text: str) -> str:
    return _STRAY_ESCAPE.sub("", text)


_REPAIRS: tuple[Callable[[str], str], ...] = (
    _without_fence,
    _without_stray_line,
    _without_trailing_commas,
    _with_opening_quote,
    _unescaped_once,
    _unescaped_once,
    _without_stray_escapes,
)
