"""The proxy without the checks of a stream's frames, to measure what they cost. Nothing to serve with."""

from __future__ import annotations

from sanic_proxy.app import app
from sanic_proxy.streams.filters import ChatStreamFilter

__all__ = ["app"]


def _pass_all(stream: ChatStreamFilter, data: bytes) -> bytes:
    stream.is_done = stream.is_done or b"data: [DONE]" in data
    return data


ChatStreamFilter.feed = _pass_all  # type: ignore[method-assign, assignment]
