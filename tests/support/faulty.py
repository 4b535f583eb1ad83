"""The faulty upstream in a thread of its own, so that tests may block; and further ways not to be reached."""

from __future__ import annotations

import asyncio
import contextlib
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
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(DATA / certificate)
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()
    ready = threading.Event()
    ports: list[int] = []

    async def serve() -> None:
        async with upstream.listening(context=context) as port:
            ports.append(port)
            ready.set()
            await stopping.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(5)
    try:
        yield upstream, ports[0]
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(5)


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port on which a connect is neither taken nor refused: its backlog is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as fillers:
        for _ in range(4):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield full.getsockname()[1]
