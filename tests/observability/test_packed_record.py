"""A record as bytes, and back: nothing that is shown is lost."""

from __future__ import annotations

from sanic_proxy.observability.packed_record import packed, unpacked
from sanic_proxy.observability.record import Attempt, Client, RequestRecord, Session
from sanic_proxy.observability.trace_context import TraceContext


def test_all_that_is_shown_comes_back() -> None:
    record = RequestRecord(
        "id",
        "POST",
        "/v1/chat/completions",
        Client("0123", "agent"),
        started=100.0,
        provider="groq",
        model="m\u2028\ud800</script>",
        dialect="chat",
        session=Session(b"\x00\xff"),
        is_streaming=True,
        status=200,
        first_byte=100.25,
        input_bytes=7,
        longest_gap_s=0.5,
        sent_bytes=9,
        ended="complete",
        finished=101.5,
        attempts=[
            Attempt("groq/a", "upstream_error", 500, 100.0, 100.1),
            Attempt("groq#2/a", "circuit_open"),
            Attempt("groq/b", "ok", None, 100.2, 100.75, 239, {"completion_tokens": 4, "text": "said"}),
        ],
        waited_s=0.1,
        usage={"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 1}, "note": "text"},
        dropped_frames=2,
        trace=TraceContext("ab" * 16, "", "", is_sampled=True),
        cost_nano=1_500_000,
    )
    again, ended_at = unpacked(packed(record, 1000.0))
    assert again.as_json() == record.as_json()
    assert ended_at == 1101.5


def test_an_empty_record_comes_back() -> None:
    record = RequestRecord("id", "GET", "/", started=1.0, finished=2.0, ended="complete")
    again, ended_at = unpacked(packed(record, 0.5))
    assert again.as_json() == record.as_json()
    assert ended_at == 2.5
