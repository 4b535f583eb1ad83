"""Counts requests when they have ended. An observer of their records.

A request costs one look-up, by what is the same in many requests (dialect, model, target, client and end),
and additions to plain numbers. Once a second `flush` adds them to the series, of which there are many more,
in the memory that the workers share. So a worker that is killed loses the counts of a second at most. Nothing
is done per frame: a stream's own clocks give the longest gap.

Text of clients becomes no label. A model's name is one if it is configured or if a provider has answered it;
errors are named by the codes that the proxy itself gives them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from sanic_proxy import errors
from sanic_proxy.metrics import families as f
from sanic_proxy.metrics.recent import RecentCounts
from sanic_proxy.metrics.series import OTHER, Adder, LocalHistogram, SeriesRegistry
from sanic_proxy.observability.record import Attempt, RequestRecord

MAX_SETS = 4096
# Kinds of requests that one turn of the event loop adds up; each has some 10 series.
FLUSHED = 50
MAX_MODELS = 200
MAX_CLIENTS = 200
MAX_LABEL_CHARS = 128
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
        "server_error",
    }
)


def _codes(kind: type[errors.ProxyError]) -> Iterable[str]:
    for name in (kind.code, kind.type):
        if isinstance(name, str):
            yield name
    for below in kind.__subclasses__():
        yield from _codes(below)


KNOWN_OUTCOMES = _ENDS | frozenset(_codes(errors.ProxyError))


class _Counts:
    """What has been counted of one kind of request since the last `flush`.

    An attempt counts here if it was the only one of its request, and has ended as the others of this kind.
    """

    __slots__ = (
        "attempt",
        "attempt_outcome",
        "cached",
        "dropped_frames",
        "duration",
        "first_content",
        "input",
        "longest_gap",
        "output",
        "overhead",
        "reasoning",
        "requests",
        "token_rate",
        "token_time",
        "waited_s",
    )

    def __init__(self) -> None:
        self.requests = self.input = self.output = self.cached = self.reasoning = self.dropped_frames = 0
        self.waited_s = 0.0
        self.attempt_outcome = ""
        self.duration, self.attempt = LocalHistogram(f.SECONDS), LocalHistogram(f.SECONDS)
        self.overhead = LocalHistogram(f.SHORT_SECONDS)
        self.first_content, self.longest_gap = LocalHistogram(f.SECONDS), LocalHistogram(f.SECONDS)
        self.token_time, self.token_rate = LocalHistogram(f.TOKEN_SECONDS), LocalHistogram(f.PER_SECOND)


class _Attempts:
    """The same of the attempts of requests with several of them."""

    __slots__ = ("count", "duration", "saved")

    def __init__(self) -> None:
        self.count = self.saved = 0
        self.duration = LocalHistogram(f.SECONDS)


_Key = tuple[str, str | None, str, str, str]  # dialect, model, target, end, client


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
        self._counts: dict[_Key, _Counts] = {}
        self._attempts: dict[tuple[str, str], _Attempts] = {}

    def observe(self, record: RequestRecord) -> None:
        """Count one request."""
        finished = record.finished or 0.0
        attempts = record.attempts
        last = attempts[-1] if attempts else None
        key = record.dialect, record.model, last.target if last else "", record.ended, record.client.name
        counts = self._counts.get(key) or self._new(key)
        counts.requests += 1
        counts.duration.observe(finished - record.started)
        if last is not None:
            self._observe_attempts(counts, record, last, finished)
        usage = record.usage
        if usage is not None:
            counts.input += _whole(usage.get("prompt_tokens"))
            counts.output += _whole(usage.get("completion_tokens"))
            details = usage.get("prompt_tokens_details")
            if isinstance(details, dict):
                counts.cached += _whole(details.get("cached_tokens"))
            details = usage.get("completion_tokens_details")
            if isinstance(details, dict):
                counts.reasoning += _whole(details.get("reasoning_tokens"))
        counts.waited_s += record.waited_s
        counts.dropped_frames += record.dropped_frames

    def _observe_attempts(
        self, counts: _Counts, record: RequestRecord, last: Attempt, finished: float
    ) -> None:
        started, content_at = last.started, last.ended
        is_plain = len(record.attempts) == 1 and last.outcome == (counts.attempt_outcome or last.outcome)
        if is_plain and started is not None and content_at is not None and last.resumed_at is None:
            provider_s = content_at - started
            counts.attempt.observe(provider_s)
            counts.attempt_outcome = last.outcome
        else:
            provider_s = self._observe_all(record.attempts)
        if content_at is None:
            return
        until = content_at if record.is_streaming else finished
        counts.overhead.observe(until - record.started - provider_s - record.waited_s)
        if record.is_streaming and record.ended == "complete":
            counts.first_content.observe(content_at - record.started)
            counts.longest_gap.observe(record.longest_gap_s)
            tokens = _whole((record.usage or {}).get("completion_tokens"))
            elapsed_s = finished - content_at
            if tokens > 1 and elapsed_s > 0:
                counts.token_time.observe(elapsed_s / (tokens - 1))
                counts.token_rate.observe((tokens - 1) / elapsed_s)

    def _observe_all(self, attempts: Iterable[Attempt]) -> float:
        """Count several attempts. Returns the seconds that they took together."""
        total_s = 0.0
        for attempt in attempts:
            key = attempt.target, attempt.outcome
            counts = self._attempts.get(key)
            if counts is None:
                if len(self._attempts) >= MAX_SETS:
                    self._attempts.clear()
                counts = self._attempts[key] = _Attempts()
            counts.count += 1
            counts.saved += attempt.resumed_at is not None
            if attempt.started is not None and attempt.ended is not None:
                counts.duration.observe(attempt.ended - attempt.started)
                total_s += attempt.ended - attempt.started
        return total_s

    def _new(self, key: _Key) -> _Counts:
        if len(self._counts) >= MAX_SETS:
            self._counts.clear()  # clients that invent thousands of models a second
        if key[3] == "complete":  # before any failure of this second is added up
            self._labels(key[1], key[2], is_answered=True)
        counts = self._counts[key] = _Counts()
        return counts

    def flush(self, at_most: int = FLUSHED) -> bool:
        """Add the counts of `at_most` kinds to the worker's numbers. Returns whether these were all."""
        add = self._series.adder()
        if add is None:
            return True
        for _ in range(min(at_most, len(self._counts))):
            (dialect, model, target, ended, client), counts = self._counts.popitem()
            outcome = "ok" if ended == "complete" else _outcome(ended)
            if dialect or target:
                now = time.monotonic()
                self._recent.add(now, outcome, counts.requests, counts.output, counts.first_content)
                self._recent.times.add(now, target, counts.first_content)
            labels = self._labels(model, target, is_answered=outcome == "ok")
            _add_request(add, dialect or OTHER, labels, outcome, counts)
            _add_client(add, self._client(client), outcome, counts)
            if counts.attempt_outcome:
                tried = _outcome(counts.attempt_outcome)
                _add_attempts(add, labels[1], tried, counts.attempt.count, counts.attempt)
        for _ in range(min(at_most, len(self._attempts))):
            (target, outcome), attempts = self._attempts.popitem()
            label = self._labels(None, target, is_answered=outcome == "ok")[1]
            _add_attempts(add, label, _outcome(outcome), attempts.count, attempts.duration)
            add.count(f.SAVED_STREAMS, attempts.saved, label)
            if outcome == "hedge_lost":
                add.count(f.HEDGES, attempts.count, label)
        return not (self._counts or self._attempts)

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
    add.count(f.WAITED, int(counts.waited_s * f.WAITED.scale), *labels)
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


def _whole(value: object) -> int:
    """A count of tokens; 0 for anything else, and for numbers that cannot be one."""
    return value if type(value) is int and 0 < value < 10**10 else 0
