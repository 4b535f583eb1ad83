"""Frames to the client: what is held back, what is sent, and how it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typing_extensions import override

from sanic_proxy.errors import ProxyError, ShuttingDown, UpstreamTimeout
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.server.request import ProxyRequest, Reply
from sanic_proxy.server.streaming import pump
from sanic_proxy.streams.filters import StreamFilter
from sanic_proxy.streams.sse import PING
from sanic_proxy.streams.stream import PINGS, Frames, Heartbeat, Stream
from tests.support import virtual_time


class Client:
    """A request and its response in one, that write down what is sent. `breaks_at` counts sends."""

    def __init__(self, breaks_at: int | None = None) -> None:
        self.record = RequestRecord("id", "POST", "/")
        self.fields: dict[str, str] = {}
        self.events: list[Any] = []
        self.breaks_at = breaks_at
        self.cut_by: ProxyError | None = None
        self.sent_at = 0.0
        self.on_writable: Callable[[], None] | None = None
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

    def push_last(self, frames: bytes) -> None:
        self.events += [bytes(frames)] if frames else []

    async def send(self, data: bytes, end_stream: bool) -> None:
        if self.breaks_at is not None and len(self.events) > self.breaks_at:
            raise ConnectionResetError
        self.events.append("end" if end_stream else bytes(data))
        self.sent_at = time.monotonic()

    def end_connection(self) -> None:
        self.events.append("close")

    def abort(self) -> None:
        self.events.append("abort")


class Scripted(Frames):
    """Frames, waits and failures, as they come."""

    def __init__(self, *steps: bytes | float | Exception) -> None:
        super().__init__(())
        self.steps = list(steps)
        self.closed = 0

    @override
    async def read_some(self, wait_s: float | None = None) -> bytes | None:
        while self.steps:
            step = self.steps.pop(0)
            if isinstance(step, Exception):
                raise step
            if isinstance(step, bytes):
                return step
            await asyncio.sleep(step)
        return b""

    @override
    def close(self) -> None:
        self.closed += 1


HEARTBEAT = Heartbeat(b"heartbeat", opening=b"opening")


async def pumped(
    client: Client,
    source: Scripted,
    *,
    commit_delay_s: float = 0.05,
    ping_s: float = 5.0,
    heartbeat: Heartbeat = PINGS,
    opening: bytes = b"",
) -> None:
    async def open_stream() -> Stream:
        stream = Stream(source, StreamFilter(), client.record, opening=opening)
        try:
            await stream.begin()
        except BaseException:
            stream.close()
            raise
        return stream

    await pump(
        cast("ProxyRequest", client),
        open_stream,
        commit_delay_s=commit_delay_s,
        ping_s=ping_s,
        headers=tuple,
        heartbeat=lambda: heartbeat,
    )


def events_of(*steps: bytes | float | Exception, client: Client | None = None, **options: Any) -> list[Any]:
    client = client or Client()
    virtual_time.run(pumped(client, Scripted(*steps), **options))
    return client.events


def test_the_head_goes_out_with_the_first_frame() -> None:
    assert events_of(b"a", b"b") == ["head", b"a", b"b", "end"]


def test_the_commit_comes_when_the_delay_is_over() -> None:
    assert events_of(0.1, b"a", b"b") == ["head", PING, b"a", b"b", "end"]


def test_an_opening_precedes_the_answer_once() -> None:
    options: dict[str, Any] = {"heartbeat": HEARTBEAT, "opening": HEARTBEAT.opening}
    assert events_of(b"a", **options) == ["head", b"openinga", "end"]
    assert events_of(0.1, b"a", **options) == ["head", b"opening", b"a", "end"]


def test_heartbeats_follow_the_opening_until_the_stream_begins() -> None:
    events = events_of(0.2, b"a", 0.2, b"b", ping_s=0.06, heartbeat=HEARTBEAT, opening=HEARTBEAT.opening)
    assert events[:3] == ["head", b"opening", b"heartbeat"]
    begun = events.index(b"a")
    assert set(events[3:begun]) <= {b"heartbeat"}
    assert set(events[begun + 1 : -2]) == {PING}
    assert events[-2:] == [b"b", "end"]


def test_the_proxys_own_waits_are_not_part_of_the_commit_delay() -> None:
    client = Client()
    client.record.waited_s = 0.4
    assert events_of(0.2, b"a", client=client) == ["head", b"a", "end"]
    assert events_of(0.2, b"a") == ["head", PING, b"a", "end"]


def test_without_delay_the_status_goes_at_once() -> None:
    assert events_of(0.01, b"a", commit_delay_s=0) == ["head", PING, b"a", "end"]


def test_a_silent_stream_is_pinged_once_it_has_begun() -> None:
    assert events_of(b"a", 0.12, b"b", ping_s=0.05) == ["head", b"a", PING, PING, b"b", "end"]
    assert events_of(0.12, b"a", commit_delay_s=0.5, ping_s=0.05) == ["head", b"a", "end"]


def test_a_stream_that_moves_is_not_pinged() -> None:
    steps = [step for _ in range(10) for step in (b"a", 0.02)]
    assert PING not in events_of(*steps, ping_s=0.1)


def test_a_failure_before_the_commit_is_raised() -> None:
    client = Client()
    with pytest.raises(UpstreamTimeout):
        events_of(UpstreamTimeout("late"), client=client)
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


def cancelled(client: Client, *, commit_delay_s: float) -> int:
    """How often the source of a stream was closed whose pump was cancelled."""
    source = Scripted(b"a", 10.0) if commit_delay_s == 0 else Scripted(10.0)

    async def leave() -> None:
        pumping = asyncio.ensure_future(pumped(client, source, commit_delay_s=commit_delay_s))
        await asyncio.sleep(0.02)
        pumping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pumping

    virtual_time.run(leave())
    return source.closed


def test_a_client_that_leaves_closes_the_source() -> None:
    client = Client()
    assert cancelled(client, commit_delay_s=5) == 1
    assert client.events == []


def test_a_stream_that_the_proxy_cuts_ends_with_an_error_frame() -> None:
    client = Client()
    client.cut_by = ShuttingDown("bye")
    assert cancelled(client, commit_delay_s=0) == 1
    *_, close, error, end = client.events
    assert (close, end) == ("close", "end")
    assert b"server_shutting_down" in error


def test_a_stream_that_is_cut_before_the_commit_is_not_begun() -> None:
    client = Client()
    client.cut_by = ShuttingDown("bye")
    assert cancelled(client, commit_delay_s=5) == 1
    assert client.events == []
