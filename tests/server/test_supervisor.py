"""The main process: its workers come back, and do not outlive it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sanic_proxy.server.supervisor import LONGEST_WAIT_S, RestartDelay, is_traced
from tests.support.load import GENEROUS_S, Load, can_connect, holder_of, send_chat, wait_until
from tests.support.machine import wait_until_gone
from tests.support.proxy import Proxy, children, running_proxy, start_proxy, wait_until_ready
from tests.support.settings import provider_settings
from tests.support.upstream import DONE, Exchange, Upstream, completion, text_stream

WORKERS = 2


async def answer(exchange: Exchange) -> None:
    """A whole answer, or a stream of a second and a half."""
    if exchange.seen.json.get("stream"):
        await exchange.stream(text_stream(*map(str, range(30))), pause_s=0.05)
    else:
        await exchange.answer(completion())


@pytest.fixture
def several(upstream: Upstream) -> Iterator[Proxy]:
    upstream.on("answers", answer)
    with running_proxy(provider_settings(upstream), "--workers", str(WORKERS)) as proxy:
        yield proxy


def read_to_end(client: socket.socket) -> bytes:
    received = b""
    while piece := client.recv(65536):
        received += piece
    return received


def read_answer(client: socket.socket) -> bytes:
    """Until an answer in chunks has ended, or its connection."""
    received = b""
    while not received.endswith(b"\r\n0\r\n\r\n") and (piece := client.recv(65536)):
        received += piece
    return received


def is_whole(received: bytes) -> bool:
    """Whether a stream was seen to its end."""
    return received.endswith(DONE + b"\r\n0\r\n\r\n")


@pytest.mark.row(62)
def test_a_killed_worker_comes_back_and_the_streams_of_the_others_go_on(
    several: Proxy, upstream: Upstream
) -> None:
    is_killed = threading.Event()

    async def until_killed(exchange: Exchange) -> None:
        first, *others = text_stream(*map(str, range(30)))
        await exchange.begin_stream()
        await exchange.chunk(first)
        while not is_killed.is_set():  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.02)
        for piece in others:
            await exchange.chunk(piece)
        await exchange.end_stream()

    upstream.on("held", until_killed)
    with ExitStack() as stack:
        clients = [stack.enter_context(several.open_stream("groq/held")) for _ in range(24)]
        heads = [client.recv(65536) for client in clients]
        pids = several.worker_pids()
        assert len(pids) == WORKERS
        holders = [holder_of(client, pids) for client in clients]
        victim = max(pids, key=holders.count)
        os.kill(victim, signal.SIGKILL)
        wait_until_gone([victim])
        is_killed.set()
        for client, holder, head in zip(clients, holders, heads, strict=True):
            assert is_whole(head + read_answer(client)) is (holder != victim)
    several.wait_for_log("Worker ready", WORKERS + 1)
    assert len(several.worker_pids()) == WORKERS
    assert "was killed by signal 9" in several.log
    assert send_chat(several.port, "groq/answers", stream=True) is None


@pytest.mark.slow
@pytest.mark.row(62)
def test_all_workers_killed_at_once_come_back_and_nothing_but_their_requests_is_lost(several: Proxy) -> None:
    with Load(several.port, "groq/answers") as load:
        load.wait_for_some()
        pids = several.worker_pids()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_until_gone(pids)
        assert send_chat(several.port, "groq/answers") is None
        load.wait_for_some()
    # Each thread had one in flight, and may have lost another to a worker that was killed a moment later;
    # what came after waited in the listener's queue.
    assert len(load.failures) <= 12, load.failures
    several.wait_for_log("Worker ready", 2 * WORKERS)
    assert not set(several.worker_pids()) & set(pids)


@pytest.mark.row(63)
def test_the_main_process_killed_leaves_no_orphan_and_streams_finish(
    upstream: Upstream, tmp_path: Path
) -> None:
    upstream.on("answers", answer)
    proxy = start_proxy(tmp_path, provider_settings(upstream), "--workers", "2")
    wait_until_ready(proxy)
    others = [pid for pid, _ in children(proxy.process.pid)]
    with proxy.open_stream("groq/answers") as client:
        received = client.recv(65536)
        proxy.process.kill()
        proxy.process.wait()
        assert wait_until(lambda: not can_connect(proxy.port)) < 2
        received += read_to_end(client)
    assert received.count(DONE) == 1
    wait_until_gone(others)
    assert "parent process exited; draining" in proxy.log


@pytest.mark.row(63)
def test_there_is_no_process_but_the_main_one_and_the_workers() -> None:
    with running_proxy({}, "--workers", "2") as proxy:
        commands = [command for _, command in children(proxy.process.pid)]
    # The third ends with the main process, however that ends.
    assert sorted("resource_tracker" in command for command in commands) == [False, False, True]


def test_a_worker_that_ends_by_itself_is_replaced(several: Proxy) -> None:
    os.kill(several.worker_pids()[0], signal.SIGTERM)
    several.wait_for_log("Worker ready", WORKERS + 1)
    assert "exited with 0" in several.log


@pytest.mark.slow
def test_a_worker_that_dies_at_each_start_is_not_started_in_a_hot_loop(upstream: Upstream) -> None:
    with running_proxy(provider_settings(upstream), "--workers", "2") as proxy:
        # The settings have become wrong: a worker that starts now reads them, and ends.
        (proxy.directory / ".env").write_text("SANIC_PROXY_LOG_FORMAT=song\n")
        os.kill(proxy.worker_pids()[0], signal.SIGKILL)
        proxy.wait_for_log("as it died 3 times in a row")
        assert proxy.log.count("restarting it") == 3
        assert proxy.request("GET", "/health").status == 200
        (proxy.directory / ".env").write_text("")
        proxy.wait_for_log("Worker ready", 3)


def test_a_proxy_whose_workers_cannot_start_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'spawn_main' in ' '.join(sys.orig_argv): os._exit(3)\n"
    )
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    proxy = start_proxy(tmp_path, {"PYTHONPATH": path}, "--workers", "2")
    assert proxy.process.wait(60) == 1
    assert "no worker could be started" in proxy.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_during_the_start_ends_the_proxy(tmp_path: Path, number: signal.Signals) -> None:
    for delay_s in (0.0, 0.4):
        proxy = start_proxy(tmp_path, {}, "--workers", "1")
        proxy.wait_for_log("providers on")
        others = children(proxy.process.pid)
        time.sleep(delay_s)
        proxy.process.send_signal(number)
        # Before there is anything to stop in good order, the signal ends the process by itself.
        assert proxy.process.wait(GENEROUS_S) in {0, -number}, proxy.log
        wait_until_gone([pid for pid, _ in others])
        assert not can_connect(proxy.port)


def test_the_waits_before_a_new_start_grow_and_are_bounded() -> None:
    delay = RestartDelay()
    waits = [delay.after(1.0, has_served=False) for _ in range(2000)]
    assert waits[:5] == [0.0, 0.5, 1.0, 2.0, 4.0]
    assert waits[-1] == LONGEST_WAIT_S
    assert delay.after(100.0, has_served=False) == LONGEST_WAIT_S
    assert delay.after(100.0, has_served=True) == 0.0


def test_what_workers_share_needs_no_process() -> None:
    code = (
        "import os; from sanic_proxy.server.supervisor import StateServer\n"
        "from tests.support.proxy import children\n"
        "server = StateServer(); shared = server.dict(); shared['a'] = {'state': 'ACKED'}\n"
        "print(dict(shared.items()), children(os.getpid()))\n"
        "server.shutdown()"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "{'a': {'state': 'ACKED'}} []\n"


# What would keep workers from coming back


@pytest.mark.row(62)
def test_a_worker_comes_back_after_a_cleaner_has_emptied_tmp(tmp_path: Path) -> None:
    directory = tmp_path / "tmp"
    directory.mkdir()
    proxy = start_proxy(tmp_path, {"TMPDIR": str(directory)}, "--workers", "2")
    try:
        wait_until_ready(proxy)
        shutil.rmtree(directory)
        for _ in range(2):
            victim = proxy.worker_pids()[0]
            os.kill(victim, signal.SIGKILL)
            wait_until_gone([victim])
            wait_until(lambda: len(proxy.worker_pids()) == 2)
        proxy.wait_for_log("Worker ready", 4)
        assert proxy.request("GET", "/health").status == 200
    finally:
        assert proxy.stop() == 0
    assert "Traceback" not in proxy.log


@pytest.mark.slow
@pytest.mark.row(62)
def test_a_proxy_without_workers_for_a_minute_exits_with_1(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        f"if 'spawn_main' in ' '.join(sys.orig_argv) and os.path.exists('{tmp_path}/broken'): os._exit(3)\n"
    )
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    proxy = start_proxy(tmp_path, {"PYTHONPATH": path}, "--workers", "2")
    wait_until_ready(proxy)
    (tmp_path / "broken").touch()
    first, second = proxy.worker_pids()
    os.kill(first, signal.SIGKILL)
    proxy.wait_for_log("as it died 2 times in a row")
    assert proxy.request("GET", "/health").status == 200  # one is left
    killed = time.monotonic()
    os.kill(second, signal.SIGKILL)
    assert proxy.process.wait(180) == 1
    assert time.monotonic() - killed > 55
    assert "no worker could be started for 60 s" in proxy.log
    assert "Server Stopped" in proxy.log
    assert not can_connect(proxy.port)


# Workers that hang

ODD_APP = """
import asyncio, time
from sanic.response import text
from sanic_proxy.app import app

@app.get("/hang/<seconds:float>")
def hang(request, seconds):
    time.sleep(seconds)
    return text("awake")

@app.get("/busy")
async def busy(request):
    for _ in range(13):
        time.sleep(0.5)
        await asyncio.sleep(0)
    return text("done")
"""


def start_odd_proxy(directory: Path, hang_timeout: str, *arguments: str) -> Proxy:
    (directory / "odd_app.py").write_text(ODD_APP)
    settings = {"SANIC_PROXY_HANG_TIMEOUT": hang_timeout}
    proxy = start_proxy(directory, settings, *arguments, module="odd_app")
    wait_until_ready(proxy)
    return proxy


def test_a_hung_worker_logs_its_stack_and_is_replaced_and_a_busy_one_is_not(tmp_path: Path) -> None:
    proxy = start_odd_proxy(tmp_path, "5", "--workers", "1")
    try:
        assert proxy.request("GET", "/busy", timeout_s=60).status == 200
        assert "hangs" not in proxy.log
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as client:
            client.sendall(b"GET /hang/600.0 HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert read_to_end_or_reset(client) == b""
        proxy.wait_for_log("Worker ready", 2)
        assert proxy.request("GET", "/health").status == 200
    finally:
        assert proxy.stop() == 0
    log = proxy.log
    assert log.count("hangs: its event loop has not turned for 5 s") == 1
    assert log.index("hangs: ") < log.index(" in hang\n") < log.index("was killed by signal 9")


def read_to_end_or_reset(client: socket.socket) -> bytes:
    try:
        return read_to_end(client)
    except ConnectionError:
        return b""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("timeout", "arguments"), [("0", ()), ("5", ("--debug",))], ids=["switched off", "debug"]
)
def test_a_worker_that_is_not_watched_may_hang(
    tmp_path: Path, timeout: str, arguments: tuple[str, ...]
) -> None:
    proxy = start_odd_proxy(tmp_path, timeout, "--workers", "1", *arguments)
    try:
        assert proxy.request("GET", "/hang/8.0", timeout_s=60).body == b"awake"
    finally:
        assert proxy.stop() == 0
    assert "hangs" not in proxy.log


@pytest.mark.slow
def test_a_proxy_that_was_suspended_as_a_whole_kills_nobody(tmp_path: Path) -> None:
    proxy = start_odd_proxy(tmp_path, "5", "--workers", "2")
    try:
        os.killpg(proxy.process.pid, signal.SIGSTOP)
        time.sleep(8)  # longer than the time-out
        os.killpg(proxy.process.pid, signal.SIGCONT)
        pids = proxy.worker_pids()
        time.sleep(3)  # some ticks, in which nothing may happen
        assert proxy.request("GET", "/health").status == 200
        assert proxy.worker_pids() == pids
    finally:
        assert proxy.stop() == 0
    assert "hangs" not in proxy.log


def test_a_process_under_a_debugger_is_known() -> None:
    seize = 0x4206
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert not is_traced(child.pid)
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.ptrace(seize, child.pid, None, None) == 0, os.strerror(ctypes.get_errno())
        assert is_traced(child.pid)
        child.kill()
    assert not is_traced(child.pid)
