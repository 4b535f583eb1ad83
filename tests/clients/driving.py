"""A client's driver as a process: a line of JSON goes in for each feature, and one comes back.

The next feature is requested only once the last is judged, so a driver is alive, with its connections
as they are, while the upstream is looked at.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.proxy import clean_environment

START_TIMEOUT_S = 180.0
FEATURE_TIMEOUT_S = 90.0
# Nothing listens on this port: a client's telemetry ends there.
NOWHERE = "http://127.0.0.1:9"


class DriverError(Exception):
    """A driver ended or sent no result in time; the message has the reason."""


def environment(facts: Mapping[str, Any], home: Path) -> dict[str, str]:
    """The environment of every driver: no keys, no settings, no network but the loopback interface."""
    settings = {
        "FACTS": json.dumps(facts),
        "HOME": str(home),
        "HTTP_PROXY": NOWHERE,
        "HTTPS_PROXY": NOWHERE,
        "NO_PROXY": "127.0.0.1,localhost",
        "PYTHONUNBUFFERED": "1",
        "DO_NOT_TRACK": "1",
    }
    kept = clean_environment(settings)
    return {name: value for name, value in kept.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}


class Driver:
    """See the module. Raises DriverError where it cannot be started."""

    def __init__(self, command: Sequence[str], settings: Mapping[str, str], log: Path) -> None:
        self._log = log
        try:
            with log.open("ab") as stderr:
                self._process = subprocess.Popen(
                    command,
                    cwd=settings["HOME"],
                    env=dict(settings),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    bufsize=0,
                    start_new_session=True,
                )
        except OSError as exc:
            raise DriverError(f"the driver did not start: {exc}") from exc

    def wait_until_ready(self) -> None:
        """Until its imports are done. Raises DriverError."""
        self._line(START_TIMEOUT_S)

    def run_feature(self, feature: str, provider: str, model: str) -> dict[str, Any]:
        """The driver's result for one feature. Raises DriverError."""
        question = {"feature": feature, "provider": provider, "model": model}
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, which the read below reports
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
        return self._line(FEATURE_TIMEOUT_S)

    def _line(self, timeout_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        until = time.monotonic() + timeout_s
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))[0]:
                raise DriverError(f"no answer in {timeout_s:.0f} s")
            if not (piece := os.read(self._process.stdout.fileno(), 65536)):
                raise DriverError(f"the driver ended: {self._last_words()}")
            line += piece
        report: dict[str, Any] = json.loads(line)
        return report

    def _last_words(self) -> str:
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else f"exit code {self._process.wait()}"

    def stop(self) -> None:
        """End it and all it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
