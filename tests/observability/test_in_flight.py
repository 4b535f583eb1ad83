"""The requests in flight of a worker."""

from __future__ import annotations

import asyncio

import pytest
from typing_extensions import override

from sanic_proxy.config.model import Capacity
from sanic_proxy.errors import Overloaded, ShuttingDown
from sanic_proxy.observability.in_flight import (
    READ_TURN_S,
    ClientConnection,
    ReadBudget,
    Reader,
    TlsReports,
    Traffic,
)
from tests.support.in_flight import Request


class Client(ClientConnection):
    """A connection, likewise."""

    def __init__(self) -> None:
        self.events: list[str] = []

    @override
    def read_config(self) -> None:
        self.events.append("read")

    @override
    def abort(self) -> None:
        self.events.append("aborted")


def test_a_request_counts_from_its_begin_to_its_end() -> None:
    traffic, first, second = Traffic(), Request(), Request()
    traffic.begin(first)
    traffic.begin(second)
    assert len(traffic.requests) == 2
    traffic.end(first)
    traffic.end(first)
    assert traffic.requests == {second}


def test_draining_makes_each_answer_the_last_of_its_connection() -> None:
    traffic, before, after, ended = Traffic(), Request(), Request(), Request()
    traffic.begin(ended)
    traffic.end(ended)
    traffic.begin(before)
    assert before.events == []
    traffic.drain()
    traffic.begin(after)
    assert before.events == after.events == ["last on its connection"]
    assert ended.events == []


def test_requests_in_flight_can_be_cut_and_aborted() -> None:
    traffic, request, client = Traffic(), Request(), Client()
    traffic.begin(request)
    traffic.connections = {client}
    traffic.cut(ShuttingDown("bye"))
    traffic.abort()
    assert request.events == ["cut: server_shutting_down"]
    assert client.events == ["aborted"]


def test_emptied_waits_for_the_last_end() -> None:
    async def waits() -> None:
        traffic, request = Traffic(), Request()
        await traffic.emptied()
        traffic.begin(request)
        waiting = asyncio.ensure_future(traffic.emptied())
        await asyncio.sleep(0)
        assert not waiting.done()
        traffic.end(request)
        await asyncio.wait_for(waiting, 1)

    asyncio.run(waits())


def test_bodies_count_while_their_requests_do_and_no_longer() -> None:
    traffic, first, second = Traffic(), Request(), Request()
    traffic.limit(Capacity(concurrent=0, bytes_in_flight=100))
    traffic.hold(first, 60)
    with pytest.raises(Overloaded) as refused:
        traffic.hold(second, 50)
    assert (refused.value.status, refused.value.retry_after_s, refused.value.retryable) == (503, 1, True)
    traffic.hold(first, 40)
    traffic.hold(second, 50)
    assert traffic.body_bytes == 90
    traffic.end(first)
    traffic.end(first)
    traffic.end(second)
    assert traffic.body_bytes == 0


def test_a_body_that_turns_out_smaller_is_never_refused() -> None:
    traffic, request = Traffic(), Request()
    traffic.hold(request, 100)
    traffic.limit(Capacity(concurrent=0, bytes_in_flight=10))
    traffic.hold(request, 50)
    assert traffic.body_bytes == 50


def test_without_a_limit_everything_is_taken() -> None:
    traffic = Traffic()
    traffic.limit(Capacity(concurrent=0, bytes_in_flight=0))
    traffic.hold(Request(), 2**60)
    assert traffic.max_requests > 10**9


class Noted(Reader):
    """What is read from; notes when it is paused and resumed."""

    def __init__(self) -> None:
        self.events: list[str] = []

    @override
    def pause(self) -> None:
        self.events.append("paused")

    @override
    def resume(self) -> None:
        self.events.append("resumed")


def test_reads_beyond_the_budget_of_a_turn_wait_for_the_next_turn() -> None:
    async def run() -> None:
        loop, budget, first, second, third = (
            asyncio.get_running_loop(),
            ReadBudget(),
            *(Noted() for _ in "abc"),
        )
        budget.spend(loop, READ_TURN_S / 2, first)
        budget.spend(loop, READ_TURN_S / 2, second)
        budget.spend(loop, 0.0, third)
        assert (first.events, second.events, third.events) == ([], ["paused"], ["paused"])
        await asyncio.sleep(0)
        assert (first.events, second.events, third.events) == ([], *[["paused", "resumed"]] * 2)
        budget.spend(loop, READ_TURN_S / 2, first)
        await asyncio.sleep(0)
        assert first.events == []

    asyncio.run(run())


def test_a_flood_of_tls_handshakes_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    reports = TlsReports()
    for second in range(100):
        reports.report(("192.0.2.1", 4), 1000.0 + second)
    assert [line.getMessage().partition(":")[0] for line in caplog.records] == [
        "TLS handshake from ('192.0.2.1', 4) on the plain HTTP port",
        "TLS handshake from ('192.0.2.1', 4) on the plain HTTP port (59 more since the last report)",
    ]
