"""How long requests wait for the ledger: `python -m loadtest.money.waits`.

Four processes share one store. Their requests reserve money of two budgets, take 20 to 200 ms, and settle.
The time that counts is the one from before the reservation to after it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import tempfile
import time
from pathlib import Path

from sanic_proxy.governance import ledger_tables
from sanic_proxy.governance.budgets import Charge, Counter
from sanic_proxy.governance.leases import Entry, Settlement
from sanic_proxy.governance.ledger import Ledger
from sanic_proxy.state_store.sqlite import SQLiteStore

PROCESSES, CONCURRENT, REQUESTS = 4, 16, 5_000
NANO = 10**6


async def _requests(directory: Path, seed: int) -> list[float]:
    store = SQLiteStore(directory, ledger_tables.MIGRATIONS)
    ledger = Ledger(store, directory)
    chance = random.Random(seed)
    left = iter(range(REQUESTS))
    waits: list[float] = []

    async def client() -> None:
        for number in left:
            charges = [Charge(Counter("client", f"c{chance.randrange(20)}", "total", 0), 10**15)]
            charges.append(Charge(Counter("all", "", "total", 0), 10**16))
            entry = Entry(f"{seed}-{number}", 1, "c", "", "p", "p/m", "m", "chat", "/c", "", _now_ms())
            began = time.perf_counter()
            holds = [(ledger.lease(charge), NANO) for charge in charges]
            reservation = ledger.reserve(entry, holds, NANO) or await ledger.acquire(entry, holds, NANO)
            waits.append(time.perf_counter() - began)
            await asyncio.sleep(chance.uniform(0.02, 0.2))
            ledger.settle(reservation, Settlement(NANO // 2, "complete", _now_ms()))

    await asyncio.gather(*(client() for _ in range(CONCURRENT)))
    await ledger.aclose()
    await store.aclose()
    return waits


def _now_ms() -> int:
    return int(1000 * time.time())


def run(arguments: tuple[Path, int]) -> list[float]:
    """The waits of one process, in seconds."""
    return asyncio.run(_requests(*arguments))


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as directory, multiprocessing.Pool(PROCESSES) as pool:
        found = pool.map(run, [(Path(directory), seed) for seed in range(PROCESSES)])
    waits = sorted(wait for each in found for wait in each)
    shown = {name: 1000 * waits[int(len(waits) * part)] for name, part in (("p50", 0.5), ("p99", 0.99))}
    print(
        f"{len(waits)} requests: p50 {shown['p50']:.3f} ms, p99 {shown['p99']:.3f} ms, "
        f"longest {1000 * waits[-1]:.1f} ms"
    )


if __name__ == "__main__":
    main()
