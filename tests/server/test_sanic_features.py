"""What Sanic documents works on the proxy's application, or is refused with a sentence."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sanic.exceptions import SanicException
from websockets.exceptions import ConnectionClosed, InvalidStatusCode
from websockets.legacy.client import connect

from sanic_proxy.app import create_app
from sanic_proxy.server.application import ProxyApp
from tests.support import features
from tests.support.features_proxy import running
from tests.support.proxy import Proxy, free_port
from tests.support.settings import provider_settings
from tests.support.upstream import Upstream

FORM = (
    b'--limit\r\ncontent-disposition: form-data; name="a"\r\n\r\none\r\n'
    b'--limit\r\ncontent-disposition: form-data; name="f"; filename="f.txt"\r\n\r\nfile\r\n--limit--\r\n'
)
FORM_TYPE = {"content-type": "multipart/form-data; boundary=limit"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with running(tmp_path_factory.mktemp("plain"), workers=1) as proxy:
        yield proxy
        log = proxy.log
    assert "Task exception was never retrieved" not in log


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream) -> Iterator[Proxy]:
    """With middlewares for everything, in front of a provider."""
    settings = provider_settings(shared_upstream)
    with running(tmp_path_factory.mktemp("served"), "middleware", settings=settings, workers=1) as proxy:
        yield proxy


def within(check: Callable[[], bool], wait_s: float = 20.0) -> None:
    until = time.monotonic() + wait_s
    while not check():
        assert time.monotonic() < until, check
        time.sleep(0.05)


# Requests and responses


def test_a_request_has_all_its_properties(plain: Proxy) -> None:
    headers = {"authorization": "Bearer t", "cookie": "c=1", "x-request-id": "r-1", "x-twice": "1"}
    reply = plain.request("POST", "/inspect/it?q=1", {"j": 1}, headers)
    assert reply.status == 200
    assert reply.json == {
        "args": {"q": ["1"]},
        "cookies": {"c": "1"},
        "ctx": "it",
        "current": True,
        "files": {},
        "form": {},
        "head": "POST /inspect/it?q=1 HTTP/1.1",
        "id": "r-1",
        "ip": "127.0.0.1",
        "json": {"j": 1},
        "match": {"name": "it"},
        "name": "features.inspect",
        "set": "by the handler",
        "token": "t",
        "twice": ["1"],
    }
    assert (reply.headers["x-from"], reply.headers["x-later"]) == ("handler", "yes")
    assert reply.headers["set-cookie"].startswith("flavour=oat")
    assert reply.headers["x-request-id"] == "r-1"


def test_a_form_with_files_is_parsed_for_a_route_that_has_been_added(plain: Proxy) -> None:
    reply = plain.request("POST", "/inspect/it", FORM, FORM_TYPE)
    assert (reply.json["form"], reply.json["files"]) == ({"a": ["one"]}, {"f": "file"})


def test_a_header_that_was_sent_twice_has_two_values(plain: Proxy) -> None:
    received = plain.raw(
        b"POST /inspect/it HTTP/1.1\r\nhost: localhost\r\nx-twice: 1\r\nx-twice: 2\r\nconnection: close\r\n"
        b"content-length: 0\r\n\r\n"
    )
    assert json.loads(received.partition(b"\r\n\r\n")[2])["twice"] == ["1", "2"]


@pytest.mark.parametrize(
    ("path", "status", "body", "header"),
    [
        ("/respond", 200, b"a,b", ("x-parts", "2")),
        ("/sized", 200, b"abcd", ("content-length", "4")),
        ("/file", 200, Path(features.__file__).read_bytes(), ("content-type", "text/x-python")),
        ("/file_stream", 200, Path(features.__file__).read_bytes(), ("content-type", "text/x-python")),
        ("/empty", 204, b"", None),
        ("/redirect", 302, b"", ("location", "/empty")),
        ("/static/features.py", 200, Path(features.__file__).read_bytes(), None),
        ("/static/no.py", 404, b"nowhere", None),
        ("/api/v2/one/route", 404, b"nowhere", None),
        ("/v2/api/one/route", 200, b"grouped", None),
        ("/raise/own", 418, b"own", None),
        ("/nowhere", 404, b"nowhere", None),
        ("/v1/models/none", 404, b"no such model", None),
    ],
)
def test_what_a_handler_returns(
    plain: Proxy, path: str, status: int, body: bytes, header: tuple[str, str] | None
) -> None:
    reply = plain.request("GET", path)
    assert (reply.status, reply.body) == (status, body)
    if header is not None:
        assert reply.headers[header[0]].startswith(header[1])
    assert plain.request("GET", "/health").json == {"status": "ok"}


@pytest.mark.parametrize(("path", "status"), [("/raise/bug", 500), ("/raise/sanic", 409), ("/nothing", 500)])
def test_errors_without_a_handler_are_rendered_in_the_proxys_shape(
    plain: Proxy, path: str, status: int
) -> None:
    reply = plain.request("GET", path)
    assert reply.status == status
    assert "message" in reply.error


def test_a_handler_for_all_exceptions_wins_over_the_proxys(tmp_path: Path) -> None:
    with running(tmp_path, "catch-all") as proxy:
        assert proxy.request("GET", "/raise/bug").body == b"caught"
        assert proxy.request("GET", "/raise/own").body == b"own"
        assert proxy.request("POST", "/v1/chat/completions", {}).body == b"caught"


def test_keep_alive_may_be_off(tmp_path: Path) -> None:
    with running(tmp_path, "no-keep-alive") as proxy:
        assert proxy.request("GET", "/health").headers["connection"] == "close"
        assert proxy.chat("echo/echo").headers["connection"] == "close"


# Bodies


def test_a_streaming_handler_reads_more_than_a_whole_body_may_be(tmp_path: Path) -> None:
    size = 3_000_000
    with running(tmp_path, settings={"SANIC_PROXY_MAX_BODY_BYTES": "1000000"}) as proxy:
        for path in ("/stream", "/iterate"):
            reply = proxy.request("POST", path, b"x" * size)
            assert (reply.status, reply.json["size"]) == (200, size)
            assert reply.json.get("largest", 0) < size
        assert proxy.request("POST", "/inspect/it", b"x" * size).status == 413
        assert proxy.request("POST", "/inspect/it", b"x" * size, FORM_TYPE).status == 413


def test_large_bodies_of_any_type_reach_a_route_that_has_been_added(plain: Proxy) -> None:
    body = json.dumps({"j": "x" * 1_000_000}).encode()
    assert plain.request("POST", "/inspect/it", body).json["json"] == json.loads(body)
    assert plain.request("POST", "/inspect/it", body, {"content-type": "text/plain"}).status == 200


# Middlewares


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/health", None, 200),
        ("GET", "/v1/models", None, 200),
        ("POST", "/v1/chat/completions", {"model": "echo/echo", "messages": [{"role": "user"}]}, 200),
        ("POST", "/v1/chat/completions", {}, 400),
        ("GET", "/nowhere", None, 404),
        ("GET", "/respond", None, 200),
    ],
)
def test_middlewares_run_on_every_answer(
    served: Proxy, method: str, path: str, body: object, status: int
) -> None:
    reply = served.request(method, path, body)
    assert reply.status == status
    assert reply.headers["x-order"] == "first,second"
    assert reply.headers["x-status"] == str(status)
    assert reply.headers["set-cookie"].startswith("seen=1")
    assert "x-request-id" in reply.headers


def test_a_request_middleware_may_answer(served: Proxy) -> None:
    reply = served.request("POST", "/v1/chat/completions", {}, {"x-early": "1"})
    assert (reply.status, reply.body, reply.headers["x-order"]) == (200, b"early", "first,second")


def test_a_changed_request_header_is_what_the_proxy_reads(served: Proxy) -> None:
    body = {"model": "echo", "messages": [{"role": "user", "content": "Hi"}]}
    reply = served.request("POST", "/v1/chat/completions", body, {"x-choose": "echo"})
    assert (reply.status, reply.headers["x-sanic-proxy-provider"]) == (200, "echo")


def test_a_response_middleware_may_replace_the_answer(served: Proxy) -> None:
    reply = served.chat("echo/echo", headers={"x-replace": "1"})
    assert (reply.status, reply.body, reply.headers["x-replaced"]) == (202, b"replaced", "yes")


def test_refused_requests_are_seen_by_response_middlewares_only(tmp_path: Path) -> None:
    with running(tmp_path, "middleware", settings={"SANIC_PROXY_API_KEYS": "secret-of-client"}) as proxy:
        reply = proxy.chat("echo/echo", headers={"x-early": "1"})
        assert (reply.status, reply.headers["x-order"]) == (401, "none")


def test_a_blueprints_middleware_concerns_its_routes_only(plain: Proxy) -> None:
    before = plain.request("GET", "/seen").json.count("blueprint")
    plain.request("GET", "/v2/api/one/route")
    plain.request("GET", "/health")
    assert plain.request("GET", "/seen").json.count("blueprint") == before + 1


# Routing, signals, listeners, tasks


def test_routes_by_host(tmp_path: Path) -> None:
    with running(
        tmp_path, "hosts", settings={"SANIC_PROXY_ALLOWED_HOSTS": "a.localhost,b.localhost"}
    ) as proxy:
        for name in "ab":
            reply = proxy.request("GET", "/host", headers={"host": f"{name}.localhost"})
            assert reply.body == name.encode()
        assert proxy.chat("echo/echo").status == 200


def test_custom_signals_listeners_and_tasks(plain: Proxy) -> None:
    seen = plain.request("GET", "/dispatch").json
    assert seen.index("before_server_start") < seen.index("after_server_start")
    assert "task" in seen
    assert {"tea:3", "low", "waited"} <= set(seen)


def test_routes_and_middlewares_may_be_added_while_the_worker_serves(tmp_path: Path) -> None:
    with running(tmp_path) as proxy:
        assert "x-amended" not in proxy.request("GET", "/health").headers
        assert proxy.request("GET", "/amend").status == 200
        assert proxy.request("GET", "/added").body == b"added"
        assert proxy.request("GET", "/health").headers["x-amended"] == "yes"
        assert proxy.stream("echo/echo")[0].headers["x-amended"] == "yes"


# The worker manager


def pid_of(proxy: Proxy) -> int:
    pid: int = proxy.request("GET", "/worker/pid").json["pid"]
    return pid


def test_a_worker_restarts_itself(tmp_path: Path) -> None:
    with running(tmp_path, workers=1) as proxy:
        before = pid_of(proxy)
        proxy.request("GET", "/worker/restart")
        proxy.wait_for_log("Worker ready", 2)
        assert pid_of(proxy) != before
        assert len(proxy.worker_pids()) == 1
    assert proxy.process.returncode == 0
    assert "Traceback" not in proxy.last_log


def test_all_workers_restart_without_a_gap(tmp_path: Path) -> None:
    with running(tmp_path, workers=2) as proxy:
        before = set(proxy.worker_pids())
        proxy.request("GET", "/worker/restart-all")

        def is_replaced() -> bool:
            assert proxy.request("GET", "/health").status == 200
            pids = set(proxy.worker_pids())
            return len(pids) == 2 and not pids & before

        within(is_replaced)


def test_the_number_of_workers_is_scaled(tmp_path: Path) -> None:
    with running(tmp_path, workers=1) as proxy:
        for number in (3, 1, 2):
            proxy.request("GET", f"/worker/{number}")
            within(lambda number=number: len(proxy.worker_pids()) == number)  # type: ignore[misc]
            assert proxy.request("GET", "/health").status == 200
    assert proxy.process.returncode == 0


def test_a_worker_may_end_the_proxy(tmp_path: Path) -> None:
    with running(tmp_path, workers=1) as proxy:
        proxy.request("GET", "/worker/terminate")
        assert proxy.process.wait(20) == 0
    assert "before_server_stop called" in proxy.last_log


def test_processes_that_sanic_manages_run_as_long_as_the_proxy(tmp_path: Path) -> None:
    with running(tmp_path, "manage", workers=1) as proxy:
        proxy.wait_for_log("early runs")
        proxy.request("GET", "/manage")
        proxy.wait_for_log("late runs")
        assert proxy.request("GET", "/health").status == 200
    assert proxy.process.returncode == 0
    assert proxy.last_log.count(" ends") == 2


# Websockets


def ws_url(proxy: Proxy) -> str:
    return f"ws://127.0.0.1:{proxy.port}/ws?q=1"


def test_a_websocket_speaks_a_subprotocol_and_closes_with_a_code(plain: Proxy) -> None:
    async def talk() -> None:
        async with connect(ws_url(plain), subprotocols=["echo"]) as ws:  # type: ignore[list-item]
            assert await ws.recv() == "echo:1"
            for message in ("a", b"b" * 900):
                await ws.send(message)
                assert await ws.recv() == message
            await ws.send("bye")
            with pytest.raises(ConnectionClosed):
                await ws.recv()
            assert (ws.close_code, ws.close_reason) == (4001, "as you wish")

    asyncio.run(talk())
    assert plain.request("GET", "/health").status == 200


def test_a_message_that_is_too_large_closes_the_websocket(plain: Proxy) -> None:
    async def talk() -> int | None:
        async with connect(ws_url(plain)) as ws:
            await ws.recv()
            await ws.send("x" * 1001)
            with pytest.raises(ConnectionClosed):
                await ws.recv()
            return ws.close_code

    assert asyncio.run(talk()) == 1009


def test_plain_requests_and_foreign_pages_get_no_websocket(plain: Proxy) -> None:
    assert plain.request("GET", "/ws").status == 426
    with pytest.raises(InvalidStatusCode) as refused:
        asyncio.run(_connect(ws_url(plain), origin="https://evil.example"))
    assert refused.value.status_code == 403


async def _connect(url: str, **options: Any) -> None:
    async with connect(url, **options):
        pass


def test_a_websockets_handler_that_fails_closes_with_an_error(plain: Proxy) -> None:
    with pytest.raises(InvalidStatusCode) as refused:
        asyncio.run(_connect(ws_url(plain).replace("/ws", "/nowhere")))
    assert refused.value.status_code == 404


def test_the_drain_closes_websockets(tmp_path: Path) -> None:
    async def talk(proxy: Proxy) -> int | None:
        async with connect(ws_url(proxy)) as ws:
            await ws.recv()
            proxy.terminate()
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(ws.recv(), 20)
            return ws.close_code

    with running(tmp_path, workers=1) as proxy:
        assert asyncio.run(talk(proxy)) == 1001
        assert proxy.process.wait(20) == 0


# What is refused


def test_an_asgi_server_is_refused() -> None:
    app = create_app(ProxyApp, name=f"asgi-{free_port()}")
    with pytest.raises(SanicException, match="ASGI server"):
        asyncio.run(app({"type": "lifespan"}, None, None))


def test_http_3_is_refused() -> None:
    app = create_app(ProxyApp, name=f"http3-{free_port()}")
    with pytest.raises(SanicException, match=r"HTTP/1\.1 only"):
        app.prepare(version=3)


def test_a_pipelined_request_behind_a_websockets_is_not_served(plain: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", plain.port), timeout=5) as client:
        client.sendall(
            b"GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
        )
        received = b""
        while piece := client.recv(65536):
            received += piece
            if b"\x81" in received:
                break
    assert received.startswith(b"HTTP/1.1 101 ")
    assert received.count(b"HTTP/1.1") == 1
