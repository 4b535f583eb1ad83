"""A request and its targets -> one answer. The one owner of repeats.

A request is repeated, or moved to its next target, only until the client has seen something of an
answer. Heartbeats are the proxy's own and do not count; nor does a chunk with nothing but the role,
which `streams` holds back until content comes. What is done about a stream that breaks off later is
up to the model's `on_cut`: see `resuming`.

A stream whose first content does not come within the target's `first_content_s` moves on while
another target is left. Whole answers have no such limit, unless they are collected from streams: their first
byte comes when all of the answer has been generated, which may take minutes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace

from sanic_proxy.config.saving import HoldBack
from sanic_proxy.errors import ProxyError, UpstreamAuthFailed, UpstreamUnavailable
from sanic_proxy.openai import model_rewrite
from sanic_proxy.providers.base import Call, ChatProvider, ChatRequest, WholeAnswer
from sanic_proxy.routing.adaption import aim
from sanic_proxy.routing.opening import aimed, begun
from sanic_proxy.routing.ownership import ResourceOwners
from sanic_proxy.routing.race import race_of
from sanic_proxy.routing.resuming import Resumer
from sanic_proxy.routing.retry_loop import CallerDeadline, before, caller_deadline, first_good
from sanic_proxy.routing.targets import Limits, RetryState, Target
from sanic_proxy.streams.saved import SavedStream
from sanic_proxy.streams.stream import Stream
from sanic_proxy.translation.format import Collector
from sanic_proxy.translation.translate import Translation
from sanic_proxy.upstream.client import Response
from sanic_proxy.upstream.request import Upload

Targets = Sequence[Target[ChatProvider]]
Take = Callable[[Response], Awaitable[None]]

NOT_FOUND = 404

# A client that takes longer for a piece of its upload is what an attempt waits for, not the provider.
SLOW_CLIENT_S = 0.5
JSON_TYPE = (("content-type", "application/json"),)


def whole(targets: Targets, limits: Limits, request: ChatRequest) -> Awaitable[WholeAnswer]:
    """The whole answer of the first target that gives one. Raises the last failure."""
    request.original, request.original_span = request.body, request.model_span
    first = targets[0]
    if first.saving.collects and request.collect_s is None:
        request.collect_s = 0.0
    request.total_at = first.provider.deadline(request.collect_s or 0.0)
    caller = caller_deadline(request.headers)
    if caller is not None:
        request.total_at = min(request.total_at, caller.at)

    retry_state = RetryState(targets, limits, request.record)
    retry_state.charge = request.charge

    async def ask(target: Target[ChatProvider], sent: ChatRequest = request) -> WholeAnswer:
        translation = aim(sent, target) if sent.is_small else await aimed(sent, target)
        provider = target.provider
        if translation is not None:
            return await _translated(target, sent, translation, retry_state.first_content_s)
        if sent.is_streaming:
            return await _collected(target, sent, sent.wire.collector(), retry_state.first_content_s)
        answer = await provider.send_request(sent)
        try:
            return await provider.parse_non_streaming(answer)
        finally:
            answer.source.close()

    if first.hedging is not None:
        race = race_of(first.hedging, retry_state, request, ask)
        return first_good(retry_state, request, ask if race is None else race.ask, caller)
    return first_good(retry_state, request, ask, caller)


async def _translated(
    target: Target[ChatProvider], request: ChatRequest, translation: Translation, content_s: float
) -> WholeAnswer:
    provider = target.provider
    try:
        if request.is_streaming:
            return await _collected(target, request, translation.collector(), content_s)
        answer = await provider.send_request(request)
        try:
            whole = await provider.parse_non_streaming(answer)
        finally:
            answer.source.close()
    except ProxyError as exc:
        raise translation.error(exc) from None
    return replace(whole, body=translation.whole(whole.body))


async def _collected(
    target: Target[ChatProvider], request: ChatRequest, collector: Collector, content_s: float
) -> WholeAnswer:
    """A whole answer, collected from a stream: a connection that is silent for minutes may be cut."""
    stream = await before(begun(target, request, None), content_s=content_s)
    try:
        async for frames in stream.begun_frames():
            collector.feed(frames)
    finally:
        stream.close()
    return WholeAnswer(collector.body(), JSON_TYPE)


async def streamed(targets: Targets, limits: Limits, request: ChatRequest) -> Stream:
    """The stream of the first target that has content. Raises the last failure. The caller closes it."""
    retry_state = RetryState(targets, limits, request.record)
    retry_state.charge = request.charge
    request.original, request.original_span = request.body, request.model_span
    request.is_for_stream = True
    request.total_at = targets[0].provider.deadline()
    caller = caller_deadline(request.headers)
    if caller is not None and caller.due_s > targets[0].provider.commit_delay_s:
        caller = None  # the head is sent by then, and heartbeats keep the client from giving up
    on_cut = targets[0].saving.on_cut
    resumer = None if on_cut == "error" else Resumer(on_cut, retry_state, request)

    async def ask(target: Target[ChatProvider], sent: ChatRequest = request) -> Stream:
        translation = aim(sent, target) if sent.is_small else await aimed(sent, target)
        joined = resumer.saved if resumer is not None and resumer.may_save(sent) else None
        opening = begun(target, sent, translation, joined, sent.dialect.framing())
        stream = await before(opening, content_s=retry_state.first_content_s, caller=caller)
        hold_back = target.saving.hold_back
        return stream if hold_back is None else await _held(stream, hold_back, caller)

    hedging = targets[0].hedging
    race = None if hedging is None else race_of(hedging, retry_state, request, ask, Stream.close)
    stream = await first_good(retry_state, request, ask if race is None else race.ask, caller)
    if not isinstance(stream, SavedStream):  # whose failures are recorded where it goes on
        stream.on_failure = retry_state.record_stream_failure
    return stream


async def _held(stream: Stream, hold_back: HoldBack, caller: CallerDeadline | None) -> Stream:
    """`stream`, read on for as long as `hold_back` says. Raises its failure, and closes it then."""
    try:
        await before(stream.hold(hold_back), caller=caller)
    except BaseException:
        stream.close()
        raise
    return stream


async def forwarded(targets: Targets, limits: Limits, call: Call, *, take: Take) -> Response:
    """The first good answer to a call that passes as it is.

    `take` reads as much of an answer as has to be good before it counts. An upload is sent once, as its
    bytes are not kept.
    """
    _set_deadline(call, targets)
    return (await _forwarded(targets, limits, call, take))[1]


async def owned(
    targets: Targets,
    limits: Limits,
    call: Call,
    owners: ResourceOwners[ChatProvider],
    *,
    take: Take,
    described: Callable[[], Iterable[str]],
) -> Response:
    """As `forwarded`, for what belongs to the account of one of a provider's keys.

    The owner alone is asked, so that its rate limit or failure is the answer; no other account is asked
    to change anything. An unknown resource is looked for by reading, with the first key and, where that
    answers 404, with the others. Lists are the first key's. A new resource belongs to the key that made
    it: `described` names the resources in the answer once it has been taken.
    """
    name = targets[0].provider.name
    keys = [target for target in targets if target.provider.name == name]
    if len(keys) == 1:
        return await forwarded(keys, limits, call, take=take)
    _set_deadline(call, targets)
    owner = None if call.resource is None else owners.find(name, call.resource)
    if asked := [target for target in keys if target.provider is owner]:
        target, answer = await _forwarded(asked[:1], limits, call, take)
    elif call.resource is None:
        target, answer = await _forwarded(keys[:1] if call.method == "GET" else keys, limits, call, take)
    elif call.method == "GET":
        target, answer = await _first_found(keys, limits, call, take)
    else:
        located = await _located(keys, limits, call, call.resource)
        target, answer = await _forwarded((located,), limits, call, take)
    known = () if call.resource is None else (call.resource,)
    owners.remember(name, (*known, *described()), target.provider)
    return answer


def _set_deadline(call: Call, targets: Targets) -> None:
    if not isinstance(call.body, Upload):  # the client's pace decides how long an upload takes
        call.total_at = targets[0].provider.deadline()


async def _first_found(
    keys: Targets, limits: Limits, call: Call, take: Take
) -> tuple[Target[ChatProvider], Response]:
    """The answer of the first key that has what `call` reads. Raises a 404 if none of them has.

    Any other failure is the answer, as the resource may be that key's. A key that is not accepted can
    have nothing.
    """
    missing: ProxyError | None = None
    for target in keys:
        try:
            return await _forwarded((target,), limits, call, take)
        except ProxyError as exc:
            is_missing = exc.upstream_status == NOT_FOUND
            if not is_missing and not isinstance(exc, UpstreamAuthFailed):
                raise
            if missing is None or (is_missing and missing.upstream_status != NOT_FOUND):
                missing = exc
    try:
        raise missing or UpstreamUnavailable("No target is available")
    finally:
        missing = None  # an error and the frame that raises it would keep the request until collected


async def _located(keys: Targets, limits: Limits, call: Call, resource: str) -> Target[ChatProvider]:
    """The key that has `resource`; the first where none is known to have it, for the provider to refuse."""
    look = Call("GET", resource, call.headers, call.record, total_at=call.total_at)
    try:
        target, answer = await _first_found(keys, limits, look, _read)
    except ProxyError as exc:
        if exc.upstream_status != NOT_FOUND:
            raise
        return keys[0]
    answer.close()
    return target


async def _read(answer: Response) -> None:
    await answer.read_all()


async def _forwarded(
    targets: Targets, limits: Limits, call: Call, take: Take
) -> tuple[Target[ChatProvider], Response]:
    once = Limits(1, 1) if isinstance(call.body, Upload) else limits
    caller = None
    if not (call.record.is_streaming or isinstance(call.body, Upload)):
        caller = caller_deadline(call.headers)
    if caller is not None:
        call.total_at = min(call.total_at, caller.at)
    retry_state = RetryState(targets, once, call.record, may_repeat=not call.is_once)
    retry_state.charge = call.charge

    async def ask(target: Target[ChatProvider]) -> tuple[Target[ChatProvider], Response]:
        limit_s = retry_state.first_content_s if call.record.is_streaming else 0.0
        if isinstance(call.body, Upload) and retry_state.is_probe:
            call.body = replace(call.body, pieces=_probing(call.body.pieces, retry_state.release_probe))
        return target, await before(_taken(target, call, take), content_s=limit_s)

    return await first_good(retry_state, call, ask, caller)


async def _taken(target: Target[ChatProvider], call: Call, take: Take) -> Response:
    """The answer of `target` to `call`, read by `take` as far as it has to be good."""
    call.record.provider = target.provider.name
    answer = await target.provider.forward(_aimed(call, target))
    try:
        await take(answer)
    except BaseException:
        answer.close()
        raise
    return answer


async def _probing(pieces: AsyncIterator[bytes], release_probe: Callable[[], None]) -> AsyncIterator[bytes]:
    """`pieces`, with `release_probe` called when a client is slow to send them."""
    loop = asyncio.get_running_loop()
    asked = loop.time()
    async for piece in pieces:
        if loop.time() - asked > SLOW_CLIENT_S:
            release_probe()
        yield piece
        asked = loop.time()


def _aimed(call: Call, target: Target[ChatProvider]) -> Call:
    if call.model is None or isinstance(call.body, Upload):
        return call
    (body,) = call.body
    made = model_rewrite.replace_model(
        bytes(body), old=call.model, new=target.upstream_model, span=call.model_span
    )
    return replace(call, body=made, upstream_model=target.upstream_model)
