"""The spans of one finished request, as OTLP's JSON encoding has them. Pure.

A request is a SERVER span, each of its attempts that was sent a CLIENT span below it; targets that were
passed over are named in `sanic_proxy.route`. An attempt that another one has caused is linked to it. Names of
attributes are OpenTelemetry's: those of HTTP, and on CLIENT spans those of GenAI, which are still in
development. `Names` says where its generations differ.
The response's model is the target's, as answers are not parsed for theirs.

Encoding: opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding. Ids are hexadecimal, 64-bit numbers are
text, enumerations are numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.observability.record import Attempt, RequestRecord
from sanic_proxy.observability.trace_context import TraceContext

_SERVER, _CLIENT = 2, 3
_ERROR = {"code": 2}
# Bits above the W3C flags: whether the parent is in another process is known, and it is.
_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200
_NS = 1_000_000_000
# Ends of requests and attempts that are no failure of the proxy or a provider.
_NO_ERROR = frozenset({"", "ok", "complete", "client_left", "client_stalled", "cancelled", "hedge_lost"})
# The last part of the path -> the operation, for requests that are no conversation.
_OPERATIONS = {"embeddings": "embeddings", "completions": "text_completion"}
# Requests in a dialect that count tokens and generate nothing.
_COUNTING = frozenset({"count_tokens", "countTokens", "input_tokens"})
_PLAIN_PART = frozenset("abcdefghijklmnopqrstuvwxyz_")
MAX_VALUE_CHARS = 256
MAX_PATH_PARTS = 6
SERVER_FAULT = 500
NOT_FOUND = 404

Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Peer:
    """A provider as spans name it: its name in the GenAI conventions, and its address."""

    name: str
    host: str
    port: int | None


@dataclass(frozen=True, slots=True)
class Names:
    """Which generations of the GenAI conventions the attributes are named after; any may be both.

    Old: `gen_ai.system` (until 1.36), `cache_creation`. New (semantic-conventions-genai): `cache_write`.
    """

    is_old: bool
    is_new: bool


def spans_of(
    record: RequestRecord, trace: TraceContext, epoch_s: float, peers: Mapping[str, Peer], names: Names
) -> list[Json]:
    """The SERVER span, and a CLIENT span for each attempt. `epoch_s` is the Unix time of monotonic 0."""
    finished = record.finished or record.started
    answered = next((attempt for attempt in reversed(record.attempts) if attempt.outcome == "ok"), None)
    spans = [_server(record, trace, epoch_s, finished)]
    links = _links(record)
    for attempt in record.attempts:
        if attempt.started is not None:
            until = finished if attempt is answered else (attempt.ended or finished)
            span = _span(trace, trace.attempt_id(attempt.started), _CLIENT, attempt.started, until, epoch_s)
            if attempt.started in links:
                span["links"] = [_link(trace, *links[attempt.started])]
            _fill_client(span, record, attempt, attempt is answered, peers, names)
            spans.append(span)
    return spans


def _links(record: RequestRecord) -> dict[float, tuple[float, str]]:
    """By the beginning of an attempt: that of the one which caused it, and how.

    A second attempt is caused by the first, which is still under way; any other by the failure before it.
    """
    sent = sorted(
        (attempt for attempt in record.attempts if attempt.started is not None),
        key=lambda attempt: attempt.started or 0.0,
    )
    found: dict[float, tuple[float, str]] = {}
    for before, attempt in pairwise(sent):
        started, began_before = attempt.started or 0.0, before.started or 0.0
        if started == record.hedged_at:
            kind = "hedge"
        elif attempt.resumed_at is not None:
            kind = "resume"
        else:
            kind = "retry" if attempt.target == before.target else "fallback"
        found[started] = began_before, kind
    return found


def _link(trace: TraceContext, started: float, kind: str) -> Json:
    return {
        "traceId": trace.trace_id,
        "spanId": trace.attempt_id(started),
        "flags": int(trace.is_sampled) | _HAS_IS_REMOTE,
        "attributes": attributes({"sanic_proxy.link": kind}),
    }


def _server(record: RequestRecord, trace: TraceContext, epoch_s: float, finished: float) -> Json:
    span = _span(trace, trace.span_id, _SERVER, record.started, finished, epoch_s)
    is_error = record.status >= SERVER_FAULT or (record.status < 400 and record.ended not in _NO_ERROR)
    span["name"] = _server_name(record)
    span["attributes"] = attributes(
        {
            "http.request.method": record.method,
            "url.path": record.path,
            "http.response.status_code": record.status or None,
            "error.type": record.ended if is_error else None,
            "sanic_proxy.request_id": record.request_id,
            "sanic_proxy.client": record.client.name or None,
            "sanic_proxy.dialect": record.dialect or None,
            "sanic_proxy.model": record.model,
            "sanic_proxy.stream": record.is_streaming,
            "sanic_proxy.ended": record.ended,
            "sanic_proxy.route": record.route or None,
            "sanic_proxy.waited_s": record.waited_s or None,
        }
    )
    if is_error:
        span["status"] = _ERROR
    return span


def _fill_client(
    span: Json,
    record: RequestRecord,
    attempt: Attempt,
    is_answer: bool,
    peers: Mapping[str, Peer],
    names: Names,
) -> None:
    provider, _, model = attempt.target.partition("/")
    peer = peers.get(provider.partition("#")[0]) or Peer(provider, "", None)
    operation = _operation(record)
    end = record.ended if is_answer else attempt.outcome
    is_error = end not in _NO_ERROR
    found: dict[str, Value] = {
        "gen_ai.operation.name": operation or None,
        "gen_ai.provider.name": peer.name,
        "gen_ai.system": peer.name if names.is_old else None,
        "server.address": peer.host or None,
        "server.port": peer.port,
        "http.response.status_code": attempt.status,
        "error.type": end if is_error else None,
        "sanic_proxy.target": attempt.target,
        "sanic_proxy.outcome": attempt.outcome,
        "sanic_proxy.resumed_at": attempt.resumed_at,
    }
    if operation and model:
        found["gen_ai.request.model"] = model
    if is_answer and operation:
        found["gen_ai.response.model"] = model or None
        if record.is_streaming and names.is_new and attempt.ended is not None and attempt.started is not None:
            found["gen_ai.response.time_to_first_chunk"] = attempt.ended - attempt.started
    answered = record.last_usage if record.is_usage_summed else record.usage
    found.update(_usage((answered if is_answer else attempt.usage) or {}, names))
    span["name"] = f"{operation} {model}".strip() if operation else f"{record.method} {provider}"
    span["attributes"] = attributes(found)
    if is_error:
        span["status"] = _ERROR


def _usage(usage: JsonMapping, names: Names) -> dict[str, Value]:
    """Tokens as attributes, as far as they were reported; details of which there are none are left out."""
    prompt, output = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    prompt = prompt if isinstance(prompt, dict) else {}
    output = output if isinstance(output, dict) else {}
    written = _count(prompt.get("cache_write_tokens")) or None
    return {
        "gen_ai.usage.input_tokens": _count(usage.get("prompt_tokens")),
        "gen_ai.usage.output_tokens": _count(usage.get("completion_tokens")),
        "gen_ai.usage.cache_read.input_tokens": _count(prompt.get("cached_tokens")) or None,
        "gen_ai.usage.cache_creation.input_tokens": written if names.is_old else None,
        "gen_ai.usage.cache_write.input_tokens": written if names.is_new else None,
        "gen_ai.usage.reasoning.output_tokens": _count(output.get("reasoning_tokens")) or None,
    }


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**53 else None


def _operation(record: RequestRecord) -> str:
    """The GenAI conventions' name of what the request asks for; "" for files, batches and the like."""
    last = record.path.rpartition("/")[2].rpartition(":")[2]
    if record.dialect:
        return "" if last in _COUNTING else "chat"
    return _OPERATIONS.get(last, "")


def _server_name(record: RequestRecord) -> str:
    """Method and path without ids and models: names of spans must be few. Unknown paths have none."""
    parts = record.path.split("/")[1:]
    if record.status == NOT_FOUND or len(parts) > MAX_PATH_PARTS:
        return record.method
    shown = [part if _is_plain(part) else "*" for part in parts]
    return f"{record.method} /{'/'.join(shown)}"


def _is_plain(part: str) -> bool:
    return part in {"v1", "v1beta"} or _PLAIN_PART.issuperset(part)


def _span(trace: TraceContext, span_id: str, kind: int, started: float, ended: float, epoch_s: float) -> Json:
    """A span without name and attributes. Times are monotonic."""
    is_server = kind == _SERVER
    parent_id = trace.parent_id if is_server else trace.span_id
    flags = int(trace.is_sampled) | _HAS_IS_REMOTE | (_IS_REMOTE if is_server and parent_id else 0)
    span: Json = {
        "traceId": trace.trace_id,
        "spanId": span_id,
        "flags": flags,
        "kind": kind,
        "startTimeUnixNano": str(int((epoch_s + started) * _NS)),
        "endTimeUnixNano": str(int((epoch_s + max(started, ended)) * _NS)),
    }
    if parent_id:
        span["parentSpanId"] = parent_id
    if trace.state:
        span["traceState"] = trace.state
    return span


def attributes(values: Mapping[str, Value]) -> list[Json]:
    """Attributes as OTLP has them; those that are None are left out, and long text is cut."""
    return [{"key": name, "value": _value(value)} for name, value in values.items() if value is not None]


def _value(value: str | float | bool) -> Json:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    return {"stringValue": value[:MAX_VALUE_CHARS].encode("utf-8", "replace").decode()}


def export_request(resource: Mapping[str, Value], scope: JsonMapping, spans: Iterable[Json]) -> Json:
    """An ExportTraceServiceRequest with the spans of one resource."""
    scope_spans = [{"scope": scope, "spans": list(spans)}]
    return {"resourceSpans": [{"resource": {"attributes": attributes(resource)}, "scopeSpans": scope_spans}]}
