"""The tools of the tests themselves."""

from __future__ import annotations

import asyncio
import logging
import socket
import time

import pytest

from tests.support import virtual_time
from tests.support.load import quickest_s, wait_until
from tests.support.machine import least_cost
from tests.support.upstream import Exchange, Upstream


def test_virtual_time_passes_only_while_all_wait() -> None:
    async def work() -> list[str]:
        order: list[str] = []

        async def sleeper(name: str, delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            order.append(name)

        began, began_loop = time.monotonic(), asyncio.get_running_loop().time()
        time.sleep(0.01)  # noqa: ASYNC251 - a busy machine
        assert time.monotonic() == began
        await asyncio.gather(sleeper("late", 3600), sleeper("early", 1800))
        assert 3600 <= time.monotonic() - began < 3600.1
        assert time.monotonic() - began == asyncio.get_running_loop().time() - began_loop
        return order

    began = time.monotonic()
    assert virtual_time.run(work()) == ["early", "late"]
    assert time.monotonic() - began < 1800


def test_the_quickest_attempt_counts() -> None:
    delays = iter([0.05, 0.0, 1.0])
    assert quickest_s(lambda: time.sleep(next(delays)), 0.04) < 0.05
    assert next(delays) == 1.0


def test_work_is_measured_in_units_of_this_machine() -> None:
    assert 0 < least_cost(lambda: sum(range(1000)), enough=1) < 1
    assert least_cost(lambda: [hash(n) for n in range(2_000_000)], enough=0.1) > 0.1


def test_a_scripted_upstream_ends_what_it_serves(caplog: pytest.LogCaptureFixture) -> None:
    """Even scripts that wait for ever, whose tasks nothing else refers to."""

    async def waits(exchange: Exchange) -> None:
        await asyncio.get_running_loop().create_future()

    for _ in range(20):
        upstream = Upstream()
        upstream.on("GET /waits", waits)
        upstream.start()
        clients = [socket.create_connection(("127.0.0.1", upstream.port)) for _ in range(10)]
        for client in clients:
            client.sendall(b"GET /waits HTTP/1.1\r\nhost: a\r\naccept-encoding: identity\r\n\r\n")
        wait_until(lambda started=upstream: started.connections > 2)  # type: ignore[misc]
        upstream.stop()
        for client in clients:
            client.close()
        assert upstream.open_connections == 0
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []
