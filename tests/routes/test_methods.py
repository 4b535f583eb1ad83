"""The methods of all routes."""

from __future__ import annotations

import pytest

from sanic_proxy.app import app
from tests.support.proxy import Proxy
from tests.support.upstream import Exchange, Upstream

READABLE = sorted({f"/{route.path}" for route in app.router.routes if "GET" in route.methods})
CLOSE = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


def test_every_route_with_get_has_head() -> None:
    assert "/v1/models" in READABLE
    lacking = [
        route.path for route in app.router.routes if "GET" in route.methods and "HEAD" not in route.methods
    ]
    assert lacking == []


# Not: paths with an id, files, and the routes for administrators, whose 404 names the method.
OTHERS = ("<", "files", "admin", "key/", "spend/", "metrics", "model/info", "/ui")


@pytest.mark.parametrize("path", [path for path in READABLE if not any(part in path for part in OTHERS)])
def test_head_is_answered_as_get_without_the_body(proxy: Proxy, path: str) -> None:
    whole = proxy.request("GET", path, headers={"x-provider": "groq"})
    head = proxy.request("HEAD", path, headers={"x-provider": "groq"})
    assert (head.status, head.body) == (whole.status, b"")
    for name in ("content-type", "content-length"):
        assert head.headers[name] == whole.headers[name]


@pytest.mark.parametrize("kind", ["application/octet-stream", "text/event-stream", "application/json"])
@pytest.mark.parametrize("length", [11, None])
def test_head_of_a_file_has_its_length_and_leaves_the_connection_usable(
    proxy: Proxy, upstream: Upstream, kind: str, length: int | None
) -> None:
    async def script(exchange: Exchange) -> None:
        framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
        body = b"b\r\nHello there\r\n0\r\n\r\n" if length is None else b"Hello there"
        await exchange.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n%b\r\n\r\n%b" % (kind.encode(), framing, body)
        )

    upstream.on("GET /openai/v1/files/f/content", script)
    head = b"HEAD /v1/files/f/content?provider=groq HTTP/1.1\r\nhost: localhost\r\n\r\n"
    received = proxy.raw(head + CLOSE)
    first, second = received.split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"200 ")
    assert first.endswith(b"\r\n\r\n")
    assert (b"content-length: 11\r\n" in first) is (length is not None)
    assert second.endswith(b'{"status":"ok"}')
