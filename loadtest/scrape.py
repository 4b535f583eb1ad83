"""How long a scrape of many series holds the event loop of the worker that answers it.

    python -m loadtest.scrape [--workers 4] [--models 100]

Each of the other workers is a process that has counted requests for all models in the shared memory. The
answering one makes the text with all further names, while a task beside it notes the longest time that the
event loop was held, as CPU time of the thread and by the clock (which a busy machine makes longer).
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import time
from multiprocessing.synchronize import Event

from sanic_proxy.metrics.metrics import Metrics
from sanic_proxy.observability.record import Attempt, Client, RequestRecord
from sanic_proxy.state_store.shared import unnamed_memory

ALIASES = ("genai-old", "genai-new", "litellm")
CLIENTS = 4
SCRAPES = 5


def count_requests(metrics: Metrics, models: int) -> None:
    """Streams of each model, by a few clients."""
    observe = metrics.observer(lambda model: True)
    for number in range(models * CLIENTS):
        model, client = number % models, number // models
        record = RequestRecord("id", "POST", "/v1/chat/completions", started=100.0)
        record.dialect, record.model, record.client = "chat", f"m{model}", Client(f"c{client}", f"c{client}")
        record.attempts = [Attempt(f"groq/m{model}", "ok", started=100.01, ended=100.1)]
        record.ended, record.finished, record.is_streaming = "complete", 101.0, True
        record.usage, record.spent_nano = {"prompt_tokens": 100, "completion_tokens": 20}, 1000
        observe(record)
    metrics.observer(lambda model: True)  # adds up what has been counted


def other_worker(memory: tuple[int, int], models: int, is_ready: Event, is_over: Event) -> None:
    metrics = Metrics(memory)
    count_requests(metrics, models)
    is_ready.set()
    is_over.wait()
    metrics.close()


async def held(metrics: Metrics) -> tuple[float, float, int, int]:
    """The longest turn during one scrape in seconds, by CPU and by the clock; series and bytes."""
    longest = [0.0, 0.0]

    async def watch() -> None:
        while True:
            cpu_s, clock_s = time.thread_time(), time.perf_counter()
            await asyncio.sleep(0)
            longest[0] = max(longest[0], time.thread_time() - cpu_s)
            longest[1] = max(longest[1], time.perf_counter() - clock_s)

    watcher = asyncio.get_running_loop().create_task(watch())
    await asyncio.sleep(0)
    text = await metrics.text(ALIASES, {}, is_openmetrics=False)
    watcher.cancel()
    lines = [line for line in text.splitlines() if not line.startswith(b"#")]
    series = {line.rpartition(b" ")[0].partition(b"le=")[0] for line in lines}
    return longest[0], longest[1], len(series), len(text)


def main() -> None:
    parser = argparse.ArgumentParser("python -m loadtest.scrape", description=__doc__)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--models", type=int, default=100)
    given = parser.parse_args()
    connections = unnamed_memory(), unnamed_memory()
    memory = connections[0].fileno(), connections[1].fileno()
    context = multiprocessing.get_context("fork")
    is_over = context.Event()
    others = []
    for _ in range(given.workers - 1):
        is_ready = context.Event()
        process = context.Process(target=other_worker, args=(memory, given.models, is_ready, is_over))
        process.start()
        is_ready.wait()
        others.append(process)
    metrics = Metrics(memory)
    count_requests(metrics, given.models)
    print("scrape  series     bytes  longest turn: CPU   clock")
    for number in range(SCRAPES):
        cpu_s, clock_s, series, size = asyncio.run(held(metrics))
        print(f"{number + 1:6}  {series:6}  {size:8}  {1000 * cpu_s:14.2f} ms  {1000 * clock_s:.2f} ms")
    is_over.set()
    for process in others:
        process.join()
    metrics.close()


if __name__ == "__main__":
    main()
