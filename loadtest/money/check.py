"""Requests of all kinds through proxies with four workers, some of which are killed; then the comparison.

With several instances these share a PostgreSQL database, and each has a directory of its own, as on a machine
of its own. Half-way one of them is killed with all its workers, and started again.
"""

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
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from loadtest.money.provider import PRICES, Provider
from sanic_proxy.governance.journal import SUFFIX, Journal, journals
from sanic_proxy.governance.ledger import FOLDER
from sanic_proxy.state_store.base import Statements

WORKERS = 4
START_S, END_S, LOST_PAUSE_S = 120.0, 60.0, 0.5
KEYS = {"app": "sk-money-app-0123456789", "strict": "sk-money-strict-0123456789"}
STRICT_USD = 1.5
STRICT_NANO = int(STRICT_USD * 10**9)
ESTIMATED, ORPHANED = 1, 64
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Plan:
    """How many requests, kills of workers, and requests at the same time; of how many instances.

    `store` is the URL of an empty PostgreSQL database; "": SQLite.
    """

    requests: int
    kills: int
    clients: int
    seed: int = 1
    instances: int = 1
    store: str = ""


@dataclass
class Figures:
    """What has been counted, and `problems`: what is not as it should be."""

    statuses: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    instance_kills: int = 0
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
            f"instances killed:               {self.instance_kills}",
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
    provider_port = _free_port()
    await provider.start(provider_port)
    instances = [
        _Instance(directory / str(number), provider_port, plan.store) for number in range(plan.instances)
    ]
    try:
        for instance in instances:
            await instance.start()
        killing = asyncio.create_task(_kill(instances, plan, figures))
        await _requests(plan, instances, figures)
        await killing
        async with asyncio.timeout(END_S):
            while any(instance.has_orphans() for instance in instances):  # noqa: ASYNC110 - of processes
                await asyncio.sleep(0.1)
    finally:
        await asyncio.gather(*(asyncio.to_thread(instance.stop) for instance in instances))
        provider.stop()
    with _connection(plan.store, instances[0].directory) as connection:
        compare(connection, provider, figures)
    return figures


@contextmanager
def _connection(store: str, directory: Path) -> Iterator[Statements]:
    if store:
        import psycopg  # noqa: PLC0415 - an extra

        with psycopg.connect(store) as connection:
            yield connection
    else:
        with closing(sqlite3.connect(directory / "state.sqlite")) as opened:
            yield opened


class _Instance:
    """A proxy with its state directory."""

    def __init__(self, directory: Path, provider_port: int, store: str) -> None:
        self.directory = directory
        self.port = _free_port()
        self._provider_port = provider_port
        self._store = store
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True)

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        process = self._process = _proxy(self.directory, self._provider_port, self.port, self._store)
        until = time.monotonic() + START_S
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                answer = await reader.read()
                writer.close()
                if answer:
                    return
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("the proxy did not start: see proxy.log")
            await asyncio.sleep(0.1)

    def workers(self) -> list[int]:
        """Those of its worker processes that have had requests."""
        found = [] if self._process is None else _workers(self._process.pid)
        return [pid for pid in found if _has_journal(pid)]

    def has_orphans(self) -> bool:
        """Whether a dead worker's journal has not been taken over yet."""
        for path in journals(self.directory / FOLDER):
            if (left := Journal.adopt(path)) is not None:
                left.close()
                return True
        return False

    def kill(self) -> None:
        """Kill all its processes."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it, and kill what is left of it."""
        if (process := self._process) is not None:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _proxy(directory: Path, provider_port: int, port: int, store: str) -> subprocess.Popen[bytes]:
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
        **({"SANIC_PROXY_STORE": store} if store else {}),
    }
    command = [sys.executable, "-m", "sanic_proxy", "serve", "--config", str(settings), "--port", str(port)]
    with (directory / "proxy.log").open("ab") as log:
        return subprocess.Popen(
            [*command, f"--workers={WORKERS}"],
            env=environment,
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _workers(main: int) -> list[int]:
    """The worker processes below the main process."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == main and b"spawn_main" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    return found


def _has_journal(pid: int) -> bool:
    with suppress(OSError):
        return any(str(path.readlink()).endswith(SUFFIX) for path in Path(f"/proc/{pid}/fd").iterdir())
    return False


async def _kill(instances: list[_Instance], plan: Plan, figures: Figures) -> None:
    chance = random.Random(plan.seed)
    is_whole = len(instances) > 1  # one of them is killed whole
    while (ended := figures.statuses.total()) < plan.requests:
        await asyncio.sleep(chance.uniform(0.05, 0.2))
        if is_whole and ended >= plan.requests / 2:
            is_whole = False
            instances[-1].kill()
            figures.instance_kills += 1
            await instances[-1].start()
        if figures.kills >= plan.kills or ended < plan.requests * (figures.kills + 1) / (plan.kills + 2):
            continue
        workers = chance.choice(instances).workers()
        if len(workers) > 1:  # a proxy whose last worker is killed may end before another one has started
            with suppress(ProcessLookupError):
                os.kill(chance.choice(workers), signal.SIGKILL)
                figures.kills += 1


async def _requests(plan: Plan, instances: list[_Instance], figures: Figures) -> None:
    numbers = iter(range(plan.requests))

    async def client() -> None:
        for number in numbers:
            port = instances[number % len(instances)].port
            ended = await _request(number, port, random.Random(f"{plan.seed} {number}"))
            figures.statuses[ended] += 1
            if ended == "lost":  # nobody listens while the instance is started again
                await asyncio.sleep(LOST_PAUSE_S)

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


def compare(connection: Statements, provider: Provider, figures: Figures) -> None:
    """Compare the rows with the bill, request by request."""
    rows = connection.execute("SELECT request_id, nano, flags FROM ledger_row").fetchall()
    sums = dict(connection.execute("SELECT name, used FROM budget_counter").fetchall())
    spent = connection.execute("SELECT client, SUM(nano) FROM ledger_row GROUP BY 1").fetchall()
    by_client = {name: int(nano) for name, nano in spent}
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
