"""One connection, fed with bytes."""

from __future__ import annotations

import asyncio
import gc
import ssl
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.config.model import PoolLimits
from sanic_proxy.upstream import connection
from sanic_proxy.upstream.connection import Connection, Receiver
from sanic_proxy.upstream.pool import Pool
from sanic_proxy.upstream.request import Origin
from tests.support import virtual_time
from tests.support.transport import ANSWER, Recorder

LIMITS = PoolLimits(idle_per_host=2, idle_timeout_s=15, tcp_keepalive_s=90)


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

    return virtual_time.run(run())


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


def test_a_trailer_is_not_a_header_of_the_answer() -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx: y\r\n\r\n2\r\nab\r\n"
    status, body, connection = exchange(head + b"0\r\nx: z\r\n\r\n")
    assert (status, body, connection.headers["x"]) == (200, b"ab", "y")


def test_unexpected_bytes_close_the_connection() -> None:
    connection = exchange(ANSWER)[2]
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\n")
    assert connection.is_closed


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


def on_a_wire(work: Callable[[Connection, Recorder, Pool], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        pool = Pool(LIMITS, ssl.create_default_context)
        connection = Connection(Origin(False, "h", 1), asyncio.get_running_loop(), pool)
        recorder = Recorder()
        connection.connection_made(recorder)
        try:
            return await work(connection, recorder, pool)
        finally:
            pool.close()

    return virtual_time.run(run())


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"


def test_a_connection_waits_by_itself_for_the_end_of_a_body() -> None:
    async def work(connection: Connection, recorder: Recorder, pool: Pool) -> None:
        connection.send((b"x",))
        connection.data_received(CHUNKED)
        connection.drain_in_background()
        assert pool.idle(connection.origin) is None
        connection.data_received(b"0\r\n\r\n")
        assert pool.idle(connection.origin) is connection
        assert not pool.draining

    on_a_wire(work)


@pytest.mark.parametrize("more", [b"", b"5\r\nhello\r\n" * 15_000], ids=["silence", "too much"])
def test_a_body_that_does_not_end_closes_its_connection(monkeypatch: pytest.MonkeyPatch, more: bytes) -> None:
    monkeypatch.setattr(connection, "DRAIN_S", 0.02)

    async def work(connection: Connection, recorder: Recorder, pool: Pool) -> None:
        connection.send((b"x",))
        connection.data_received(CHUNKED)
        connection.drain_in_background()
        if more:
            connection.data_received(more)
            assert connection.is_closed
        await asyncio.sleep(0.05)
        assert connection.is_closed
        connection.connection_lost(None)
        assert not pool.draining
        assert pool.idle(connection.origin) is None

    on_a_wire(work)


def test_the_timer_strikes_when_it_is_due_and_not_before() -> None:
    async def work(connection: Connection, recorder: Recorder, pool: Pool) -> None:
        loop = asyncio.get_running_loop()
        connection.send((b"x",))
        connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
        started = loop.time()
        loop.call_later(0.03, connection.data_received, b"abc")
        assert await connection.read(started + 0.05) == b"abc"  # leaves the timer at 0.05
        assert await connection.read(started + 0.12) is None  # which strikes, and is set anew
        assert 0.11 < loop.time() - started < 0.13
        assert await connection.read(loop.time() + 0.02) is None  # an earlier one counts

    on_a_wire(work)


def test_what_comes_goes_to_the_receiver_at_once() -> None:
    class Taker(Receiver):
        def __init__(self) -> None:
            self.events: list[Any] = []

        @override
        def received(self, data: bytes) -> None:
            self.events.append(data)

        @override
        def ended(self, failure: errors.UpstreamError | None) -> None:
            self.events.append(failure)

    async def work(connection: Connection, recorder: Recorder, pool: Pool) -> None:
        taker = Taker()
        connection.send((b"x",))
        connection.data_received(CHUNKED)
        connection.attach(taker)
        connection.data_received(b"2\r\nab\r\n2\r\ncd\r\n")
        connection.data_received(b"0\r\n\r\n")
        assert taker.events == [b"hello", b"abcd", None]

    on_a_wire(work)


def test_a_second_answer_is_dropped_and_its_connection_not_kept() -> None:
    status, body, connection = exchange(ANSWER + b"HTTP/1.1 500 No\r\nx: z\r\ncontent-length: 1\r\n\r\n!")
    assert (status, body, connection.headers["x"]) == (200, b"hello", "y")
    assert not connection.is_reusable


def test_a_connection_whose_request_is_not_all_sent_is_not_kept() -> None:
    async def work(connection: Connection, recorder: Recorder, pool: Pool) -> None:
        recorder.unsent_bytes = 1
        connection.send((b"x",))
        connection.data_received(ANSWER)
        connection.release()
        assert connection.is_closed

    on_a_wire(work)


def test_a_diverted_connection_is_read_from_again() -> None:
    class Taker(Receiver):
        size = 0

        @override
        def received(self, data: bytes) -> None:
            self.size += len(data)

        @override
        def ended(self, failure: errors.UpstreamError | None) -> None:
            return

    async def work(connection: Connection, recorder: Recorder, pool: Pool) -> None:
        connection.send((b"x",))
        connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 400001\r\n\r\n" + b"z" * 400_000)
        taker = Taker()
        connection.attach(taker)
        assert taker.size == 400_000
        assert recorder.events[-1] == "resume"

    on_a_wire(work)


def test_an_interim_answer_does_not_set_the_length_of_the_final_one() -> None:
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


@pytest.mark.parametrize(
    ("first", "elapsed_s", "answer", "is_stale", "is_new"),
    [
        (ANSWER, 0.0, b"", True, False),
        (ANSWER, 0.05, b"", True, False),
        (ANSWER, 0.11, b"", False, False),
        (ANSWER, 4.0, b"", False, False),
        (ANSWER, 0.0, b"H", False, False),
        (ANSWER, 0.0, b"HTTP/1.1 103 Early\r\n\r\n", False, False),
        (ANSWER, 0.0, ANSWER[:-1], False, False),
        (b"", 0.0, b"", False, True),
        (b"", 4.0, b"", False, True),
        (b"", 0.0, b"H", False, False),
    ],
    ids=[
        "at once",
        "soon",
        "later",
        "long after",
        "a byte",
        "interim",
        "a part",
        "new",
        "new, late",
        "new, byte",
    ],
)
def test_a_stale_connection_is_reused_and_closed_soon_without_a_byte(
    first: bytes, elapsed_s: float, answer: bytes, is_stale: bool, is_new: bool
) -> None:
    class Clock(asyncio.SelectorEventLoop):
        ahead_s = 0.0

        @override
        def time(self) -> float:
            return super().time() + self.ahead_s

    async def work() -> tuple[bool, bool] | None:
        loop = cast("Clock", asyncio.get_running_loop())
        connection = Connection(Origin(False, "h", 1), loop)
        if first:
            connection.send(())
            connection.data_received(first)
        connection.send(())
        if answer:
            connection.data_received(answer)
        loop.ahead_s = elapsed_s
        connection.connection_lost(ConnectionResetError())
        try:
            while await connection.head(loop.time() + 1):
                await connection.read(loop.time() + 1)
        except errors.UpstreamDisconnected as exc:
            return exc.is_stale_connection, exc.is_new_connection
        return None

    with asyncio.Runner(loop_factory=Clock) as runner:
        assert runner.run(work()) == (is_stale, is_new)


def test_a_request_on_a_connection_that_was_lost_before_it_fails_at_once() -> None:
    async def work(connection: Connection, recorder: Recorder, pool: Pool) -> None:
        connection.data_received(b"HTTP/1.1 408 Too late\r\n\r\n")
        connection.connection_lost(None)
        connection.send((b"x",))
        with pytest.raises(errors.UpstreamDisconnected) as caught:
            await connection.head(asyncio.get_running_loop().time() + 60)
        assert not caught.value.is_stale_connection

    on_a_wire(work)


def test_content_encodings_of_several_lines_are_one_list() -> None:
    lines = b"content-encoding: deflate\r\nContent-Encoding: gzip\r\nx: 1\r\nx: 2\r\n"
    answer = exchange(b"HTTP/1.1 200 OK\r\n" + lines + b"content-length: 0\r\n\r\n")[2]
    assert answer.headers["content-encoding"] == "deflate, gzip"
    assert answer.headers["x"] == "2"
