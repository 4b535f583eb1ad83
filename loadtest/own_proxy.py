"""A proxy of the program's own: `sanic-proxy serve` in an empty directory with one TOML file."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
START_S = 60.0
STOP_S = 10.0
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH")


@contextmanager
def serving(config: str, workers: int) -> Iterator[int]:
    """A proxy with the settings `config` (TOML) until the end of the block; gives its port.

    Without `workers` one process serves, which starts in half the time.
    """
    with tempfile.TemporaryDirectory(prefix="sanic-proxy-") as directory:
        (Path(directory) / "proxy.toml").write_text(config, "utf-8")
        port = _free_port()
        command = (
            *(sys.executable, "-m", "sanic_proxy", "serve", "--config", "proxy.toml"),
            *("--port", str(port)),
            *(("--workers", str(workers)) if workers else ("--single-process",)),
        )
        log_path = Path(directory) / "log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                command, cwd=directory, env=_environment(), stdout=log, stderr=log, start_new_session=True
            )
        try:
            _wait_until_ready(process, log_path, max(workers, 1))
            yield port
        finally:
            _stop(process)


def _environment() -> Mapping[str, str]:
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    paths = [str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "SANIC_PROXY_LAME_DUCK_SECONDS": "0"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(process: subprocess.Popen[bytes], log_path: Path, workers: int) -> None:
    until = time.monotonic() + START_S
    while (log := log_path.read_text("utf-8", "replace")).count("Worker ready") < workers:
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"the proxy did not start:\n{log}")
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
