"""Clients that leave while nothing is read from their connections."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import ExitStack, suppress

import pytest

from sanic_proxy.server.disconnects import DisconnectWatch
from tests.support.load import wait_until
from tests.support.proxy import Proxy, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import Exchange, Upstream, frame

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
FORM = (
    b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\ngroq/m\r\n'
    b'--x\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n'
)
RESET = struct.pack("ii", 1, 0)


async def watched(do: str) -> tuple[bool, int]:
    """Whether a watch calls back after `do`, behind unread bytes; descriptors left over."""
    before = len(os.listdir("/proc/self/fd"))
    ours, peer = socket.socketpair()
    called = asyncio.Event()
    watch = DisconnectWatch(asyncio.get_running_loop(), ours, called.set)
    with ours, peer:
        peer.sendall(b"unread")
        if do == "close":
            peer.close()
        elif do == "half-close":
            peer.shutdown(socket.SHUT_WR)
        with suppress(TimeoutError):
            await asyncio.wait_for(called.wait(), 0.1 if do == "send" else 5)
        watch.close()
        watch.close()
    return called.is_set(), len(os.listdir("/proc/self/fd")) - before


@pytest.mark.parametrize(("do", "is_called"), [("close", True), ("half-close", True), ("send", False)])
def test_a_watch_reports_the_peers_end_only(do: str, is_called: bool) -> None:
    assert asyncio.run(watched(do)) == (is_called, 0)


def test_without_a_socket_nothing_is_watched() -> None:
    async def run() -> None:
        DisconnectWatch(asyncio.get_running_loop(), None, list).close()
        closed = socket.socket()
        closed.close()
        DisconnectWatch(asyncio.get_running_loop(), closed, list).close()

    asyncio.run(run())


def leave(client: socket.socket, how: str) -> None:
    if how == "rst":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()


@pytest.fixture
def waiting(upstream: Upstream) -> Upstream:
    """An upstream that waits, without an answer, until the proxy leaves, and notes it."""

    async def script(exchange: Exchange) -> None:
        if exchange.seen.json.get("stream"):
            await exchange.begin_stream()
            await exchange.chunk(frame({"content": "a"}))
        await exchange.client_leaves()
        upstream.left.append("held")

    upstream.left.clear()
    upstream.on("held", script)
    return upstream


BEHIND = {
    "nothing": b"",
    "40 requests": HEALTH * 40,
    "4000 requests": HEALTH * 4000,
    "a body": HEAD + b"content-length: 1000000\r\n\r\n" + b"x" * 500_000,
}


@pytest.mark.row(39, 40)
@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("is_streaming", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("behind", BEHIND)
def test_a_disconnect_is_noticed_behind_unread_bytes(
    proxy: Proxy, waiting: Upstream, behind: str, is_streaming: bool, how: str
) -> None:
    flag = b"true" if is_streaming else b"false"
    body = b'{"model":"groq/held","stream":%b,"messages":[{"role":"user","content":"x"}]}' % flag
    earlier = len(waiting.requests)
    with ExitStack() as stack:
        client = stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port), timeout=60))
        client.sendall(HEAD + b"content-length: %d\r\n\r\n%b" % (len(body), body))
        wait_until(lambda: len(waiting.requests) > earlier)
        client.sendall(BEHIND[behind])
        leave(client, how)
    # Without the watch: the time of the pings, or of the whole request.
    wait_until(lambda: waiting.left == ["held"])


@pytest.mark.row(39)
def test_leaving_in_an_upload_that_its_provider_does_not_read_is_seen(upstream: Upstream) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        settings = {
            **provider_settings(upstream),
            "GROQ_BASE_URL": f"http://127.0.0.1:{deaf.getsockname()[1]}/v1",
        }
        head = (
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: localhost\r\nx-request-id: upload\r\n"
            b"content-type: multipart/form-data; boundary=x\r\ncontent-length: 100000000\r\n\r\n"
        )
        with running_proxy(settings) as proxy:
            client = socket.create_connection(("127.0.0.1", proxy.port), timeout=60)
            client.sendall(head + FORM)
            client.settimeout(1)  # until the buffers are full
            with pytest.raises(TimeoutError):
                client.sendall(b"x" * 90_000_000)
            leave(client, "rst")  # a FIN would wait behind the bytes for which the window has no room
            assert "ended=client_left" in proxy.log_line("upload")
