"""A request and its targets -> one answer. The one owner of repeats.

A request is repeated, or moved to its next target, only until the client has seen something of an
answer: heartbeats are the proxy's own and do not count.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

from sanic_proxy.errors import ProxyError
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.openai import codec
from sanic_proxy.providers.base import Call, ChatProvider, ChatRequest, ForwardedAnswer, WholeAnswer
from sanic_proxy.routing.targets import Limits, RetryState, Target
from sanic_proxy.streams.stream import Filler, FirstFiller, Relay
from sanic_proxy.upstream.request import Upload

Targets = Sequence[Target[ChatProvider]]
Take = Callable[[ForwardedAnswer], Awaitable[None]]
T = TypeVar("T")

# A client that takes longer for a piece of its upload is what an attempt waits for, not the provider.
SLOW_CLIENT_S = 0.5


async def whole(targets: Targets, limits: Limits, request: ChatRequest) -> WholeAnswer:
    """The whole answer of the first target that gives one. Raises the last failure."""
    body = request.body

    async def ask(target: Target[ChatProvider]) -> WholeAnswer:
        _aim(request, target, body)
        answer = await target.provider.send_request(request)
        try:
            return await answer.parse()
        finally:
            answer.close()

    return await _first_good(RetryState(targets, limits, request.record), ask)


async def _first_good(
    retry_state: RetryState[ChatProvider], ask: Callable[[Target[ChatProvider]], Awaitable[T]]
) -> T:
    """What `ask` brings of the first target that does not fail. Raises the last failure."""
    try:
        while True:
            target = retry_state.next()
            try:
                told = await ask(target)
            except ProxyError as exc:
                if (wait_s := retry_state.record_failure(exc)) is None:
                    raise
            else:
                retry_state.record_success()
                return told
            if wait_s:
                await asyncio.sleep(wait_s)
    finally:
        retry_state.release()


async def streamed(
    targets: Targets, limits: Limits, request: ChatRequest
) -> AsyncGenerator[bytes | Relay, None]:
    """The frames of the first target that has some. Raises the last failure."""
    retry_state = RetryState(targets, limits, request.record)
    body = request.body
    is_opened = has_begun = False
    try:
        while True:
            target = retry_state.next()
            _aim(request, target, body)
            pending = target.provider.send_request(request)
            frames = target.provider.create_streaming_response(request, pending)
            try:
                async with aclosing(frames):
                    async for frame in frames:
                        if is_opened and isinstance(frame, FirstFiller):
                            continue
                        is_opened = is_opened or isinstance(frame, FirstFiller)
                        if not has_begun and not isinstance(frame, Filler):
                            has_begun, body = True, b""
                            retry_state.record_success()
                        yield frame
                return
            except ProxyError as exc:
                if has_begun:
                    retry_state.record_stream_failure(exc)
                    raise
                if (wait_s := retry_state.record_failure(exc)) is None:
                    raise
            finally:
                pending.close()  # it may not have begun
            if wait_s:
                await asyncio.sleep(wait_s)
    finally:
        retry_state.release()


async def forwarded(
    targets: Targets, limits: Limits, call: Call, record: RequestRecord, *, take: Take
) -> ForwardedAnswer:
    """The first good answer to a call that passes as it is.

    `take` reads as much of an answer as has to be good before it counts. An upload is sent once, as its
    bytes are not kept.
    """
    once = Limits(1, 1) if isinstance(call.body, Upload) else limits

    retry_state = RetryState(targets, once, record, may_repeat=not call.is_once)

    async def ask(target: Target[ChatProvider]) -> ForwardedAnswer:
        record.provider = target.provider.name
        if isinstance(call.body, Upload) and retry_state.is_probe:
            call.body = replace(call.body, pieces=_probing(call.body.pieces, retry_state.release_probe))
        aimed = _aimed(call, target)
        try:
            answer = await target.provider.forward(aimed)
        finally:
            call.total_at = aimed.total_at  # the time of the next try ends with this one's
        try:
            await take(answer)
        except BaseException:
            answer.close()
            raise
        return answer

    return await _first_good(retry_state, ask)


async def _probing(pieces: AsyncIterator[bytes], release_probe: Callable[[], None]) -> AsyncIterator[bytes]:
    """`pieces`, with `release_probe` called when a client is slow to send them."""
    loop = asyncio.get_running_loop()
    asked = loop.time()
    async for piece in pieces:
        if loop.time() - asked > SLOW_CLIENT_S:
            release_probe()
        yield piece
        asked = loop.time()


def _aim(request: ChatRequest, target: Target[ChatProvider], body: bytes) -> None:
    """Make `request` one to `target`. What a provider has let go of is there again."""
    request.record.provider = target.provider.name
    request.upstream_model = target.upstream_model
    request.answer_headers = ()
    if request.body is not body:
        request.body = body
        request.fields = codec.loads_strict(body)


def _aimed(call: Call, target: Target[ChatProvider]) -> Call:
    if call.model is None or isinstance(call.body, Upload):
        return call
    (body,) = call.body
    return replace(call, body=codec.replace_model(bytes(body), old=call.model, new=target.upstream_model))
