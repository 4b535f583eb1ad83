"""Requests to a provider through an outbound proxy."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from sanic_proxy import errors
from sanic_proxy.config.secret import Secret
from tests.support.proxy import free_port
from tests.support.upstream import Exchange, Upstream
from tests.support.upstream_client import body_of, failure, get, run


def test_an_outbound_proxy_gets_the_address(upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(b"through")

    upstream.on("GET http://lab.invalid/x", script)
    endpoint = get("http://lab.invalid/x", proxy=Secret(upstream.url))
    assert run(lambda client: body_of(client, endpoint)) == b"through"


def test_a_proxy_that_is_not_there_is_a_connect_error() -> None:
    endpoint = get("http://lab.invalid/x", proxy=Secret(f"http://127.0.0.1:{free_port()}"))
    assert type(failure(endpoint)) is errors.UpstreamConnectFailed


def test_silence_behind_a_proxy_is_a_timeout(upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.client_leaves()

    upstream.on("GET http://lab.invalid/silent", script)
    endpoint = get("http://lab.invalid/silent", proxy=Secret(upstream.url))
    assert type(failure(endpoint)) is errors.UpstreamTimeout


def test_an_answer_cut_behind_a_proxy_is_a_disconnect(upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab")
        await asyncio.sleep(0.05)
        exchange.close()

    upstream.on("GET http://lab.invalid/cut", script)
    endpoint = get("http://lab.invalid/cut", proxy=Secret(upstream.url))
    with pytest.raises(errors.UpstreamDisconnected):
        run(lambda client: body_of(client, endpoint))


@pytest.mark.parametrize("answer", [b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"])
def test_an_answer_behind_a_proxy_that_is_not_http_is_a_bad_response(
    upstream: Upstream, answer: bytes
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(answer)
        exchange.close()

    upstream.on("GET http://lab.invalid/garbage", script)
    endpoint = get("http://lab.invalid/garbage", proxy=Secret(upstream.url))
    assert type(failure(endpoint)) is errors.UpstreamBadResponse


def test_aiohttp_is_loaded_only_where_it_is_needed() -> None:
    code = "import sys, sanic_proxy.app; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
