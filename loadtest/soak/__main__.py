"""Mixed traffic and faults against two workers, and whether anything of it stays. See scripts/soak."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from loadtest.bench.gateways import free_port
from loadtest.bench.processes import Command, Session, StartError, rss_mib
from loadtest.soak.starvation import MOST_STARVED_SAMPLES, STARVED_MS
from loadtest.soak.traffic import FAULTY, GOOD, STARVED, STRAICO, Traffic
from loadtest.soak.trends import Sample, Trend, starved_share, trends

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "loadtest" / "results"
START_S = 30.0
DRAIN_S = 20
SPARE_DESCRIPTORS = 2  # of each kind of the proxy's own that is opened when first needed
HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\nx-request-id: probe\r\nconnection: close\r\n\r\n"


@dataclass
class Soak:
    """A running proxy, and its measurements."""

    proxy: Session
    log: Path
    traffic: Traffic
    samples: list[Sample] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    finished: int = 0  # requests of the traffic with a line in the log
    left_open: int = 0  # descriptors that stay when all is over
    _read_bytes: int = 0

    async def run(self, minutes: float) -> None:
        """Traffic for so long, then quiet until nothing is in flight and idle connections are closed."""
        before = self.descriptors()
        visitors = asyncio.ensure_future(self.traffic.run())
        next_at = time.monotonic()
        while time.monotonic() - self.began < 60 * minutes and self.proxy.is_running:
            next_at = max(next_at + 1, time.monotonic())  # late samples are not made up for
            self.samples.append(await self.sample())
            await asyncio.sleep(max(0.0, next_at - time.monotonic()))
        self.traffic.stop.set()
        await visitors
        for _ in range(10 * DRAIN_S):
            self.left_open = self.descriptors() - before
            if not self.in_flight() and self.left_open <= SPARE_DESCRIPTORS:
                break
            await asyncio.sleep(0.1)

    def descriptors(self) -> int:
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.proxy.workers())

    async def sample(self) -> Sample:
        pids = self.proxy.workers()
        health_ms = await self._health_ms()
        return Sample(
            at_s=time.monotonic() - self.began,
            rss_mib=sum(map(rss_mib, pids)),
            descriptors=self.descriptors(),
            threads=sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids),
            in_flight=self.in_flight(),
            p99_ms=self.traffic.through.p99_ms(),
            machine_ms=self.traffic.around.p99_ms(),
            health_ms=health_ms,
            lag_ms=self.traffic.lag.take_longest_ms(),
        )

    async def _health_ms(self) -> float:
        began = time.monotonic()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.traffic.port)
                writer.write(HEALTH)
                await reader.read(-1)
                writer.close()
        return 1000 * (time.monotonic() - began)

    def in_flight(self) -> int:
        """Requests that have begun and whose line is not in the proxy's log: each gets one at its end."""
        with self.log.open("rb") as log:
            log.seek(self._read_bytes)
            new = log.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        self.finished += whole.count(b" id=soak-")
        return self.traffic.begun - self.finished


@contextmanager
def started(directory: Path, workers: int) -> Iterator[tuple[Session, Path, tuple[int, int]]]:
    """The faulty upstream and a proxy before it; gives the proxy, its log and both ports."""
    cores = frozenset(os.sched_getaffinity(0))
    path = {"PYTHONPATH": str(ROOT)}
    with ExitStack() as running:
        log = directory / "upstream.log"
        python = (sys.executable, "-m")
        upstream = Session(Command((*python, "loadtest.faulty_upstream"), path, directory, log), cores)
        running.callback(upstream.stop)
        url = _wait_for(upstream, log, "listening on ", 1).rpartition("listening on ")[2].split()[0]
        port, log = free_port(), directory / "proxy.log"
        argv = (*python, "sanic", "sanic_proxy.app", f"--port={port}", "--workers", str(workers))
        proxy = Session(Command(argv, {**path, **settings(url)}, directory, log), cores)
        running.callback(proxy.stop)
        _wait_for(proxy, log, "Worker ready", workers)
        yield proxy, log, (port, int(url.rpartition(":")[2]))


def settings(upstream: str) -> dict[str, str]:
    """A proxy whose clocks strike soon enough to be part of the traffic."""
    return {
        f"{GOOD.upper()}_BASE_URL": f"{upstream}/v1",
        f"{FAULTY.upper()}_BASE_URL": f"{upstream}/v1",
        f"{STRAICO.upper()}_API_KEY": "st-soak-0123456789",
        f"{STRAICO.upper()}_BASE_URL": upstream,
        "SANIC_PROXY_ROUTER": "on",
        "SANIC_PROXY_HEARTBEAT_INTERVAL": "0.2",
        "SANIC_PROXY_STREAM_COMMIT_DELAY": "1",
        "SANIC_PROXY_TIMEOUT_IDLE": "2",
        "SANIC_PROXY_POOL_IDLE_TIMEOUT": "5",
    }


def _wait_for(session: Session, log: Path, text: str, times: int) -> str:
    until = time.monotonic() + START_S
    while time.monotonic() < until and session.is_running:
        content = log.read_text(errors="replace")
        if content.count(text) >= times:
            return content
        time.sleep(0.05)
    raise StartError(session.log_tail())


def problems(soak: Soak, found: list[Trend]) -> list[str]:
    """Why the soak has failed; none if it has not."""
    wrong = soak.traffic.wrong
    found_problems = [f"{trend.bound.field} grows" for trend in found if not trend.is_flat]
    if soak.in_flight():
        found_problems.append(f"{soak.in_flight()} requests are still in flight")
    if soak.left_open > SPARE_DESCRIPTORS:
        found_problems.append(f"{soak.left_open} descriptors are left open")
    if wrong:
        found_problems.append(f"{len(wrong)} requests had an unexpected outcome: {'; '.join(wrong[:5])}")
    if not soak.proxy.is_running:
        found_problems.append("the proxy has died")
    if b"Traceback" in soak.log.read_bytes():
        found_problems.append("there is a traceback in the log")
    return found_problems


def doubts(samples: Sequence[Sample], outcomes: Mapping[str, int]) -> list[str]:
    """Why the soak proves little: it was itself starved of CPU time."""
    share = starved_share(samples)
    unanswered = sum(count for name, count in outcomes.items() if name.endswith(STARVED))
    reasons = []
    if share > MOST_STARVED_SAMPLES:
        reasons.append(
            f"{share:.0%} of the samples came while the soak's own event loop was over {STARVED_MS:g} ms late"
        )
    if unanswered:
        reasons.append(f"{unanswered} requests were unanswered as the soak did not get to read their answers")
    return reasons


def report(soak: Soak, minutes: float) -> tuple[list[str], list[str]]:
    """Print the verdict and write what it rests on. Returns the problems and the doubts."""
    found = trends(soak.samples)
    failures = problems(soak, found)
    doubtful = doubts(soak.samples, soak.traffic.outcomes)
    RESULTS.mkdir(parents=True, exist_ok=True)
    base = RESULTS / f"{datetime.now():%Y%m%d-%H%M%S}-soak"
    print(f"{soak.traffic.begun} requests in {minutes:g} minutes:")
    for name, count in sorted(soak.traffic.outcomes.items()):
        print(f"  {count:8} {name}")
    for one in found:
        print(one)
    result = {
        "minutes": minutes,
        "problems": failures,
        "doubts": doubtful,
        "outcomes": soak.traffic.outcomes,
    }
    lines = {"trends": list(map(str, found)), "samples": list(map(asdict, soak.samples))}
    base.with_suffix(".json").write_text(json.dumps({**result, **lines}, indent=1))
    # Imported here, so that the verdict above does not need matplotlib.
    from loadtest.soak.plot import draw  # noqa: PLC0415

    verdict = "; ".join([*failures, *doubtful]) or "all flat"
    draw(soak.samples, base.with_suffix(".png"), f"{minutes:g} minutes: {verdict}")
    print(f"results: {base.relative_to(ROOT)}.json and .png")
    return failures, doubtful


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/soak",
        description=__doc__,
        epilog="Exit code: 0 nothing stays and every request was answered or got an error; 1 not so; "
        "2 it could not run; 3 the machine was too busy for a verdict.",
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (10); may be a fraction")
    parser.add_argument("--clients", type=int, default=30, help="visitors at a time (30)")
    parser.add_argument("--workers", type=int, default=2, help="workers of the proxy (2)")
    return parser.parse_args()


def stop_cleanly(number: int, frame: object) -> NoReturn:
    """Exit through the context managers, which stop what has been started."""
    sys.exit(2)


def main() -> int:
    given = options()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop_cleanly)
    with tempfile.TemporaryDirectory() as directory:
        try:
            with started(Path(directory), given.workers) as (proxy, log, ports):
                soak = Soak(proxy, log, Traffic(*ports, given.clients))
                asyncio.run(soak.run(given.minutes))
                failures, doubtful = report(soak, given.minutes)
        except StartError as exc:
            print(f"it did not start:\n{exc}", file=sys.stderr)
            return 2
    if failures:
        print("FAILED: " + "; ".join([*failures, *doubtful]))
        return 1
    if doubtful:
        print("NOT MEASURED: " + "; ".join(doubtful) + "; run it again on a quieter machine")
        return 3
    print("all flat, nothing left, every request answered")
    return 0


if __name__ == "__main__":
    sys.exit(main())
