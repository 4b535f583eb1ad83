"""Clients in threads, each request on a connection of its own, judged to the last byte."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.proxy import Proxy
from tests.support.upstream import DONE

OUR_WORDS = "One of the load"

# Only what hangs takes so long: a busy machine does not.
GENEROUS_S = 60.0
ATTEMPTS = 4


def send_chat(
    port: int, model: str, *, stream: bool = False, tls: ssl.SSLContext | None = None, timeout_s: float = 60
) -> str | None:
    """Send one chat request; None for a whole answer, else what was wrong with it."""
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": OUR_WORDS}]}
    connection = (
        http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
        if tls is None
        else http.client.HTTPSConnection("localhost", port, timeout=timeout_s, context=tls)
    )
    try:
        headers = {"content-type": "application/json", "connection": "close"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            return f"{answer.status} {data[:300]!r}"
        if stream and not data.endswith(DONE):
            return f"cut: {data[-300:]!r}"
        return None
    except (OSError, http.client.HTTPException) as exc:
        return f"{type(exc).__name__} {exc}"
    finally:
        connection.close()


class Load:
    """`requesters` threads request whole answers of `model`, and `streamers` streams, in a loop."""

    def __init__(
        self,
        port: int,
        model: str,
        *,
        requesters: int = 3,
        streamers: int = 3,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.failures: list[str] = []
        self.whole = self.streams = 0
        self._port, self._model, self._tls = port, model, tls
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number >= requesters,), daemon=True)
            for number in range(requesters + streamers)
        ]

    def _run(self, stream: bool) -> None:
        while not self._is_over.is_set():
            failure = send_chat(self._port, self._model, stream=stream, tls=self._tls)
            if failure is not None:
                self.failures.append(failure)
            elif stream:
                self.streams += 1
            else:
                self.whole += 1

    def wait_for_some(self) -> None:
        """Until there have been some more answers of each kind."""
        whole, streams = self.whole + 3, self.streams + 3
        wait_until(lambda: self.whole >= whole and self.streams >= streams, 60)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(60)


def quickest_s(work: Callable[[], object], enough_s: float) -> float:
    """The seconds of the quickest of some attempts; the first below `enough_s` is the last.

    Other load makes work slower, never quicker: what is too slow by itself is so each time.
    """
    quickest = float("inf")
    for _ in range(ATTEMPTS):
        began = time.monotonic()
        work()
        quickest = min(quickest, time.monotonic() - began)
        if quickest < enough_s:
            break
    return quickest


def wait_until_still(count: Callable[[], int], still_s: float = 0.5) -> int:
    """Wait until `count()` has not changed for so long; gives what it is then."""
    last, since = count(), time.monotonic()
    while time.monotonic() - since < still_s:
        time.sleep(0.02)
        if (now := count()) != last:
            last, since = now, time.monotonic()
    return last


def wait_until(is_so: Callable[[], bool], wait_s: float = GENEROUS_S, step_s: float = 0.02) -> float:
    """Wait for it; the seconds that took."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() < began + wait_s, "it did not come about"
        time.sleep(step_s)
    return time.monotonic() - began


async def eventually(is_so: Callable[[], bool]) -> None:
    """Let the event loop run until it is so."""
    async with asyncio.timeout(GENEROUS_S):
        while not is_so():  # noqa: ASYNC110 - what changes it knows of no event
            await asyncio.sleep(0.01)


def can_connect(port: int) -> bool:
    """Whether something listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


def holder_of(client: socket.socket, pids: list[int]) -> int | None:
    """Which of the processes has the other end of a connection."""
    ends = [f":{end[1]:04X}" for end in (client.getpeername(), client.getsockname())]
    inode = None
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if [field[-5:] for field in fields[1:3]] == ends:
            inode = f"socket:[{fields[9]}]"
    return next((pid for pid in pids if inode in set(_open_in(pid))), None)


def _open_in(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                yield str(link.readlink())


def is_healthy(proxy: Proxy) -> bool:
    try:
        return proxy.request("GET", "/health", timeout_s=2).status == 200
    except OSError:
        return False
