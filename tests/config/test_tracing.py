"""The settings of traces, and OpenTelemetry's variables that stand in for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanic_proxy.config.loader import load
from sanic_proxy.config.model import Settings, SettingsError

OTEL = "OTEL_EXPORTER_OTLP_"


def loaded(tmp_path: Path, **values: str) -> Settings:
    return load(values, tmp_path)


def headers(settings: Settings) -> dict[str, str]:
    return {name: value.reveal() for name, value in settings.tracing.headers}


def test_without_a_setting_nothing_is_sent(tmp_path: Path) -> None:
    tracing = loaded(tmp_path).tracing
    assert (tracing.endpoint, tracing.sample, tracing.service) == ("", 1.0, "sanic-proxy")


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ({"SANIC_PROXY_OTLP_ENDPOINT": "http://a:4318"}, "http://a:4318/v1/traces"),
        ({"SANIC_PROXY_OTLP_ENDPOINT": "http://a:4318/"}, "http://a:4318/v1/traces"),
        ({"SANIC_PROXY_OTLP_ENDPOINT": "https://a/otel/v1/traces"}, "https://a/otel/v1/traces"),
        ({f"{OTEL}ENDPOINT": "http://b:4318/otel/"}, "http://b:4318/otel/v1/traces"),
        (
            {f"{OTEL}ENDPOINT": "http://b", f"{OTEL}TRACES_ENDPOINT": "http://c/own/path"},
            "http://c/own/path",
        ),
        (
            {"SANIC_PROXY_OTLP_ENDPOINT": "http://a", f"{OTEL}TRACES_ENDPOINT": "http://c"},
            "http://a/v1/traces",
        ),
        ({f"{OTEL}ENDPOINT": "http://b", "OTEL_SDK_DISABLED": "true"}, ""),
        ({f"{OTEL}ENDPOINT": "http://b", "OTEL_TRACES_EXPORTER": "none"}, ""),
        ({f"{OTEL}ENDPOINT": "http://b", f"{OTEL}PROTOCOL": "http/protobuf"}, "http://b/v1/traces"),
    ],
)
def test_the_endpoint(tmp_path: Path, given: dict[str, str], endpoint: str) -> None:
    assert loaded(tmp_path, **given).tracing.endpoint == endpoint


def test_an_endpoint_for_grpc_is_not_used(tmp_path: Path) -> None:
    settings = loaded(tmp_path, **{f"{OTEL}ENDPOINT": "http://b:4317", f"{OTEL}PROTOCOL": "grpc"})
    assert settings.tracing.endpoint == ""
    assert any("gRPC" in warning for warning in settings.warnings)


def test_headers_service_and_the_rest(tmp_path: Path) -> None:
    given = {f"{OTEL}HEADERS": "Authorization=Basic%20abc%3D%3D, x-team=a", "OTEL_SERVICE_NAME": "gateway"}
    settings = loaded(tmp_path, **given, SANIC_PROXY_TRACE_SAMPLE="0.25", SANIC_PROXY_TRACE_NAMES="genai-new")
    assert headers(settings) == {"authorization": "Basic abc==", "x-team": "a"}
    assert settings.tracing.service == "gateway"
    assert (settings.tracing.sample, settings.tracing.names) == (0.25, ("genai-new",))
    own = loaded(tmp_path, **given, SANIC_PROXY_OTLP_HEADERS="x-key=b", SANIC_PROXY_OTLP_SERVICE="mine")
    assert (headers(own), own.tracing.service) == ({"x-key": "b"}, "mine")


RESOURCE = "deployment.environment.name=prod,service.name=from-resource, team=a%2Cb"


def test_attributes_of_the_resource(tmp_path: Path) -> None:
    tracing = loaded(tmp_path, OTEL_RESOURCE_ATTRIBUTES=RESOURCE).tracing
    assert dict(tracing.resource) == {
        "deployment.environment.name": "prod",
        "service.name": "from-resource",
        "team": "a,b",
    }
    assert tracing.service == "from-resource"
    named = loaded(tmp_path, OTEL_RESOURCE_ATTRIBUTES=RESOURCE, OTEL_SERVICE_NAME="named").tracing
    assert named.service == "named"
    own = loaded(tmp_path, OTEL_RESOURCE_ATTRIBUTES=RESOURCE, SANIC_PROXY_OTLP_ATTRIBUTES="a=b").tracing
    assert own.resource == (("a", "b"),)


def test_faulty_attributes_and_times_of_opentelemetry_are_ignored_with_a_warning(tmp_path: Path) -> None:
    settings = loaded(tmp_path, OTEL_RESOURCE_ATTRIBUTES="a=b,c", **{f"{OTEL}TIMEOUT": "10s"})
    assert (settings.tracing.resource, settings.tracing.timeout_s) == ((), 10.0)
    assert [warning.split()[0] for warning in settings.warnings] == [
        "OTEL_RESOURCE_ATTRIBUTES",
        f"{OTEL}TIMEOUT",
    ]


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({}, 10.0),
        ({f"{OTEL}TIMEOUT": "2500"}, 2.5),
        ({f"{OTEL}TIMEOUT": "2500", f"{OTEL}TRACES_TIMEOUT": "500"}, 0.5),
        ({f"{OTEL}TIMEOUT": "2500", "SANIC_PROXY_OTLP_TIMEOUT": "3"}, 3.0),
        ({f"{OTEL}TIMEOUT": "0"}, 10.0),
    ],
)
def test_the_time_for_the_receiver(tmp_path: Path, given: dict[str, str], seconds: float) -> None:
    assert loaded(tmp_path, **given).tracing.timeout_s == seconds


@pytest.mark.parametrize(
    ("given", "proxy"),
    [
        ({"HTTPS_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ({"https_proxy": "proxy:3128"}, "http://proxy:3128"),
        ({"HTTP_PROXY": "http://proxy:3128"}, None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "otlp.example"}, None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "other.example"}, "http://proxy:3128"),
    ],
)
def test_the_outbound_proxy_to_the_receiver(tmp_path: Path, given: dict[str, str], proxy: str | None) -> None:
    settings = loaded(tmp_path, SANIC_PROXY_OTLP_ENDPOINT="https://otlp.example", **given)
    found = settings.tracing.proxy
    assert (None if found is None else found.reveal()) == proxy


def test_the_password_of_the_outbound_proxy_is_a_secret(tmp_path: Path) -> None:
    given = {"HTTPS_PROXY": "http://user:canary-0123456789@proxy"}
    settings = loaded(tmp_path, SANIC_PROXY_OTLP_ENDPOINT="https://otlp.example", **given)
    assert "canary-0123456789" in settings.secrets
    assert "canary" not in repr(settings)


def test_a_key_of_the_receiver_is_a_secret(tmp_path: Path) -> None:
    settings = loaded(tmp_path, SANIC_PROXY_OTLP_HEADERS="x-key=canary-0123456789")
    assert "canary-0123456789" in settings.secrets
    assert "canary" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("SANIC_PROXY_OTLP_ENDPOINT", "localhost:4318", "SANIC_PROXY_OTLP_ENDPOINT"),
        (f"{OTEL}ENDPOINT", "localhost:4318", f"(from {OTEL}ENDPOINT)"),
        ("SANIC_PROXY_OTLP_ENDPOINT", "http://user:pass@a", "SANIC_PROXY_OTLP_ENDPOINT"),
        ("SANIC_PROXY_OTLP_HEADERS", "canary", "SANIC_PROXY_OTLP_HEADERS"),
        ("SANIC_PROXY_OTLP_HEADERS", "x-key=a%0D%0Acanary: b", "SANIC_PROXY_OTLP_HEADERS"),
        ("SANIC_PROXY_TRACE_SAMPLE", "1.5", "SANIC_PROXY_TRACE_SAMPLE"),
        ("SANIC_PROXY_TRACE_NAMES", "genai", "SANIC_PROXY_TRACE_NAMES"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, value: str, shown: str) -> None:
    with pytest.raises(SettingsError) as caught:
        loaded(tmp_path, **{name: value})
    (problem,) = caught.value.problems
    assert shown in problem
    assert "canary" not in problem
