"""A process that uses shared memory as a worker does, by commands: one line of Python each, one line back."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from sanic_proxy.state_store.shared import SharedMemory

READY = "ready"


class Peer:
    """The process; `directory` has the file, or `inherited` is the descriptor of unnamed memory."""

    def __init__(self, directory: Path | None = None, inherited: int | None = None) -> None:
        place = str(directory) if inherited is None else str(inherited)
        kind = "directory" if inherited is None else "inherited"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.shared_memory", kind, place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=() if inherited is None else (inherited,),
            text=True,
        )
        assert self._line() == READY

    def send(self, line: str) -> None:
        """Begin with a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def run(self, line: str) -> str:
        """The result of an expression, as `repr` writes it; of a statement "None"."""
        self.send(line)
        return self._line()

    def receive(self) -> str:
        """The result of a command that was sent."""
        return self._line()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """SIGKILL, until the kernel has released the locks."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextlib.contextmanager
def peers(count: int, directory: Path | None = None, inherited: int | None = None) -> Iterator[list[Peer]]:
    """Several processes on the same memory, killed at the end."""
    made = [Peer(directory, inherited) for _ in range(count)]
    try:
        yield made
    finally:
        for peer in made:
            peer.kill()


def _serve(memory: SharedMemory) -> None:
    names: dict[str, object] = {"memory": memory}
    exec("from sanic_proxy.state_store.shared import *; import time", names)
    print(READY, flush=True)  # noqa: T201
    for line in sys.stdin:
        result: object = None
        try:
            result = eval(line, names)
        except SyntaxError:
            exec(line.replace(" ;; ", "\n"), names)
        print(repr(result), flush=True)  # noqa: T201


if __name__ == "__main__":
    kind, place = sys.argv[1:]
    _serve(SharedMemory(directory=Path(place)) if kind == "directory" else SharedMemory(inherited=int(place)))
