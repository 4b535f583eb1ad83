"""`stop`, which Straico does not support: the answer is truncated instead. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sanic_proxy.errors import InvalidRequest

_MAX_STOPS = 4


def parse_stop(fields: Mapping[str, object]) -> tuple[str, ...]:
    """The stop sequences of a request. Raises InvalidRequest."""
    stop = fields.get("stop")
    if stop is None:
        return ()
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(text, str) and text for text in stops):
        raise InvalidRequest("`stop` must be a non-empty string or a list of non-empty strings", param="stop")
    if not 0 < len(stops) <= _MAX_STOPS:
        raise InvalidRequest(f"`stop` must have 1 to {_MAX_STOPS} strings, not {len(stops)}", param="stop")
    return tuple(stops)


def truncate(text: str, stops: Sequence[str]) -> str | None:
    """`text` up to the first stop sequence; None if there is none in it."""
    first = min((found for stop in stops if (found := text.find(stop)) >= 0), default=-1)
    return None if first < 0 else text[:first]
