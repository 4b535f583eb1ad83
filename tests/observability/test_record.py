"""What is known of a request when it ends."""

from __future__ import annotations

from sanic_proxy.observability.record import RequestRecord


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
