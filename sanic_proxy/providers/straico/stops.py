"""`stop`, which Straico does not know: cut from the answer instead. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sanic_proxy.errors import InvalidRequest

_MAX_STOPS = 4


def stops_of(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """The texts before which an answer ends. Raises InvalidRequest."""
    stop = fields.get("stop")
    if stop is None:
        return ()
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(text, str) and text for text in stops):
        raise InvalidRequest("`stop` must be a string or a list of strings, none of them empty", param="stop")
    if not 0 < len(stops) <= _MAX_STOPS:
        raise InvalidRequest(f"`stop` takes 1 to {_MAX_STOPS} strings", param="stop")
    return tuple(stops)


def cut(text: str, stops: Sequence[str]) -> str | None:
    """`text` up to the first of `stops`; None where none of them occurs."""
    first = min((found for stop in stops if (found := text.find(stop)) >= 0), default=-1)
    return None if first < 0 else text[:first]
