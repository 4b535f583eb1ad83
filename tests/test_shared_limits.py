"""What several workers of a running proxy share: probes and limits."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from sanic_proxy.routing.breaker import OPEN_S, PAUSE_JITTER
from tests.support.load import wait_until
from tests.support.proxy import Proxy, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import Exchange, Upstream, completion

WORKERS = 3


async def fails(exchange: Exchange) -> None:
    await exchange.answer({"error": {"message": "no"}}, 500)


async def answers(exchange: Exchange) -> None:
    await exchange.answer(completion())


@pytest.fixture
def proxy(shared_upstream: Upstream, upstream: Upstream) -> Iterator[Proxy]:
    settings = {**provider_settings(shared_upstream), "SANIC_PROXY_BREAKER": "on"}
    with running_proxy(settings, "--workers", str(WORKERS)) as started:
        yield started


def test_one_worker_probes_for_all(proxy: Proxy, upstream: Upstream) -> None:
    def statuses(count: int) -> set[int]:
        return {proxy.chat("groq/m").status for _ in range(count)}

    upstream.on("m", fails)
    wait_until(lambda: statuses(8 * WORKERS) == {503})  # all circuits are open
    before = len(upstream.seen("m"))
    wait_until(lambda: statuses(1) != {503})  # the first probe, which fails
    since = time.monotonic()
    statuses(8 * WORKERS)
    pauses = (time.monotonic() - since) // (2 * OPEN_S * (1 - PAUSE_JITTER))
    assert len(upstream.seen("m")) - before <= 1 + pauses
    upstream.on("m", answers)
    wait_until(lambda: statuses(4 * WORKERS) == {200})
