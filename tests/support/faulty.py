"""The faulty upstream in a thread of its own, so that tests may block; and an unreachable address."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

from loadtest.faulty_upstream import FaultyUpstream

DATA = Path(__file__).parents[1] / "data"


@contextlib.contextmanager
def faulty_upstream(certificate: str | None = None) -> Iterator[tuple[FaultyUpstream, int]]:
    """A faulty upstream and its port; with `certificate` (a file of tests/data) behind TLS."""
    upstream = FaultyUpstream()
    upstream.server.start(_context(certificate))
    try:
        yield upstream, upstream.server.port
    finally:
        upstream.server.stop()


def _context(certificate: str | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(DATA / certificate)
    return context


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port on which a connect is neither taken nor refused: its backlog is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as fillers:
        for _ in range(4):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield full.getsockname()[1]
