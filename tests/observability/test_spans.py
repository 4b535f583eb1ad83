"""Records as spans, judged by OpenTelemetry's definition of OTLP."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from sanic_proxy.observability.record import Attempt, Client, RequestRecord
from sanic_proxy.observability.spans import Names, Peer, export_request, spans_of
from sanic_proxy.observability.trace_context import TraceContext
from tests.support.otlp import judged, spans_in, values

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PEERS = {"lab": Peer("vendor.lab", "lab.example", 8443), "groq": Peer("groq", "api.groq.com", 443)}
OLD, NEW, BOTH = Names(is_old=True, is_new=False), Names(is_old=False, is_new=True), Names(True, True)
EPOCH_S = 1_000_000.0
USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
    "completion_tokens_details": {"reasoning_tokens": 5},
}


def record(*attempts: Attempt, **fields: Any) -> RequestRecord:
    made = RequestRecord("id-1", "POST", "/v1/chat/completions", Client("c1", "alice"), started=10.0)
    made.dialect, made.model, made.status = "chat", "fast", 200
    made.attempts = list(attempts)
    made.ended, made.finished = "complete", 12.0
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def spans(of: RequestRecord, names: Names = OLD, parent: str = PARENT) -> list[Span]:
    trace = TraceContext(TRACE, parent, "a=1", is_sampled=True)
    for attempt in of.attempts:
        if attempt.started is not None:
            trace.begin_attempt(attempt.started)
    made = spans_of(of, trace, EPOCH_S, PEERS, names)
    found = spans_in(export_request({"service.name": "s"}, {"name": "t"}, made))
    assert found[0].span_id.hex() == trace.span_id
    for span, attempt in zip(found[1:], (a for a in of.attempts if a.started is not None), strict=True):
        assert span.span_id.hex() == trace.attempt_id(attempt.started or 0.0)
    return found


OK = Attempt("lab/large", "ok", started=10.5, ended=11.0)


def test_a_request_and_its_attempts() -> None:
    failed = Attempt("groq#2/llama", "upstream_rate_limited", 429, started=10.1, ended=10.4)
    passed_over = Attempt("groq/llama", "circuit_open")
    server, first, second = spans(record(passed_over, failed, OK, usage=USAGE))
    assert {span.trace_id.hex() for span in (server, first, second)} == {TRACE}
    assert {span.trace_state for span in (server, first, second)} == {"a=1"}
    assert server.parent_span_id.hex() == PARENT
    assert first.parent_span_id == second.parent_span_id == server.span_id
    assert (server.kind, first.kind, second.kind) == (
        Span.SPAN_KIND_SERVER,
        Span.SPAN_KIND_CLIENT,
        Span.SPAN_KIND_CLIENT,
    )
    assert [span.name for span in (server, first, second)] == [
        "POST /v1/chat/completions",
        "chat llama",
        "chat large",
    ]
    assert (server.flags, first.flags) == (0x301, 0x101)
    times = [(span.start_time_unix_nano, span.end_time_unix_nano) for span in (server, first, second)]
    expected = [(10.0, 12.0), (10.1, 10.4), (10.5, 12.0)]
    for (start, end), (wanted_start, wanted_end) in zip(times, expected, strict=True):
        assert start == pytest.approx((EPOCH_S + wanted_start) * 1e9, abs=1e3)
        assert end == pytest.approx((EPOCH_S + wanted_end) * 1e9, abs=1e3)
    assert values(server.attributes) == {
        "http.request.method": "POST",
        "url.path": "/v1/chat/completions",
        "http.response.status_code": 200,
        "sanic_proxy.request_id": "id-1",
        "sanic_proxy.client": "alice",
        "sanic_proxy.dialect": "chat",
        "sanic_proxy.model": "fast",
        "sanic_proxy.stream": False,
        "sanic_proxy.ended": "complete",
        "sanic_proxy.route": "groq/llama circuit_open, groq#2/llama 429 300ms, lab/large ok 500ms",
    }
    assert values(first.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "groq",
        "gen_ai.system": "groq",
        "gen_ai.request.model": "llama",
        "server.address": "api.groq.com",
        "server.port": 443,
        "http.response.status_code": 429,
        "error.type": "upstream_rate_limited",
        "sanic_proxy.target": "groq#2/llama",
        "sanic_proxy.outcome": "upstream_rate_limited",
    }
    assert (server.status.code, first.status.code, second.status.code) == (
        Status.STATUS_CODE_UNSET,
        Status.STATUS_CODE_ERROR,
        Status.STATUS_CODE_UNSET,
    )
    assert values(second.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vendor.lab",
        "gen_ai.system": "vendor.lab",
        "gen_ai.request.model": "large",
        "gen_ai.response.model": "large",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 60,
        "gen_ai.usage.cache_creation.input_tokens": 30,
        "gen_ai.usage.reasoning.output_tokens": 5,
        "server.address": "lab.example",
        "server.port": 8443,
        "sanic_proxy.target": "lab/large",
        "sanic_proxy.outcome": "ok",
    }


@pytest.mark.parametrize(
    ("names", "is_old", "is_new"), [(OLD, True, False), (NEW, False, True), (BOTH, True, True)]
)
def test_the_names_of_both_generations(names: Names, is_old: bool, is_new: bool) -> None:
    found = values(spans(record(OK, usage=USAGE, is_streaming=True), names)[1].attributes)
    assert ("gen_ai.system" in found) == ("gen_ai.usage.cache_creation.input_tokens" in found) == is_old
    assert ("gen_ai.usage.cache_write.input_tokens" in found) == is_new
    assert ("gen_ai.response.time_to_first_chunk" in found) == is_new
    if is_new:
        assert found["gen_ai.response.time_to_first_chunk"] == pytest.approx(0.5)


def test_a_lost_hedge_is_no_error_and_has_its_own_usage() -> None:
    lost = Attempt("groq/llama", "hedge_lost", started=10.1, ended=10.9, usage={"prompt_tokens": 7})
    _, first, second = spans(record(lost, OK, usage=USAGE))
    assert first.status.code == Status.STATUS_CODE_UNSET
    assert values(first.attributes)["gen_ai.usage.input_tokens"] == 7
    assert "error.type" not in values(first.attributes)
    assert values(second.attributes)["gen_ai.usage.input_tokens"] == 100


def test_the_rest_of_a_broken_stream_has_the_usage_of_its_own_attempt() -> None:
    cut = Attempt("groq/llama", "upstream_cut", started=10.1, ended=10.4)
    rest = Attempt("lab/large", "ok", started=10.5, ended=11.0, resumed_at=40)
    last = {"prompt_tokens": 7, "completion_tokens": 2}
    _, first, second = spans(record(cut, rest, usage=USAGE, is_usage_summed=True, last_usage=last))
    assert "gen_ai.usage.input_tokens" not in values(first.attributes)
    found = values(second.attributes)
    assert (found["gen_ai.usage.input_tokens"], found["sanic_proxy.resumed_at"]) == (7, 40)


def test_a_stream_that_breaks_is_an_error_of_both_spans() -> None:
    server, client = spans(record(OK, ended="upstream_cut", is_streaming=True))
    for span in (server, client):
        assert span.status.code == Status.STATUS_CODE_ERROR
        assert values(span.attributes)["error.type"] == "upstream_cut"


@pytest.mark.parametrize(
    ("fields", "is_error"),
    [
        ({"status": 400, "ended": "invalid_request_error"}, False),  # the client's
        ({"status": 502, "ended": "upstream_error"}, True),
        ({"status": 499, "ended": "client_left"}, False),
        ({"status": 200, "ended": "client_left"}, False),
    ],
)
def test_which_ends_are_errors_of_the_server(fields: dict[str, Any], is_error: bool) -> None:
    (server,) = spans(record(**fields), parent="")
    assert (server.status.code == Status.STATUS_CODE_ERROR) == is_error
    assert ("error.type" in values(server.attributes)) == is_error
    assert server.parent_span_id == b""
    assert server.flags == 0x101


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("GET", "/v1/files/file-abc123/content", 200, "GET /v1/files/*/content"),
        ("POST", "/v1beta/models/gemini-2.5-pro:generateContent", 200, "POST /v1beta/models/*"),
        ("GET", "/wp-admin", 404, "GET"),
        ("GET", "/a/b/c/d/e/f/g", 400, "GET"),
    ],
)
def test_names_of_spans_have_no_ids(method: str, path: str, status: int, name: str) -> None:
    made = record(method=method, path=path, status=status)
    assert spans(made)[0].name == name


@pytest.mark.parametrize(
    ("path", "dialect", "operation"),
    [
        ("/v1/embeddings", "", "embeddings"),
        ("/v1/completions", "", "text_completion"),
        ("/v1/responses", "responses", "chat"),
        ("/v1/messages/count_tokens", "messages", None),
        ("/v1/files", "", None),
    ],
)
def test_only_operations_of_models_have_a_name(path: str, dialect: str, operation: str | None) -> None:
    found = values(spans(record(OK, path=path, dialect=dialect))[1].attributes)
    assert found.get("gen_ai.operation.name") == operation
    assert ("gen_ai.request.model" in found) == (operation is not None)  # by which backends count calls


def test_hostile_text_is_cut_and_stays_text() -> None:
    made = record(OK, model="\ud800" + "x" * 1000, usage={"prompt_tokens": -1, "completion_tokens": 2**70})
    server, client = spans(made)
    assert len(values(server.attributes)["sanic_proxy.model"]) == 256
    assert "gen_ai.usage.input_tokens" not in values(client.attributes)
    assert "gen_ai.usage.output_tokens" not in values(client.attributes)


def test_the_resource_and_the_scope() -> None:
    message = judged(
        export_request({"service.name": "s", "process.pid": 1}, {"name": "t", "version": "1"}, [])
    )
    (resource,) = message.resource_spans
    assert values(resource.resource.attributes) == {"service.name": "s", "process.pid": 1}
    assert (resource.scope_spans[0].scope.name, resource.scope_spans[0].scope.version) == ("t", "1")


def links(of: RequestRecord) -> list[list[tuple[bytes, str]]]:
    """For each attempt, those that it is linked to, and how."""
    _, *clients = spans(of)
    for span in clients:
        assert all(link.trace_id == span.trace_id for link in span.links)
    return [
        [(link.span_id, values(link.attributes)["sanic_proxy.link"]) for link in span.links]
        for span in clients
    ]


def test_an_attempt_is_linked_to_the_one_that_caused_it() -> None:
    attempts = [
        Attempt("a/x", "upstream_error", 500, started=10.0, ended=10.1),
        Attempt("a/x", "upstream_error", 500, started=10.2, ended=10.3),
        Attempt("b/y", "upstream_disconnected", started=10.4, ended=10.5),
        Attempt("b/y", "ok", started=10.6, ended=10.7, resumed_at=12),
    ]
    asked = record(*attempts)
    first, second, third, _ = spans(asked)[1:]
    found = links(asked)
    assert [[kind for _, kind in each] for each in found] == [[], ["retry"], ["fallback"], ["resume"]]
    assert len({first.span_id, second.span_id, third.span_id}) == 3


def test_a_second_attempt_is_linked_to_the_first_whichever_has_won() -> None:
    first = Attempt("a/x", "hedge_lost", started=10.0, ended=10.6)
    second = Attempt("b/y", "ok", started=10.4, ended=10.6)
    for attempts in ((first, second), (second, first)):
        found = links(record(*attempts, hedged_at=10.4))
        assert [kind for each in found for _, kind in each] == ["hedge"]
        assert found[attempts.index(first)] == []


def test_the_link_has_the_id_of_the_span() -> None:
    asked = record(
        Attempt("a/x", "upstream_error", 500, started=10.0, ended=10.1),
        Attempt("a/x", "ok", started=10.2, ended=10.3),
    )
    _, first, second = spans(asked)
    assert [link.span_id for link in second.links] == [first.span_id]
