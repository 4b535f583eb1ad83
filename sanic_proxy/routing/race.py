"""Two attempts of one request at the same time: the first that has an answer wins, the other one is closed.

`Race.ask` is what `first_good` (`retry_loop`) calls for a request that may be hedged, so that remains the one
loop of repeats: each call is one attempt to it, whose target is the current one of `RetryState`. The second
attempt begins when the first has been silent for the model's delay (`hedging`), at a target that is
usable at once. If one of both fails the other goes on; if both fail, the later failure is the result.

Both attempts are tasks that end before the call returns, whether it is answered, fails or is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from sanic_proxy.config.model import NO_OPTIONS
from sanic_proxy.errors import ProxyError
from sanic_proxy.json_types import JsonMapping
from sanic_proxy.providers.base import ChatProvider, ChatRequest
from sanic_proxy.routing.adaption import with_options
from sanic_proxy.routing.hedging import Hedging
from sanic_proxy.routing.sessions import encrypted_name, wants_encrypted
from sanic_proxy.routing.targets import RetryState, Target

T = TypeVar("T")

# One attempt: its target, and the request that it may change.
Ask = Callable[[Target[ChatProvider], ChatRequest], Awaitable[T]]


def race_of(
    hedging: Hedging,
    retry_state: RetryState[ChatProvider],
    request: ChatRequest,
    ask: Ask[T],
    close: Callable[[T], None] | None = None,
) -> Race[T] | None:
    """A race for `request`, whose model has second attempts; None where the request may not have one.

    `close` releases an answer that is not used.
    """
    if not (request.is_small and _asks_only(request, retry_state.targets)):
        return None
    if encrypted_name(request.original, request.fields) or wants_encrypted(request.fields):
        return None  # only the account that encrypted the reasoning can read it
    return Race(hedging, retry_state, request, ask, close)


def _asks_only(request: ChatRequest, targets: Sequence[Target[ChatProvider]]) -> bool:
    """Whether two targets may work on `request` at the same time: all that it wants is an answer.

    An emulated stream is made of a whole answer, with heartbeats of its own before it, and a large request
    may be in the hands of a thread that translates it: neither is hedged.
    """
    has_effects = request.dialect.effects.of
    return all(
        target.provider.provider_kind == "native"
        and not has_effects(
            request.fields if target.options is NO_OPTIONS else with_options(request.fields, target.options)
        )
        for target in targets
    )


class Race(Generic[T]):
    """See the module. One per request; `close` releases an answer that is not used."""

    def __init__(
        self,
        hedging: Hedging,
        retry_state: RetryState[ChatProvider],
        request: ChatRequest,
        ask: Ask[T],
        close: Callable[[T], None] | None = None,
    ) -> None:
        self._hedging = hedging
        self._retry_state = retry_state
        self._request = request
        self._ask = ask
        self._close = close
        self._is_streaming = request.is_streaming
        self._is_first = True
        self._runners: list[_Runner[T]] = []  # that this call has to end
        hedging.count_request()

    async def ask(self, target: Target[ChatProvider]) -> T:
        """The answer. Raises the failure of the attempt that is the current one by then."""
        if not self._is_first:
            return await self._ask(target, self._request)
        self._is_first = False
        began = _now()
        delay_s = self._hedging.delay_s(is_streaming=self._is_streaming)
        if delay_s is None:
            answer = await self._ask(target, self._request)
            self._note_time(began)
            return answer
        decided = None
        try:
            decided = await self._decided(target, delay_s, began)
            self._runners.remove(decided)
            self._adopt(decided)
            return decided.task.result()
        finally:
            # A failure and the frame that raises it would keep the request until the collector runs.
            decided = None
            await self._stop()

    async def _decided(self, target: Target[ChatProvider], delay_s: float, began: float) -> _Runner[T]:
        """The attempt whose answer or failure is the result. The other one has ended."""
        first = self._start(target, self._request)
        await asyncio.wait([first.task], timeout=delay_s)
        second = None if first.task.done() else self._hedge()
        if second is None:
            await asyncio.wait([first.task])
            if first.has_answer:
                self._note_time(began)
            return first
        left = [first, second]
        while True:
            await asyncio.wait([runner.task for runner in left], return_when=asyncio.FIRST_COMPLETED)
            ended = next((runner for runner in left if runner.has_answer), None)
            if ended is not None and first in left:
                self._note_time(began)
            ended = ended or next(runner for runner in left if runner.task.done())
            left.remove(ended)
            if left and (ended.has_answer or not self._goes_on(ended)):
                await self._drop(left.pop(), ended)
            if not left:
                return ended
            self._runners.remove(ended)

    def _start(self, target: Target[ChatProvider], request: ChatRequest) -> _Runner[T]:
        runner = _Runner(target, request, self._ask(target, request))
        self._runners.append(runner)
        return runner

    def _hedge(self) -> _Runner[T] | None:
        """A second attempt, which has begun; None where the budget is spent or no target can take it."""
        if not self._hedging.has_room or (target := self._retry_state.hedge()) is None:
            return None
        self._hedging.take()
        return self._start(target, replace(self._request))

    def _goes_on(self, failed: _Runner[T]) -> bool:
        """Record that one of two attempts has failed. Whether the other one may still answer the request."""
        error = None if failed.task.cancelled() else failed.task.exception()
        return isinstance(error, ProxyError) and self._retry_state.record_one_failure(failed.target, error)

    async def _drop(self, lost: _Runner[T], decided: _Runner[T]) -> None:
        """End the attempt that is not needed. What it has reported of its usage is not the answer's."""
        record = self._request.record
        record.usage = None
        lost.stop(self._close)
        await _ended([lost])
        request, usage = lost.request, record.usage or lost.usage
        if request.is_streaming and request.wire.reports_partly:
            usage = None  # it was closed at its first content
        self._retry_state.record_lost(lost.target, usage)
        record.usage = decided.usage
        self._runners.remove(lost)

    def _adopt(self, decided: _Runner[T]) -> None:
        if decided.request is not self._request:
            self._request.become(decided.request)
        self._request.record.provider = decided.target.provider.name

    def _note_time(self, began: float) -> None:
        self._hedging.note(_now() - began, is_streaming=self._is_streaming)

    async def _stop(self) -> None:
        """End what is still under way: the client has left, or something has failed here."""
        runners, self._runners = self._runners, []
        for runner in runners:
            runner.stop(self._close)
        await _ended(runners)


class _Runner(Generic[T]):
    """One attempt as a task. `usage` is what a whole answer has reported."""

    def __init__(self, target: Target[ChatProvider], request: ChatRequest, attempt: Awaitable[T]) -> None:
        self.target = target
        self.request = request
        self.usage: JsonMapping | None = None
        self.task = asyncio.ensure_future(self._run(attempt))

    async def _run(self, attempt: Awaitable[T]) -> T:
        answer = await attempt
        self.usage = self.request.record.usage
        return answer

    @property
    def has_answer(self) -> bool:
        task = self.task
        return task.done() and not task.cancelled() and task.exception() is None

    def stop(self, close: Callable[[T], None] | None) -> None:
        """Cancel the attempt, or release its answer. It has ended when its task is done."""
        if self.has_answer:
            if close is not None:
                close(self.task.result())
        elif not self.task.done():
            self.task.cancel()


async def _ended(runners: Sequence[_Runner[T]]) -> None:
    if running := [runner.task for runner in runners if not runner.task.done()]:
        await asyncio.wait(running)


def _now() -> float:
    return asyncio.get_running_loop().time()
