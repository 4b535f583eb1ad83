"""scripts/deploy/nginx/nginx.conf, run by a real nginx in front of a real proxy."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatusCode
from websockets.legacy.client import connect

from tests.support.load import wait_until
from tests.support.nginx import CONF, Nginx, needs_nginx, running_nginx, tls_context
from tests.support.proxy import Proxy, free_port, running_proxy
from tests.support.response_websocket import Socket
from tests.support.settings import provider_settings
from tests.support.stored_responses import echo
from tests.support.upstream import DONE, Exchange, Upstream, completion, frame, text_stream

pytestmark = needs_nginx

CLIENT_KEY = "ck-canary-0123456789"
SMALL = {
    # Sizes and times that a test can wait for.
    "client_header_timeout 10s;": "client_header_timeout 1s;",
    "client_body_timeout 30s;": "client_body_timeout 1s;",
    "client_max_body_size 32m;": "client_max_body_size 1m;",
    "client_max_body_size 512m;": "client_max_body_size 4m;",
}


@pytest.fixture(scope="module")
def instance(shared_upstream: Upstream) -> Iterator[Proxy]:
    settings = {**provider_settings(shared_upstream), "SANIC_PROXY_API_KEYS": CLIENT_KEY}
    with running_proxy(settings) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def nginx(instance: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with running_nginx(tmp_path_factory.mktemp("nginx"), [instance.port], SMALL) as started:
        yield started
        log = started.log
    assert CLIENT_KEY not in log
    assert "[emerg]" not in log


def request(
    path: str = "/v1/chat/completions",
    body: bytes | None = None,
    *lines: str,
    method: str = "POST",
    connection: str = "close",
) -> bytes:
    """A request as bytes, with the client's key."""
    head = [f"{method} {path} HTTP/1.1", "host: localhost", f"authorization: Bearer {CLIENT_KEY}"]
    head += [f"connection: {connection}", *lines]
    if body is not None:
        head += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + (body or b"")


def chat(model: str, **fields: Any) -> bytes:
    fields = {"model": model, "messages": [{"role": "user", "content": "Hi"}], **fields}
    return json.dumps(fields).encode()


def parsed(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(status.split()[1]), headers, body


def error_of(answer: bytes) -> tuple[int, str]:
    """Status and code of an error that is JSON in OpenAI's shape."""
    status, headers, body = parsed(answer)
    assert headers["content-type"] == "application/json", answer
    assert headers["x-request-id"]
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    may_be_repeated = {429, 500, 502, 503, 504}
    assert (headers.get("x-should-retry") == "false") is (status not in may_be_repeated)
    return status, error["code"]


def test_a_whole_answer_and_an_error_of_the_proxy_pass(nginx: Nginx, upstream: Upstream) -> None:
    upstream.on("whole", lambda exchange: exchange.answer(completion()))
    status, headers, body = parsed(nginx.raw(request(body=chat("groq/whole"))))
    assert (status, headers["content-type"]) == (200, "application/json")
    assert b"Hello!" in body
    status, headers, body = parsed(nginx.raw(request(body=b"{")))
    assert status == 400
    assert b"JSON" in body
    missing = parsed(nginx.raw(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
    assert missing[0] == 401
    assert b"invalid_api_key" in missing[2]


def test_a_websocket_passes_where_there_is_one(nginx: Nginx, upstream: Upstream) -> None:
    upstream.on("g", echo)
    headers = {"authorization": f"Bearer {CLIENT_KEY}"}

    async def talk(path: str) -> str:
        async with connect(
            f"wss://localhost:{nginx.port}{path}", ssl=tls_context(), extra_headers=headers
        ) as connection:
            socket_ = Socket(connection)
            last = await socket_.create()
            text: str = last["response"]["output"][0]["content"][0]["text"]
            return text

    assert asyncio.run(talk("/v1/responses")) == "Hi"
    with pytest.raises(InvalidStatusCode):
        asyncio.run(talk("/v1/models"))
    upgrade = (
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
    )
    assert parsed(nginx.raw(request("/v1/models", None, *upgrade, method="GET")))[0] == 200


def test_a_stream_arrives_frame_by_frame(nginx: Nginx, upstream: Upstream) -> None:
    seen: list[int] = []  # one entry per frame that the client has

    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        role, *pieces = text_stream("a", "b", "c")
        await exchange.chunk(role)  # held back by the proxy until content comes
        for number, piece in enumerate(pieces, 2):
            await exchange.chunk(piece)
            # The next frame goes out when the client has this one: buffered anywhere, nothing would move.
            until = time.monotonic() + 60
            while len(seen) < number:
                assert time.monotonic() < until
                await asyncio.sleep(0.005)
        await exchange.end_stream()

    upstream.on("frames", script)
    with nginx.connect() as client:
        client.sendall(request(body=chat("groq/frames", stream=True)))
        received = b""
        count = 0
        while DONE not in received:
            piece = client.recv(65536)
            assert piece, received
            received += piece
            while received.count(b"\n\n") > count:
                count += 1
                seen.append(count)
    head = received.partition(b"\r\n\r\n")[0].lower()
    assert b"text/event-stream" in head
    assert b"x-accel-buffering" not in head
    assert count == len(text_stream("a", "b", "c"))


@pytest.mark.row(74)
def test_a_pause_longer_than_nginx_would_wait_is_filled(upstream: Upstream, tmp_path: Path) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(frame({"content": "a"}))
        await asyncio.sleep(2.5)
        for piece in text_stream("b")[1:]:
            await exchange.chunk(piece)
        await exchange.end_stream()

    upstream.on("paused", script)
    settings = {**provider_settings(upstream), "SANIC_PROXY_HEARTBEAT_INTERVAL": "0.3"}
    impatient = {"proxy_read_timeout 660s;": "proxy_read_timeout 1s;"}
    with running_proxy(settings) as proxy, running_nginx(tmp_path, [proxy.port], impatient) as nginx:
        answer = nginx.raw(request(body=chat("groq/paused", stream=True)))
    assert b": ping\n" in answer
    assert DONE in answer


def test_a_client_that_disconnects_cancels_the_upstream_request(nginx: Nginx, upstream: Upstream) -> None:
    left = threading.Event()

    async def script(exchange: Exchange) -> None:
        if exchange.seen.json.get("stream"):
            await exchange.begin_stream()
            await exchange.chunk(frame({"content": "a"}))
        await exchange.client_leaves()
        left.set()

    upstream.on("leaves", script)
    for stream in (True, False):
        left.clear()
        with nginx.connect() as client:
            client.sendall(request(body=chat("groq/leaves", stream=stream)))
            if stream:
                client.recv(65536)
            else:
                wait_until(lambda: len(upstream.seen("leaves")) == 2)
        assert left.wait(60)


# nginx's own errors


def test_errors_of_nginx_are_openai_json(nginx: Nginx) -> None:
    large = b"x" * 1_100_000
    assert error_of(nginx.raw(request(body=large))) == (413, "request_too_large")
    assert error_of(nginx.raw(b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n")) == (400, "bad_request")
    assert error_of(nginx.raw(request("/" + "x" * 9000))) == (414, "uri_too_long")
    assert error_of(nginx.raw(request("/", None, "x-large: " + "x" * 9000))) == (431, "request_too_large")
    assert error_of(nginx.raw(request("/", None, "transfer-encoding: gzip"))) == (501, "not_implemented")
    assert error_of(nginx.raw(b"GET / HTTP/3.0\r\nhost: a\r\n\r\n")) == (505, "http_version")


@pytest.mark.row(43)
def test_slow_clients_are_disconnected(nginx: Nginx) -> None:
    whole = request(body=b"x" * 100)
    for slow in (whole[:-50], whole[:30]):
        started = time.monotonic()
        assert nginx.raw(slow, 60) == b""
        assert time.monotonic() - started < 30


def test_no_client_can_request_an_error_page(nginx: Nginx) -> None:
    assert error_of(nginx.raw(request("/_error", method="GET"))) == (404, "not_found")


def test_plain_http_on_the_tls_port_gets_an_error(nginx: Nginx) -> None:
    with socket.create_connection(("127.0.0.1", nginx.port), timeout=60) as client:
        client.sendall(request("/"))
        received = b""
        while piece := client.recv(65536):
            received += piece
    assert error_of(received) == (400, "bad_request")


def test_a_host_of_another_name_gets_no_certificate(nginx: Nginx) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", nginx.port), timeout=60) as plain,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(plain, server_hostname="elsewhere.example")


def test_a_host_that_is_not_the_certificates_gets_no_answer(nginx: Nginx) -> None:
    answer = nginx.raw(b"GET /health HTTP/1.1\r\nhost: elsewhere.example\r\nconnection: close\r\n\r\n")
    assert error_of(answer) == (421, "misdirected_request")


def test_a_proxy_that_is_down_is_a_502_that_may_be_repeated(tmp_path: Path) -> None:
    with running_nginx(tmp_path, [free_port(), free_port()]) as nginx:
        answer = nginx.raw(request(body=chat("a")))
    assert error_of(answer) == (502, "proxy_unreachable")
    headers = parsed(answer)[1]
    assert headers["retry-after"] == "1"
    assert "x-should-retry" not in headers


def test_an_instance_that_is_down_is_passed_over_by_a_post(
    instance: Proxy, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.on("whole", lambda exchange: exchange.answer(completion()))
    with running_nginx(tmp_path, [free_port(), instance.port]) as nginx:
        for _ in range(6):
            assert parsed(nginx.raw(request(body=chat("groq/whole"))))[0] == 200


def test_too_many_connections_of_one_client_get_an_error(
    instance: Proxy, upstream: Upstream, tmp_path: Path
) -> None:
    async def waits(exchange: Exchange) -> None:
        await exchange.client_leaves()

    upstream.on("waits", waits)
    limits = {"limit_conn per_client 100;": "limit_conn per_client 1;"}
    with running_nginx(tmp_path, [instance.port], limits) as nginx, nginx.connect() as first:
        first.sendall(request(body=chat("groq/waits")))
        wait_until(lambda: bool(upstream.seen("waits")))
        answer = nginx.raw(request("/health", method="GET"))
        assert error_of(answer) == (429, "too_many_connections")
        assert parsed(answer)[1]["retry-after"] == "1"


# Uploads


def test_a_form_is_sent_on_while_it_comes(nginx: Nginx, upstream: Upstream) -> None:
    arrived = threading.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.reader.readuntil(b"first part")
        arrived.set()
        await exchange.reader.readuntil(b"--end--")
        await exchange.answer({"id": "file-1"})

    upstream.on_head("POST /openai/v1/files", script)
    body = b"--end\r\ncontent-disposition: form-data; name=file; filename=a\r\n\r\n"
    first, rest = body + b"first part", b"x" * 3_000_000 + b"\r\n--end--\r\n"
    kind = "content-type: multipart/form-data; boundary=end"
    length = f"content-length: {len(first) + len(rest)}"
    with nginx.connect() as client:
        client.sendall(request("/v1/files", None, kind, length, "x-provider: groq") + first)
        assert arrived.wait(60)
        client.sendall(rest)
        assert b"200 OK" in client.recv(65536)
    too_long = request("/files", None, kind, "content-length: 5000000", "x-provider: groq")
    assert error_of(nginx.raw(too_long, 0.5)) == (413, "request_too_large")


# What a client cannot do


HOSTILE = {
    "two lengths": "content-length: 5\r\ncontent-length: 6",
    "length twice": "content-length: 5\r\ncontent-length: 5",
    "length and chunks": "content-length: 5\r\ntransfer-encoding: chunked",
    "length list": "content-length: 5, 5",
    "signed length": "content-length: +5",
    "hexadecimal length": "content-length: 0x5",
    "full-width length": "content-length: \uff15",
    "space before the colon": "content-length : 5",
    "chunks, space before the colon": "transfer-encoding : chunked",
    "gzip and chunks": "transfer-encoding: gzip, chunked",
    "identity": "transfer-encoding: identity",
    "vertical tab": "transfer-encoding: \x0bchunked",
    "folded header": "x-a: b\r\n c: d\r\ncontent-length: 5",
    "bare CR": "x-a: b\rcontent-length: 5",
    "NUL": "x-a: b\0c\r\ncontent-length: 5",
    "two hosts": "host: elsewhere\r\ncontent-length: 5",
}
SMUGGLED = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx-request-id: smuggled\r\n\r\n"
CHUNKS = {
    "hexadecimal size": b"0x5\r\nhello\r\n0\r\n\r\n",
    "spaces around the size": b" 5 \r\nhello\r\n0\r\n\r\n",
    "digits of another script": "\u0665\r\nhello\r\n0\r\n\r\n".encode(),
    "junk for the line end": b"5\r\nhelloXX0\r\n\r\n",
    "line feed in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "trailer": b"5\r\nhello\r\n0\r\ncontent-length: 99\r\n\r\n",
}


@contextmanager
def recorder() -> Iterator[tuple[int, list[bytes]]]:
    """Takes an instance's place: what nginx sends on each connection, as it comes."""
    seen: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    is_over = threading.Event()

    def serve() -> None:
        while not is_over.is_set():
            try:
                client = listener.accept()[0]
            except TimeoutError:
                continue
            with client:
                client.settimeout(0.3)
                received = b""
                try:
                    while piece := client.recv(65536):
                        received += piece
                except TimeoutError:
                    client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
                seen.append(received)

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1], seen
    is_over.set()
    thread.join()
    listener.close()


def hostile_requests() -> list[tuple[str, bytes]]:
    head = "POST /v1/chat/completions HTTP/1.1\r\n"
    requests = [
        (name, f"{head}host: localhost\r\n{lines}\r\n\r\n".encode() + b"hello" + SMUGGLED)
        for name, lines in HOSTILE.items()
    ]
    chunked = f"{head}host: localhost\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    requests += [(name, chunked + body + SMUGGLED) for name, body in CHUNKS.items()]
    old = f"{head.replace('1.1', '1.0')}host: localhost\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    requests.append(("chunks in HTTP/1.0", old + b"5\r\nhello\r\n0\r\n\r\n" + SMUGGLED))
    requests.append(("no host", b"GET / HTTP/1.1\r\n\r\n" + SMUGGLED))
    requests.append(
        ("bare line feed", head.encode() + b"host: localhost\ncontent-length: 5\r\n\r\nhello" + SMUGGLED)
    )
    return requests


@pytest.mark.row(56)
def test_ambiguous_requests_are_rejected_or_normalized_by_nginx(tmp_path: Path) -> None:
    with recorder() as (port, seen), running_nginx(tmp_path, [port, free_port()], SMALL) as nginx:
        for name, data in hostile_requests():
            seen.clear()
            answer = nginx.raw(data, 1.5)
            for passed in seen:
                # What nginx accepts, it forwards unambiguously: one head, one length, all of it.
                first, _, body = passed.partition(b"\r\n\r\n")
                assert b"transfer-encoding" not in first.lower(), name
                lines = first.lower().split(b"\r\n")
                lengths = [line for line in lines if line.startswith(b"content-length:")]
                assert len(lengths) <= 1, name
                assert len(body) == (int(lengths[0].partition(b":")[2]) if lengths else 0), (name, passed)
                assert sum(line.startswith(b"host:") for line in lines) == 1, name
                assert b"\0" not in first, name
            assert answer or seen, name


def test_a_request_inside_a_body_is_never_answered(nginx: Nginx, instance: Proxy) -> None:
    known = instance.log.count("id=smuggled")
    for name, data in hostile_requests():
        # A request behind another one is the client's good right; one that hides in a body is not.
        answers = nginx.raw(data.replace(SMUGGLED, b"").replace(b"hello", SMUGGLED[:5]), 0.3)
        assert answers.count(b"HTTP/1.1 ") <= 1, name
    status, _, _ = parsed(nginx.raw(request(body=b'{"a": "' + SMUGGLED + b'"}')))
    assert status == 400
    assert instance.log.count("id=smuggled") == known


@pytest.mark.row(57)
def test_forwarding_headers_cannot_be_spoofed(tmp_path: Path) -> None:
    spoofed = [
        *("X-Forwarded-For: 1.2.3.4", "X-Real-IP: 1.2.3.4", "X-Forwarded-Proto: gopher"),
        *("X-Forwarded-Host: evil.example", "X-Forwarded-Port: 1", "X-Forwarded-Path: /evil"),
        *("X-Forwarded-Prefix: /evil", "X-Forwarded-Server: evil.example", "X-Forwarded-Scheme: gopher"),
        *("Forwarded: for=1.2.3.4;host=evil.example", "X-Original-URL: /evil", "X-Rewrite-URL: /evil"),
        *("X_Forwarded_For: 1.2.3.4", "TE: trailers", "X-Request-Id: a b"),
    ]
    with recorder() as (port, seen), running_nginx(tmp_path, [port, free_port()]) as nginx:
        nginx.raw(request("/v1/models", None, *spoofed, method="GET"))
    head = seen[0].decode("latin-1").lower()
    for trace in ("1.2.3.4", "evil", "gopher", "trailers", "a b"):
        assert trace not in head
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
    assert fields["x-forwarded-for"] == fields["x-real-ip"] == "127.0.0.1"
    assert fields["x-forwarded-proto"] == "https"
    assert fields["host"] == "localhost"


def test_the_limits_fit_the_proxys() -> None:
    for size, variable in (("32m", "SANIC_PROXY_MAX_BODY_BYTES"), ("512m", "SANIC_PROXY_MAX_UPLOAD_BYTES")):
        assert f"client_max_body_size {size};  # {variable}" in CONF
    assert 32 * 2**20 == 33554432
    assert 512 * 2**20 == 536870912
