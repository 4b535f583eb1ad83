"""Heartbeats, and the guard on a stream's end."""

from __future__ import annotations

import asyncio
import json

import pytest

from sanic_proxy import errors, streaming
from sanic_proxy.streaming import PING, ChatGuard, Filler, beats_until
from tests.support.upstream import DONE, frame, text_stream


def fed(*pieces: bytes) -> tuple[bytes, ChatGuard]:
    guard = ChatGuard()
    return b"".join(guard.feed(piece) for piece in pieces), guard


@pytest.mark.parametrize("size", [1, 2, 7, 64, 100_000])
def test_a_proper_stream_passes_whole(size: int) -> None:
    data = b"".join(text_stream("Hello ", "wörld"))
    out, guard = fed(*(data[i : i + size] for i in range(0, len(data), size)))
    assert out == data
    assert guard.is_done
    assert guard.end() == b""


def test_what_follows_done_is_dropped() -> None:
    out, guard = fed(*text_stream("a"), frame({"content": "late"}))
    assert guard.is_done
    assert out.startswith(b"".join(text_stream("a")))


def test_a_cut_at_any_byte_before_the_finish_is_no_end() -> None:
    data = b"".join(text_stream("a")[:-2])
    for end in range(len(data)):
        guard = fed(data[:end])[1]
        with pytest.raises(errors.UpstreamError):
            guard.end()


def test_a_finish_reason_is_an_end_and_gets_its_done() -> None:
    assert fed(*text_stream("a")[:-1])[1].end() == DONE


def test_a_last_frame_may_lack_its_blank_line() -> None:
    last = frame(finish="stop")
    assert fed(frame({"content": "a"}), last[:-2])[1].end() == last + DONE
    assert fed(frame(finish="stop"), b"data: [DONE]")[1].end() == DONE


def test_no_event_stream_at_all_is_a_bad_response() -> None:
    with pytest.raises(errors.UpstreamBadResponse):
        fed(b"<html>")[1].end()
    with pytest.raises(errors.UpstreamBadResponse):
        fed()[1].end()


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (b"data: {\n\n", errors.UpstreamBadFrame),
        (b"data: [1]\n\n", errors.UpstreamBadFrame),
        (b'data: {"choices":[],"x":NaN}\n\n', errors.UpstreamBadFrame),
        (b'data: {"choices":["\xff"]}\n\n', errors.UpstreamBadFrame),
        (b'data: {"error":{"message":"no","type":"t"}}\n\n', errors.UpstreamReportedError),
        (b'event: error\ndata: {"message":"no"}\n\n', errors.UpstreamError),
        (b'data: {"error":{"message":"no","code":429}}\n\n', errors.RateLimited),
        (b'data: {"error":{"message":"no","code":"invalid_api_key"}}\n\n', errors.UpstreamAuthFailed),
    ],
)
def test_a_bad_frame_ends_the_stream_after_the_good_ones(bad: bytes, kind: type[Exception]) -> None:
    good = frame({"content": "a"})
    out, guard = fed(good + bad + frame({"content": "b"}))
    assert out == good
    assert isinstance(guard.failure, kind)


@pytest.mark.parametrize("odd", [b"{}", b'{"choices":null}', b'{"usage":{"total_tokens":3}}'])
def test_a_frame_without_choices_is_dropped(odd: bytes) -> None:
    assert fed(b"data: " + odd + b"\n\n")[0] == b""


@pytest.mark.parametrize(
    "odd",
    [
        b'{"choices":[]}',
        b'{"choices":[{"delta":null}]}',
        b'{"choices":[{"x":"\\ud83d","n":99999999999999999999}]}',
    ],
)
def test_a_frame_that_clients_take_passes(odd: bytes) -> None:
    assert fed(b"data: " + odd + b"\n\n")[0] == b"data: " + odd + b"\n\n"


def test_usage_is_read_as_it_passes() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    assert fed(frame(usage=usage))[1].usage == usage


def test_beats_come_until_the_wait_is_over() -> None:
    async def count() -> int:
        pending = asyncio.ensure_future(asyncio.sleep(0.05))
        return len([beat async for beat in beats_until(pending, beat=PING, interval_s=0.02)])

    assert asyncio.run(count()) in {1, 2}


def test_no_beat_comes_when_there_is_nothing_to_wait_for() -> None:
    async def beats() -> list[Filler]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return [beat async for beat in beats_until(done, beat=PING, interval_s=0.01)]

    assert asyncio.run(beats()) == []


def test_an_error_frame_has_all_four_keys() -> None:
    made = streaming.error_frame(errors.UpstreamTimeout("late"))
    assert json.loads(made[6:])["error"] == {
        "message": "late",
        "type": "server_error",
        "param": None,
        "code": "upstream_timeout",
    }
