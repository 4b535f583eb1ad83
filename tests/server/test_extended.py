"""Connections of an application with middlewares or signals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import features
from tests.support.features_proxy import running
from tests.support.proxy import Proxy
from tests.support.settings import provider_settings
from tests.support.upstream import Exchange, Upstream, text_stream


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream) -> Iterator[Proxy]:
    """With middlewares for everything, in front of a provider."""
    settings = provider_settings(shared_upstream)
    with running(tmp_path_factory.mktemp("served"), "middleware", settings=settings) as proxy:
        yield proxy


def test_response_middlewares_run_before_the_head_of_a_stream(served: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream(text_stream(*"abcdef"), pause_s=0.01)

    upstream.on("middle", script)
    reply, frames = served.stream("groq/middle")
    assert reply.headers["x-order"] == "first,second"
    assert reply.headers["x-type"].startswith("text/event-stream")
    assert frames == [*text_stream(*"abcdef")]
    reply, frames = served.stream("groq/middle", headers={"x-replace": "1"})
    assert (reply.status, reply.headers["x-replaced"]) == (202, "yes")
    assert frames[-1] == b"data: [DONE]\n\n"


def test_a_failed_stream_keeps_its_status_with_middlewares(served: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer({"error": {"message": "no"}}, status=400)

    upstream.on("middle-fails", script)
    reply = served.chat("groq/middle-fails", stream=True)
    assert (reply.status, reply.headers["x-status"]) == (400, "400")


def test_the_signals_of_http_are_dispatched(tmp_path: Path) -> None:
    with running(tmp_path, "signals") as proxy:
        assert proxy.chat("echo/echo").status == 200
        proxy.request("GET", "/raise/bug")
        proxy.stream("echo/echo")
        seen = proxy.request("GET", "/seen").json
    assert set(features.HTTP_SIGNALS) <= set(seen)
    chat = seen[seen.index("http.lifecycle.read_head") :]
    expected = [name for name in features.HTTP_SIGNALS if name.startswith("http.")]
    order = [name for name in dict.fromkeys(chat) if name in expected]
    inner = expected[1 : expected.index("http.lifecycle.response") + 1]
    assert [name for name in order if name in inner] == inner
    assert "/v1/chat/completions" in chat


def test_a_long_stream_arrives_in_order_behind_a_slow_middleware(served: Proxy, upstream: Upstream) -> None:
    words = [str(number) * 100 for number in range(1000)]  # more than is held back meanwhile

    async def script(exchange: Exchange) -> None:
        await exchange.stream(text_stream(*words))

    upstream.on("middle-long", script)
    for _ in range(3):
        reply, frames = served.stream("groq/middle-long")
        assert frames == text_stream(*words)
        assert reply.headers["x-status"] == "200"
