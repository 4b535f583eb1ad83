"""What takes minutes: the same things for longer, and at every moment. scripts/test-slow runs it."""

from __future__ import annotations

import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from tests.support.instances import run, two_instances
from tests.support.load import Load, can_connect, is_healthy, wait_until
from tests.support.machine import wait_until_gone
from tests.support.nginx import needs_nginx, running_nginx, tls_context
from tests.support.proxy import children, running_proxy, start_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import Exchange, Upstream, completion, text_stream

pytestmark = pytest.mark.slow


def answers_in(stream_s: float) -> object:
    """A script: whole answers at once, streams of so many seconds."""

    async def answer(exchange: Exchange) -> None:
        if exchange.seen.json.get("stream"):
            await exchange.stream(text_stream(*map(str, range(20))), pause_s=stream_s / 23)
        else:
            await exchange.answer(completion())

    return answer


def rss_kib(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS"))


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_workers_killed_one_after_the_other_for_a_minute(upstream: Upstream) -> None:
    upstream.on("answers", answers_in(1.0))  # type: ignore[arg-type]
    chance = random.Random(7)
    kills = 0
    with running_proxy(provider_settings(upstream), "--workers", "4") as proxy:
        before = descriptors(proxy.process.pid)
        with Load(proxy.port, "groq/answers") as load:
            until = time.monotonic() + 60
            while time.monotonic() < until:
                os.kill(chance.choice(proxy.worker_pids()), signal.SIGKILL)
                kills += 1
                time.sleep(2.5)
            proxy.wait_for_log("Worker ready", 4 + kills, wait_s=60)
            failed = len(load.failures)
            load.wait_for_some()
            assert len(load.failures) == failed
        assert failed <= 3 * kills
        assert load.whole > 20 * failed
        assert len(proxy.worker_pids()) == 4
        assert descriptors(proxy.process.pid) <= before + 4


@pytest.mark.parametrize("mode", [["--workers", "2"], ["--single-process"]], ids=["workers", "single"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_at_each_moment_of_the_start(
    tmp_path: Path, mode: list[str], number: signal.Signals
) -> None:
    for step in range(20):
        proxy = start_proxy(tmp_path, {}, *mode)
        time.sleep(0.3 + step * 0.06)
        others = [pid for pid, _ in children(proxy.process.pid)]
        proxy.process.send_signal(number)
        if number == signal.SIGHUP:
            # Before it is caught it ends the process, as it does any other; after that, never.
            time.sleep(1.5)
            if proxy.process.poll() is None:
                assert proxy.request("GET", "/health").status == 200
                proxy.terminate()
        began = time.monotonic()
        assert proxy.process.wait(60) in {0, 1, -number}, proxy.log
        assert time.monotonic() - began < 30
        wait_until_gone(others)
        assert not can_connect(proxy.port)


@pytest.mark.parametrize("mode", [["--workers", "1"], ["--single-process"]], ids=["workers", "single"])
def test_a_signal_at_the_moment_of_the_first_answer(tmp_path: Path, mode: list[str]) -> None:
    for step in range(30):
        proxy = start_proxy(tmp_path, {}, *mode)
        wait_until(partial(is_healthy, proxy), step_s=0)
        time.sleep(step % 8 * 0.0003)
        proxy.process.send_signal(signal.SIGINT if step % 2 else signal.SIGTERM)
        assert proxy.process.wait(60) == 0, proxy.log


def test_settings_read_again_ten_times_a_second_for_half_a_minute(upstream: Upstream) -> None:
    upstream.on("answers", answers_in(1.0))  # type: ignore[arg-type]
    with running_proxy(provider_settings(upstream), "--workers", "2") as proxy:
        with Load(proxy.port, "groq/answers") as load:
            load.wait_for_some()
            before = [(rss_kib(pid), descriptors(pid)) for pid in proxy.worker_pids()]
            until = time.monotonic() + 30
            while time.monotonic() < until:
                proxy.process.send_signal(signal.SIGHUP)
                time.sleep(0.1)
            load.wait_for_some()
        assert load.failures == []
        time.sleep(2)
        for pid, (rss, held) in zip(proxy.worker_pids(), before, strict=True):
            assert rss_kib(pid) < rss + 20_000
            assert descriptors(pid) <= held + 4


@needs_nginx
def test_instances_of_several_workers_are_restarted_with_long_streams(
    upstream: Upstream, tmp_path: Path
) -> None:
    upstream.on("answers", answers_in(8.0))  # type: ignore[arg-type]
    settings = {
        **provider_settings(upstream),
        "SANIC_PROXY_ALLOWED_HOSTS": "localhost",
        "SANIC_PROXY_LAME_DUCK_SECONDS": "5",
    }
    (tmp_path / "nginx").mkdir()
    with (
        two_instances(tmp_path, settings, "--workers 2") as instances,
        running_nginx(tmp_path / "nginx", instances.ports) as nginx,
        Load(nginx.port, "groq/answers", tls=tls_context(), streamers=12) as load,
    ):
        for _ in range(2):
            load.wait_for_some()
            done = run(
                *("--include", nginx.include, "--reload", nginx.reload_command, "--drain", 60),
                *("--stop", instances.stop, "--start", instances.start, *instances.ports),
            )
            assert done.returncode == 0, done.stdout
        wait_until(lambda: load.streams > 40, 60)
    assert load.failures == []
