"""The way to the providers through an outbound proxy: aiohttp's, which knows CONNECT and proxy credentials.

The only importer of aiohttp. Nothing here is on the way of a request that goes out directly.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager

import aiohttp

from sanic_proxy import errors
from sanic_proxy.upstream.connection import LENGTHS, Receiver, Way


class Tunnels:
    """One worker's connections through outbound proxies."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=context),
            cookie_jar=aiohttp.DummyCookieJar(),  # the default jar hands one client's cookies to the next
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            auto_decompress=False,
            trust_env=False,
        )

    async def aclose(self) -> None:
        await self._session.close()

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | AsyncIterator[bytes],
        way: Way,
    ) -> Tunnelled:
        """Send, and wait for the status. Raises an UpstreamError, and what reading `body` raises."""
        source = None if isinstance(body, bytes) else _Watched(body)
        clocks = aiohttp.ClientTimeout(total=None, connect=way.connect_s, sock_connect=way.connect_s)
        try:
            async with asyncio.timeout_at(way.until) as clock:
                if source is not None:
                    source.on_end = lambda: clock.reschedule(
                        min(way.until, asyncio.get_running_loop().time() + way.first_byte_s)
                    )
                response = await self._session.request(
                    method,
                    url,
                    headers=headers,
                    data=source or body or None,
                    allow_redirects=False,  # a redirect would take key and prompt to another host
                    timeout=clocks,
                    proxy=way.proxy,
                )
        except aiohttp.ClientError as exc:
            if source is not None and source.failure is not None:
                raise source.failure from None
            raise _error_for(exc) from exc
        except TimeoutError as exc:
            raise errors.UpstreamTimeout("The provider did not answer in time") from exc
        finally:
            if source is not None:
                await source.stop()
        return Tunnelled(response)


class _Watched:
    """A body that comes while it is sent. What reading it raises aiohttp takes for a broken connection."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self.failure: Exception | None = None
        self._task: asyncio.Task[bytes | None] | None = None
        self._is_stopped = False
        self.on_end: Callable[[], None] = lambda: None

    async def _next(self) -> bytes | None:
        return await anext(self._pieces, None)

    async def stop(self) -> None:
        """The answer is there, or will not be: nobody reads the body any more when this returns."""
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


class Tunnelled:
    """An answer through an outbound proxy."""

    __slots__ = ("_response", "has_length", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.has_length = not LENGTHS.isdisjoint(name.lower() for name in response.headers)

    async def read(self, until: float) -> bytes | None:
        try:
            with _translated():
                async with asyncio.timeout_at(until):
                    return await self._response.content.readany()
        except TimeoutError:
            return None

    def whole(self) -> bytes | None:
        return None

    def divert(self, receiver: Receiver | None) -> bool:
        return False

    def pause(self) -> None:
        return

    def resume(self) -> None:
        return

    def linger(self) -> None:
        self.end()

    def end(self) -> None:
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
    (aiohttp.ServerTimeoutError, errors.UpstreamConnectTimeout, "No connection within the time allowed"),
    (aiohttp.ClientSSLError, errors.UpstreamTlsFailed, "The provider's TLS handshake is not acceptable"),
    (aiohttp.ClientHttpProxyError, errors.UpstreamConnectFailed, "The outbound proxy refused the connection"),
    (aiohttp.ClientConnectorDNSError, errors.UpstreamDnsFailed, "The outbound proxy's name is not known"),
    (aiohttp.ClientConnectorError, errors.UpstreamConnectFailed, "The outbound proxy cannot be reached"),
    (aiohttp.ClientConnectionError, errors.UpstreamDisconnected, "The connection to the provider broke"),
    (aiohttp.ClientPayloadError, errors.UpstreamDisconnected, "The provider's answer broke off"),
)
