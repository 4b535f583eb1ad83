"""A receiver of traces, and OpenTelemetry's own definition of what it may get."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.upstream import Exchange, Upstream

TRACES = "POST /v1/traces"
_IDS = ("traceId", "spanId", "parentSpanId")


def judged(document: Any) -> ExportTraceServiceRequest:
    """The message that `document` stands for. Raises json_format.ParseError for names and types it has not.

    OTLP's JSON has ids in hexadecimal, where that of Protocol Buffers has base64.
    """
    copy = json.loads(json.dumps(document))
    for resource in copy["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for holder in (span, *span.get("links", [])):
                    for name in _IDS:
                        if name in holder:
                            holder[name] = base64.b64encode(bytes.fromhex(holder[name])).decode()
    message = ExportTraceServiceRequest()
    json_format.ParseDict(copy, message)
    return message


def spans_in(document: Any) -> list[Span]:
    """All spans of a request."""
    message = judged(document)
    return [
        span for resource in message.resource_spans for scope in resource.scope_spans for span in scope.spans
    ]


def values(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    """Attributes as a dictionary; each name occurs once."""
    pairs = [(pair.key, getattr(pair.value, str(pair.value.WhichOneof("value")))) for pair in attributes]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


async def take(exchange: Exchange) -> None:
    """Accept spans."""
    await exchange.answer({})


def received(receiver: Upstream) -> list[Span]:
    """The spans of all requests so far."""
    return [span for seen in list(receiver.requests) for span in spans_in(seen.json)]
