"""HTTP/1.1 from the clients: what is understood, what is refused, and in which order it is answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sanic.exceptions import BadRequest, PayloadTooLarge
from sanic.http import Stage

from sanic_proxy.app import app
from sanic_proxy.errors import ClientError
from sanic_proxy.observability.in_flight import Traffic
from sanic_proxy.server.connection import ProxyHttp, ProxyProtocol
from sanic_proxy.server.request import HeaderFields, ProxyRequest, Reply, header_lines
from sanic_proxy.server.request_reader import MAX_QUEUED, MAX_UNREAD_BYTES
from tests.support.load import GENEROUS_S, wait_until, wait_until_still
from tests.support.machine import cpu_s
from tests.support.proxy import Proxy, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import Exchange, Upstream, completion, frame, text_stream

BODY = json.dumps({"model": "echo/echo", "messages": [{"role": "user", "content": "Hello"}]}).encode()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
REQUEST = HEAD + b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n%x;x=y\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n"
CLOSE = HEALTH + b"connection: close\r\n\r\n"


def statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


# Through a real proxy


@pytest.mark.parametrize("request_bytes", [REQUEST, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_request_in_pieces_is_the_same_request(proxy: Proxy, request_bytes: bytes, size: int) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(request_bytes), size):
            client.sendall(request_bytes[start : start + size])
        client.sendall(CLOSE)
        received = b""
        while piece := client.recv(65536):
            received += piece
    assert statuses(received) == [200, 200]
    assert b'"content":"Hello"' in received


def test_pipelined_requests_are_answered_in_their_order(proxy: Proxy) -> None:
    count = 3 * MAX_QUEUED
    pieces = [HEALTH + b"x-request-id: r%d\r\n\r\n" % index for index in range(count)]
    received = proxy.raw(b"".join(pieces) + CLOSE)
    ids = [
        line[len(b"x-request-id: r") :]
        for line in received.split(b"\r\n")
        if line.startswith(b"x-request-id: r")
    ]
    assert ids == [b"%d" % index for index in range(count)]


def test_a_request_behind_a_stream_waits_for_its_end(proxy: Proxy) -> None:
    body = BODY.replace(b'"model"', b'"stream":true,"model"')
    received = proxy.raw(HEAD + b"content-length: %d\r\n\r\n%b" % (len(body), body) + CLOSE)
    assert statuses(received) == [200, 200]
    assert received.index(b"[DONE]") < received.rindex(b"HTTP/1.1 200")


@pytest.mark.row(58)
def test_a_request_that_asks_for_http_2_is_served_as_it_is(proxy: Proxy) -> None:
    # Java's client sends this in front of each body.
    upgrade_headers = (
        b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAAB\r\n"
    )
    upgrade_request = HEAD + upgrade_headers + b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)
    received = proxy.raw(upgrade_request + upgrade_request + CLOSE)
    assert statuses(received) == [200, 200, 200]
    assert received.count(b'"content":"Hello"') == 2
    websocket = HEALTH + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n"
    assert statuses(proxy.raw(websocket + CLOSE)) == [200, 200]


@pytest.mark.row(56)
@pytest.mark.parametrize(
    "head",
    [
        b"content-length : 5\r\n\r\nhello",
        b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"content-length: 5\r\ncontent-length: 5\r\n\r\nhello",
        b"content-length: 2, 2\r\n\r\nhi",
        b"content-length: +2\r\n\r\nhi",
        b"content-length: 0x2\r\n\r\nhi",
        b"content-length: \xef\xbc\x92\r\n\r\nhi",
        b"transfer-encoding: identity\r\n\r\nhello",
        b"transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\n0x2\r\nhi\r\n0\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\n 2 \r\nhi\r\n0\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\n2\r\nhiXX0\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\n2;a\nb\r\nhi\r\n0\r\n\r\n",
        b"x: a\nb: c\r\n\r\n",
        b"x: a\rb\r\n\r\n",
        b"x: a\x00b\r\n\r\n",
        b"no colon\r\n\r\n",
        b": empty name\r\n\r\n",
        b"x y: z\r\n\r\n",
    ],
)
def test_what_two_servers_could_read_differently_is_refused(proxy: Proxy, head: bytes) -> None:
    """Row 56 of the smuggling corpus: an error, the connection's end, and never a second answer."""
    received = proxy.raw(HEAD + head + CLOSE)
    assert statuses(received) == [400]
    assert b"connection: close\r\n" in received


STRICT = [
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: cow\r\n\r\n0\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: ,chunked\r\n\r\n0\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n", 400),
    (b"POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"GET /health HTTP/1.1\r\n\r\n", 400),
    (b"GET /health HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", 400),
    (b"GET /health HTTP/1.1\r\nhost: [::1].evil.com\r\n\r\n", 400),
    (b"GET /health HTTP/1.1\r\nhost:\r\n\r\n", 400),
    (b"GET * HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    (b"GET ftp://a/health HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    (b"GET http://u@a/health HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    (b"GET http://a/health HTTP/1.1\r\n\r\n", 400),
]


@pytest.mark.row(56, 57)
@pytest.mark.parametrize(("request_bytes", "status"), STRICT)
def test_heads_that_the_standard_forbids_are_refused(
    proxy: Proxy, keyed: Proxy, request_bytes: bytes, status: int
) -> None:
    for one in (proxy, keyed):
        received = one.raw(request_bytes + CLOSE)
        assert statuses(received) == [status]
        assert b"connection: close\r\n" in received


@pytest.fixture(scope="module")
def keyed() -> Iterator[Proxy]:
    with running_proxy({"SANIC_PROXY_API_KEYS": "client-key-1"}) as started:
        yield started


@pytest.mark.row(57)
def test_the_host_of_an_absolute_target_takes_the_place_of_the_header(proxy: Proxy) -> None:
    get = b"GET http://%b/v1/models HTTP/1.1\r\nhost: %b\r\nconnection: close\r\n\r\n"
    assert statuses(proxy.raw(get % (b"localhost", b"evil.example"))) == [200]
    assert statuses(proxy.raw(get % (b"evil.example", b"localhost"))) == [403]


def test_a_tls_handshake_on_the_plain_port_is_one_line_in_the_log(keyed: Proxy) -> None:
    hello = bytes.fromhex("16030100c8010000c40303") + bytes(200)
    before = keyed.log.count("\n")
    for data in (hello, hello[:1], hello):
        assert keyed.raw(data).startswith(b"HTTP/1.1 400")
    keyed.wait_for_log("TLS handshake from")
    assert keyed.log.count("\n") == before + 1
    keyed.raw(b"no TLS\r\n\r\n")
    keyed.wait_for_log("status=400")
    assert keyed.log.count("TLS handshake") == 1


@pytest.mark.row(56)
@pytest.mark.parametrize(
    "refused",
    [
        HEALTH + b"x: " + b"y" * 9000 + b"\r\n\r\n",
        b"GET http://a:99999999/ HTTP/1.1\r\nhost: localhost\r\n\r\n",
        HEALTH + b"connection: upgrade\r\nupgrade: h2c\r\nx: " + b"y" * 9000 + b"\r\n\r\n",
    ],
    ids=["head too large", "bad url", "head too large, upgrade"],
)
def test_nothing_behind_a_refused_head_is_answered(proxy: Proxy, refused: bytes) -> None:
    (status,) = statuses(proxy.raw(refused + HEALTH + b"\r\n" + CLOSE))
    assert status in {400, 413}


@pytest.mark.row(56)
def test_what_came_before_a_malformed_request_is_answered(proxy: Proxy) -> None:
    body = BODY.replace(b'"model"', b'"stream":true,"model"')
    first = HEAD + b"content-length: %d\r\n\r\n%b" % (len(body), body)
    assert statuses(proxy.raw(first + HEALTH + b"\r\n" + REQUEST + b"no http\r\n\r\n")) == [
        200,
        200,
        200,
        400,
    ]


@pytest.mark.parametrize("body", [b"zz\r\n", b"2\r\nhiXX", b"2\r\nhi\r\n0\r\nx: " + b"y" * 9000])
def test_an_early_answer_is_the_only_one(proxy: Proxy, body: bytes) -> None:
    head = b"POST /nothing HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    assert statuses(proxy.raw(head + body)) == [404]


def test_a_flood_of_upgrades_costs_little(proxy: Proxy) -> None:
    one = HEALTH + b"connection: upgrade\r\nupgrade: a\r\n\r\n"
    plain = HEALTH + b"connection: keep-alive\r\nupgrade: a\r\n\r\n"

    def cost_s(request: bytes) -> float:
        before_s = cpu_s(proxy.process.pid)
        assert statuses(proxy.raw(request * 1000 + CLOSE, GENEROUS_S)) == [200] * 1001
        return cpu_s(proxy.process.pid) - before_s

    assert min(cost_s(one) for _ in range(3)) < 5 * min(cost_s(plain) for _ in range(3))
    assert "Traceback" not in proxy.log


@pytest.mark.row(57, 58)
def test_requesting_an_upgrade_changes_nothing_else(proxy: Proxy) -> None:
    upgrade_headers = b"connection: close, upgrade\r\nupgrade: h2c\r\n"
    assert b"connection: close\r\n" in proxy.raw(HEALTH + upgrade_headers + b"\r\n")
    assert statuses(proxy.raw(HEALTH + b"host: evil.example\r\n" + upgrade_headers + b"\r\n")) == [400]
    assert statuses(proxy.raw(b"GET /health HTTP/1.1\r\nhost: localhost, evil\r\n\r\n" + CLOSE)) == [400]


@pytest.mark.row(44)
def test_a_body_too_large_is_refused_even_when_all_of_it_waited(proxy: Proxy) -> None:
    body = BODY.replace(b'"model"', b'"stream":true,"model"')
    first = HEAD + b"content-length: %d\r\n\r\n%b" % (len(body), body)
    large = HEAD + b"transfer-encoding: chunked\r\n\r\n" + 25 * (b"%x\r\n%b\r\n" % (99_999, b"x" * 99_999))
    assert statuses(proxy.raw(first + large + b"0\r\n\r\n")) == [200, 413]


def test_an_expectation_that_cannot_be_met_is_logged(proxy: Proxy) -> None:
    proxy.raw(HEAD + b"x-request-id: expects\r\nexpect: 200-ok\r\ncontent-length: 2\r\n\r\n{}")
    assert "status=417" in proxy.log_line("expects")


def test_an_old_client_gets_its_stream_without_chunks(proxy: Proxy) -> None:
    body = BODY.replace(b'"model"', b'"stream":true,"model"')
    received = proxy.raw(HEAD.replace(b"1.1", b"1.0") + b"content-length: %d\r\n\r\n%b" % (len(body), body))
    head, _, rest = received.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert rest.startswith(b"data: {")
    assert rest.endswith(b"data: [DONE]\n\n")


def test_uploads_that_are_given_up_leave_nothing_behind(proxy: Proxy) -> None:
    def rss_kib() -> int:
        status = Path(f"/proc/{proxy.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    before = rss_kib()
    for _ in range(40):
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as client:
            client.sendall(HEAD + b"content-length: 1999999\r\n\r\n" + b"x" * 1_900_000)
    proxy.request("GET", "/health")
    assert rss_kib() - before < 20_000


@pytest.mark.row(42)
def test_a_client_that_never_reads_does_not_keep_its_provider(upstream: Upstream) -> None:
    gone = threading.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        with contextlib.suppress(ConnectionError):
            while True:
                await exchange.chunk(frame({"content": "x" * 10_000}))
        gone.set()

    upstream.on("held", script)
    settings = {
        **provider_settings(upstream),
        "SANIC_PROXY_TIMEOUT_TOTAL": "1",
        "SANIC_PROXY_HEARTBEAT_INTERVAL": "0.1",
    }
    with running_proxy(settings) as proxy, proxy.open_stream("groq/held"):
        assert gone.wait(20)  # a stalled client is dropped after 60 s only


@pytest.mark.parametrize("version", [b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"http/1.1"])
def test_another_protocol_version_is_refused(proxy: Proxy, version: bytes) -> None:
    assert statuses(proxy.raw(b"GET /health %b\r\nhost: localhost\r\n\r\n" % version)) == [400]


def test_a_tunnel_is_refused(proxy: Proxy) -> None:
    assert statuses(proxy.raw(b"CONNECT h:443 HTTP/1.1\r\nhost: h:443\r\n\r\n")) == [400]


def test_an_old_client_gets_an_answer_that_ends_with_its_connection(proxy: Proxy) -> None:
    received = proxy.raw(b"GET /health HTTP/1.0\r\nhost: localhost\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close\r\n" in received


def test_the_answer_to_head_has_no_body(proxy: Proxy) -> None:
    received = proxy.raw(b"HEAD /health HTTP/1.1\r\nhost: localhost\r\n\r\n" + CLOSE)
    first, second = received.split(b"HTTP/1.1 ")[1:]
    assert first.endswith(b"\r\n\r\n")
    assert second.endswith(b'{"status":"ok"}')
    lengths = [line for line in received.split(b"\r\n") if line.startswith(b"content-length")]
    assert lengths[0] == lengths[1]


def test_a_client_that_expects_100_continue_gets_it(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as client:
        client.sendall(HEAD + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(BODY))
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(BODY)
        assert client.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_client_that_waits_in_vain_is_not_waited_for(proxy: Proxy) -> None:
    waits = b"POST /nothing HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n"
    started = time.monotonic()
    received = proxy.raw(waits, GENEROUS_S)
    assert statuses(received) == [404]
    assert b"connection: close\r\n" in received
    assert time.monotonic() - started < GENEROUS_S / 2


def test_a_body_behind_an_early_answer_is_read_away(proxy: Proxy) -> None:
    body = b"x" * 1_000_000
    early = b"POST /nothing HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body)
    assert statuses(proxy.raw(early + body + CLOSE)) == [404, 200]


def test_a_client_that_sends_too_much_still_reads_why(proxy: Proxy) -> None:
    body = b"x" * 6_000_000
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as client:
        client.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body))
        client.sendall(body)  # a reset in the middle of this would lose the answer
        assert client.recv(65536).startswith(b"HTTP/1.1 413")


@pytest.mark.row(44)
@pytest.mark.parametrize("framing", [b"content-length: 60000000\r\n", b"transfer-encoding: chunked\r\n"])
def test_a_client_that_sends_far_too_much_before_it_reads_gets_its_413(proxy: Proxy, framing: bytes) -> None:
    """Tens of megabytes, more than the kernel's buffers hold: a reset would lose the answer."""
    piece = b"x" * 1_000_000
    if b"chunked" in framing:
        piece = b"%x\r\n%b\r\n" % (len(piece), piece)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as client:
        client.sendall(HEAD + framing + b"\r\n")
        for _ in range(60):
            client.sendall(piece)
        answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413")
        while piece_read := client.recv(65536):  # the proxy closes its side, so this ends
            answer += piece_read
        assert b"connection: close\r\n" in answer


@pytest.mark.row(44)
@pytest.mark.parametrize(
    ("head", "status"),
    [
        (HEAD + b"x: " + b"y" * 9000 + b"\r\ncontent-length: 30000000\r\n\r\n", 413),
        (HEAD + b"host: b\r\ncontent-length: 30000000\r\n\r\n", 400),
        (b"garbage\r\n\r\n", 400),
    ],
    ids=["head too large", "two hosts", "no http"],
)
def test_a_client_that_sends_on_behind_a_refused_head_reads_why(
    proxy: Proxy, head: bytes, status: int
) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as client:
        client.sendall(head)
        for _ in range(30):
            client.sendall(b"x" * 1_000_000)
        assert statuses(client.recv(65536)) == [status]


def test_a_client_that_stops_sending_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sanic_proxy.server.connection.LINGER_READ_S", 0.05)
    early = b"POST /nothing HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n"

    async def work(wire: Wire, http: ProxyHttp) -> None:
        lingering: list[int] = []

        async def handler(request: ProxyRequest) -> None:
            request.answer(Reply("", b"early"))
            await http.response.send(end_stream=True)
            wire.loop.call_later(0.01, lambda: lingering.append(wire.traffic.lingering))

        wire.request_handler = handler
        http.received(early)
        await asyncio.wait_for(http.http1(), 5)
        assert lingering == [1]
        assert wire.traffic.lingering == 0

    on_a_wire(work)


@pytest.mark.parametrize("limit", ["LINGER_S", "MAX_LINGERING"])
def test_lingering_is_bounded_in_time_and_number(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(f"sanic_proxy.server.connection.{limit}", 0)

    async def work(wire: Wire, http: ProxyHttp) -> None:
        async def handler(request: ProxyRequest) -> None:
            request.answer(Reply("", b"early"))
            await http.response.send(end_stream=True)

        wire.request_handler = handler
        http.received(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n")
        await asyncio.wait_for(http.http1(), 1)
        assert statuses(wire.written) == [200]

    on_a_wire(work)


@pytest.mark.row(44)
def test_a_chunked_body_too_large_is_noticed_while_it_arrives(proxy: Proxy) -> None:
    chunk = b"%x\r\n%b\r\n" % (100_000, b"x" * 100_000)
    received = proxy.raw(HEAD + b"transfer-encoding: chunked\r\n\r\n" + 30 * chunk + b"0\r\n\r\n")
    assert statuses(received) == [413]


@pytest.mark.row(36)
def test_a_client_that_reads_slowly_holds_its_provider_back(proxy: Proxy, upstream: Upstream) -> None:
    piece = frame({"content": "x" * 10_000})
    count = 4_000
    written: list[int] = []

    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        for index in range(count):
            await exchange.chunk(piece)
            written.append(index)
        await exchange.chunk(b"".join(text_stream("end")))
        await exchange.end_stream()

    upstream.on("fast", script)
    with socket.create_connection(("127.0.0.1", proxy.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.settimeout(60)
        body = BODY.replace(b'"model":"echo/echo"', b'"stream":true,"model":"groq/fast"').replace(
            b'"model": "echo/echo"', b'"stream":true,"model":"groq/fast"'
        )
        client.sendall(HEAD + b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body))
        received = bytearray(client.recv(1000))
        assert wait_until_still(lambda: len(written)) < count  # it waits, as the client does not read
        while piece_read := client.recv(1 << 20):
            received += piece_read
    assert received.count(b"x" * 10_000) == count
    assert received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


@pytest.mark.row(42)
def test_a_client_that_takes_nothing_is_dropped(upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        with contextlib.suppress(ConnectionError):
            while True:
                await exchange.chunk(frame({"content": "x" * 100_000}))
        upstream.left.append("unread")

    upstream.left.clear()
    upstream.on("endless", script)
    settings = {**provider_settings(upstream), "SANIC_PROXY_TIMEOUT_CLIENT": "0.3"}
    body = BODY.replace(b"echo/echo", b"groq/endless").replace(b"{", b'{"stream":true,', 1)
    head = HEAD + b"x-request-id: unread-1\r\ncontent-length: %d\r\n\r\n" % len(body)
    with running_proxy(settings) as proxy, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.connect(("127.0.0.1", proxy.port))
        client.sendall(head + body)
        assert "ended=client_stalled" in proxy.log_line("unread-1")
        wait_until(lambda: upstream.left == ["unread"])


@pytest.mark.row(42)
def test_a_client_that_takes_a_little_now_and_then_is_not_dropped(upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(completion("x" * 6_000_000))

    upstream.on("large", script)
    settings = {**provider_settings(upstream), "SANIC_PROXY_TIMEOUT_CLIENT": "1.5"}
    body = BODY.replace(b"echo/echo", b"groq/large")
    with running_proxy(settings) as proxy, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.connect(("127.0.0.1", proxy.port))
        client.settimeout(60)
        client.sendall(HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        received = 0
        while piece := client.recv(400_000):
            received += len(piece)
            time.sleep(0.15)
    assert received > 6_000_000


# On a connection of its own


class Wire:
    """A connection without a network: what Sanic's protocol is to it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.app = app
        self.transport: Any = self
        self.conn_info = SimpleNamespace(lost=False)
        self.state = {"requests_count": 0}
        self.request_max_size = 100
        self.traffic = Traffic()
        self.recv_buffer = bytearray()
        self.request_class = ProxyRequest
        self.written = b""
        self.request_handler: Any = None
        self.is_reading = True
        self.active_at = 0.0
        self.writable = asyncio.Event()
        self.writable.set()

    async def send(self, data: bytes) -> None:
        self.written += data

    receive_more = send

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str) -> None:
        return None

    def abort(self) -> None:
        pass

    def can_write_eof(self) -> bool:
        return False

    def reads(self) -> bool:
        return self.is_reading

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True


async def whole(http: ProxyHttp) -> bytes:
    await http.receive_all()
    request: ProxyRequest = http.request
    return request.take_body()


def on_a_wire(work: Any) -> Any:
    async def run() -> Any:
        wire = Wire()
        http = ProxyHttp(cast("ProxyProtocol", wire))
        http.set_header_max_size(8192)
        return await work(wire, http)

    return asyncio.run(run())


@pytest.mark.row(43)
def test_a_head_has_to_come_within_its_time_however_it_trickles() -> None:
    async def work(wire: Wire, http: ProxyHttp) -> None:
        http.received(b"G")
        began = wire.active_at
        assert began > 0
        assert http.stage is Stage.REQUEST
        wire.active_at = began - 50  # as if 50 s had passed
        http.received(b"E")
        assert wire.active_at == began - 50

    on_a_wire(work)


@pytest.mark.row(43)
@pytest.mark.parametrize("is_upload", [False, True])
@pytest.mark.parametrize("pause_s", [0.01, 10])
def test_a_body_slower_than_the_least_rate_is_a_408(
    monkeypatch: pytest.MonkeyPatch, is_upload: bool, pause_s: float
) -> None:
    monkeypatch.setattr("sanic_proxy.server.body_rate.WINDOW_S", 0.1)

    async def trickle(http: ProxyHttp) -> None:
        while True:
            await asyncio.sleep(pause_s)
            http.received(b"x")

    async def read_on(http: ProxyHttp) -> None:
        while await http.read():
            pass

    async def work(wire: Wire, http: ProxyHttp) -> None:
        wire.request_max_size = 10**6
        http.init_for_request()
        head = HEAD.replace(b"application/json", b"multipart/form-data; boundary=x") if is_upload else HEAD
        http.received(head + b"content-length: 100000\r\n\r\nhalf")
        await http.next_request()
        sending = asyncio.ensure_future(trickle(http))
        with pytest.raises(ClientError) as caught:
            await asyncio.wait_for(read_on(http) if is_upload else http.receive_all(), 5)
        sending.cancel()
        assert (caught.value.status, caught.value.code) == (408, "request_timeout")
        assert not http.keep_alive

    on_a_wire(work)


def test_a_body_can_be_read_piece_by_piece() -> None:
    async def work(wire: Wire, http: ProxyHttp) -> None:
        http.received(HEAD + b"content-length: 8\r\n\r\nab")
        await http.next_request()
        assert await http.read() == b"ab"
        wire.loop.call_later(0.01, http.received, b"cd")
        assert await http.read() == b"cd"
        http.received(b"ef")
        http.received(b"gh")
        assert await http.read() == b"efgh"
        assert await http.read() is None

    on_a_wire(work)


def test_an_upload_without_a_reader_is_not_buffered() -> None:
    async def work(wire: Wire, http: ProxyHttp) -> None:
        form = HEAD.replace(b"application/json", b"multipart/form-data; boundary=x")
        http.received(form + b"content-length: %d\r\n\r\n" % (4 * MAX_UNREAD_BYTES))
        await http.next_request()
        http.received(b"x" * MAX_UNREAD_BYTES)
        assert wire.reads()
        http.received(b"x")
        assert not wire.reads()
        assert len(await http.read() or b"") == MAX_UNREAD_BYTES + 1
        assert wire.reads()

    on_a_wire(work)


def test_a_body_in_tiny_chunks_takes_no_object_for_each() -> None:
    async def work(wire: Wire, http: ProxyHttp) -> None:
        wire.request_max_size = 10**6
        http.init_for_request()
        http.received(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        request = await http.next_request()
        for _ in range(10):
            http.received(b"1\r\nx\r\n" * 1000)
        assert len(request.pieces) == 10
        http.received(b"0\r\n\r\n")
        assert await whole(http) == b"x" * 10_000

    on_a_wire(work)


def test_a_body_that_breaks_off_fails_its_reader() -> None:
    async def work(wire: Wire, http: ProxyHttp) -> None:
        http.received(HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n")
        await http.next_request()
        assert await http.read() == b"ab"
        http.received(b"zz\r\n")
        with pytest.raises(BadRequest):
            await http.read()

    on_a_wire(work)


@pytest.mark.parametrize("pieces", [[b"x: " + b"y" * 9000 + b"\r\n\r\n"], [b"x: y\r\n" * 100] * 20])
def test_a_head_past_the_limit_is_refused_whole_or_in_pieces(pieces: list[bytes]) -> None:
    async def work(wire: Wire, http: ProxyHttp) -> None:
        http.received(b"GET / HTTP/1.1\r\nhost: a\r\n")
        for piece in pieces:
            http.received(piece)
        with pytest.raises(PayloadTooLarge):
            await http.next_request()

    on_a_wire(work)


@pytest.mark.parametrize(
    "more", [b"0\r\nx: " + b"y" * 9000, b"0\r\n" + b"x: y\r\n" * 2000, b"2;" + b"x" * 9000]
)
@pytest.mark.parametrize("size", [500, 100_000])
def test_what_stands_between_and_behind_the_pieces_of_a_body_is_limited(more: bytes, size: int) -> None:
    async def work(wire: Wire, http: ProxyHttp) -> None:
        http.received(HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n")
        await http.next_request()
        for start in range(0, len(more), size):
            http.received(more[start : start + size])
        with pytest.raises(PayloadTooLarge):
            await http.receive_all()

    on_a_wire(work)


def test_a_trailer_is_not_a_header_of_the_request() -> None:
    async def work(wire: Wire, http: ProxyHttp) -> None:
        trailer = b"0\r\nauthorization: Bearer stolen\r\n\r\n"
        http.received(HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n" + trailer)
        request = await http.next_request()
        assert await whole(http) == b"ab"
        assert "authorization" not in request.fields

    on_a_wire(work)


def test_a_large_body_is_not_read_while_another_request_is_in_flight() -> None:
    async def work(wire: Wire, http: ProxyHttp) -> None:
        wire.request_max_size = 10**6
        http.init_for_request()
        http.received(HEALTH + b"\r\n")
        await http.next_request()
        http.received(HEAD + b"content-length: 200000\r\n\r\n")
        assert wire.reads()
        http.received(b"x" * 100_000)
        assert not wire.reads()
        request = await http.next_request()
        assert wire.reads()
        http.received(b"x" * 100_000)
        assert wire.reads()
        await request.receive_body()
        assert len(request.body) == 200_000

    on_a_wire(work)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        (b"/a?b=c", "/a"),
        (b"/a#b", "/a"),
        (b"//a/../b%2f", "//a/../b%2f"),
        (b"http://h/a?b", "/a"),
        (b"http://h", "/"),
        (b"*", "*"),
    ],
)
def test_a_path_is_taken_as_it_stands(url: bytes, path: str) -> None:
    request = ProxyRequest(url, HeaderFields(), "1.1", "GET", None, app)
    assert request.path == path


def test_a_repeated_head_gives_the_request_that_a_parser_makes() -> None:
    async def work(wire: Wire, http: ProxyHttp) -> None:
        wire.request_max_size = 10**6
        http.init_for_request()
        bodies = (b"first", b"other", b"x" * 50, b"y" * 51, b"", b"z" * 99)
        for body in bodies:
            head = HEAD + b"x-Client: 7\r\nContent-Length: %d\r\n\r\n" % len(body)
            http.received(head + body)
            again = await http.next_request()
            other = ProxyHttp(cast("ProxyProtocol", Wire()))
            other.set_header_max_size(8192)
            other.received(head + body)
            parsed = await other.next_request()
            for request in (again, parsed):
                assert request.is_received
                assert dict(request.fields) == {
                    "host": "localhost",
                    "content-type": "application/json",
                    "x-client": "7",
                    "content-length": str(len(body)),
                }
                assert (request.method, request.path, request.version) == (
                    "POST",
                    "/v1/chat/completions",
                    "1.1",
                )
                assert (request.take_body(), request.size_bytes) == (body, len(body))
            assert again.record.request_id != parsed.record.request_id

    on_a_wire(work)


@pytest.mark.parametrize(
    "second",
    [
        HEAD + b"content-length: 2\r\ncontent-length: 2\r\n\r\nab",
        HEAD + b"content-length: +2\r\n\r\nab",
        HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\nab",
        HEAD.replace(b"localhost", b"a b") + b"content-length: 2\r\n\r\nab",
    ],
)
def test_a_bad_head_behind_a_good_one_is_refused(second: bytes) -> None:
    async def work(wire: Wire, http: ProxyHttp) -> None:
        for _ in range(3):
            http.received(HEAD + b"content-length: 2\r\n\r\nab")
            await http.next_request()
        http.received(second)
        with pytest.raises((BadRequest, ClientError)):
            await http.next_request()

    on_a_wire(work)


def test_a_head_in_the_middle_of_a_body_is_a_part_of_it() -> None:
    async def work(wire: Wire, http: ProxyHttp) -> None:
        inner = HEAD + b"content-length: 2\r\n\r\nab"
        http.received(inner)
        await http.next_request()
        wire.request_max_size = 10**6
        http.init_for_request()
        http.received(HEAD + b"content-length: %d\r\n\r\n" % (2 * len(inner)))
        request = await http.next_request()
        http.received(inner)
        http.received(inner)
        assert await whole(http) == 2 * inner
        assert request.is_received

    on_a_wire(work)


def test_a_line_end_too_many_is_no_request() -> None:
    async def work(wire: Wire, http: ProxyHttp) -> None:
        http.received(b"\r\n")
        assert http.stage.name == "IDLE"
        http.received(b"G")
        assert http.stage.name == "REQUEST"

    on_a_wire(work)


def test_a_body_that_came_with_its_expectation_needs_no_leave() -> None:
    async def work(wire: Wire, http: ProxyHttp) -> None:
        http.received(HEAD + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\nab")
        await http.next_request()
        assert await whole(http) == b"ab"
        assert wire.written == b""
        assert not http.expecting_continue

    on_a_wire(work)


def test_what_a_client_sends_is_nothing_that_it_was_sent() -> None:
    async def work(wire: Wire, http: ProxyHttp) -> None:
        http.received(HEALTH + b"\r\n")
        request = await http.next_request()
        sent_at = request.sent_at
        http.received(b"\r\n")
        assert request.sent_at == sent_at

    on_a_wire(work)


def test_an_answer_is_in_flight_until_its_end_is_written() -> None:
    async def work(wire: Wire, http: ProxyHttp) -> None:
        http.received(HEALTH + b"\r\n")
        request = await http.next_request()
        http.stage = Stage.HANDLER
        request.begin(Reply(""), b"a")
        wire.writable.clear()
        http.is_writable = False
        ending = asyncio.ensure_future(http.response.send(b"b", end_stream=True))
        await asyncio.sleep(0)
        assert http.stage is Stage.RESPONSE
        wire.writable.set()
        await ending
        assert http.stage.name == "IDLE"
        assert wire.written.endswith(b"1\r\nb\r\n0\r\n\r\n")

    on_a_wire(work)


def test_a_cancelled_connection_serves_no_other_request() -> None:
    async def work(wire: Wire, http: ProxyHttp) -> None:
        started: list[str] = []

        async def handler(request: ProxyRequest) -> None:
            started.append(request.path)
            wire.transport = cast("Any", None)
            await asyncio.sleep(10)

        wire.request_handler = handler
        http.received(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\nGET /b HTTP/1.1\r\nhost: a\r\n\r\n")
        serving = asyncio.ensure_future(http.http1())
        await asyncio.sleep(0.01)
        serving.cancel()
        await asyncio.wait({serving}, timeout=60)
        assert serving.done()
        assert started == ["/a"]

    on_a_wire(work)


def test_too_many_pipelined_requests_stop_the_reading() -> None:
    async def work(wire: Wire, http: ProxyHttp) -> None:
        for _ in range(MAX_QUEUED + 2):
            http.received(HEALTH + b"\r\n")
        assert not wire.reads()
        await http.next_request()
        assert not wire.reads()
        await http.next_request()
        assert wire.reads()

    on_a_wire(work)


def test_an_answer_is_one_write_and_nothing_breaks_its_head() -> None:
    async def work(wire: Wire, http: ProxyHttp) -> None:
        http.received(HEALTH + b"x-request-id: r\r\n\r\n")
        request = await http.next_request()
        http.stage = Stage.HANDLER
        request.answer(Reply(header_lines([("a", "b\r\nc: d")]), b"body"))
        await http.response.send(end_stream=True)
        assert wire.written == (
            b"HTTP/1.1 200 OK\r\na: bc: d\r\nx-request-id: r\r\ncontent-length: 4\r\n"
            b"connection: keep-alive\r\n\r\nbody"
        )

    on_a_wire(work)


def test_headers_sent_twice_are_joined_and_named() -> None:
    fields = HeaderFields()
    for name, value in ((b"A", b"1"), (b"b", b"2"), (b"a", b"3")):
        fields.add(name, value)
    assert fields == {"a": "1, 3", "b": "2"}
    assert set(fields.repeated) == {"a"}


def test_the_app_serves_with_this_connection() -> None:
    settings = app._helper(host="127.0.0.1", port=1)
    assert settings["protocol"] is ProxyProtocol
    assert settings["backlog"] >= 1024
