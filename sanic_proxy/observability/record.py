"""What is known of one request, from its head to its end, and the observers that read it there.

A record is filled in while its request is processed. When the request has ended (complete,
failed, cancelled, cut by the proxy, abandoned by its client), `finish` hands it to every observer, once. An
observer is a function of the record; it is called on the event loop and must not block. The access log is
one; metrics and usage accounts are others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from sanic_proxy.config.rules import NO_RULES, ClientRules
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.observability.capture import Capture
from sanic_proxy.observability.trace_context import TraceContext

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Client:
    """Who sends a request.

    `id` is the same for every request of the client; empty where no key is needed. `name` is what logs call
    the client. Neither holds the key. `rules` are what the client may do and use.
    """

    id: str
    name: str
    rules: ClientRules = NO_RULES


ANONYMOUS = Client(id="", name="")


@dataclass(slots=True)
class Attempt:
    """One target that was tried, or skipped.

    `target` is its label. `outcome` is "ok", "client_left", an error's code, "hedge_lost" (another attempt at
    the same time was faster), or why the target was passed over ("circuit_open", "rate_limited"). `status` is
    the provider's status where it answered with an error. `usage` is what a lost attempt reported, if it did.
    `started` and `ended` are monotonic seconds, both None where nothing was sent. `resumed_at` is how many
    characters of the answer its client already had: the attempt was one for the rest. `spent_nano` is what it
    has been booked at in nano-dollars, if it is not the answer and costs are counted.
    """

    target: str
    outcome: str
    status: int | None = None
    started: float | None = None
    ended: float | None = None
    resumed_at: int | None = None
    usage: JsonMapping | None = None
    spent_nano: int = 0

    def text(self) -> str:
        """As in the route header: `groq/llama 429 35ms`, with ` from 239` behind the attempt for a rest."""
        what = self.status or self.outcome
        if self.started is None or self.ended is None:
            return f"{self.target} {what}"
        text = f"{self.target} {what} {round(1000 * (self.ended - self.started))}ms"
        return text if self.resumed_at is None else f"{text} from {self.resumed_at}"

    __str__ = text

    def as_json(self, request_started: float) -> Json:
        """The attempt in a JSON line; times in milliseconds, the start since that of its request."""
        is_timed = self.started is not None and self.ended is not None
        fields = {
            "target": self.target,
            "outcome": self.outcome,
            "status": self.status,
            "started_ms": None if self.started is None else _ms(self.started - request_started),
            "ms": _ms((self.ended or 0.0) - (self.started or 0.0)) if is_timed else None,
            "resumed_at": self.resumed_at,
            "usage": None if self.usage is None else _counts(self.usage),
        }
        return {name: value for name, value in fields.items() if value is not None}


class Session:
    """The session that a request belongs to. `digest` names it in logs; no name of a client's is kept.

    `is_proven`: it has got an answer at the target where it is served.
    """

    __slots__ = ("digest", "is_proven")

    def __init__(self, digest: bytes) -> None:
        self.digest = digest
        self.is_proven = False

    def record_answer(self, record: RequestRecord) -> None:
        """A request of the session is answered, by the last target in the attempts of `record`."""


@dataclass(slots=True)
class RequestRecord:
    """Holds no content and no key.

    `dialect` is the API of a conversation ("chat"); empty for other requests. `input_bytes` is the size of a
    JSON body. `session` is the session that the request belongs to, where that decides on its target.
    `longest_gap_s` is the longest time between two reads of the provider's stream after its first content.
    `waited_s` is what the proxy itself waited between its attempts and for limits, `waiting_since` the
    beginning of a wait of unknown length, which is added at its end. `upstream_headers` are those of the last
    answer, in lower case.
    `ended` is how the request ended: "complete", an error's code, or "client_left". `attempts` are the
    targets in the order in which they were passed over or their attempts ended. `dropped_frames` counts the
    frames of the provider's stream that were neither passed on nor a keep-alive. `is_finished`: no observer
    is to be called any more.
    `observer` observes this record alone, before the others, and `settle` before it: it settles what the
    request has cost. `usage` is the sum of several attempts where `is_usage_summed`, and `last_usage` that of
    the last one. `trace` is its place in a trace; None where traces are off.
    `capture` collects the content of a request that is captured, which only its observer reads. `cost_nano`
    is the cost in nano-dollars of all its attempts, where costs are counted and known, after `settle`;
    `spent_nano` what the last attempt has been booked at, estimates included, and `is_unpriced` whether the
    price of an attempt is not known. `hedged_at` is when a second attempt began beside the first.
    """

    request_id: str
    method: str
    path: str
    client: Client = ANONYMOUS
    started: float = field(default_factory=time.monotonic)
    provider: str | None = None
    model: str | None = None
    dialect: str = ""
    session: Session | None = None
    is_streaming: bool = False
    status: int = 0
    first_byte: float | None = None
    input_bytes: int = 0
    longest_gap_s: float = 0.0
    sent_bytes: int = 0
    ended: str = ""
    finished: float | None = None
    attempts: list[Attempt] = field(default_factory=list)
    waited_s: float = 0.0
    waiting_since: float | None = None
    upstream_headers: Mapping[str, str] | None = None
    usage: JsonMapping | None = None
    dropped_frames: int = 0
    is_finished: bool = False
    observer: Observer | None = None
    settle: Observer | None = None
    last_usage: JsonMapping | None = None
    is_usage_summed: bool = False
    trace: TraceContext | None = None
    capture: Capture | None = None
    cost_nano: int | None = None
    spent_nano: int = 0
    is_unpriced: bool = False
    hedged_at: float | None = None

    @property
    def route(self) -> str:
        """The attempts as text, for the route header and the log; empty where no target was considered."""
        attempts = self.attempts
        return attempts[0].text() if len(attempts) == 1 else ", ".join(map(str, attempts))

    def caused(self, request_id: str, method: str) -> RequestRecord:
        """The record of a further request, of the same client, that this one causes."""
        trace = None if self.trace is None else self.trace.child()
        return RequestRecord(request_id, method, self.path, self.client, trace=trace)

    def waited_until(self, now: float) -> float:
        """The seconds waited, the current wait included."""
        return self.waited_s if self.waiting_since is None else self.waited_s + now - self.waiting_since

    def sent(self, size_bytes: int) -> None:
        """Count bytes of the body that are sent to the client."""
        if self.first_byte is None:
            self.first_byte = time.monotonic()
        self.sent_bytes += size_bytes

    def finish(self, observers: Iterable[Observer]) -> None:
        """Call the observers, once for each record. One that fails is logged, and the others are called."""
        if self.is_finished:
            return
        self.is_finished = True
        self.ended = self.ended or "complete"
        self.finished = time.monotonic()
        if self.observer is not None:
            observers = (self.observer, *observers)
        for observe in observers if self.settle is None else (self.settle, *observers):
            try:
                observe(self)
            except Exception:
                logger.exception("observer %r failed for request %s", observe, self.request_id)

    def as_fields(self) -> Json:
        """The record as the fields of a log line; times in milliseconds."""
        usage = self.usage or {}
        finished = time.monotonic() if self.finished is None else self.finished
        fields = {
            "id": self.request_id,
            "trace_id": None if self.trace is None else self.trace.trace_id,
            "method": self.method,
            "path": self.path,
            "client": self.client.name or None,
            "provider": self.provider,
            "model": self.model,
            "stream": self.is_streaming,
            "status": self.status,
            "ms": round(1000 * (finished - self.started), 1),
            "first_byte_ms": None
            if self.first_byte is None
            else round(1000 * (self.first_byte - self.started), 1),
            "waited_ms": round(1000 * self.waited_s, 1) or None,
            "bytes": self.sent_bytes,
            "ended": self.ended,
            "route": self.route or None,
            "session": None if self.session is None else self.session.digest.hex(),
            "prompt_tokens": usage.get("prompt_tokens"),
            "cached_tokens": _cached(usage),
            "completion_tokens": usage.get("completion_tokens"),
            "dropped_frames": self.dropped_frames or None,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def as_json(self) -> Json:
        """All of the record as the fields of a JSON line; times in milliseconds, usage as in a chat."""
        last = self.attempts[-1] if self.attempts else None
        content_at = last.ended if self.is_streaming and last is not None else None
        fields = {
            "client_id": self.client.id or None,
            "dialect": self.dialect or None,
            "target": None if last is None else last.target,
            "input_bytes": self.input_bytes or None,
            "first_content_ms": None if content_at is None else _ms(content_at - self.started),
            "longest_gap_ms": _ms(self.longest_gap_s) if self.longest_gap_s else None,
            "attempts": [attempt.as_json(self.started) for attempt in self.attempts] or None,
            "usage": None if self.usage is None else _counts(self.usage),
            "cost_usd": None if self.cost_nano is None else self.cost_nano / 10**9,
        }
        return self.as_fields() | {name: value for name, value in fields.items() if value is not None}


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 1)


def _counts(usage: JsonMapping) -> Json:
    """The numbers in a usage object and in the objects within it: providers may add texts."""
    counts: Json = {}
    for name, value in usage.items():
        if isinstance(value, dict):
            counts[name] = {key: count for key, count in value.items() if _is_number(count)}
        elif _is_number(value):
            counts[name] = value
    return counts


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cached(usage: JsonMapping) -> object:
    """The tokens of the prompt that came from the provider's cache, where there are any."""
    details = usage.get("prompt_tokens_details")
    return (details.get("cached_tokens") or None) if isinstance(details, dict) else None


Observer = Callable[[RequestRecord], None]
