"""The HTTP client to the providers, directly or through an outbound proxy; the only importer of aiohttp.

Strategy: direct connections are `transport`'s, as they carry every request; what goes through an
outbound proxy goes through aiohttp, which knows CONNECT and proxy credentials. Both look alike from
here on: a status of 300 or more raises for every kind of answer alike, and whoever holds an
UpstreamResponse closes it. Closing before the end of the body closes the connection, so that the
provider sees the client go.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import aiohttp

from sanic_proxy import errors
from sanic_proxy.failures import Rule, error_from_answer
from sanic_proxy.transport import Connection, Inflater, Pool, request_bytes, target_of

if TYPE_CHECKING:
    from sanic_proxy.settings import PoolLimits, Secret, Timeouts

MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
ERROR_BODY_TIMEOUT_S = 5.0
# After the last frame the end of the HTTP body is usually on its way: waiting this long for it
# keeps the connection for the next request.
LINGER_S = 0.05

_target = lru_cache(maxsize=256)(target_of)


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One request to a provider. `url` and `headers` come from settings, never from a client's host."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)  # one of them is the key
    body: bytes | None = field(repr=False)
    timeouts: Timeouts
    proxy: Secret | None = None
    rules: Sequence[Rule] = ()


class _Exchange(Protocol):
    """An answer that has begun, whatever carries it. `until` is loop time."""

    status: int
    headers: Mapping[str, str]

    async def read(self, until: float) -> bytes | None: ...
    def end(self) -> None: ...


class UpstreamResponse:
    """The status and headers of an answer, and its body as it comes."""

    __slots__ = ("_exchange", "_idle_at", "_idle_s", "_inflater", "_now", "_total_at", "headers", "status")

    def __init__(self, exchange: _Exchange, *, idle_s: float, total_at: float) -> None:
        self._exchange: _Exchange | None = exchange
        self._now = asyncio.get_running_loop().time
        self._idle_s = idle_s
        self._idle_at = self._now() + idle_s
        self._total_at = total_at
        self.status = exchange.status
        self.headers = exchange.headers
        self._inflater = _inflater(exchange.headers.get("content-encoding", ""))

    async def read_some(self, wait_s: float | None = None) -> bytes | None:
        """The next bytes; b"" at the end; None if there were none for `wait_s` seconds.

        Raises UpstreamTimeout (idle, total), UpstreamDisconnected, UpstreamBadResponse.
        """
        while True:
            limit_at = min(self._idle_at, self._total_at)
            until = limit_at if wait_s is None else min(limit_at, self._now() + wait_s)
            data = await self._exchange.read(until) if self._exchange is not None else b""
            now = self._now()
            if now >= self._total_at:
                raise errors.UpstreamTimeout("The provider's answer took longer than allowed")
            if data is None:
                if now >= self._idle_at:
                    raise errors.UpstreamTimeout("The provider stopped sending in the middle of its answer")
                return None
            self._idle_at = now + self._idle_s
            if self._inflater is None:
                return data
            if not data:
                self._inflater.end()
                return data
            if content := self._inflater.feed(data):
                return content

    async def read_all(self, limit_bytes: int = MAX_ANSWER_BYTES) -> bytes:
        """The whole body. Raises as `read_some`, and UpstreamBadResponse past `limit_bytes` (decoded)."""
        pieces: list[bytes] = []
        size = 0
        while piece := await self.read_some():
            pieces.append(piece)
            size += len(piece)
            if size > limit_bytes:
                raise errors.UpstreamBadResponse("The provider's answer is larger than the proxy accepts")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def finish(self) -> None:
        """Wait a moment for the end of a body whose content is complete; what still comes is dropped."""
        dropped = 0
        with suppress(errors.UpstreamError):
            while dropped < MAX_ERROR_BYTES and (piece := await self.read_some(LINGER_S)):
                dropped += len(piece)

    def close(self) -> None:
        """Give the connection back if the body has ended, else close it. Safe to call twice."""
        if self._exchange is not None:
            self._exchange.end()
            self._exchange = None


def _inflater(encoding: str) -> Inflater | None:
    kind = encoding.strip().lower()
    if kind in {"", "identity"}:
        return None
    if kind in {"gzip", "x-gzip", "deflate"}:
        return Inflater()
    raise errors.UpstreamBadResponse("The provider compressed its answer in a way that was not asked for")


class _Direct:
    """An answer on a connection of our own."""

    __slots__ = ("_connection", "_pool", "headers", "status")

    def __init__(self, connection: Connection, pool: Pool) -> None:
        self._connection = connection
        self._pool = pool
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers

    async def read(self, until: float) -> bytes | None:
        return await self._connection.read(until)

    def end(self) -> None:
        self._pool.give_back(self._connection)


class UpstreamClient:
    """One worker's connections to all providers. Opened in the worker, closed after its last stream."""

    def __init__(self, limits: PoolLimits, ssl_cert_file: str | None) -> None:
        self._context = ssl.create_default_context(cafile=ssl_cert_file)
        self._pool = Pool(limits, self._context)
        self._tunnels: aiohttp.ClientSession | None = None

    async def aclose(self) -> None:
        self._pool.close()
        if self._tunnels is not None:
            await self._tunnels.close()

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send, and wait for the status. Raises a ProxyError for a failure or a status >= 300."""
        now = asyncio.get_running_loop().time()
        clocks = request.timeouts
        total_at = now + clocks.total_s
        until = min(now + clocks.first_byte_s, total_at)
        exchange = await (
            self._direct(request, until) if request.proxy is None else self._tunnel(request, until)
        )
        try:
            answer = UpstreamResponse(exchange, idle_s=clocks.idle_s, total_at=total_at)
        except errors.ProxyError:
            exchange.end()
            raise
        if answer.status < 300:
            return answer
        try:
            raise await _failure_of(answer, request.rules)
        finally:
            answer.close()

    async def _direct(self, request: UpstreamRequest, until: float) -> _Exchange:
        target = _target(request.url)
        data = request_bytes(request.method, target, request.headers, request.body)
        connection = self._pool.idle(target.origin)
        if connection is not None:
            try:
                return await self._asked(connection, data, until)
            except errors.UpstreamDisconnected:
                # A provider may close an idle connection just as a request goes out on it. Not a
                # byte of an answer came, so a second try on a new connection is safe.
                if connection.has_answered:
                    raise
        connection = await self._pool.connect(target.origin, request.timeouts.connect_s)
        return await self._asked(connection, data, until)

    async def _asked(self, connection: Connection, data: bytes, until: float) -> _Exchange:
        try:
            connection.send(data)
            has_begun = await connection.head(until)
        except BaseException:
            connection.close()  # cancelled too: the provider must see that nobody waits
            raise
        if has_begun:
            return _Direct(connection, self._pool)
        connection.close()
        raise errors.UpstreamTimeout("The provider did not answer in time")

    async def _tunnel(self, request: UpstreamRequest, until: float) -> _Exchange:
        if self._tunnels is None:
            self._tunnels = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=self._context),
                cookie_jar=aiohttp.DummyCookieJar(),  # the default jar hands one client's cookies to the next
                skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
                auto_decompress=False,
                trust_env=False,
            )
        connect_s = request.timeouts.connect_s
        try:
            async with asyncio.timeout_at(until):
                response = await self._tunnels.request(
                    request.method,
                    request.url,
                    headers=request.headers,
                    data=request.body,
                    allow_redirects=False,  # a redirect would take key and prompt to another host
                    timeout=aiohttp.ClientTimeout(total=None, connect=connect_s, sock_connect=connect_s),
                    proxy=request.proxy.reveal() if request.proxy else None,
                )
        except aiohttp.ClientError as exc:
            raise _error_for(exc) from exc
        except TimeoutError as exc:
            raise errors.UpstreamTimeout("The provider did not answer in time") from exc
        return _Tunnelled(response)


class _Tunnelled:
    """An answer through an outbound proxy."""

    __slots__ = ("_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def read(self, until: float) -> bytes | None:
        try:
            with _translated():
                async with asyncio.timeout_at(until):
                    return await self._response.content.readany()
        except TimeoutError:
            return None

    def end(self) -> None:
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


async def _failure_of(answer: UpstreamResponse, rules: Sequence[Rule]) -> errors.ProxyError:
    """The error for an answer with a failure status, whether or not its body can be read."""
    body = b""
    with suppress(errors.UpstreamError, TimeoutError):
        async with asyncio.timeout(ERROR_BODY_TIMEOUT_S):
            while len(body) < MAX_ERROR_BYTES and (piece := await answer.read_some()):
                body += piece
    return error_from_answer(answer.status, answer.headers, body[:MAX_ERROR_BYTES], rules=rules)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except aiohttp.ClientError as exc:
        raise _error_for(exc) from exc


def _error_for(exc: aiohttp.ClientError) -> errors.ProxyError:
    for kind, make, message in _TRANSLATIONS:
        if isinstance(exc, kind):
            return make(message)
    return errors.UpstreamBadResponse("The provider's answer is not valid HTTP")


# From the most specific to the least. An aiohttp ClientResponseError's own `status` is never passed
# on: for a garbled answer it reads 400.
_TRANSLATIONS: tuple[tuple[type[Exception], type[errors.UpstreamError], str], ...] = (
    (aiohttp.ServerTimeoutError, errors.UpstreamTimeout, "No connection within the time allowed"),
    (aiohttp.ClientSSLError, errors.UpstreamTlsFailed, "The provider's TLS handshake is not acceptable"),
    (aiohttp.ClientHttpProxyError, errors.UpstreamConnectFailed, "The outbound proxy refused the connection"),
    (aiohttp.ClientConnectorDNSError, errors.UpstreamDnsFailed, "The outbound proxy's name is not known"),
    (aiohttp.ClientConnectorError, errors.UpstreamConnectFailed, "The outbound proxy cannot be reached"),
    (aiohttp.ClientConnectionError, errors.UpstreamDisconnected, "The connection to the provider broke"),
    (aiohttp.ClientPayloadError, errors.UpstreamDisconnected, "The provider's answer broke off"),
)
