"""The seam of dialects, shown with a second one (`tiny`) on a real proxy."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from sanic_proxy.dialects.base import dialect_of, register
from sanic_proxy.dialects.chat import CHAT, ChatDialect
from tests.support.proxy import Proxy, Reply, start_proxy, wait_until_ready
from tests.support.settings import provider_settings
from tests.support.upstream import Exchange, Upstream, completion, frame, straico_completion, text_stream

PATH = "/v1/tiny"
PING, OPENING, END = (b"event: %b\ndata: null\n\n" % name for name in (b"ping", b"opening", b"end"))
A, B = (b'event: word\ndata: "%b"\n\n' % word for word in (b"a", b"b"))


@pytest.fixture(scope="module")
def tiny_proxy(shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    settings = {
        **provider_settings(shared_upstream),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "SANIC_PROXY_HEARTBEAT_INTERVAL": "0.1",
        "SANIC_PROXY_STREAM_COMMIT_DELAY": "0.2",
    }
    directory = tmp_path_factory.mktemp("tiny")
    proxy = start_proxy(directory, settings, "--single-process", module="tests.dialects.tiny:app")
    try:
        wait_until_ready(proxy)
        yield proxy
    finally:
        proxy.stop()
    assert "Traceback" not in proxy.log


def send(proxy: Proxy, to: str, *, live: bool = False) -> Reply:
    return proxy.request("POST", PATH, {"to": to, "text": "Hi", "live": live})


def test_a_whole_answer_and_the_request_are_translated(tiny_proxy: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(completion("Hello"))

    upstream.on("tiny", script)
    assert send(tiny_proxy, "groq/tiny").json == {"reply": "Hello"}
    assert upstream.seen("tiny")[0].json["messages"] == [{"role": "user", "content": "Hi"}]


def test_errors_before_an_answer_have_the_dialects_shape(tiny_proxy: Proxy) -> None:
    unknown = send(tiny_proxy, "nobody/model", live=True)
    assert (unknown.status, unknown.json) == (404, {"failed": "model_not_found"})
    assert tiny_proxy.request("POST", PATH, b"no json").json == {"failed": "invalid_request_error"}
    elsewhere = tiny_proxy.request("POST", "/v1/chat/completions", b"no json")
    assert elsewhere.error["type"] == "invalid_request_error"


def test_a_stream_is_translated_frame_by_frame(tiny_proxy: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream(text_stream("a", "b"))

    upstream.on("tiny", script)
    assert send(tiny_proxy, "groq/tiny", live=True).body == OPENING + A + B + END


def test_pings_have_the_dialects_shape_before_and_after_the_first_content(
    tiny_proxy: Proxy, upstream: Upstream
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await asyncio.sleep(0.6)
        for piece in text_stream("a", "b")[:2]:
            await exchange.chunk(piece)
        await asyncio.sleep(0.6)
        for piece in text_stream("b")[1:]:
            await exchange.chunk(piece)
        await exchange.end_stream()

    upstream.on("tiny", script)
    before, _, after = send(tiny_proxy, "groq/tiny", live=True).body.partition(OPENING + A)
    assert before == PING * before.count(PING) != b""
    assert after.replace(PING, b"") == B + END
    assert after.startswith(PING)


def test_an_emulated_stream_is_translated_behind_its_heartbeats(
    tiny_proxy: Proxy, upstream: Upstream
) -> None:
    async def script(exchange: Exchange) -> None:
        await asyncio.sleep(0.6)
        await exchange.answer(straico_completion("a"))

    upstream.on("tiny", script)
    body = send(tiny_proxy, "straico/tiny", live=True).body
    assert body.startswith(PING)
    assert body.replace(PING, b"") == OPENING + A + END


def test_a_failure_behind_the_first_content_is_the_dialects_event(
    tiny_proxy: Proxy, upstream: Upstream
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(b"".join(text_stream("a")[:2]) + frame({}))
        exchange.close()

    upstream.on("tiny", script)
    body = send(tiny_proxy, "groq/tiny", live=True).body
    assert body == OPENING + A + b'event: failed\ndata: "upstream_disconnected"\n\n'


def test_a_path_has_one_dialect() -> None:
    other = register(ChatDialect(), "/v1/of-the-test")
    assert dialect_of("/v1/of-the-test/", CHAT) is other
    assert dialect_of("/v1/other", CHAT) is CHAT
    with pytest.raises(ValueError, match="/v1/of-the-test belongs to the dialect 'chat'"):
        register(ChatDialect(), "/v1/of-the-test")
