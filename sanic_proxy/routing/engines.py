"""How many requests wait in self-hosted engines, as they report it themselves.

An engine is shared by all workers, by other proxies and by other programs, so what one worker has in flight
says little of its queue. Where a provider has a `metrics_url`, each worker reads it once a second in a task
of its own; no request waits for it. An engine that does not answer counts with what is in flight alone.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from sanic_proxy.config.model import ProviderSettings
from sanic_proxy.errors import ProxyError
from sanic_proxy.upstream.client import Endpoint, UpstreamClient

logger = logging.getLogger(__name__)

POLL_S = 1.0
TIMEOUT_S = 2.0
MAX_METRICS_BYTES = 4 * 2**20
# No engine has a longer queue; a number beyond is a mistake.
_MAX_WAITING = 10**6

# The gauges of the requests that wait, one line for each model or rank that an engine serves:
# https://docs.vllm.ai/en/latest/design/metrics.html, https://docs.sglang.io/references/production_metrics.html,
# https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md (with --metrics), and
# https://huggingface.co/docs/text-generation-inference/reference/metrics.
_WAITING = re.compile(
    rb"^(?:vllm:num_requests_waiting|sglang:num_queue_reqs|llamacpp:requests_deferred|tgi_queue_size)"
    rb"(?:\{[^\n]*\})?[ \t]+([0-9.eE+]{1,32})(?:[ \t]|\r?$)",
    re.MULTILINE,
)


def waiting_requests(metrics: bytes) -> int | None:
    """The requests that wait in an engine, from its metrics in Prometheus' format; None: not in them."""
    values = []
    for text in _WAITING.findall(metrics):
        try:
            values.append(float(text))
        except ValueError:
            continue
    return int(min(sum(values), _MAX_WAITING)) if values else None


@dataclass(slots=True)
class EngineQueue:
    """How many requests wait in one engine; 0 while it does not say."""

    waiting: int = 0


class EngineMonitor:
    """Reads the queues of all providers with a `metrics_url`, in tasks that `aclose` ends."""

    def __init__(self, providers: Iterable[ProviderSettings], client: UpstreamClient) -> None:
        self._client = client
        self._queues: dict[str, EngineQueue] = {}
        self._endpoints: dict[str, Endpoint] = {}
        for provider in providers:
            if provider.metrics_url:
                self._queues[provider.name] = EngineQueue()
                self._endpoints[provider.name] = _endpoint(provider)
        self._tasks: set[asyncio.Task[None]] = set()

    def queue(self, provider: str) -> EngineQueue | None:
        """The queue of a provider's engine; None where it has no metrics."""
        return self._queues.get(provider)

    def start(self) -> None:
        """Begin to read, in the running loop."""
        self._tasks = {asyncio.create_task(self._watch(name)) for name in self._queues}

    async def aclose(self) -> None:
        """End the reading."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _watch(self, name: str) -> None:
        queue, problem = self._queues[name], ""
        while True:
            earlier, problem = problem, await self._read(name, queue)
            if problem and not earlier:
                logger.warning("metrics of %s: %s; its queue is unknown", name, problem)
            elif earlier and not problem:
                logger.info("metrics of %s can be read again", name)
            await asyncio.sleep(POLL_S * random.uniform(0.8, 1.2))  # noqa: S311 - not a secret

    async def _read(self, name: str, queue: EngineQueue) -> str:
        """Read one queue. Returns why that was not possible, or ""."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                response = await self._client.send(self._endpoints[name])
                try:
                    waiting = waiting_requests(await response.read_all(MAX_METRICS_BYTES))
                finally:
                    response.close()
        except TimeoutError:
            waiting, problem = None, f"no answer within {TIMEOUT_S:g} s"
        except ProxyError as exc:
            waiting, problem = None, exc.message
        else:
            problem = "" if waiting is not None else "no gauge of waiting requests in them"
        queue.waiting = waiting or 0
        return problem


def _endpoint(provider: ProviderSettings) -> Endpoint:
    timeouts = replace(provider.timeouts, connect_s=TIMEOUT_S, first_byte_s=TIMEOUT_S, total_s=TIMEOUT_S)
    # Without the provider's key: the metrics may be another server's.
    headers = {"accept": "text/plain", "accept-encoding": "identity"}
    return Endpoint("GET", provider.metrics_url, headers, timeouts, provider.proxy)
