"""A stream whose source is replaced when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.observability.record import Attempt, RequestRecord
from sanic_proxy.streams.filters import ChatStreamFilter, StreamFilter
from sanic_proxy.streams.saved import Resume, SavedStream
from sanic_proxy.streams.seam import Seam, SentText
from sanic_proxy.streams.stream import Stream
from sanic_proxy.upstream.connection import Receiver
from tests.support import virtual_time
from tests.support.streams import Client, Provider
from tests.support.upstream import DONE, frame, text_stream

T = TypeVar("T")
HALF = text_stream("a", "b", "c")[:3]  # the opening and two words
REST = [frame({"role": "assistant", "content": ""}), frame({"content": "c"}), frame(finish="stop"), DONE]
COMMENT = b": stream continued at character 2 by other/model\n"


class Source(Provider):
    """It says when it is attached, and how often it was closed."""

    closed = 0
    attached: asyncio.Event | None = None

    @override
    def attach(self, receiver: Receiver | None) -> bool:
        if self.attached is not None and receiver is not None:
            self.attached.set()
        return super().attach(receiver)

    @override
    def close(self) -> None:
        self.closed += 1


class Saver:
    """Gives a stream its next sources, one after the other, and keeps what it was called with."""

    def __init__(self, record: RequestRecord, *sources: Source, continues: bool = True) -> None:
        self.record = record
        self.sources = list(sources)
        self.continues = continues
        self.failures: list[errors.ProxyError] = []
        self.texts: list[str] = []

    async def resume(self, error: errors.ProxyError, sent: SentText) -> Stream | None:
        self.failures.append(error)
        self.texts.append(sent.text)
        await asyncio.sleep(0)
        if not self.sources:
            return None
        later = Stream(self.sources.pop(0), ChatStreamFilter(), self.record)
        later.add_filter(Seam(sent, continues=self.continues))
        await later.begin()
        self.record.attempts.append(Attempt("other/model", "ok"))
        return later


def new_record() -> RequestRecord:
    return RequestRecord("id", "POST", "/")


def saved(source: Source, resume: Resume, record: RequestRecord, *filters: StreamFilter) -> SavedStream:
    stream = SavedStream(Stream(source, ChatStreamFilter(), record), resume)
    for each in filters:
        stream.add_filter(each)
    return stream


async def pumped(stream: Stream) -> Client:
    """A client that has had all of a stream."""
    client = Client()
    await stream.begin()
    client.sent.append(stream.begun)
    try:
        await stream.pump(client)
    finally:
        stream.close()
    assert sum(map(len, client.sent)) == len(stream.begun) + stream.sent_bytes
    return client


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return virtual_time.run(work())


def test_a_stream_that_does_not_fail_is_passed_unchanged() -> None:
    async def work() -> None:
        record = new_record()
        saver = Saver(record)
        client = await pumped(saved(Source(*text_stream("a", "b"), comes=False), saver.resume, record))
        assert b"".join(client.sent) == b"".join(text_stream("a", "b"))
        assert saver.failures == []

    run(work)


@pytest.mark.row(9)
def test_a_stream_goes_on_where_it_broke_off() -> None:
    async def work() -> None:
        record = new_record()
        first, second = Source(*HALF, comes=False), Source(*REST, comes=False)
        saver = Saver(record, second)
        client = await pumped(saved(first, saver.resume, record))
        frames = b"".join(client.sent)
        assert frames.startswith(b"".join(HALF))
        assert frames.count(COMMENT) == 1
        assert frames.index(COMMENT) < frames.index(DONE)
        assert frames.endswith(DONE)
        assert [type(failure) for failure in saver.failures] == [errors.UpstreamDisconnected]
        assert saver.texts == ["ab"]
        assert (first.closed > 0, second.closed > 0) == (True, True)

    run(work)


def test_a_source_that_delivers_by_itself_is_replaced_as_well() -> None:
    async def work() -> list[bytes]:
        record, client = new_record(), Client()
        first, second = Source(*HALF[:2]), Source(*REST[:2])
        saver = Saver(record, second)
        stream = saved(first, saver.resume, record)
        await stream.begin()
        client.sent.append(stream.begun)
        pumping = asyncio.ensure_future(stream.pump(client))
        await asyncio.sleep(0)
        assert first.receiver is not None
        first.receiver.received(HALF[2])
        first.receiver.ended(errors.UpstreamDisconnected("cut"))
        second.attached = asyncio.Event()
        await second.attached.wait()
        assert second.receiver is not None
        for piece in REST[2:]:
            second.receiver.received(piece)
        await pumping
        stream.close()
        return client.sent

    frames = b"".join(run(work))
    assert frames.startswith(b"".join(HALF))
    assert frames.endswith(COMMENT + DONE)


def test_a_later_source_may_fail_too() -> None:
    async def work() -> None:
        record = new_record()
        sources = [Source(*REST[:2], comes=False), Source(frame({"content": "d"}), *REST[2:], comes=False)]
        saver = Saver(record, *sources)
        client = await pumped(saved(Source(*HALF, comes=False), saver.resume, record))
        frames = b"".join(client.sent)
        assert saver.texts == ["ab", "abc"]
        assert frames.count(b": stream continued at character ") == 2
        assert frames.endswith(DONE)

    run(work)


def test_without_another_source_the_first_failure_is_raised() -> None:
    async def work() -> None:
        record, client = new_record(), Client()
        saver = Saver(record)
        stream = saved(Source(*HALF, comes=False), saver.resume, record)
        await stream.begin()
        with pytest.raises(errors.UpstreamDisconnected) as caught:
            await stream.pump(client)
        assert saver.failures == [caught.value]
        assert not client.has_ended

    run(work)


def test_the_failure_of_the_frame_behind_the_first_content_counts() -> None:
    async def work() -> None:
        record = new_record()
        saver = Saver(record, Source(frame({"content": "b"}), *REST[1:], comes=False))
        client = await pumped(
            saved(Source(HALF[0] + HALF[1] + b"data: {half\n\n", comes=False), saver.resume, record)
        )
        assert [type(failure) for failure in saver.failures] == [errors.UpstreamBadFrame]
        assert b"".join(client.sent).endswith(DONE)

    run(work)


def test_a_stream_that_fails_before_its_content_is_not_resumed() -> None:
    async def work() -> None:
        record = new_record()
        saver = Saver(record)
        with pytest.raises(errors.UpstreamDisconnected):
            await saved(Source(HALF[0], comes=False), saver.resume, record).begin()
        assert saver.failures == []

    run(work)


def test_usage_and_dropped_frames_of_all_attempts_are_in_the_record() -> None:
    async def work() -> RequestRecord:
        record = new_record()
        counted = (
            b'data: {"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":1,"total_tokens":5}}\n\n'
        )
        second = Source(*REST[:3], b"data: {}\n\n", counted, DONE, comes=False)
        saver = Saver(record, second)
        await pumped(saved(Source(*HALF, b"data: {}\n\n", comes=False), saver.resume, record))
        return record

    record = run(work)
    assert record.usage == {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}
    assert record.dropped_frames == 2


class Upper(StreamFilter):
    """A translation: another shape for every frame, and one more at the end."""

    @override
    def feed(self, data: bytes) -> bytes:
        return data.upper()

    @override
    def end(self) -> bytes:
        return b"END"

    @override
    def failed(self, error: errors.ProxyError) -> bytes:
        return b"FAILED"


def test_a_translation_goes_through_all_attempts() -> None:
    async def work() -> None:
        record = new_record()
        saver = Saver(record, Source(*REST, comes=False))
        client = await pumped(saved(Source(*HALF, comes=False), saver.resume, record, Upper()))
        frames = b"".join(client.sent)
        assert frames.startswith(b"".join(HALF).upper())
        assert saver.texts == ["ab"]
        assert COMMENT in frames
        assert frames.endswith(DONE.upper() + b"END")
        assert frames.count(b"END") == 1

    run(work)


def test_a_translation_ends_a_stream_that_could_not_go_on() -> None:
    async def work() -> None:
        record = new_record()
        stream = saved(Source(*HALF, comes=False), Saver(record).resume, record, Upper())
        await stream.begin()
        failed = stream.failed
        with pytest.raises(errors.UpstreamDisconnected) as caught:
            await stream.pump(Client())
        stream.close()
        assert failed(caught.value) == b"FAILED"

    run(work)


def test_a_client_that_leaves_while_the_next_source_is_sought_ends_it() -> None:
    async def work() -> None:
        record, waiting = new_record(), asyncio.Event()

        async def resume(error: errors.ProxyError, sent: SentText) -> Stream | None:
            waiting.set()
            await asyncio.sleep(3600)
            return None

        source = Source(*HALF, comes=False)
        stream = saved(source, resume, record)
        pumping = asyncio.ensure_future(pumped(stream))
        await waiting.wait()
        assert source.closed  # it is not read any more
        pumping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pumping

    run(work)
