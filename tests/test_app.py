"""The application: what importing it does, its workers, its end."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sanic_proxy.app import create_app, open_state
from sanic_proxy.server.application import ProxyApp
from sanic_proxy.state import state_of
from tests.support.load import wait_until
from tests.support.proxy import clean_environment, free_port, running_proxy, start_proxy, wait_until_ready
from tests.support.settings import provider_settings
from tests.support.upstream import DONE, Exchange, Upstream, frame, text_stream

BODY = {"model": "echo/echo", "messages": [{"role": "user", "content": "Hello there"}]}


def python(code: str, directory: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=directory,
        env=clean_environment(settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_importing_the_app_reads_no_source_of_its_routes(tmp_path: Path) -> None:
    """Sanic would parse each handler's, which took a third of the time that a process needs to start."""
    done = python("import linecache, sanic_proxy.app; print([*linecache.cache])", tmp_path)
    assert done.returncode == 0
    assert "sanic_proxy" not in done.stdout


def test_importing_the_app_opens_and_reads_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys; before = set(os.listdir('/proc/self/fd')); import sanic_proxy.app as a\n"
        "print(len(set(os.listdir('/proc/self/fd')) - before), end=' ')\n"
        "print('PROXY_API_KEYS' in a.app.config, hasattr(a.app.ctx, 'state'))\n"
        "print([k for k, v in a.app.config.items() if 'canary' in str(v)])"
    )
    keys = {"SANIC_PROXY_API_KEYS": "canary", "SANIC_PROXY_PORT": "not a port", "GROQ_API_KEY": "canary"}
    done = python(code, tmp_path, **keys)
    assert done.stdout.split("\n")[:2] == ["0 False False", "[]"]


def test_two_workers_serve_from_any_directory() -> None:
    with running_proxy({}, "--workers", "2") as proxy:
        reply = proxy.request("POST", "/v1/chat/completions", BODY)
        assert reply.json["choices"][0]["message"]["content"] == "Hello there"
        log = proxy.log
        assert log.count("Worker ready") == 2
        assert "providers on: echo" in log
        assert "more are off; `sanic-proxy check` lists them" in log
        assert log.count("providers on") == 1
    assert "Traceback" not in proxy.log
    assert proxy.process.returncode == 0


@pytest.mark.parametrize("arguments", [["--workers", "2"], ["--single-process"]])
def test_wrong_settings_end_the_start_with_all_problems(tmp_path: Path, arguments: list[str]) -> None:
    settings = {
        "SANIC_PROXY_TIMEOUT_IDLE": "never",
        "SANIC_PROXY_ROUTER": "maybe",
        "GROQ_API_KEY": "canary key",
    }
    proxy = start_proxy(tmp_path, settings, *arguments)
    assert proxy.process.wait(60) == 1
    lines = proxy.log.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("sanic-proxy: ") for line in lines)
    assert "canary" not in proxy.log


def test_an_open_proxy_refuses_to_leave_loopback(tmp_path: Path) -> None:
    proxy = start_proxy(tmp_path, {}, "--host=0.0.0.0", "--single-process")
    assert proxy.process.wait(60) == 1
    assert "SANIC_PROXY_ALLOW_OPEN" in proxy.log


def test_dotenv_of_the_directory_counts(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SANIC_PROXY_ROUTER=maybe\n")
    assert start_proxy(tmp_path, {}, "--single-process").process.wait(60) == 1


@pytest.mark.row(64)
def test_a_stream_in_flight_is_finished_when_the_proxy_stops(upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream(text_stream(*"abcdefgh"), pause_s=0.1)

    upstream.on("drains", script)
    with (
        running_proxy(provider_settings(upstream), "--workers", "1") as proxy,
        proxy.open_stream("groq/drains") as client,
    ):
        received = client.recv(65536)
        proxy.terminate()
        while piece := client.recv(65536):
            received += piece
        assert proxy.process.wait(60) == 0
    assert received.endswith(b"%x\r\n%b\r\n0\r\n\r\n" % (len(DONE), DONE))
    assert "ended=complete" in proxy.log
    assert "Traceback" not in proxy.log, proxy.log


OBSERVED_APP = """
from pathlib import Path

from sanic_proxy.app import app
from sanic_proxy.state import state_of


def fails(record):
    raise ZeroDivisionError


def note(record):
    with Path("ends.txt").open("a") as file:
        print(record.request_id, record.ended, record.client.name, sep=",", file=file)


@app.after_server_start
async def observe(app):
    state_of(app).observers += (fails, note)
"""


CLIENT_KEY = "a-canary-of-a-client"


def script_ends(upstream: Upstream) -> None:
    async def refused(exchange: Exchange) -> None:
        await exchange.answer({"error": {"message": "no"}}, 500)

    async def broken(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(b"".join(text_stream("a")[:2]))
        exchange.close()

    async def endless(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(b"".join(text_stream("a")[:2]))
        await exchange.client_leaves()

    upstream.on("refused", refused)
    upstream.on("broken", broken)
    upstream.on("endless", endless)


def chat(request_id: str, model: str, *, is_streaming: bool = False, key: str = CLIENT_KEY) -> bytes:
    body = json.dumps({**BODY, "model": model, "stream": is_streaming}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n"
        f"x-request-id: {request_id}\r\ncontent-length: {len(body)}\r\n"
        "content-type: application/json\r\n\r\n"
    )
    return head.encode() + body


def connected_until(port: int, data: bytes, until: bytes) -> socket.socket:
    """A connection that has sent `data` and received `until`."""
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall(data)
    received = b""
    while until not in received:
        piece = client.recv(65536)
        assert piece, received
        received += piece
    return client


def test_observers_see_every_request_end_exactly_once(upstream: Upstream, tmp_path: Path) -> None:
    script_ends(upstream)
    (tmp_path / "observed.py").write_text(OBSERVED_APP)
    settings = {
        **provider_settings(upstream),
        "SANIC_PROXY_API_KEYS": CLIENT_KEY,
        "SANIC_PROXY_DRAIN_SECONDS": "0.1",
    }
    proxy = start_proxy(tmp_path, settings, "--single-process", module="observed.app")

    def ends() -> list[list[str]]:
        path = tmp_path / "ends.txt"
        return [line.split(",") for line in path.read_text().splitlines()] if path.exists() else []

    try:
        wait_until_ready(proxy)
        for data, until in (
            (chat("whole", "echo/echo"), b"chat.completion"),
            (chat("streamed", "echo/echo", is_streaming=True), b"[DONE]"),
            (chat("refused", "groq/refused"), b"HTTP/1.1 502"),
            (chat("broken", "groq/broken", is_streaming=True), b'"error"'),
            (chat("stranger", "echo/echo", key="b"), b"HTTP/1.1 401"),
            (b"GET / HTTP/9.9\r\n\r\n", b"HTTP/1.1 400"),
            (chat("left", "groq/endless", is_streaming=True), b"data: "),
        ):
            connected_until(proxy.port, data, until).close()
        wait_until(lambda: any(end[0] == "left" for end in ends()))
        with connected_until(proxy.port, chat("cut", "groq/endless", is_streaming=True), b"data: "):
            proxy.stop()
    finally:
        proxy.stop()
    unreadable = next(request_id for request_id, ended, _ in ends() if ended == "bad_request")
    assert sorted((request_id, ended) for request_id, ended, _ in ends()) == sorted(
        [
            ("whole", "complete"),
            ("streamed", "complete"),
            ("refused", "upstream_error"),
            ("broken", "upstream_disconnected"),
            ("stranger", "invalid_api_key"),
            (unreadable, "bad_request"),
            ("left", "client_left"),
            ("cut", "server_shutting_down"),
        ]
    )
    names = {request_id: name for request_id, _, name in ends()}
    assert names.pop("stranger") == names.pop(unreadable) == ""
    assert len(set(names.values()) - {""}) == 1
    assert f"client={names['whole']}" in proxy.log_line("whole")
    assert CLIENT_KEY not in proxy.log


# In this process, with pytest-sanic's client


class App(ProxyApp):
    """pytest-sanic sets attributes on the app, which Sanic allows only where they are declared."""

    __slots__ = ("is_running",)


@pytest.fixture
def app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: asyncio.AbstractEventLoop
) -> Iterator[ProxyApp]:
    for name in list(os.environ):
        if name not in clean_environment({}):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SANIC_WORKER_NAME", "test")
    monkeypatch.chdir(tmp_path)
    App.test_mode = True
    yield create_app(App, name=f"test-{free_port()}")
    # pytest-sanic's client cancels the tasks of its connections and does not wait for their ends.
    loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(loop), return_exceptions=True))


async def started(app: ProxyApp, sanic_client: Any) -> Any:
    """A client of `app`, which serves; pytest-sanic knows no listeners of this Sanic."""
    await app._startup()  # type: ignore[no-untyped-call]
    await open_state(app)
    return await sanic_client(app)


async def test_a_worker_holds_one_state(
    app: ProxyApp, sanic_client: Any, loop: asyncio.AbstractEventLoop
) -> None:
    client = await started(app, sanic_client)
    reply = await client.post("/v1/chat/completions", content=json.dumps(BODY))
    assert reply.status_code == 200
    assert not state_of(app).traffic.requests
    assert list(state_of(app).providers) == ["echo"]


async def test_readiness_lists_what_is_not_ready(
    app: ProxyApp, sanic_client: Any, loop: asyncio.AbstractEventLoop
) -> None:
    client = await started(app, sanic_client)
    state_of(app).traffic.drain()
    reply = await client.get("/health/readiness")
    assert (reply.status_code, reply.json()["not_ready"]) == (503, ["draining"])
    assert (await client.get("/health")).status_code == 200


async def test_a_bug_in_a_handler_is_a_500_with_a_request_id(
    app: ProxyApp, sanic_client: Any, loop: asyncio.AbstractEventLoop
) -> None:
    async def broken(request: object) -> None:
        raise ZeroDivisionError("secret")

    app.add_route(broken, "/broken")
    client = await started(app, sanic_client)
    reply = await client.get("/broken", headers={"x-request-id": "bug-1"})
    assert (reply.status_code, reply.headers["x-request-id"]) == (500, "bug-1")
    assert reply.json()["error"]["type"] == "server_error"
    assert "secret" not in reply.text


@pytest.mark.row(61)
async def test_a_bug_after_the_answer_began_is_no_clean_end(
    app: ProxyApp, sanic_client: Any, loop: asyncio.AbstractEventLoop
) -> None:
    async def broken(request: Any) -> None:
        response = await request.respond(content_type="text/event-stream")
        await response.send(frame({"content": "a"}))
        raise ZeroDivisionError

    app.add_route(broken, "/broken")
    client = await started(app, sanic_client)
    with pytest.raises(Exception, match=r"peer closed connection|disconnected|incomplete|Reset"):
        await client.get("/broken")


@pytest.mark.row(40)
def test_300_clients_that_leave_at_once_leave_nothing_behind(upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(frame({"content": "a"}))
        await exchange.client_leaves()

    upstream.on("storm", script)
    with running_proxy(provider_settings(upstream)) as proxy:
        before = upstream.open_connections
        clients: list[socket.socket] = [proxy.open_stream("groq/storm") for _ in range(300)]
        for client in clients:
            client.recv(65536)
        for client in clients:
            client.close()
        wait_until(lambda: upstream.open_connections <= before)
        assert proxy.request("GET", "/health").status == 200
        descriptors = len(os.listdir(f"/proc/{proxy.process.pid}/fd"))
        assert descriptors < 60
