"""JSON as models write it -> values. Pure.

Valid JSON is decoded as it is. Otherwise repairs are tried in the order of `_REPAIRS`: first each one
alone, because an unnecessary repair can change strings, then all of them cumulatively. A repaired text is
accepted only if it is JSON up to its end. Repairs never invent content: a string without its closing quote
is not completed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

_BLANK_OR_COMMA = re.compile(r"[\s,;]*")
_FENCE = re.compile(r"\A```[A-Za-z0-9_+-]*|```\Z")
_STRING_OR_COMMA = re.compile(r'("[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z))|,(\s*+[\]}])', re.DOTALL)
_STRAY_FUNCTION = re.compile(r'(?m)^[ \t]*+"function",[ \t]*+$')
_OPEN_ARGUMENTS = re.compile(r'("(?:arguments|parameters|args|input)"\s*:\s*)(\{\s*\\")')
_OVER_ESCAPED = re.compile(r'\\([{}\[\]"\n\\])')
_STRAY_ESCAPE = re.compile(r'\\+(?=[{}\[\]\n])|\\+(?=")')

_ESCAPE = re.compile(r"\\(?:([\"\\/bfnrt\n]|u[0-9a-fA-F]{4})|)")
_BRACKET_ESCAPE = re.compile(r"\\+(?=[{}\[\]\n])")
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[{}\[\]]', re.DOTALL)
_CLOSING = {"{": "}", "[": "]"}

_FIRST_PIECE_CHARS = 4096
_LONGEST_TOKEN_CHARS = 12  # -Infinity, or an escaped character, cut in its middle

MAX_REPAIRED_CHARS = 262_144


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def parse_finite(text: str) -> float:
    """Parse a number. Raises ValueError for one that would overflow: `Infinity` is not JSON."""
    value = float(text)
    if math.isinf(value):
        raise ValueError(text)
    return value


def parse_strict(text: str) -> object:
    """Parse `text` as one JSON value, strictly as RFC 8259 defines it. Raises ValueError."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=parse_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


# Not strict: models do not escape line breaks inside strings.
_DECODER = json.JSONDecoder(strict=False, parse_constant=_refuse_constant, parse_float=parse_finite)
_STRICT_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=parse_finite)


class Decoded(NamedTuple):
    """One or more values, the position after the last one, and the text that is not valid JSON."""

    values: list[Any]
    end: int
    unparsed: str = ""


def decode_values(text: str, start: int, *, repair: bool, is_closed: bool = False) -> Decoded | None:
    """Decode the consecutive JSON values at `start`; None if there is none.

    With `repair` the whole rest of `text` is one region to repair; of a damaged array the complete elements
    are decoded, and the rest is `unparsed`. `is_closed`: a closing tag follows `text`, so it is not
    truncated, and missing closing brackets may be added.
    """
    decoded = _values(text, start)
    if decoded is not None or not repair or len(text) - start > MAX_REPAIRED_CHARS:
        return decoded
    for region in _repaired(text[start:], _CLOSED_REPAIRS if is_closed else _REPAIRS):
        decoded = _values(region, 0)
        if decoded is not None and not region[decoded.end :].strip():
            return decoded._replace(end=len(text))
    return complete_elements(text, start)


def decode_value(text: str, start: int) -> Decoded | None:
    """Strictly decode the value at `start`; None if there is no complete one."""
    try:
        value, end = _raw_decode(text, start, _STRICT_DECODER)
    except (ValueError, RecursionError):
        return None
    return Decoded([value], end)


def _repaired(text: str, repairs: Sequence[Callable[[str], str]]) -> Iterator[str]:
    """The text after each repair alone, then after all repairs so far."""
    for repair in repairs:
        yield repair(text).lstrip()
    region = text
    for repair in repairs:
        region = repair(region)
        yield region.lstrip()


def _values(text: str, start: int) -> Decoded | None:
    values: list[Any] = []
    end = position = start
    while text.startswith(("{", "[", '"'), position):
        try:
            value, end = _raw_decode(text, position)
        except (ValueError, RecursionError):
            break
        values.append(value)
        separator = _BLANK_OR_COMMA.match(text, end)
        position = separator.end() if separator else end
    return Decoded(values, end) if values else None


def _raw_decode(text: str, start: int, decoder: json.JSONDecoder = _DECODER) -> tuple[Any, int]:
    """`raw_decode` on growing pieces, because its errors count the lines of the whole input."""
    size = _FIRST_PIECE_CHARS
    while True:
        piece = text[start : start + size]
        try:
            value, end = decoder.raw_decode(piece)
        except json.JSONDecodeError as exc:
            is_cut = exc.msg.startswith("Unterminated") or exc.pos > len(piece) - _LONGEST_TOKEN_CHARS
            if not is_cut or start + size >= len(text):
                raise
        else:
            return value, start + end
        size *= 4


def complete_elements(text: str, start: int) -> Decoded | None:
    """Decode the leading complete elements of a damaged or truncated array; the rest is `unparsed`."""
    if not text.startswith("[", start):
        return None
    rest = text[start + 1 :].lstrip()
    decoded = _values(rest, 0)
    if decoded is None:
        return None
    unparsed = rest[decoded.end :].strip(" \t\r\n,]")
    return Decoded(decoded.values, len(text), unparsed)


def _without_fence(text: str) -> str:
    return _FENCE.sub("", text.strip()).strip()


def _without_stray_line(text: str) -> str:
    return _STRAY_FUNCTION.sub("", text)


def _without_trailing_commas(text: str) -> str:
    return _STRING_OR_COMMA.sub(lambda match: match[1] or match[2], text)


def _with_opening_quote(text: str) -> str:
    return _OPEN_ARGUMENTS.sub(r'\1"\2', text)


def _with_valid_escapes(text: str) -> str:
    """Escapes that JSON does not have, such as `\\d` in a pattern, as a backslash and a letter."""
    return _ESCAPE.sub(lambda match: match[0] if match[1] else "\\" + match[0], text)


def _with_closing_brackets(text: str) -> str:
    """The text with missing closing brackets; unchanged if it ends inside a string."""
    missing: list[str] = []
    made: list[str] = []
    position = 0
    for token in _STRING_OR_BRACKET.finditer(text):
        made.append(text[position : token.start()])
        position = token.end()
        mark = token[0]
        if mark in _CLOSING:
            missing.append(_CLOSING[mark])
        elif mark in ("}", "]"):
            while missing and missing[-1] != mark:
                made.append(missing.pop())
            mark = missing.pop() if missing else ""
        elif len(mark) < 2 or not mark.endswith('"'):
            return text
        made.append(mark)
    return "".join([*made, text[position:], *reversed(missing)])


def _unescaped_once(text: str) -> str:
    return _OVER_ESCAPED.sub(r"\1", text)


def _without_bracket_escapes(text: str) -> str:
    return _BRACKET_ESCAPE.sub("", text)


def _without_stray_escapes(text: str) -> str:
    return _STRAY_ESCAPE.sub("", text)


_REPAIRS: tuple[Callable[[str], str], ...] = (
    _without_fence,
    _without_stray_line,
    _without_trailing_commas,
    _with_opening_quote,
    _with_valid_escapes,
    _without_bracket_escapes,
    _unescaped_once,
    _unescaped_once,
    _without_stray_escapes,
)
_CLOSED_REPAIRS = (*_REPAIRS, _with_closing_brackets)
