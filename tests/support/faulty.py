"""The faulty upstream in a thread of its own, so that tests may block; and further ways not to be reached."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

from loadtest.faulty_upstream import FaultyUpstream

DATA = Path(__file__).parents[1] / "data"


@contextlib.contextmanager
def faulty_upstream(certificate: str | None = None) -> Iterator[tuple[FaultyUpstream, int]]:
    """A faulty upstream and its port; with `certificate` (a file of tests/data) behind TLS."""
    upstream = FaultyUpstream()
    stopping = asyncio.Event()
    started: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, int]] = queue.SimpleQueue()

    async def serve() -> None:
        async with upstream.listening(context=_context(certificate)) as port:
            started.put((asyncio.get_running_loop(), port))
            await stopping.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    loop, port = started.get(timeout=5)
    try:
        yield upstream, port
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(5)


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
