"""One cell: a wall, a proxy before it, and the calls of a scenario."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from loadtest.failover import client
from loadtest.failover.scenarios import Run, Scenario, Verdict, problems, verdict
from loadtest.failover.wall import FULL, Times, Wall
from loadtest.own_proxy import serving

ALIVE_S = 10.0
MODEL = "bench"

# Two retries, 30 s until the first byte and of silence, one fallback: the baseline of every gateway that is
# measured. A slow first token needs a limit of its own, and a stream that breaks off a decision. The model
# `healthy` has the same settings, to measure what they cost an answer that needs none of them.
CONFIG = """\
[proxy]
timeout_first_byte = {timeout_s:g}
timeout_idle = {timeout_s:g}
[providers.wall]
base_url = "http://127.0.0.1:{port}/v1"
continues = true
[models.bench]
targets = ["wall/{model}", "wall/{fallback}"]
first_content = 12
collect = true
{saving}
[models.healthy]
targets = ["wall/fb-ok"]
first_content = 12
{saving}
"""
# With this many pairs of requests.
COST_PAIRS = 5


@dataclass(frozen=True)
class Cell:
    """What is measured: a scenario, streamed or whole, over new connections or over used ones."""

    scenario: Scenario
    is_streaming: bool
    is_warm: bool
    workers: int = 2
    times: Times = FULL
    timeout_s: float = 30.0
    saving: str = 'on_cut = "continue"'

    @property
    def name(self) -> str:
        kind = "streamed" if self.is_streaming else "whole"
        return f"{kind} {'warm' if self.is_warm else 'cold'}"

    @property
    def is_fast(self) -> bool:
        return self.times is not FULL


@dataclass(frozen=True)
class Result:
    """What came of a cell."""

    scenario: str
    cell: str
    verdict: Verdict
    required: list[str]
    wished: list[str]
    outcomes: list[dict[str, Any]]
    log: list[dict[str, Any]]
    added_s: float | None = None  # to the first content of a healthy stream, by the model's settings


async def measure(cell: Cell) -> Result:
    """Run a cell against a proxy of its own."""
    scenario = cell.scenario
    async with Wall(cell.times) as wall:
        with ExitStack() as stack:
            port = await asyncio.to_thread(
                stack.enter_context, serving(_config(cell, wall.port), cell.workers)
            )
            for _ in range(4 * max(cell.workers, 1) if cell.is_warm else 0):
                await client.send_chat(port, "wall/fb-ok", is_streaming=cell.is_streaming, limit_s=ALIVE_S)
            wall.reset()
            outcomes = await _calls(cell, port)
            log = list(wall.log)
            added_s = await _added_s(port) if cell.is_streaming else None
            alive = await client.send_chat(port, "wall/fb-ok", is_streaming=False, limit_s=ALIVE_S)
            await asyncio.to_thread(stack.close)
    run = Run(outcomes, log, scenario.model, cell.times, alive.error is None)
    required, wished = problems(scenario, run)
    return Result(
        scenario.name,
        cell.name,
        verdict(scenario, run),
        required,
        wished,
        [asdict(outcome) for outcome in outcomes],
        [asdict(entry) for entry in log],
        added_s,
    )


async def _added_s(port: int) -> float:
    """How much later the first content of a healthy stream comes with the model's settings than without."""
    times: dict[str, list[float]] = {"healthy": [], "wall/fb-ok": []}
    for _ in range(COST_PAIRS):
        for model, taken in times.items():
            outcome = await client.send_chat(port, model, is_streaming=True, limit_s=ALIVE_S)
            taken.append(ALIVE_S if outcome.first_content_s is None else outcome.first_content_s)
    return min(times["healthy"]) - min(times["wall/fb-ok"])


async def _calls(cell: Cell, port: int) -> list[client.Outcome]:
    scenario = cell.scenario
    outcomes = []
    for _ in range(scenario.calls[cell.is_fast]):
        next_at = time.monotonic() + scenario.interval_s[cell.is_fast]
        outcomes.append(
            await client.send_chat(port, MODEL, is_streaming=cell.is_streaming, limit_s=scenario.limit_s)
        )
        await asyncio.sleep(max(0.0, next_at - time.monotonic()))
    return outcomes


def _config(cell: Cell, wall_port: int) -> str:
    scenario = cell.scenario
    return CONFIG.format(
        timeout_s=cell.timeout_s,
        port=wall_port,
        model=scenario.model,
        fallback=scenario.fallback,
        saving=cell.saving,
    )
