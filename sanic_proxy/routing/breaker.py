"""What one worker knows of one target: a breaker and a retry budget. No I/O; times are handed in.

The state is the worker's own. With N workers an outage is met N times: at most N times the failures
that open a breaker, and N probes in each interval.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from sanic_proxy import errors
from sanic_proxy.routing.policy import Blame

# So many failures in a row open a breaker.
IN_A_ROW: Mapping[Blame, int] = {"target": 5, "access": 3, "key": 1}
WINDOW_S = 10
MIN_REQUESTS = 20  # in the window, before their share counts
MAX_FAILED_SHARE = 0.5
OPEN_S = 5.0
MAX_OPEN_S = 60.0
KEY_OPEN_S = 10.0
MAX_KEY_OPEN_S = 300.0
RETRY_SHARE = 0.2
ALWAYS_RETRIES = 3
MAX_TARGETS = 4096


class Window:
    """Counts of the last ten seconds, by the second. What is older falls out when it is looked at."""

    __slots__ = ("_at", "failures", "requests", "retries")

    def __init__(self) -> None:
        self._at = 0
        self.requests = [0] * WINDOW_S
        self.failures = [0] * WINDOW_S
        self.retries = [0] * WINDOW_S

    def slot(self, now: float) -> int:
        """The index of the second `now` is in, with all that is too old set to zero."""
        second = int(now)
        if second != self._at:
            for gone in range(max(self._at + 1, second - WINDOW_S + 1), second + 1):
                index = gone % WINDOW_S
                self.requests[index] = self.failures[index] = self.retries[index] = 0
            self._at = second
        return second % WINDOW_S


class CircuitBreaker:
    """One target's: whether it may be asked, and whether it may be asked again.

    Without `breaks` it may always be asked.
    """

    __slots__ = (
        "_breaks",
        "_consecutive",
        "_is_probing",
        "_open_s",
        "_opened_by",
        "_until",
        "_window",
        "generation",
    )

    def __init__(self, *, breaks: bool = True) -> None:
        self._breaks = breaks
        self._window = Window()
        self._consecutive = 0
        self._until: float | None = None  # while it is open, or half-open
        self._open_s = 0.0
        self._is_probing = False
        self._opened_by: tuple[type[errors.ProxyError], str] | None = None
        self.generation = 0

    @property
    def is_open(self) -> bool:
        """Whether it is left alone, but for a probe when its time is over."""
        return self._until is not None

    def admit(self, now: float) -> errors.ProxyError | None:
        """Let a request pass, or say why not. One that passes takes the `generation`, and is settled with it."""
        if self._until is not None:
            if now < self._until or self._is_probing:
                return self._refusal(now)
            self._is_probing = True
            self.generation += 1  # those that were under way before say nothing of the probe
        self._window.requests[self._window.slot(now)] += 1
        return None

    def record_success(self, generation: int) -> None:
        """The target has answered, be it that the client is wrong."""
        if self._consecutive:
            self._consecutive = 0
        if self._until is not None and self._is_probing and generation == self.generation:
            self._until = None
            self._is_probing = False
            self._open_s = 0.0
            self._opened_by = None

    def record_failure(self, error: errors.ProxyError, blame: Blame, now: float, generation: int) -> None:
        """The target has failed, or was refused. Nothing opens anew for what was under way when it opened."""
        slot = self._window.slot(now)
        self._window.failures[slot] += 1
        self._consecutive += 1
        if (
            not self._breaks
            or generation != self.generation
            or (self._until is not None and not self._is_probing)
        ):
            return
        if self._is_probing or self._consecutive >= IN_A_ROW[blame] or self._is_failing():
            first_s, most_s = (OPEN_S, MAX_OPEN_S) if blame == "target" else (KEY_OPEN_S, MAX_KEY_OPEN_S)
            self._open_s = min(most_s, max(first_s, 2 * self._open_s))
            self._until = now + self._open_s
            self._is_probing = False
            self.generation += 1
            # Not the error itself, whose traceback holds the request.
            self._opened_by = (type(error), error.message) if blame != "target" else None

    def release(self, generation: int) -> None:
        """Nothing was learned: the client left, or it was not the target's turn."""
        if generation == self.generation:
            self._is_probing = False

    def may_retry(self, now: float) -> bool:
        """Take one from the retry budget: a fifth of the last ten seconds' requests, but always three."""
        window = self._window
        slot = window.slot(now)
        if sum(window.retries) >= max(ALWAYS_RETRIES, RETRY_SHARE * sum(window.requests)):
            return False
        window.retries[slot] += 1
        return True

    def _is_failing(self) -> bool:
        requests = sum(self._window.requests)
        return requests >= MIN_REQUESTS and sum(self._window.failures) > MAX_FAILED_SHARE * requests

    def _refusal(self, now: float) -> errors.ProxyError:
        wait_s = max(1, round((self._until or now) - now))
        if self._opened_by is not None:
            kind, message = self._opened_by
            return kind(message)
        return errors.CircuitOpen(
            "The provider has failed repeatedly and is left alone for a moment", retry_after_s=min(60, wait_s)
        )


class BreakerRegistry:
    """The health of all targets that have been asked, by provider, key and model; the oldest go first."""

    def __init__(self, *, breaks: bool = True) -> None:
        self._breaks = breaks
        self._known: OrderedDict[tuple[str, int, str], CircuitBreaker] = OrderedDict()

    def of(self, provider: str, key_number: int, model: str) -> CircuitBreaker:
        """The health of one target; a new one is well."""
        name = (provider, key_number, model)
        health = self._known.get(name)
        if health is None:
            health = self._known[name] = CircuitBreaker(breaks=self._breaks)
            if len(self._known) > MAX_TARGETS:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(name)
        return health
