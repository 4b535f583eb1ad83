"""Counts requests when they have ended. An observer of their records.

A request costs one look-up, by what is the same in many requests (dialect, model, target, client and end),
and one row of what is not (times, tokens, money). Rows are added up together, as columns: that costs a third
of adding up each by itself. Once a second `flush` adds the sums to the series, of which there are many more,
in the memory that the workers share. So a worker that is killed loses the counts of a second at most. Nothing
is done per frame: a stream's own clocks give the longest gap.

Text of clients becomes no label. A model's name is one if it is configured or if a provider has answered it;
errors are named by the codes that the proxy itself gives them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import sub
from typing import Any, NamedTuple

from sanic_proxy import errors
from sanic_proxy.metrics import families as f
from sanic_proxy.metrics.recent import RecentCounts
from sanic_proxy.metrics.series import OTHER, Adder, LocalHistogram, SeriesRegistry
from sanic_proxy.observability.record import Attempt, RequestRecord

MAX_SETS = 4096
# Kinds of requests that one turn of the event loop adds up; each has some 15 series.
FLUSHED = 20
# Rows of one kind that are kept: a millisecond's work.
MAX_ROWS = 500
MAX_MODELS = 200
MAX_CLIENTS = 200
MAX_LABEL_CHARS = 128
MAX_TOKENS = 10**10
# Codes that errors get where they are raised, in place of that of their class.
_OWN_CODES = frozenset(
    {
        "bad_request",
        "csrf_denied",
        "expectation_failed",
        "item_not_found",
        "method_not_allowed",
        "not_implemented",
        "previous_response_not_found",
        "provider_not_found",
        "request_timeout",
        "response_not_found",
        "server_timeout",
        "session_needed",
        "unsupported_parameters",
        "upstream_empty_response",
    }
)
# Ends and outcomes that are no error's code.
_ENDS = frozenset(
    {
        "ok",
        "client_left",
        "client_stalled",
        "cancelled",
        "circuit_open",
        "rate_limited",
        "hedge_lost",
        "model_error",
        "not_stored",
        "off",
        "server_error",
    }
)
# Why a request is refused before it is sent to a target: the kind by the error's code.
REFUSALS: Mapping[str, str] = {
    "rate_limit_exceeded": "rate",
    "insufficient_quota": "budget",
    "budget_reserved": "budget",
    "price_unknown": "budget",
    "invalid_api_key": "key",
    "key_expired": "key",
    "key_blocked": "key",
    "model_not_allowed": "access",
    "endpoint_not_allowed": "access",
    "origin_denied": "access",
    "host_denied": "access",
    "server_overloaded": "capacity",
}


def _codes(kind: type[errors.ProxyError]) -> Iterable[str]:
    for name in (kind.code, kind.type):
        if isinstance(name, str):
            yield name
    for below in kind.__subclasses__():
        yield from _codes(below)


KNOWN_OUTCOMES = _ENDS | _OWN_CODES | frozenset(REFUSALS) | frozenset(_codes(errors.ProxyError))


class _Kind(NamedTuple):
    """What is the same in many requests. `outcome` is that of the attempt, if there was one alone."""

    dialect: str
    model: str | None
    ended: str
    client: str
    is_streaming: bool
    target: str
    outcome: str


# What is not is a row of numbers alone, so that nothing is kept which the garbage collector has to look at.
_ROW = 13
MAX_VALUES = MAX_ROWS * _ROW
_NO_ATTEMPT = Attempt("", "")


class _Counts:
    """What has been counted of one kind of request since the last `flush`."""

    __slots__ = (
        "attempt",
        "cached",
        "dropped_frames",
        "duration",
        "first_content",
        "input",
        "input_tokens",
        "longest_gap",
        "nano",
        "output",
        "output_tokens",
        "overhead",
        "reasoning",
        "requests",
        "token_rate",
        "token_time",
        "unpriced",
        "values",
        "wait",
    )

    def __init__(self) -> None:
        # Rows of `_ROW` numbers, one behind the other.
        self.values: list[Any] = []
        self.requests = self.input = self.output = self.cached = self.reasoning = 0
        self.dropped_frames = self.nano = self.unpriced = 0
        self.duration, self.attempt = LocalHistogram(f.SECONDS), LocalHistogram(f.SECONDS)
        self.overhead, self.wait = LocalHistogram(f.SHORT_SECONDS), LocalHistogram(f.SECONDS)
        self.first_content, self.longest_gap = LocalHistogram(f.SECONDS), LocalHistogram(f.SECONDS)
        self.token_time, self.token_rate = LocalHistogram(f.TOKEN_SECONDS), LocalHistogram(f.PER_SECOND)
        self.input_tokens = LocalHistogram(f.TOKEN_COUNTS)
        self.output_tokens = LocalHistogram(f.TOKEN_COUNTS)

    def add_up(self, kind: _Kind) -> None:
        """Add the rows to the sums."""
        values = self.values
        if not values:
            return
        self.values = []
        columns = [values[place::_ROW] for place in range(_ROW)]
        started, finished, waited, gaps, dropped, nano, unpriced = columns[:7]
        begun, content, prompt, completion, cached, reasoning = columns[7:]
        durations = list(map(sub, finished, started))
        self.requests += len(durations)
        self.duration.observe_all(durations)
        self.dropped_frames += sum(dropped)
        self.nano += sum(nano)
        self.unpriced += sum(unpriced)
        if any(waited):
            self.wait.observe_all([seconds for seconds in waited if seconds])
        if any(prompt) or any(completion):
            asked_for, made = _counted(prompt), _counted(completion)
            self.input_tokens.observe_all(asked_for)
            self.output_tokens.observe_all(made)
            self.input += sum(asked_for)
            self.output += sum(made)
        if any(cached):
            self.cached += sum(_counted(cached))
        if any(reasoning):
            self.reasoning += sum(_counted(reasoning))
        if not kind.target:
            return
        if None in begun or None in content:
            places = [at for at, pair in enumerate(zip(begun, content, strict=True)) if None not in pair]
            chosen = (begun, content, started, durations, waited, gaps, completion)
            begun, content, started, durations, waited, gaps, completion = (
                [column[at] for at in places] for column in chosen
            )
        asked = list(map(sub, content, begun))
        until = list(map(sub, content, started)) if kind.is_streaming else durations
        self.overhead.observe_all(list(map(sub, map(sub, until, asked), waited)))
        if kind.outcome:
            self.attempt.observe_all(asked)
        if kind.is_streaming and kind.ended == "complete":
            self.first_content.observe_all(until)
            self.longest_gap.observe_all(gaps)
            self._add_rates(map(sub, durations, until), completion)

    def _add_rates(self, elapsed: Iterable[float], completion: Iterable[object]) -> None:
        """The speed of streams that took `elapsed` seconds from their first content to their end."""
        found = [
            (tokens - 1) / seconds
            for seconds, tokens in zip(elapsed, completion, strict=True)
            if type(tokens) is int and 1 < tokens < MAX_TOKENS and seconds > 0
        ]
        self.token_rate.observe_all(found)
        self.token_time.observe_all([1 / rate for rate in found])


class _Attempts:
    """The same of the attempts of requests with several of them."""

    __slots__ = ("count", "duration", "hedges", "saved")

    def __init__(self) -> None:
        self.count = self.hedges = self.saved = 0
        self.duration = LocalHistogram(f.SECONDS)


class RequestMetrics:
    """See the module. `is_configured`: whether a name of a model is one of the operator's own.

    `recent` gets the counts of requests that concern a model.
    """

    def __init__(
        self,
        series: SeriesRegistry,
        is_configured: Callable[[str], bool],
        recent: RecentCounts | None = None,
    ) -> None:
        self._series = series
        self._recent = recent or RecentCounts()
        self.is_configured = is_configured
        self._models: set[str] = set()
        self._clients: set[str] = set()
        self._counts: dict[tuple[object, ...], _Counts] = {}  # by `_Kind`, or the same as a plain tuple
        self._attempts: dict[tuple[str, str], _Attempts] = {}
        self._spent: dict[tuple[str, str | None, str], int] = {}

    def observe(self, record: RequestRecord) -> None:
        """Count one request."""
        attempts = record.attempts
        attempt = attempts[0] if attempts else _NO_ATTEMPT
        outcome = ""
        if len(attempts) == 1 and attempt.ended is not None and attempt.resumed_at is None:
            outcome = attempt.outcome
        elif attempts:
            attempt = self._observe_all(record)
        # A plain tuple, which equals a `_Kind` and takes a third of the time to make.
        key = (
            record.dialect,
            record.model,
            record.ended,
            record.client.name,
            record.is_streaming,
            attempt.target,
            outcome,
        )
        counts = self._counts.get(key)
        if counts is None:
            counts = self._new(_Kind(*key))
        prompt = completion = cached = reasoning = None
        if usage := record.usage:
            prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
            if type(details := usage.get("prompt_tokens_details")) is dict:
                cached = details.get("cached_tokens")
            if type(details := usage.get("completion_tokens_details")) is dict:
                reasoning = details.get("reasoning_tokens")
        values = counts.values
        values += (
            record.started,
            record.finished,
            record.waited_s,
            record.longest_gap_s,
            record.dropped_frames,
            record.spent_nano,
            record.is_unpriced,
            attempt.started,
            attempt.ended,
            prompt,
            completion,
            cached,
            reasoning,
        )
        if len(values) >= MAX_VALUES:
            counts.add_up(_Kind(*key))

    def _observe_all(self, record: RequestRecord) -> Attempt:
        """Count several attempts. Returns the last one, beginning as if all had been one behind the other."""
        total_s = 0.0
        for attempt in record.attempts:
            key = attempt.target, attempt.outcome
            counts = self._attempts.get(key)
            if counts is None:
                if len(self._attempts) >= MAX_SETS:
                    self._attempts.clear()
                counts = self._attempts[key] = _Attempts()
            counts.count += 1
            counts.saved += attempt.resumed_at is not None
            if attempt.spent_nano:
                self._spend(record, attempt)
            if attempt.started is not None and attempt.ended is not None:
                counts.hedges += attempt.started == record.hedged_at
                counts.duration.observe(attempt.ended - attempt.started)
                total_s += attempt.ended - attempt.started
        last = record.attempts[-1]
        begun = None if last.started is None or last.ended is None else last.ended - total_s
        return Attempt(last.target, "", None, begun, last.ended)

    def _spend(self, record: RequestRecord, attempt: Attempt) -> None:
        if len(self._spent) >= MAX_SETS:
            self._spent.clear()
        spender = record.client.name, record.model, attempt.target
        self._spent[spender] = self._spent.get(spender, 0) + attempt.spent_nano

    def _new(self, kind: _Kind) -> _Counts:
        if len(self._counts) >= MAX_SETS:
            self._counts.clear()  # clients that invent thousands of models a second
        if kind.ended == "complete":  # before any failure of this second is added up
            self._labels(kind.model, kind.target, is_answered=True)
        counts = self._counts[kind] = _Counts()
        return counts

    def flush(self, at_most: int = FLUSHED) -> bool:
        """Add the counts of `at_most` kinds to the worker's numbers. Returns whether these were all."""
        add = self._series.adder()
        if add is None:
            return True
        for _ in range(min(at_most, len(self._counts))):
            key, counts = self._counts.popitem()
            kind = _Kind._make(key)
            counts.add_up(kind)
            outcome = "ok" if kind.ended == "complete" else _outcome(kind.ended)
            if kind.dialect or kind.target:
                now = time.monotonic()
                self._recent.add(now, outcome, counts.requests, counts.output, counts.first_content)
                self._recent.times.add(now, kind.target, counts.first_content)
            labels = self._labels(kind.model, kind.target, is_answered=outcome == "ok")
            client = self._client(kind.client)
            _add_request(add, kind.dialect or OTHER, labels, outcome, counts)
            _add_client(add, client, outcome, counts)
            add.count(f.SPEND, counts.nano, client, *labels)
            if kind.outcome:
                _add_attempts(add, labels[1], _outcome(kind.outcome), counts.requests, counts.attempt)
            elif not kind.target and (refusal := REFUSALS.get(kind.ended)):
                add.count(f.REFUSED, counts.requests, client, refusal)
        for _ in range(min(at_most, len(self._attempts))):
            (target, outcome), attempts = self._attempts.popitem()
            label = self._labels(None, target, is_answered=outcome == "ok")[1]
            shown = _outcome(outcome)
            _add_attempts(add, label, shown, attempts.count, attempts.duration)
            add.count(f.SAVED_STREAMS, attempts.saved, label, shown)
            add.count(f.HEDGES, attempts.hedges, label, _HEDGE_ENDS.get(outcome, "failed"))
        for _ in range(min(at_most, len(self._spent))):
            (name, model, target), nano = self._spent.popitem()
            labels = self._labels(model, target, is_answered=False)
            add.count(f.SPEND, nano, self._client(name), *labels)
        return not (self._counts or self._attempts or self._spent)

    def target_label(self, target: str) -> str:
        """The label of a target, whose model a client may have invented."""
        return self._labels(None, target, is_answered=False)[1]

    def _labels(self, model: str | None, target: str, *, is_answered: bool) -> tuple[str, str]:
        """The labels of a model and a target, whose second part is the name of a model as well."""
        provider, slash, upstream_model = target.partition("/")
        upstream_model = self._model(upstream_model, is_answered=is_answered)
        return self._model(model or "", is_answered=is_answered), f"{provider}{slash}{upstream_model}"

    def _model(self, name: str, *, is_answered: bool) -> str:
        name = _label(name)
        if name in self._models or not name:
            return name
        if len(self._models) < MAX_MODELS and (is_answered or self.is_configured(name)):
            self._models.add(name)
            return name
        return OTHER

    def _client(self, name: str) -> str:
        name = _label(name)
        if name not in self._clients and len(self._clients) < MAX_CLIENTS:
            self._clients.add(name)
        return name if name in self._clients else OTHER


_HEDGE_ENDS = {"ok": "won", "hedge_lost": "lost"}


def _add_request(add: Adder, dialect: str, labels: tuple[str, str], outcome: str, counts: _Counts) -> None:
    add.count(f.REQUESTS, counts.requests, dialect, *labels, outcome)
    add.histogram(f.DURATION, counts.duration, *labels)
    add.histogram(f.OVERHEAD, counts.overhead, dialect)
    add.histogram(f.FIRST_CONTENT, counts.first_content, *labels)
    add.histogram(f.LONGEST_GAP, counts.longest_gap, *labels)
    add.histogram(f.TOKEN_TIME, counts.token_time, *labels)
    add.histogram(f.TOKEN_RATE, counts.token_rate, *labels)
    add.count(f.TOKENS, counts.input, *labels, "input")
    add.count(f.TOKENS, counts.output, *labels, "output")
    add.count(f.TOKENS, counts.cached, *labels, "cached")
    add.count(f.TOKENS, counts.reasoning, *labels, "reasoning")
    add.histogram(f.REQUEST_TOKENS, counts.input_tokens, *labels, "input")
    add.histogram(f.REQUEST_TOKENS, counts.output_tokens, *labels, "output")
    add.count(f.UNKNOWN_PRICE, counts.unpriced, *labels)
    add.histogram(f.WAIT, counts.wait, *labels)
    add.count(f.DROPPED_FRAMES, counts.dropped_frames, labels[1])


def _add_client(add: Adder, client: str, outcome: str, counts: _Counts) -> None:
    add.count(f.CLIENT_REQUESTS, counts.requests, client, outcome)
    add.count(f.CLIENT_TOKENS, counts.input, client, "input")
    add.count(f.CLIENT_TOKENS, counts.output, client, "output")


def _add_attempts(add: Adder, target: str, outcome: str, count: int, duration: LocalHistogram) -> None:
    add.count(f.ATTEMPTS, count, target, outcome)
    add.histogram(f.ATTEMPT_DURATION, duration, target)


def _outcome(code: str) -> str:
    return code if code in KNOWN_OUTCOMES else OTHER


def _label(text: str) -> str:
    """A text as a label may be: bounded, and without lone surrogates."""
    return text[:MAX_LABEL_CHARS].encode("utf-8", "replace").decode()


def _counted(values: Sequence[object]) -> Sequence[int]:
    """The counts of tokens above 0; no other values, nor numbers that cannot be one."""
    return [value for value in values if type(value) is int and 0 < value < MAX_TOKENS]
