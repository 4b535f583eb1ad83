"""The JSON codec: what clients and providers send, and how long parsing it may take. Pure."""

from __future__ import annotations

import gc
import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import orjson
import ujson

from sanic_proxy.errors import InvalidRequest

# A worker serves no other request while orjson parses a body, so that time is estimated beforehand, by
# counting bytes, and bounded. Nanoseconds, measured with orjson 3.13 on an AMD EPYC core, rounded up: a byte
# of a string, an escape in one, a list or object, any further value, a key (a string and a slot in a table).
BYTE_NS, ESCAPE_NS, CONTAINER_NS, VALUE_NS, KEY_NS = 1.15, 2, 80, 100, 400
MAX_PARSE_NS = 50_000_000
# An operator who raises SANIC_PROXY_MAX_BODY_BYTES accepts longer pauses: past this size bytes do not count.
_MAX_COUNTED_BYTES = 32 * 1024 * 1024
# Smaller bodies are parsed at once, whatever they hold: 256 KiB of `{"":{"":` take 20 ms.
SMALL_BYTES = 256 * 1024
_SLICE_BYTES = 256 * 1024


Span = tuple[int, int]
Run = list[Span]
T = TypeVar("T")


def loads_strict(body: bytes) -> Any:
    """Parse what a client sent. Raises InvalidRequest.

    orjson refuses NaN, lone surrogates, invalid UTF-8, a BOM and nesting past 1024. Bodies that would take it
    longer than `MAX_PARSE_NS` are refused before.
    """
    if len(body) > SMALL_BYTES:
        exhausted(surveying(body))
        return loads_whole(body)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise exhausted(invalid_json(body, error_offset(body, exc), exc)) from None


def loads_whole(body: bytes) -> Any:
    try:
        return parse(body)
    except orjson.JSONDecodeError as exc:
        raise exhausted(invalid_json(body, error_offset(body, exc), exc)) from None


def parse(body: bytes) -> Any:
    if len(body) <= SMALL_BYTES:
        return orjson.loads(body)
    with uncollected():
        return orjson.loads(body)


# orjson's text for it, and the position 0.
_NOT_UTF8 = "str is not valid UTF-8"


def error_offset(body: bytes, error: orjson.JSONDecodeError) -> int:
    """The byte of `body` at which parsing failed; orjson counts characters."""
    if error.msg.startswith(_NOT_UTF8):
        try:
            body.decode()
        except UnicodeDecodeError as exc:
            return exc.start
    return error.pos if len(error.doc) == len(body) else len(error.doc[: error.pos].encode())


def invalid_json(
    body: bytes, offset: int, error: orjson.JSONDecodeError
) -> Generator[None, None, InvalidRequest]:
    """The error for a client's body that cannot be parsed: why and where, never what stands there."""
    if not body or body.isspace():
        return InvalidRequest("The request has no body: send a JSON object")
    reason = "invalid UTF-8" if error.msg.startswith(_NOT_UTF8) else error.msg
    line, column = yield from _locating(body, offset)
    return InvalidRequest(f"The request body is not valid JSON: {reason} (line {line}, column {column})")


def _locating(body: bytes, offset: int) -> Generator[None, None, tuple[int, int]]:
    """The line and column of the byte at `offset`, counted from 1; columns are characters."""
    line = column = 1
    for start in range(0, offset, _SLICE_BYTES):
        piece = body[start : min(start + _SLICE_BYTES, offset)]
        if newlines := piece.count(b"\n"):
            line += newlines
            column = 1
            piece = piece[piece.rindex(b"\n") + 1 :]
        column += len(piece.translate(None, _CONTINUATION_BYTES))
        yield
    return line, column


# Those that do not begin a character in UTF-8.
_CONTINUATION_BYTES = bytes(range(0x80, 0xC0))


@contextmanager
def uncollected() -> Iterator[None]:
    """Many objects at once make the collector look at all there are, again and again: four times the work."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def surveying(body: bytes) -> Generator[None, None, list[Run]]:
    """Estimate the time to parse `body`, slice by slice. Raises InvalidRequest if it is too long.

    Returns the runs of slices that are inside of a string, which do not count: they are decoded one by one.
    The first pass counts in all others, strings included: an upper bound, and all that most bodies need. The
    second one counts outside of strings.
    """
    parts_ns = escapes_ns = 0.0
    counted_bytes = 0
    runs: list[Run] = []
    is_inside = False
    for start, end in _slices(body):
        piece = body[start:end]
        quotes = _count_quotes(piece)
        if is_inside and not quotes:
            if runs and runs[-1][-1][1] == start:
                runs[-1].append((start, end))
            else:
                runs.append([(start, end)])
        else:
            counted_bytes += end - start
            marks = piece.translate(None, _NOT_COUNTED)
            escapes_ns += ESCAPE_NS * marks.count(b"\\")
            parts_ns += _parts_ns(marks)
        is_inside ^= quotes % 2 == 1
        yield
    left_ns = MAX_PARSE_NS - escapes_ns - BYTE_NS * min(counted_bytes, _MAX_COUNTED_BYTES)
    if parts_ns <= left_ns:
        return runs
    for piece in outside_strings(body):
        left_ns -= _parts_ns(piece)
        if left_ns < 0:
            raise InvalidRequest(
                f"The JSON body of your request has too many parts: parsing it would take longer than "
                f"{MAX_PARSE_NS // 1_000_000} ms (about 120,000 keys or 450,000 other values)"
            )
        yield
    return runs


_NOT_COUNTED = bytes(byte for byte in range(256) if byte not in b"\\[{,:")


def _parts_ns(piece: bytes) -> float:
    containers = piece.count(b"[") + piece.count(b"{")
    return CONTAINER_NS * containers + VALUE_NS * piece.count(b",") + KEY_NS * piece.count(b":")


def _slices(body: bytes) -> Iterator[Span]:
    """The slices of `body`; inside of a string none begins or ends within a character."""
    start = 0
    while start < len(body):
        end = _cut(body, start, start + _SLICE_BYTES)
        yield start, end
        start = end


def _cut(body: bytes, start: int, end: int) -> int:
    """The last place up to `end` that is not within a character: its UTF-8, its escape, or its two escapes.

    `start` is such a place, and more than a few bytes before `end`.
    """
    if end >= len(body):
        return len(body)
    while body[end] & 0xC0 == 0x80 and end > start + 16:
        end -= 1
    last = body.rfind(b"\\", end - 12, end)
    if last < 0:
        return end
    run = body[start : last + 1]
    if (len(run) - len(run.rstrip(b"\\"))) % 2 == 0:
        return end  # escaped backslashes
    size = 6 if body[last + 1 : last + 2] == b"u" else 2
    if _is_surrogate(body, last, _HIGH):
        size = 12
    if last + size <= end:
        return end
    if _is_surrogate(body, last, _LOW) and _is_surrogate(body, last - 6, _HIGH):
        return last - 6
    return last


# The second hexadecimal digit of the escapes of UTF-16 that come in pairs.
_HIGH, _LOW = frozenset(b"89abAB"), frozenset(b"cdefCDEF")


def _is_surrogate(body: bytes, start: int, kind: frozenset[int]) -> bool:
    escape = body[start : start + 4]
    return len(escape) == 4 and escape[:2] == b"\\u" and escape[2] in b"dD" and escape[3] in kind


def _unescaped(piece: bytes) -> bytes:
    """`piece` without escaped backslashes and quotes: its other quotes begin and end strings."""
    return piece.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in piece else piece


def _count_quotes(piece: bytes) -> int:
    """The quotes in `piece` that begin or end a string."""
    if b'"' not in piece:
        return 0
    if b"\\\\" not in piece:  # much faster than taking out what is escaped
        return piece.count(b'"') - piece.count(b'\\"')
    return _unescaped(piece).count(b'"')


def outside_strings(body: bytes) -> Iterator[bytes]:
    """The bytes of valid JSON that stand outside of its strings, slice by slice."""
    is_inside = False
    for start, end in _slices(body):
        parts = _unescaped(body[start:end]).split(b'"')
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


def exhausted(steps: Generator[None, None, T]) -> T:
    """What `steps` return, with no pause between them."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
