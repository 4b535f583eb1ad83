"""A record of a request as bytes for the shared ring, and back.

A request that has ended costs its worker a list and its JSON. The names and units that people read are made
of it when somebody looks, by the worker that answers.
"""

from __future__ import annotations

from typing import Any

from sanic_proxy.observability.record import Attempt, Client, RequestRecord, Session
from sanic_proxy.observability.trace_context import TraceContext
from sanic_proxy.openai import codec


def packed(record: RequestRecord, wall_offset_s: float) -> bytes:
    """What `unpacked` reads. `wall_offset_s` is added to monotonic times for those since the epoch."""
    client, trace = record.client, record.trace
    return codec.dumps(
        [
            wall_offset_s,
            client.id,
            client.name,
            None if trace is None else trace.trace_id,
            None if record.session is None else record.session.digest.hex(),
            [
                (one.target, one.outcome, one.status, one.started, one.ended, one.resumed_at, one.usage)
                for one in record.attempts
            ],
            record.request_id,
            record.method,
            record.path,
            record.started,
            record.provider,
            record.model,
            record.dialect,
            record.is_streaming,
            record.status,
            record.first_byte,
            record.input_bytes,
            record.longest_gap_s,
            record.sent_bytes,
            record.ended,
            record.finished,
            record.waited_s,
            record.usage,
            record.dropped_frames,
            record.cost_nano,
        ]
    )


# The fields of a record behind the attempts, in their order.
_FIELDS = (
    *("request_id", "method", "path", "started", "provider", "model", "dialect", "is_streaming", "status"),
    *("first_byte", "input_bytes", "longest_gap_s", "sent_bytes", "ended", "finished", "waited_s", "usage"),
    *("dropped_frames", "cost_nano"),
)


def unpacked(data: bytes) -> tuple[RequestRecord, float]:
    """The record, and when its request ended in seconds since the epoch."""
    values: list[Any] = codec.loads_exact(data)
    wall_offset_s, client_id, client_name, trace_id, session, attempts, *fields = values
    record = RequestRecord(
        **dict(zip(_FIELDS, fields, strict=True)),
        client=Client(client_id, client_name),
        session=None if session is None else Session(bytes.fromhex(session)),
        attempts=[Attempt(*attempt) for attempt in attempts],
        trace=None if trace_id is None else TraceContext(trace_id, "", "", is_sampled=False),
    )
    return record, wall_offset_s + (record.finished or record.started)
