"""A real nginx that runs the example of scripts/, on ports and paths of a test."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.proxy import free_port

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests/data"
CONF = (ROOT / "scripts/deploy/nginx/nginx.conf").read_text("utf-8")
UPSTREAM = (ROOT / "scripts/deploy/nginx/nginx-upstream.conf").read_text("utf-8")

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt-get install nginx-light)")


@dataclass
class Nginx:
    """A running nginx, or one that is to be started."""

    port: int
    directory: Path
    process: subprocess.Popen[bytes]

    @property
    def include(self) -> Path:
        return self.directory / "upstream.conf"

    @property
    def log(self) -> str:
        return "".join(path.read_text("utf-8", "replace") for path in sorted(self.directory.glob("*.log")))

    @property
    def reload_command(self) -> str:
        return f"kill -HUP {self.process.pid}"

    def connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        return tls_context().wrap_socket(plain, server_hostname="localhost")

    def raw(self, data: bytes, wait_s: float = 3.0) -> bytes:
        """What comes back for raw bytes until nginx closes or `wait_s` pass."""
        with self.connect() as client:
            client.settimeout(wait_s)
            received = b""
            with contextlib.suppress(TimeoutError, ConnectionError, ssl.SSLError):
                client.sendall(data)
            with contextlib.suppress(TimeoutError, ConnectionError, ssl.SSLError):
                while piece := client.recv(65536):
                    received += piece
            return received


def tls_context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(DATA / "localhost-cert.pem"))


def rendered(directory: Path, port: int, changes: Mapping[str, str]) -> str:
    """The example with what a test has to change; each change must apply."""
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = "".join(
        f"{kind}_temp_path {directory}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = CONF
    for old, new in {
        "user www-data;": user,
        "/run/nginx.pid": f"{directory}/nginx.pid",
        "/var/log/nginx/": f"{directory}/",
        "/etc/nginx/sanic-proxy-upstream.conf": f"{directory}/upstream.conf",
        "/etc/nginx/tls/fullchain.pem": f"{DATA}/localhost-cert.pem",
        "/etc/nginx/tls/privkey.pem": f"{DATA}/localhost-key-and-cert.pem",
        "listen 443 ": f"listen 127.0.0.1:{port} ",
        "listen 80 ": f"listen 127.0.0.1:{free_port()} ",
        "server_name llm.example.com;": "server_name localhost;",
        "http {\n": f"http {{\n{temporary}",
        "worker_rlimit_nofile 65536;": "",
        "worker_connections 16384;": "worker_connections 512;",
        "worker_processes auto;": "worker_processes 2;",
        **changes,
    }.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def upstream_list(ports: Sequence[int]) -> str:
    """The example's list of instances, with the ports of a test."""
    lines = [line for line in UPSTREAM.splitlines() if line.startswith("server ")]
    assert len(lines) == 2
    return (
        "\n".join(re.sub(r":\d+", f":{port}", line) for port, line in zip(ports, lines, strict=False)) + "\n"
    )


@contextlib.contextmanager
def running_nginx(
    directory: Path, ports: Sequence[int], changes: Mapping[str, str] | None = None
) -> Iterator[Nginx]:
    """nginx in front of the instances at `ports`."""
    assert NGINX is not None
    port = free_port()
    (directory / "nginx.conf").write_text(rendered(directory, port, changes or {}))
    (directory / "upstream.conf").write_text(upstream_list(ports))
    command = [NGINX, "-p", str(directory), "-c", str(directory / "nginx.conf"), "-g", "daemon off;"]
    with (directory / "stderr.log").open("wb") as stderr:
        process = subprocess.Popen(command, stdout=stderr, stderr=stderr, start_new_session=True)
    nginx = Nginx(port, directory, process)
    try:
        _wait_until_it_listens(nginx)
        yield nginx
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _wait_until_it_listens(nginx: Nginx) -> None:
    until = time.monotonic() + 60
    while True:
        assert nginx.process.poll() is None, nginx.log
        try:
            nginx.connect().close()
        except OSError:
            assert time.monotonic() < until, nginx.log
            time.sleep(0.02)
        else:
            return
