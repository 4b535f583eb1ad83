"""The HTTP client to the providers, directly or through an outbound proxy.

Direct requests, which are nearly all, use the connections of `pool`; those through an outbound proxy use
`outbound_proxy`. Both give an UpstreamResponse, which its holder must close, and both raise for a status of
300 or more. Closing before the end of the body closes the connection, so that the provider notices.

Every call sends one request, once. A request on a reused connection may fail because the provider has just
closed that for being idle; the error says so (`UpstreamDisconnected.is_stale_connection`), and the caller
decides whether to repeat it. Callers that cannot repeat ask for a new connection (`is_fresh`).
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.config.secret import MIN_SECRET_CHARS
from sanic_proxy.upstream.compression import Decoder, decoder_for
from sanic_proxy.upstream.connection import Connection, Receiver
from sanic_proxy.upstream.error_parser import Rule, error_from_answer
from sanic_proxy.upstream.pool import Pool
from sanic_proxy.upstream.request import (
    Body,
    CallOptions,
    Target,
    Upload,
    request_head,
    request_pieces,
    target_of,
)

if TYPE_CHECKING:
    from typing import TypeAlias

    from sanic_proxy.config.model import PoolLimits, Timeouts
    from sanic_proxy.config.secret import Secret
    from sanic_proxy.upstream.outbound_proxy import TunnelledResponse, Tunnels

    Exchange: TypeAlias = Connection | TunnelledResponse

OK = 200
MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
# What a provider answers with these statuses is about the proxy's own key and account.
_JUDGED_STATUSES = frozenset({401, 402, 403})
ERROR_BODY_TIMEOUT_S = 5.0
# Steps of decompression, of about a millisecond at most, before the event loop gets its turn.
DECODE_STEPS = 8

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method and URL of a provider, and what all requests to it share: built once, used for each.

    `url` and `headers` come from settings, never from a client. `keeps_error_bodies`: errors carry the
    provider's body (`ProxyError.body`), unless the status concerns the proxy's key.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)  # one of them is the key
    timeouts: Timeouts
    proxy: Secret | None = None
    rules: Sequence[Rule] = ()
    keeps_error_bodies: bool = False
    target: Target = field(init=False, repr=False)
    head: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        target = target_of(self.url)
        object.__setattr__(self, "target", target)
        object.__setattr__(self, "head", request_head(self.method, target, self.headers))


NO_HEADERS: Mapping[str, str] = {}


class Response:
    """The status and headers of a provider's answer, and its body as it comes. The caller must close it.

    The defaults are those of an answer that is already in memory, and whose bytes have to be read one piece
    after the other. Times are loop time. `has_length`: whether the end of the body can be told from a
    connection that was cut. `stall_s` is how long a stream may go on without progress, `total_at` when the
    request's time is over.
    """

    __slots__ = ()

    status: int = 200
    headers: Mapping[str, str] = NO_HEADERS
    has_length: bool = True
    total_at: float = math.inf
    stall_s: float = math.inf

    async def read_some(self, wait_s: float | None = None) -> bytes | None:
        """The next bytes; b"" at the end; None if there were none for `wait_s` seconds."""
        raise NotImplementedError

    async def read_all(self) -> bytes:
        """The rest of the body."""
        pieces = []
        while piece := await self.read_some():
            pieces.append(piece)
        return b"".join(pieces)

    def begin_content(self) -> None:
        """Content has come: the clock for the first content stops, those for silence and stalls start."""

    def attach(self, receiver: Receiver | None) -> bool:
        """Hand the rest of the body to `receiver` as it comes; False where it has to be read."""
        return False

    def pause(self) -> None:
        """Deliver no more bytes for now."""

    def resume(self) -> None:
        """Deliver bytes again."""

    def due_at(self, heard_at: float) -> float:
        """When the next clock strikes if nothing has come since `heard_at`."""
        return math.inf

    def overdue(self, now: float) -> errors.UpstreamTimeout:
        """The error for the clock that has struck."""
        return errors.UpstreamTimeout("The answer took longer than allowed")

    def drain(self) -> None:
        """The content is complete: the rest of the body is read in the background."""

    def close(self) -> None:
        """Release the connection. Safe to call twice."""


class UpstreamResponse(Response):
    """An answer that comes over a connection.

    Two clocks take turns. Some servers send the status line at once and then work on the prompt for
    minutes (vLLM, OpenRouter), so the time to the first byte counts until the reader has seen content
    and says so by `begin_content`; comments, blanks and empty deltas do not stop it. From then on only
    silence is limited. The time for the whole request always counts.
    """

    __slots__ = (
        "_content_due_at",
        "_decoder",
        "_exchange",
        "_heard_at",
        "_idle_s",
        "_now",
        "_steps",
        "has_length",
        "headers",
        "stall_s",
        "status",
        "total_at",
    )

    def __init__(
        self,
        exchange: Exchange,
        now: Callable[[], float],
        timeouts: Timeouts,
        content_due_at: float,
        total_at: float,
        decoder: Decoder | None = None,
    ) -> None:
        self._exchange: Exchange | None = exchange
        self._content_due_at = content_due_at
        self._now = now
        self._idle_s = timeouts.idle_s
        self._heard_at: float | None = None
        self.total_at = total_at
        self.status = exchange.status
        self.headers = exchange.headers
        self.has_length = exchange.has_length
        self.stall_s = timeouts.stall_s
        self._decoder = decoder
        self._steps = 0

    @override
    async def read_some(self, wait_s: float | None = None) -> bytes | None:
        """The next bytes; b"" at the end; None if there were none for `wait_s` seconds.

        Raises UpstreamTimeout (first content, idle, total), UpstreamDisconnected, UpstreamBadResponse.
        """
        if self._decoder is not None:
            return await self._read_decoded(self._decoder, wait_s)
        return await self._read_raw(wait_s)

    async def _read_raw(self, wait_s: float | None) -> bytes | None:
        if self._heard_at is None:
            self._heard_at = self._now()
        limit_at = self.due_at(self._heard_at)
        until = limit_at if wait_s is None else min(limit_at, self._now() + wait_s)
        data = await self._exchange.read(until) if self._exchange is not None else b""
        now = self._now()
        if now >= min(self.total_at, self._content_due_at) or (data is None and now >= limit_at):
            raise self.overdue(now)
        if data is not None:
            self._heard_at = now
        return data

    async def _read_decoded(self, decoder: Decoder, wait_s: float | None) -> bytes | None:
        while True:
            while (content := decoder.step()) is not None:
                self._steps += 1
                if self._steps % DECODE_STEPS == 0:
                    await asyncio.sleep(0)
                if content:
                    return content
            data = await self._read_raw(wait_s)
            if data is None:
                return None
            if not data:
                decoder.end()
                return data
            decoder.feed(data)

    @override
    def due_at(self, heard_at: float) -> float:
        """When the next time limit is reached if nothing arrives after `heard_at`; loop time."""
        if self._content_due_at != math.inf:
            return min(self._content_due_at, self.total_at)
        return min(heard_at + self._idle_s, self.total_at)

    @override
    def begin_content(self) -> None:
        """Content has arrived: from now on silence is limited, not the time to the first byte."""
        self._content_due_at = math.inf

    @override
    def overdue(self, now: float) -> errors.UpstreamTimeout:
        """The error for the time limit that was reached."""
        if now >= self.total_at:
            return errors.UpstreamTimeout(
                "The answer was not complete within the total time limit (SANIC_PROXY_TIMEOUT_TOTAL)"
            )
        if now >= self._content_due_at:
            return errors.UpstreamTimeout(
                "The provider sent a status line, but no content in time (SANIC_PROXY_TIMEOUT_FIRST_BYTE)"
            )
        return errors.UpstreamTimeout(
            f"The provider sent nothing for {self._idle_s:g} s in the middle of its answer"
        )

    @override
    async def read_all(self, limit_bytes: int = MAX_ANSWER_BYTES) -> bytes:
        """The whole body. Raises as `read_some`, and UpstreamBadResponse past `limit_bytes` (decoded)."""
        if self._decoder is None and self._exchange is not None:
            body = self._exchange.complete_body()
            if body is not None:
                return body if len(body) <= limit_bytes else bounded(body, len(body), limit_bytes)
        pieces: list[bytes] = []
        size = 0
        while piece := await self.read_some():
            self.begin_content()
            size += len(piece)
            pieces.append(bounded(piece, size, limit_bytes))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @override
    def attach(self, receiver: Receiver | None) -> bool:
        """Pass the rest of the body to `receiver` as it arrives; False where it can only be read.

        From then on the receiver enforces the time limits, by `due_at`.
        """
        return self._exchange is not None and self._decoder is None and self._exchange.attach(receiver)

    @override
    def pause(self) -> None:
        """Stop reading a diverted body, so that the provider waits."""
        if self._exchange is not None:
            self._exchange.pause()

    @override
    def resume(self) -> None:
        if self._exchange is not None:
            self._exchange.resume()

    @override
    def drain(self) -> None:
        """The content is complete: drain the end of the body in the background."""
        if self._exchange is not None:
            self._exchange.drain_in_background()
            self._exchange = None

    @override
    def close(self) -> None:
        """Give the connection back if the body has ended, else close it. Safe to call twice."""
        if self._exchange is not None:
            self._exchange.release()
            self._exchange = None


def bounded(piece: bytes, size_bytes: int, limit_bytes: int = MAX_ANSWER_BYTES) -> bytes:
    """`piece`, which makes an answer `size_bytes` long. Raises UpstreamBadResponse past the limit."""
    if size_bytes > limit_bytes:
        raise errors.UpstreamBadResponse(f"The provider's answer is larger than {limit_bytes} bytes")
    return piece


class UpstreamClient:
    """One worker's connections to all providers. Opened in its loop, closed after its last stream.

    `now` is the loop's clock.
    """

    def __init__(self, limits: PoolLimits, ssl_cert_file: str | None) -> None:
        # Asked for once: before Python 3.12 each call of get_running_loop asks the kernel for the pid.
        self.now = asyncio.get_running_loop().time
        self._cert_file = ssl_cert_file
        self._pool = Pool(limits, lambda: self.tls_context)
        if ssl_cert_file is not None:
            _ = self.tls_context  # an invalid file fails the start
        self._tunnels: Tunnels | None = None

    @cached_property
    def tls_context(self) -> ssl.SSLContext:
        """Made when it is first needed: reading all the world's authorities takes a while."""
        return ssl.create_default_context(cafile=self._cert_file)

    async def aclose(self) -> None:
        self._pool.close()
        if self._tunnels is not None:
            await self._tunnels.aclose()

    async def send(
        self,
        endpoint: Endpoint,
        headers: Mapping[str, str] = NO_HEADERS,
        body: Body = (),
        total_at: float = math.inf,
        at_least_s: float = 0.0,
        is_fresh: bool = False,
    ) -> UpstreamResponse:
        """Send, and wait for the status. `headers` are those of this request alone, checked.

        `total_at` (loop time) is the end of what the client's request began earlier. `at_least_s` raises the
        endpoint's own limit for the whole answer. `is_fresh` asks for a
        new connection: for requests that are not repeated when a reused one turns out to be dead. Raises a
        ProxyError for a failure or a status >= 300.
        """
        now = self.now()
        clocks = endpoint.timeouts
        total_s = clocks.total_s
        if at_least_s > total_s:  # noqa: PLR1730 - each call of min or max costs 1,200 instructions
            total_s = at_least_s
        if now + total_s < total_at:  # noqa: PLR1730
            total_at = now + total_s
        until = now + clocks.first_byte_s
        if total_at < until:  # noqa: PLR1730
            until = total_at
        if endpoint.proxy is not None:
            tunnelled = await self._tunnel(
                endpoint, endpoint.proxy, headers, b"".join(body), until, is_fresh=is_fresh
            )
            return await self._answer(tunnelled, endpoint, until, total_at)
        origin = endpoint.target.origin
        connection = None if is_fresh else self._pool.idle(origin)
        if connection is None:
            connection = await self._pool.connect(origin, clocks.connect_s)
        try:
            connection.send(request_pieces(endpoint.head, headers, body))
            is_answered = await connection.head(until)
        except BaseException:
            connection.close()  # when cancelled, too: the provider must see the client leave
            raise
        if not is_answered:
            connection.close()
            raise errors.UpstreamTimeout(f"The provider did not answer within {clocks.first_byte_s:g} s")
        if connection.status == OK and "content-encoding" not in connection.headers:
            return UpstreamResponse(connection, self.now, clocks, until, total_at)
        return await self._answer(connection, endpoint, until, total_at)

    async def upload(
        self, endpoint: Endpoint, upload: Upload, *, headers: Mapping[str, str] = NO_HEADERS
    ) -> UpstreamResponse:
        """As `send`, with a body that is sent while it comes, and so never a second time.

        The time to the first byte counts from the body's end. Raises what reading the body raises, too.
        """
        total_at = self.now() + endpoint.timeouts.total_s
        exchange: Exchange
        if endpoint.proxy is None:
            exchange = await self._uploaded(endpoint, upload, headers, total_at)
        else:
            size = {} if upload.size_bytes is None else {"content-length": str(upload.size_bytes)}
            exchange = await self._tunnel(
                endpoint, endpoint.proxy, {**headers, **size}, upload.pieces, total_at, is_fresh=True
            )
        return await self._answer(exchange, endpoint, self.now() + endpoint.timeouts.first_byte_s, total_at)

    async def _answer(
        self, exchange: Exchange, endpoint: Endpoint, content_due_at: float, total_at: float
    ) -> UpstreamResponse:
        is_good = 200 <= exchange.status < 300
        decoder = None
        if (encoding := exchange.headers.get("content-encoding")) is not None:
            try:
                decoder = decoder_for(encoding)
            except errors.UpstreamBadResponse as exc:
                exchange.release()
                # The status and headers of a failure count, even if its text cannot be read.
                failure = error_from_answer(exchange.status, exchange.headers, b"", rules=endpoint.rules)
                raise exc if is_good else failure from None
        answer = UpstreamResponse(exchange, self.now, endpoint.timeouts, content_due_at, total_at, decoder)
        if is_good:
            return answer
        try:
            raise await _failure_of(answer, endpoint)
        finally:
            answer.close()

    async def _uploaded(
        self, endpoint: Endpoint, upload: Upload, headers: Mapping[str, str], total_at: float
    ) -> Connection:
        # Always on a new connection: the bytes of the body are not kept, so that the request cannot be
        # repeated if a reused one turns out to be dead.
        clocks = endpoint.timeouts
        connection = await self._pool.connect(endpoint.target.origin, clocks.connect_s)
        connection.begin_upload(upload.head(endpoint.head, headers.items()))
        sending = asyncio.ensure_future(connection.upload(upload, clocks.idle_s))
        answering = asyncio.ensure_future(_awaited(connection.head(total_at)))
        try:
            await asyncio.wait({sending, answering}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                sending.result()
                await asyncio.wait({answering}, timeout=clocks.first_byte_s)
            is_answered = answering.done() and answering.result()
        except BaseException:
            connection.close()
            raise
        finally:
            # The provider may answer before it has the whole body: the rest is then not sent.
            has_sent = sending.done()
            sending.cancel()
            answering.cancel()
            await asyncio.gather(sending, answering, return_exceptions=True)
        if not is_answered:
            connection.close()
            if not has_sent:
                text = f"The upload did not arrive within {clocks.total_s:g} s"
                raise errors.ClientError(text, status=408, code="request_timeout")
            raise errors.UpstreamTimeout(f"The provider did not answer within {clocks.first_byte_s:g} s")
        return connection

    async def _tunnel(
        self,
        endpoint: Endpoint,
        proxy: Secret,
        headers: Mapping[str, str],
        body: bytes | AsyncIterator[bytes],
        until: float,
        *,
        is_fresh: bool,
    ) -> TunnelledResponse:
        if self._tunnels is None:
            # Imported here: aiohttp takes a tenth of a second and ten megabytes, which only an outbound
            # proxy is worth.
            from sanic_proxy.upstream.outbound_proxy import Tunnels  # noqa: PLC0415

            self._tunnels = Tunnels(self.tls_context)
        return await self._tunnels.send(
            endpoint.method,
            endpoint.url,
            headers={**endpoint.headers, **headers},
            body=body,
            options=CallOptions(
                proxy.reveal(),
                endpoint.timeouts.connect_s,
                until,
                endpoint.timeouts.first_byte_s,
                is_fresh=is_fresh,
            ),
        )


async def _awaited(waiter: Awaitable[bool]) -> bool:
    return await waiter


async def _failure_of(answer: UpstreamResponse, endpoint: Endpoint) -> errors.ProxyError:
    """The error for an answer with a failure status, whether or not its body can be read."""
    body = b""
    with suppress(errors.UpstreamError, TimeoutError):
        async with asyncio.timeout(ERROR_BODY_TIMEOUT_S):
            while len(body) < MAX_ERROR_BYTES and (piece := await answer.read_some()):
                body += piece
    error = error_from_answer(answer.status, answer.headers, body[:MAX_ERROR_BYTES], rules=endpoint.rules)
    if error.log_text:
        _log_failure(error, endpoint, answer.status)
    if endpoint.keeps_error_bodies and answer.status not in _JUDGED_STATUSES and len(body) < MAX_ERROR_BYTES:
        return error.replaced(body=body)
    return error


def _log_failure(error: errors.ProxyError, endpoint: Endpoint, status: int) -> None:
    """What only the operator may read: the text of an HTML page, or what the provider says about the key.

    The values of the endpoint's headers, one of which is the key, are all that the provider can repeat.
    """
    values = (value.removeprefix("Bearer ") for value in endpoint.headers.values())
    secrets = tuple(value for value in values if len(value) >= MIN_SECRET_CHARS)
    text = errors.redaction(secrets)(error.log_text)
    logger.warning("%s answered HTTP %d (%s): %s", endpoint.target.origin.host, status, error.code, text)
