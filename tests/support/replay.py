"""Proxies that replay captured answers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.proxy import Proxy, clean_environment, free_port, wait_until_ready


@contextmanager
def replaying(captures: Path, directory: Path, *arguments: str) -> Iterator[Proxy]:
    """`sanic-proxy replay`, with the proxy that it becomes."""
    port, log = free_port(), directory / "replay.log"
    command = [
        sys.executable,
        "-m",
        "sanic_proxy",
        "replay",
        str(captures),
        "--port",
        str(port),
        *arguments,
    ]
    environ = {
        "SANIC_PROXY_LAME_DUCK_SECONDS": "0",
        "XDG_STATE_HOME": str(directory),
        "SANIC_PROXY_TIMEOUT_STALL": "0.3",
        "PYTHONPATH": os.environ.get("PYTHONPATH", str(Path(__file__).parents[2])),
    }
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=clean_environment(environ),
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    proxy = Proxy(port, process, log, directory)
    try:
        wait_until_ready(proxy)
        yield proxy
    finally:
        proxy.stop()
