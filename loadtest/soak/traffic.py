"""The visitors of a soak: what each kind of them does to the proxy, and what may come of it.

Good requests go to one provider and faults to another, so that what is done about a failing provider cannot
touch the good ones.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from loadtest.raw_client import Ended, answer_to, chat_request, ended, reset, sent
from loadtest.soak.starvation import LoopLag, is_starved

LONGEST_S = 30.0
# Nothing came of a request, but this process had no time to see to it: proves nothing.
STARVED = "unanswered (soak starved)"
GOOD, FAULTY, STRAICO = "vllm", "lmstudio", "straico"
BOUNDARY = "soakb0undary"
UPLOAD_BYTES = 300_000
KEPT_REQUESTS = 5
BEHIND_CONTENT = 700  # bytes of the scripted stream: what comes before its first content is held back

Send = Callable[[int, str, random.Random], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of visitor; `weight` is its share of all, `may` the outcomes that are right."""

    name: str
    weight: int
    send: Send
    may: frozenset[str]


def outcome(got: Ended) -> str:
    """`whole`, `error` (for the client), `broken` (HTTP framing), or `quiet`: looks whole and is not."""
    if not got.is_clean:
        return "broken"
    if got.body.startswith((b"data:", b":")):
        last = got.body.rstrip(b"\n").rpartition(b"\n")[2]
        if last.startswith(b'data: {"error"'):
            return "quiet" if b"[DONE]" in got.body else "error"
        return "whole" if last == b"data: [DONE]" else "quiet"
    try:
        parsed = json.loads(got.body)
    except ValueError:
        return "quiet"
    if got.status < 400:
        return "whole"
    return "error" if set(parsed.get("error", {})) == {"message", "type", "param", "code"} else "quiet"


def _chat(models: tuple[str, ...], *, is_streaming: bool) -> Send:
    async def send(port: int, request_id: str, dice: random.Random) -> str:
        request = chat_request(dice.choice(models), request_id, is_streaming=is_streaming)
        return outcome(await answer_to(port, request, LONGEST_S))

    return send


async def _cut(port: int, request_id: str, dice: random.Random) -> str:
    # Few names, as a proxy has few models: what it knows of each of thousands would look like a leak.
    fault = f"good;cut={dice.randrange(0, 1800, 45)};by={dice.choice(('fin', 'rst'))}"
    request = chat_request(f"{FAULTY}/{fault}", request_id, is_streaming=dice.random() < 0.7)
    return outcome(await answer_to(port, request, LONGEST_S))


async def _leave(port: int, request_id: str, dice: random.Random) -> str:
    """Send a request, wait for part of the answer or none of it, and disconnect."""
    hush = dice.choice((0, BEHIND_CONTENT))
    request = chat_request(f"{GOOD}/good;hush={hush}", request_id, is_streaming=True)
    async with sent(port, request) as (reader, writer):
        if hush:
            await reader.readuntil(b"\n\n\r\n")
        else:
            await asyncio.sleep(dice.random() / 5)
        if dice.random() < 0.5:
            reset(writer)
    return "left"


async def _read_slowly(port: int, request_id: str, dice: random.Random) -> str:
    request = chat_request(f"{GOOD}/good;words=3000", request_id, is_streaming=True)
    received = b""
    async with sent(port, request) as (reader, _):
        with suppress(ConnectionError):
            while piece := await reader.read(4096):
                received += piece
                await asyncio.sleep(0.01)
    return outcome(ended(received))


async def _keep(port: int, request_id: str, dice: random.Random) -> str:
    """Several requests on one connection; only the last one ends it."""
    request = chat_request(f"{GOOD}/good", request_id, is_streaming=False)
    kept = request.replace(b"connection: close\r\n", b"").replace(request_id.encode(), b"kept")
    async with sent(port, kept) as (reader, writer):
        for number in range(KEPT_REQUESTS):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(int(length.partition(b":")[2]))
            writer.write(kept if number < KEPT_REQUESTS - 1 else request)
        return outcome(ended(await reader.read(-1)))


def _posted(path: str, kind: str, body: bytes) -> Send:
    async def send(port: int, request_id: str, dice: random.Random) -> str:
        head = (
            f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\nconnection: close\r\n"
            f"x-request-id: {request_id}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return outcome(await answer_to(port, head.encode() + body, LONGEST_S))

    return send


def _form() -> bytes:
    head = (
        f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="model"\r\n\r\n{GOOD}/good\r\n--{BOUNDARY}\r\n'
    )
    file = 'content-disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n'
    return f"{head}{file}".encode() + b"x" * UPLOAD_BYTES + f"\r\n--{BOUNDARY}--\r\n".encode()


_BAD = b'{"model": "echo/echo", "messages": [NaN'
_VECTORS = json.dumps({"model": f"{GOOD}/good", "input": ["x"] * 50}).encode()
_REFUSALS = tuple(f"{FAULTY}/status;code={code};retry-after=1" for code in (400, 429, 500, 503))
_GARBAGE = tuple(
    f"{FAULTY}/{scenario}" for scenario in ("bad-json", "error-frame", "half-frame", "captive", "bad-status")
)
WHOLE, ERROR = frozenset({"whole"}), frozenset({"error"})

KINDS = (
    Kind("whole", 20, _chat((f"{GOOD}/good",), is_streaming=False), WHOLE),
    Kind("stream", 16, _chat((f"{GOOD}/good;words=40",), is_streaming=True), WHOLE),
    Kind("paced stream", 12, _chat((f"{GOOD}/good;words=20;pause=0.03",), is_streaming=True), WHOLE),
    Kind("kept connection", 6, _keep, WHOLE),
    Kind("straico", 5, _chat((f"{STRAICO}/good",), is_streaming=False), WHOLE),
    Kind("straico stream", 5, _chat((f"{STRAICO}/good;wait=0.4",), is_streaming=True), WHOLE),
    Kind("embeddings", 5, _posted("/v1/embeddings", "application/json", _VECTORS), WHOLE),
    Kind(
        "upload",
        3,
        _posted("/v1/audio/transcriptions", f"multipart/form-data; boundary={BOUNDARY}", _form()),
        WHOLE,
    ),
    Kind("slow reader", 3, _read_slowly, WHOLE),
    Kind("refusal", 5, _chat(_REFUSALS, is_streaming=False), ERROR),
    Kind("garbage", 5, _chat(_GARBAGE, is_streaming=True), ERROR),
    Kind("cut", 8, _cut, frozenset({"error", "whole", "broken"})),
    Kind("silence", 1, _chat((f"{FAULTY}/good;hush={BEHIND_CONTENT}",), is_streaming=True), ERROR),
    Kind("bad request", 4, _posted("/v1/chat/completions", "application/json", _BAD), ERROR),
    Kind("leaver", 8, _leave, frozenset({"left"})),
)


class Latencies:
    """How long the last answers took."""

    def __init__(self) -> None:
        self._known: deque[tuple[float, float]] = deque(maxlen=5000)

    def took(self, began: float) -> None:
        now = time.monotonic()
        self._known.append((now, now - began))

    def p99_ms(self, window_s: float = 5.0) -> float:
        """Of those in the last seconds; 0 where there were none."""
        since = time.monotonic() - window_s
        recent = sorted(took for at, took in self._known if at >= since)
        return 1000 * recent[int(len(recent) * 0.99)] if recent else 0.0


@dataclass
class Traffic:
    """Visitors that come one after the other, `clients` at a time, until `stop` is set."""

    port: int
    upstream_port: int
    clients: int
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    begun: int = 0
    ended: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    through: Latencies = field(default_factory=Latencies)
    around: Latencies = field(default_factory=Latencies)
    lag: LoopLag = field(default_factory=LoopLag)

    async def run(self) -> None:
        visitors = [self._visit(random.Random(seed)) for seed in range(self.clients)]
        await asyncio.gather(self.lag.watch(self.stop), self._go_around(), *visitors)

    async def _go_around(self) -> None:
        """Send requests to the upstream itself, for comparison."""
        request = chat_request("good", "around", is_streaming=False)
        while not self.stop.is_set():
            began = time.monotonic()
            with suppress(OSError):
                async with sent(self.upstream_port, request) as (reader, _):
                    await reader.readuntil(b"\r\n\r\n")
            self.around.took(began)
            await asyncio.sleep(0.03)

    async def _visit(self, dice: random.Random) -> None:
        weights = [kind.weight for kind in KINDS]
        while not self.stop.is_set():
            await self._one(dice.choices(KINDS, weights)[0], dice)
            await asyncio.sleep(dice.random() / 10)

    async def _one(self, kind: Kind, dice: random.Random) -> None:
        self.begun += 1
        request_id = f"soak-{self.begun}"
        began, late_s = time.monotonic(), self.lag.total_s
        try:
            async with asyncio.timeout(LONGEST_S):
                result = await kind.send(self.port, request_id, dice)
        except TimeoutError:
            late_s = self.lag.total_s - late_s
            result = STARVED if is_starved(late_s, time.monotonic() - began) else "unanswered"
        except (OSError, asyncio.IncompleteReadError) as exc:
            result = f"failed ({type(exc).__name__})"
        self.ended += 1
        if kind.name == "whole":
            self.through.took(began)
        self.outcomes[f"{kind.name}: {result}"] += 1
        if result not in kind.may and result != STARVED:
            self.wrong.append(f"{kind.name} {request_id}: {result}")
