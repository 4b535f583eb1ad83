"""The settings of traces, and OpenTelemetry's own variables, which stand in for those that are not set.

opentelemetry.io/docs/specs/otel/protocol/exporter and .../configuration/sdk-environment-variables
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from typing_extensions import override

from sanic_proxy.config.secret import Secret
from sanic_proxy.config.tables import Number
from sanic_proxy.config.urls import url_fault
from sanic_proxy.config.variables import PREFIX, Choices, Kind, Schema, Text, setting, split_list

TRACES_PATH = "/v1/traces"
_HEADER = re.compile(r"([A-Za-z0-9-]+)\s*=\s*([\x20-\x7e]+)")
# Our variables in the place of which others may be set, the more specific one first.
_SERVICE, _HEADERS = (
    ("OTEL_SERVICE_NAME",),
    (
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        "OTEL_EXPORTER_OTLP_HEADERS",
    ),
)
_TRACES_ENDPOINT, _ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


@dataclass(frozen=True)
class OtlpAddress(Kind[str]):
    """The URL of an OTLP/HTTP receiver. Without a path it gets that of traces."""

    @property
    @override
    def expects(self) -> str:
        return "an http or https URL such as http://127.0.0.1:4318"

    @override
    def parse(self, text: str) -> str:
        url = text.rstrip("/")
        if url_fault(url) is not None:
            raise ValueError
        return url if "/" in url.partition("//")[2] else url + TRACES_PATH

    @override
    def schema(self) -> Schema:
        return {"type": "string", "pattern": "^https?://"}


@dataclass(frozen=True)
class HeaderPairs(Kind[tuple[tuple[str, Secret], ...]]):
    """Headers as `name=value`, separated by commas; values may be percent-encoded."""

    is_secret = True

    @property
    @override
    def expects(self) -> str:
        return "headers such as authorization=Bearer%20KEY,x-team=a"

    @override
    def parse(self, text: str) -> tuple[tuple[str, Secret], ...]:
        found: dict[str, Secret] = {}
        for pair in split_list(text):
            match = _HEADER.fullmatch(pair)
            value = unquote(match[2]).strip() if match else ""
            if match is None or not (value and value.isascii() and value.isprintable()):
                raise ValueError
            found[match[1].lower()] = Secret(value)
        return tuple(found.items())

    @override
    def schema(self) -> Schema:
        return {"type": "string"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSettings:
    """Where traces are sent, and which. An empty `endpoint`: nowhere."""

    endpoint: str = setting(
        "OTLP_ENDPOINT",
        OtlpAddress(),
        "",
        "URL of an OTLP/HTTP receiver for traces; without a path, `/v1/traces` is added; default: "
        f"`${_TRACES_ENDPOINT}` or `${_ENDPOINT}`",
    )
    headers: tuple[tuple[str, Secret], ...] = setting(
        "OTLP_HEADERS",
        HeaderPairs(),
        (),
        f"headers for the receiver, `name=value`, comma-separated; default: `${_HEADERS[1]}`",
    )
    service: str = setting(
        "OTLP_SERVICE",
        Text("a name"),
        "sanic-proxy",
        f"`service.name` of the traces; default: `${_SERVICE[0]}`, else this",
    )
    sample: float = setting(
        "TRACE_SAMPLE",
        Number(0, 1),
        1.0,
        "share of the traces that begin here which are sent; a client's `traceparent` decides about its own",
    )
    names: tuple[str, ...] = setting(
        "TRACE_NAMES",
        Choices(("genai-old", "genai-new")),
        (),
        "comma-separated generations of OpenTelemetry's GenAI conventions whose attributes spans have; "
        "default: `genai-old`",
    )


def stand_ins(values: Mapping[str, str]) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """OpenTelemetry's variables as ours: value and origin by our name, and warnings.

    `values` are all variables that are set. Those of ours that are set win.
    """
    found: dict[str, tuple[str, str]] = {}
    warnings: list[str] = []
    is_off = (
        values.get("OTEL_SDK_DISABLED", "").lower() == "true" or values.get("OTEL_TRACES_EXPORTER") == "none"
    )
    protocol = next((values[name] for name in _PROTOCOLS if name in values), "")
    endpoint = next((name for name in (_TRACES_ENDPOINT, _ENDPOINT) if name in values), None)
    if endpoint is not None and not is_off and PREFIX + "OTLP_ENDPOINT" not in values:
        if protocol == "grpc":
            warnings.append(
                f"{endpoint} is not used: it is for gRPC, and traces are sent with OTLP/HTTP; "
                f"set {PREFIX}OTLP_ENDPOINT"
            )
        else:
            url = values[endpoint].rstrip("/")
            found["OTLP_ENDPOINT"] = (url + TRACES_PATH if endpoint == _ENDPOINT else url), endpoint
    for name, others in {"OTLP_HEADERS": _HEADERS, "OTLP_SERVICE": _SERVICE}.items():
        other = next((other for other in others if other in values), None)
        if other is not None and PREFIX + name not in values:
            found[name] = values[other], other
    return {PREFIX + name: value for name, value in found.items()}, warnings
