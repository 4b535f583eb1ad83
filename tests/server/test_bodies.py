"""JSON bodies, small and large."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from sanic_proxy.app import app
from sanic_proxy.errors import InvalidRequest, UnsupportedMedia
from sanic_proxy.openai import codec
from sanic_proxy.server import bodies
from sanic_proxy.server.request import HeaderFields, ProxyRequest
from tests.support.machine import ATTEMPTS


@pytest.mark.parametrize(
    ("body", "kind"),
    {
        b"[]": "an array",
        b'"x"': "a string",
        b"1": "a number",
        b"1.5": "a number",
        b"true": "a boolean",
    }.items(),
)
def test_a_body_must_be_an_object(body: bytes, kind: str) -> None:
    request = received(body)
    request.body = request.take_body()
    with pytest.raises(InvalidRequest, match=f"JSON object, not {kind}$"):
        bodies.json_object(request)


# Large bodies


def received(body: bytes, content_type: str = "application/json") -> ProxyRequest:
    """A request whose body has come in pieces."""
    fields = HeaderFields()
    fields.add(b"content-type", content_type.encode())
    request = ProxyRequest(b"/v1/x", fields, "1.1", "POST", None, app)
    request.pieces = [body[start : start + 65536] for start in range(0, len(body), 65536)]
    return request


def test_a_large_body_is_parsed_once_and_then_released() -> None:
    fields = {"model": "m", "text": "x" * 3_000_000}
    body = json.dumps(fields).encode()
    request = received(body)
    asyncio.run(bodies.parse_in_steps(request, asyncio.Lock()))
    assert request.body == body
    assert bodies.json_object(request) == fields
    assert request.parsed is None
    assert request.model_span is not None
    assert body[slice(*request.model_span)] == b'"m"'


def test_a_large_body_of_another_type_is_not_parsed() -> None:
    request = received(b"x" * 1_000_000, "text/plain")
    with pytest.raises(UnsupportedMedia):
        asyncio.run(bodies.parse_in_steps(request, asyncio.Lock()))


@pytest.mark.row(70)
@pytest.mark.parametrize("text", ["x", "x\n", "\u4e2d"])
def test_large_bodies_share_the_loop_with_everybody_else(text: str) -> None:
    """Measured in CPU time, which does not depend on what else the machine does."""
    content = text * (8_000_000 // len(text))
    body = json.dumps({"messages": [{"content": content}], "model": "m"}).encode()
    turns: list[float] = []

    async def count_turns() -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            turns.append(now - last)
            last = now

    async def run() -> None:
        lock = asyncio.Lock()
        requests = [received(body) for _ in range(4)]
        counting = asyncio.ensure_future(count_turns())
        await asyncio.gather(*(bodies.parse_in_steps(request, lock) for request in requests))
        counting.cancel()

    def at_once_s() -> float:
        began = time.thread_time()
        codec.loads_strict(body)
        return time.thread_time() - began

    at_least_s = 2 * min(at_once_s() for _ in range(3))
    longest_share = 1.0
    for _ in range(ATTEMPTS):
        turns.clear()
        asyncio.run(run())
        assert len(turns) > 4 * len(body) / (2 * codec.SMALL_BYTES)
        assert sum(turns) > at_least_s
        longest_share = min(longest_share, max(turns) / sum(turns))
        if longest_share < 1 / 8:
            break
    assert longest_share < 1 / 8  # half of what one of the four takes
