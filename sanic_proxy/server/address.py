"""The address that the proxy listens on: whether it can be had, and how it is shown.

Sanic binds it late, and reports a failure as a traceback or in several lines, depending on the way it was
started. So it is tried out first, which is not a reservation: where another process takes it in between, the
error is Sanic's.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from contextlib import closing
from pathlib import Path

_UNSPECIFIED = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound


def listening_problem(host: str, port: int, unix: str | None = None) -> str | None:
    """Why the proxy cannot listen there, and what to do; None if it can."""
    if unix:
        return _unix_problem(Path(unix))
    try:
        with closing(socket.socket(_family(host))) as probe:
            probe.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # as Sanic: old connections do not count
            probe.bind((host, port))
    except (OSError, OverflowError, UnicodeError) as exc:
        return f"cannot listen on {_joined(host, port)}: {_reason(exc)}"
    return None


# The kernel's limit, less the suffix of the temporary name under which Sanic binds it.
_MAX_UNIX_PATH_BYTES = 107 - 44


def _unix_problem(path: Path) -> str | None:
    size_bytes = len(os.fsencode(path.absolute()))
    if size_bytes > _MAX_UNIX_PATH_BYTES:
        return (
            f"cannot listen on {path}: the absolute path has {size_bytes} bytes, and that of a socket may "
            f"have at most {_MAX_UNIX_PATH_BYTES}"
        )
    if not path.absolute().parent.is_dir():
        return f"cannot listen on {path}: the folder {path.absolute().parent} does not exist"
    if path.exists() and not stat.S_ISSOCK(path.lstat().st_mode):
        return f"cannot listen on {path}: it exists and is not a socket. Remove it, or choose another path"
    return None


def _reason(exc: Exception) -> str:
    if isinstance(exc, socket.gaierror | UnicodeError):
        return (
            "the host name cannot be resolved. Set --host or SANIC_PROXY_HOST to an address of this machine"
        )
    if isinstance(exc, OverflowError):
        return "a port is a number from 0 to 65535. Set --port or SANIC_PROXY_PORT"
    code = exc.errno if isinstance(exc, OSError) else None
    if code == errno.EADDRINUSE:
        return "the port is in use by another process. Stop it, or set another --port or SANIC_PROXY_PORT"
    if code == errno.EADDRNOTAVAIL:
        return "this machine has no such address. Set another --host or SANIC_PROXY_HOST"
    if code in {errno.EACCES, errno.EPERM}:
        return "permission denied. Ports below 1024 need privileges: set another --port or SANIC_PROXY_PORT"
    return f"{getattr(exc, 'strerror', None) or type(exc).__name__}"


def _family(host: str) -> socket.AddressFamily:
    try:
        return socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:  # a name, which Sanic resolves to an IPv4 address
        return socket.AF_INET


def shown_address(host: str, port: int, unix: str | None = None, *, is_tls: bool = False) -> str:
    """The address as a URL, for the operator."""
    if unix:
        return f"unix:{unix}"
    every = " (all addresses of this machine)" if host in _UNSPECIFIED else ""
    return f"{'https' if is_tls else 'http'}://{_joined(host, port)}{every}"


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
