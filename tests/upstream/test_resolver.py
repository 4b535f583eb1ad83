"""Names and their addresses, with lookups that tests hold back."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from sanic_proxy import errors
from sanic_proxy.upstream.resolver import (
    MAX_STALE_S,
    MAX_THREADS,
    NEGATIVE_TTL_S,
    STALE_WAIT_S,
    TTL_S,
    Address,
    Resolver,
    literal_address,
    system_lookup,
)

FIRST: Address = (socket.AF_INET, "192.0.2.1")
SECOND: Address = (socket.AF_INET6, "2001:db8::2")
GENEROUS_S = 20.0


class Names:
    """A name server: names answer with their addresses, fail without any, and hang while they are held."""

    def __init__(self) -> None:
        self.addresses: dict[str, Sequence[Address]] = {}
        self.held: dict[str, threading.Event] = {}
        self.lookups: Counter[str] = Counter()
        self.running = 0
        self.most_running = 0
        self.now_s = 1000.0
        self._lock = threading.Lock()

    def hold(self, name: str) -> threading.Event:
        event = self.held[name] = threading.Event()
        return event

    def lookup(self, name: str) -> Sequence[Address]:
        with self._lock:
            self.lookups[name] += 1
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        try:
            if (event := self.held.get(name)) is not None:
                assert event.wait(GENEROUS_S)
            found = self.addresses.get(name, ())
            if not found:
                raise socket.gaierror(socket.EAI_NONAME, "unknown")
            return found
        finally:
            with self._lock:
                self.running -= 1

    def now(self) -> float:
        return self.now_s


def run(work: Callable[[Resolver, Names], Awaitable[Any]]) -> None:
    async def opened() -> None:
        names = Names()
        names.addresses = {"good": [FIRST, SECOND, FIRST]}
        resolver = Resolver(names.lookup, names.now)
        try:
            async with asyncio.timeout(GENEROUS_S):
                await work(resolver, names)
        finally:
            resolver.close()
            for event in names.held.values():
                event.set()

    asyncio.run(opened())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.to_thread(time.sleep, 0.005)


def test_addresses_come_once_each_and_in_order() -> None:
    async def work(resolver: Resolver, names: Names) -> None:
        assert await resolver.resolve("good") == (FIRST, SECOND)

    run(work)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "192.0.2.7"])
def test_a_literal_address_is_not_looked_up(host: str) -> None:
    async def work(resolver: Resolver, names: Names) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        assert await resolver.resolve(host) == ((family, host),)
        assert not names.lookups

    run(work)


@pytest.mark.parametrize("host", ["localhost", "1.2.3", "example.com", "", "1.2.3.4.5"])
def test_a_name_is_not_a_literal_address(host: str) -> None:
    assert literal_address(host) is None


def test_all_callers_of_one_name_wait_for_one_lookup() -> None:
    async def work(resolver: Resolver, names: Names) -> None:
        event = names.hold("good")
        callers = [asyncio.ensure_future(resolver.resolve("good")) for _ in range(100)]
        await until(lambda: names.running == 1)
        event.set()
        assert set(await asyncio.gather(*callers)) == {(FIRST, SECOND)}
        assert names.lookups["good"] == 1

    run(work)


@pytest.mark.row(3)
def test_a_name_that_hangs_delays_no_other() -> None:
    async def work(resolver: Resolver, names: Names) -> None:
        names.hold("hangs")
        callers = [asyncio.ensure_future(resolver.resolve("hangs")) for _ in range(500)]
        await until(lambda: names.running == 1)
        assert await resolver.resolve("good") == (FIRST, SECOND)
        assert not any(caller.done() for caller in callers)
        for caller in callers:
            caller.cancel()

    run(work)


def test_a_caller_that_gives_up_leaves_the_lookup_to_the_others() -> None:
    async def work(resolver: Resolver, names: Names) -> None:
        event = names.hold("good")
        cancelled = asyncio.ensure_future(resolver.resolve("good"))
        patient = asyncio.ensure_future(resolver.resolve("good"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await resolver.resolve("good")
        cancelled.cancel()
        await asyncio.wait({cancelled})
        event.set()
        assert await patient == (FIRST, SECOND)
        assert names.lookups["good"] == 1

    run(work)


def test_threads_are_bounded_and_more_names_wait_their_turn() -> None:
    async def work(resolver: Resolver, names: Names) -> None:
        many = [f"n{index}" for index in range(MAX_THREADS + 5)]
        for name in many:
            names.addresses[name] = [FIRST]
            names.hold(name)
        callers = [asyncio.ensure_future(resolver.resolve(name)) for name in many]
        await until(lambda: names.running == MAX_THREADS)
        for name in many:
            names.held[name].set()
        assert await asyncio.gather(*callers) == [(FIRST,)] * len(many)
        assert names.most_running == MAX_THREADS

    run(work)


def test_addresses_are_looked_up_again_after_their_time() -> None:
    async def work(resolver: Resolver, names: Names) -> None:
        await resolver.resolve("good")
        names.addresses["good"] = [SECOND]
        names.now_s += TTL_S - 1
        assert await resolver.resolve("good") == (FIRST, SECOND)
        names.now_s += 1
        assert await resolver.resolve("good") == (SECOND,)
        assert names.lookups["good"] == 2

    run(work)


def test_a_failure_is_remembered_for_a_moment() -> None:
    async def work(resolver: Resolver, names: Names) -> None:
        for _ in range(3):
            with pytest.raises(errors.UpstreamDnsFailed):
                await resolver.resolve("new")
        assert names.lookups["new"] == 1
        names.addresses["new"] = [FIRST]
        names.now_s += NEGATIVE_TTL_S
        assert await resolver.resolve("new") == (FIRST,)

    run(work)


def test_stale_addresses_serve_while_the_lookup_fails_and_not_for_ever() -> None:
    async def work(resolver: Resolver, names: Names) -> None:
        await resolver.resolve("good")
        names.addresses.clear()
        for _ in range(2):
            names.now_s += TTL_S
            assert await resolver.resolve("good") == (FIRST, SECOND)
        assert names.lookups["good"] == 3
        names.now_s += MAX_STALE_S
        with pytest.raises(errors.UpstreamDnsFailed):
            await resolver.resolve("good")

    run(work)


def test_stale_addresses_serve_while_the_lookup_hangs() -> None:
    async def work(resolver: Resolver, names: Names) -> None:
        await resolver.resolve("good")
        event = names.hold("good")
        names.now_s += TTL_S
        assert await resolver.resolve("good") == (FIRST, SECOND)  # the first waits STALE_WAIT_S
        names.now_s += STALE_WAIT_S
        coroutine = resolver.resolve("good")  # the next does not wait
        with pytest.raises(StopIteration) as returned:
            coroutine.send(None)
        assert returned.value.value == (FIRST, SECOND)
        names.addresses["good"] = [SECOND]
        event.set()
        while await resolver.resolve("good") != (SECOND,):
            await asyncio.to_thread(time.sleep, 0.005)
        assert names.lookups["good"] == 2

    run(work)


def test_a_lookup_that_ends_after_its_loop_is_harmless() -> None:
    names = Names()
    event = names.hold("good")
    threads = threading.active_count()

    async def work() -> None:
        resolver = Resolver(names.lookup)
        waiting = asyncio.ensure_future(resolver.resolve("good"))
        await until(lambda: names.running == 1)
        resolver.close()
        with pytest.raises(errors.UpstreamDnsFailed):
            await waiting

    asyncio.run(work())
    event.set()
    limit_at = time.monotonic() + GENEROUS_S
    while threading.active_count() > threads and time.monotonic() < limit_at:
        time.sleep(0.005)
    assert threading.active_count() == threads


@pytest.mark.parametrize("host", ["", "a" * 64, "a..b", "no-such-host.invalid"])
def test_what_the_system_cannot_look_up_is_a_dns_error(host: str) -> None:
    async def work() -> None:
        with pytest.raises(errors.UpstreamDnsFailed):
            await Resolver().resolve(host)

    asyncio.run(work())


def test_the_system_knows_localhost() -> None:
    assert set(system_lookup("localhost")) & {(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")}
