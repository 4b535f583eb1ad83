"""What several workers of a running proxy share: probes and limits."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sanic_proxy.routing.breaker import OPEN_S, PAUSE_JITTER
from tests.support.load import wait_until
from tests.support.proxy import Proxy, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import Exchange, Upstream, completion

WORKERS = 2


async def fails(exchange: Exchange) -> None:
    await exchange.answer({"error": {"message": "no"}}, 500)


async def answers(exchange: Exchange) -> None:
    await exchange.answer(completion())


TOML = """
[models.requests]
max_wait = 0
targets = [{ provider = "groq", model = "m", rpm = 7 }]

[models.held]
max_wait = 0
targets = [{ provider = "groq", model = "held", concurrent = 1 }]

[models.queued]
max_wait = 100
targets = [{ provider = "groq", model = "queued", concurrent = 1 }]
"""


@pytest.fixture(scope="module")
def proxy(shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    config = tmp_path_factory.mktemp("limits") / "proxy.toml"
    config.write_text(TOML)
    settings = {
        **provider_settings(shared_upstream),
        "SANIC_PROXY_BREAKER": "on",
        "SANIC_PROXY_CONFIG": str(config),
    }
    with running_proxy(settings, "--workers", str(WORKERS)) as started:
        yield started


def test_one_worker_probes_for_all(proxy: Proxy, upstream: Upstream) -> None:
    def statuses(count: int) -> set[int]:
        return {proxy.chat("groq/probed").status for _ in range(count)}

    upstream.on("probed", fails)
    wait_until(lambda: statuses(8 * WORKERS) == {503})  # all circuits are open
    before = len(upstream.seen("probed"))
    wait_until(lambda: statuses(1) != {503})  # the first probe, which fails
    since = time.monotonic()
    statuses(8 * WORKERS)
    pauses = (time.monotonic() - since) // (2 * OPEN_S * (1 - PAUSE_JITTER))
    assert len(upstream.seen("probed")) - before <= 1 + pauses
    upstream.on("probed", answers)
    wait_until(lambda: statuses(4 * WORKERS) == {200})


def test_requests_per_minute_are_exact_over_all_workers(proxy: Proxy, upstream: Upstream) -> None:
    upstream.on("m", answers)
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        statuses = Counter(pool.map(lambda _: proxy.chat("requests").status, range(40)))
    assert set(statuses) == {200, 429}
    minutes = 1 + (time.monotonic() - began) // 60
    assert statuses[200] == len(upstream.seen("m"))
    assert 7 <= statuses[200] <= 7 * minutes


def test_requests_of_all_workers_wait_for_the_one_place(proxy: Proxy, upstream: Upstream) -> None:
    under_way, most = 0, 0

    async def counted(exchange: Exchange) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.05)
        under_way -= 1
        await exchange.answer(completion())

    upstream.on("queued", counted)
    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(lambda _: proxy.chat("queued"), range(24)))
    assert {reply.status for reply in replies} == {200}
    assert most == 1
    waited = [proxy.log_line(reply.headers["x-request-id"]) for reply in replies]
    assert sum("waited_ms=" in line for line in waited) > len(replies) // 2


@pytest.mark.row(62)
def test_what_a_killed_worker_had_in_flight_is_not_counted(proxy: Proxy, upstream: Upstream) -> None:
    may_end, has_arrived = threading.Event(), threading.Event()

    async def held(exchange: Exchange) -> None:
        has_arrived.set()
        await asyncio.to_thread(may_end.wait)
        await exchange.answer(completion())

    upstream.on("held", held)
    client = proxy.open_stream("held")
    try:
        assert has_arrived.wait(60)
        refused = [proxy.chat("held").status for _ in range(2 * WORKERS)]
        assert set(refused) == {429}
        upstream.on("held", answers)
        for pid in proxy.worker_pids():
            os.kill(pid, signal.SIGKILL)
        proxy.wait_for_log("Worker ready", 2 * WORKERS)
        wait_until(lambda: served(proxy, "held"))
    finally:
        may_end.set()
        client.close()


def served(proxy: Proxy, model: str) -> bool:
    try:
        return proxy.chat(model).status == 200
    except OSError:
        return False  # while no worker listens
