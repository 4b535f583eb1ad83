"""Durations as LiteLLM's scripts write them: `30s`, `10m`, `24h`, `30d`, `2w`, `1mo`. Pure."""

from __future__ import annotations

import re

from sanic_proxy.errors import InvalidRequest

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "mo": 30 * 86_400}
_DURATION = re.compile(r"([0-9]{1,9})(s|mo|m|h|d|w)")
MAX_DURATION_S = 100 * 366 * 86_400


def seconds_of(text: str) -> float:
    """The seconds of a duration; a month has 30 days. Raises InvalidRequest."""
    found = _DURATION.fullmatch(text.strip())
    seconds = int(found[1]) * _UNITS[found[2]] if found else -1
    if not 0 <= seconds <= MAX_DURATION_S:
        raise InvalidRequest(f"Expected a duration such as 30s, 10m, 24h, 30d, 2w or 1mo, got {text[:40]!r}")
    return float(seconds)
