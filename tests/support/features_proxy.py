"""Starts the application of `features`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.proxy import Proxy, start_proxy, wait_until_ready

ROOT = Path(__file__).parents[2]


@contextmanager
def running(
    directory: Path, *on: str, settings: Mapping[str, str] | None = None, workers: int | None = None
) -> Iterator[Proxy]:
    """The application with the features `on`, in one process unless it is to have `workers`."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {"FEATURES": ",".join(on), "PYTHONPATH": path, "SANIC_PROXY_ECHO": "on", **(settings or {})}
    processes = ("--single-process",) if workers is None else ("--workers", str(workers))
    proxy = start_proxy(directory, environment, *processes, module="tests.support.features")
    try:
        wait_until_ready(proxy)
        yield proxy
    finally:
        proxy.stop()
        proxy.last_log = proxy.log
