"""What a failure means for the next attempt, for the target that was asked, and for the client. No I/O.

Three questions, three pure functions:

- `retry_decision`: may the request be repeated on this target, moved to another one, or neither?
- `blame`: what does the failure say about the target, its model and its key?
- `retry_after_s` and `may_succeed_soon`: when is it worth the client's while to send the request again?

A request is repeated on the same target only if the target certainly did not work on it, or reported
that it failed: a time-out or a cut says nothing, the work may still be going on and will be billed.
Moving to another target after such a failure is safe unless the request creates something.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Literal, NamedTuple

from sanic_proxy import errors
from sanic_proxy.config.targets import OnlyAfter

# repeat: send it again to the same target, else to the next. move: to the next key or target.
# other_model: to the next target with a larger context window. dedicated: to a target that is kept for this
# cause. final: the failure is the answer.
RetryDecision = Literal["repeat", "move", "other_model", "dedicated", "final"]

# A longer Retry-After is not waited for by the request itself: it moves on, or the client gets it.
MAX_WAIT_S = 5.0
FIRST_WAIT_S = 0.25
# A connection that closed without an answer after this time may have been worked on for just as long.
MAX_UNANSWERED_S = 5.0
# 408 and 409: nothing was done, or the vendors ask for a repeat.
_NOT_DONE = frozenset({408, 409})
# Retry-After where the provider gives none; agents space their repeats by it.
DEFAULT_RETRY_AFTER_S = 1
# `x-should-retry: false` is sent only if no repeat within this time can succeed.
SOON_S = 60
# Longer waits are not remembered, so that an absurd one does not outlive a change of plan.
MAX_NOT_BEFORE_S = 3600.0
# Of the 4xx, those that may be gone a moment later.
_PASSING = frozenset({408, 409, 423, 424, 425, 429, 498, 499})


def retry_decision(
    error: errors.ProxyError, *, may_repeat: bool = True, elapsed_s: float = 0.0
) -> RetryDecision:
    """What `error` allows before the client has seen anything of an answer.

    Without `may_repeat` (the request creates something) nothing that may have been worked on is sent
    again. `elapsed_s` is how long the attempt took.
    """
    if error.is_final:
        return "final"
    if isinstance(error, errors.ContextLengthExceeded):
        return "other_model"
    if isinstance(error, errors.ContentFiltered):
        return "dedicated"
    if is_foreign_content(error):
        return "move"
    if error.upstream_status in _NOT_DONE:
        return "repeat"
    if isinstance(error, errors.RateLimited):
        return _after_rate_limit(error)
    if isinstance(error, errors.UpstreamError):
        return _after_upstream_error(error, may_repeat=may_repeat, elapsed_s=elapsed_s)
    return "final"


def _after_upstream_error(
    error: errors.UpstreamError, *, may_repeat: bool, elapsed_s: float
) -> RetryDecision:
    if isinstance(error, errors.UpstreamAuthFailed | errors.UpstreamTlsFailed):
        return "move"
    if isinstance(error, errors.UpstreamConnectFailed | errors.UpstreamConnectTimeout):
        return "repeat"
    if not may_repeat:
        return "final"
    if isinstance(error, errors.UpstreamDisconnected):
        return _after_disconnect(error, elapsed_s)
    return "repeat" if (error.upstream_status or 0) >= 500 else "move"


def _after_rate_limit(error: errors.RateLimited) -> RetryDecision:
    # A request that exceeds the limit alone (413) does so after any wait; an empty account stays empty.
    is_lasting = isinstance(error, errors.InsufficientQuota) or error.upstream_status == 413
    return "move" if is_lasting else "repeat"


def _after_disconnect(error: errors.UpstreamDisconnected, elapsed_s: float) -> RetryDecision:
    if error.is_stale_connection or (error.is_new_connection and elapsed_s < MAX_UNANSWERED_S):
        return "repeat"
    return "move"


def wait_before(
    error: errors.ProxyError, repeat: int, random: Callable[[], float] = random.random
) -> float | None:
    """Seconds before the `repeat`th repeat (from 1) on the same target; None: too long to wait.

    The provider's own figure, else exponential backoff with jitter, so that clients do not repeat in
    step; `random` is from 0 to 1. A stale connection is replaced at once.
    """
    if is_stale(error):
        return 0.0
    if (wait_s := provider_wait_s(error)) is not None:
        return wait_s if wait_s <= MAX_WAIT_S else None
    longest_s: float = FIRST_WAIT_S * 2 ** (repeat - 1)
    return longest_s * (0.5 + 0.5 * random())


def is_stale(error: errors.ProxyError) -> bool:
    """Whether the request went out on an idle connection that the provider was closing at that moment."""
    return isinstance(error, errors.UpstreamDisconnected) and error.is_stale_connection


def provider_wait_s(error: errors.ProxyError) -> float | None:
    """How long the provider wants us to wait; None if it gave no figure."""
    if error.wait_s is not None:
        return max(0.0, error.wait_s)
    return None if error.retry_after_s is None else float(error.retry_after_s)


def is_rate_limit(error: errors.ProxyError) -> bool:
    """Whether all requests for the same key and model have to wait, not only this one."""
    return isinstance(error, errors.RateLimited) and _after_rate_limit(error) == "repeat"


def is_foreign_content(error: errors.ProxyError) -> bool:
    """Whether a target cannot decrypt the reasoning in a request, as another account has made it.

    OpenAI's code: https://github.com/openai/codex/issues/8145.
    """
    return error.code == "invalid_encrypted_content"


class ExceededWindows(NamedTuple):
    """What the context-length errors of one request have shown.

    `models` were too small, `window` is the largest known size among theirs, in tokens.
    """

    models: tuple[str, ...] = ()
    window: int | None = None

    def and_of(self, model: str, window: int | None) -> ExceededWindows:
        """After a context-length error of `model`, whose window is `window` if known."""
        known = [size for size in (self.window, window) if size is not None]
        return ExceededWindows((*self.models, model), max(known, default=None))


# yes: known to be larger than all that were too small. perhaps: not known to be smaller.
Fit = Literal["yes", "perhaps", "no"]


def fit(exceeded: ExceededWindows, model: str, window: int | None) -> Fit:
    """Whether the request may fit into `model`, whose context window is `window` if known.

    A model of unknown size is a guess, which is made once: a second provider that refuses the same prompt
    shows that it is too long for most.
    """
    if not exceeded.models:
        return "yes"
    if model in exceeded.models:
        return "no"
    if window is None or exceeded.window is None:
        return "perhaps" if len(exceeded.models) == 1 else "no"
    return "yes" if window > exceeded.window else "no"


def special_cause(error: errors.ProxyError) -> OnlyAfter:
    """The cause for which targets may be kept that serve nothing else; "" for any other."""
    if isinstance(error, errors.ContextLengthExceeded):
        return "context_length_exceeded"
    return "content_filter" if isinstance(error, errors.ContentFiltered) else ""


# none: the target works. unknown: the failure says nothing about it. target: it fails.
# access: its account or key may not do this. key: its key is invalid, whatever is asked of it.
Blame = Literal["none", "unknown", "target", "access", "key"]


def blame(error: errors.ProxyError) -> Blame:
    """What `error` says about the target that was asked.

    A client's mistake and a rate limit are answers of a service that works, and so is a model that does
    not exist. Only an error that says that the key itself is invalid speaks against the whole key: a
    403, or a 401 for a missing scope, concerns one model or endpoint, and a 402 or 403 may come from one
    odd request (flagged content, more tokens than there is credit for).
    """
    if is_stale(error) or isinstance(error, errors.CallerTimeout):
        return "unknown"
    if not error.blames_target:
        return "none"
    if isinstance(error, errors.UpstreamAccessDenied | errors.InsufficientQuota):
        return "access"
    if isinstance(error, errors.UpstreamAuthFailed):
        return "access" if error.upstream_status == 403 else "key"
    if isinstance(error, errors.RateLimited | errors.ClientError):
        return "none"
    if isinstance(error, errors.UpstreamRejected) and error.upstream_status in {404, 410}:
        return "none"
    return "target"


def retry_after_s(error: errors.ProxyError) -> int | None:
    """The Retry-After that goes to the client with `error`; None where a repeat does not help."""
    if isinstance(error, errors.InsufficientQuota):
        return max(error.least_retry_after_s, error.retry_after_s or 0)
    if error.retry_after_s is not None:
        return error.retry_after_s
    if not may_succeed_soon(error):
        return None
    wait_s = provider_wait_s(error)
    return DEFAULT_RETRY_AFTER_S if wait_s is None else max(1, math.ceil(wait_s))


def may_succeed_soon(error: errors.ProxyError) -> bool:
    """Whether the same request may succeed within the next minute: if not, clients should not repeat it."""
    if (provider_wait_s(error) or 0) > SOON_S:
        return False
    if error.retryable:
        return True
    return isinstance(error, errors.ClientError | errors.UpstreamRejected) and error.status in _PASSING
