"""Programs driven as a user's shell would drive them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import FACTS, now

LIMIT_S = 60.0


@dataclass(frozen=True)
class Ended:
    """What a program left: its exit code, and what it printed."""

    code: int
    output: str
    errors: str


def program(name: str) -> str:
    """A program of this environment."""
    return str(Path(sys.executable).with_name(name))


def run(arguments: Sequence[str], settings: Mapping[str, str]) -> Ended:
    done = subprocess.run(
        arguments,
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT_S,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


class Started:
    """A program that is not waited for, and ended at the end."""

    def __init__(self, arguments: Sequence[str], settings: Mapping[str, str]) -> None:
        self._output = Path(os.environ["HOME"]) / "output.txt"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                arguments,
                env={**os.environ, **settings},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    @property
    def output(self) -> str:
        return self._output.read_text("utf-8", "replace")

    def wait_for_output(self, *texts: str) -> None:
        self._wait_until(lambda: all(text in self.output for text in texts), f"{texts} in its output")

    def wait_until_requested(self) -> None:
        """Until the upstream has got its request."""
        self._wait_until(Path(FACTS["requested_file"]).exists, "its request")

    def _wait_until(self, is_so: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + LIMIT_S
        while not is_so():
            if time.monotonic() > until or (self._process.poll() is not None and not is_so()):
                raise AssertionError(f"waited in vain for {what}; it printed: {self.output[-200:]}")
            time.sleep(0.05)

    def interrupt(self) -> float:
        """Press Ctrl-C, and see that it ends; when that was."""
        left_at = now()
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            raise AssertionError("it goes on after Ctrl-C") from None
        return left_at
