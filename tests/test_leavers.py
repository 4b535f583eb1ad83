"""Hundreds of clients that disconnect at once: upstream requests are cancelled, and nothing leaks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from loadtest.faulty_upstream import FaultyUpstream
from loadtest.raw_client import chat_request, reset
from tests.support.faulty import faulty_upstream
from tests.support.machine import descriptors, rss_kib
from tests.support.proxy import Proxy, running_proxy
from tests.support.settings import GROQ_KEY, ONCE

CLOSED_WITHIN_S = 0.1
HEALTHY_WITHIN_S = 0.05
GROWTH_KIB = 4096  # what the allocator may keep of a storm that came again
OPENED_AT_ONCE = 50
HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def stormy() -> Iterator[tuple[FaultyUpstream, Proxy]]:
    with faulty_upstream() as (upstream, port):
        settings = {**ONCE, "GROQ_API_KEY": GROQ_KEY, "GROQ_BASE_URL": f"http://127.0.0.1:{port}/v1"}
        with running_proxy(settings) as proxy:
            yield upstream, proxy
        assert "Traceback" not in proxy.log


@dataclass
class Storm:
    """Clients that wait for the rest of their answers, and how long everything took when they left."""

    upstream: FaultyUpstream
    proxy: Proxy
    name: str
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    health_s: float = 0.0
    lag_s: float = 0.0  # of this process: what it measures comes so much too late

    async def gather(self, count: int, *, is_streaming: bool) -> None:
        """Start `count` requests, and wait until each client has received what it will get."""
        gate = asyncio.Semaphore(OPENED_AT_ONCE)
        earlier = sum(self.upstream.requested.values())

        async def one(number: int) -> None:
            async with gate:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.proxy.port)
                # Behind byte 700 a stream has content; behind byte 0 nothing has come.
                model = f"groq/good;hush={700 if is_streaming else 0};tag={self.name}{number}"
                writer.write(chat_request(model, f"{self.name}.{number}", is_streaming=is_streaming))
                if is_streaming:
                    await reader.readuntil(b"\n\n\r\n")
                self.writers.append(writer)

        await asyncio.gather(*map(one, range(count)))
        await until(lambda: sum(self.upstream.requested.values()) == earlier + count)

    async def leave(self, how: str) -> float:
        """Close all at once; the longest that an upstream connection outlived the last client."""
        count = len(self.writers)
        self.upstream.left_at.clear()
        async with self._watched():
            for writer in self.writers:
                reset(writer) if how == "rst" else writer.close()
            await asyncio.sleep(0)  # the loop runs the scheduled callbacks
            left = time.monotonic()
            await until(lambda: len(self.upstream.left_at) == count)
        self.writers.clear()
        return max(self.upstream.left_at.values()) - left

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        watchers = [asyncio.ensure_future(self._watch_health()), asyncio.ensure_future(self._watch_lag())]
        await asyncio.sleep(0.02)
        try:
            yield
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)

    async def _watch_health(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        try:
            while True:
                began = time.monotonic()
                writer.write(HEALTH)
                await reader.readuntil(b'{"status":"ok"}')
                self.health_s = max(self.health_s, time.monotonic() - began)
                await asyncio.sleep(0.002)
        finally:
            writer.close()

    async def _watch_lag(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.002)
            self.lag_s = max(self.lag_s, time.monotonic() - began - 0.002)


async def until(holds: Callable[[], bool], wait_s: float = 60) -> None:
    """Wait for `holds()`."""
    async with asyncio.timeout(wait_s):
        while not holds():  # noqa: ASYNC110 - what it waits for happens in another process
            await asyncio.sleep(0.005)


@pytest.mark.row(39, 40)
@pytest.mark.parametrize("count", [300, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("is_streaming", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("how", ["fin", "rst"])
def test_clients_that_leave_at_once_leave_nothing_behind(
    stormy: tuple[FaultyUpstream, Proxy], how: str, is_streaming: bool, count: int
) -> None:
    upstream, proxy = stormy
    pid = proxy.process.pid
    before = descriptors(pid)
    # The suite runs on busy machines; scripts/test-slow checks the bounds themselves.
    slack_s = 0.0 if count == 1000 else 2.0

    async def storm(round_: int) -> Storm:
        one = Storm(upstream, proxy, f"{how}{is_streaming}{count}.{round_}")
        await one.gather(count, is_streaming=is_streaming)
        assert descriptors(pid) >= before + 2 * count
        closed_s = await one.leave(how)
        # The lag of this process is added twice: it sees the client off, and the upstream's end.
        assert closed_s < CLOSED_WITHIN_S + slack_s + 2 * one.lag_s
        assert one.health_s < HEALTHY_WITHIN_S + slack_s + 2 * one.lag_s
        await until(lambda: descriptors(pid) <= before and not upstream.open_connections)
        await until(lambda: logged_as_left(proxy, one.name) == count)
        return one

    asyncio.run(storm(1))
    first_kib = rss_kib(pid)
    asyncio.run(storm(2))
    assert rss_kib(pid) - first_kib < GROWTH_KIB


def logged_as_left(proxy: Proxy, name: str) -> int:
    lines = [line for line in proxy.log.splitlines() if f"id={name}." in line]
    return sum(" status=499 " in line and "ended=client_left" in line for line in lines)
