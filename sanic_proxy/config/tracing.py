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
_SERVICE = "OTEL_SERVICE_NAME"
_HEADERS = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
_TIMEOUTS = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
_RESOURCE = "OTEL_RESOURCE_ATTRIBUTES"
_SERVICE_KEY = "service.name"
MAX_TIMEOUT_S = 600.0
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


@dataclass(frozen=True)
class Attributes(Kind[tuple[tuple[str, str], ...]]):
    """Attributes as `name=value`, separated by commas; names and values may be percent-encoded.

    opentelemetry.io/docs/specs/otel/resource/sdk/#specifying-resource-information-via-an-environment-variable
    """

    @property
    @override
    def expects(self) -> str:
        return "attributes such as deployment.environment.name=prod,team=a"

    @override
    def parse(self, text: str) -> tuple[tuple[str, str], ...]:
        found: dict[str, str] = {}
        for pair in split_list(text):
            name, equals, value = pair.partition("=")
            if not equals or not name.strip():
                raise ValueError
            found[unquote(name.strip())] = unquote(value.strip())
        return tuple(found.items())

    @override
    def schema(self) -> Schema:
        return {"type": "string"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSettings:
    """Where traces are sent, and which. An empty `endpoint`: nowhere.

    `proxy` is the URL of the outbound proxy through which the receiver is reached.
    """

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
        f"`service.name` of the traces; default: `${_SERVICE}`, else this",
    )
    resource: tuple[tuple[str, str], ...] = setting(
        "OTLP_ATTRIBUTES",
        Attributes(),
        (),
        f"further attributes of the traces' resource, `name=value`, comma-separated; default: `${_RESOURCE}`",
    )
    timeout_s: float = setting(
        "OTLP_TIMEOUT",
        Number(0.001, MAX_TIMEOUT_S),
        10.0,
        f"seconds for the connection to the receiver, and for its answer; default: `${_TIMEOUTS[1]}` (in "
        "milliseconds), else this",
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
    proxy: Secret | None = None


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
    resource = _attributes(values, warnings)
    if resource:
        found["OTLP_ATTRIBUTES"] = values[_RESOURCE], _RESOURCE
    if _SERVICE_KEY in resource:
        found["OTLP_SERVICE"] = resource[_SERVICE_KEY], _RESOURCE
    if values.get(_SERVICE):
        found["OTLP_SERVICE"] = values[_SERVICE], _SERVICE
    for name, others in {"OTLP_HEADERS": _HEADERS, "OTLP_TIMEOUT": _TIMEOUTS}.items():
        other = next((other for other in others if values.get(other)), None)
        if other is not None:
            found[name] = values[other], other
    if "OTLP_TIMEOUT" in found and (seconds := _seconds(*found.pop("OTLP_TIMEOUT"), warnings)) is not None:
        found["OTLP_TIMEOUT"] = seconds
    found = {name: value for name, value in found.items() if PREFIX + name not in values}
    return {PREFIX + name: value for name, value in found.items()}, warnings


def _attributes(values: Mapping[str, str], warnings: list[str]) -> dict[str, str]:
    """OpenTelemetry's attributes of the resource; the specification has a faulty value ignored as a whole."""
    try:
        return dict(Attributes().parse(values.get(_RESOURCE, "")))
    except ValueError:
        warnings.append(f"{_RESOURCE} is ignored: expected {Attributes().expects}")
        return {}


def _seconds(text: str, origin: str, warnings: list[str]) -> tuple[str, str] | None:
    """OpenTelemetry's milliseconds as our seconds, with their origin; what is no number is ignored."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0
    if not 0 < number <= 1000 * MAX_TIMEOUT_S:
        warnings.append(f"{origin} is ignored: expected milliseconds from 1 to {1000 * MAX_TIMEOUT_S:.0f}")
        return None
    return f"{number / 1000:.3f}", origin
