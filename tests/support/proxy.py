"""A real proxy in a process of its own, and a client that sees every byte."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Only what hangs takes so long: a busy machine does not.
START_TIMEOUT_S = 120.0
GENEROUS_S = 60.0
MIN_SECRET_CHARS = 8
_MINIMAL = Path(__file__).parent / "minimal"
_SECRET_NAMES = re.compile(r".*_API_KEYS?$|HTTPS?_PROXY$")


# All that a session of tests starts: their logs are looked through for keys at its end.
STARTED: list[Proxy] = []


def _port_candidates() -> Iterator[int]:
    """Every n-th port for each of n xdist workers, from a place that differs between runs.

    All are below the ports that the kernel hands out (32768 and up on Linux): between `free_port` and the
    bind of the process that gets the port, no connection and no other listener of the tests can take it.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = range(12_000 + worker, 32_000, workers)
    start = os.getpid() * 37 % len(ports)
    return itertools.cycle((*ports[start:], *ports[:start]))


_CANDIDATES = _port_candidates()


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    for port in _CANDIDATES:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("unreachable: the candidates have no end")


def clean_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without any setting of a proxy or provider, and `settings`."""
    drop = re.compile(r"SANIC_|OTEL_|.*_API_KEY$|.*_BASE_URL$|HTTPS?_PROXY$|NO_PROXY$", re.IGNORECASE)
    kept = {name: value for name, value in os.environ.items() if not drop.match(name)}
    return {**kept, **settings}


def secrets_in(settings: Mapping[str, str]) -> tuple[str, ...]:
    """The secrets in a proxy's settings: keys, and passwords of outbound proxies."""
    values = [value for name, value in settings.items() if _SECRET_NAMES.match(name)]
    parts = [part.strip() for value in values for part in re.split(r"[,@]|://", value)]
    return tuple(part for part in parts if len(part) >= MIN_SECRET_CHARS)


@dataclass
class Reply:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        assert list(error)[:4] == ["message", "type", "param", "code"]
        return error


@dataclass
class Proxy:
    """A running proxy."""

    port: int
    process: subprocess.Popen[bytes]
    log_path: Path
    directory: Path
    workers: int = 1
    last_log: str = ""
    secrets: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.last_log or self.log_path.read_text("utf-8", "replace")

    def log_line(self, request_id: str, wait_s: float = GENEROUS_S) -> str:
        """The line of a finished request."""
        until = time.monotonic() + wait_s
        while time.monotonic() < until:
            lines = [line for line in self.log.splitlines() if f"id={request_id} " in line]
            if lines:
                return lines[0]
            time.sleep(0.02)
        raise AssertionError(f"no log line for {request_id}")

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = GENEROUS_S,
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        kind = {} if data is None else {"content-type": "application/json"}
        try:
            connection.request(method, path, data, {**kind, **(headers or {})})
            answer = connection.getresponse()
            reply = Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
            self.check(f"{reply.headers}".encode() + reply.body)
            return reply
        finally:
            connection.close()

    def chat(self, model: str, *, headers: Mapping[str, str] | None = None, **fields: Any) -> Reply:
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], **fields}
        return self.request("POST", "/v1/chat/completions", body, headers)

    def stream(self, model: str, **fields: Any) -> tuple[Reply, list[bytes]]:
        """A stream read to its clean end, and its frames."""
        reply = self.chat(model, stream=True, **fields)
        return reply, [frame + b"\n\n" for frame in reply.body.split(b"\n\n") if frame]

    def raw(self, data: bytes, wait_s: float = 5.0) -> bytes:
        """What comes back for raw bytes until the proxy closes or `wait_s` pass."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait_s) as client:
            client.sendall(data)
            received = b""
            with contextlib.suppress(TimeoutError, ConnectionError):
                while piece := client.recv(65536):
                    received += piece
            self.check(received)
            return received

    def check(self, data: bytes) -> None:
        """What leaves the proxy holds none of its keys."""
        leaked = [secret for secret in self.secrets if secret.encode() in data]
        assert not leaked, f"{leaked} left the proxy"

    def open_stream(self, model: str, **fields: Any) -> socket.socket:
        """Request a stream and leave the reading to the caller."""
        body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Hi"}], **fields}
        data = json.dumps(body).encode()
        client = socket.create_connection(("127.0.0.1", self.port), timeout=GENEROUS_S)
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(data), data)
        )
        return client

    def terminate(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def worker_pids(self) -> list[int]:
        """The workers that are alive, the oldest first."""
        return [pid for pid, command in children(self.process.pid) if "spawn_main" in command]

    def wait_for_log(self, text: str, times: int = 1, wait_s: float = GENEROUS_S) -> None:
        """Until the log has `text` so often."""
        until = time.monotonic() + wait_s
        while self.log.count(text) < times:
            assert time.monotonic() < until, f"not in the log: {text}\n{self.log}"
            time.sleep(0.02)

    def stop(self, wait_s: float = GENEROUS_S) -> int:
        self.terminate()
        try:
            return self.process.wait(wait_s)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise


def children(pid: int) -> list[tuple[int, str]]:
    """The children of a process, zombies left out: their ids and commands, the oldest first."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and command:
                found.append((int(folder.name), command))
    return sorted(found)


@contextlib.contextmanager
def running_proxy(settings: Mapping[str, str], *arguments: str) -> Iterator[Proxy]:
    """Start `sanic sanic_proxy.app` in an empty directory with nothing but `settings`."""
    with tempfile.TemporaryDirectory() as directory:
        proxy = start_proxy(Path(directory), settings, *(arguments or ("--single-process",)))
        try:
            wait_until_ready(proxy)
            yield proxy
        finally:
            proxy.stop()
            proxy.last_log = proxy.log


def start_proxy(
    directory: Path,
    settings: Mapping[str, str],
    *arguments: str,
    module: str = "sanic_proxy.app",
    log_to: int | None = None,
) -> Proxy:
    """Start `module`'s application in `directory`. Its log is a file there, or the descriptor `log_to`."""
    port = free_port()
    log_path = directory / "proxy.log"
    python_path = settings.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    command = [sys.executable, "-m", "sanic", module, f"--port={port}", *arguments]
    with log_path.open("wb") as file:
        log = file if log_to is None else log_to
        process = subprocess.Popen(
            command,
            cwd=directory,
            # With a state directory of its own: what another proxy has left in the user's is none of its.
            env=clean_environment(
                {
                    "SANIC_PROXY_LAME_DUCK_SECONDS": "0",
                    "XDG_STATE_HOME": str(directory / "home"),
                    **settings,
                    "PYTHONPATH": f"{_MINIMAL}{os.pathsep}{python_path}".rstrip(os.pathsep),
                }
            ),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    flags = " ".join(arguments).replace("--workers=", "--workers ").split()
    workers = int(flags[flags.index("--workers") + 1]) if "--workers" in flags else 1
    proxy = Proxy(port, process, log_path, directory, workers, secrets=secrets_in(settings))
    STARTED.append(proxy)
    return proxy


def wait_until_ready(proxy: Proxy) -> None:
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until:
        if proxy.process.poll() is not None:
            raise AssertionError(f"the proxy ended with {proxy.process.returncode}:\n{proxy.log}")
        if proxy.log.count("Worker ready") == proxy.workers:
            return
        time.sleep(0.03)
    raise AssertionError(f"the proxy did not start:\n{proxy.log}")
