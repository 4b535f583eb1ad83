"""The pool: what it keeps, what it reuses, and where it connects to."""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from sanic_proxy import errors
from sanic_proxy.config.model import PoolLimits
from sanic_proxy.upstream.connection import Connection
from sanic_proxy.upstream.pool import Pool, open_socket
from sanic_proxy.upstream.request import Origin
from tests.support.proxy import GENEROUS_S
from tests.support.transport import ANSWER, Recorder

LIMITS = PoolLimits(idle_per_host=2, idle_timeout_s=15, tcp_keepalive_s=90)
DATA = Path(__file__).parents[1] / "data"
LARGE = b"HTTP/1.1 200 OK\r\ncontent-length: 400000\r\n\r\n" + b"z" * 400_000
LOOPS: list[Any] = [asyncio.SelectorEventLoop, uvloop.new_event_loop]


def in_pool(work: Callable[[Pool], Awaitable[Any]], loop_factory: Any = None) -> None:
    async def run() -> None:
        pool = Pool(LIMITS, lambda: ssl.create_default_context(cafile=DATA / "localhost-cert.pem"))
        try:
            await work(pool)
        finally:
            pool.close()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(run())


def finished(pool: Pool | None = None, answer: bytes = ANSWER) -> tuple[Connection, Recorder]:
    recorder = Recorder()
    connection = Connection(Origin(False, "h", 1), asyncio.get_running_loop(), pool)
    connection.connection_made(recorder)
    connection.send((b"x",))
    connection.data_received(answer)
    return connection, recorder


def test_the_newest_idle_connection_is_used_first_and_the_oldest_is_closed() -> None:
    async def work(pool: Pool) -> None:
        connections = [finished()[0] for _ in range(3)]
        for connection in connections:
            pool.give_back(connection)
        assert [connection.is_closed for connection in connections] == [True, False, False]
        assert pool.idle(connections[0].origin) is connections[2]
        assert pool.idle(Origin(True, "h", 1)) is None

    in_pool(work)


@pytest.mark.parametrize("how", ["lost", "old", "data", "closing"])
def test_a_connection_that_is_lost_old_or_has_received_data_is_not_used(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async def work(pool: Pool) -> None:
        connection, recorder = finished()
        pool.give_back(connection)
        if how == "lost":
            connection.connection_lost(None)
        elif how == "old":
            monkeypatch.setattr(time, "monotonic", lambda: 10.0**9)
        elif how == "data":
            connection.data_received(ANSWER)
        else:
            recorder.closing = True
        assert pool.idle(connection.origin) is None
        assert connection.is_closed

    in_pool(work)


def test_an_exchange_that_has_not_ended_closes_its_connection() -> None:
    async def work(pool: Pool) -> None:
        connection = Connection(Origin(False, "h", 1), asyncio.get_running_loop())
        connection.send(())
        pool.give_back(connection)
        assert connection.is_closed

    in_pool(work)


@pytest.mark.parametrize("extra", [b"", b"HTTP/1.1 200 OK\r\n"])
def test_a_paused_connection_is_read_from_again_before_it_is_kept(extra: bytes) -> None:
    async def work(pool: Pool) -> None:
        connection, recorder = finished(pool, LARGE)
        assert recorder.events[-1] == "pause"
        connection.release()
        assert recorder.events[-1] == "resume"
        assert pool.idle(connection.origin) is None
        if extra:
            connection.data_received(extra)
        await asyncio.sleep(0)
        assert pool.idle(connection.origin) is (None if extra else connection)
        assert connection.is_closed is bool(extra)

    in_pool(work)


def test_a_closed_pool_keeps_nothing() -> None:
    async def work(pool: Pool) -> None:
        connection, _ = finished()
        pool.close()
        pool.give_back(connection)
        assert connection.is_closed

    in_pool(work)


def test_tcp_probes_a_silent_connection() -> None:
    with open_socket(socket.AF_INET, 77) as made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77


# Late bytes, from a real server


class Peer:
    """A blocking server that answers each request with the number of its connection.

    After `send_late` the bytes are in the client's socket: over loopback, and without Nagle's algorithm,
    `sendall` delivers them. Each connection belongs to one thread, as OpenSSL's objects are not thread-safe.
    """

    def __init__(self, *, is_tls: bool) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.context: ssl.SSLContext | None = None
        if is_tls:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(DATA / "localhost-key-and-cert.pem")
            self.context.num_tickets = 0
        self.origin = Origin(is_tls, "localhost" if is_tls else "127.0.0.1", self.listener.getsockname()[1])
        self.connections: list[socket.socket] = []
        self.late: bytes | None = None
        self.is_late, self.signal = socket.socketpair()
        self.was_sent = threading.Event()
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(accepted,), daemon=True).start()

    def _serve(self, accepted: socket.socket) -> None:
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.context is not None:
            accepted = self.context.wrap_socket(accepted, server_side=True)
        number = len(self.connections) + 1
        self.connections.append(accepted)
        watched = [accepted, self.is_late] if number == 1 else [accepted]
        try:
            while True:
                readable, _, _ = select.select(watched, [], [])
                if self.is_late in readable:
                    self._send_late(accepted)
                    watched.remove(self.is_late)
                elif accepted.recv(65536):
                    accepted.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%d" % number)
                else:
                    return
        except (OSError, ValueError):  # closed by the test, also before `select`
            return

    def _send_late(self, first: socket.socket) -> None:
        if self.late is not None:
            first.sendall(self.late)
        else:
            first.shutdown(socket.SHUT_WR)
        self.was_sent.set()

    def send_late(self, late: bytes | None) -> None:
        """Another answer on the first connection, or its end."""
        self.late = late
        self.signal.send(b"!")
        assert self.was_sent.wait(GENEROUS_S)


@contextmanager
def serving(*, is_tls: bool) -> Iterator[Peer]:
    peer = Peer(is_tls=is_tls)
    try:
        yield peer
    finally:
        # shutdown, as close alone does not wake a thread in accept
        peer.listener.shutdown(socket.SHUT_RDWR)
        peer.listener.close()
        for connection in (*peer.connections, peer.is_late, peer.signal):
            connection.close()


async def answer_of(pool: Pool, origin: Origin) -> bytes:
    """As the client does: an idle connection or a new one, without a turn of the loop before sending."""
    connection = pool.idle(origin) or await pool.connect(origin, 5)
    connection.send((b"GET / HTTP/1.1\r\nhost: h\r\n\r\n",))
    assert await connection.head(asyncio.get_running_loop().time() + 10)
    body = await connection.read(asyncio.get_running_loop().time() + 10)
    assert body is not None
    connection.release()
    return body


@pytest.mark.parametrize("loop_factory", LOOPS, ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("is_tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("is_read", [False, True], ids=["in the kernel", "read by the loop"])
@pytest.mark.parametrize("late", [ANSWER, b"\r\n", None], ids=["answer", "line end", "end"])
def test_what_arrives_on_an_idle_connection_ends_its_use(
    late: bytes | None, is_read: bool, is_tls: bool, loop_factory: Any
) -> None:
    async def work(pool: Pool) -> None:
        assert await answer_of(pool, peer.origin) == b"1"
        assert await answer_of(pool, peer.origin) == b"1"
        peer.send_late(late)
        if is_read:
            await asyncio.sleep(0.05)
        assert await answer_of(pool, peer.origin) == b"2"
        assert await answer_of(pool, peer.origin) == b"2"

    with serving(is_tls=is_tls) as peer:
        in_pool(work, loop_factory)


# New connections


@pytest.mark.parametrize("loop_factory", LOOPS, ids=["asyncio", "uvloop"])
def test_the_next_address_is_tried_where_one_refuses(
    monkeypatch: pytest.MonkeyPatch, loop_factory: Any
) -> None:
    def addresses(*_: Any, **__: Any) -> Any:
        return [(socket.AF_INET, 1, 6, "", (address, 0)) for address in ("127.0.0.2", "127.0.0.1")]

    async def work(pool: Pool) -> None:
        assert await answer_of(pool, Origin(False, "two.invalid", peer.origin.port)) == b"1"

    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    with serving(is_tls=False) as peer:
        in_pool(work, loop_factory)


@pytest.mark.row(3)
@pytest.mark.parametrize("loop_factory", LOOPS, ids=["asyncio", "uvloop"])
def test_a_name_that_hangs_takes_no_other_provider_down(
    monkeypatch: pytest.MonkeyPatch, loop_factory: Any
) -> None:
    system = socket.getaddrinfo
    ending = threading.Event()

    def slow(host: str, *rest: Any, **more: Any) -> Any:
        if host.endswith(".invalid"):
            ending.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "silence")
        return system(host, *rest, **more)

    async def work(pool: Pool) -> None:
        dead = [
            asyncio.ensure_future(pool.connect(Origin(False, f"{name}.invalid", 80), 0.3))
            for name in "abcdefgh" * 8
        ]
        for host in ("127.0.0.1", "localhost"):
            assert await answer_of(pool, Origin(False, host, peer.origin.port))
        for failed in await asyncio.gather(*dead, return_exceptions=True):
            assert isinstance(failed, errors.UpstreamConnectTimeout)
        ending.set()

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with serving(is_tls=False) as peer:
        in_pool(work, loop_factory)
