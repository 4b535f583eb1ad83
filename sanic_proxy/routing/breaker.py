"""Circuit breakers, rate limits and retry budgets of the targets. No network I/O; times are handed in.

A circuit is closed, open or half-open. It opens after several failures in a row, or when most of the
requests of the last ten seconds have failed; while it is open, requests are refused without asking the
provider. After a pause it is half-open: one request at a time passes as a probe, one on the whole machine
(`probes`). A probe that succeeds closes the circuit, one that fails doubles the pause, up to 12 s, jitter
included.

Generations. Requests that were under way when a circuit opened end later, and most of them fail as
well: they must neither open it further nor close it. `generation` grows with each opening and each
probe; a request remembers the one it was admitted with, and results from before the last opening
(`_valid_from`) are ignored.

Permits. The probe holds a permit, which keeps others out. It comes back when the probe ends, after
five seconds (a provider that thinks for a minute must not keep everybody out for that long), or at once
if the probe's own client is what is slow. The result of the probe counts all the same.

One client among many. A prompt that makes a provider fail would let its sender close a target to everybody.
So the failures of a single client do not open a circuit while another client has had a success within
the window. An odd failure of somebody else does not change that: several clients fail if two have failed
twice in a row, or three once. A circuit that opened by the failures of a single client (no other was
active) refuses only that client, until another one has failed twice.

Denials. A provider that rejects a key, or says that it may not use a model, opens a circuit as well; but
the provider does not suffer from being asked. Where no other target is usable, such a circuit lets one
request a second through (`admit_as_last_resort`).

Ejection. A model that has several targets keeps at least half of them (`ejection`): as many as needed of the
circuits that opened last do not refuse (`admit_anyway`). The first success of such a request closes them.

The state is the worker's own but for probes: with N workers an outage is met at most N times by as many
failures as open a circuit.
"""

from __future__ import annotations

import logging
import math
import random
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from sanic_proxy import errors
from sanic_proxy.json_types import Json
from sanic_proxy.routing.policy import MAX_NOT_BEFORE_S, Blame
from sanic_proxy.routing.probes import ALIVE, Probes, probe_key
from sanic_proxy.routing.quota import Quota, names_in, quotas

logger = logging.getLogger(__name__)

# So many failures in a row open a circuit.
IN_A_ROW: Mapping[Blame, int] = {"target": 5, "access": 3, "key": 1}
WINDOW_S = 10
MIN_REQUESTS = 20  # in the window, before their share counts
MAX_FAILED_SHARE = 0.5
OPEN_S = 5.0
MAX_OPEN_S = 12.0
PAUSE_JITTER = 0.2  # a pause is shortened by up to this share of it
PERMIT_S = 5.0
LAST_RESORT_S = 1.0
# The pause after a rate limit for which the provider names no wait.
FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 12.0
RETRY_SHARE = 0.2
# After so many answers their headers are looked through again for those that tell what is left.
LOOK_AGAIN = 100
# In the window, whatever the number of requests.
TARGET_RETRIES = 3
PROVIDER_RETRIES = 10
MAX_TARGETS = 4096
MAX_CLIENTS = 16  # that a circuit remembers as failing
MAX_CAUSE_CHARS = 300


class LastError(NamedTuple):
    """The last failure as the operator reads it: status and code, the message, and its monotonic time."""

    code: str
    message: str
    at: float

    @property
    def text(self) -> str:
        """All in one text."""
        return self.code if self.message in self.code else f"{self.code}: {self.message}"

    def as_json(self, now: float) -> Json:
        """As an event has it."""
        return {"code": self.code, "message": self.message, "s_ago": round(now - self.at, 1)}


class Window:
    """Counts of the last ten seconds, by the second. Older counts are dropped on the next access."""

    __slots__ = ("_next_second", "_slot", "failures", "requests", "retries")

    def __init__(self) -> None:
        self._next_second = 1
        self._slot = 0
        self.requests = [0] * WINDOW_S
        self.failures = [0] * WINDOW_S
        self.retries = [0] * WINDOW_S

    def slot(self, now: float) -> int:
        """The index of the second `now` is in, with all that is too old set to zero."""
        if now >= self._next_second:
            self._advance(int(now))
        return self._slot

    def count_request(self, now: float) -> None:
        """Count a request, first attempts and retries alike."""
        if now >= self._next_second:
            self._advance(int(now))
        self.requests[self._slot] += 1

    def _advance(self, second: int) -> None:
        for gone in range(max(self._next_second, second - WINDOW_S + 1), second + 1):
            index = gone % WINDOW_S
            self.requests[index] = self.failures[index] = self.retries[index] = 0
        self._next_second = second + 1
        self._slot = second % WINDOW_S

    def forget_outcomes(self) -> None:
        """Start anew with requests and failures."""
        self.requests = [0] * WINDOW_S
        self.failures = [0] * WINDOW_S


class RetryBudget:
    """How many retries a target or provider gets: a fifth of the last ten seconds' requests, retries not
    counted, and always a few.
    """

    __slots__ = ("_floor", "window")

    def __init__(self, floor: int, window: Window | None = None) -> None:
        self._floor = floor
        self.window = window or Window()

    def has_room(self, now: float) -> bool:
        """Whether a retry is allowed."""
        window = self.window
        window.slot(now)
        retries = sum(window.retries)
        return retries < max(self._floor, RETRY_SHARE * (sum(window.requests) - retries))

    def take(self, now: float) -> None:
        """Count a retry."""
        window = self.window
        window.retries[window.slot(now)] += 1


def take_retry(now: float, *budgets: RetryBudget) -> bool:
    """Take one retry from each of `budgets`, if all of them have room."""
    if not all(budget.has_room(now) for budget in budgets):
        return False
    for budget in budgets:
        budget.take(now)
    return True


class RateLimit:
    """When a key may be used for a model again, by the provider's word or by backoff.

    `streak` is the number of backoffs since the last success, `quotas` what the last answers have said of
    limits that are nearly reached. `unread` is the number of answers that need not be observed.
    """

    __slots__ = ("_is_enabled", "_names", "_seen", "quotas", "streak", "unread", "until")

    def __init__(self, *, is_enabled: bool = True) -> None:
        self._is_enabled = is_enabled
        self.streak = 0
        self.until = 0.0
        self.quotas: tuple[Quota, ...] = ()
        self._names: tuple[str, ...] = ()
        self._seen = 0
        self.unread = 0

    def limit(self, now: float, wait_s: float | None) -> None:
        """Note a rate limit; `wait_s` is how long the provider wants us to wait, if it says so.

        A limit that is in force is not shortened: answers to earlier requests may come late.
        """
        if not self._is_enabled:
            return
        if wait_s is None:
            if now >= self.until:
                self.streak += 1
            wait_s = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(self.streak - 1, 10))
        self.until = max(self.until, now + min(wait_s, MAX_NOT_BEFORE_S))

    def record_success(self, now: float) -> None:
        """A request after the limit was served."""
        if self.streak and now >= self.until:
            self.streak = 0

    def refusal(self, now: float, label: str) -> errors.RateLimited:
        """The error for a request that comes too early."""
        wait_s = max(1, math.ceil(self.until - now))
        return errors.RateLimited(
            f"The rate limit of {label} is reached; retry in {wait_s} s",
            retry_after_s=wait_s,
            wait_s=self.until - now,
        )

    def described(self, now: float) -> Json:
        """As an operator reads it: the cool-down, and what is left of limits that are nearly reached."""
        return {
            "retry_in_s": round(self.until - now, 1) if now < self.until else None,
            "left": {
                quota.name: {
                    "left": max(0, int(quota.left)),
                    "limit": int(quota.limit),
                    "reset_in_s": round(quota.until - now, 1),
                }
                for quota in self.quotas
                if now < quota.until
            },
        }

    def observe(self, headers: Mapping[str, str], now: float) -> None:
        """Read what an answer says is left. Which headers a provider sends is looked up now and then."""
        if self._seen % LOOK_AGAIN == 0:
            self._names = names_in(headers) if self._is_enabled else ()
        self._seen += 1
        if self._names:
            self.quotas = tuple(quotas(headers, self._names, now))
        else:
            self.quotas = ()
            self.unread, self._seen = LOOK_AGAIN - 1, 0

    def quota_refusal(self, now: float, label: str, tokens: int) -> errors.RateLimited | None:
        """The error for a request of `tokens` that would find nothing left; None if enough is left."""
        wait_s = max((quota.wait_s(now, tokens) for quota in self.quotas), default=0.0)
        if wait_s <= 0:
            return None
        seconds = max(1, math.ceil(wait_s))
        return errors.RateLimited(
            f"Nothing is left of the rate limit of {label}; retry in {seconds} s",
            retry_after_s=seconds,
            wait_s=wait_s,
        )


class RecentClients:
    """The client that was noted last, and the last one different from it, with the times."""

    __slots__ = ("_at", "_client", "_other_at")

    def __init__(self) -> None:
        self._client: str | None = None
        self._at = self._other_at = -math.inf

    def note(self, client: str, now: float) -> None:
        if client != self._client:
            self._other_at = self._at
            self._client = client
        self._at = now

    def has_other(self, client: str, since: float) -> bool:
        """Whether a client other than `client` was noted at `since` or later."""
        at = self._other_at if client == self._client else self._at
        return at >= since


class FailingClients:
    """The clients whose last request failed, how often in a row, and when. The number of them is bounded."""

    __slots__ = ("runs",)

    def __init__(self) -> None:
        self.runs: dict[str, tuple[int, float]] = {}

    def note(self, client: str, now: float) -> int:
        """Note a failure of `client`. Returns how often it has failed in a row."""
        count = self.runs.pop(client, (0, 0.0))[0] + 1
        self.runs[client] = (count, now)
        if len(self.runs) > MAX_CLIENTS:
            del self.runs[next(iter(self.runs))]
        return count

    def remove(self, client: str) -> None:
        """`client` has been served."""
        self.runs.pop(client, None)

    def has_other(self, client: str, since: float) -> bool:
        """Whether a client other than `client` has failed at `since` or later."""
        return any(at >= since for name, (_, at) in self.runs.items() if name != client)

    def are_several(self, since: float) -> bool:
        """Whether the failures at `since` or later are not those of a single client."""
        counts = [count for count, at in self.runs.values() if at >= since]
        return len(counts) > 2 or sum(count > 1 for count in counts) > 1


class CircuitBreaker:
    """The circuit of one target, or of a key: whether a request may be sent, and what came of it.

    `label` names it to clients, `log_label` to the operator. If it is not enabled, it never opens.
    """

    __slots__ = (
        "_busy_until",
        "_denials",
        "_failing_clients",
        "_failures",
        "_is_enabled",
        "_is_shared",
        "_jitter",
        "_log_label",
        "_lone_client",
        "_opened_by",
        "_pause_s",
        "_permit",
        "_permit_until",
        "_probe_key",
        "_probes",
        "_reason",
        "_redact",
        "_refused_as",
        "_run_client",
        "_served_clients",
        "_valid_from",
        "_window",
        "budget",
        "generation",
        "label",
        "last_error",
        "opened_at",
        "until",
    )

    def __init__(  # noqa: PLR0913 - each is said once, by the registry
        self,
        label: str = "",
        log_label: str = "",
        *,
        is_enabled: bool = True,
        jitter: Callable[[], float] = random.random,
        redact: Callable[[str], str] = str,
        probes: Probes | None = None,
        probe_key: int = 0,
    ) -> None:
        self.label = label
        self._log_label = log_label or label
        self._is_enabled = is_enabled
        self._jitter = jitter
        self._redact = redact
        self._probes = probes
        self._probe_key = probe_key
        self._window = Window()
        self.budget = RetryBudget(TARGET_RETRIES, self._window)
        self.generation = 0
        self._valid_from = 0
        # The failures in a row, how many of the last were denials, and whose they are.
        self._failures = 0
        self._denials = 0
        self._run_client: str | None = None
        self._is_shared = False
        self._failing_clients = FailingClients()
        self._served_clients = RecentClients()
        # While it is open or half-open; until when it is open:
        self.until: float | None = None
        self._pause_s = 0.0
        self._permit = 0  # the generation of the probe that holds it; 0: free
        self._permit_until = 0.0
        self._busy_until = 0.0  # when another worker's probe, or its pause, ends
        self._lone_client: str | None = None
        self.opened_at = 0.0
        self.last_error: LastError | None = None
        self._opened_by: Blame = "none"
        self._refused_as: type[errors.ProxyError] = errors.CircuitOpen
        self._reason = ""

    @property
    def is_open(self) -> bool:
        """Whether requests are refused, but for probes."""
        return self.until is not None

    @property
    def is_denied(self) -> bool:
        """Whether it is open because the provider rejects the key or denies access."""
        return self.until is not None and self._opened_by != "target"

    def is_usable(self, now: float) -> bool:
        """Whether a request may be sent: the circuit is closed, or nobody is known to be probing it."""
        if self.until is None:
            return True
        return now >= self.until and now >= self._busy_until and not self._has_probe(now)

    def described(self, now: float) -> Json:
        """As an operator reads it: whether it is open and until when, and the last failure."""
        last = self.last_error
        return {
            "state": "closed" if self.until is None else "open" if now < self.until else "half_open",
            "reason": self._reason if self.until is not None else None,
            "retry_in_s": None if self.until is None else round(max(0.0, self.until - now), 1),
            "last_error": None if last is None else last.text,
            "last_code": None if last is None else last.code,
            "last_message": None if last is None else last.message,
            "last_error_s_ago": None if last is None else round(now - last.at, 1),
        }

    def admit(self, now: float, client: str = "") -> errors.ProxyError | None:
        """Let a request of `client` pass, or return why not. One that passes remembers `generation`."""
        if self.until is not None and not self._may_pass(now, client):
            return self._refusal(now)
        self._window.count_request(now)
        return None

    def admit_as_last_resort(self, now: float) -> bool:
        """Let a request pass where no other target is usable: a denial may be over at any time.

        One at a time on the machine, and a second apart.
        """
        if self.until is None:
            return self.admit(now) is None
        since_failure_s = now - (self.until - self._pause_s)
        if not self.is_denied or self._has_probe(now) or since_failure_s < LAST_RESORT_S:
            return False
        if not self._may_probe(now, LAST_RESORT_S):
            return False
        self._window.count_request(now)
        return True

    def admit_anyway(self, now: float) -> None:
        """Let a request pass an open circuit."""
        self._window.count_request(now)

    def record_success(self, generation: int, now: float, client: str = "") -> None:
        """The target has served a request of `client`."""
        self._served_clients.note(client, now)
        if self._failing_clients.runs:
            self._failing_clients.remove(client)
        if self._failures or self.until is not None:
            self.record_alive(generation, now)

    def record_alive(self, generation: int, now: float) -> None:
        """The target has answered, though not with a success: the client's request was wrong, say."""
        if generation < self._valid_from:
            return
        if self._failures:
            self._failures = self._denials = 0
        if self.until is not None:
            if self._probes is not None:
                self._probes.end(self._probe_key, now, has_answered=True)
            self._close(now)

    def record_failure(
        self, error: errors.ProxyError, blame: Blame, now: float, generation: int, client: str = ""
    ) -> None:
        """The target has failed a request of `client`, or has denied it access."""
        if generation < self._valid_from or not self._is_enabled:
            return
        message = self._redact(error.log_text or error.message)[:MAX_CAUSE_CHARS]
        self.last_error = LastError(self._redact(_cause(error)), message, now)
        self._window.failures[self._window.slot(now)] += 1
        self._count_in_a_row(blame, client)
        failures_of_client = self._failing_clients.note(client, now)
        if self.until is None:
            if (reason := self._reason_to_open(blame, now, client)) is not None:
                self._reason = reason
                self._open(error, blame, now)
        elif self._lone_client in {None, client}:
            self._open(error, blame, now)
        elif failures_of_client > 1:
            self._close_to_all(now)

    def release(self, generation: int) -> None:
        """End a probe that has learned nothing (the client left), or whose client is what is slow."""
        if generation == self._permit:
            self._permit = 0
            if self._probes is not None:
                self._probes.end(self._probe_key, self._permit_until - PERMIT_S)

    def _count_in_a_row(self, blame: Blame, client: str) -> None:
        if self._failures == 0:
            self._run_client, self._is_shared = client, False
        elif client != self._run_client:
            self._is_shared = True
        self._failures += 1
        self._denials = 0 if blame == "target" else self._denials + 1

    def _reason_to_open(self, blame: Blame, now: float, client: str) -> str | None:
        since = now - WINDOW_S
        if self._served_clients.has_other(client, since) and not self._failing_clients.are_several(since):
            return None
        in_a_row = self._failures if blame == "target" else self._denials
        if in_a_row >= IN_A_ROW[blame]:
            self._lone_client = None if self._is_shared else client
            return _in_a_row(blame, in_a_row)
        requests, failures = sum(self._window.requests), sum(self._window.failures)
        if requests >= MIN_REQUESTS and failures > MAX_FAILED_SHARE * requests:
            self._lone_client = None if self._failing_clients.has_other(client, since) else client
            return f"failed {failures} of {requests} requests within {WINDOW_S} s"
        return None

    def _may_pass(self, now: float, client: str) -> bool:
        if self._lone_client is not None and client != self._lone_client:
            return True
        if self.until is None or now < self.until or self._has_probe(now):
            return False
        return self._may_probe(now)

    def _may_probe(self, now: float, pause_s: float | None = None) -> bool:
        """Take the permit for a probe, if no other worker has it."""
        if self._probes is not None:
            failed_at = (self.until or now) - self._pause_s
            answer = self._probes.take(self._probe_key, now, PERMIT_S, failed_at, pause_s=pause_s)
            if answer == ALIVE:
                self._close(now)
                return True
            if answer:
                self._busy_until = answer
                return False
        self.generation += 1
        self._permit = self.generation
        self._permit_until = now + PERMIT_S
        return True

    def _has_probe(self, now: float) -> bool:
        return bool(self._permit) and now < self._permit_until

    def _open(self, error: errors.ProxyError, blame: Blame, now: float) -> None:
        was_open = self.until is not None
        pause_s = min(MAX_OPEN_S, max(OPEN_S, 2 * self._pause_s))
        self._pause_s = pause_s * (1 - PAUSE_JITTER * self._jitter())
        self.until = now + self._pause_s
        self._permit = 0
        self._opened_by = blame
        # Not the error itself, whose traceback holds the request; nor its text, which is another client's.
        self._refused_as = _refusal_class(error)
        if was_open:
            if self._probes is not None:
                self._probes.end(self._probe_key, now, not_before=self.until)
            return
        self.generation += 1
        self._valid_from = self.generation
        self.opened_at = now
        logger.warning(
            "%s: %s %s (last: %s); next attempt in %.1f s",
            "API key rejected" if blame == "key" else "circuit opened",
            self._log_label,
            self._reason,
            self._redact(_cause(error)),
            self._pause_s,
        )

    def _close_to_all(self, now: float) -> None:
        """Another client fails as well: refuse all. Its other requests under way say nothing more."""
        self._lone_client = None
        self.until = now + self._pause_s
        self._permit = 0
        self.generation += 1
        self._valid_from = self.generation

    def _close(self, now: float) -> None:
        logger.warning(
            "%s: %s answers again after %.1f s",
            "API key accepted" if self._opened_by == "key" else "circuit closed",
            self._log_label,
            now - self.opened_at,
        )
        self.until = self._lone_client = None
        self._permit = 0
        self._pause_s = 0.0
        self._window.forget_outcomes()

    def _refusal(self, now: float) -> errors.ProxyError:
        until = max(self.until or now, self._busy_until)
        if self._has_probe(now):
            until = max(until, self._permit_until)
        wait_s = max(1, math.ceil(until - now))
        text = f"Circuit open: {self.label or 'the provider'} {self._reason}; retry in {wait_s} s"
        if self._opened_by != "target":
            text += ". Contact the proxy's operator if this continues"
        return self._refused_as(text, retry_after_s=wait_s)


def _in_a_row(blame: Blame, count: int) -> str:
    if blame == "key":
        return "rejected the proxy's API key"
    verb = "failed" if blame == "target" else "denied access"
    return f"{verb} {count} times in a row"


def _refusal_class(error: errors.ProxyError) -> type[errors.ProxyError]:
    for kind in (errors.InsufficientQuota, errors.UpstreamAccessDenied, errors.UpstreamAuthFailed):
        if isinstance(error, kind):
            return kind
    return errors.CircuitOpen


def _cause(error: errors.ProxyError) -> str:
    """What the operator reads. The provider's sentence only where it concerns the account: else it may
    repeat what a client wrote.
    """
    code = error.code or error.type
    cause = f"{error.upstream_status} {code}" if error.upstream_status else code
    if isinstance(error, errors.UpstreamAuthFailed | errors.InsufficientQuota):
        cause = f"{cause}: {error.log_text or error.message}"
    return cause[:MAX_CAUSE_CHARS]


K = TypeVar("K")
S = TypeVar("S")


class BreakerRegistry:
    """What is known of all targets: their circuits, rate limits and retry budgets.

    Circuits are kept by provider, key, model and endpoint, rate limits by provider, key and model. As
    clients choose the names of models, the entries that were looked up least recently are forgotten.
    `key_hints` are the last characters of each provider's keys. The pauses of circuits vary by `random`.
    """

    def __init__(
        self,
        *,
        is_enabled: bool = True,
        key_hints: Mapping[str, Sequence[str]] | None = None,
        redact: Callable[[str], str] = str,
        probes: Probes | None = None,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._is_enabled = is_enabled
        self._random = random
        self._key_hints = key_hints or {}
        self._redact = redact
        self._probes = probes
        self._targets: OrderedDict[tuple[str, int, str, str], CircuitBreaker] = OrderedDict()
        self._limits: OrderedDict[tuple[str, int, str], RateLimit] = OrderedDict()
        self._keys: dict[tuple[str, int], CircuitBreaker] = {}
        self._budgets: dict[str, RetryBudget] = {}

    def target(self, provider: str, key_number: int, model: str, endpoint: str, label: str) -> CircuitBreaker:
        """The circuit of one target at one endpoint."""
        name = (provider, key_number, model, endpoint)
        return recent(
            self._targets, name, lambda: self._breaker(provider, key_number, label, endpoint, model)
        )

    def key(self, provider: str, key_number: int, label: str) -> CircuitBreaker:
        """The circuit that all targets with one key share."""
        name = (provider, key_number)
        if name not in self._keys:
            self._keys[name] = self._breaker(provider, key_number, label)
        return self._keys[name]

    def rate_limit(self, provider: str, key_number: int, model: str) -> RateLimit:
        """The rate limit of one key for one model, whatever the endpoint."""
        return recent(
            self._limits, (provider, key_number, model), lambda: RateLimit(is_enabled=self._is_enabled)
        )

    def described(self, name: tuple[str, int, str, str], now: float) -> Json:
        """The circuits and the rate limit of one target, as `/admin/targets` shows them."""
        provider, key_number, model, _ = name
        health, key = self._targets.get(name), self._keys.get((provider, key_number))
        limit = self._limits.get((provider, key_number, model))
        return {
            "circuit": None if health is None else health.described(now),
            "key_circuit": None if key is None else key.described(now),
            "rate_limit": None if limit is None else limit.described(now),
        }

    def budget(self, provider: str) -> RetryBudget:
        """The retry budget of all of one provider's targets together."""
        return self._budgets.setdefault(provider, RetryBudget(PROVIDER_RETRIES))

    def open_circuits(self) -> dict[str, LastError | None]:
        """The labels of the targets and keys whose circuit is open, with the last error of each."""
        breakers = (*self._targets.values(), *self._keys.values())
        return {breaker.label: breaker.last_error for breaker in breakers if breaker.is_open}

    def _breaker(
        self, provider: str, key_number: int, label: str, endpoint: str = "", model: str = ""
    ) -> CircuitBreaker:
        hints = self._key_hints.get(provider, ())
        hint = f", key ...{hints[key_number]}," if key_number < len(hints) and hints[key_number] else ""
        log_label = f"{label} {endpoint}".rstrip() + hint
        return CircuitBreaker(
            label,
            log_label,
            is_enabled=self._is_enabled,
            jitter=self._random,
            redact=self._redact,
            probes=self._probes,
            probe_key=probe_key(provider, key_number, model, endpoint),
        )


def recent(known: OrderedDict[K, S], name: K, make: Callable[[], S]) -> S:
    """The entry `name`, made if it is new; the entries that were used least recently make room."""
    entry = known.get(name)
    if entry is None:
        entry = known[name] = make()
        if len(known) > MAX_TARGETS:
            known.popitem(last=False)
    else:
        known.move_to_end(name)
    return entry
