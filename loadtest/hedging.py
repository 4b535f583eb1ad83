"""What second attempts do to slow first contents, and what they cost: `python -m loadtest.hedging`.

A scripted provider needs `USUAL_S` seconds to the first content of a stream, give or take a fifth, and for
some requests ten times as long; a proxy before it has two targets there. The same requests are sent without
second attempts and with them, for each budget. The extra requests are counted at the provider, and so is how
long after the first content of the other attempt a connection that lost was closed.

Two kinds of slowness. *Single requests*: `SLOW_SHARE` of them, whichever target they meet, which nobody can
foresee. *Moments of a target*: the first target is slow for a second out of four, so that one request in
eight would be slow if each target got half of them; the strategy `least_latency` avoids it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from loadtest.failover import client
from loadtest.own_proxy import serving
from tests.support.upstream import Exchange, Upstream, text_stream

USUAL_S = 0.2
SLOW_SHARE = 0.05
# One of two targets is slow for so long, so often.
MOMENT_S, EVERY_S = 1.0, 4.0
SLOWNESS = 10.0
LIMIT_S = 30.0
CONFIG = """\
[providers.a]
base_url = "{url}/a/v1"
[providers.b]
base_url = "{url}/b/v1"
[models.bench]
strategy = "{strategy}"
targets = ["a/first", "b/second"]
{hedge}
"""


@dataclass(frozen=True)
class Case:
    """A strategy and a budget; without one there are no second attempts. `has_moments`: see the module."""

    strategy: str
    budget: float | None = None
    has_moments: bool = False

    @property
    def name(self) -> str:
        """In the table."""
        hedge = "off" if self.budget is None else f"`budget = {self.budget}`"
        return f"`{self.strategy}`, {hedge}" if self.has_moments else hedge


# The others of a kind are compared with the first one.
SINGLE = (Case("order"), Case("order", 0.03), Case("order", 0.06))
MOMENTS = (
    Case("weighted", None, True),
    Case("least_latency", None, True),
    Case("least_latency", 0.03, True),
)
CLIENTS = 8
# Requests before those that are measured: from which the proxy learns the usual time.
LEARNED_FROM = 100


@dataclass
class Provider:
    """The scripted provider: what it was asked, and how quickly connections that lost were closed.

    `has_moments`: its first target is slow for moments, instead of single requests.
    """

    chance: random.Random
    has_moments: bool
    asked: int = 0
    closed_s: list[float] = field(default_factory=list)
    _content_at: dict[str, float] = field(default_factory=dict)  # by question

    async def answer(self, exchange: Exchange) -> None:
        """One attempt."""
        self.asked += 1
        question = exchange.seen.json["messages"][0]["content"]
        seconds = USUAL_S * self.chance.uniform(0.8, 1.2)
        if self._is_slow(exchange.seen.path):
            seconds *= SLOWNESS
        await exchange.begin_stream()
        try:
            async with asyncio.timeout(seconds):
                await exchange.client_leaves()
        except TimeoutError:
            for piece in text_stream("Hello"):
                await exchange.chunk(piece)
            self._content_at[question] = time.monotonic()
            await exchange.end_stream()
        else:
            self.closed_s.append(time.monotonic() - self._content_at[question])
            exchange.is_closing = True

    def _is_slow(self, path: str) -> bool:
        if self.has_moments:
            return path.startswith("/a/") and time.monotonic() % EVERY_S < MOMENT_S
        return self.chance.random() < SLOW_SHARE


@dataclass(frozen=True)
class Figures:
    """Times to the first content in ms, the extra requests as a share, and the times to a close in ms."""

    case: Case
    p50: float
    p95: float
    p99: float
    extra: float
    closed: tuple[float, ...]


async def measure(case: Case, requests: int, seed: int) -> Figures:
    """The figures of `requests` requests."""
    provider, upstream = Provider(random.Random(seed), case.has_moments), Upstream(is_recording=False)
    upstream.on("*", provider.answer)
    hedge = "" if case.budget is None else f"hedge = {{ budget = {case.budget} }}"
    async with upstream.listening():
        with ExitStack() as stack:
            config = CONFIG.format(url=upstream.url, hedge=hedge, strategy=case.strategy)
            port = await asyncio.to_thread(stack.enter_context, serving(config, 1))
            await _times(port, LEARNED_FROM)
            times = sorted(await _times(port, requests))
            await asyncio.to_thread(stack.close)
    p50, p95, p99 = (1000 * percentile(times, share) for share in (0.5, 0.95, 0.99))
    return Figures(
        case,
        p50,
        p95,
        p99,
        provider.asked / (LEARNED_FROM + requests) - 1,
        tuple(1000 * seconds for seconds in sorted(provider.closed_s)),
    )


async def _times(port: int, requests: int) -> list[float]:
    numbers = iter(range(requests))

    async def one_after_the_other() -> list[float]:
        times = []
        for number in numbers:
            outcome = await client.send_chat(
                port, "bench", is_streaming=True, limit_s=LIMIT_S, question=f"Question {number}"
            )
            if outcome.first_content_s is None or outcome.error is not None:
                raise RuntimeError(f"a request failed: {outcome}")
            times.append(outcome.first_content_s)
        return times

    lists = await asyncio.gather(*(one_after_the_other() for _ in range(CLIENTS)))
    return [seconds for times in lists for seconds in times]


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of `ordered` do not exceed."""
    return ordered[max(0, round(share * len(ordered)) - 1)]


def table(rows: Sequence[Figures]) -> str:
    """The rows as a table in Markdown, compared with the first one."""
    lines = [
        "| `hedge` | p50 ms | p95 ms | p99 ms | p99 | extra requests | close ms: median, slowest |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        change = "" if row is rows[0] else f"{100 * (row.p99 / rows[0].p99 - 1):+.0f} %"
        closed = f"{percentile(row.closed, 0.5):.0f}, {row.closed[-1]:.0f}" if row.closed else ""
        lines.append(
            f"| {row.case.name} | {row.p50:.0f} | {row.p95:.0f} | {row.p99:.0f} | {change} "
            f"| {100 * row.extra:.1f} % | {closed} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtest.hedging", description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    for title, cases in (("Single requests", SINGLE), ("Moments of a target", MOMENTS)):
        rows = [asyncio.run(measure(case, options.requests, options.seed)) for case in cases]
        sys.stdout.write(f"{title}\n\n{table(rows)}\n")


if __name__ == "__main__":
    main()
