"""What a failure allows: asking the same target again, another one, or nobody. Decides, and does no I/O."""

from __future__ import annotations

import random
from typing import Literal

from sanic_proxy import errors

# again: the same target may do it. elsewhere: another key or target may. final: nobody should be asked.
RetryDecision = Literal["again", "elsewhere", "final"]

# A wait longer than this is not sat out: another target is asked, or the client is told.
MAX_WAIT_S = 5.0
FIRST_WAIT_S = 0.25
# Statuses after which nothing has been done, or after which the vendors ask for a repeat.
_AGAIN = frozenset({408, 409, 429})


def retry_decision(error: errors.ProxyError, *, may_repeat: bool = True) -> RetryDecision:
    """What `error` allows before a client has seen anything.

    A request that may have been worked on is repeated only if the provider said that it failed: a
    time-out or a cut says nothing, and the work may have been billed. Without `may_repeat` (what
    creates something) a 5xx is final as well.
    """
    if error.is_final:
        return "final"
    if isinstance(error, errors.UpstreamAuthFailed | errors.InsufficientQuota | errors.UpstreamTlsFailed):
        return "elsewhere"
    if isinstance(error, errors.UpstreamConnectFailed | errors.UpstreamConnectTimeout):
        return "again"
    status = error.upstream_status
    if status is None or (status >= 500 and not may_repeat):
        return "final"
    return "again" if status in _AGAIN or status >= 500 else "final"


def wait_before(error: errors.ProxyError, repeat: int) -> float | None:
    """Seconds before the `repeat`th repeat (from 1) on the same target; None: too long to sit out.

    The provider's own Retry-After, else exponential with full jitter, so that many do not come at once.
    """
    if error.retry_after_s is not None:
        return float(error.retry_after_s) if error.retry_after_s <= MAX_WAIT_S else None
    longest_s: float = FIRST_WAIT_S * 2 ** (repeat - 1)
    return longest_s * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


Blame = Literal["none", "target", "access", "key"]


def blame(error: errors.ProxyError) -> Blame:
    """What `error` says about who was asked: nothing bad, that the target fails, that its account or
    key may not do this, or that its key is refused altogether.

    A client's own mistake and a rate limit are answers of a service that works. A 402 or 403 may come
    from one odd request (flagged content, more tokens than credit), so it is not yet the key's end.
    """
    if not error.blames_target:
        return "none"
    if isinstance(error, errors.UpstreamAuthFailed):
        return "access" if error.upstream_status == 403 else "key"
    if isinstance(error, errors.InsufficientQuota):
        return "access"
    if isinstance(error, errors.RateLimited | errors.ClientError):
        return "none"
    return "target"
