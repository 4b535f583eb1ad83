"""The address that the proxy listens on."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sanic.server.socket import bind_unix_socket

from sanic_proxy.server.address import listening_problem, shown_address
from tests.support.proxy import free_port


@pytest.fixture
def taken() -> Iterator[int]:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_only_a_port_in_use_is_a_problem(taken: int, host: str) -> None:
    problem = listening_problem(host, taken)
    assert problem == (
        f"cannot listen on {host}:{taken}: the port is in use by another process. "
        "Stop it, or set another --port or SANIC_PROXY_PORT"
    )
    assert listening_problem(host, free_port()) is None


def test_a_trial_leaves_the_port_free() -> None:
    port = free_port()
    for _ in range(3):
        assert listening_problem("127.0.0.1", port) is None
    socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize(
    ("host", "port", "reason"),
    [
        ("192.0.2.1", 8000, "no such address"),
        ("nowhere.invalid", 8000, "cannot be resolved"),
        ("x" * 70, 8000, "cannot be resolved"),
        ("127.0.0.1", 65536, "0 to 65535"),
    ],
)
def test_an_address_that_cannot_be_had_is_explained(host: str, port: int, reason: str) -> None:
    problem = listening_problem(host, port)
    assert problem is not None
    assert problem.startswith(f"cannot listen on {host}:{port}: ")
    assert reason in problem
    assert "\n" not in problem


def test_a_path_of_a_unix_socket_must_be_free_or_a_socket() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s"
        assert listening_problem("", 0, str(path)) is None
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            assert listening_problem("", 0, str(path)) is None
        path.unlink()
        path.write_text("")
        assert "not a socket" in str(listening_problem("", 0, str(path)))
        assert "does not exist" in str(listening_problem("", 0, f"{folder}/no/s"))


def test_the_longest_path_of_a_unix_socket_can_be_bound() -> None:
    with tempfile.TemporaryDirectory() as folder:
        name = "x" * (63 - len(folder) - 1)
        assert listening_problem("", 0, f"{folder}/{name}") is None
        bind_unix_socket(f"{folder}/{name}").close()
        assert "at most 63" in str(listening_problem("", 0, f"{folder}/{name}x"))


@pytest.mark.parametrize(
    ("host", "port", "unix", "is_tls", "shown"),
    [
        ("127.0.0.1", 8000, None, False, "http://127.0.0.1:8000"),
        ("::1", 8000, None, True, "https://[::1]:8000"),
        ("0.0.0.0", 80, None, False, "http://0.0.0.0:80 (all addresses of this machine)"),
        ("", 0, "/run/s.sock", False, "unix:/run/s.sock"),
    ],
)
def test_an_address_is_shown_as_a_url(
    host: str, port: int, unix: str | None, is_tls: bool, shown: str
) -> None:
    assert shown_address(host, port, unix, is_tls=is_tls) == shown
