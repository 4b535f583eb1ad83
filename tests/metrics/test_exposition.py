"""A scrape of many series gives the event loop its turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from sanic_proxy.metrics.exposition import TURN_S, in_turns
from sanic_proxy.metrics.metrics import Metrics
from sanic_proxy.observability.record import Attempt, Client, RequestRecord
from tests.support.machine import reference_s

MODELS, CLIENTS = 50, 10
ALIASES = ("genai-old", "genai-new", "litellm")
# Of `reference_s`, which takes 20 ms on a fast core: 5 ms.
HOLD = 0.25
ATTEMPTS = 4


class Turns:
    """Counts the turns of the event loop, and the CPU seconds of the longest one."""

    def __init__(self) -> None:
        self.count = 0
        self.longest_s = 0.0
        self._since = time.thread_time()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            self._since = time.thread_time()
            await asyncio.sleep(0)
            self.longest_s = max(self.longest_s, time.thread_time() - self._since)
            self.count += 1

    def stop(self) -> None:
        self._task.cancel()


def test_others_have_their_turn_after_each_millisecond() -> None:
    def steps() -> Iterator[int]:
        for number in range(20):
            until = time.monotonic() + TURN_S
            while time.monotonic() < until:
                pass
            yield number

    async def work() -> None:
        turns = Turns()
        assert await in_turns(steps()) == list(range(20))
        assert turns.count >= 19
        turns.stop()

    asyncio.run(work())


def filled(models: int, clients: int) -> Metrics:
    """Metrics that know so many models and clients."""
    metrics = Metrics()
    observe = metrics.observer(lambda model: True)
    for number in range(models * clients):
        model, client = number % models, number // models
        made = RequestRecord("id", "POST", "/v1/chat/completions", started=100.0)
        made.dialect, made.model, made.client = "chat", f"m{model}", Client(f"c{client}", f"client {client}")
        made.attempts = [Attempt(f"groq/m{model}", "ok", started=100.01, ended=100.1)]
        made.ended, made.finished, made.is_streaming, made.spent_nano = "complete", 101.0, True, 1000
        made.usage = {"prompt_tokens": 100, "completion_tokens": 20}
        observe(made)
    return metrics


def test_no_turn_of_a_scrape_with_a_thousand_series_takes_long() -> None:
    metrics = filled(MODELS, CLIENTS)

    async def scrape() -> float:
        unit_s = reference_s()
        turns = Turns()
        await asyncio.sleep(0)
        text = await metrics.text(ALIASES, {}, is_openmetrics=False)
        turns.stop()
        series = {line.partition(b",le=")[0] for line in text.splitlines() if not line.startswith(b"#")}
        assert len(series) >= 1000
        return turns.longest_s / unit_s

    assert min(asyncio.run(scrape()) for _ in range(ATTEMPTS)) < HOLD
    metrics.close()
