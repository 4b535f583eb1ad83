"""The life of a worker: it stops in good order, and reads its settings again."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sanic_proxy.config.loader import load
from sanic_proxy.server.worker import read_again
from tests.support.load import GENEROUS_S, Load, wait_until
from tests.support.proxy import Proxy, running_proxy, start_proxy, wait_until_ready
from tests.support.settings import provider_settings
from tests.support.upstream import DONE, Exchange, Upstream, completion, frame, text_stream

BOTH_MODES = pytest.mark.parametrize(
    "mode", [["--workers", "1"], ["--single-process"]], ids=["workers", "single"]
)
CUT = b'"code":"server_shutting_down"'


async def answer(exchange: Exchange) -> None:
    """A whole answer, or a stream of a second and a half."""
    if exchange.seen.json.get("stream"):
        await exchange.stream(text_stream(*map(str, range(20))), pause_s=0.07)
    else:
        await exchange.answer(completion())


async def never(exchange: Exchange) -> None:
    """A stream without end, or nothing at all."""
    if exchange.seen.json.get("stream"):
        await exchange.begin_stream()
        await exchange.chunk(frame({"content": "a"}))
    await exchange.client_leaves()


@contextmanager
def draining(
    upstream: Upstream, mode: list[str], *, lame_duck_s: float = 0, drain_s: float = 20
) -> Iterator[Proxy]:
    upstream.on("answers", answer)
    upstream.on("never", never)
    settings = {
        **provider_settings(upstream),
        "SANIC_PROXY_LAME_DUCK_SECONDS": str(lame_duck_s),
        "SANIC_PROXY_DRAIN_SECONDS": str(drain_s),
    }
    with running_proxy(settings, *mode) as proxy:
        yield proxy


def ended(proxy: Proxy) -> int:
    """Its exit code: far sooner than in the 60 s that some of its clocks are set to."""
    return proxy.process.wait(GENEROUS_S / 2)


def read_to_end(client: socket.socket) -> bytes:
    received = b""
    while piece := client.recv(65536):
        received += piece
    return received


def is_refused(proxy: Proxy) -> bool:
    try:
        socket.create_connection(("127.0.0.1", proxy.port), timeout=2).close()
    except ConnectionRefusedError:
        return True
    return False


def read_answer(client: socket.socket) -> bytes:
    """Until an answer in chunks has ended, or its connection."""
    received = b""
    while not received.endswith(b"\r\n0\r\n\r\n") and (piece := client.recv(65536)):
        received += piece
    return received


@pytest.mark.row(64)
@pytest.mark.parametrize("mode", [["--workers", "2"], ["--single-process"]], ids=["workers", "single"])
def test_a_stop_serves_on_as_not_ready_and_then_drains(upstream: Upstream, mode: list[str]) -> None:
    with draining(upstream, mode, lame_duck_s=2.0) as proxy, proxy.open_stream("groq/answers") as client:
        received = client.recv(65536)
        idle, used = (http.client.HTTPConnection("127.0.0.1", proxy.port) for _ in range(2))
        for connection in (idle, used):
            connection.request("GET", "/health")
            assert connection.getresponse().read()
        proxy.terminate()
        stopped = time.monotonic()
        wait_until(lambda: proxy.request("GET", "/health/readiness").status == 503)
        assert proxy.request("GET", "/health").status == 200
        reply = proxy.chat("groq/answers")
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        used.request("GET", "/health")
        assert used.getresponse().headers["connection"] == "close"
        assert proxy.process.poll() is None
        wait_until(lambda: is_refused(proxy))
        assert time.monotonic() - stopped > 1.8
        assert idle.sock.recv(1) == b""
        idle.close()
        assert proxy.process.poll() is None
        received += read_to_end(client)
        assert received.endswith(b"%x\r\n%b\r\n0\r\n\r\n" % (len(DONE), DONE))
        assert ended(proxy) == 0
    assert "Traceback" not in proxy.log


@pytest.mark.row(65)
@BOTH_MODES
def test_requests_left_after_the_drain_time_end_with_an_error(upstream: Upstream, mode: list[str]) -> None:
    async def file(exchange: Exchange) -> None:
        await exchange.head(200, ("content-length", "100"), kind="audio/mpeg")
        await exchange.send(b"half")
        await exchange.client_leaves()

    upstream.on("speech", file)
    with draining(upstream, mode, drain_s=0.6) as proxy:
        speech = b'{"model":"groq/speech"}'
        with (
            proxy.open_stream("groq/never") as stream,
            socket.create_connection(("127.0.0.1", proxy.port)) as whole,
            socket.create_connection(("127.0.0.1", proxy.port)) as download,
        ):
            head = b"host: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            fields = {"model": "groq/never", "messages": [{"role": "user", "content": "a"}]}
            body = json.dumps(fields).encode()
            whole.sendall(b"POST /v1/chat/completions HTTP/1.1\r\n" + head % (len(body), body))
            download.sendall(b"POST /v1/audio/speech HTTP/1.1\r\n" + head % (len(speech), speech))
            assert b"200 OK" in stream.recv(65536)
            assert b"content-length: 100" in download.recv(65536)
            wait_until(lambda: len(upstream.seen("never")) == 2)
            proxy.terminate()
            answered = read_to_end(whole)
            assert answered.startswith(b"HTTP/1.1 503 ")
            assert CUT in answered
            assert b"connection: close" in answered
            cut = read_to_end(stream)
            assert CUT in cut
            assert DONE not in cut
            assert len(read_to_end(download)) < 100
        assert ended(proxy) == 0
    log = proxy.log
    assert log.count("ended=server_shutting_down") == 3
    assert "status=503" in log
    assert "Traceback" not in log


@BOTH_MODES
def test_ctrl_c_has_no_lame_duck_but_lets_streams_finish(upstream: Upstream, mode: list[str]) -> None:
    with draining(upstream, mode, lame_duck_s=60) as proxy, proxy.open_stream("groq/answers") as client:
        received = client.recv(65536)
        proxy.process.send_signal(signal.SIGINT)
        wait_until(lambda: is_refused(proxy), GENEROUS_S / 2)
        assert DONE in received + read_to_end(client)
        assert ended(proxy) == 0


@BOTH_MODES
def test_a_second_signal_ends_it_at_once(upstream: Upstream, mode: list[str]) -> None:
    with (
        draining(upstream, mode, lame_duck_s=60, drain_s=60) as proxy,
        proxy.open_stream("groq/never") as client,
    ):
        client.recv(65536)
        proxy.terminate()
        wait_until(lambda: proxy.request("GET", "/health/readiness").status == 503)
        proxy.terminate()
        assert CUT in read_to_end(client)
        assert ended(proxy) == 0


@pytest.mark.parametrize(("mode", "is_stream"), [(["--workers", "1"], True), (["--single-process"], False)])
def test_a_client_that_does_not_read_cannot_hold_the_end_up(
    upstream: Upstream, mode: list[str], is_stream: bool
) -> None:
    async def flood(exchange: Exchange) -> None:
        if is_stream:
            await exchange.stream([frame({"content": "x" * 100_000})] * 300)
        else:
            await exchange.answer(completion("x" * 20_000_000))

    upstream.on("flood", flood)
    with (
        draining(upstream, mode, drain_s=60) as proxy,
        proxy.open_stream("groq/flood", stream=is_stream) as client,
    ):
        client.recv(1000)
        proxy.terminate()
        wait_until(lambda: is_refused(proxy), GENEROUS_S / 2)
        time.sleep(0.3)
        assert proxy.process.poll() is None
        proxy.terminate()
        assert ended(proxy) == 0


# The settings


@pytest.mark.row(66)
def test_settings_that_are_wrong_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    old = load({}, tmp_path)
    (tmp_path / ".env").write_text("SANIC_PROXY_LOG_FORMAT=song\nSANIC_PROXY_API_KEYS=canary key\n")
    assert read_again(old, "127.0.0.1") is None
    assert len(caplog.messages) == 2
    assert "canary" not in caplog.text
    (tmp_path / ".env").write_bytes(b"\xff\xfe")
    assert read_again(old, "127.0.0.1") is None
    (tmp_path / ".env").write_text("")
    assert read_again(old, "0.0.0.0") is None
    assert "SANIC_PROXY_ALLOW_OPEN" in caplog.text


def test_a_setting_that_needs_a_restart_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("SANIC_PROXY_PORT=9999\n")
    settings = read_again(load({}, tmp_path / "elsewhere"), "127.0.0.1")
    assert settings is not None
    assert caplog.messages == ["SANIC_PROXY_PORT has changed: restart the proxy to apply it"]


def list_models(proxy: Proxy, *models: str, extra: str = "") -> None:
    """Write a file with a provider `lab` that has these models, and have it read."""
    listed = ", ".join(f'"{model}"' for model in models)
    (proxy.directory / "proxy.toml").write_text(
        f'{extra}\n[providers.lab]\nbase_url = "http://127.0.0.1:9/v1"\nmodels = [{listed}]\n'
    )
    (proxy.directory / ".env").write_text("SANIC_PROXY_CONFIG=proxy.toml\n")
    proxy.process.send_signal(signal.SIGHUP)


def all_workers_list(proxy: Proxy, *models: str) -> bool:
    """Whether two dozen answers in turn, from whichever workers, have exactly these of `lab`."""
    wanted = {f"lab/{model}" for model in models}
    for _ in range(24):
        listed = {entry["id"] for entry in proxy.request("GET", "/v1/models").json["data"]}
        if {name for name in listed if name.startswith("lab/")} != wanted:
            return False
    return True


@pytest.mark.slow
@pytest.mark.row(75)
def test_settings_are_read_again_in_all_workers_and_no_request_suffers(upstream: Upstream) -> None:
    upstream.on("answers", answer)
    upstream.on("GET /openai/v1/models", lambda exchange: exchange.answer({"data": []}))
    with (
        running_proxy(provider_settings(upstream), "--workers", "4") as proxy,
        Load(proxy.port, "groq/answers") as load,
    ):
        load.wait_for_some()
        list_models(proxy, "one")
        wait_until(lambda: all_workers_list(proxy, "one"))
        list_models(proxy, "wrong", extra='[proxy]\nlog_format = "song"')
        proxy.wait_for_log("reload failed, keeping the current settings: SANIC_PROXY_LOG_FORMAT")
        assert all_workers_list(proxy, "one")
        for _ in range(20):
            proxy.process.send_signal(signal.SIGHUP)
        list_models(proxy, "two", "three")
        wait_until(lambda: all_workers_list(proxy, "two", "three"))
        load.wait_for_some()
        workers = proxy.worker_pids()
    assert load.failures == []
    assert len(workers) == 4
    assert "Traceback" not in proxy.log
    assert proxy.log.count("Worker ready") == 4


@BOTH_MODES
def test_a_reload_leaves_streams_and_reaches_open_connections(upstream: Upstream, mode: list[str]) -> None:
    upstream.on("answers", answer)
    with (
        running_proxy(provider_settings(upstream), *mode) as proxy,
        proxy.open_stream("groq/answers") as client,
    ):
        received = client.recv(65536)
        kept = http.client.HTTPConnection("127.0.0.1", proxy.port)
        body = json.dumps({"model": "groq/answers", "messages": [], "x": "x" * 5000})

        def status() -> int:
            kept.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
            reply = kept.getresponse()
            assert reply.read()
            return reply.status

        assert status() == 200
        (proxy.directory / ".env").write_text("SANIC_PROXY_MAX_BODY_BYTES=4096\n")
        proxy.process.send_signal(signal.SIGHUP)
        wait_until(lambda: status() == 413)
        kept.close()
        received += read_answer(client)
    assert DONE in received


def test_a_reload_during_the_start_takes_effect(tmp_path: Path) -> None:
    proxy = start_proxy(tmp_path, {}, "--workers", "2")
    try:
        proxy.wait_for_log("providers on")
        for _ in range(10):
            list_models(proxy, "one")
            time.sleep(0.05)
        wait_until_ready(proxy)
        wait_until(lambda: all_workers_list(proxy, "one"))
    finally:
        assert proxy.stop() == 0


def test_a_proxy_on_a_socket_in_the_file_system_reads_its_settings_again(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as short:  # such a path may have 107 characters
        proxy = start_proxy(tmp_path, {}, "--workers", "1", "--unix", f"{short}/socket")
        try:
            wait_until_ready(proxy)
            proxy.process.send_signal(signal.SIGHUP)
            proxy.wait_for_log("settings reloaded")
        finally:
            assert proxy.stop() == 0
    assert "Traceback" not in proxy.log
