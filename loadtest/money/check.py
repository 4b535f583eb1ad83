"""Requests of all kinds through a proxy with four workers, some of which are killed; then the comparison."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from loadtest.money.provider import PRICES, Provider

WORKERS = 4
START_S, END_S = 120.0, 60.0
KEYS = {"app": "sk-money-app-0123456789", "strict": "sk-money-strict-0123456789"}
STRICT_USD = 1.5
STRICT_NANO = int(STRICT_USD * 10**9)
ESTIMATED, ORPHANED = 1, 64
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Plan:
    """How many requests, kills of workers, and requests at the same time."""

    requests: int
    kills: int
    clients: int
    seed: int = 1


@dataclass
class Figures:
    """What has been counted, and `problems`: what is not as it should be."""

    statuses: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    bill_nano: int = 0
    bill_attempts: int = 0
    exact_nano: int = 0
    exact_rows: int = 0
    estimated_rows: int = 0
    orphaned_rows: int = 0
    free_rows: int = 0
    strict_used: int = 0
    problems: list[str] = field(default_factory=list)

    def text(self) -> str:
        """All figures, a line each."""
        lines = [
            f"requests, by how they ended:    {dict(self.statuses.most_common())}",
            f"workers killed:                 {self.kills}",
            f"provider's bill:                {self.bill_nano} nano-dollars, {self.bill_attempts} attempts",
            f"ledger, usage seen:             {self.exact_nano} nano-dollars in {self.exact_rows} rows",
            f"ledger, usage not seen:         {self.estimated_rows} rows at their reservation, "
            f"{self.orphaned_rows} of them of killed workers",
            f"ledger, not billed:             {self.free_rows} rows",
            f"strict budget:                  {self.strict_used} of {STRICT_NANO} nano-dollars used",
            *(f"PROBLEM: {problem}" for problem in self.problems),
        ]
        return "\n".join([*lines, "the ledger equals the bill" if not self.problems else "NOT EQUAL"])


async def checked(plan: Plan, directory: Path) -> Figures:
    """Run the plan in an empty directory, and compare."""
    provider, figures = Provider(plan.seed), Figures()
    ports = _free_port(), _free_port()
    await provider.start(ports[0])
    process = _proxy(directory, *ports)
    try:
        await _until_ready(process, ports[1])
        killing = asyncio.create_task(_kill(process.pid, plan, figures))
        await _requests(plan, ports[1], figures)
        killing.cancel()
        await asyncio.sleep(2.5)  # a worker's turn to take over what the last dead one has left
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(process.wait, END_S)
        process.kill()
        provider.stop()
    compare(directory / "state.sqlite", provider, figures)
    return figures


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _proxy(directory: Path, provider_port: int, port: int) -> subprocess.Popen[bytes]:
    settings = directory / "proxy.toml"
    settings.write_text(
        f"""
[providers.bill]
base_url = "http://127.0.0.1:{provider_port}"
api_key_env = "BILL_KEY"
[models.m]
targets = [{{ provider = "bill", model = "x" }}]
prices = {{ input = {PRICES["input"]}, output = {PRICES["output"]} }}
max_output = 64
[clients.app]
key_env = "APP_KEY"
budget = {{ usd = 1000, per = "day" }}
[clients.strict]
key_env = "STRICT_KEY"
budget = {{ usd = {STRICT_USD}, per = "total", strict = true }}
"""
    )
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SANIC_")},
        "BILL_KEY": "sk-money-bill-0123456789",
        "APP_KEY": KEYS["app"],
        "STRICT_KEY": KEYS["strict"],
        "SANIC_PROXY_STATE_DIR": str(directory),
        "SANIC_PROXY_ACCESS_LOG": "off",
        "SANIC_PROXY_BREAKER": "off",
        "SANIC_PROXY_LAME_DUCK_SECONDS": "0",
    }
    command = [sys.executable, "-m", "sanic_proxy", "serve", "--config", str(settings), "--port", str(port)]
    with (directory / "proxy.log").open("wb") as log:
        return subprocess.Popen(
            [*command, f"--workers={WORKERS}"], env=environment, cwd=ROOT, stdout=log, stderr=log
        )


async def _until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + START_S
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError("the proxy did not start: see proxy.log")
        await asyncio.sleep(0.1)


def _workers(main: int) -> list[int]:
    """The worker processes below the main process."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == main and b"spawn_main" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    return found


async def _kill(main: int, plan: Plan, figures: Figures) -> None:
    chance = random.Random(plan.seed)
    while figures.kills < plan.kills:
        await asyncio.sleep(chance.uniform(0.3, 1.2))
        if len(workers := _workers(main)) == WORKERS:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(workers), signal.SIGKILL)
                figures.kills += 1


async def _requests(plan: Plan, port: int, figures: Figures) -> None:
    numbers = iter(range(plan.requests))

    async def client() -> None:
        for number in numbers:
            figures.statuses[await _request(number, port, random.Random(f"{plan.seed} {number}"))] += 1

    await asyncio.gather(*(client() for _ in range(plan.clients)))


async def _request(number: int, port: int, chance: random.Random) -> str:
    """Send one request, and perhaps leave before its end. Returns how it ended."""
    fault = chance.choices(("", "fail", "cut", "slow"), (70, 10, 10, 10))[0]
    is_streaming = fault in {"cut", "slow"} or chance.random() < 0.5
    key = KEYS["strict" if chance.random() < 0.3 else "app"]
    patience_s = chance.uniform(0.0, 0.2) if chance.random() < 0.1 else END_S
    fields = {"model": "m", "stream": is_streaming, "metadata": {"id": str(number), "fault": fault}}
    body = json.dumps(
        {**fields, "messages": [{"role": "user", "content": "x" * chance.randrange(400)}]}
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n"
        f"x-request-id: {number}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        "connection: close\r\n\r\n"
    )
    try:
        async with asyncio.timeout(patience_s):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(head.encode() + body)
                answer = await reader.read()
            finally:
                writer.close()
    except TimeoutError:
        return "left"
    except OSError:
        return "lost"
    return answer[9:12].decode() if answer else "lost"


def compare(file: Path, provider: Provider, figures: Figures) -> None:
    """Compare the rows with the bill, request by request."""
    with closing(sqlite3.connect(file)) as connection:
        rows = connection.execute("SELECT request_id, nano, flags FROM ledger_row").fetchall()
        sums = dict(connection.execute("SELECT name, used FROM budget_counter").fetchall())
        by_client = dict(connection.execute("SELECT client, SUM(nano) FROM ledger_row GROUP BY 1").fetchall())
        leased = connection.execute("SELECT COALESCE(SUM(nano), 0) FROM budget_lease").fetchone()[0]
    _compare_rows(rows, provider, figures)
    figures.strict_used = sums.get("strict", 0)
    if figures.strict_used > STRICT_NANO:
        figures.problems.append("the strict budget is exceeded")
    if sums != by_client:
        figures.problems.append(f"budgets say {sums}, rows say {by_client}")
    if leased:
        figures.problems.append(f"{leased} nano-dollars are still leased")


def _compare_rows(rows: list[tuple[str, int, int]], provider: Provider, figures: Figures) -> None:
    bill: dict[str, Counter[int]] = {}
    for billed in provider.billed:
        bill.setdefault(billed.request_id, Counter())[billed.nano] += 1
        figures.bill_nano += billed.nano
        figures.bill_attempts += 1
    booked: Counter[str] = Counter()
    for request_id, nano, flags in rows:
        if flags & ESTIMATED:
            figures.estimated_rows += 1
            figures.orphaned_rows += bool(flags & ORPHANED)
        elif nano == 0:
            figures.free_rows += 1
            continue
        else:
            figures.exact_rows += 1
            figures.exact_nano += nano
            if not bill.get(request_id, Counter())[nano]:
                figures.problems.append(f"request {request_id} is booked at {nano}, and not billed so")
        booked[request_id] += 1
    for request_id, costs in bill.items():
        if costs.total() > booked[request_id]:
            figures.problems.append(f"request {request_id} is billed more often than booked")
