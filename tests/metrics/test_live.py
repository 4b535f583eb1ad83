"""What a worker writes of ended requests into the ring, and in how many steps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise

import pytest

from sanic_proxy.metrics.live import PACKED, Live
from sanic_proxy.metrics.recent import RecentCounts
from sanic_proxy.observability.in_flight import Traffic
from sanic_proxy.observability.record import RequestRecord

REQUESTS = 3 * PACKED + 1


@pytest.fixture
def live() -> Iterator[Live]:
    made = Live(is_shown=lambda _: True)
    for number in range(REQUESTS):
        record = RequestRecord(f"id{number}", "POST", "/v1/chat/completions", started=100.0)
        record.ended, record.finished = "complete", 100.1
        made.observer(record)
    yield made
    made.close()


def written(live: Live) -> int:
    return sum(1 for _ in live.ring.after(0))


def test_ended_requests_are_packed_in_steps(live: Live) -> None:
    counts = [written(live) for _ in live.flushes()]
    assert counts == [PACKED, 2 * PACKED, 3 * PACKED]
    assert written(live) == REQUESTS
    assert not live.flush()


def test_a_turn_of_the_event_loop_packs_few_requests(live: Live) -> None:
    async def scenario() -> list[int]:
        live.beat(Traffic(), 0, 0.0, RecentCounts(), list)
        counts = [written(live)]
        while counts[-1] < REQUESTS:
            await asyncio.sleep(0)
            counts.append(written(live))
        return counts

    counts = asyncio.run(scenario())
    assert counts[0] == PACKED
    assert all(after - before <= PACKED for before, after in pairwise(counts))
