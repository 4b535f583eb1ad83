"""The client to the providers: its errors, its pool, its limits."""

from __future__ import annotations

import asyncio
import functools
import gzip
import json
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sanic_proxy import errors
from sanic_proxy.config.model import Timeouts
from sanic_proxy.config.secret import Secret
from sanic_proxy.upstream.client import Endpoint, UpstreamClient
from sanic_proxy.upstream.request import Upload
from tests.support.load import wait_until
from tests.support.proxy import Proxy, free_port, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import Exchange, Script, Upstream, straico_completion
from tests.support.upstream_client import LIMITS, body_of, failure, get, opened, run

# Without a time of packing: the ids of tests are the same in all processes of xdist.
gzipped = functools.partial(gzip.compress, compresslevel=1, mtime=0)


@pytest.mark.row(1)
def test_a_closed_port_is_a_connect_error() -> None:
    assert type(failure(get(f"http://127.0.0.1:{free_port()}/"))) is errors.UpstreamConnectFailed


@pytest.mark.row(3)
def test_an_unknown_host_is_a_dns_error() -> None:
    assert type(failure(get("http://no-such-host.invalid/"))) is errors.UpstreamDnsFailed


@pytest.mark.row(3)
def test_a_slow_resolver_takes_the_time_for_a_connection_and_blocks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def slow(*_: Any, **__: Any) -> Any:
        time.sleep(1.3)
        raise socket.gaierror(socket.EAI_AGAIN, "silence")

    async def send(client: UpstreamClient) -> int:
        sending = asyncio.ensure_future(client.send(get("http://slow.invalid/")))
        turns = 0
        while not sending.done():
            await asyncio.sleep(0.005)
            turns += 1
        with pytest.raises(errors.UpstreamTimeout):
            sending.result()
        return turns

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    assert run(send) > 5  # blocked by the resolver, the loop would turn once or twice


@pytest.mark.row(2)
def test_a_full_backlog_is_a_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        error = failure(get(f"http://127.0.0.1:{address[1]}/"))
        for filler in fillers:
            filler.close()
    assert isinstance(error, errors.UpstreamTimeout)


@pytest.mark.row(4)
def test_plain_http_behind_https_is_a_tls_error() -> None:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def send() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server, opened() as client:
            await client.send(get(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))

    with pytest.raises(errors.UpstreamTlsFailed):
        asyncio.run(send())


# A certificate for localhost that no authority vouches for, made for these tests.
CERTIFICATE = Path(__file__).parents[1] / "data" / "localhost-cert.pem"
KEY_AND_CERTIFICATE = Path(__file__).parents[1] / "data" / "localhost-key-and-cert.pem"


async def served(work: Callable[[int], Awaitable[Any]]) -> Any:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(KEY_AND_CERTIFICATE)
    server = await asyncio.start_server(answer, "localhost", 0, ssl=context, family=socket.AF_INET)
    try:
        return await work(server.sockets[0].getsockname()[1])
    finally:
        server.close()


@pytest.mark.row(4)
def test_an_untrusted_certificate_is_refused() -> None:
    async def send(port: int) -> None:
        async with opened() as client:
            await client.send(get(f"https://localhost:{port}/"))

    with pytest.raises(errors.UpstreamTlsFailed):
        asyncio.run(served(send))


def test_ssl_cert_file_vouches_for_its_own() -> None:
    async def send(port: int) -> bytes:
        async with opened(cafile=str(CERTIFICATE)) as client:
            return await body_of(client, get(f"https://localhost:{port}/"))

    assert asyncio.run(served(send)) == b"ok"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n",
    ],
)
def test_a_body_cut_short_is_a_disconnect(upstream: Upstream, answer: bytes) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(answer)
        exchange.close()

    upstream.on("GET /cut", script)
    with pytest.raises(errors.UpstreamDisconnected):
        run(lambda client: body_of(client, get(f"{upstream.url}/cut")))


@pytest.mark.row(33)
@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 2\r\n\r\nab",
    ],
    ids=["no http", "header flood", "two lengths", "no gzip", "brotli"],
)
def test_an_answer_that_is_no_http_is_a_bad_response(upstream: Upstream, answer: bytes) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(answer)
        exchange.close()

    upstream.on("GET /bad", script)
    with pytest.raises(errors.UpstreamError) as caught:
        run(lambda client: body_of(client, get(f"{upstream.url}/bad")))
    assert caught.value.status == 502


@pytest.mark.row(31)
def test_a_body_past_the_limit_is_refused(upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(b"x" * 2000)

    upstream.on("GET /large", script)
    with pytest.raises(errors.UpstreamBadResponse):
        run(lambda client: body_of(client, get(f"{upstream.url}/large")))


FAR_S = 60
NOW_S = 0.2


@pytest.mark.row(6)
@pytest.mark.parametrize("comment", [b"", b": processing\n\n"], ids=["silence", "comments"])
@pytest.mark.parametrize(
    ("has_content", "first_byte_s", "idle_s"),
    [
        (False, NOW_S, FAR_S),  # after an early head only the first-byte clock runs
        (True, FAR_S, NOW_S),  # after content only the idle clock does
    ],
)
def test_the_first_byte_clock_counts_until_content_and_the_idle_clock_from_then_on(
    upstream: Upstream, comment: bytes, has_content: bool, first_byte_s: float, idle_s: float
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        while comment and not has_content:
            await exchange.chunk(comment)
            await asyncio.sleep(NOW_S / 10)
        await exchange.client_leaves()

    async def read(client: UpstreamClient) -> None:
        clocks = Timeouts(connect_s=1, first_byte_s=first_byte_s, idle_s=idle_s, total_s=FAR_S)
        response = await client.send(get(f"{upstream.url}/early", timeouts=clocks))
        try:
            if has_content:
                response.begin_content()
            while await response.read_some():
                pass
        finally:
            response.close()

    upstream.on("GET /early", script)
    with pytest.raises(errors.UpstreamTimeout):
        run(lambda client: asyncio.wait_for(read(client), FAR_S / 4))


def test_a_prefill_longer_than_the_idle_clock_is_waited_for(upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head(200, ("content-length", "2"))
        await asyncio.sleep(3 * NOW_S)
        await exchange.send(b"ok")

    upstream.on("GET /prefill", script)
    clocks = Timeouts(connect_s=1, first_byte_s=FAR_S, idle_s=NOW_S, total_s=FAR_S)
    assert run(lambda client: body_of(client, get(f"{upstream.url}/prefill", timeouts=clocks))) == b"ok"


def test_a_wait_without_bytes_gives_none_and_loses_none(upstream: Upstream) -> None:
    has_waited = threading.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.head(200, ("content-length", "2"))
        while not has_waited.is_set():  # noqa: ASYNC110 - set in another thread
            await asyncio.sleep(0.005)
        await exchange.send(b"ok")

    async def read(client: UpstreamClient) -> list[bytes | None]:
        response = await client.send(get(f"{upstream.url}/late"))
        pieces = [await response.read_some(0.05)]
        has_waited.set()
        while pieces[-1] != b"":
            pieces.append(await response.read_some(0.05))
        response.close()
        return pieces

    upstream.on("GET /late", script)
    pieces = run(read)
    assert pieces[0] is None
    assert b"".join(piece for piece in pieces if piece) == b"ok"


def answers_together(count: int) -> Script:
    """A script that answers once so many requests are in flight."""
    waiting = 0

    async def script(exchange: Exchange) -> None:
        nonlocal waiting
        waiting += 1
        while waiting < count:  # noqa: ASYNC110 - the first one sets no event up for the rest
            await asyncio.sleep(0.005)
        await exchange.answer(b"ok")

    return script


@pytest.fixture
def new_upstream() -> Iterator[Upstream]:
    """One to which nothing but the test is connected."""
    upstream = Upstream()
    upstream.start()
    yield upstream
    upstream.stop()


def test_idle_connections_past_the_limit_are_closed_oldest_first(new_upstream: Upstream) -> None:
    async def send(client: UpstreamClient) -> None:
        await asyncio.gather(*(body_of(client, get(f"{new_upstream.url}/pool")) for _ in range(6)))
        await asyncio.to_thread(wait_until, lambda: new_upstream.open_connections == LIMITS.idle_per_host)

    new_upstream.on("GET /pool", answers_together(6))
    run(send)


def test_connections_in_use_are_not_limited(upstream: Upstream) -> None:
    async def send(client: UpstreamClient) -> list[bytes]:
        return await asyncio.gather(*(body_of(client, get(f"{upstream.url}/many")) for _ in range(150)))

    upstream.on("GET /many", answers_together(150))
    assert run(send) == [b"ok"] * 150


# Uploads


async def pieces_of(*pieces: bytes | Exception) -> AsyncIterator[bytes]:
    for piece in pieces:
        if isinstance(piece, Exception):
            raise piece
        await asyncio.sleep(0)
        yield piece


def post(upstream: Upstream, path: str, *, tunnelled: bool = False, method: str = "POST") -> Endpoint:
    kind = {"accept-encoding": "identity", "content-type": "multipart/form-data; boundary=x"}
    if tunnelled:
        return get(f"http://lab.invalid{path}", method=method, headers=kind, proxy=Secret(upstream.url))
    return get(f"{upstream.url}{path}", method=method, headers=kind)


@pytest.mark.parametrize("tunnelled", [False, True], ids=["direct", "tunnelled"])
@pytest.mark.parametrize("size_bytes", [None, 8])
def test_an_upload_goes_out_as_it_comes(upstream: Upstream, size_bytes: int | None, tunnelled: bool) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(b"got " + exchange.seen.body)

    upstream.on("*", script)

    async def work(client: UpstreamClient) -> bytes:
        endpoint = post(upstream, "/up", tunnelled=tunnelled)
        answer = await client.upload(endpoint, Upload(pieces_of(b"ab", b"cdef", b"gh"), size_bytes))
        try:
            return await answer.read_all()
        finally:
            answer.close()

    assert run(work) == b"got abcdefgh"
    seen = upstream.requests[-1]
    assert seen.header("content-length") == (None if size_bytes is None else "8")
    assert seen.header("transfer-encoding") == ("chunked" if size_bytes is None else None)


@pytest.mark.parametrize("tunnelled", [False, True], ids=["direct", "tunnelled"])
def test_an_upload_that_fails_locally_raises_the_cause(upstream: Upstream, tunnelled: bool) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.client_leaves()
        upstream.left.append("failed")

    path = "http://lab.invalid/up" if tunnelled else "/up"
    upstream.left.clear()
    upstream.on_head(f"POST {path}", script)

    async def work(client: UpstreamClient) -> None:
        upload = Upload(pieces_of(b"ab", errors.BodyTooLarge("too large")), None)
        with pytest.raises(errors.BodyTooLarge):
            await client.upload(post(upstream, "/up", tunnelled=tunnelled), upload)
        for _ in range(100):
            if upstream.left:
                return
            await asyncio.sleep(0.01)

    run(work)
    assert upstream.left == ["failed"]


def test_a_connection_is_used_again_only_after_a_whole_upload(upstream: Upstream) -> None:
    async def early(exchange: Exchange) -> None:
        await exchange.answer(b"early")
        await exchange.client_leaves()

    async def whole(exchange: Exchange) -> None:
        await exchange.answer(b"whole")

    async def never() -> AsyncIterator[bytes]:
        yield b"ab"
        await asyncio.sleep(10)

    upstream.on_head("POST /early", early)
    upstream.on("POST /whole", whole)

    async def work(client: UpstreamClient) -> list[int]:
        for path, pieces in (("/early", never()), ("/whole", pieces_of(b"x")), ("/whole", pieces_of(b"x"))):
            answer = await client.upload(post(upstream, path), Upload(pieces, None))
            assert await answer.read_all() == path[1:].encode()
            answer.close()
        await body_of(client, get(f"{upstream.url}/whole", method="POST"))
        return [seen.connection for seen in upstream.requests]

    upstream.on("POST /whole", whole)
    early_at, first, second, last = run(work)
    assert len({early_at, first, second}) == 3
    assert last == second


# Compressed answers


ERROR = json.dumps(
    {"error": {"message": "max_tokens is too large", "type": "invalid_request_error"}}
).encode()


@pytest.mark.row(31)
@pytest.mark.parametrize("tunnelled", [False, True], ids=["direct", "tunnelled"])
def test_a_compressed_answer_is_decoded_completely(upstream: Upstream, tunnelled: bool) -> None:
    whole = gzipped(b"a" * 100_000) + gzipped(b"b" * 100_000)

    async def script(exchange: Exchange) -> None:
        await exchange.answer(
            gzipped(whole), 200, ("content-encoding", "gzip"), ("content-encoding", "x-gzip")
        )

    upstream.on("*", script)
    read = run(lambda client: body_of(client, post(upstream, "/z", tunnelled=tunnelled), 200_000))
    assert read == b"a" * 100_000 + b"b" * 100_000


@pytest.mark.row(31)
def test_a_bomb_leaves_the_loop_to_others(upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(gzipped(b"\0" * 15_000_000), 200, ("content-encoding", "gzip"))

    async def send(client: UpstreamClient) -> int:
        reading = asyncio.ensure_future(body_of(client, get(f"{upstream.url}/bomb"), 20_000_000))
        turns = 0
        while not reading.done():
            await asyncio.sleep(0)
            turns += 1
        assert len(reading.result()) == 15_000_000
        reading = asyncio.ensure_future(body_of(client, get(f"{upstream.url}/bomb"), 1_000_000))
        with pytest.raises(errors.UpstreamBadResponse):
            await reading
        return turns

    upstream.on("GET /bomb", script)
    assert run(send) >= 15_000_000 // (2 * 1024 * 1024)


@pytest.mark.parametrize("tunnelled", [False, True], ids=["direct", "tunnelled"])
@pytest.mark.parametrize(
    ("encoding", "body", "message"),
    [
        ("br", b"\x0b\x02\x80ab\x03", None),
        ("zstd, gzip", b"(\xb5/\xfd", None),
        ("gzip", b"not gzip", None),
        ("gzip", gzipped(ERROR)[:9], None),
        ("gzip", gzipped(ERROR), "max_tokens is too large"),
        ("deflate", ERROR, None),
    ],
)
@pytest.mark.parametrize("status", [429, 400])
def test_a_failure_keeps_its_status_in_any_encoding(
    upstream: Upstream,
    status: int,
    encoding: str,
    body: bytes,
    message: str | None,
    tunnelled: bool,
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(body, status, ("content-encoding", encoding), ("retry-after", "7"))

    upstream.on("*", script)
    error = failure(post(upstream, "/z", tunnelled=tunnelled))
    kind = errors.RateLimited if status == 429 else errors.UpstreamRefusedRequest
    assert (type(error), error.upstream_status) == (kind, status)
    assert error.retry_after_s == (7 if status == 429 else None)
    if message is not None:
        assert error.message == message


# One call, one request


def once_good(then: Callable[[Exchange], Awaitable[None]]) -> Callable[[Exchange], Awaitable[None]]:
    """Answers the first request, and leaves all later ones to `then`."""
    count = 0

    async def script(exchange: Exchange) -> None:
        nonlocal count
        count += 1
        await (exchange.answer(b"ok") if count == 1 else then(exchange))

    return script


@pytest.mark.parametrize("tunnelled", [False, True], ids=["direct", "tunnelled"])
@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize(
    ("work_s", "is_reused", "is_stale"), [(0, True, True), (0.3, True, False), (0, False, False)]
)
def test_a_request_is_sent_once_however_its_connection_ends(
    upstream: Upstream, method: str, work_s: float, is_reused: bool, is_stale: bool, tunnelled: bool
) -> None:
    async def dies(exchange: Exchange) -> None:
        await asyncio.sleep(work_s)
        exchange.close()

    async def work(client: UpstreamClient) -> None:
        endpoint = post(upstream, "/dies", tunnelled=tunnelled, method=method)
        assert await body_of(client, endpoint) == b"ok"
        with pytest.raises(errors.UpstreamDisconnected) as caught:
            await client.send(endpoint, is_fresh=not is_reused)
        assert caught.value.is_stale_connection is is_stale
        assert caught.value.is_new_connection is not is_reused

    upstream.on("*", once_good(dies))
    run(work)
    first, second = upstream.requests
    assert (first.connection == second.connection) is is_reused


@pytest.fixture(scope="module")
def single_attempt(shared_upstream: Upstream) -> Iterator[Proxy]:
    with running_proxy({**provider_settings(shared_upstream), "SANIC_PROXY_ATTEMPTS": "1"}) as proxy:
        yield proxy


@pytest.mark.row(35)
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", ["groq/m", "straico/m"])
def test_a_single_attempt_is_a_single_request(
    single_attempt: Proxy, upstream: Upstream, model: str, streaming: bool
) -> None:
    async def dies(exchange: Exchange) -> None:
        exchange.close()

    async def script(exchange: Exchange) -> None:
        is_first = len(upstream.seen("m")) == 1
        await (exchange.answer(straico_completion()) if is_first else dies(exchange))

    upstream.on("m", script)
    assert single_attempt.chat(model).status == 200
    reply = single_attempt.chat(model, stream=streaming)
    assert reply.error["code"] == "upstream_disconnected"
    first, second = upstream.seen("m")
    assert first.connection == second.connection


def test_lists_of_models_are_fetched_on_new_connections(
    shared_upstream: Upstream, upstream: Upstream
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(straico_completion())

    async def models(exchange: Exchange) -> None:
        await exchange.answer({"object": "list", "data": [{"id": "m"}]})

    upstream.on("m", script)
    upstream.on("*", models)
    with running_proxy(provider_settings(shared_upstream)) as proxy:
        for model in ("groq/m", "straico/m"):
            assert proxy.chat(model).status == 200
        assert proxy.request("GET", "/v1/models").status == 200
    listings = [seen.connection for seen in upstream.requests if seen.path.endswith("/models")]
    assert len(set(listings)) == len(listings) >= 2
    assert not set(listings) & {seen.connection for seen in upstream.seen("m")}


PAGE = b"<html><title>gw7.internal</title>\n<body>Bearer %b\r\nis not known here</body></html>"


@pytest.mark.parametrize(
    ("status", "body", "logged"),
    [
        (503, PAGE, "gw7.internal Bearer [redacted] is not known here"),
        (
            401,
            b'{"error":{"message":"Incorrect API key provided: %b"}}',
            "Incorrect API key provided: [redacted]",
        ),
        (
            403,
            b'{"error":{"message":"Your organization must be verified"}}',
            "Your organization must be verified",
        ),
        (400, b'{"error":{"message":"n is wrong"}}', None),
        (503, b'{"error":{"message":"overloaded"}}', None),
    ],
)
def test_what_only_the_operator_may_read_is_logged(
    upstream: Upstream, caplog: pytest.LogCaptureFixture, status: int, body: bytes, logged: str | None
) -> None:
    key = "Canary-key-of-one-provider"

    async def script(exchange: Exchange) -> None:
        await exchange.answer(body.replace(b"%b", key.encode()), status)

    upstream.on("GET /log", script)
    headers = {"accept-encoding": "identity", "authorization": f"Bearer {key}"}
    failure(get(f"{upstream.url}/log", headers=headers))
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(lines) == (0 if logged is None else 1)
    assert logged is None or lines[0].endswith(f": {logged}")
    assert logged is None or lines[0].startswith(f"127.0.0.1 answered HTTP {status} (upstream_")
