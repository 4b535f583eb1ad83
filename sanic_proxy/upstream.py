"""The pooled HTTP client to the providers; the only importer of aiohttp.

Strategy: what aiohttp raises is turned into this proxy's errors here and nowhere else, and a status
of 300 or more raises for every kind of answer alike. Whoever holds an UpstreamResponse closes it:
closing before the end of the body closes the connection, so that the provider sees the client go.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aiohttp
from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.failures import Rule, error_from_answer

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ConnectionKey

    from sanic_proxy.settings import PoolLimits, Secret, Timeouts

MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
ERROR_BODY_TIMEOUT_S = 5.0
# After the last frame the end of the HTTP body is usually on its way: waiting this long for it
# keeps the connection for the next request.
LINGER_S = 0.05


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


class _Connector(aiohttp.TCPConnector):
    """aiohttp's connector with a limit on the connections nobody uses.

    aiohttp limits the connections in use and keeps all idle ones; this is the reverse.
    """

    def __init__(self, *, idle_per_host: int, **options: Any) -> None:
        super().__init__(limit=0, ttl_dns_cache=30, **options)
        self._idle_per_host = idle_per_host

    @override
    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        super()._release(key, protocol, should_close=should_close)
        idle = self._conns.get(key)
        while idle is not None and len(idle) > self._idle_per_host:
            oldest, _ = idle.popleft()
            oldest.close()


class UpstreamResponse:
    """The status and headers of an answer, and its body as it comes."""

    __slots__ = ("_idle_at", "_idle_s", "_response", "_total_at", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse, *, idle_s: float, total_at: float) -> None:
        self._response = response
        self._idle_s = idle_s
        self._idle_at = _now() + idle_s
        self._total_at = total_at
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def read_some(self, wait_s: float | None = None) -> bytes | None:
        """The next bytes; b"" at the end; None if there were none for `wait_s` seconds.

        Raises UpstreamTimeout (idle, total), UpstreamDisconnected, UpstreamBadResponse.
        """
        limit_at = min(self._idle_at, self._total_at)
        until = limit_at if wait_s is None else min(limit_at, _now() + wait_s)
        try:
            with _translated():
                async with asyncio.timeout_at(until):
                    data = await self._response.content.readany()
        except TimeoutError:
            now = _now()
            if now >= self._total_at:
                raise errors.UpstreamTimeout("The provider's answer took longer than allowed") from None
            if now >= self._idle_at:
                raise errors.UpstreamTimeout(
                    "The provider stopped sending in the middle of its answer"
                ) from None
            return None
        self._idle_at = _now() + self._idle_s
        return data

    async def read_all(self, limit_bytes: int = MAX_ANSWER_BYTES) -> bytes:
        """The whole body. Raises as `read_some`, and UpstreamBadResponse past `limit_bytes` (decoded)."""
        pieces: list[bytes] = []
        size = 0
        while piece := await self.read_some():
            pieces.append(piece)
            size += len(piece)
            if size > limit_bytes:
                raise errors.UpstreamBadResponse("The provider's answer is larger than the proxy accepts")
        return b"".join(pieces)

    async def finish(self) -> None:
        """Wait a moment for the end of a body whose content is complete; what still comes is dropped."""
        with suppress(errors.UpstreamError):
            while await self.read_some(LINGER_S):
                if self._response.content.total_bytes > MAX_ANSWER_BYTES:
                    return

    def close(self) -> None:
        """Give the connection back if the body has ended, else close it. Safe to call twice."""
        if not self._response.content.at_eof():
            self._response.close()
        else:
            self._response.release()


class UpstreamClient:
    """One worker's connections to all providers. Opened in the worker, closed after its last stream."""

    def __init__(self, limits: PoolLimits, ssl_cert_file: str | None) -> None:
        context = ssl.create_default_context(cafile=ssl_cert_file)
        make_socket = _socket_factory(limits.tcp_keepalive_s)
        self._pooled = _session(
            _Connector(
                idle_per_host=limits.idle_per_host,
                keepalive_timeout=limits.idle_timeout_s,
                ssl=context,
                socket_factory=make_socket,
            )
        )
        # Never pools: for the second try after an idle connection turned out to be dead.
        self._fresh = _session(
            _Connector(idle_per_host=0, force_close=True, ssl=context, socket_factory=make_socket)
        )

    async def aclose(self) -> None:
        await self._pooled.close()
        await self._fresh.close()

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send, and wait for the status. Raises a ProxyError for a failure or a status >= 300."""
        total_at = _now() + request.timeouts.total_s
        response = await self._first_answer(request, total_at)
        answer = UpstreamResponse(response, idle_s=request.timeouts.idle_s, total_at=total_at)
        if answer.status < 300:
            return answer
        try:
            raise await _failure_of(answer, request.rules)
        finally:
            answer.close()

    async def _first_answer(self, request: UpstreamRequest, total_at: float) -> aiohttp.ClientResponse:
        trace = SimpleNamespace(reused=False)
        until = min(_now() + request.timeouts.first_byte_s, total_at)
        try:
            async with asyncio.timeout_at(until):
                try:
                    return await _request(self._pooled, request, trace)
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as exc:
                    # A provider may close an idle connection just as a request goes out on it. Not
                    # a byte of an answer came, so a second try on a new connection is safe.
                    if not trace.reused or isinstance(exc, aiohttp.ClientConnectorError):
                        raise
                with _translated():
                    return await _request(self._fresh, request, trace)
        except aiohttp.ClientError as exc:
            raise _error_for(exc) from exc
        except TimeoutError as exc:
            # aiohttp's own timeout is the connect clock's; ours is the first byte's.
            if isinstance(exc, aiohttp.ServerTimeoutError):
                raise errors.UpstreamTimeout("No connection to the provider within the time allowed") from exc
            raise errors.UpstreamTimeout("The provider did not answer in time") from exc


def _session(connector: _Connector) -> aiohttp.ClientSession:
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_note_reuse)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),  # the default jar hands one client's cookies to the next
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        trace_configs=[trace],
        trust_env=False,
        max_field_size=32768,
    )


async def _note_reuse(_session: object, context: SimpleNamespace, _params: object) -> None:
    context.trace_request_ctx.reused = True


async def _request(
    session: aiohttp.ClientSession, request: UpstreamRequest, trace: SimpleNamespace
) -> aiohttp.ClientResponse:
    connect_s = request.timeouts.connect_s
    return await session.request(
        request.method,
        request.url,
        headers=request.headers,
        data=request.body,
        allow_redirects=False,  # a redirect would take key and prompt to another host
        timeout=aiohttp.ClientTimeout(
            total=None, connect=connect_s, sock_connect=connect_s, ceil_threshold=3600
        ),
        proxy=request.proxy.reveal() if request.proxy else None,
        trace_request_ctx=trace,
    )


async def _failure_of(answer: UpstreamResponse, rules: Sequence[Rule]) -> errors.ProxyError:
    """The error for an answer with a failure status, whether or not its body can be read."""
    body = b""
    with suppress(errors.UpstreamError, TimeoutError):
        async with asyncio.timeout(ERROR_BODY_TIMEOUT_S):
            while len(body) < MAX_ERROR_BYTES and (piece := await answer.read_some()):
                body += piece
    return error_from_answer(answer.status, answer.headers, body[:MAX_ERROR_BYTES], rules=rules)


def _socket_factory(keepalive_s: int) -> Any:
    def make_socket(address: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, *_ = address
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, keepalive_s)
        return made

    return make_socket


def _now() -> float:
    return asyncio.get_running_loop().time()


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
    (
        aiohttp.ServerTimeoutError,
        errors.UpstreamTimeout,
        "No connection to the provider within the time allowed",
    ),
    (
        aiohttp.ClientConnectorDNSError,
        errors.UpstreamDnsFailed,
        "The provider's host name could not be resolved",
    ),
    (
        aiohttp.ClientSSLError,
        errors.UpstreamTlsFailed,
        "The provider's TLS certificate or handshake is not acceptable",
    ),
    (
        aiohttp.ClientHttpProxyError,
        errors.UpstreamConnectFailed,
        "The outbound proxy refused the connection",
    ),
    (
        aiohttp.ClientConnectorError,
        errors.UpstreamConnectFailed,
        "No connection to the provider could be made",
    ),
    (
        aiohttp.ServerDisconnectedError,
        errors.UpstreamDisconnected,
        "The provider closed the connection without an answer",
    ),
    (
        aiohttp.ClientConnectionError,
        errors.UpstreamDisconnected,
        "The connection to the provider broke",
    ),
    (aiohttp.ClientPayloadError, errors.UpstreamDisconnected, "The provider's answer broke off"),
)
