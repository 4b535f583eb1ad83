"""The client to the providers, opened for one piece of work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sanic_proxy import errors
from sanic_proxy.config.model import PoolLimits, Timeouts
from sanic_proxy.upstream.client import Endpoint, UpstreamClient

CLOCKS = Timeouts(connect_s=1, first_byte_s=1, idle_s=1, total_s=3)


LIMITS = PoolLimits(idle_per_host=2, idle_timeout_s=15, tcp_keepalive_s=90)


@asynccontextmanager
async def opened(limits: PoolLimits = LIMITS, cafile: str | None = None) -> AsyncIterator[UpstreamClient]:
    client = UpstreamClient(limits, cafile)
    try:
        yield client
    finally:
        await client.aclose()


def get(url: str, **changes: Any) -> Endpoint:
    fields: dict[str, Any] = {
        "method": "GET",
        "url": url,
        "headers": {"accept-encoding": "identity"},
    }
    return Endpoint(**{**fields, "timeouts": CLOCKS, **changes})


def run(work: Callable[[UpstreamClient], Awaitable[Any]], cafile: str | None = None) -> Any:
    async def opened_run() -> Any:
        async with opened(cafile=cafile) as client:
            return await work(client)

    return asyncio.run(opened_run())


def failure(request: Endpoint, cafile: str | None = None) -> errors.ProxyError:
    with pytest.raises(errors.ProxyError) as caught:
        run(lambda client: client.send(request), cafile)
    return caught.value


async def body_of(client: UpstreamClient, request: Endpoint, limit_bytes: int = 1000) -> bytes:
    response = await client.send(request)
    try:
        return await response.read_all(limit_bytes)
    finally:
        response.close()
