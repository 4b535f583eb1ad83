"""JSON as models write it -> values. Strictly first, then with one repair after another. Pure."""

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
    """The number; too large a one would be written as `Infinity`, which is no JSON."""
    value = float(text)
    if math.isinf(value):
        raise ValueError(text)
    return value


def parse_strict(text: str) -> Any:
    """The one JSON value that `text` is, to the letter of RFC 8259. Raises ValueError."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=parse_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


# Not strict: models write line breaks inside strings as they are.
_DECODER = json.JSONDecoder(strict=False, parse_constant=_refuse_constant, parse_float=parse_finite)
_STRICT_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=parse_finite)


class Decoded(NamedTuple):
    """One or more values, the position after the last, and what between them could not be read."""

    values: list[Any]
    end: int
    unparsed: str = ""


def decode_values(text: str, start: int, *, repair: bool, is_closed: bool = False) -> Decoded | None:
    """The JSON values at `start`, one behind the other; None if there is none.

    Without repair only what is whole counts. With it, `text` is taken to its end, and an array whose
    elements are not all whole gives those that are, and the rest as `unread`. `is_closed` says that
    a closing tag followed, so that brackets may be missing but nothing else is.
    """
    decoded = _values(text, start)
    if decoded is not None or not repair or len(text) - start > MAX_REPAIRED_CHARS:
        return decoded
    for region in _mended(text[start:], _CLOSED_REPAIRS if is_closed else _REPAIRS):
        decoded = _values(region, 0)
        if decoded is not None and not region[decoded.end :].strip():
            return decoded._replace(end=len(text))
    return complete_elements(text, start)


def decode_value(text: str, start: int) -> Decoded | None:
    """The one value at `start`, to the letter; None where there is none that is whole."""
    try:
        value, end = _decoded_at(text, start, _STRICT_DECODER)
    except (ValueError, RecursionError):
        return None
    return Decoded([value], end)


def _mended(text: str, repairs: Sequence[Callable[[str], str]]) -> Iterator[str]:
    """Each repair alone, as a needless one can do harm; only then one on top of the other."""
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
            value, end = _decoded_at(text, position)
        except (ValueError, RecursionError):
            break
        values.append(value)
        separator = _BLANK_OR_COMMA.match(text, end)
        position = separator.end() if separator else end
    return Decoded(values, end) if values else None


def _decoded_at(text: str, start: int, decoder: json.JSONDecoder = _DECODER) -> tuple[Any, int]:
    """`raw_decode` on growing pieces: its error counts the lines of all that it was given."""
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
    """The complete elements of an array that is damaged or cut behind them; the rest is `unread`."""
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
    """`\\d` in a pattern, as if no JSON were around it."""
    return _ESCAPE.sub(lambda match: match[0] if match[1] else "\\" + match[0], text)


def _with_closing_brackets(text: str) -> str:
    """Brackets forgotten behind the last value; text that ends in a string is not completed."""
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
