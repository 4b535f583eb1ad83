"""What a provider's answers say is left of its limits, so that requests wait before they meet a 429. Pure.

Read are the headers of OpenAI (`x-ratelimit-remaining-requests` and `-tokens`, with `-limit-` and `-reset-`),
which Groq, xAI and others have copied, of Cerebras (`-requests-day`, `-tokens-minute`), of OpenRouter (no
suffix) and of Anthropic (`anthropic-ratelimit-requests-remaining`, ...). A reset is a duration ("6m0s"), a
number of seconds, a time since 1970 in seconds or milliseconds, or a date (RFC 3339).

OpenAI and Anthropic document the reset as the time when the limit is full again, and refill it steadily: one
request is possible much earlier. Where the reset is a point in time since 1970, the limit is a window that
begins anew. Answers are read only while little is left: parsing costs more than an answer should.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from sanic_proxy.upstream.retry_hints import duration_s

# The prefix and suffix of each header that says how much is left; the limit and the reset differ in one word.
_SUFFIXES = ("-requests", "-tokens", "", "-requests-day", "-tokens-minute")
_KINDS = ("requests", "tokens", "input-tokens", "output-tokens")
NAMES = (
    *(f"x-ratelimit-remaining{suffix}" for suffix in _SUFFIXES),
    *(f"anthropic-ratelimit-{kind}-remaining" for kind in _KINDS),
)
# Values with more digits are plenty, by whether they count requests or tokens.
_FEW_REQUESTS_DIGITS = 2
_FEW_TOKENS_DIGITS = 5
_EPOCH_S = 1e9
_EPOCH_MS = 1e12
_MAX_RESET_S = 3600.0


@dataclass(slots=True)
class Quota:
    """What is left of one limit. `left` is reduced by what has been sent since.

    `unit_s` is how long one more takes to be free; 0: all are free again at `until`.
    """

    name: str
    counts_tokens: bool
    left: float
    limit: float
    seen_at: float
    until: float
    unit_s: float

    def wait_s(self, now: float, tokens: int) -> float:
        """Seconds before a request of `tokens` may be sent."""
        if now >= self.until:
            return 0.0
        needed = min(max(1, tokens) if self.counts_tokens else 1, self.limit)
        if needed <= self.left:
            return 0.0
        if not self.unit_s:
            return self.until - now
        return max(0.0, min(self.until, self.seen_at + (needed - self.left) * self.unit_s) - now)

    def spend(self, tokens: int) -> None:
        """A request of `tokens` is sent."""
        self.left -= tokens if self.counts_tokens else 1


def names_in(headers: Mapping[str, str]) -> tuple[str, ...]:
    """The headers that say how much is left."""
    return tuple(name for name in NAMES if name in headers)


def quotas(headers: Mapping[str, str], names: tuple[str, ...], now: float) -> Iterator[Quota]:
    """The limits of which little is left. `headers` have names in lower case; `now` is monotonic."""
    for name in names:
        text = headers.get(name, "")
        counts_tokens = "tokens" in name
        if not 0 < len(text) <= (_FEW_TOKENS_DIGITS if counts_tokens else _FEW_REQUESTS_DIGITS):
            continue
        if not (text.isascii() and text.isdigit()):
            continue
        left = int(text)
        limit = _number(headers.get(name.replace("remaining", "limit"), ""))
        reset = headers.get(name.replace("remaining", "reset"), "")
        reset_s, is_window = _reset_s(reset)
        if 0 < reset_s < math.inf:
            until = now + min(reset_s, _MAX_RESET_S)
            spent = limit - left
            unit_s = 0.0 if is_window or spent <= 0 else reset_s / spent
            yield Quota(name, counts_tokens, left, max(limit, 1.0), now, until, unit_s)


def _number(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0.0


def _reset_s(text: str) -> tuple[float, bool]:
    """Seconds until the reset, infinity if it cannot be read, and whether a window begins anew then."""
    try:
        number = float(text)
    except ValueError:
        pass
    else:
        if not number >= _EPOCH_S:
            return number, False
        return (number / 1000 if number >= _EPOCH_MS else number) - time.time(), True
    if (duration := duration_s(text)) is not None:
        return duration, False
    try:
        return datetime.fromisoformat(text).timestamp() - time.time(), False
    except (ValueError, OverflowError):
        return math.inf, False
