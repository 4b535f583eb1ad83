"""Requests through an outbound proxy, by aiohttp, which knows CONNECT and proxy credentials.

The only module that imports aiohttp; direct requests do not use it.

aiohttp repeats requests with idempotent methods by itself when a connection is lost. A client middleware
prevents that: it turns aiohttp's errors into ours, which aiohttp does not know. A trace callback tells
whether a request used a pooled connection (see `UpstreamDisconnected.is_stale_connection`).
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import aiohttp

from sanic_proxy import errors
from sanic_proxy.upstream.connection import LENGTHS, STALE_CONNECTION_S, Receiver
from sanic_proxy.upstream.request import CallOptions


@dataclass(slots=True)
class _Sending:
    """One request. `reused_at` (monotonic): when it was given a connection that had been used before."""

    reused_at: float | None = None

    async def once(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """The client middleware of this request."""
        try:
            return await handler(request)
        except aiohttp.ServerDisconnectedError as exc:
            if not isinstance(exc.message, str):  # a part of a head
                raise errors.UpstreamDisconnected(
                    "The connection was lost before the provider's answer was complete"
                ) from exc
            reused_at = self.reused_at
            raise errors.UpstreamDisconnected(
                "The provider closed the connection without an answer",
                is_stale_connection=reused_at is not None
                and time.monotonic() - reused_at <= STALE_CONNECTION_S,
                is_new_connection=reused_at is None,
            ) from exc
        except aiohttp.ClientError as exc:
            raise _error_for(exc) from exc


async def _note_reuse(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _: aiohttp.TraceConnectionReuseconnParams
) -> None:
    context.trace_request_ctx.reused_at = time.monotonic()


class Tunnels:
    """One worker's connections through outbound proxies."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._pooled = self._session(context, force_close=False)
        self._unpooled = self._session(context, force_close=True)

    def _session(self, context: ssl.SSLContext, *, force_close: bool) -> aiohttp.ClientSession:
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(_note_reuse)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=context, force_close=force_close),
            trace_configs=[tracing],
            cookie_jar=aiohttp.DummyCookieJar(),  # the default jar hands one client's cookies to the next
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            auto_decompress=False,
            trust_env=False,
        )

    async def aclose(self) -> None:
        await self._pooled.close()
        await self._unpooled.close()

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | AsyncIterator[bytes],
        options: CallOptions,
    ) -> TunnelledResponse:
        """Send, and wait for the status. Raises an UpstreamError, and what reading `body` raises."""
        source = None if isinstance(body, bytes) else _Watched(body)
        clocks = aiohttp.ClientTimeout(total=None, connect=options.connect_s, sock_connect=options.connect_s)
        sending = _Sending()
        session = self._unpooled if options.is_fresh else self._pooled
        try:
            async with asyncio.timeout_at(options.until) as clock:
                if source is not None:
                    source.on_end = lambda: clock.reschedule(
                        min(options.until, asyncio.get_running_loop().time() + options.first_byte_s)
                    )
                response = await session.request(
                    method,
                    url,
                    headers=headers,
                    data=source or body or None,
                    allow_redirects=False,  # a redirect would take key and prompt to another host
                    timeout=clocks,
                    proxy=options.proxy,
                    middlewares=(sending.once,),
                    trace_request_ctx=sending,
                )
        except (aiohttp.ClientError, errors.UpstreamError) as exc:
            if source is not None and source.failure is not None:
                raise source.failure from None
            if isinstance(exc, errors.UpstreamError):
                raise
            raise _error_for(exc) from exc
        except TimeoutError as exc:
            raise errors.UpstreamTimeout(
                "The provider did not answer within its time limit (SANIC_PROXY_TIMEOUT_FIRST_BYTE)"
            ) from exc
        finally:
            if source is not None:
                await source.stop()
        return TunnelledResponse(response)


class _Watched:
    """A body that is received while it is sent; aiohttp reports its exceptions as a broken connection."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self.failure: Exception | None = None
        self._task: asyncio.Task[bytes | None] | None = None
        self._is_stopped = False
        self.on_end: Callable[[], None] = lambda: None

    async def _next(self) -> bytes | None:
        return await anext(self._pieces, None)

    async def stop(self) -> None:
        """Stop reading the body: the answer has come, or will not."""
        self._is_stopped = True
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._is_stopped:
            self._task = asyncio.ensure_future(self._next())
            try:
                piece = await self._task
            except asyncio.CancelledError:
                if not self._is_stopped:
                    raise
            except Exception as exc:
                self.failure = exc
                raise
            else:
                if piece is None:
                    self.on_end()
                    raise StopAsyncIteration
                return piece
        await asyncio.get_running_loop().create_future()  # until aiohttp cancels its writer
        raise StopAsyncIteration


class TunnelledResponse:
    """An answer through an outbound proxy, with the methods of a `Connection` that has received a head."""

    __slots__ = ("_response", "has_length", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        if "content-encoding" in self.headers:
            self.headers["content-encoding"] = ", ".join(response.headers.getall("content-encoding"))
        self.has_length = not LENGTHS.isdisjoint(self.headers)

    async def read(self, until: float) -> bytes | None:
        try:
            with _translated():
                async with asyncio.timeout_at(until):
                    return await self._response.content.readany()
        except TimeoutError:
            return None

    def complete_body(self) -> bytes | None:
        return None

    def attach(self, receiver: Receiver | None) -> bool:
        return False

    def pause(self) -> None:
        return

    def resume(self) -> None:
        return

    def drain_in_background(self) -> None:
        self.release()

    def release(self) -> None:
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


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
    (aiohttp.ServerTimeoutError, errors.UpstreamConnectTimeout, "No connection within the connect timeout"),
    (aiohttp.ClientSSLError, errors.UpstreamTlsFailed, "The TLS handshake with the provider failed"),
    (aiohttp.ClientHttpProxyError, errors.UpstreamConnectFailed, "The outbound proxy refused the connection"),
    (
        aiohttp.ClientConnectorDNSError,
        errors.UpstreamDnsFailed,
        "The outbound proxy's host name is unknown",
    ),
    (aiohttp.ClientConnectorError, errors.UpstreamConnectFailed, "The outbound proxy cannot be reached"),
    (aiohttp.ClientConnectionError, errors.UpstreamDisconnected, "The connection to the provider broke"),
    (
        aiohttp.ClientPayloadError,
        errors.UpstreamDisconnected,
        "The connection was lost before the provider's answer was complete",
    ),
)
