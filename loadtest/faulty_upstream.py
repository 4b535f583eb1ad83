"""An OpenAI-compatible upstream whose faults are selected by the model's name (see `faults`).

    python -m loadtest.faulty_upstream --port 9000
    curl localhost:9000/v1/chat/completions -d '{"model": "good;cut=200;by=rst", "stream": true}'

Each request names its fault, so one server serves all faults at once. For clients that cannot choose such
names, the model `scripted` stands for the fault that the other options describe:

    python -m loadtest.faulty_upstream --frames 40 --pace 10 --delay 50 --cut-share 0.1

When it is stopped it prints what it did. The server itself is that of the tests (`tests.support.upstream`),
with one script for every request.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from loadtest.faults import Fault, Turns, error_body, pieces, sized
from tests.support.upstream import Exchange, Upstream, read_body

SCRIPTED = "scripted"
_MODEL = re.compile(rb'"model"\s*:\s*"((?:[^"\\]|\\.)*)"|name="model"\r\n\r\n([^\r]*)')
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_PEEK_BYTES = 64 * 1024
# Scenarios after which the connection cannot be used any more.
_LAST = frozenset({"until-close", "no-http", "http2", "switching"})


def _list(*models: str) -> bytes:
    entries = [{"id": model, "object": "model", "created": 0} for model in models]
    return json.dumps({"object": "list", "data": entries}).encode()


_VECTORS = json.dumps(
    {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.25]}],
        "model": "good",
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    }
).encode()
# Good answers to requests that are no chats; they are whole, and `cut` applies to them.
_ANSWERS = (
    ("/models", _list("good", SCRIPTED)),
    ("/embeddings", _VECTORS),
    ("/transcriptions", b'{"text":"heard"}'),
)


@dataclass
class Request:
    """One request, as far as it decides the answer."""

    path: str
    model: str
    is_streaming: bool
    left_bytes: int  # of its body, not yet read


@dataclass
class FaultyUpstream:
    """The server and its counts; see the module.

    `aliases` are further names for faults.
    """

    aliases: Mapping[str, str] = field(default_factory=dict)
    server: Upstream = field(default_factory=lambda: Upstream(reads_bodies=False, is_recording=False))
    answered: Counter[str] = field(default_factory=Counter)  # by scenario
    half_closed: int = 0  # ended by us, and not by the proxy yet
    left: int = 0  # requests whose proxy went before the end of the answer
    left_at: dict[str, float] = field(default_factory=dict)  # by tag; monotonic seconds
    _turns: Turns = field(default_factory=Turns)

    def __post_init__(self) -> None:
        self.server.on("*", self._answer)

    @property
    def requested(self) -> Counter[str]:
        """Requests by fault."""
        return self._turns.requested

    @property
    def connections(self) -> int:
        """All connections since the start."""
        return self.server.connections

    @property
    def open_connections(self) -> int:
        return self.server.open_connections

    @contextlib.asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[int]:
        """Serve on loopback; gives the port."""
        async with self.server.listening(port) as chosen:
            yield chosen

    async def _answer(self, exchange: Exchange) -> None:
        request = await _peeked(exchange)
        name = self.aliases.get(request.model, request.model)
        try:
            fault = self._turns.select(name, is_streaming=request.is_streaming)
        except ValueError:
            await exchange.send(sized(error_body(code="model_not_found"), status=404)[0])
            await _read_rest(request, exchange)
            return
        if fault.scenario != "early":
            await _read_rest(request, exchange)
        if fault.scenario == "stale" and exchange.seen.number > 1:
            exchange.close()
            return
        self.answered[fault.scenario] += 1
        try:
            await _send(request, fault, exchange)
        except ConnectionError:
            self.left += 1
            exchange.close()
            return
        await self._after(fault, exchange)

    async def _after(self, fault: Fault, exchange: Exchange) -> None:
        """What becomes of the connection."""
        if fault.hush >= 0:
            await _gone(exchange)
            self.left += 1
            self.left_at[fault.tag] = time.monotonic()
            exchange.close()
        elif fault.cut < 0 and fault.scenario != "early":
            exchange.is_closing = fault.scenario in _LAST
        elif fault.by == "rst":
            exchange.reset()
        else:
            await self._half_close(fault, exchange)

    async def _half_close(self, fault: Fault, exchange: Exchange) -> None:
        """End the answer alone; the other direction stays open, so that a request on it would be noticed."""
        exchange.writer.write_eof()
        self.half_closed += 1
        if fault.scenario == "early":
            # Read the rest of the request: a close with unread bytes is a reset, and loses the answer.
            await exchange.reader.read()
        elif not await _gone(exchange):
            self.requested["(on a closed connection)"] += 1
        self.half_closed -= 1
        exchange.close()


async def _send(request: Request, fault: Fault, exchange: Exchange) -> None:
    """Send the pieces of an answer, each at its own due time: a late one does not delay the others."""
    loop = asyncio.get_running_loop()
    due_s = loop.time() + fault.wait
    if fault.wait:
        await asyncio.sleep(fault.wait)
    for piece in _pieces(request, fault):
        await exchange.send(piece)
        if fault.pause:
            due_s += fault.pause
            await asyncio.sleep(max(0.0, due_s - loop.time()))


def _pieces(request: Request, fault: Fault) -> Sequence[bytes]:
    for suffix, body in _ANSWERS:
        if request.path.endswith(suffix) and fault.scenario == "good":
            wire = sized(body)[0]
            return [wire if fault.cut < 0 else wire[: fault.cut]]
    return pieces(fault, is_streaming=request.is_streaming)


async def _peeked(exchange: Exchange) -> Request:
    """The request by its head and as much of its body as is needed to know the model."""
    seen, left = exchange.seen, 0
    if seen.header("transfer-encoding") == "chunked":
        body = await read_body(seen, exchange.reader)
    else:
        left = int(seen.header("content-length") or 0)
        body = await exchange.reader.readexactly(min(left, _PEEK_BYTES))
        left -= len(body)
    model = _MODEL.search(body)
    name = "good" if model is None else (model[1] or model[2] or b"").decode()
    return Request(seen.path.partition("?")[0], name, _STREAM.search(body) is not None, left)


async def _read_rest(request: Request, exchange: Exchange) -> None:
    """Read what is left of the body."""
    while request.left_bytes > 0:
        piece = await exchange.reader.read(min(1 << 20, request.left_bytes))
        if not piece:
            raise ConnectionResetError
        request.left_bytes -= len(piece)


async def _gone(exchange: Exchange) -> bool:
    """Wait until the proxy closes; False if it sends something instead."""
    try:
        return not await exchange.reader.read(1)
    except ConnectionError:
        return True


async def serve(port: int, scripted: str) -> None:
    """Listen until SIGINT or SIGTERM."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    upstream = FaultyUpstream({SCRIPTED: scripted})
    async with upstream.listening(port) as chosen:
        print(f"listening on http://127.0.0.1:{chosen}", flush=True)
        await stopping.wait()
    counts = f"connections={upstream.connections} left={upstream.left}"
    print(f"{counts} answered={dict(upstream.answered)}", flush=True)


def scripted_fault(given: argparse.Namespace) -> str:
    """The name of the fault that the options describe.

    Refusals are chosen among all requests, cuts among the other streams, error frames among those left.
    """
    pace = f"words={given.frames};wait={given.delay / 1000};pause={given.pace / 1000}"
    return "|".join(
        (
            f"status;code=503;rate={given.refuse_share};wait={given.delay / 1000}",
            f"no-end;only=stream;rate={given.cut_share};{pace}",
            f"error-frame;only=stream;rate={given.error_share};{pace}",
            f"good;{pace}",
        )
    )


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError("a share is between 0 and 1")
    return share


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        description="An upstream whose faults are selected by the model's name. The options other than"
        f" --port describe the answers of the model `{SCRIPTED}`."
    )
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    parser.add_argument("--frames", type=int, default=40, help="tokens of an answer")
    parser.add_argument("--pace", type=float, default=10.0, help="milliseconds between frames; 0: none")
    parser.add_argument("--delay", type=float, default=50.0, help="milliseconds before an answer begins")
    parser.add_argument("--cut-share", type=_share, default=0.0, help="streams that end early")
    parser.add_argument("--error-share", type=_share, default=0.0, help="streams with an error frame")
    parser.add_argument("--refuse-share", type=_share, default=0.0, help="chat requests that get a 503")
    return parser.parse_args(arguments)


def main() -> None:
    given = options()
    asyncio.run(serve(given.port, scripted_fault(given)))


if __name__ == "__main__":
    main()
