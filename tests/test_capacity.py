"""A worker with too much to do, too few descriptors, a full disk, or a clock that jumps."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.load import can_connect, is_healthy, wait_until
from tests.support.proxy import Proxy, clean_environment, free_port, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import DONE, Exchange, Upstream, completion, frame, text_stream


async def held(exchange: Exchange) -> None:
    """A stream that begins and waits."""
    if exchange.seen.json.get("stream"):
        await exchange.begin_stream()
        await exchange.chunk(frame({"content": "a"}))
    await exchange.client_leaves()


@pytest.fixture(scope="module")
def small_proxy(shared_upstream: Upstream) -> Iterator[Proxy]:
    settings = {
        **provider_settings(shared_upstream),
        "SANIC_PROXY_MAX_CONCURRENT": "2",
        "SANIC_PROXY_MAX_BYTES_IN_FLIGHT": "10000",
    }
    with running_proxy(settings) as proxy:
        yield proxy


@pytest.fixture
def small(small_proxy: Proxy, upstream: Upstream) -> Proxy:
    """Two requests at once, and 10,000 bytes of bodies."""
    upstream.on("held", held)
    upstream.on("whole", lambda exchange: exchange.answer(completion()))
    return small_proxy


@pytest.mark.row(60)
def test_more_requests_than_allowed_get_a_503_with_retry_after(small: Proxy) -> None:
    with small.open_stream("groq/held") as first, small.open_stream("groq/held") as second:
        first.recv(65536)
        second.recv(65536)
        refused = small.chat("groq/whole")
        assert (refused.status, refused.error["code"]) == (503, "server_overloaded")
        assert refused.headers["retry-after"] == "1"
        assert "x-should-retry" not in refused.headers
        for path in ("/health", "/health/readiness", "/healthz"):
            assert small.request("GET", path).status == 200
    wait_until(lambda: small.chat("groq/whole").status == 200)
    for _ in range(5):  # nothing that was refused still counts
        assert small.chat("groq/whole").status == 200


@pytest.mark.row(69)
def test_more_bytes_than_allowed_are_refused_when_they_come(small: Proxy) -> None:
    with small.open_stream("groq/held", x="x" * 8000) as first:
        first.recv(65536)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5000\r\n\r\n"
        with socket.create_connection(("127.0.0.1", small.port), timeout=60) as client:
            client.sendall(head + b"x" * 1000)
            refused = small.chat("groq/whole", x="x" * 3000)
            assert refused.error["code"] == "server_overloaded"
            client.sendall(b"x" * 1000)  # 2,000 of the 5,000 announced bytes
            assert b"server_overloaded" in client.recv(65536)
        wait_until(lambda: small.chat("groq/whole", x="x" * 500).status == 200)
    wait_until(lambda: small.chat("groq/whole", x="x" * 8000).status == 200)


@pytest.fixture(scope="module")
def roomy(shared_upstream: Upstream) -> Iterator[Proxy]:
    """Two megabytes of bodies."""
    settings = {**provider_settings(shared_upstream), "SANIC_PROXY_MAX_BYTES_IN_FLIGHT": "2000000"}
    with running_proxy(settings) as proxy:
        yield proxy


@pytest.mark.row(43, 69)
@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize("framing", ["content-length: 33554432", "transfer-encoding: chunked"])
def test_announced_bodies_take_no_room(roomy: Proxy, upstream: Upstream, kind: str, framing: str) -> None:
    """70 connections that announce 32 MiB and send one byte, with room for 32 such bodies."""
    upstream.on("whole", lambda exchange: exchange.answer(completion()))
    head = f"POST /v1/images/edits HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\n{framing}\r\n\r\n"
    first_byte = b"1\r\n-\r\n" if "chunked" in framing else b"-"
    with ExitStack() as stack:
        for _ in range(70):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", roomy.port), timeout=60))
            client.sendall(head.encode() + first_byte)
        for _ in range(10):
            assert roomy.chat("groq/whole", x="x" * 1_000_000).status == 200


def test_a_body_in_chunks_counts_what_it_is(small: Proxy) -> None:
    body = json.dumps({"model": "groq/whole", "messages": [{"role": "user", "content": "Hi"}]}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    head += b"transfer-encoding: chunked\r\n\r\n"
    assert b" 200 OK" in small.raw(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    long = body[:-1] + b"," + b'"x":"' + b"x" * 12_000 + b'"}'
    assert b"server_overloaded" in small.raw(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(long), long))


# Descriptors


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_soft_limit_of_descriptors_is_raised_to_the_hard_one(tmp_path: Path) -> None:
    port = free_port()
    command = (
        f"ulimit -S -n 100; exec {sys.executable} -m sanic sanic_proxy.app --single-process --port {port}"
    )
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", command], cwd=tmp_path, env=clean_environment({}), stdout=log, stderr=log
        )
    try:
        proxy = Proxy(port, process, tmp_path / "log", tmp_path)
        wait_until(lambda: is_healthy(proxy))
        soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        assert soft == min(hard, 1_048_576) > 100
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


@pytest.mark.row(67)
def test_without_descriptors_streams_go_on_and_it_recovers(upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream(text_stream(*map(str, range(30))), pause_s=0.05)

    upstream.on("goes on", script)
    with running_proxy(provider_settings(upstream)) as proxy, proxy.open_stream("groq/goes on") as client:
        received = client.recv(65536)
        pid = proxy.process.pid
        limit = len(os.listdir(f"/proc/{pid}/fd")) + 10
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limit))
        with ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port)))
            began, before_s = time.monotonic(), cpu_s(pid)
            while not received.endswith(b"\r\n0\r\n\r\n"):
                piece = client.recv(65536)
                assert piece, received
                received += piece
            assert cpu_s(pid) - before_s < 0.5 * (time.monotonic() - began) + 0.05
            assert received.count(DONE) == 1
            assert proxy.process.poll() is None
        wait_until(lambda: is_healthy(proxy))


# The log


@pytest.mark.row(68)
@pytest.mark.parametrize("where", ["2>/dev/full", ">/dev/full 2>&1", "2>&-", ">&- 2>&-"])
def test_a_log_that_cannot_be_written_stops_nothing(where: str, tmp_path: Path) -> None:
    port = free_port()
    command = f"exec {sys.executable} -m sanic sanic_proxy.app --workers 1 --port {port} {where}"
    env = clean_environment({"SANIC_PROXY_LAME_DUCK_SECONDS": "0"})
    env.pop("PYTHONUNBUFFERED", None)  # what Python keeps back is what makes it hard
    process = subprocess.Popen(["bash", "-c", command], cwd=tmp_path, env=env, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: can_connect(port))
        proxy = Proxy(port, process, tmp_path / "log", tmp_path)
        for _ in range(5):
            assert proxy.chat("echo/echo").status == 200
        assert DONE in proxy.stream("echo/echo")[1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


# The clock

JUMPS = """
import itertools, time
_real, _jumps = time.time, itertools.cycle((0, 3600, -3600, 86400))
time.time = lambda: _real() + next(_jumps)
"""


@pytest.mark.row(71)
def test_a_clock_that_jumps_moves_no_deadline(upstream: Upstream, tmp_path: Path) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream(text_stream(*map(str, range(10))), pause_s=0.05)

    async def silent(exchange: Exchange) -> None:
        await exchange.client_leaves()

    upstream.on("slow", script)
    upstream.on("silent", silent)
    (tmp_path / "sitecustomize.py").write_text(JUMPS)
    settings = {
        **provider_settings(upstream),
        "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
        "SANIC_PROXY_TIMEOUT_FIRST_BYTE": "1",
    }
    with running_proxy(settings) as proxy:
        for _ in range(3):
            assert proxy.stream("groq/slow")[1][-1] == DONE
        began = time.monotonic()
        assert proxy.chat("groq/silent").status == 504
        assert 0.9 < time.monotonic() - began < 30  # the clock jumps by hours


@pytest.mark.row(71)
def test_only_timestamps_use_the_wall_clock() -> None:
    package = Path(__file__).parents[1] / "sanic_proxy"
    readers = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if any(call in path.read_text("utf-8") for call in ("time.time(", "datetime.now(", "utcnow("))
    }
    assert readers == {
        "openai/chunks.py",  # `created` in answers that the proxy makes itself
        "upstream/retry_hints.py",  # a Retry-After that is a date
        "server/supervisor.py",  # clock jumps
        "server/admission.py",  # keys that expire
        "governance/key_ring.py",
        "governance/key_admin.py",
        "commands/keys.py",
        "observability/capture.py",  # when content was captured, and what is too old
        "observability/capture_file.py",
        "observability/tracing.py",  # when spans began
        "governance/litellm_keys.py",
        "routes/key_management.py",
        "routes/usage.py",  # when periods end
        "governance/standings.py",
        "cli.py",  # the age of the prices
        "routes/health.py",
        "routes/admin.py",  # the same, and when errors of targets occurred
        "metrics/live.py",  # when requests ended
        "state_store/ring.py",  # numbers of events that no later ring repeats
        "server/sessions.py",  # sessions that expire
        "governance/sessions.py",
        "routes/ui.py",
        "routes/live.py",
        "routes/ui_data.py",  # the last days
        "routes/batch_charging.py",  # when a batch was settled
        "routing/quota.py",  # providers' headers that are dates
        "routing/switches.py",  # when a target was switched off
        "state_store/shared_map.py",  # which boot of the machine it is
        "state_store/responses.py",  # what outlives the machine's uptime expires by it
        "state_store/runtime_directory.py",  # the age of a directory, whose time is the file system's
    }
