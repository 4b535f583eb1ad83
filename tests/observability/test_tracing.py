"""Traces of a running proxy, at a receiver: ids, parents, targets that take part, sampling, the log line."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.admin import ADMIN_KEY, CLIENT_KEY, SETTINGS, bearer
from tests.support.load import wait_until
from tests.support.metrics import samples, total
from tests.support.otlp import TRACES, judged, received, take, values
from tests.support.proxy import Proxy, running_proxy
from tests.support.upstream import Exchange, Upstream, completion, text_stream

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
RECEIVER_KEY = "otlp-canary-0123456789"
CONFIG = """
[providers.joins]
base_url = "{url}/joins/v1"
trace = true

[providers.private]
base_url = "{url}/private/v1"

[models.fast]
targets = ["private/broken", "joins/good"]
"""


@pytest.fixture(scope="module")
def receiver() -> Iterator[Upstream]:
    made = Upstream()
    made.start()
    made.on(TRACES, take)
    yield made
    made.stop()
    assert made.problems == []


def settings(upstream: Upstream, receiver: Upstream, directory: Path) -> dict[str, str]:
    config = directory / "proxy.toml"
    config.write_text(CONFIG.format(url=upstream.url))
    return {
        "SANIC_PROXY_CONFIG": str(config),
        "SANIC_PROXY_BREAKER": "off",
        "SANIC_PROXY_ATTEMPTS_PER_TARGET": "1",
        "SANIC_PROXY_OTLP_ENDPOINT": receiver.url,
        "SANIC_PROXY_OTLP_HEADERS": f"x-receiver-key={RECEIVER_KEY}",
        "OTEL_RESOURCE_ATTRIBUTES": "team=blue",
        "SANIC_PROXY_ECHO": "on",
    }


@pytest.fixture(scope="module")
def traced(
    shared_upstream: Upstream, receiver: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    directory = tmp_path_factory.mktemp("traced")
    with running_proxy(settings(shared_upstream, receiver, directory)) as proxy:
        proxy.secrets += (RECEIVER_KEY,)
        yield proxy


async def good(exchange: Exchange) -> None:
    if exchange.seen.json.get("stream"):
        await exchange.stream(text_stream("a", "b"))
    else:
        await exchange.answer(completion())


async def broken(exchange: Exchange) -> None:
    await exchange.answer({"error": {"message": "no"}}, 500)


@pytest.fixture(autouse=True)
def scripts(shared_upstream: Upstream) -> None:
    shared_upstream.on("good", good)
    shared_upstream.on("broken", broken)


def spans_of(receiver: Upstream, request_id: str) -> list[Span]:
    """The spans of a request, the SERVER span first."""

    def of_request() -> list[Span]:
        spans = received(receiver)
        servers = [s for s in spans if values(s.attributes).get("sanic_proxy.request_id") == request_id]
        return [*servers, *(s for s in spans if servers and s.parent_span_id == servers[0].span_id)]

    wait_until(lambda: bool(of_request()))
    return of_request()


def test_an_attempt_that_fails_and_one_that_answers(
    traced: Proxy, receiver: Upstream, shared_upstream: Upstream
) -> None:
    before = time.time_ns()
    headers = {"traceparent": SAMPLED, "tracestate": "vendor=1"}
    reply = traced.chat("fast", headers={**headers, "x-request-id": "fails-over"})
    assert reply.status == 200
    server, first, second = spans_of(receiver, "fails-over")
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE, PARENT)
    assert [values(span.attributes).get("error.type") for span in (first, second)] == ["upstream_error", None]
    assert [values(span.attributes)["sanic_proxy.target"] for span in (first, second)] == [
        "private/broken",
        "joins/good",
    ]
    assert [link.span_id for link in second.links] == [first.span_id]
    assert values(second.links[0].attributes) == {"sanic_proxy.link": "fallback"}
    assert values(second.attributes)["gen_ai.usage.input_tokens"] == 9
    assert values(second.attributes)["server.address"] == "127.0.0.1"
    assert before <= server.start_time_unix_nano + 10**9
    assert server.start_time_unix_nano <= first.start_time_unix_nano <= second.start_time_unix_nano
    assert second.end_time_unix_nano <= server.end_time_unix_nano <= time.time_ns() + 10**9
    asked = {seen.path: seen for seen in shared_upstream.requests[-2:]}
    joined, private = asked["/joins/v1/chat/completions"], asked["/private/v1/chat/completions"]
    assert private.header("traceparent") is private.header("tracestate") is None
    assert joined.header("traceparent") == f"00-{TRACE}-{second.span_id.hex()}-01"
    assert joined.header("tracestate") == "vendor=1"
    assert f"trace_id={TRACE}" in traced.log_line("fails-over")
    resource = values(judged(receiver.requests[-1].json).resource_spans[0].resource.attributes)
    assert (resource["service.name"], resource["team"]) == ("sanic-proxy", "blue")
    assert receiver.requests[-1].header("x-receiver-key") == RECEIVER_KEY


def test_a_stream_is_one_attempt_until_its_end(traced: Proxy, receiver: Upstream) -> None:
    reply, _ = traced.stream("joins/good", headers={"x-request-id": "streams"})
    assert reply.status == 200
    server, client = spans_of(receiver, "streams")
    assert server.parent_span_id == b""
    assert values(server.attributes)["sanic_proxy.stream"] is True
    assert client.end_time_unix_nano == server.end_time_unix_nano


def test_an_endpoint_that_passes_through(
    traced: Proxy, receiver: Upstream, shared_upstream: Upstream
) -> None:
    body = {"model": "joins/good", "input": "a"}
    reply = traced.request("POST", "/v1/embeddings", body, {"x-request-id": "embeds"})
    assert reply.status == 200
    _, client = spans_of(receiver, "embeds")
    assert (client.name, values(client.attributes)["gen_ai.operation.name"]) == (
        "embeddings good",
        "embeddings",
    )
    sent = shared_upstream.requests[-1].header("traceparent")
    assert sent == f"00-{client.trace_id.hex()}-{client.span_id.hex()}-01"


def test_a_caller_that_has_not_sampled_decides(
    traced: Proxy, receiver: Upstream, shared_upstream: Upstream
) -> None:
    trace_id = "1" * 32
    headers = {"traceparent": f"00-{trace_id}-{PARENT}-00", "x-request-id": "not-sampled"}
    assert traced.chat("joins/good", headers=headers).status == 200
    sent = shared_upstream.requests[-1].header("traceparent") or ""
    assert re.fullmatch(f"00-{trace_id}-[0-9a-f]{{16}}-00", sent)
    assert f"trace_id={trace_id}" in traced.log_line("not-sampled")
    traced.chat("joins/good", headers={"x-request-id": "after"})
    spans_of(receiver, "after")
    assert trace_id not in {span.trace_id.hex() for span in received(receiver)}


@pytest.mark.parametrize("parent", ["00-a-b-01", "ü", f"{SAMPLED}-x"])
def test_an_invalid_parent_begins_a_new_trace(traced: Proxy, receiver: Upstream, parent: str) -> None:
    request_id = f"invalid-{len(parent)}"
    headers = {"traceparent": parent, "tracestate": "a=1", "x-request-id": request_id}
    assert traced.chat("joins/good", headers=headers).status == 200
    server, *_ = spans_of(receiver, request_id)
    assert server.parent_span_id == b""
    assert (server.trace_state, server.trace_id.hex() == TRACE) == ("", False)


def test_a_refused_request_has_a_span_too(traced: Proxy, receiver: Upstream) -> None:
    reply = traced.request("POST", "/v1/chat/completions", b"{", {"x-request-id": "refused"})
    assert reply.status == 400
    (server,) = spans_of(receiver, "refused")
    assert values(server.attributes)["http.response.status_code"] == 400


def test_none_of_the_roots_is_sampled_and_the_names_are_new(
    shared_upstream: Upstream, receiver: Upstream, tmp_path: Path
) -> None:
    further = {"SANIC_PROXY_TRACE_SAMPLE": "0", "SANIC_PROXY_TRACE_NAMES": "genai-new"}
    with running_proxy({**settings(shared_upstream, receiver, tmp_path), **further}) as proxy:
        for number in range(5):
            proxy.chat("joins/good", headers={"x-request-id": f"root-{number}"})
        proxy.chat("joins/good", headers={"traceparent": SAMPLED, "x-request-id": "child"})
        _, client = spans_of(receiver, "child")
        assert "gen_ai.system" not in values(client.attributes)
        assert "trace_id=" in proxy.log_line("root-0")
    ids = {values(span.attributes).get("sanic_proxy.request_id") for span in received(receiver)}
    assert not {f"root-{number}" for number in range(5)} & ids


def test_the_last_spans_are_sent_when_the_proxy_stops(
    shared_upstream: Upstream, receiver: Upstream, tmp_path: Path
) -> None:
    with running_proxy(settings(shared_upstream, receiver, tmp_path)) as proxy:
        proxy.chat("joins/good", headers={"x-request-id": "last"})
    ids = [values(span.attributes).get("sanic_proxy.request_id") for span in received(receiver)]
    assert "last" in ids


def test_without_traces_a_target_gets_the_clients_own_headers(
    shared_upstream: Upstream, receiver: Upstream, tmp_path: Path
) -> None:
    off = {**settings(shared_upstream, receiver, tmp_path), "SANIC_PROXY_OTLP_ENDPOINT": ""}
    with running_proxy(off) as proxy:
        headers = {"traceparent": SAMPLED, "tracestate": "a=1", "x-request-id": "untraced"}
        proxy.chat("joins/good", headers=headers)
        seen = shared_upstream.requests[-1]
        assert (seen.header("traceparent"), seen.header("tracestate")) == (SAMPLED, "a=1")
        assert "trace_id" not in proxy.log_line("untraced")


@pytest.mark.row(85)
def test_a_receiver_that_hangs_delays_nothing_and_drops_are_counted(
    shared_upstream: Upstream, tmp_path: Path
) -> None:
    async def busy(exchange: Exchange) -> None:
        await exchange.answer({}, 400)

    async def hang(exchange: Exchange) -> None:
        await exchange.client_leaves()

    with ExitStack() as stack:
        ill = Upstream()
        ill.start()
        stack.callback(ill.stop)
        ill.on(TRACES, busy)
        given = {**settings(shared_upstream, ill, tmp_path), **SETTINGS}
        proxy = stack.enter_context(running_proxy(given))

        def dropped() -> float:
            text = proxy.request("GET", "/metrics", headers=bearer(ADMIN_KEY)).body.decode()
            return total(samples(text), "sanic_proxy_dropped_traces_total")

        assert proxy.chat("joins/good", headers=bearer(CLIENT_KEY)).status == 200
        wait_until(lambda: dropped() >= 1)
        wait_until(lambda: "requests were dropped" in proxy.log)
        ill.on(TRACES, hang)
        seen = len(ill.requests)
        proxy.chat("joins/good", headers=bearer(CLIENT_KEY))
        wait_until(lambda: len(ill.requests) > seen)
        assert proxy.chat("joins/good", headers=bearer(CLIENT_KEY)).status == 200
        # The proxy stops before the receiver does, though it never answers.
