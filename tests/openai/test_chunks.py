"""The chunks of a streamed completion."""

from __future__ import annotations

from sanic_proxy.openai import chunks


def test_chunks_hold_every_required_field() -> None:
    head = chunks.ChunkHead(id="i", model="m", created=1, include_usage=False)
    assert chunks.chunk(head, {"content": "x"}) == {
        "id": "i",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": "x"}, "logprobs": None, "finish_reason": None}],
    }
    with_usage = chunks.ChunkHead(id="i", model="m", created=1, include_usage=True)
    assert chunks.chunk(with_usage, {})["usage"] is None
