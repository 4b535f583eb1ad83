"""Frames to the client: what is held back, what is sent, and how it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sanic_proxy.errors import ProxyError, ShuttingDown, UpstreamTimeout
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.server.request import ProxyRequest, Reply
from sanic_proxy.server.streaming import pump
from sanic_proxy.streams.stream import PING


class Client:
    """A request and its response in one, that write down what is sent. `breaks_at` counts sends."""

    def __init__(self, breaks_at: int | None = None) -> None:
        self.record = RequestRecord("id", "POST", "/")
        self.events: list[Any] = []
        self.breaks_at = breaks_at
        self.cut_by: ProxyError | None = None
        self.sent_at = 0.0
        self.app = SimpleNamespace(ctx=SimpleNamespace())

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def begin(self, response: Reply, first: bytes) -> None:
        response.stream = cast("Any", self)
        self.events += ["head", bytes(first)]
        self.sent_at = time.monotonic()

    def push(self, frames: bytes) -> None:
        self.events.append(bytes(frames))
        self.sent_at = time.monotonic()

    async def send(self, data: bytes, end_stream: bool) -> None:
        if self.breaks_at is not None and len(self.events) > self.breaks_at:
            raise ConnectionResetError
        self.events.append("end" if end_stream else bytes(data))
        self.sent_at = time.monotonic()

    def end_connection(self) -> None:
        self.events.append("close")

    def abort(self) -> None:
        self.events.append("abort")


async def told(*steps: bytes | float | Exception) -> AsyncGenerator[bytes, None]:
    for step in steps:
        if isinstance(step, Exception):
            raise step
        if isinstance(step, float):
            await asyncio.sleep(step)
        else:
            yield step


def events_of(
    *steps: bytes | float | Exception,
    commit_delay_s: float = 0.05,
    ping_s: float | None = None,
    client: Client | None = None,
) -> list[Any]:
    client = client or Client()
    request = cast("ProxyRequest", client)
    asyncio.run(pump(request, told(*steps), commit_delay_s=commit_delay_s, ping_s=ping_s, headers=tuple))
    return client.events


def test_fillers_wait_for_the_first_frame() -> None:
    assert events_of(PING, b"a", b"b") == ["head", bytes(PING) + b"a", b"b", "end"]


def test_the_commit_comes_when_the_delay_is_over() -> None:
    assert events_of(PING, 0.1, b"a") == ["head", bytes(PING), b"a", "end"]


def test_the_proxys_own_waits_are_not_part_of_the_commit_delay() -> None:
    client = Client()
    client.record.waited_s = 0.4
    assert events_of(0.2, b"a", client=client) == ["head", b"a", "end"]
    assert events_of(0.2, b"a") == ["head", b"", b"a", "end"]


def test_without_delay_the_status_goes_at_once() -> None:
    assert events_of(0.01, b"a", commit_delay_s=0) == ["head", b"", b"a", "end"]


def test_a_silent_stream_is_pinged_once_it_has_begun() -> None:
    assert events_of(b"a", 0.12, b"b", ping_s=0.05) == ["head", b"a", bytes(PING), bytes(PING), b"b", "end"]
    assert events_of(0.12, b"a", commit_delay_s=0.5, ping_s=0.05) == ["head", b"a", "end"]


def test_a_stream_that_moves_is_not_pinged() -> None:
    steps = [step for _ in range(10) for step in (b"a", 0.02)]
    assert PING not in events_of(*steps, ping_s=0.1)


def test_a_failure_before_the_commit_is_raised() -> None:
    client = Client()
    with pytest.raises(UpstreamTimeout):
        events_of(PING, UpstreamTimeout("late"), client=client)
    assert client.events == []


@pytest.mark.row(61)
@pytest.mark.parametrize("exc", [UpstreamTimeout("late"), ZeroDivisionError("a bug")])
def test_a_failure_after_it_is_a_frame_and_a_closed_connection(exc: Exception) -> None:
    *_, close, error, end = events_of(b"a", exc)
    assert (close, end) == ("close", "end")
    assert error.startswith(b'data: {"error":')
    assert b"a bug" not in error


def test_an_error_frame_that_cannot_be_written_breaks_the_connection_off() -> None:
    assert events_of(b"a", b"b", client=Client(breaks_at=1))[-1] == "abort"


def cancelled(client: Client, *, commit_delay_s: float) -> list[str]:
    """What became of a stream's frames whose pump was cancelled."""
    closed: list[str] = []

    async def frames() -> AsyncGenerator[bytes, None]:
        try:
            yield PING
            await asyncio.sleep(10)
        finally:
            closed.append("closed")

    async def leave() -> None:
        request = cast("ProxyRequest", client)
        pumping = asyncio.ensure_future(
            pump(request, frames(), commit_delay_s=commit_delay_s, ping_s=None, headers=tuple)
        )
        await asyncio.sleep(0.02)
        pumping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pumping

    asyncio.run(leave())
    return closed


def test_a_client_that_leaves_closes_the_frames() -> None:
    client = Client()
    assert cancelled(client, commit_delay_s=5) == ["closed"]
    assert client.events == []


def test_a_stream_that_the_proxy_cuts_ends_with_an_error_frame() -> None:
    client = Client()
    client.cut_by = ShuttingDown("bye")
    assert cancelled(client, commit_delay_s=0) == ["closed"]
    *_, close, error, end = client.events
    assert (close, end) == ("close", "end")
    assert b"server_shutting_down" in error


def test_a_stream_that_is_cut_before_the_commit_is_not_begun() -> None:
    client = Client()
    client.cut_by = ShuttingDown("bye")
    assert cancelled(client, commit_delay_s=5) == ["closed"]
    assert client.events == []
