"""Where a request may go, in order, and the account of one request's way. Decides, and does no I/O."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sanic_proxy import errors
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.routing.breaker import CircuitBreaker
from sanic_proxy.routing.policy import blame, retry_decision, wait_before

P = TypeVar("P")

_ODD = re.compile(r"[^A-Za-z0-9._:/@+-]")
MAX_LABEL_CHARS = 80


@dataclass(frozen=True, slots=True)
class Target(Generic[P]):
    """One provider with one of its keys, and its own name for the model.

    `key_health` is what all targets with that key share. `label` names it in headers and logs.
    """

    provider: P
    upstream_model: str
    label: str = ""
    health: CircuitBreaker = field(default_factory=CircuitBreaker, compare=False)
    key_health: CircuitBreaker = field(default_factory=CircuitBreaker, compare=False)


def label_for(provider: str, model: str, key_number: int) -> str:
    """A target's name, safe in a header whatever the client called the model."""
    key = f"#{key_number + 1}" if key_number else ""
    return f"{provider}{key}/{_ODD.sub('_', model)[:MAX_LABEL_CHARS]}" if model else f"{provider}{key}"


@dataclass(frozen=True, slots=True)
class Limits:
    """How often one request may be sent: `per_target` times to one of them, `in_all` times."""

    per_target: int = 2
    in_all: int = 4


class RetryState(Generic[P]):
    """One request's way through its targets: what is next, and what came of each.

    `next` and `record_failure` decide, the caller acts; each target that `next` gave is settled by one of
    `record_success`, `record_failure` and `release`. The way is kept in the record, for the header and the log.
    """

    __slots__ = (
        "_at",
        "_began",
        "_generations",
        "_index",
        "_last",
        "_limits",
        "_may_repeat",
        "_on_target",
        "_record",
        "_targets",
        "_total",
    )

    def __init__(
        self, targets: Sequence[Target[P]], limits: Limits, record: RequestRecord, *, may_repeat: bool = True
    ) -> None:
        self._targets = targets
        self._limits = limits
        self._record = record
        self._may_repeat = may_repeat
        self._index = 0
        self._on_target = 0
        self._total = 0
        self._began = 0.0
        self._at: Target[P] | None = None
        self._last: errors.ProxyError | None = None
        self._generations = (0, 0)

    def next(self) -> Target[P]:
        """The target to ask now. Raises why the last one is left alone, where all are."""
        refused: errors.ProxyError | None = None
        while self._index < len(self._targets):
            target = self._targets[self._index]
            now = time.monotonic()
            refused = _admitted(target, now)
            if refused is None:
                self._at = target
                self._generations = target.health.generation, target.key_health.generation
                self._began = now
                self._on_target += 1
                self._total += 1
                return target
            self._note(target, "circuit_open", None)
            self._go_on()
        # What a target has said is worth more than that another one is left alone.
        try:
            raise self._last or refused or errors.UpstreamUnavailable("There is no target left to ask")
        finally:
            # An error and the frame that raises it would keep the request until the collector runs.
            self._last = refused = None

    def record_success(self) -> None:
        """The target has given an answer, or the first of it."""
        target = self._at
        if target is not None:
            self._at = None
            target.health.record_success(self._generations[0])
            target.key_health.record_success(self._generations[1])
            self._note(target, "ok", self._began)

    def record_failure(self, error: errors.ProxyError) -> float | None:
        """The target has failed before the client has seen anything of its answer.

        Returns the seconds to wait before `next`; None where the failure is the answer.
        """
        target = self._at
        if target is None:
            return None
        self._at = None
        now = time.monotonic()
        self._note(target, _reason(error), self._began)
        _settle(target, error, now, self._generations)
        choice = retry_decision(error, may_repeat=self._may_repeat)
        if choice == "final" or self._total >= self._limits.in_all:
            return None
        self._last = error
        if choice == "again" and self._on_target < self._limits.per_target:
            wait_s = wait_before(error, self._on_target)
            if wait_s is not None and target.health.may_retry(now):
                return wait_s
        self._go_on()
        return 0.0 if self._index < len(self._targets) else None

    def record_stream_failure(self, error: errors.ProxyError) -> None:
        """An answer that had begun has failed: nothing is repeated, but it counts."""
        _settle(self._targets[self._index], error, time.monotonic(), self._generations)

    def release(self) -> None:
        """It is over. If a target has not been settled the client has left: it is neither well nor ill."""
        self._last = None
        target = self._at
        if target is not None:
            self._at = None
            target.health.release(self._generations[0])
            target.key_health.release(self._generations[1])
            self._note(target, "client_left", self._began)

    def _go_on(self) -> None:
        self._index += 1
        self._on_target = 0

    def _note(self, target: Target[P], said: str, began: float | None) -> None:
        took = "" if began is None else f" {1000 * (time.monotonic() - began):.0f}ms"
        way = self._record.route
        self._record.route = f"{way}, {target.label} {said}{took}" if way else f"{target.label} {said}{took}"


def _admitted(target: Target[P], now: float) -> errors.ProxyError | None:
    refused = target.key_health.admit(now)
    if refused is None:
        refused = target.health.admit(now)
        if refused is not None:
            target.key_health.release(target.key_health.generation)
    return refused


def _settle(target: Target[P], error: errors.ProxyError, now: float, generations: tuple[int, int]) -> None:
    said = blame(error)
    own, keys = generations
    if said == "none":
        target.health.record_success(own)
        target.key_health.record_success(keys)
    elif said == "key":
        target.health.release(own)
        target.key_health.record_failure(error, said, now, keys)
    else:
        target.health.record_failure(error, said, now, own)
        if said == "access":
            target.key_health.release(keys)
        else:
            target.key_health.record_success(keys)


def _reason(error: errors.ProxyError) -> str:
    """Why a target was left: its status, or what we call the failure."""
    return str(error.upstream_status or error.code or error.type)
