"""What is known of a request when it ends."""

from __future__ import annotations

import logging

import pytest

from sanic_proxy.observability.record import Attempt, Client, RequestRecord
from sanic_proxy.observability.trace_context import TraceContext


def test_the_first_byte_is_noted_once() -> None:
    record = RequestRecord("id", "GET", "/")
    record.sent(1)
    first = record.first_byte
    record.sent(2)
    assert (record.first_byte, record.sent_bytes) == (first, 3)


def test_what_is_not_known_is_left_out() -> None:
    fields = RequestRecord("id", "GET", "/", status=404, ended="not_found").as_fields()
    assert {"provider", "model", "first_byte_ms", "prompt_tokens"}.isdisjoint(fields)
    assert fields["ended"] == "not_found"


def test_the_client_is_named_by_its_label() -> None:
    fields = RequestRecord("id", "GET", "/", client=Client("an id", "a label")).as_fields()
    assert fields["client"] == "a label"
    assert "an id" not in fields.values()


@pytest.mark.parametrize(
    ("attempt", "text"),
    [
        (Attempt("groq/a", "ok", None, 1.0, 1.25), "groq/a ok 250ms"),
        (Attempt("groq/a", "rate_limit_exceeded", 429, 1.0, 1.25), "groq/a 429 250ms"),
        (Attempt("groq/a", "ok", None, 1.0, 1.25, 24), "groq/a ok 250ms from 24"),
        (Attempt("groq/a", "upstream_timeout", None, 1.0, 3.0), "groq/a upstream_timeout 2000ms"),
        (Attempt("groq/a", "circuit_open"), "groq/a circuit_open"),
    ],
)
def test_an_attempt_reads_as_in_the_route_header(attempt: Attempt, text: str) -> None:
    record = RequestRecord("id", "GET", "/", attempts=[attempt])
    assert record.route == text
    record.attempts.append(attempt)
    assert record.route == f"{text}, {text}"


def test_every_observer_is_called_once_even_if_another_one_fails(caplog: pytest.LogCaptureFixture) -> None:
    record = RequestRecord("id", "GET", "/")
    called: list[RequestRecord] = []

    def fails(_: RequestRecord) -> None:
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR):
        record.finish([fails, called.append])
        record.finish([fails, called.append])
    assert called == [record]
    assert record.ended == "complete"
    assert len(caplog.records) == 1


def test_the_duration_ends_with_the_request() -> None:
    record = RequestRecord("id", "GET", "/")
    record.finish(())
    assert record.finished is not None
    assert record.as_fields()["ms"] == record.as_fields()["ms"]


def test_a_request_that_another_one_causes_is_of_the_same_client_and_trace() -> None:
    trace = TraceContext("1" * 32, "", "", is_sampled=True)
    record = RequestRecord("id", "GET", "/v1/responses", client=Client("an id", "a label"), trace=trace)
    caused = record.caused("id-2", "BACKGROUND")
    assert (caused.request_id, caused.method, caused.path) == ("id-2", "BACKGROUND", "/v1/responses")
    assert caused.client is record.client
    assert caused.trace is not None
    assert caused.trace.parent_id == trace.span_id
    assert caused.as_fields()["trace_id"] == trace.trace_id
    assert RequestRecord("id", "GET", "/").caused("id-2", "GET").trace is None
