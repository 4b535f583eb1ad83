"""The refusals of limits and budgets, and the headers that tell clients how they stand. Pure.

The shapes are those that SDKs and agents act on at once (the dialects write their bodies):

| refusal | status and code | headers |
|---|---|---|
| budget used up | 429 (settable) `insufficient_quota` | `x-should-retry: false`, Retry-After over 60 |
| the rest is reserved by requests in flight | 429 `budget_reserved` | Retry-After 2 |
| rate | 429 `rate_limit_exceeded` | Retry-After, `retry-after-ms`; "Please try again in 1.2s" |

With the first, OpenAI's and Anthropic's SDKs, Codex and Claude Code give up after one request. Codex reads
the time to wait from the text of a rate limit, the SDKs from `retry-after-ms`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from functools import lru_cache

from sanic_proxy.config.rules import format_usd, iso_time
from sanic_proxy.errors import EMPTY_ACCOUNT_S, BudgetReserved, BudgetUsedUp, LimitReached
from sanic_proxy.governance.budgets import FOREVER, SESSION_COST, SESSION_REQUESTS, Charge
from sanic_proxy.governance.rates import RateRefusal, Standing

# How long reservations of other requests are in the way, at a guess: the median of an answer's duration.
RESERVED_RETRY_S = 2
# Agents wait for what is shorter than a minute, and then repeat the request.
MIN_SPENT_RETRY_S = 61
_WORDS = {
    "requests": "requests per minute",
    "tokens": "tokens per minute",
    "concurrent": "requests in flight",
}
Headers = list[tuple[str, str]]


def rate_limited(refused: RateRefusal, headers: Iterable[tuple[str, str]] = ()) -> LimitReached:
    """The error for a request that a rate does not admit."""
    wait_s = refused.wait_s
    return LimitReached(
        f"Rate limit of {refused.scope} reached: {refused.limit} {_WORDS[refused.kind]}. "
        f"Please try again in {max(0.1, math.ceil(wait_s * 10) / 10):g}s",
        retry_after_s=max(1, math.ceil(wait_s)),
        wait_s=wait_s,
        headers=[("retry-after-ms", str(math.ceil(wait_s * 1000))), *headers],
    )


def budget_used_up(charge: Charge, used: int, needed: int, *, now: float, status: int = 429) -> BudgetUsedUp:
    """The error for a request that does not fit into what is left, even if nothing else were in flight.

    `used` and `needed` are in the unit of the charge, `now` is in seconds since the epoch.
    """
    text = f"The {charge.describe()} is used up: {_used(charge, used)}"
    if used < charge.limit:
        left, limit = (format_usd(nano) for nano in (charge.limit - used, charge.limit))
        amount = f"{'may cost up to' if charge.is_strict else 'is estimated at'} {format_usd(needed)} USD"
        text = f"The {charge.describe()} has {left} of {limit} USD left, and this request {amount}"
    is_session = charge.counter.kind in {SESSION_COST, SESSION_REQUESTS}
    if charge.end == FOREVER:
        reset, wait_s = "Begin a new session" if is_session else "It does not reset", EMPTY_ACCOUNT_S
    else:
        wait_s = max(1, math.ceil(charge.end - now))
        reset = f"It resets in {duration(wait_s)}, at {iso_time(charge.end)}"
    return BudgetUsedUp(f"{text}. {reset}", retry_after_s=max(MIN_SPENT_RETRY_S, wait_s), status=status)


def budget_reserved(charge: Charge, used: int, reserved: int) -> BudgetReserved:
    """The error for a request that would fit, if those in flight cost less than they have reserved."""
    in_flight = f"{format_usd(reserved)} USD" if charge.is_money else str(reserved)
    return BudgetReserved(
        f"What is left of the {charge.describe()} is reserved by requests in flight: {_used(charge, used)}, "
        f"{in_flight} reserved. Please try again in {RESERVED_RETRY_S}s",
        retry_after_s=RESERVED_RETRY_S,
        wait_s=float(RESERVED_RETRY_S),
    )


def _used(charge: Charge, used: int) -> str:
    if charge.is_money:
        return f"{format_usd(used)} of {format_usd(charge.limit)} USD spent"
    return f"{used} of {charge.limit} requests made"


def limit_headers(requests: Standing | None, tokens: Standing | None, *, dialect: str, now: float) -> Headers:
    """The same as `limit_lines`, as names and values."""
    lines = limit_lines(requests, tokens, dialect=dialect, now=now).splitlines()
    return [(name, value) for name, _, value in (line.partition(": ") for line in lines)]


def limit_lines(requests: Standing | None, tokens: Standing | None, *, dialect: str, now: float) -> str:
    """The client's own limits in the form of its API: OpenAI's, or Anthropic's for Messages.

    Lines of a head, each with its end. `now` is the time of day, in seconds.
    https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers,
    https://platform.claude.com/docs/en/api/rate-limits#response-headers
    """
    lines = "" if requests is None else _limit_lines("requests", requests, dialect, now)
    return lines if tokens is None else lines + _limit_lines("tokens", tokens, dialect, now)


def _limit_lines(kind: str, standing: Standing, dialect: str, now: float) -> str:
    _, limit, remaining, reset_s = standing
    begin, middle = _limit_texts(kind, limit, dialect == "messages")
    if dialect == "messages":
        reset = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + math.ceil(reset_s)))
        return f"{begin}{remaining}{middle}{reset}\r\n"
    return f"{begin}{remaining}{middle}{duration(reset_s)}\r\n"


@lru_cache(maxsize=256)
def _limit_texts(kind: str, limit: int, is_messages: bool) -> tuple[str, str]:
    """What the lines have before what remains, and between that and the reset."""
    if is_messages:
        start = f"anthropic-ratelimit-{kind}"
        return f"{start}-limit: {limit}\r\n{start}-remaining: ", f"\r\n{start}-reset: "
    start = f"x-ratelimit-limit-{kind}: {limit}\r\n"
    return f"{start}x-ratelimit-remaining-{kind}: ", f"\r\nx-ratelimit-reset-{kind}: "


def duration(seconds: float) -> str:
    """As OpenAI writes it: `120ms`, `1.2s`, `6m0s`, `1h0m0s`."""
    if seconds <= 0.001:
        return "1ms" if seconds > 0 else "0ms"
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    if seconds < 60:
        return f"{math.ceil(seconds * 10) / 10:g}s"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"


UPSTREAM_PREFIX = "x-upstream-ratelimit-"
_PREFIX = "x-ratelimit-"


def renamed(headers: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """A provider's headers, with its rate limits under a name that clients do not take for their own."""
    for name, _ in headers:
        if name.startswith(_PREFIX):
            break
    else:
        return headers
    return [
        (UPSTREAM_PREFIX + name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else name, value)
        for name, value in headers
    ]
