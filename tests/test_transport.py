"""Connections and their pool, below what test_upstream shows through the client."""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from typing_extensions import override

from sanic_proxy import errors, transport
from sanic_proxy.settings import PoolLimits
from sanic_proxy.transport import Connection, Inflater, Origin, Pool, request_bytes, target_of

LIMITS = PoolLimits(idle_per_host=2, idle_timeout_s=15, tcp_keepalive_s=90)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx: y\r\n\r\nhello"


def exchange(*pieces: bytes, is_cut: bool = False) -> tuple[int, bytes, Connection]:
    """What a connection makes of an answer that arrives in `pieces`."""

    async def run() -> tuple[int, bytes, Connection]:
        loop = asyncio.get_running_loop()
        connection = Connection(Origin(False, "h", 1), loop)
        connection.send(b"")
        until = loop.time() + 1
        for piece in pieces:
            connection.data_received(piece)
        if is_cut:
            connection.connection_lost(None)
        await connection.head(until)
        body = b""
        while data := await connection.read(until):
            body += data
        return connection.status, body, connection

    return asyncio.run(run())


def test_every_split_of_an_answer_gives_the_same() -> None:
    for cut in range(len(ANSWER)):
        status, body, connection = exchange(ANSWER[:cut], ANSWER[cut:])
        assert (status, body, connection.headers["x"]) == (200, b"hello", "y")
        assert connection.is_reusable


def test_interim_answers_are_skipped() -> None:
    status, body, connection = exchange(
        b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 100 Go on\r\n\r\n" + ANSWER
    )
    assert (status, body) == (200, b"hello")
    assert "link" not in connection.headers


def test_a_body_without_length_ends_with_its_connection() -> None:
    status, body, connection = exchange(b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo", is_cut=True)
    assert (status, body, connection.is_reusable) == (200, b"hello", False)


def test_an_answer_that_closes_is_not_reused() -> None:
    assert not exchange(ANSWER.replace(b"x: y", b"connection: close"))[2].is_reusable


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-",
        b"",
    ],
)
def test_an_answer_that_is_cut_is_a_disconnect(answer: bytes) -> None:
    with pytest.raises(errors.UpstreamDisconnected):
        exchange(answer, is_cut=True)


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 40_000,
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 40_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_is_a_bad_response(answer: bytes) -> None:
    with pytest.raises(errors.UpstreamBadResponse):
        exchange(answer)


def test_bytes_that_nobody_asked_for_close_the_connection() -> None:
    connection = exchange(ANSWER)[2]
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\n")
    assert connection.is_closed


class Recorder(asyncio.Transport):
    """A transport that notes what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    @override
    def pause_reading(self) -> None:
        self.events.append("pause")

    @override
    def resume_reading(self) -> None:
        self.events.append("resume")

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.events.append("write")

    @override
    def abort(self) -> None:
        self.events.append("abort")


def test_a_slow_reader_holds_its_provider_back() -> None:
    async def run() -> list[str]:
        loop = asyncio.get_running_loop()
        connection = Connection(Origin(False, "h", 1), loop)
        recorder = Recorder()
        connection.connection_made(recorder)
        connection.send(b"x")
        connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 900000\r\n\r\n")
        for _ in range(6):
            connection.data_received(b"z" * 65536)
        assert len(await connection.read(loop.time() + 1) or b"") == 6 * 65536
        return recorder.events

    assert asyncio.run(run()) == ["write", "pause", "resume"]


def in_pool(work: Callable[[Pool], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        pool = Pool(LIMITS, None)  # type: ignore[arg-type]
        try:
            return await work(pool)
        finally:
            pool.close()

    return asyncio.run(run())


def finished() -> Connection:
    connection = Connection(Origin(False, "h", 1), asyncio.get_running_loop())
    connection.send(b"")
    connection.data_received(ANSWER)
    return connection


def test_the_newest_idle_connection_goes_out_first_and_the_oldest_is_closed() -> None:
    async def work(pool: Pool) -> None:
        connections = [finished() for _ in range(3)]
        for connection in connections:
            pool.give_back(connection)
        assert [c.is_closed for c in connections] == [True, False, False]
        assert pool.idle(connections[0].origin) is connections[2]
        assert pool.idle(Origin(True, "h", 1)) is None

    in_pool(work)


def test_a_connection_that_died_or_grew_old_is_not_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(pool: Pool) -> None:
        died, old = finished(), finished()
        pool.give_back(died)
        died.connection_lost(None)
        assert pool.idle(died.origin) is None
        pool.give_back(old)
        monkeypatch.setattr(time, "monotonic", lambda: 10.0**9)
        assert pool.idle(old.origin) is None
        assert old.is_closed

    in_pool(work)


def test_an_exchange_that_is_not_over_closes_its_connection() -> None:
    async def work(pool: Pool) -> None:
        connection = Connection(Origin(False, "h", 1), asyncio.get_running_loop())
        connection.send(b"")
        pool.give_back(connection)
        assert connection.is_closed

    in_pool(work)


@pytest.mark.parametrize(
    ("url", "origin", "path", "host"),
    [
        ("https://a.example/v1/x", Origin(True, "a.example", 443), b"/v1/x", b"a.example"),
        ("http://127.0.0.1:9000", Origin(False, "127.0.0.1", 9000), b"/", b"127.0.0.1:9000"),
        ("http://[::1]:9000/a?b=c", Origin(False, "::1", 9000), b"/a?b=c", b"[::1]:9000"),
    ],
)
def test_a_url_is_taken_apart(url: str, origin: Origin, path: bytes, host: bytes) -> None:
    assert target_of(url) == (origin, path, host)


def test_a_request_has_one_host_and_one_length() -> None:
    target = target_of("http://h/p")
    made = request_bytes("POST", target, {"a": "b"}, b"{}")
    assert made == b"POST /p HTTP/1.1\r\nhost: h\r\na: b\r\ncontent-length: 2\r\n\r\n{}"
    assert request_bytes("GET", target, {}, None) == b"GET /p HTTP/1.1\r\nhost: h\r\n\r\n"


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_compressed_body_is_inflated_once(pack: Callable[[bytes], bytes]) -> None:
    inflater = Inflater()
    packed = pack(b"hello" * 100)
    assert b"".join(inflater.feed(packed[i : i + 1]) for i in range(len(packed))) == b"hello" * 100
    inflater.end()


def test_a_bomb_and_a_cut_are_refused() -> None:
    with pytest.raises(errors.UpstreamBadResponse):
        Inflater().feed(gzip.compress(b"\0" * 40_000_000))
    inflater = Inflater()
    inflater.feed(gzip.compress(b"hello")[:-4])
    with pytest.raises(errors.UpstreamDisconnected):
        inflater.end()


def test_tcp_probes_a_silent_connection() -> None:
    made = transport._socket(socket.AF_INET, 77)
    with made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77
