"""Where a request may go, in order, and the account of one request's attempts. Decides, and does no I/O."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sanic_proxy import errors
from sanic_proxy.config.model import NO_OPTIONS, RequestOptions
from sanic_proxy.config.saving import NO_SAVING, Continuation, StreamSaving
from sanic_proxy.config.targets import OnlyAfter
from sanic_proxy.governance.charge import Charge, Tariff
from sanic_proxy.json_types import JsonMapping
from sanic_proxy.observability.record import Attempt, Observer, RequestRecord
from sanic_proxy.routing.breaker import (
    PROVIDER_RETRIES,
    CircuitBreaker,
    RateLimit,
    RetryBudget,
    take_retry,
)
from sanic_proxy.routing.ejection import stays_in_use
from sanic_proxy.routing.engines import EngineQueue
from sanic_proxy.routing.hedging import Hedging
from sanic_proxy.routing.load import TargetLoad
from sanic_proxy.routing.policy import (
    ExceededWindows,
    Fit,
    blame,
    fit,
    is_foreign_content,
    is_rate_limit,
    is_stale,
    provider_wait_s,
    retry_decision,
    special_cause,
    wait_before,
)
from sanic_proxy.routing.statistics import TargetStatistics
from sanic_proxy.routing.switches import TargetSwitches
from sanic_proxy.routing.waiting import RequestQueue

P = TypeVar("P")

_ODD = re.compile(r"[^A-Za-z0-9._:/@+-]")
MAX_LABEL_CHARS = 80
BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Target(Generic[P]):
    """One provider with one of its keys, and its own name for the model.

    `health` is that of this model at one endpoint, `key_health` what all targets with the key share,
    `rate_limit` the key's for this model, `budget` the retries of the provider. `label` names the target in
    headers and logs. `first_content_s` is how long a stream may take to its first content while another
    target is left; 0: no limit. `options` say what is changed in its requests. `context_window` is in tokens;
    None: not known. A target with `only_after` is for requests that another one has refused for that cause.
    `load` counts and limits what is sent to it with any key, `statistics` are this key's, `queue` is
    what waits in the provider's engine. `saving` is what is done about streams that break off; `continues` is
    how the target is asked to continue one, None: as its provider. `hedging` decides about second attempts
    for the model's slow requests; None: there are none.
    In `request_queue` requests wait for the limits of the model's targets; None: they do not.
    `key_weight` is relative to the other keys of the provider. `switches` know whether an operator has
    switched the target off; None: nobody can. `tariff` has its prices.
    """

    provider: P
    upstream_model: str
    label: str = ""
    health: CircuitBreaker = field(default_factory=CircuitBreaker, compare=False)
    key_health: CircuitBreaker = field(default_factory=CircuitBreaker, compare=False)
    rate_limit: RateLimit = field(default_factory=RateLimit, compare=False)
    budget: RetryBudget = field(default_factory=lambda: RetryBudget(PROVIDER_RETRIES), compare=False)
    first_content_s: float = 0.0
    options: RequestOptions = NO_OPTIONS
    context_window: int | None = None
    only_after: OnlyAfter = ""
    load: TargetLoad | None = field(default=None, compare=False)
    statistics: TargetStatistics | None = field(default=None, compare=False)
    queue: EngineQueue | None = field(default=None, compare=False)
    saving: StreamSaving = NO_SAVING
    continues: Continuation | bool | None = None
    hedging: Hedging | None = field(default=None, compare=False)
    request_queue: RequestQueue | None = field(default=None, compare=False)
    key_weight: float = 1.0
    switches: TargetSwitches | None = field(default=None, compare=False)
    tariff: Tariff | None = field(default=None, compare=False)

    def begin(self, now: float, *, is_counted: bool = False) -> None:
        """A request is sent; `is_counted`: its load has been taken."""
        if self.load is not None and not is_counted:
            self.load.begin(now)
        if self.statistics is not None:
            self.statistics.begin()

    def end(self) -> None:
        """A request has ended without an answer."""
        if self.load is not None:
            self.load.end()
        if self.statistics is not None:
            self.statistics.end()

    def observe(self, record: RequestRecord) -> None:
        """An answer has ended (an observer of its record)."""
        if self.load is not None:
            self.load.observe(record)
        if self.statistics is not None:
            self.statistics.observe(record)

    @property
    def is_off(self) -> bool:
        """Whether an operator has switched it off."""
        return self.switches is not None and self.switches.is_off(self.label)

    def is_usable(self, now: float) -> bool:
        """Whether a request may be sent now, as far as circuits and rate limits go; a probe may."""
        if now < self.rate_limit.until or self.is_off:
            return False
        health, key_health = self.health, self.key_health
        if health.until is key_health.until is None:
            return True
        return health.is_usable(now) and key_health.is_usable(now)


def label_for(provider: str, model: str, key_number: int) -> str:
    """A target's name, safe in a header whatever the client called the model."""
    key = f"#{key_number + 1}" if key_number else ""
    return f"{provider}{key}/{_ODD.sub('_', model)[:MAX_LABEL_CHARS]}" if model else f"{provider}{key}"


@dataclass(frozen=True, slots=True)
class Limits:
    """How often one request may be sent: `per_target` times to one of them, `in_all` times."""

    per_target: int = 2
    in_all: int = 4


_NONE_EXCEEDED = ExceededWindows()


@dataclass(frozen=True, slots=True)
class _Beside(Generic[P]):
    """An attempt under way that is not the current one; the fields are those of `RetryState`."""

    target: Target[P]
    index: int
    attempts_on_target: int
    began: float
    generation: int
    key_generation: int


class RetryState(Generic[P]):
    """The attempts of one request: which target is next, and what came of each.

    `next` and `record_failure` decide, the caller acts; each target that `next` returned is settled by one
    of `record_success`, `record_failure` and `release`. Each attempt is appended
    to the record.

    `charge` is told how attempts have ended, and asked for money for those that begin here; None: nothing is
    charged.

    `hedge` begins a second attempt beside the current one. One of both is the current one at any time; the
    other is kept in `_beside`, until `record_lost` or `record_one_failure` has ended one of them.
    """

    __slots__ = (
        "_attempts",
        "_attempts_on_target",
        "_began",
        "_beside",
        "_cause",
        "_clock",
        "_denied",
        "_exceeded",
        "_generation",
        "_index",
        "_is_settled",
        "_key_generation",
        "_last",
        "_limits",
        "_may_repeat",
        "_random",
        "_record",
        "_resumed_at",
        "_sat_out",
        "_target",
        "_targets",
        "charge",
        "hold_s",
        "request_queue",
    )

    def __init__(
        self,
        targets: Sequence[Target[P]],
        limits: Limits,
        record: RequestRecord,
        may_repeat: bool = True,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.charge: Charge | None = None
        self._targets = targets
        self._limits = limits
        self._record = record
        self._may_repeat = may_repeat
        self._clock = clock
        self._random = random
        self._index = 0
        self._attempts = 0
        self._attempts_on_target = 0
        self._target: Target[P] | None = None  # the last one that `next` returned
        self._beside: _Beside[P] | None = None
        self._is_settled = True
        self._began = 0.0
        self._generation = self._key_generation = 0
        self._last: errors.ProxyError | None = None
        self._sat_out = 0.0  # the end of the rate limit that this request itself has met and waits for
        self._cause: OnlyAfter = ""  # the last one for which targets may be kept
        self._exceeded = _NONE_EXCEEDED
        self._resumed_at: int | None = None  # the characters that the client has, once a stream has failed
        self._denied: tuple[Target[P], ...] = ()  # passed over; tried if nothing else is usable
        # After `next` has raised a refusal: when the first limit of a target may be over; None if none is.
        self.hold_s: float | None = None
        # Where the request may wait for limits that keep it from all targets; None: nowhere.
        self.request_queue = targets[0].request_queue if targets else None

    @property
    def is_sent(self) -> bool:
        """Whether the request has been sent to a target: it does not wait for limits any more."""
        return self._attempts > 0

    @property
    def is_held(self) -> bool:
        """After `next` has raised a refusal: whether the request may wait until it is over."""
        return self.hold_s is not None and self.request_queue is not None and not self._attempts

    def rewind(self) -> None:
        """Begin again with the first target: the limits that held the request back may be over."""
        self._index = self._attempts_on_target = 0
        self._denied = ()
        attempts = self._record.attempts
        while attempts and attempts[-1].started is None:  # passed over
            attempts.pop()

    def limit_refusal(self, ahead: int) -> errors.RateLimited | None:
        """Why limits hold the request back from all its targets, if `ahead` others go first; None if not."""
        now = self._clock()
        suited = [target for target in self._targets if self._suits(target) and not target.is_off]
        soonest: errors.RateLimited | None = None
        for target in suited:
            refusal = self._limited(target, now, ahead // len(suited))
            if refusal is None:
                return None
            if soonest is None or (refusal.wait_s or 0) < (soonest.wait_s or 0):
                soonest = refusal
        return soonest

    def listen(self, listener: Callable[[], None]) -> None:
        """Have `listener` called whenever a request to one of the targets ends."""
        for target in self._targets:
            if target.load is not None:
                target.load.listeners.append(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        """The reverse of `listen`."""
        for target in self._targets:
            if target.load is not None:
                target.load.listeners.remove(listener)

    @property
    def targets(self) -> Sequence[Target[P]]:
        """Where the request may go, in order."""
        return self._targets

    def next(self) -> Target[P]:
        """The target to ask now. Raises the last failure, or why no target may be asked."""
        now = self._clock()
        refused: errors.ProxyError | None = None
        hold_s: float | None = None
        while self._index < len(self._targets):
            target = self._targets[self._index]
            if not (self._cause or target.only_after) or self._suits(target):
                refusal = self._refusal(target, now)
                if refusal is None:
                    return self._begin(target, now, True)
                refused = _sooner(refused, refusal)
                self._pass_over(target, refusal)
                if type(refusal) is errors.RateLimited and refusal.wait_s is not None:
                    hold_s = refusal.wait_s if hold_s is None else min(hold_s, refusal.wait_s)
            self._index += 1
            self._attempts_on_target = 0
        while self._denied:
            target, *rest = self._denied
            self._denied = tuple(rest)
            if self._suits(target) and _admit_as_last_resort(target, now):
                return self._begin(target, now)
        self.hold_s = hold_s if self._last is None else None
        # The answer of a target says more than that another one was not asked.
        try:
            raise self._last or refused or errors.UpstreamUnavailable("No target is available")
        finally:
            # An error and the frame that raises it would keep the request until the collector runs.
            self._last = refused = None

    def pass_by(self, error: errors.ProxyError) -> bool:
        """The target that `next` has returned cannot be paid. Whether there is another one to ask."""
        target = self._target
        if target is None or self._is_settled:
            return False
        self.release_probe()
        self._is_settled = True
        target.end()
        self._attempts -= 1
        self._record.attempts.append(Attempt(target.label, error.code or error.type))
        self._last = self._last or error
        self._index += 1
        self._attempts_on_target = 0
        return self._has_next()

    @property
    def first_content_s(self) -> float:
        """The limit for the first content of the target asked now; 0 where no other one could take over."""
        target = self._target
        if target is None or not target.first_content_s or not self._may_repeat:
            return 0.0
        others = self._targets[self._index + 1 :]
        if not others or self._attempts >= self._limits.in_all:
            return 0.0
        now = self._clock()
        could_take_over = any(self._suits(other) and _is_usable(other, now) for other in others)
        return target.first_content_s if could_take_over else 0.0

    def record_success(self) -> None:  # noqa: C901, PLR0912 - each request would pay for a call
        """The target has given an answer, or the first of it."""
        self._last = None
        target = self._target
        if target is not None and not self._is_settled:
            self._is_settled = True
            record = self._record
            now, client = self._clock(), record.client.id
            target.health.record_success(self._generation, now, client)
            if target.key_health.until is not None:
                target.key_health.record_success(self._key_generation, now, client)
            rate_limit = target.rate_limit
            if rate_limit.streak:
                rate_limit.record_success(now)
            if rate_limit.unread:
                rate_limit.unread -= 1
            elif (headers := record.upstream_headers) is not None:
                rate_limit.observe(headers, now)
            if target.statistics is not None:
                target.statistics.record_answer(now - self._began, record, now)
                self._leave_to_record(target.observe)
            elif (load := target.load) is not None:
                # What a whole answer has used is known now, and its target is done with it.
                if record.is_streaming or record.usage is None or record.observer is not None:
                    self._leave_to_record(load.observe)
                else:
                    load.record_answer(record.usage)
            # It is charged when the request ends.
            attempt = Attempt(target.label, "ok", None, self._began, now, self._resumed_at)
            if (session := record.session) is None:
                record.attempts.append(attempt)
            else:
                is_usual = session.is_proven and not record.attempts
                record.attempts.append(attempt)
                if not is_usual:
                    session.record_answer(record)

    def record_failure(self, error: errors.ProxyError) -> float | None:
        """The target has failed before the client has seen anything of its answer.

        Returns the seconds to wait before `next`; None where the failure is the answer.
        """
        target = self._target
        if target is None or self._is_settled:
            return None
        self._is_settled = True
        now = self._clock()
        self._note(target, error.code or error.type, now, error)
        self._settle(target, error, now)
        target.end()
        decision = retry_decision(error, may_repeat=self._may_repeat, elapsed_s=now - self._began)
        if decision == "final" or self._attempts >= self._limits.in_all:
            return None
        self._note_cause(target, error)
        if self._last is not None and is_foreign_content(error):
            # The target that could have answered has failed before: that is the answer, and may be over soon.
            self._move_on(target, error, now)
            return 0.0
        self._last = error
        if decision == "repeat" and (wait_s := self._wait_before_repeat(target, error, now)) is not None:
            return wait_s
        self._move_on(target, error, now)
        return 0.0 if self._has_next() else None

    def record_stream_failure(self, error: errors.ProxyError) -> None:
        """An answer that had begun has failed: nothing is repeated, but it counts."""
        if self._target is not None:
            self._settle(self._target, error, self._clock())

    def record_cut(
        self, error: errors.ProxyError, sent_chars: int, usage: JsonMapping | None = None
    ) -> float | None:
        """An answer that had begun has failed, and another attempt may bring the rest.

        `usage` is what it has reported of itself nevertheless.
        Returns the seconds to wait before `next`; None where the failure is the answer. The same target is
        asked again if no other one is left: what it has done on the answer so far is lost anyway.
        """
        target = self._target
        if target is None:
            return None
        now = self._clock()
        if self._record.observer is not None:
            self._record.observer(self._record)
            self._record.observer = None
        self._record.attempts.pop()  # it was "ok"
        self._note(target, error.code or error.type, now, error, usage)
        self._settle(target, error, now)
        self._resumed_at = sent_chars
        if retry_decision(error) not in {"repeat", "move"} or self._attempts >= self._limits.in_all:
            return None
        index, on_target = self._index, self._attempts_on_target
        self._move_on(target, error, now)
        if self._has_next():
            return 0.0
        self._index, self._attempts_on_target = index, on_target
        return self._wait_before_repeat(target, error, now)

    def record_refusal(self, error: errors.ProxyError) -> bool:
        """The target has rejected the form of a request. Whether it may be asked at once in another one."""
        target = self._target
        if target is None or self._is_settled:
            return False
        now = self._clock()
        self._note(target, error.code or error.type, now, error)
        self._settle(target, error, now)
        self._is_settled = True
        target.end()
        if self._attempts >= self._limits.in_all:
            return False
        if self.charge is not None and not self.charge.begins(target.tariff):
            return False
        self._begin(target, now)
        return True

    def hedge(self) -> Target[P] | None:
        """The target of a second attempt, which is now the current one; None where none can take it at once.

        A circuit that is not closed and a limit are no reasons to ask a target that nobody waits for.
        """
        current = self._current()
        if current is None or not self._may_repeat or self._attempts >= self._limits.in_all:
            return None
        now = self._clock()
        for index in range(self._index + 1, len(self._targets)):
            target = self._targets[index]
            is_suited = self._suits(target) and _is_usable(target, now)
            if is_suited and self._refusal(target, now) is None and self._is_paid(target):
                self._beside = current
                self._index, self._attempts_on_target = index, 0
                self._record.hedged_at = now
                return self._begin(target, now, is_counted=True)
        return None

    def _is_paid(self, target: Target[P]) -> bool:
        """Whether a second attempt can be paid at once; its load has been taken, and is released if not."""
        if self.charge is None or self.charge.begins(target.tariff):
            return True
        if target.load is not None:
            target.load.end()
        target.health.release(target.health.generation)
        target.key_health.release(target.key_health.generation)
        return False

    def record_lost(self, target: Target[P], usage: JsonMapping | None = None) -> None:
        """The attempt at `target` has been closed as the other one was faster, which proves nothing."""
        self._select(target)
        now = self._clock()
        self.release_probe()
        target.end()
        if target.statistics is not None:
            target.statistics.record_given_up(now - self._began, self._record, now)
        self._note(target, "hedge_lost", now, usage=usage)
        self._return_to_other()

    def record_one_failure(self, target: Target[P], error: errors.ProxyError) -> bool:
        """One of two attempts has failed. Whether the request goes on with the other one.

        If not, the failure is the answer, and it is the current attempt's, to be settled as any other. That
        a second target rejects a request says nothing as long as the first one works on it.
        """
        self._select(target)
        other, now = self._beside, self._clock()
        if other is None:
            return False
        is_second = other.index < self._index
        decision = retry_decision(error, may_repeat=self._may_repeat, elapsed_s=now - self._began)
        if not is_second and decision in {"final", "dedicated"}:
            return False
        self._note(target, error.code or error.type, now, error)
        self._settle(target, error, now)
        target.end()
        self._note_cause(target, error)
        self._last = error
        if is_second and decision != "repeat":
            self._targets = [*self._targets[: self._index], *self._targets[self._index + 1 :]]
        self._return_to_other()
        return True

    @property
    def is_probe(self) -> bool:
        """Whether the attempt under way probes an open circuit."""
        target = self._target
        return target is not None and (target.health.is_open or target.key_health.is_open)

    def release_probe(self) -> None:
        """The client is what is slow: the attempt must not keep others from probing the target."""
        if self._target is not None and not self._is_settled:
            self._target.health.release(self._generation)
            self._target.key_health.release(self._key_generation)

    def release(self) -> None:
        """The request is over. If a target has not been settled the client has left, which proves nothing."""
        self._last = None
        target = self._target
        if target is not None and not self._is_settled:
            self.release_probe()
            self._is_settled = True
            target.end()
            now = self._clock()
            if target.statistics is not None:
                target.statistics.record_given_up(now - self._began, self._record, now)
            self._note(target, "client_left", now)
        if self._beside is not None:
            self._return_to_other()
            self.release()

    def _current(self) -> _Beside[P] | None:
        """The current attempt, as it is kept while another one is; None if none is under way."""
        target = self._target
        if target is None or self._is_settled:
            return None
        return _Beside(
            target,
            self._index,
            self._attempts_on_target,
            self._began,
            self._generation,
            self._key_generation,
        )

    def _select(self, target: Target[P]) -> None:
        """Make the attempt at `target` the current one."""
        if self._beside is not None and self._beside.target is target:
            current = self._current()
            self._return_to_other()
            self._beside = current

    def _return_to_other(self) -> None:
        """Make the attempt that was kept the current one; none is kept then."""
        other = self._beside
        if other is not None:
            self._beside = None
            # Both attempts have written them: nobody knows whose they are, so no limit is read from them.
            self._record.upstream_headers = None
            self._target, self._is_settled = other.target, False
            self._index, self._attempts_on_target = other.index, other.attempts_on_target
            self._began = other.began
            self._generation, self._key_generation = other.generation, other.key_generation

    def _note_cause(self, target: Target[P], error: errors.ProxyError) -> None:
        if cause := special_cause(error):
            self._cause = cause
        if cause == "context_length_exceeded":
            self._exceeded = self._exceeded.and_of(target.upstream_model, target.context_window)

    def _leave_to_record(self, observer: Observer) -> None:
        """The answer has begun, and ends with the record. An earlier answer for the same request is over."""
        if self._record.observer is not None:
            self._record.observer(self._record)
        self._record.observer = observer

    def _suits(self, target: Target[P]) -> bool:
        """Whether the request may be sent to `target`, by what its failures so far have shown.

        A context window of unknown size is a guess, so it comes after those that are known to be larger.
        """
        if not self._cause:
            return not target.only_after
        suited = self._fit(target)
        return suited == "yes" or (
            suited == "perhaps" and not any(self._fit(other) == "yes" for other in self._rest())
        )

    def _fit(self, target: Target[P]) -> Fit:
        if target.only_after != self._cause and (target.only_after or self._cause == "content_filter"):
            return "no"
        found = fit(self._exceeded, target.upstream_model, target.context_window)
        return "yes" if target.only_after and found == "perhaps" else found

    def _rest(self) -> tuple[Target[P], ...]:
        return (*self._targets[self._index :], *self._denied)

    def _refusal(self, target: Target[P], now: float) -> errors.ProxyError | None:
        """Why `target` may not be asked now; None if it may: the request then counts in its load."""
        if target.switches is not None and target.is_off:
            return errors.TargetOff(f"The proxy's operator has switched {target.label} off")
        limit = target.rate_limit
        if now < limit.until and limit.until != self._sat_out:
            return limit.refusal(now, target.label)
        if limit.quotas and (spent := limit.quota_refusal(now, target.label, self._tokens)) is not None:
            return spent
        client, key_health = self._record.client.id, target.key_health
        if key_health.until is not None and (refusal := key_health.admit(now, client)) is not None:
            return refusal
        refusal = target.health.admit(now, client)
        if refusal is not None and self._stays_in_use(target):
            target.health.admit_anyway(now)
            refusal = None
        if refusal is None:
            if target.load is None or (refusal := target.load.take(now, target.label)) is None:
                return None
            target.health.release(target.health.generation)
        key_health.release(key_health.generation)
        return refusal

    def _limited(self, target: Target[P], now: float, ahead: int) -> errors.RateLimited | None:
        """The limit that keeps `target` from being asked; nothing is counted."""
        limit = target.rate_limit
        if now < limit.until:
            return limit.refusal(now, target.label)
        if limit.quotas and (spent := limit.quota_refusal(now, target.label, self._tokens)) is not None:
            return spent
        return None if target.load is None else target.load.refusal(now, target.label, ahead)

    @property
    def _tokens(self) -> int:
        """An estimate of the tokens of the request's input."""
        return self._record.input_bytes // BYTES_PER_TOKEN

    def _stays_in_use(self, target: Target[P]) -> bool:
        """Whether `target` is one of those that open circuits must leave to the model."""
        usual = [other for other in self._targets if not other.only_after and not other.is_off]
        if target.only_after:
            return False
        circuits = [(other.health, other.key_health) for other in usual]
        return stays_in_use(usual.index(target), circuits)

    def _begin(self, target: Target[P], now: float, is_counted: bool = False) -> Target[P]:
        target.budget.window.count_request(now)
        self._target = target
        self._is_settled = False
        self._generation, self._key_generation = target.health.generation, target.key_health.generation
        self._began = now
        record = self._record
        record.usage = None  # of the attempt before, if there was one
        if record.trace is not None:
            record.trace.begin_attempt(now)
        self._attempts += 1
        self._attempts_on_target += 1
        if target.statistics is not None or (target.load is not None and not is_counted):
            target.begin(now, is_counted=is_counted)
        if target.rate_limit.quotas:
            for quota in target.rate_limit.quotas:
                quota.spend(self._tokens)
        return target

    def _pass_over(self, target: Target[P], refusal: errors.ProxyError) -> None:
        is_limited = type(refusal) is errors.RateLimited
        is_off = isinstance(refusal, errors.TargetOff)
        outcome = "rate_limited" if is_limited else "off" if is_off else "circuit_open"
        self._record.attempts.append(Attempt(target.label, outcome))
        if not (is_limited or is_off) and (target.health.is_denied or target.key_health.is_denied):
            self._denied = (*self._denied, target)

    def _settle(self, target: Target[P], error: errors.ProxyError, now: float) -> None:
        client = self._record.client.id
        self._record.upstream_headers = None
        own, keys = self._generation, self._key_generation
        fault = blame(error)
        if is_rate_limit(error):
            target.rate_limit.limit(now, provider_wait_s(error))
        if target.statistics is not None:
            self._count_failure(target.statistics, error, now)
        if fault == "key":
            target.health.release(own)
            target.key_health.record_failure(error, fault, now, keys, client)
            return
        if fault in {"target", "access"}:
            target.health.record_failure(error, fault, now, own, client)
        elif fault == "none":
            target.health.record_alive(own, now)
        else:
            target.health.release(own)
        # Whatever the provider answered, it has accepted the key.
        if fault == "unknown" or (fault == "target" and error.upstream_status is None):
            target.key_health.release(keys)
        else:
            target.key_health.record_alive(keys, now)

    def _count_failure(self, statistics: TargetStatistics, error: errors.ProxyError, now: float) -> None:
        elapsed_s = now - self._began
        if blame(error) in {"target", "access", "key"} or is_rate_limit(error):
            statistics.record_failure(elapsed_s, self._record, now)
        elif isinstance(error, errors.CallerTimeout):
            statistics.record_given_up(elapsed_s, self._record, now)

    def _wait_before_repeat(self, target: Target[P], error: errors.ProxyError, now: float) -> float | None:
        """Seconds before `target` is asked again; None if it is not."""
        if self._attempts_on_target >= self._limits.per_target or target.health.is_open:
            return None
        wait_s = wait_before(error, self._attempts_on_target, self._random)
        if wait_s is None or not (is_stale(error) or take_retry(now, target.health.budget, target.budget)):
            return None
        self._sat_out = target.rate_limit.until
        return wait_s

    def _move_on(self, target: Target[P], error: errors.ProxyError, now: float) -> None:
        """Go to the next target. To a provider that fails, another of its keys is a repeat as well."""
        self._index += 1
        self._attempts_on_target = 0
        if blame(error) != "target":
            return
        while self._index < len(self._targets) and self._targets[self._index].budget is target.budget:
            if take_retry(now, target.budget):
                return
            self._index += 1

    def _has_next(self) -> bool:
        return any(self._suits(target) for target in self._rest())

    def _note(
        self,
        target: Target[P],
        outcome: str,
        ended: float,
        error: errors.ProxyError | None = None,
        usage: JsonMapping | None = None,
    ) -> None:
        status = None if error is None else error.upstream_status
        if error is not None:
            usage = usage or self._record.usage
        spent = 0 if self.charge is None else self.charge.end(target.tariff, outcome, error, usage)
        self._record.attempts.append(
            Attempt(target.label, outcome, status, self._began, ended, self._resumed_at, usage, spent)
        )


def _is_usable(target: Target[P], now: float) -> bool:
    is_open = target.health.is_open or target.key_health.is_open
    return not is_open and now >= target.rate_limit.until and not target.is_off


def _admit_as_last_resort(target: Target[P], now: float) -> bool:
    if now < target.rate_limit.until or not target.key_health.admit_as_last_resort(now):
        return False
    if target.health.admit_as_last_resort(now):
        return True
    target.key_health.release(target.key_health.generation)
    return False


def _sooner(first: errors.ProxyError | None, second: errors.ProxyError) -> errors.ProxyError:
    """Of two refusals the one that is over first."""
    if first is None or (second.retry_after_s or 0) < (first.retry_after_s or 0):
        return second
    return first
