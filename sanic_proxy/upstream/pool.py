"""The pool of connections to the providers: idle ones are reused, and new ones are made."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sanic_proxy import errors
from sanic_proxy.upstream.connection import Connection
from sanic_proxy.upstream.resolver import Address, Resolver

if TYPE_CHECKING:
    from sanic_proxy.config.model import PoolLimits
    from sanic_proxy.upstream.request import Origin


class Pool:
    """The connections of one worker. Only idle ones are limited in number."""

    def __init__(self, limits: PoolLimits, tls_context: Callable[[], ssl.SSLContext]) -> None:
        self._limits = limits
        self._tls_context = tls_context
        self._idle: dict[Origin, deque[tuple[Connection, float]]] = {}
        self._resolver = Resolver()
        self._sweeper: asyncio.TimerHandle | None = None
        self._is_closed = False
        self.draining: set[Connection] = set()

    def idle(self, origin: Origin) -> Connection | None:
        """An idle connection to `origin`: the newest, as it is the most likely to be alive."""
        waiting = self._idle.get(origin)
        while waiting:
            connection, since = waiting.pop()
            if time.monotonic() - since <= self._limits.idle_timeout_s and connection.is_usable():
                return connection
            connection.close()
        return None

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose exchange has ended, or close it."""
        if self.draining:
            self.draining.discard(connection)
        if self._is_closed or not connection.may_be_kept():
            connection.close()
            return
        if connection.is_paused:
            # Bytes behind the body may wait in TLS buffers, which `is_usable` cannot see. Resuming has them
            # delivered by a callback that runs before this one.
            connection.resume()
            asyncio.get_running_loop().call_soon(self.give_back, connection)
            return
        waiting = self._idle.get(connection.origin)
        if waiting is None:
            waiting = self._idle[connection.origin] = deque()
        waiting.append((connection, time.monotonic()))
        while len(waiting) > self._limits.idle_per_host:
            waiting.popleft()[0].close()
        if self._sweeper is None and waiting:
            loop = asyncio.get_running_loop()
            self._sweeper = loop.call_later(self._limits.idle_timeout_s, self._sweep)

    def _sweep(self) -> None:
        oldest = time.monotonic() - self._limits.idle_timeout_s
        for waiting in self._idle.values():
            while waiting and (waiting[0][1] <= oldest or waiting[0][0].is_closed):
                waiting.popleft()[0].close()
        self._idle = {origin: waiting for origin, waiting in self._idle.items() if waiting}
        loop = asyncio.get_running_loop()
        wait_s = self._limits.idle_timeout_s / 2
        self._sweeper = loop.call_later(wait_s, self._sweep) if self._idle else None

    def close(self) -> None:
        self._is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for waiting in self._idle.values():
            for connection, _ in waiting:
                connection.close()
        self._idle.clear()
        for connection in self.draining:
            connection.close()
        self.draining.clear()
        self._resolver.close()

    async def connect(self, origin: Origin, connect_s: float) -> Connection:
        """A new connection. Raises UpstreamConnectTimeout, or UpstreamConnectFailed or a subclass."""
        try:
            async with asyncio.timeout(connect_s):
                return await self._connect(origin, connect_s)
        except TimeoutError as exc:
            raise errors.UpstreamConnectTimeout(
                f"No connection to the provider within {connect_s:g} s"
            ) from exc
        except (ssl.SSLError, ssl.CertificateError) as exc:
            text = "The TLS handshake with the provider failed, or its certificate is not trusted"
            raise errors.UpstreamTlsFailed(text) from exc
        except OSError as exc:
            raise errors.UpstreamConnectFailed("No connection to the provider could be made") from exc

    async def _connect(self, origin: Origin, connect_s: float) -> Connection:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + connect_s
        addresses = await self._resolver.resolve(origin.host)
        _, connection = await loop.create_connection(
            lambda: Connection(origin, loop, self),
            sock=await self._first_to_accept(addresses, origin.port, deadline),
            ssl=self._tls_context() if origin.is_tls else None,
            server_hostname=origin.host if origin.is_tls else None,
        )
        return connection

    async def _first_to_accept(
        self, addresses: Sequence[Address], port: int, deadline: float
    ) -> socket.socket:
        """A socket connected to the first address that accepts.

        Each address gets an equal share of the time that is left, so that one that drops packets leaves
        some for the next.
        """
        loop = asyncio.get_running_loop()
        failure: OSError | None = None
        for index, (family, address) in enumerate(addresses):
            made = open_socket(family, self._limits.tcp_keepalive_s)
            now = loop.time()
            try:
                async with asyncio.timeout_at(now + (deadline - now) / (len(addresses) - index)):
                    await loop.sock_connect(made, (address, port))
            except OSError as exc:  # TimeoutError is a subclass
                made.close()
                failure = exc
            except BaseException:
                made.close()
                raise
            else:
                return made
        raise failure or ConnectionError("no address")


def open_socket(family: socket.AddressFamily, keepalive_s: int) -> socket.socket:
    """A TCP socket that does not block, and that probes the peer after `keepalive_s` seconds of silence."""
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setblocking(False)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, keepalive_s)
    return made
