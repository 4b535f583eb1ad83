"""Connections and their pool, below what test_upstream shows through the client."""

from __future__ import annotations

import asyncio
import gc
import gzip
import socket
import ssl
import time
import weakref
import zlib
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.config.model import PoolLimits
from sanic_proxy.upstream import connection
from sanic_proxy.upstream.connection import (
    Connection,
    Inflater,
    Origin,
    Pool,
    request_head,
    request_pieces,
    target_of,
)

LIMITS = PoolLimits(idle_per_host=2, idle_timeout_s=15, tcp_keepalive_s=90)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx: y\r\n\r\nhello"


def exchange(*pieces: bytes, is_cut: bool = False) -> tuple[int, bytes, Connection]:
    """What a connection makes of an answer that arrives in `pieces`."""

    async def run() -> tuple[int, bytes, Connection]:
        loop = asyncio.get_running_loop()
        connection = Connection(Origin(False, "h", 1), loop)
        connection.send(())
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


@pytest.mark.row(33)
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


@pytest.mark.row(33)
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


@pytest.mark.parametrize("more", [b"0\r\nx: " + b"y" * 40_000, b"2;" + b"x" * 40_000])
def test_what_stands_between_the_pieces_of_an_answer_is_limited(more: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n"
    with pytest.raises(errors.UpstreamBadResponse):
        exchange(head, *(more[i : i + 1000] for i in range(0, len(more), 1000)))


def test_a_header_behind_the_body_is_none_of_the_answers() -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx: y\r\n\r\n2\r\nab\r\n"
    status, body, connection = exchange(head + b"0\r\nx: z\r\n\r\n")
    assert (status, body, connection.headers["x"]) == (200, b"ab", "y")


def test_bytes_that_nobody_asked_for_close_the_connection() -> None:
    connection = exchange(ANSWER)[2]
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\n")
    assert connection.is_closed


class Recorder(asyncio.Transport):
    """A transport that notes what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []
        self.unsent_bytes = 0

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

    @override
    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes


@pytest.mark.row(36)
def test_a_slow_reader_holds_its_provider_back() -> None:
    async def run() -> list[str]:
        loop = asyncio.get_running_loop()
        connection = Connection(Origin(False, "h", 1), loop)
        recorder = Recorder()
        connection.connection_made(recorder)
        connection.send((b"x",))
        connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 900000\r\n\r\n")
        for _ in range(6):
            connection.data_received(b"z" * 65536)
        assert len(await connection.read(loop.time() + 1) or b"") == 6 * 65536
        return recorder.events

    assert asyncio.run(run()) == ["write", "pause", "resume"]


def in_pool(work: Callable[[Pool], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        pool = Pool(LIMITS, ssl.create_default_context)
        try:
            return await work(pool)
        finally:
            pool.close()

    return asyncio.run(run())


def finished() -> Connection:
    connection = Connection(Origin(False, "h", 1), asyncio.get_running_loop())
    connection.send(())
    connection.data_received(ANSWER)
    return connection


def test_the_newest_idle_connection_goes_out_first_and_the_oldest_is_closed() -> None:
    async def work(pool: Pool) -> None:
        connections = [finished() for _ in range(3)]
        for finished_connection in connections:
            pool.give_back(finished_connection)
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
        connection.send(())
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
    head = request_head("POST", target_of("http://h/p"), {"a": "b"})
    (made,) = request_pieces(head, [("c", "d")], (b"{", b"}"))
    assert made == b"POST /p HTTP/1.1\r\nhost: h\r\na: b\r\nc: d\r\ncontent-length: 2\r\n\r\n{}"
    assert request_pieces(b"GET /p HTTP/1.1\r\nhost: h\r\n", (), ()) == (
        b"GET /p HTTP/1.1\r\nhost: h\r\n\r\n",
    )


def test_a_large_body_is_not_copied() -> None:
    body = b"x" * 100_000
    head, piece = request_pieces(b"", (), (body,))
    assert piece is body
    assert head == b"content-length: 100000\r\n\r\n"


@pytest.mark.row(31)
@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_compressed_body_is_inflated_once(pack: Callable[[bytes], bytes]) -> None:
    inflater = Inflater()
    packed = pack(b"hello" * 100)
    assert b"".join(inflater.feed(packed[i : i + 1]) for i in range(len(packed))) == b"hello" * 100
    inflater.end()


@pytest.mark.row(31)
def test_a_bomb_and_a_cut_are_refused() -> None:
    with pytest.raises(errors.UpstreamBadResponse):
        Inflater().feed(gzip.compress(b"\0" * 40_000_000))
    inflater = Inflater()
    inflater.feed(gzip.compress(b"hello")[:-4])
    with pytest.raises(errors.UpstreamDisconnected):
        inflater.end()


def test_tcp_probes_a_silent_connection() -> None:
    made = connection._socket(socket.AF_INET, 77)
    with made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77


def on_a_wire(work: Callable[[Connection, Recorder], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        pool = Pool(LIMITS, ssl.create_default_context)
        connection = Connection(Origin(False, "h", 1), asyncio.get_running_loop(), pool)
        recorder = Recorder()
        connection.connection_made(recorder)
        try:
            return await work(connection, recorder)
        finally:
            pool.close()

    return asyncio.run(run())


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"


def test_a_connection_waits_by_itself_for_the_end_of_a_body() -> None:
    async def work(connection: Connection, recorder: Recorder) -> None:
        connection.send((b"x",))
        connection.data_received(CHUNKED)
        connection.linger()
        assert connection._pool is not None
        assert connection._pool.idle(connection.origin) is None
        connection.data_received(b"0\r\n\r\n")
        assert connection._pool.idle(connection.origin) is connection
        assert not connection._pool.lingering

    on_a_wire(work)


@pytest.mark.parametrize("more", [b"", b"5\r\nhello\r\n" * 15_000], ids=["silence", "too much"])
def test_a_body_that_does_not_end_closes_its_connection(monkeypatch: pytest.MonkeyPatch, more: bytes) -> None:
    monkeypatch.setattr(connection, "LINGER_S", 0.02)

    async def work(connection: Connection, recorder: Recorder) -> None:
        connection.send((b"x",))
        connection.data_received(CHUNKED)
        connection.linger()
        if more:
            connection.data_received(more)
            assert connection.is_closed
        await asyncio.sleep(0.05)
        assert connection.is_closed
        assert connection._pool is not None
        connection.connection_lost(None)
        assert not connection._pool.lingering
        assert connection._pool.idle(connection.origin) is None

    on_a_wire(work)


def test_the_timer_strikes_when_it_is_due_and_not_before() -> None:
    async def work(connection: Connection, recorder: Recorder) -> None:
        loop = asyncio.get_running_loop()
        connection.send((b"x",))
        connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
        started = loop.time()
        loop.call_later(0.03, connection.data_received, b"abc")
        assert await connection.read(started + 0.05) == b"abc"  # leaves the timer at 0.05
        assert await connection.read(started + 0.12) is None  # which strikes, and is set anew
        assert 0.11 < loop.time() - started < 0.3
        assert await connection.read(loop.time() + 0.02) is None  # an earlier one counts

    on_a_wire(work)


def test_what_comes_goes_to_the_receiver_at_once() -> None:
    class Taker:
        def __init__(self) -> None:
            self.events: list[Any] = []

        def received(self, data: bytes) -> None:
            self.events.append(data)

        def ended(self, failure: errors.UpstreamError | None) -> None:
            self.events.append(failure)

    async def work(connection: Connection, recorder: Recorder) -> None:
        taker = Taker()
        connection.send((b"x",))
        connection.data_received(CHUNKED)
        connection.divert(taker)
        connection.data_received(b"2\r\nab\r\n2\r\ncd\r\n")
        connection.data_received(b"0\r\n\r\n")
        assert taker.events == [b"hello", b"abcd", None]

    on_a_wire(work)


def test_a_second_answer_is_dropped_and_its_connection_not_kept() -> None:
    status, body, connection = exchange(ANSWER + b"HTTP/1.1 500 No\r\nx: z\r\ncontent-length: 1\r\n\r\n!")
    assert (status, body, connection.headers["x"]) == (200, b"hello", "y")
    assert not connection.is_reusable


def test_a_connection_held_back_is_read_from_again_before_it_is_kept() -> None:
    async def work(connection: Connection, recorder: Recorder) -> None:
        connection.send((b"x",))
        connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 400000\r\n\r\n" + b"z" * 400_000)
        assert recorder.events[-1] == "pause"
        connection.end()
        assert recorder.events[-1] == "resume"

    on_a_wire(work)


def test_a_connection_whose_request_is_not_all_sent_is_not_kept() -> None:
    async def work(connection: Connection, recorder: Recorder) -> None:
        recorder.unsent_bytes = 1
        connection.send((b"x",))
        connection.data_received(ANSWER)
        connection.end()
        assert connection.is_closed

    on_a_wire(work)


def test_a_diverted_connection_is_read_from_again() -> None:
    class Taker:
        size = 0

        def received(self, data: bytes) -> None:
            self.size += len(data)

        def ended(self, failure: errors.UpstreamError | None) -> None:
            return

    async def work(connection: Connection, recorder: Recorder) -> None:
        connection.send((b"x",))
        connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 400001\r\n\r\n" + b"z" * 400_000)
        taker = Taker()
        connection.divert(taker)
        assert taker.size == 400_000
        assert recorder.events[-1] == "resume"

    on_a_wire(work)


def test_an_interim_answer_says_nothing_of_the_last_ones_length() -> None:
    interim = b"HTTP/1.1 103 Early\r\ncontent-length: 0\r\n\r\n"
    status, body, _ = exchange(interim + b"HTTP/1.1 200 OK\r\n\r\nhello", is_cut=True)
    assert (status, body) == (200, b"hello")


def test_a_connection_goes_without_the_collector() -> None:
    class Watched(Connection):
        __slots__ = ("__weakref__",)

    async def work() -> object:
        connection = Watched(Origin(False, "h", 1), asyncio.get_running_loop())
        connection.send(())
        connection.data_received(ANSWER[:-1])
        connection.connection_lost(None)
        return weakref.ref(connection)

    gc.disable()
    try:
        assert cast("weakref.ref[Connection]", asyncio.run(work()))() is None
    finally:
        gc.enable()
