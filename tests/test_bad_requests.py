"""What clients send by mistake or on purpose: an error of OpenAI's shape, or what they sent."""

from __future__ import annotations

import functools
import json
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from loadtest.faulty_upstream import FaultyUpstream
from loadtest.raw_client import chat_request
from tests.support.faulty import faulty_upstream
from tests.support.load import wait_until
from tests.support.machine import cpu_s, descriptors, least_cost
from tests.support.proxy import Proxy, Reply, running_proxy
from tests.support.settings import GROQ_KEY, ONCE, STRAICO_KEY
from tests.support.upstream import Exchange, Upstream, completion

# In units of `reference_s`, about a tenth of a second of a fast core; the most expensive body takes five.
LONGEST_COST = 8.0
MESSAGES = '"messages":[{"role":"user","content":"x"}]'


@pytest.fixture(scope="module")
def roomy() -> Iterator[tuple[FaultyUpstream, Proxy]]:
    """A proxy with the default limits."""
    with faulty_upstream() as (upstream, port):
        settings = {
            **ONCE,
            "GROQ_API_KEY": GROQ_KEY,
            "GROQ_BASE_URL": f"http://127.0.0.1:{port}/v1",
            "STRAICO_API_KEY": STRAICO_KEY,
            "STRAICO_BASE_URL": f"http://127.0.0.1:{port}",
            "SANIC_PROXY_ROUTER": "on",
            "SANIC_PROXY_ECHO": "on",
        }
        with running_proxy(settings) as proxy:
            yield upstream, proxy
        assert "Traceback" not in proxy.log


# Expensive bodies


HEAD = f'{{"model":"MODEL",{MESSAGES},"x":'.encode()
MILLION = 1_000_000
# Bodies that cost much to parse or to search, for the model MODEL.
EXPENSIVE: dict[str, Callable[[], bytes]] = {
    "depth 1025": lambda: HEAD + b"[" * 1025 + b"]" * 1025 + b"}",
    "depth 100k": lambda: HEAD + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "open brackets": lambda: b"[" * MILLION,
    "open objects": lambda: b'{"a":' * MILLION,
    "1M keys": lambda: HEAD + b"{" + b",".join(b'"k%d":1' % n for n in range(MILLION)) + b"}}",
    "1M parameters": lambda: HEAD + b"1," + b",".join(b'"k%d":1' % n for n in range(MILLION)) + b"}",
    "1M models": lambda: HEAD + b"[" + b",".join([b'{"model":1}'] * MILLION) + b"]}",
    "1M lists": lambda: HEAD + b"[" + b",".join([b"[]"] * MILLION) + b',"model"]}',
    "deep lists": lambda: HEAD + b"[" + b",".join([b"[" * 700 + b"]" * 700] * 140) + b',"model"]}',
    "90k lists": lambda: HEAD + b"[" + b",".join([b"[]"] * 90_000) + b',"model"]}',
    "55k keys": lambda: HEAD + b"{" + b",".join(b'"model%d":1' % n for n in range(55_000)) + b"}}",
    "many of all": lambda: (
        HEAD
        + b'["model",'
        + b",".join([b"[]"] * 40_000 + [b'{"model":"x"}'] * 55_000 + [b'"y"'] * 390_000)
        + b"]}"
    ),
    "escaped key": lambda: HEAD.replace(b"model", b"mod\\u0065l") + b'["' + b"\\u0065" * MILLION + b'"]}',
    "10 MB text": lambda: HEAD + b'"' + b"x" * 10 * MILLION + b'"}',
    "10 MB of escapes": lambda: HEAD + b'"' + b"\\u00e9" * (10 * MILLION // 6) + b'"}',
    "10 MB of quotes": lambda: HEAD + b'"' + b'\\"' * 5 * MILLION + b'"}',
    "10 MB of backslashes": lambda: HEAD + b'"' + b"\\\\" * 5 * MILLION + b'","y":"model"}',
    "10 MB key": lambda: HEAD + b'1,"' + b"x" * 10 * MILLION + b'":1}',
    "10 MB model": lambda: HEAD.replace(b"MODEL", b"x" * 10 * MILLION) + b"1}",
    "10 MB number": lambda: HEAD + b"1" * 10 * MILLION + b"}",
    "10 MB of blanks": lambda: b" " * 10 * MILLION,
    "40 digits": lambda: HEAD + b"1" * 40 + b"}",
    "1e400": lambda: HEAD + b"1e400}",
    "NaN": lambda: HEAD + b"NaN}",
}
REFUSED = (
    *("depth 1025", "depth 100k", "open brackets", "open objects", "1M keys", "1M parameters", "1M models"),
    *("1M lists", "10 MB number", "10 MB of blanks", "1e400", "NaN", "many of all"),
)
TAKEN = (
    *(
        "90k lists",
        "55k keys",
        "escaped key",
        "10 MB text",
        "10 MB of escapes",
        "10 MB of quotes",
    ),
    *("10 MB of backslashes", "10 MB key", "40 digits", "deep lists"),
)


@functools.lru_cache(maxsize=1)
def expensive_body(what: str) -> bytes:
    """The tests with the three models follow each other: each body is made once."""
    return EXPENSIVE[what]()


@pytest.mark.row(47, 48, 49, 70)
@pytest.mark.parametrize("model", ["groq/good", "straico/openai/gpt-4o", "echo/echo"])
@pytest.mark.parametrize("what", [*REFUSED, *TAKEN, "10 MB model"])
def test_no_body_takes_a_tenth_of_a_second(
    roomy: tuple[FaultyUpstream, Proxy], what: str, model: str
) -> None:
    """Of CPU: a worker does nothing else meanwhile."""
    _, proxy = roomy
    body = expensive_body(what).replace(b"MODEL", model.encode())
    replies: list[Reply] = []

    def send_body() -> None:
        replies.append(proxy.request("POST", "/v1/chat/completions", body))

    proxy.request("GET", "/health")
    assert least_cost(send_body, enough=LONGEST_COST, clock=lambda: cpu_s(proxy.process.pid)) < LONGEST_COST
    reply = replies[-1]
    if what in REFUSED:
        assert (reply.status, reply.error["type"]) == (400, "invalid_request_error")
    elif what == "10 MB model":
        assert (reply.status, reply.error["code"]) == (404, "model_not_found")
    elif model != "straico/openai/gpt-4o":  # which the faulty upstream knows no fault by
        assert reply.status == 200


# What passes unchanged


@pytest.mark.row(48, 50, 52, 53)
@pytest.mark.parametrize(
    "more",
    [
        '"seed":1234567890123456789012345678901234567890',
        '"n":9223372036854775808,"max_tokens":18446744073709551616',
        '"temperature":"1"',
        '"n":0',
        '"n":1000',
        '"temperature":1.00,"top_p":1e-2',
        '"x":"\\u0000 \\u2028 \u2028 \\ud83d\\ude00"',
        '"stop":null,"stop":["a"]',
        '"api_base":"http://127.0.0.1:1","nothing_that_anybody_knows":{"a":[{}]}',
    ],
)
def test_what_the_provider_has_to_judge_reaches_it_as_it_was(
    proxy: Proxy, upstream: Upstream, more: str
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(completion())

    upstream.on("judge", script)
    sent = f'{{ {MESSAGES}, "model": "groq/judge", {more} }}'.encode()
    assert proxy.request("POST", "/v1/chat/completions", sent).status == 200
    assert upstream.requests[-1].body == sent.replace(b"groq/judge", b"judge")


@pytest.mark.row(53)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
def test_no_field_or_header_steers_where_a_request_goes(
    roomy: tuple[FaultyUpstream, Proxy], path: str
) -> None:
    _, proxy = roomy
    with faulty_upstream() as (elsewhere, port):
        url = f"http://127.0.0.1:{port}/v1"
        names = (
            "api_base",
            "base_url",
            "api_key",
            "custom_llm_provider",
            "extra_headers",
            "endpoint",
            "proxy",
        )
        body = {
            "model": "groq/good",
            "messages": [{"role": "user", "content": "x"}],
            "input": "x",
            **dict.fromkeys(names, url),
            "extra_headers": {"host": url, "authorization": "Bearer x"},
        }
        headers = dict.fromkeys(
            ("x-api-base", "x-portkey-custom-host", "x-forwarded-host", "x-base-url"), url
        )
        assert proxy.request("POST", path, body, headers).status == 200
        assert elsewhere.connections == 0


@pytest.mark.row(54)
@pytest.mark.parametrize(
    "name",
    [
        *("a\r\nx: y", "\x00", "x\ny", "../../etc/passwd", "..%2f..%2f", "%2e%2e/", "' OR 1=1--", '"; drop'),
        *(
            "{{7*7}}",
            "${jndi:x}",
            "\u202egroq/x",
            "grоq/x",
            "g" * 10_000,
            "groq/" + "x" * 10_000,
            " ",
            "/",
            "//",
        ),
        *("http://127.0.0.1/x", "groq\\x", "\ufeffgroq/x"),
    ],
)
def test_no_name_of_a_model_is_more_than_a_name(proxy: Proxy, upstream: Upstream, name: str) -> None:
    reply = proxy.chat(name, headers={"x-request-id": "named-by-an-attacker"})
    assert reply.status in {404, 400}
    assert reply.error["type"] == "invalid_request_error"
    # What has no prefix is Straico's.
    assert all(
        seen.path == "/v2/chat/completions" and seen.json["model"] == name for seen in upstream.requests
    )
    assert all("named-by" not in line or line.startswith("20") for line in proxy.log.splitlines())


@pytest.mark.row(54, 58)
def test_a_name_goes_up_as_a_value_and_nowhere_else(proxy: Proxy, upstream: Upstream) -> None:
    name = "../..%2f{{7*7}}' OR\\\"1=1; ü 🎉"

    async def script(exchange: Exchange) -> None:
        await exchange.answer(completion())

    upstream.on(name, script)
    assert proxy.chat(f"groq/{name}").status == 200
    seen = upstream.requests[-1]
    assert (seen.path, seen.json["model"]) == ("/openai/v1/chat/completions", name)


@pytest.mark.row(52)
@pytest.mark.parametrize("field", ["temperature", "max_tokens", "tools", "stop", "tool_choice"])
@pytest.mark.parametrize("value", ["1" * 40, "1e300", '"1"', "[]", "[[]]", "{}", '{"a":1}', "true", "-1"])
def test_parameters_that_straico_does_not_support_are_named(
    proxy: Proxy, upstream: Upstream, field: str, value: str
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(completion())

    upstream.on("m", script)
    sent = f'{{"model":"straico/m",{MESSAGES},"{field}":{value}}}'.encode()
    reply = proxy.request("POST", "/v1/chat/completions", sent)
    assert reply.status in {200, 400}
    assert reply.status == 200 or str(reply.error["param"]).startswith(field)


# The connection and its headers


@pytest.mark.row(41)
@pytest.mark.parametrize("model", ["groq/good;hush=0", "groq/good;hush=400"])
@pytest.mark.parametrize("is_streaming", [False, True], ids=["whole", "streamed"])
def test_a_client_that_closes_its_half_has_left(
    roomy: tuple[FaultyUpstream, Proxy], model: str, is_streaming: bool
) -> None:
    """As nginx does: a FIN does not show whether the client still reads."""
    upstream, proxy = roomy
    request_id = f"half.{is_streaming}.{len(model)}"
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as client:
        client.sendall(chat_request(model, request_id, is_streaming=is_streaming))
        client.shutdown(socket.SHUT_WR)
        while client.recv(65536):
            pass
    assert "ended=client_left" in proxy.log_line(request_id)
    wait_until(lambda: upstream.open_connections <= 1)


@pytest.mark.row(57)
@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("/health", "a/admin?x=", 400),
        ("/health", "localhost/admin?x=", 400),
        ("/health", "evil.example", 403),
        ("http://localhost/health", "evil.example", 200),
        ("http://evil.example/v1/nothing", "localhost", 403),
        ("http://localhost/v1/nothing", "evil.example", 404),
        ("//v1/models", "localhost", 404),
        ("/v1//models", "localhost", 404),
        ("/v1/../health", "localhost", 404),
        ("/v1/%2e%2e/health", "localhost", 404),
        ("/v1/models/../../health", "localhost", 404),
        ("/v1/models/%00", "localhost", 404),
        ("/v1/files/%2e%2e%2fchat%2fcompletions?provider=groq", "localhost", 404),
    ],
)
def test_no_target_or_host_leads_elsewhere(proxy: Proxy, target: str, host: str, status: int) -> None:
    head = f"GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n"
    spoofed = "x-original-url: /health\r\nx-rewrite-url: /health\r\nx-forwarded-host: localhost\r\n"
    for request in (f"{head}\r\n", f"{head}{spoofed}\r\n"):
        answer = proxy.raw(request.encode())
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert status == 200 or set(json.loads(answer.partition(b"\r\n\r\n")[2])["error"]) == {
            "message",
            "type",
            "param",
            "code",
        }


@pytest.mark.row(58)
@pytest.mark.parametrize(
    "lines",
    [
        "connection: close, authorization, content-length, host\r\n",
        "te: trailers, deflate\r\nconnection: close, te\r\n",
        "upgrade: websocket\r\nconnection: close, upgrade\r\nsec-websocket-key: x\r\n",
        "proxy-authorization: Basic eDp5\r\nproxy-connection: keep-alive\r\nconnection: close\r\n",
        "keep-alive: timeout=1\r\ntrailer: x\r\nconnection: close\r\n",
        "accept-encoding: gzip, br\r\nconnection: close\r\nforwarded: for=1.2.3.4\r\n",
        "x-forwarded-for: 1.2.3.4\r\nx-real-ip: 1.2.3.4\r\nconnection: close\r\n",
    ],
)
def test_headers_of_one_hop_stay_there(proxy: Proxy, upstream: Upstream, lines: str) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(completion())

    upstream.on("hop", script)
    body = f'{{"model":"groq/hop",{MESSAGES}}}'
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n{lines}content-length: {len(body)}\r\n\r\n"
    )
    assert proxy.raw(f"{head}{body}".encode()).startswith(b"HTTP/1.1 200")
    names = {name.lower() for name, _ in upstream.requests[-1].headers}  # the upstream judges the rest
    sent = {line.partition(":")[0] for line in lines.split("\r\n")} - {"accept-encoding", ""}
    assert not names & sent
    assert upstream.requests[-1].header("authorization") == f"Bearer {GROQ_KEY}"


@pytest.mark.row(59)
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "HEAD"])
def test_a_405_lists_the_allowed_methods(proxy: Proxy, method: str) -> None:
    reply = proxy.request(method, "/v1/chat/completions")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")


# Descriptors


@pytest.mark.row(67)
def test_without_descriptors_streams_go_on_and_all_comes_back(roomy: tuple[FaultyUpstream, Proxy]) -> None:
    _, proxy = roomy
    pid = proxy.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    stream = chat_request("groq/good;words=20;pause=0.1", "outlives", is_streaming=True)
    with ExitStack() as opened:
        reader = opened.enter_context(socket.create_connection(("127.0.0.1", proxy.port), timeout=60))
        reader.sendall(stream)
        received = reader.recv(65536)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors(pid) + 4, before[1]))
        for _ in range(20):
            opened.enter_context(socket.create_connection(("127.0.0.1", proxy.port), timeout=60))
        spent = cpu_s(pid)
        time.sleep(0.5)  # what is measured is this: whether it turns in circles
        assert cpu_s(pid) - spent < 0.25
        while piece := reader.recv(65536):
            received += piece
        assert b"[DONE]" in received
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert proxy.chat("groq/good").status == 200
