"""OpenAI's shapes and the JSON codec. No I/O, and no knowledge of any provider."""

from __future__ import annotations

import gc
import json
import re
import secrets
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeVar

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
# Longer model names exist nowhere, and are not looked for.
MAX_MODEL_CHARS = 4096
_SLICE_BYTES = 256 * 1024
_MIN_RUN_BYTES = 1024 * 1024


Span = tuple[int, int]
Run = list[Span]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ParsedBody:
    """A client's JSON body: its value, and the place of that of its top-level `model`, if that is known."""

    value: Any
    model_span: Span | None = None


def loads_strict(body: bytes) -> Any:
    """Parse what a client sent. Raises InvalidRequest.

    orjson refuses NaN, lone surrogates, invalid UTF-8, a BOM and nesting past 1024. Bodies that would take it
    longer than `MAX_PARSE_NS` are refused before.
    """
    if len(body) > SMALL_BYTES:
        _exhausted(_surveying(body))
        return _loads(body)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise _exhausted(_invalid_json(body, _error_offset(body, exc), exc)) from None


def parsing(body: bytes) -> Generator[None, None, ParsedBody]:
    """As `loads_strict`, in steps: between two of them the caller can let others run.

    orjson cannot be interrupted, and takes 40 ms and more for 30 MB. Nearly all of a body of that size is the
    inside of a few strings (images, documents), so these are taken out and decoded in slices; what is left,
    with a mark in the place of each of them, is small. The place of `model` is found in it as well, so that
    `replace_model` need not search a large body in one go. Raises InvalidRequest.
    """
    runs = yield from _surveying(body)
    if sum(run[-1][1] - run[0][0] for run in runs) < _MIN_RUN_BYTES:
        runs = []
    outline = _Outline(body, runs)
    try:
        value = _parse(outline.body)
    except orjson.JSONDecodeError as exc:
        offset = outline.original(_error_offset(outline.body, exc))
        raise (yield from _invalid_json(body, offset, exc)) from None
    yield
    if runs and not (yield from outline.filling(value)):
        value = _loads(body)  # a string that is a key, or whose key stands there twice
    model = value.get("model") if isinstance(value, dict) else None
    if not isinstance(model, str) or len(model) > MAX_MODEL_CHARS:
        return ParsedBody(value)
    start, end = yield from _finding_model(outline.body)
    return ParsedBody(value, (outline.original(start), outline.original(end)))


class _Outline:
    """A JSON body without the runs of slices that are inside of strings: a mark stands for each of them."""

    __slots__ = ("_mark", "_runs", "_source", "_starts", "body")

    def __init__(self, source: bytes, runs: list[Run]) -> None:
        self._source = source
        self._runs = runs
        self._mark = f"run-{secrets.token_hex(8)}-"  # which no client can guess
        self._starts: list[int] = []
        pieces, position, size_bytes = [], 0, 0
        for number, run in enumerate(runs):
            before, mark = source[position : run[0][0]], f"{self._mark}{number:08d}".encode()
            self._starts.append(size_bytes + len(before))
            pieces += [before, mark]
            size_bytes += len(before) + len(mark)
            position = run[-1][1]
        self.body = b"".join([*pieces, source[position:]]) if runs else source

    def original(self, offset: int) -> int:
        """The position in the source of `offset` outside of the marks."""
        mark_bytes = len(self._mark) + _NUMBER_DIGITS
        before = zip(self._starts, self._runs, strict=True)
        return offset + sum(run[-1][1] - run[0][0] - mark_bytes for start, run in before if start < offset)

    def filling(self, value: Any) -> Generator[None, None, bool]:
        """Put the strings back into the parsed outline; False if there is no place for one of them."""
        left, stack, seen = len(self._runs), [value], 0
        while stack and left:
            container = stack.pop()
            if not isinstance(container, dict | list):
                return False
            for key, item in container.items() if isinstance(container, dict) else enumerate(container):
                seen += 1
                if seen % _VALUES_PER_STEP == 0:
                    yield
                kind = type(item)
                if kind is dict or kind is list:
                    stack.append(item)
                elif kind is str and self._mark in item:
                    container[key] = yield from self._whole(item)
                    left -= 1
        return not left

    def _whole(self, text: str) -> Generator[None, None, str]:
        before, _, after = text.partition(self._mark)
        parts = [before]
        for start, end in self._runs[int(after[:_NUMBER_DIGITS])]:
            piece = b'"%b"' % self._source[start:end]
            try:
                parts.append(_parse(piece))
            except orjson.JSONDecodeError as exc:
                offset = start + _error_offset(piece, exc) - 1
                raise (yield from _invalid_json(self._source, offset, exc)) from None
            yield
        parts.append(after[_NUMBER_DIGITS:])
        return "".join(parts)


_NUMBER_DIGITS = 8
_VALUES_PER_STEP = 5000


def _loads(body: bytes) -> Any:
    try:
        return _parse(body)
    except orjson.JSONDecodeError as exc:
        raise _exhausted(_invalid_json(body, _error_offset(body, exc), exc)) from None


def _parse(body: bytes) -> Any:
    if len(body) <= SMALL_BYTES:
        return orjson.loads(body)
    with _uncollected():
        return orjson.loads(body)


# orjson's text for it, and the position 0.
_NOT_UTF8 = "str is not valid UTF-8"


def _error_offset(body: bytes, error: orjson.JSONDecodeError) -> int:
    """The byte of `body` at which parsing failed; orjson counts characters."""
    if error.msg.startswith(_NOT_UTF8):
        try:
            body.decode()
        except UnicodeDecodeError as exc:
            return exc.start
    return error.pos if len(error.doc) == len(body) else len(error.doc[: error.pos].encode())


def _invalid_json(
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
def _uncollected() -> Iterator[None]:
    """Many objects at once make the collector look at all there are, again and again: four times the work."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _surveying(body: bytes) -> Generator[None, None, list[Run]]:
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

    With `include_usage` every chunk but the last carries `usage: null`, as OpenAI's do. `initial_content` is
    the content of the first chunk: null if the answer consists of calls, or may.
    """

    __slots__ = ("created", "id", "include_usage", "initial_content", "model")

    def __init__(
        self,
        *,
        id: str,
        model: str,
        created: int,
        include_usage: bool,
        initial_content: Literal[""] | None = "",
    ) -> None:
        self.id = id
        self.model = model
        self.created = created
        self.include_usage = include_usage
        self.initial_content = initial_content

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


def replace_model(
    body: bytes, *, old: str, new: str, span: Span | None = None
) -> Sequence[bytes | memoryview]:
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
    return _exhausted(_scanning_for_model(body))


def _finding_model(body: bytes) -> Generator[None, None, Span]:
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
            with _uncollected():
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


def _exhausted(steps: Generator[None, None, T]) -> T:
    """What `steps` return, with no pause between them."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result


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
