"""scripts/rolling-restart, with a real nginx and two real instances under load."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import provider_settings
from tests.support.load import Load, can_connect, wait_until
from tests.support.nginx import ROOT, needs_nginx, running_nginx, tls_context, upstream_list
from tests.support.proxy import clean_environment, free_port, running_proxy
from tests.support.upstream import Exchange, Upstream, completion, text_stream

SCRIPT = ROOT / "scripts/rolling-restart"


def run(*arguments: object, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


class Instances:
    """Two instances that are started and stopped by commands, as a service manager would."""

    def __init__(self, directory: Path, settings: dict[str, str], way: str = "--single-process") -> None:
        self.directory = directory
        self.ports = [free_port(), free_port()]
        names = clean_environment({"SANIC_PROXY_LAME_DUCK_SECONDS": "0.5", **settings})
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in names.items())
        serve = f"{sys.executable} -m sanic sanic_proxy.app {way} --port {{}}"
        self.start = (
            f"(cd {directory}; exec env -i {variables} {serve} >>{{}}.log 2>&1 </dev/null) & "
            f"echo $! >{directory}/{{}}.pid"
        )
        self.stop = f"kill -TERM $(cat {directory}/{{}}.pid)"

    def pids(self) -> list[int]:
        return [int((self.directory / f"{port}.pid").read_text()) for port in self.ports]

    def log(self) -> str:
        return "".join((self.directory / f"{port}.log").read_text("utf-8", "replace") for port in self.ports)


@contextlib.contextmanager
def two_instances(
    directory: Path, settings: dict[str, str], way: str = "--single-process"
) -> Iterator[Instances]:
    instances = Instances(directory, settings, way)
    for port in instances.ports:
        subprocess.run(["bash", "-c", instances.start.replace("{}", str(port))], check=True)
    try:
        wait_until(lambda: all(map(can_connect, instances.ports)), 30)
        yield instances
    finally:
        for pid in instances.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.row(64, 73)
@needs_nginx
def test_both_instances_are_restarted_and_no_request_or_stream_is_lost(
    upstream: Upstream, tmp_path: Path
) -> None:
    async def answer(exchange: Exchange) -> None:
        if exchange.seen.json.get("stream"):
            await exchange.stream(text_stream(*map(str, range(20))), pause_s=0.05)
        else:
            await exchange.answer(completion())

    upstream.on("answers", answer)
    settings = {**provider_settings(upstream), "SANIC_PROXY_ALLOWED_HOSTS": "localhost"}
    (tmp_path / "nginx").mkdir()
    with (
        two_instances(tmp_path, settings) as instances,
        running_nginx(tmp_path / "nginx", instances.ports) as nginx,
    ):
        before = instances.pids()
        with Load(nginx.port, "groq/answers", tls=tls_context()) as load:
            load.wait_for_some()
            listed = nginx.include.read_text()
            done = run(
                *("--include", nginx.include, "--reload", nginx.reload_command, "--drain", 20),
                *("--stop", instances.stop, "--start", instances.start, *instances.ports),
            )
            load.wait_for_some()
        assert (done.returncode, done.stderr) == (0, ""), f"{done.stdout}\n{instances.log()}"
        assert done.stdout.count(": up") == 2
        assert not set(before) & set(instances.pids())
        assert nginx.include.read_text() == listed
        assert load.failures == []
        log = instances.log()
    assert log.count("Worker ready") == 4
    assert "ended=client_left" not in log
    assert "Traceback" not in log


def test_an_instance_that_does_not_come_up_stays_down_and_the_other_is_left_alone(tmp_path: Path) -> None:
    with running_proxy({}) as proxy:
        include = tmp_path / "list.conf"
        include.write_text(upstream_list([free_port(), proxy.port]))
        dead = int(include.read_text().partition(":")[2].partition(" ")[0])
        done = run(
            *("--include", include, "--reload", "true", "--stop", "true", "--start", "true"),
            *("--ready=1", dead, proxy.port),
        )
        assert done.returncode == 1
        assert f"{dead} does not become ready" in done.stdout
        first, second = include.read_text().splitlines()
        assert first.endswith(" down;")
        assert "down" not in second
        assert proxy.request("GET", "/health").status == 200
        # Another try takes the mark for what it is, but finds no other instance once that one is down, too.
        include.write_text(f"{first}\n{second.replace(';', ' down;')}\n")
        again = run("--include", include, "--reload", "true", "--stop", "true", "--start", "true", proxy.port)
        assert (again.returncode, "no other instance" in again.stdout) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "scripts/rolling-restart"),
        (["8001"], "cannot be written"),
        (["--include"], "needs a value"),
        (["--wrong"], "--help"),
    ],
)
def test_wrong_arguments_change_nothing(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = run(*(["--include", tmp_path / "none", *arguments] if arguments == ["8001"] else arguments))
    assert done.returncode == 2
    assert said in done.stderr


def test_a_port_that_is_not_listed_is_told(tmp_path: Path) -> None:
    include = tmp_path / "list.conf"
    include.write_text(upstream_list([8001, 8002]))
    done = run("--include", include, "8003")
    assert (done.returncode, done.stderr) == (2, f"{include} has no server 127.0.0.1:8003\n")


def test_help_names_each_option() -> None:
    done = run("--help")
    assert done.returncode == 0
    for option in ("--include", "--reload", "--stop", "--start", "--host", "--drain", "--ready"):
        assert option in done.stdout
