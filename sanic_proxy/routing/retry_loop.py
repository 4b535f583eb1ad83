"""The loop around the attempts of one request, and its clocks. What a failure means is decided in `targets`.

No attempt begins after the request's own time is over. The time that passes between two attempts is
noted in the record, as it is not the upstream's.

The SDKs of OpenAI and Anthropic say in their requests how long they wait. No attempt lasts longer: a 504 that
names the limit reaches the client before it gives up. A stream has to have begun by then, unless its head is
sent earlier: heartbeats then keep the client.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, TypeVar

from sanic_proxy.errors import CallerTimeout, ProxyError, RateLimited, UpstreamTimeout
from sanic_proxy.governance.charge import Charge
from sanic_proxy.providers.base import Call, ChatProvider, ChatRequest
from sanic_proxy.routing.targets import RetryState, Target
from sanic_proxy.routing.waiting import RequestQueue

T = TypeVar("T")

# In seconds: openai-python and anthropic-python send their limit for one read, the SDKs for Node theirs for
# the whole answer (of a stream, its head).
_TIMEOUT, _READ_TIMEOUT = "x-stainless-timeout", "x-stainless-read-timeout"
# So long before a client gives up its answer is on its way: this part of its time, at most so many seconds.
_MARGIN = 0.05
_MAX_MARGIN_S = 1.0
_MAX_CALLER_S = 86_400.0


class CallerDeadline(NamedTuple):
    """When an answer has to be on its way (loop time, and seconds from now), as its client gives up after
    `limit_s`; `header` says so.
    """

    at: float
    due_s: float
    limit_s: float
    header: str

    def error(self) -> CallerTimeout:
        """The failure of a request that was not answered by then."""
        return CallerTimeout(
            f"No answer within {self.limit_s:g} s, the time that the client waits ({self.header})"
        )


def caller_deadline(headers: Mapping[str, str]) -> CallerDeadline | None:
    """The time limit in a client's headers, whose names are in lower case; None if there is none.

    A value that is no positive number is ignored: a client that waits for ever sends none, or 0.
    """
    if _TIMEOUT not in headers and _READ_TIMEOUT not in headers:
        return None
    soonest = None
    for header in (_TIMEOUT, _READ_TIMEOUT):
        if (text := headers.get(header)) is None:
            continue
        try:
            limit_s = float(text)
        except ValueError:
            continue
        if 0 < limit_s <= _MAX_CALLER_S and (soonest is None or limit_s < soonest.limit_s):
            due_s = limit_s - min(_MAX_MARGIN_S, _MARGIN * limit_s)
            soonest = CallerDeadline(_now() + due_s, due_s, limit_s, header)
    return soonest


async def first_good(  # noqa: C901 - a function for a part of it would cost each request a call
    retry_state: RetryState[ChatProvider],
    sent: ChatRequest | Call,
    ask: Callable[[Target[ChatProvider]], Awaitable[T]],
    caller: CallerDeadline | None = None,
) -> T:
    """The result of `ask` for the first target that does not fail. Raises the last failure."""
    try:
        while True:
            queue = retry_state.request_queue
            try:
                target = retry_state.next() if queue is None or not queue.waiting else None
            except ProxyError:
                if not retry_state.is_held:
                    raise
                target = None
            if target is None:
                target = await _held(retry_state, sent, caller)
            if sent.charge is not None and not await _is_paid(sent.charge, retry_state, target):
                continue
            try:
                answer = await ask(target)
            except ProxyError as exc:
                _check_caller(retry_state, caller, exc)
                wait_s = retry_state.record_failure(exc)
                if wait_s is None or not is_time_left(sent, wait_s, caller):
                    raise
            else:
                retry_state.record_success()
                return answer
            if wait_s:
                await pause(sent, wait_s)
    except BaseException:
        retry_state.release()
        raise


async def _is_paid(
    charge: Charge, retry_state: RetryState[ChatProvider], target: Target[ChatProvider]
) -> bool:
    """Reserve what an attempt may cost. False: another target is to be asked. Raises if there is none."""
    try:
        pending = charge.begin(target.tariff)
        if pending is not None:
            await pending
    except ProxyError as exc:
        if not retry_state.pass_by(exc):
            raise
        return False
    return True


async def before(pending: Awaitable[T], *, content_s: float = 0.0, caller: CallerDeadline | None = None) -> T:
    """The result of `pending`, the first content: within `content_s`, if that is not 0, and until `caller`.

    Raises UpstreamTimeout or CallerTimeout.
    """
    content_at = _now() + content_s if content_s else math.inf
    until = content_at if caller is None else min(content_at, caller.at)
    if until == math.inf:
        return await pending
    scope = asyncio.timeout_at(until)
    try:
        async with scope:
            return await pending
    except TimeoutError:
        if not scope.expired():
            raise
        if caller is not None and caller.at <= content_at:
            raise caller.error() from None
        raise UpstreamTimeout(f"The provider sent no content within {content_s:g} s") from None


async def _held(
    retry_state: RetryState[ChatProvider], sent: ChatRequest | Call, caller: CallerDeadline | None
) -> Target[ChatProvider]:
    """Wait for the limits that keep the request from all its targets; the target that is free then.

    Raises a RateLimited at once if the wait would be longer than the queue allows, than the time for all
    attempts or than the client waits, and when that has become so.
    """
    queue, record = retry_state.request_queue, sent.record
    if queue is None or retry_state.is_sent:
        return retry_state.next()
    client = record.client.id
    until = min(_now() + queue.max_wait_s, sent.total_at, math.inf if caller is None else caller.at)
    refusal = retry_state.limit_refusal(queue.ahead_of(client))
    if queue.waiting >= queue.max_waiting:
        raise refusal or _queued(queue)
    if refusal is not None and _now() + (refusal.wait_s or 0.0) > until:
        raise refusal
    record.waiting_since = time.monotonic()
    turn = queue.join(client)
    retry_state.listen(queue.wake)
    try:
        async with asyncio.timeout_at(until):
            await turn
        while True:
            retry_state.rewind()
            try:
                return retry_state.next()
            except ProxyError:
                if not retry_state.is_held:
                    raise
            hold_s = retry_state.hold_s or 0.0
            if _now() + hold_s > until:
                retry_state.rewind()
                return retry_state.next()
            await queue.changed(hold_s)
    except TimeoutError:
        raise retry_state.limit_refusal(queue.ahead_of(client)) or _queued(queue) from None
    finally:
        retry_state.unlisten(queue.wake)
        queue.leave(client, turn)
        record.waited_s = record.waited_until(time.monotonic())
        record.waiting_since = None


def _queued(queue: RequestQueue) -> RateLimited:
    return RateLimited(f"{queue.waiting} requests wait for the same limits; retry in 1 s", retry_after_s=1)


def _check_caller(
    retry_state: RetryState[ChatProvider], caller: CallerDeadline | None, failure: ProxyError
) -> None:
    """Raises CallerTimeout in place of `failure` if the provider has taken all of the client's time."""
    if caller is not None and isinstance(failure, UpstreamTimeout) and _now() >= caller.at:
        error = caller.error()
        retry_state.record_failure(error)
        raise error from None


def _now() -> float:
    return asyncio.get_running_loop().time()


def is_time_left(sent: ChatRequest | Call, wait_s: float, caller: CallerDeadline | None = None) -> bool:
    """Whether the time for all attempts lasts beyond a wait of `wait_s`."""
    until = sent.total_at if caller is None else min(sent.total_at, caller.at)
    return _now() + wait_s < until


async def pause(sent: ChatRequest | Call, wait_s: float) -> None:
    """Wait between two attempts. The commit delay of a stream's status line stands still meanwhile."""
    sent.record.waited_s += wait_s
    await asyncio.sleep(wait_s)
