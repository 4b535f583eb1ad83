"""How long a provider asks its clients to wait: headers, fields of error objects and sentences -> seconds.

The sources, in the order in which they are believed:

1. `retry-after-ms`, then `retry-after` (RFC 9110, 10.2.3: seconds or a date).
2. `retryDelay` in the `details` of Google's error objects (`"36s"`, or an object with seconds and nanos).
3. A sentence: "Please try again in 7m12s", "retry after 20 seconds".
4. `x-ratelimit-reset*` of each limit whose `x-ratelimit-remaining*` is 0; the longest of several. The
   value is a duration ("6m0s", "17ms"), a number of seconds, or a point in time in seconds or
   milliseconds since 1970. OpenRouter repeats these headers inside its error object.
"""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

MAX_RETRY_AFTER_S = 60

_NUMBER = re.compile(r"\s*\d{1,15}(?:\.\d{0,9})?\s*", re.ASCII)
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_AMOUNT = r"\d{1,9}(?:\.\d{1,9})?"
_UNIT = r"(?:ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)(?![a-z])"
_PART = re.compile(rf"({_AMOUNT})\s*({_UNIT})", re.IGNORECASE)
_DURATION = re.compile(rf"(?:{_AMOUNT}\s*{_UNIT}[\s,]*)+", re.IGNORECASE)
_SENTENCE = re.compile(
    r"(?:try(?:ing)? again|retry(?:ing)?|wait)\b[^.\d]{0,40}?\b(?:in|after|for|about|at least)?\s*"
    rf"({_DURATION.pattern})",
    re.IGNORECASE,
)
_RESET = "x-ratelimit-reset"
_REMAINING = "x-ratelimit-remaining"
# A reset beyond these is a point in time, in seconds and in milliseconds.
_EPOCH_S = 1e9
_EPOCH_MS = 1e12
_MAX_DEPTH = 5


def wait_s(headers: Mapping[str, str], parsed: object = None, text: str = "") -> float | None:
    """The provider's wait in seconds, unclamped and never negative; None where it names none."""
    waits = (
        header_wait_s(headers),
        _retry_delay_s(parsed),
        _sentence_s(text),
        _reset_s(headers),
        _nested_reset_s(parsed),
    )
    return next((max(0.0, wait) for wait in waits if wait is not None), None)


def header_wait_s(headers: Mapping[str, str]) -> float | None:
    """What `retry-after-ms` or `retry-after` say, in seconds; a date in the past is negative."""
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    if value is None or (seconds := _number(value)) is not None:
        return None if value is None else seconds
    try:
        return email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None


def retry_after_s(headers: Mapping[str, str]) -> int | None:
    """The Retry-After for our client, from the provider's; None where it sent none that can be read."""
    wait = header_wait_s(headers)
    return None if wait is None else clamped(wait)


def clamped(wait: float) -> int:
    """Whole seconds, 1 to 60: openai-node sleeps for as long as it is asked to, so a long wait is cut."""
    return max(1, math.ceil(min(wait, MAX_RETRY_AFTER_S)))


def _number(value: str | None) -> float | None:
    return None if value is None or not _NUMBER.fullmatch(value) else float(value)


def duration_s(text: str) -> float | None:
    """Seconds of a duration such as "7m12s", "1.2s", "350ms" or "5 minutes"; None for anything else."""
    if not _DURATION.fullmatch(text.strip()):
        return None
    return sum(float(number) * _unit_s(unit) for number, unit in _PART.findall(text))


def _unit_s(unit: str) -> float:
    unit = unit.lower()
    return _UNITS_S["ms"] if unit.startswith(("ms", "milli")) else _UNITS_S[unit[0]]


def _sentence_s(text: str) -> float | None:
    found = _SENTENCE.search(text)
    return None if found is None else duration_s(found[1])


def _retry_delay_s(value: object, depth: int = _MAX_DEPTH) -> float | None:
    """The first `retryDelay` in a JSON value."""
    if depth == 0:
        return None
    if isinstance(value, Mapping):
        delay = value.get("retryDelay", value.get("retry_delay"))
        if isinstance(delay, str) and (seconds := duration_s(delay)) is not None:
            return seconds
        if isinstance(delay, Mapping):
            return _plain_number(delay.get("seconds")) + _plain_number(delay.get("nanos")) / 1e9
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    found = (_retry_delay_s(item, depth - 1) for item in inner if isinstance(item, Mapping | list))
    return next((seconds for seconds in found if seconds is not None), None)


def _plain_number(value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < _EPOCH_MS else 0.0


def _reset_s(headers: Mapping[str, str]) -> float | None:
    return max(_resets(headers), default=None)


def _resets(headers: Mapping[str, str]) -> Iterator[float]:
    lowered = {name.lower(): value for name, value in headers.items()}
    for name, value in lowered.items():
        if not name.startswith(_RESET):
            continue
        remaining = _number(lowered.get(_REMAINING + name.removeprefix(_RESET)))
        if remaining == 0 and (seconds := _until(value)) is not None:
            yield seconds


def _until(reset: str) -> float | None:
    number = _number(reset)
    if number is None:
        return duration_s(reset)
    if number < _EPOCH_S:
        return number
    return (number / 1000 if number >= _EPOCH_MS else number) - time.time()


def _nested_reset_s(parsed: object) -> float | None:
    value = parsed
    for key in ("error", "metadata", "headers"):
        value = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping):
        return None
    return _reset_s({str(name): str(text) for name, text in value.items()})
