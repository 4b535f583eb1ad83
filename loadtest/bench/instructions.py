"""User-side instructions per whole answer and per frame, counted with callgrind.

Times depend on the machine and on its other work; the number of instructions does not, so a count finds a
change of a few per cent that no timing on a shared machine can show. It sees neither the kernel nor caches:
it complements the timed rows and does not replace them.

Method. Each gateway runs as a single process under callgrind, and the counter is read before and after a
load (`callgrind_control -e`). After a warm-up each load is applied twice with different amounts, and the
figure is the difference of the two counts over the difference of the amounts. The fixed part of a load, and
the start of the process, cancel out.

Under callgrind a gateway is about fifty times slower, so an upstream that sends at its own pace would fill
the socket buffers, and the gateway would read many frames at once: the count would depend on timing. So
streams advance in lock-step: the upstream sends a burst as one send(), the client waits until it has
received the content of those frames, and only then requests the next burst. A paced frame is a burst of one;
frames back to back come in bursts of BURST. The stock Sanic app has no upstream: it streams as many frames,
paced ones with a sleep after each.

Content is numbered and counted wherever it stands, so that the frames of all dialects are counted alike, and
translated ones by the frames of their upstream.
"""

from __future__ import annotations

import dataclasses
import re
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path

from loadtest.bench.counts import GOVERNED, JUDGED, REFERENCE, ROUTED
from loadtest.bench.fixture import Fixture
from loadtest.bench.gateways import SINGLE_PROCESS, Launch, found, free_port
from loadtest.bench.load import Dialect, Endpoint, KeptConnection, LoadError
from loadtest.bench.processes import Session, StartError, child_environment

BURST = 8
# The last of the frames of a stream has no content; those behind it (usage and [DONE], say) close it.
CLOSING_FRAMES = 2
STOCK_INTERVAL_MS = 1
START_TIMEOUT_S = 120.0
STEP = b"POST /step HTTP/1.1\r\nHost: upstream\r\nContent-Length: 0\r\n\r\n"
CONTROL_TIMEOUT_S = 60.0
# A gateway is at rest when two readings of its counter differ by less.
READ_ATTEMPTS = 20
REST_INSTRUCTIONS = 5000
# Numbered content, as frames.h writes it.
_CONTENT = re.compile(rb'"w\d{6} "')
CONTENT_BYTES = 10


@dataclass(frozen=True, slots=True)
class Amounts:
    """The two sizes of a load: their difference is what is counted."""

    few: int
    many: int

    def per_unit(self, few_count: int, many_count: int) -> float:
        return (many_count - few_count) / (self.many - self.few)


# The kinds of counts.TITLES by the number of frames that arrive together; 0: whole answers.
BURSTS: Mapping[str, int] = {"whole": 0, "back_to_back": BURST, "paced": 1}
# The dialects of counts.DIALECT_TITLES: the one that the client speaks, and a model of a provider that speaks
# it or, for translations, chats only.
ASKED: Mapping[str, tuple[Dialect, str]] = {
    "messages": ("messages", "anthropic/bench-model"),
    "messages-from-chat": ("messages", "groq/bench-model"),
    "responses": ("responses", "openai/bench-model"),
    "responses-from-chat": ("responses", "groq/bench-model"),
    "gemini": ("gemini", "google/bench-model"),
    "gemini-from-chat": ("gemini", "groq/bench-model"),
}
AMOUNTS = Amounts(200, 1200)
QUICK_AMOUNTS = Amounts(16, 64)


class CallgrindCounter:
    """The instruction counter of a process that runs under callgrind."""

    def __init__(self, session: Session, scratch: Path) -> None:
        self._pid = session.pids()[0]
        self._argv = (found("callgrind_control"), str(self._pid))
        # valgrind puts the pipes that callgrind_control talks through into its own TMPDIR.
        self._env = child_environment({"TMPDIR": str(scratch)})

    def start(self) -> None:
        """Begin to count; the start of the process runs without it, several times faster."""
        self._control("-i", "on")

    def settled(self) -> int:
        """Instructions so far, read when the work that follows an answer is done."""
        before = self._read()
        for _ in range(50):
            time.sleep(0.02)
            now = self._read()
            if now - before < REST_INSTRUCTIONS:
                return now
            before = now
        raise LoadError("the gateway did not come to rest after a load")

    def _read(self) -> int:
        """The count now. On a busy machine a reading may lack the threads' lines: it is repeated."""
        for _ in range(READ_ATTEMPTS - 1):
            with suppress(LoadError):
                return parsed_total(self._control("-e"))
            time.sleep(0.2)
        return parsed_total(self._control("-e"))

    def _control(self, *options: str) -> str:
        program, pid = self._argv
        done = subprocess.run(
            (program, *options, pid),
            env=self._env,
            capture_output=True,
            text=True,
            timeout=CONTROL_TIMEOUT_S,
            check=False,
        )
        if done.returncode or "Error" in done.stdout:
            raise StartError(f"callgrind_control failed: {(done.stdout + done.stderr).strip()[-300:]}")
        return done.stdout


def parsed_total(output: str) -> int:
    """The sum over the threads that `callgrind_control -e` lists. Raises LoadError without one."""
    threads = re.findall(r"^ *Th *\d+ +([\d,]+)", output, re.MULTILINE)
    if not threads:
        raise LoadError(f"callgrind_control printed no totals: {output.strip()[-300:]}")
    return sum(int(count.replace(",", "")) for count in threads)


class LockStepClient:
    """Requests whole answers and streams of one gateway, and advances the streams of the upstream."""

    def __init__(self, fixture: Fixture, endpoint: Endpoint, *, has_upstream: bool) -> None:
        self._fixture = fixture
        self._endpoint = endpoint
        self._has_upstream = has_upstream
        self._connection = KeptConnection(endpoint.port)
        self._upstream = KeptConnection(fixture.paths.upstream_port)

    def close(self) -> None:
        self._connection.close()
        self._upstream.close()

    def load(self, kind: str, amount: int) -> None:
        """`amount` whole answers, or one stream with that many frames. Raises LoadError."""
        dialect, _, unit = kind.rpartition("/")
        burst = BURSTS[unit]
        endpoint = self._endpoint
        if dialect:
            endpoint = endpoint.spoken(*ASKED[dialect], is_stream=burst > 0)
        if not burst:
            for _ in range(amount):
                self._send(endpoint, is_stream=False).read()
        elif self._has_upstream:
            self._relayed_stream(endpoint, burst, amount)
        else:
            interval_ms = STOCK_INTERVAL_MS if burst == 1 else 0
            endpoint = dataclasses.replace(endpoint, path=f"/frames/{amount}/{interval_ms}")
            _expect(self._send(endpoint, is_stream=True).read().count(b"\n\n"), amount)

    def _relayed_stream(self, endpoint: Endpoint, burst: int, amount: int) -> None:
        self._fixture.script(frames=amount, burst=burst, step=1)
        response = self._send(endpoint, is_stream=True)
        content = ContentCounter()
        total = amount + CLOSING_FRAMES
        sent = min(burst, total)
        while True:
            wanted = min(sent, amount - 1)
            while content.count < wanted and (data := response.read1(65536)):
                content.feed(data)
            _expect(content.count, wanted)
            if sent == total:
                break
            sent = min(sent + burst, total)
            self._upstream.send(STEP).read()
        response.read()

    def _send(self, endpoint: Endpoint, *, is_stream: bool) -> HTTPResponse:
        response = self._connection.send(endpoint.request(endpoint.body(is_stream=is_stream)))
        if response.status != 200:
            raise LoadError(f"status {response.status}: {response.read()[:200].decode(errors='replace')}")
        return response


class ContentCounter:
    """Counts the pieces of numbered content in a stream that may be cut anywhere.

    A piece is a JSON string of its own. Text that repeats all of the content at the end does not count.
    """

    def __init__(self) -> None:
        self.count = 0
        self._tail = b""

    def feed(self, data: bytes) -> None:
        joined = self._tail + data
        self.count += len(_CONTENT.findall(joined))
        self._tail = joined[1 - CONTENT_BYTES :]


def _expect(count: int, wanted: int) -> None:
    if count != wanted:
        raise LoadError(f"{count} pieces of content instead of {wanted}")


def under_callgrind(launch: Launch, scratch: Path) -> Launch:
    """The same gateway as a single process under callgrind, not yet counting."""
    options = (
        "--tool=callgrind",
        "--instr-atstart=no",
        f"--callgrind-out-file={scratch}/callgrind.%p",
        "--trace-children=no",
    )
    env = {**launch.env, "PYTHONHASHSEED": "0"}
    return Launch((found("valgrind"), *options, *launch.argv), launch.endpoint, env, START_TIMEOUT_S)


def kinds(*, dialects: bool) -> list[str]:
    """The kinds that are counted of the proxy: of chats and, where wanted, of the other dialects."""
    return [*BURSTS, *(f"{dialect}/{unit}" for dialect in ASKED for unit in BURSTS if dialects)]


def count_gateway(
    fixture: Fixture, name: str, amounts: Amounts, *, dialects: bool = False
) -> dict[str, float]:
    """Instructions per unit of each kind. Raises StartError or LoadError."""
    fixture.script()
    launch = under_callgrind(SINGLE_PROCESS[name](fixture.paths, free_port()), fixture.paths.scratch)
    running = fixture.launched(f"{name}-counted", launch)
    assert running.session is not None
    client = LockStepClient(fixture, launch.endpoint, has_upstream=name != REFERENCE)
    try:
        counter = CallgrindCounter(running.session, fixture.paths.scratch)
        counter.start()
        # A stream's target is chosen once, and it is charged once: its frames cost the same.
        counted = ["whole"] if name in {ROUTED, GOVERNED} else kinds(dialects=dialects and name == JUDGED)
        return {kind: _per_unit(counter, client, kind, amounts) for kind in counted}
    finally:
        client.close()
        running.session.stop()


def _per_unit(counter: CallgrindCounter, client: LockStepClient, kind: str, amounts: Amounts) -> float:
    client.load(kind, amounts.few)  # warm-up
    readings = [counter.settled()]
    for amount in (amounts.few, amounts.many):
        client.load(kind, amount)
        readings.append(counter.settled())
    start, after_few, after_many = readings
    return amounts.per_unit(after_few - start, after_many - after_few)
