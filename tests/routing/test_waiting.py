"""Requests that wait for limits: whose turn it is, for how long, and what is refused. In virtual time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.config.targets import TargetSettings
from sanic_proxy.errors import ProxyError, RateLimited
from sanic_proxy.observability.record import Client, RequestRecord
from sanic_proxy.providers.base import Call, ChatProvider
from sanic_proxy.routing.load import TargetLoad
from sanic_proxy.routing.retry_loop import CallerDeadline, first_good
from sanic_proxy.routing.targets import Limits, RetryState, Target
from sanic_proxy.routing.waiting import FairQueue, RequestQueue
from tests.support import virtual_time

MAX_WAIT_S = 10.0
PROVIDER = cast("ChatProvider", None)

# Whose turn it is


def drained(queue: FairQueue[str]) -> list[str]:
    served = []
    while (head := queue.head) is not None:
        served.append(head)
        queue.remove(head[0], head)
    return served


def test_clients_take_turns_and_each_keeps_its_order() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
        queue.add(item[0], item)
    assert drained(queue) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_one_that_leaves_the_middle_takes_no_turn() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "b1", "b2", "c1"):
        queue.add(item[0], item)
    queue.remove("b", "b1")
    assert drained(queue) == ["a1", "b2", "c1"]


@given(st.lists(st.sampled_from("abc"), max_size=30), st.sampled_from("abcd"))
def test_the_number_ahead_is_the_number_served_before(clients: list[str], client: str) -> None:
    queue: FairQueue[str] = FairQueue()
    for number, name in enumerate(clients):
        queue.add(name, f"{name}{number}")
    ahead = queue.ahead_of(client)
    queue.add(client, f"{client}new")
    assert drained(queue).index(f"{client}new") <= ahead


# In the retry loop


class Site:
    """The targets of one model in one worker, and a provider that takes `takes_s` for an answer."""

    def __init__(self, takes_s: float = 0.0, queue: RequestQueue | None = None, **limits: int) -> None:
        self.queue = queue or RequestQueue(MAX_WAIT_S)
        self._clock = asyncio.get_running_loop().time
        self.began = self._clock()
        self.takes_s = takes_s
        self.targets: list[Target[ChatProvider]] = []
        self.add("a", **limits)
        self.served: list[tuple[str, float]] = []
        self.records: dict[str, RequestRecord] = {}

    def add(self, name: str, *, rpm: int | None = None, concurrent: int | None = None) -> None:
        settings = TargetSettings("p", name, rpm=rpm, concurrent=concurrent)
        load = TargetLoad(settings, clock=self._clock)
        self.targets.append(Target(PROVIDER, name, f"p/{name}", load=load, request_queue=self.queue))

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self.began

    async def send(
        self, name: str, *, total_s: float = 600.0, caller_s: float | None = None
    ) -> ProxyError | None:
        """Send a request of the client that is the name's first letter; the error it ends with."""
        record = RequestRecord(name, "POST", "/", client=Client(name[0], name[0]))
        self.records[name] = record
        call = Call("POST", "/x", {}, record, total_at=self._clock() + total_s)
        state: RetryState[ChatProvider] = RetryState(self.targets, Limits(), record, clock=self._clock)

        async def ask(target: Target[ChatProvider]) -> None:
            self.served.append((f"{name} {target.upstream_model}", round(self.now, 1)))
            await asyncio.sleep(self.takes_s)

        caller = None
        if caller_s is not None:
            caller = CallerDeadline(self._clock() + caller_s, caller_s, caller_s, "x-stainless-timeout")
        try:
            await first_good(state, call, ask, caller)
        except ProxyError as exc:
            return exc
        finally:
            record.finish(())
        return None


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    virtual_time.run(scene())


async def all_of(*sent: Awaitable[ProxyError | None]) -> list[ProxyError | None]:
    return list(await asyncio.gather(*sent))


def test_a_request_waits_until_another_one_has_ended() -> None:
    async def scene() -> None:
        site = Site(takes_s=3.0, concurrent=1)
        assert await all_of(*(site.send(name) for name in ("a1", "a2", "a3"))) == [None, None, None]
        assert site.served == [("a1 a", 0.0), ("a2 a", 3.0), ("a3 a", 6.0)]
        assert site.records["a1"].waited_s == 0
        assert site.records["a2"].waited_s == pytest.approx(3.0, abs=0.01)
        assert site.records["a2"].waiting_since is None
        assert site.queue.waiting == 0

    play(scene)


def test_clients_take_turns() -> None:
    async def scene() -> None:
        site = Site(takes_s=1.0, concurrent=1)
        names = ("a1", "a2", "a3", "b1", "b2", "c1")
        assert await all_of(*(site.send(name) for name in names)) == [None] * 6
        assert [name for name, _ in site.served] == ["a1 a", "a2 a", "b1 a", "c1 a", "a3 a", "b2 a"]

    play(scene)


def test_a_target_that_is_free_is_used_before_any_wait() -> None:
    async def scene() -> None:
        site = Site(takes_s=3.0, concurrent=1)
        site.add("b", concurrent=1)
        await all_of(site.send("a1"), site.send("a2"), site.send("a3"))
        assert site.served == [("a1 a", 0.0), ("a2 b", 0.0), ("a3 a", 3.0)]

    play(scene)


def test_a_wait_beyond_the_longest_is_refused_at_once_with_the_exact_time() -> None:
    async def scene() -> None:
        site = Site(rpm=2)
        await all_of(site.send("a1"), site.send("a2"))
        error = await site.send("a3")
        assert isinstance(error, RateLimited)
        assert error.retry_after_s == 60
        assert site.now < 0.1
        await asyncio.sleep(57.0 - site.now)
        error = await site.send("a4", total_s=2.0)
        assert isinstance(error, RateLimited)
        assert error.retry_after_s == 8  # 1,000 s is the beginning of a bucket, which counts until 1,065 s
        assert site.now == pytest.approx(57.0, abs=0.1)
        assert await site.send("a5") is None
        assert site.served[-1] == ("a5 a", 65.0)

    play(scene)


def test_those_who_would_wait_too_long_behind_others_are_refused_at_once() -> None:
    async def scene() -> None:
        site = Site(rpm=2)
        await site.send("a1")
        await asyncio.sleep(30.0)
        await site.send("a2")
        await asyncio.sleep(30.0)
        first = asyncio.ensure_future(site.send("a3"))  # waits for the place of a1
        await asyncio.sleep(0.1)
        error = await site.send("a4")  # would wait for that of a2
        assert isinstance(error, RateLimited)
        assert error.retry_after_s == 35
        assert site.queue.waiting == 1
        assert await first is None

    play(scene)


def test_nobody_waits_longer_than_the_client_or_the_time_for_all_attempts() -> None:
    async def scene() -> None:
        site = Site(takes_s=100.0, concurrent=1)
        busy = asyncio.ensure_future(site.send("a1"))
        await asyncio.sleep(0)
        for more, limit_s in (({"caller_s": 2.0}, 2.0), ({"total_s": 3.0}, 3.0), ({}, MAX_WAIT_S)):
            began = site.now
            error = await site.send("a2", **more)
            assert isinstance(error, RateLimited)
            assert site.now - began == pytest.approx(limit_s, abs=0.1)
            assert error.retry_after_s == 1
        assert site.queue.waiting == 0
        busy.cancel()

    play(scene)


def test_one_that_does_not_get_its_turn_in_time_is_refused() -> None:
    async def scene() -> None:
        site = Site(takes_s=100.0, concurrent=1)
        busy = asyncio.ensure_future(site.send("a1"))
        await asyncio.sleep(0)
        first, second = await all_of(site.send("a2"), site.send("b1", total_s=4.0))
        assert isinstance(first, RateLimited)
        assert isinstance(second, RateLimited)
        assert site.records["b1"].waited_s == pytest.approx(4.0, abs=0.1)
        busy.cancel()

    play(scene)


def test_a_client_that_leaves_leaves_the_queue() -> None:
    async def scene() -> None:
        site = Site(takes_s=5.0, concurrent=1)
        sent = [asyncio.ensure_future(site.send(name)) for name in ("a1", "a2", "a3")]
        await asyncio.sleep(1.0)
        sent[1].cancel()
        await asyncio.sleep(0)
        assert site.queue.waiting == 1
        assert await sent[2] is None
        assert [name for name, _ in site.served] == ["a1 a", "a3 a"]

    play(scene)


def test_the_queue_is_bounded() -> None:
    async def scene() -> None:
        site = Site(takes_s=5.0, queue=RequestQueue(MAX_WAIT_S, max_waiting=1), concurrent=1)
        errors = await all_of(*(site.send(name) for name in ("a1", "a2", "a3")))
        assert errors[:2] == [None, None]
        assert isinstance(errors[2], RateLimited)
        assert errors[2].retry_after_s == 1

    play(scene)


def test_a_provider_that_names_a_wait_is_waited_for() -> None:
    async def scene() -> None:
        site = Site()
        site.targets[0].rate_limit.limit(site.began, 4.0)
        assert await site.send("a1") is None
        assert site.served == [("a1 a", 4.0)]
        site.targets[0].rate_limit.limit(site.began + site.now, 40.0)
        error = await site.send("a2")
        assert isinstance(error, RateLimited)
        assert error.retry_after_s == 40

    play(scene)


def test_a_provider_with_nothing_left_is_waited_for() -> None:
    async def scene() -> None:
        site = Site()
        headers = {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-remaining-requests": "1",
            "x-ratelimit-reset-requests": "59s",
        }
        site.targets[0].rate_limit.observe(headers, site.began)
        assert await all_of(site.send("a1"), site.send("a2"), site.send("a3")) == [None] * 3
        assert site.served == [("a1 a", 0.0), ("a2 a", 1.0), ("a3 a", 2.0)]

    play(scene)


def test_without_a_queue_nobody_waits() -> None:
    async def scene() -> None:
        site = Site(takes_s=1.0, concurrent=1)
        site.targets = [Target(PROVIDER, "a", "p/a", load=site.targets[0].load)]
        errors = await all_of(site.send("a1"), site.send("a2"))
        assert errors[0] is None
        assert isinstance(errors[1], RateLimited)
        assert math.isclose(site.records["a2"].waited_s, 0.0)

    play(scene)
