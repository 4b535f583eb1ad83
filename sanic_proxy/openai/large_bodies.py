"""Large JSON bodies of clients, parsed in steps. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import orjson

from sanic_proxy.openai.codec import (
    Run,
    Span,
    error_offset,
    invalid_json,
    loads_whole,
    parse,
    surveying,
)
from sanic_proxy.openai.model_rewrite import finding_model

# Longer model names exist nowhere, and are not looked for.
MAX_MODEL_CHARS = 4096
_MIN_RUN_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ParsedBody:
    """A client's JSON body: its value, and the place of that of its top-level `model`, if that is known."""

    value: Any
    model_span: Span | None = None


def parsing(body: bytes) -> Generator[None, None, ParsedBody]:
    """As `loads_strict`, in steps: between two of them the caller can let others run.

    orjson cannot be interrupted, and takes 40 ms and more for 30 MB. Nearly all of a body of that size is the
    inside of a few strings (images, documents), so these are taken out and decoded in slices; what is left,
    with a mark in the place of each of them, is small. The place of `model` is found in it as well, so that
    `replace_model` need not search a large body in one go. Raises InvalidRequest.
    """
    runs = yield from surveying(body)
    if sum(run[-1][1] - run[0][0] for run in runs) < _MIN_RUN_BYTES:
        runs = []
    outline = _Outline(body, runs)
    try:
        value = parse(outline.body)
    except orjson.JSONDecodeError as exc:
        offset = outline.original(error_offset(outline.body, exc))
        raise (yield from invalid_json(body, offset, exc)) from None
    yield
    if runs and not (yield from outline.filling(value)):
        value = loads_whole(body)  # a string that is a key, or whose key stands there twice
    model = value.get("model") if isinstance(value, dict) else None
    if not isinstance(model, str) or len(model) > MAX_MODEL_CHARS:
        return ParsedBody(value)
    start, end = yield from finding_model(outline.body)
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
                parts.append(parse(piece))
            except orjson.JSONDecodeError as exc:
                offset = start + error_offset(piece, exc) - 1
                raise (yield from invalid_json(self._source, offset, exc)) from None
            yield
        parts.append(after[_NUMBER_DIGITS:])
        return "".join(parts)


_NUMBER_DIGITS = 8
_VALUES_PER_STEP = 5000
