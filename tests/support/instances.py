"""Two instances behind nginx, and the script that restarts one after the other."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.load import can_connect, wait_until
from tests.support.proxy import clean_environment, free_port

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/rolling-restart"


def run(*arguments: object, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


class Instances:
    """Two instances that are started and stopped by commands, as a service manager would."""

    def __init__(self, directory: Path, settings: dict[str, str], mode: str = "--single-process") -> None:
        self.directory = directory
        self.ports = [free_port(), free_port()]
        names = clean_environment({"SANIC_PROXY_LAME_DUCK_SECONDS": "0.5", **settings})
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in names.items())
        serve = f"{sys.executable} -m sanic sanic_proxy.app {mode} --port {{}}"
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
    directory: Path, settings: dict[str, str], mode: str = "--single-process"
) -> Iterator[Instances]:
    instances = Instances(directory, settings, mode)
    for port in instances.ports:
        subprocess.run(["bash", "-c", instances.start.replace("{}", str(port))], check=True)
    try:
        wait_until(lambda: all(map(can_connect, instances.ports)), 30)
        yield instances
    finally:
        for pid in instances.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
