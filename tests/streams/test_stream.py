"""A stream from its first content to its end, and the relay of its frames."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.config.saving import HoldBack
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.streams import stream
from sanic_proxy.streams.filters import ChatStreamFilter, StreamFilter
from sanic_proxy.streams.stream import Frames, Relay, Stream
from sanic_proxy.upstream.client import Response
from tests.support import virtual_time
from tests.support.streams import Client, Provider
from tests.support.upstream import DONE, frame, text_stream

# The relay


def relayed(
    work: Callable[[Client, Provider, asyncio.Task[None]], Awaitable[object]], provider: Provider
) -> Client:
    async def run() -> Client:
        client = Client()
        running = asyncio.ensure_future(Relay(provider, ChatStreamFilter()).run(client))
        await asyncio.sleep(0)
        await work(client, provider, running)
        assert provider.receiver is None
        assert client.on_writable is None
        return client

    return virtual_time.run(run())


def test_a_relay_moves_frames_in_the_turn_they_come_in() -> None:
    async def work(client: Client, provider: Provider, running: asyncio.Task[None]) -> None:
        assert provider.receiver is not None
        for count, piece in enumerate(text_stream("a", "b")[:-1], 1):
            provider.receiver.received(piece)
            assert len(client.sent) == count
        provider.receiver.received(DONE)
        assert client.has_ended
        await running

    assert b"".join(relayed(work, Provider()).sent) == b"".join(text_stream("a", "b"))


@pytest.mark.row(36)
@pytest.mark.parametrize("comes", [True, False])
def test_a_slow_client_holds_the_provider(comes: bool) -> None:
    async def work(client: Client, provider: Provider, running: asyncio.Task[None]) -> None:
        client.is_slow = True
        for piece in text_stream("a")[:1] if comes else []:
            assert provider.receiver is not None
            provider.receiver.received(piece)
        await asyncio.sleep(0.05)
        assert len(client.sent) == 1
        assert provider.events == (["pause"] if comes else [])
        client.drain()
        assert provider.events == (["pause", "resume"] if comes else [])
        if (receiver := provider.receiver) is not None:
            for piece in text_stream("a")[1:]:
                receiver.received(piece)
        await running

    client = relayed(work, Provider(*text_stream("a"), comes=comes))
    assert b"".join(client.sent) == b"".join(text_stream("a"))


def test_the_time_a_client_takes_is_not_the_providers() -> None:
    async def work(client: Client, provider: Provider, running: asyncio.Task[None]) -> None:
        assert provider.receiver is not None
        client.is_slow = True
        provider.receiver.received(frame({"content": "a"}))
        await asyncio.sleep(0.2)
        assert not running.done()
        client.drain()
        with pytest.raises(errors.UpstreamTimeout):
            await running

    assert not relayed(work, Provider(idle_s=0.08)).has_ended


EMPTY = frame({"role": "assistant", "content": ""})
PROGRESS = [
    frame({"content": "a"}),
    frame({"reasoning_content": "a"}),
    frame({"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}),
    frame(finish="stop"),
]


@pytest.mark.row(6)
def test_a_stream_that_brings_nothing_is_given_up() -> None:
    async def work(client: Client, provider: Provider, running: asyncio.Task[None]) -> None:
        assert provider.receiver is not None
        began = time.monotonic()
        while not running.done():
            provider.receiver.received(EMPTY + b": keep-alive\n\n")
            await asyncio.sleep(0.01)
        assert 0.19 < time.monotonic() - began < 0.4
        with pytest.raises(errors.UpstreamStalled):
            await running

    relayed(work, Provider(stall_s=0.2))


def test_a_little_progress_is_enough() -> None:
    async def work(client: Client, provider: Provider, running: asyncio.Task[None]) -> None:
        assert provider.receiver is not None
        for piece in PROGRESS[:3]:
            for _ in range(8):
                provider.receiver.received(EMPTY)
                await asyncio.sleep(0.01)
            provider.receiver.received(piece)
        assert not running.done()
        provider.receiver.received(PROGRESS[3] + DONE)
        await running

    assert relayed(work, Provider(stall_s=0.2)).has_ended


def test_frames_that_were_taken_on_trust_count() -> None:
    async def work(client: Client, provider: Provider, running: asyncio.Task[None]) -> None:
        assert provider.receiver is not None
        await asyncio.sleep(0.08)
        provider.receiver.received(PROGRESS[0])
        for _ in range(16):
            await asyncio.sleep(0.02)
            provider.receiver.received(b": keep-alive\n\n")
        assert not running.done()  # 0.4 s have not passed since the frame
        provider.receiver.received(PROGRESS[3] + DONE)
        await running

    assert relayed(work, Provider(stall_s=0.42)).has_ended


def test_a_polled_source_can_stall_as_well() -> None:
    class Chatty(Provider):
        @override
        async def read_some(self, wait_s: float | None = None) -> bytes | None:
            await asyncio.sleep(0.01)
            return b": keep-alive\n\n"

    async def work(client: Client, provider: Provider, running: asyncio.Task[None]) -> None:
        with pytest.raises(errors.UpstreamStalled):
            await running

    relayed(work, Chatty(comes=False, stall_s=0.1))


def test_a_client_that_is_slow_does_not_make_its_provider_stall() -> None:
    async def work(client: Client, provider: Provider, running: asyncio.Task[None]) -> None:
        assert provider.receiver is not None
        client.is_slow = True
        provider.receiver.received(PROGRESS[0])
        await asyncio.sleep(0.4)
        assert not running.done()
        client.drain()
        provider.receiver.received(PROGRESS[3] + DONE)
        await running

    assert relayed(work, Provider(stall_s=0.2)).has_ended


ROLE = frame({"role": "assistant", "content": ""})
EMPTY = frame({})
HELLO = frame({"content": "Hello"})
CALL = frame(
    {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}]}
)


def opened(*pieces: bytes) -> tuple[bytes, errors.ProxyError | None, int]:
    """What `begin` has read of `pieces`, its failure, and how many pieces are left."""

    async def run() -> tuple[bytes, errors.ProxyError | None, int]:
        provider = Provider(*pieces)
        opening = Stream(provider, ChatStreamFilter(), RequestRecord("id", "POST", "/"))
        try:
            await opening.begin()
        except errors.ProxyError as exc:
            return opening.begun, exc, len(provider.pieces)
        return opening.begun, None, len(provider.pieces)

    return virtual_time.run(run())


@pytest.mark.parametrize(
    ("before", "first"),
    [
        ((), HELLO),
        ((ROLE,), HELLO),
        ((ROLE, b": keep-alive\n\n", EMPTY), HELLO),
        ((ROLE,), CALL),
        ((ROLE,), frame({"reasoning_content": "Hm"})),
        ((ROLE,), frame(finish="stop")),
    ],
)
def test_frames_without_content_are_held_back_until_content_comes(
    before: tuple[bytes, ...], first: bytes
) -> None:
    held = b"".join(piece for piece in before if piece.startswith(b"data"))
    assert opened(*before, first, HELLO) == (held + first, None, 1)


@pytest.mark.parametrize(
    "ending",
    [(), (b'data: {"error": {"message": "overloaded", "code": 503}}\n\n',), (b"data: {half\n\n",)],
    ids=["cut", "error frame", "malformed"],
)
def test_a_failure_before_content_shows_nothing(ending: tuple[bytes, ...]) -> None:
    shown, failure, _ = opened(ROLE, EMPTY, *ending)
    assert shown == b""
    assert failure is not None


def test_a_failure_in_the_piece_that_brings_content_follows_it() -> None:
    async def run() -> None:
        client = Client()
        failures: list[errors.ProxyError] = []
        failing = Stream(
            Provider(ROLE, HELLO + b"data: {half\n\n"), ChatStreamFilter(), RequestRecord("id", "POST", "/")
        )
        failing.on_failure = failures.append
        await failing.begin()
        assert failing.begun == ROLE + HELLO
        with pytest.raises(errors.UpstreamBadFrame) as caught:
            await failing.pump(client)
        assert failures == [caught.value]
        assert client.sent == []

    virtual_time.run(run())


def test_what_is_held_back_is_bounded() -> None:
    shown, _, left = opened(*[EMPTY] * (stream.MAX_HELD_BYTES // len(EMPTY) + 1), HELLO)
    assert left == 1
    assert stream.MAX_HELD_BYTES < len(shown) <= stream.MAX_HELD_BYTES + len(EMPTY)


def test_what_the_filters_counted_is_in_the_record_once() -> None:
    record = RequestRecord("id", "POST", "/")
    usage = b'data: {"choices":[],"usage":{"total_tokens":3}}\n\n'

    async def run() -> None:
        counted = Stream(
            Provider(b"data: {}\n\n", HELLO, usage, DONE, comes=False), ChatStreamFilter(), record
        )
        await counted.begin()
        with pytest.raises(errors.ProxyError):
            await Stream(Provider(), ChatStreamFilter(), record).begin()
        await counted.pump(Client())
        counted.close()
        counted.close()

    virtual_time.run(run())
    assert record.usage == {"total_tokens": 3}
    assert record.dropped_frames == 1


class Upper(StreamFilter):
    """A translation: another shape for every frame, and one more at the end."""

    @override
    def feed(self, data: bytes) -> bytes:
        return data.upper()

    @override
    def end(self) -> bytes:
        return b"END"


@pytest.mark.parametrize("comes", [True, False])
def test_a_second_filter_translates_what_passes_the_first(comes: bool) -> None:
    async def run() -> list[bytes]:
        client, provider = Client(), Provider(*([] if comes else text_stream("b")[1:]), comes=comes)
        provider.pieces.insert(0, HELLO)
        translated = Stream(provider, ChatStreamFilter(), RequestRecord("id", "POST", "/"))
        translated.add_filter(Upper())
        await translated.begin()
        client.sent.append(translated.begun)
        pumping = asyncio.ensure_future(translated.pump(client))
        await asyncio.sleep(0)
        for piece in text_stream("b")[1:] if comes else []:
            assert provider.receiver is not None
            provider.receiver.received(piece)
        await pumping
        return client.sent

    sent = b"".join(virtual_time.run(run()))
    assert sent == (HELLO + b"".join(text_stream("b")[1:])).upper() + b"END"


def test_frames_of_our_own_are_sent_one_by_one() -> None:
    async def run() -> list[bytes]:
        client = Client()
        own = Stream.of_frames(iter([b"a", b"b", b"c"]), RequestRecord("id", "POST", "/"), pause_s=0.01)
        await own.begin()
        await own.pump(client)
        return [own.begun, *client.sent]

    assert virtual_time.run(run()) == [b"a", b"b", b"c", b""]


@pytest.mark.row(6)
def test_the_clock_for_the_first_content_stops_with_content_alone() -> None:
    class Counted(Provider):
        begun_with = 0

        @override
        def begin_content(self) -> None:
            self.begun_with = self.begun_with or len(self.pieces)

    async def run(source: Counted) -> None:
        await Stream(source, ChatStreamFilter(), RequestRecord("id", "POST", "/")).begin()

    source = Counted(ROLE, b": ping\n\n", EMPTY, HELLO, b"left")
    virtual_time.run(run(source))
    assert source.begun_with == 1


@pytest.mark.parametrize("comes", [True, False])
@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ([frame({"content": "a"})], errors.UpstreamDisconnected),
        ([frame({"content": "a"}), b"data: {nope}\n\n"], errors.UpstreamBadFrame),
        ([frame(finish="stop")], None),
    ],
    ids=["cut", "bad frame", "no done"],
)
def test_a_relay_ends_as_its_stream_does(
    comes: bool, pieces: list[bytes], kind: type[Exception] | None
) -> None:
    async def work(client: Client, provider: Provider, running: asyncio.Task[None]) -> None:
        if provider.receiver is not None:
            receiver = provider.receiver
            for piece in pieces:
                receiver.received(piece)
            receiver.ended(None)
            receiver.received(DONE)  # too late
        if kind is None:
            await running
        else:
            with pytest.raises(kind):
                await running
        assert client.has_ended == (kind is None)

    client = relayed(work, Provider(*pieces, comes=comes))
    assert client.sent == [pieces[0]] if kind else [pieces[0], DONE]


def test_a_relay_whose_client_left_takes_nothing_more() -> None:
    async def work(client: Client, provider: Provider, running: asyncio.Task[None]) -> None:
        receiver = provider.receiver
        assert receiver is not None
        running.cancel()
        receiver.received(frame({"content": "late"}))
        with pytest.raises(asyncio.CancelledError):
            await running
        receiver.received(DONE)
        receiver.ended(errors.UpstreamDisconnected("cut"))

    relayed(work, Provider())


# Content that is held back


class Slow(Response):
    """A piece each second, the first one at once."""

    __slots__ = ("_due_at", "_pieces")

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self._due_at = 0.0

    @override
    async def read_some(self, wait_s: float | None = None) -> bytes | None:
        now = asyncio.get_running_loop().time
        left_s = max(0.0, self._due_at - now())
        if wait_s is not None and wait_s < left_s:
            await asyncio.sleep(wait_s)
            return None
        await asyncio.sleep(left_s)
        self._due_at = now() + 1.0
        return self._pieces.pop(0) if self._pieces else b""


@pytest.mark.parametrize(
    ("hold_back", "held"),
    [
        (HoldBack(seconds=1.5), 2),
        (HoldBack(seconds=60), 6),
        (HoldBack(frames=3), 3),
        (HoldBack(), 6),
    ],
    ids=["seconds", "more seconds", "frames", "all"],
)
def test_content_is_held_back_for_as_long_as_the_model_says(hold_back: HoldBack, held: int) -> None:
    """A word comes each second, the first one at once."""
    pieces = [frame({"content": word}) for word in ("a", "b", "c", "d")]

    async def run() -> None:
        frames = [*pieces, frame(finish="stop"), DONE]
        made = Stream(Slow(frames), ChatStreamFilter(), RequestRecord("id", "POST", "/"))
        await made.begin()
        assert made.begun == pieces[0]
        await made.hold(hold_back)
        assert made.begun.count(b"\n\n") == held
        assert b"".join([piece async for piece in made.begun_frames()]).endswith(DONE)

    virtual_time.run(run())


@pytest.mark.parametrize("hold_back", [HoldBack(seconds=60), HoldBack(frames=20), HoldBack()])
def test_a_failure_within_the_hold_back_is_raised(hold_back: HoldBack) -> None:
    async def run() -> None:
        made = Stream(Frames([frame({"content": "a"})]), ChatStreamFilter(), RequestRecord("id", "POST", "/"))
        await made.begin()
        with pytest.raises(errors.UpstreamDisconnected):
            await made.hold(hold_back)

    virtual_time.run(run())
