"""A provider's Messages stream, guarded and translated for a client, wherever the network cuts it."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy import errors
from sanic_proxy.streams.filters import FilterChain
from sanic_proxy.streams.messages_filter import MessagesStreamFilter
from sanic_proxy.translation import signatures
from sanic_proxy.translation.format import TargetTraits
from sanic_proxy.translation.messages import MessagesFormat
from sanic_proxy.translation.translate import translated
from tests.support.messages import (
    UNHURRIED,
    call_block,
    frame,
    judged,
    start,
    stop,
    text_block,
    thinking_block,
)

FORMAT = MessagesFormat()
STREAM = b"".join(
    [
        start(input_tokens=5, cache_read_input_tokens=2),
        frame("ping"),
        *thinking_block(0, "h\u00e4", "m", signature="sig"),
        *text_block(1, "a\U0001f600", "", "b\n\n"),
        *call_block(2, '{"a":', '"\\ud83d', '\\ude00"}'),
        *call_block(3),
        *stop("tool_use", output_tokens=9),
    ]
)


def chain() -> FilterChain:
    fields = {"model": "asked", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
    translation = translated(FORMAT, fields, FORMAT, TargetTraits("p", "m"))
    return FilterChain(MessagesStreamFilter(), translation.stream_filter())


def relayed(*pieces: bytes) -> bytes:
    stream = chain()
    out = b"".join(map(stream.feed, pieces))
    assert stream.failure is None
    return out + stream.end()


def test_a_stream_keeps_its_content() -> None:
    stream = judged(relayed(STREAM))
    expected = judged(STREAM).message
    message = stream.message
    expected["content"][0]["signature"] = signatures.wrapped("p", "sig")
    assert message["content"] == expected["content"]
    assert (message["id"], message["model"], message["stop_reason"]) == ("msg_1", "claude", "tool_use")
    usage = {
        name: message["usage"][name] for name in ("input_tokens", "cache_read_input_tokens", "output_tokens")
    }
    assert usage == {"input_tokens": 5, "cache_read_input_tokens": 2, "output_tokens": 9}
    assert stream.events[0]["message"]["usage"]["input_tokens"] == 5


@UNHURRIED
@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_a_stream_is_translated_alike_wherever_it_is_cut(cuts: list[int]) -> None:
    pieces = [STREAM[a:b] for a, b in pairwise(sorted({0, *cuts, len(STREAM)}))]
    assert relayed(*pieces) == relayed(STREAM)


def test_a_stream_without_its_last_event_gets_an_end() -> None:
    (*_, last) = STREAM.split(b"event: message_stop")
    assert last
    assert (
        judged(relayed(STREAM.replace(b"event: message_stop" + last, b""))).message["stop_reason"]
        == "tool_use"
    )


def test_a_cut_has_no_end() -> None:
    stream = chain()
    out = stream.feed(STREAM[: len(STREAM) // 2])
    with pytest.raises(errors.UpstreamDisconnected):
        stream.end()
    assert b"message_stop" not in out


def test_a_whole_answer_keeps_its_content() -> None:
    fields: dict[str, Any] = {
        "model": "asked",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "x"}],
    }
    translation = translated(FORMAT, fields, FORMAT, TargetTraits("p", "m"))
    message = judged(STREAM).message
    answer = json.loads(translation.whole(json.dumps(message).encode()))
    assert answer["content"][1:] == message["content"][1:]
    assert answer["content"][0]["signature"] == signatures.wrapped("p", "sig")
    assert answer["stop_reason"] == "tool_use"
