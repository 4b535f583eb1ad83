"""A provider's connection cut at every byte of its answer: the client gets all of it, or an error."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from loadtest import faults
from loadtest.faulty_upstream import FaultyUpstream
from loadtest.raw_client import Ended, answer_to, chat_request
from tests.support.faulty import faulty_upstream
from tests.support.proxy import Proxy, running_proxy
from tests.support.settings import GROQ_KEY, ONCE

WORDS = 2
AT_ONCE = 24
PLAIN = str.maketrans("=;", "..")  # what a request's id may hold
STREAM = b"".join(faults.stream(WORDS))
WHOLE = json.dumps(faults.completion(WORDS)).encode()


@pytest.fixture(scope="module")
def cutting() -> Iterator[tuple[FaultyUpstream, Proxy]]:
    with faulty_upstream() as (upstream, port):
        settings = {**ONCE, "GROQ_API_KEY": GROQ_KEY, "GROQ_BASE_URL": f"http://127.0.0.1:{port}/v1"}
        with running_proxy(settings) as proxy:
            yield upstream, proxy
        assert "Traceback" not in proxy.log


def verdict(got: Ended, *, is_streaming: bool) -> str:
    """`whole`, `error` or `broken` (visible in the framing). Anything else would look like an answer."""
    if not got.is_clean:
        assert b"[DONE]" not in got.body
        return "broken"
    if got.status != 200:
        assert got.status in {502, 503, 504}
        assert set(json.loads(got.body)["error"]) == {"message", "type", "param", "code"}
        return "error"
    if got.body == (STREAM if is_streaming else WHOLE):
        return "whole"
    assert is_streaming, got
    frames = got.body.split(b"\n\n")
    assert frames.pop() == b""
    assert set(json.loads(frames.pop()[6:])["error"]) == {"message", "type", "param", "code"}
    assert STREAM.startswith(b"".join(frame + b"\n\n" for frame in frames))
    assert b"[DONE]" not in got.body
    return "error"


async def verdicts(proxy: Proxy, fault: str, offsets: range, *, is_streaming: bool) -> list[str]:
    """What comes of a cut behind each offset."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(offset: int) -> str:
        request_id = f"{fault.translate(PLAIN)}.{is_streaming}.{offset}"
        request = chat_request(f"groq/{fault};cut={offset}", request_id, is_streaming=is_streaming)
        async with gate:
            got = await answer_to(proxy.port, request)
        return verdict(got, is_streaming=is_streaming)

    return await asyncio.gather(*map(one, offsets))


@pytest.mark.row(8, 9)
@pytest.mark.parametrize("is_streaming", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("play", ["good", "until-close", "gzip"])
def test_no_byte_is_a_place_for_a_quiet_end(
    cutting: tuple[FaultyUpstream, Proxy], play: str, how: str, is_streaming: bool
) -> None:
    upstream, proxy = cutting
    fault = f"{play};words={WORDS};by={how}"
    wire = b"".join(faults.pieces(faults.parse(fault), is_streaming=is_streaming))
    seen = asyncio.run(verdicts(proxy, fault, range(len(wire) + 1), is_streaming=is_streaming))
    # The finish reason is the end of a stream's content, and the last byte that of a whole answer.
    finish = wire.find(b'"finish_reason":"stop"')
    last = finish if is_streaming and finish > 0 else len(wire) - 20
    assert set(seen[:last]) == {"error"}
    # A reset without a length may be the end or not: an error, too.
    assert seen[-1] == "whole" or (play == "until-close" and how == "rst")
    check_that_nothing_is_left(upstream, proxy, f"{fault.translate(PLAIN)}.{is_streaming}.", len(seen))


def check_that_nothing_is_left(upstream: FaultyUpstream, proxy: Proxy, prefix: str, count: int) -> None:
    """Each request has come to its end, as its line shows, and no connection that was cut is kept or used."""
    until = time.monotonic() + 60
    ids: Counter[str] = Counter()
    while time.monotonic() < until:
        ids = Counter(line.partition(f"id={prefix}")[2].partition(" ")[0] for line in proxy.log.splitlines())
        del ids[""]
        if len(ids) == count and not upstream.open_connections:
            break
        time.sleep(0.02)
    assert len(ids) == count
    assert set(ids.values()) == {1}
    assert not upstream.open_connections
    assert not upstream.requested["(on a closed connection)"]
