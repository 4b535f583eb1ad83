"""Traces of requests, sent with OTLP/HTTP: which are sampled, and what becomes of a finished record.

Sampling is decided by the caller, whose `traceparent` says whether it has sampled; about traces that begin
here a ratio decides, by the id. A request that is not sampled has an id for its log line and costs no span.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from sanic_proxy import __version__
from sanic_proxy.config.catalog import ROWS
from sanic_proxy.config.model import ProviderSettings, Settings
from sanic_proxy.json_types import Json
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.observability.span_exporter import Receiver, SpanExporter
from sanic_proxy.observability.spans import Names, Peer, Value, export_request, spans_of
from sanic_proxy.observability.trace_context import TraceContext, context_of

_SCOPE = {"name": "sanic-proxy", "version": __version__}
# A trace is sampled by the last 64 bits of its id, which every version of the specification has at random.
_RANDOM_DIGITS, _RANDOM_BITS = 16, 64

Item = tuple[RequestRecord, TraceContext, float]


def _peer(provider: ProviderSettings) -> Peer:
    """The provider's own name in the conventions, or that of the vendor behind it."""
    vendors = {row.name: row.telemetry_name or row.name for row in ROWS}
    parts = urlsplit(provider.base_url)
    default_port = {"https": 443, "http": 80}.get(parts.scheme)
    name = vendors.get(provider.name) or vendors.get(provider.priced_as) or provider.name
    return Peer(name, parts.hostname or "", parts.port or default_port)


class Tracer:
    """Begins the trace of each request, and is an observer of their records (`observe`)."""

    def __init__(self, settings: Settings) -> None:
        tracing = settings.tracing
        self._peers = {provider.name: _peer(provider) for provider in settings.providers}
        self._names = Names(
            is_old="genai-old" in tracing.names or not tracing.names, is_new="genai-new" in tracing.names
        )
        self._resource: Mapping[str, Value] = {
            **dict(tracing.resource),
            "service.name": tracing.service,
            "service.version": __version__,
            "process.pid": os.getpid(),
        }
        self._taken = 0
        self._sampled_below = int(tracing.sample * 2**_RANDOM_BITS)
        self._exporter: SpanExporter[Item] = SpanExporter(
            Receiver(
                tracing.endpoint,
                {name: value.reveal() for name, value in tracing.headers},
                settings.ssl_cert_file,
                tracing.timeout_s,
                proxy="" if tracing.proxy is None else tracing.proxy.reveal(),
            ),
            self._spans,
            lambda spans: export_request(self._resource, _SCOPE, spans),
        )

    def take_dropped(self) -> int:
        """How many requests have lost their spans since the last call."""
        dropped = self._exporter.dropped
        new, self._taken = dropped - self._taken, dropped
        return new

    def begin(self, record: RequestRecord, headers: Mapping[str, str]) -> None:
        """Give `record` its place in a trace. `headers` are the client's."""
        record.trace = context_of(headers, self._is_root_sampled)

    def observe(self, record: RequestRecord) -> None:
        """Queue the spans of a finished request, if it is sampled."""
        trace = record.trace
        if trace is not None and trace.is_sampled:
            self._exporter.put((record, trace, time.time() - time.monotonic()))

    async def aclose(self) -> None:
        """Send what is queued, for some seconds at most."""
        await asyncio.to_thread(self._exporter.close)

    def _is_root_sampled(self, trace_id: str) -> bool:
        return int(trace_id[-_RANDOM_DIGITS:], 16) < self._sampled_below

    def _spans(self, item: Item) -> list[Json]:
        record, trace, epoch_s = item
        return spans_of(record, trace, epoch_s, self._peers, self._names)
