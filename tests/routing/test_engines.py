"""The queues of self-hosted engines."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from sanic_proxy.config.model import ProviderSettings
from sanic_proxy.routing import engines
from sanic_proxy.routing.engines import MAX_METRICS_BYTES, EngineMonitor, EngineQueue, waiting_requests
from tests.support.upstream import Exchange, Upstream
from tests.support.upstream_client import CLOCKS, opened

VLLM = b"""\
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="a b"} 3.0
vllm:num_requests_waiting{engine="1",model_name="a b"} 4.0
vllm:num_requests_waiting_by_reason{reason="x"} 9.0
vllm:num_requests_running{engine="0"} 8.0
"""


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (VLLM, 7),
        (b'sglang:num_queue_reqs{model_name="x"} 2.0\n', 2),
        (b"llamacpp:requests_deferred 5\r\n", 5),
        (b"tgi_queue_size 1e1 1700000000\n", 10),
        (b"vllm:num_requests_waiting 0.0", 0),
        (b"vllm:num_requests_waiting 1e300", 10**6),
        (
            b"vllm:num_requests_waiting NaN\nvllm:num_requests_waiting -1\nvllm:num_requests_waiting 1.2.3",
            None,
        ),
        (b"other 3", None),
        (b"", None),
        (b"\xff\xfe", None),
    ],
)
def test_requests_that_wait_are_counted(metrics: bytes, expected: int | None) -> None:
    assert waiting_requests(metrics) == expected


def provider(name: str, metrics_url: str) -> ProviderSettings:
    return ProviderSettings(
        name, "openai", "http://engine.invalid/v1", None, 10.0, CLOCKS, metrics_url=metrics_url
    )


class Engine:
    """Gives its answers in turn; `known` has what the monitor had read when each request came."""

    def __init__(self, *answers: tuple[bytes, int]) -> None:
        self.answers = list(answers)
        self.queue: EngineQueue | None = None
        self.known: list[int] = []
        self.is_over = threading.Event()

    async def __call__(self, exchange: Exchange) -> None:
        assert self.queue is not None
        self.known.append(self.queue.waiting)
        if not self.answers:
            self.is_over.set()
        body, status = self.answers.pop(0) if self.answers else (b"", 200)
        await exchange.answer(body, status, kind="text/plain")


def watch(upstream: Upstream, engine: Engine) -> None:
    """Let a monitor read `engine` until it has no answers any more."""

    async def run() -> None:
        async with opened() as client:
            lab = provider("lab", f"{upstream.url}/metrics")
            monitor = EngineMonitor([lab, provider("other", "")], client)
            engine.queue = monitor.queue("lab")
            assert monitor.queue("other") is None
            monitor.start()
            try:
                assert await asyncio.to_thread(engine.is_over.wait, 60)
            finally:
                await monitor.aclose()

    asyncio.run(run())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "POLL_S", 0.01)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [text for record in caplog.records if (text := record.getMessage()).startswith("metrics of lab")]


def test_a_queue_is_read_again_and_again(upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    engine = Engine((VLLM, 200), (b"down", 500), (b"no gauge", 200), (b"tgi_queue_size 4", 200))
    upstream.on("GET /metrics", engine)
    watch(upstream, engine)
    assert engine.known[:5] == [0, 7, 0, 0, 4]
    messages = logged(caplog)
    assert messages[0].endswith("its queue is unknown")
    assert messages[1] == "metrics of lab can be read again"
    assert not upstream.problems


def test_too_many_metrics_are_not_read(upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine((VLLM + b"#" * MAX_METRICS_BYTES, 200))
    upstream.on("GET /metrics", engine)
    watch(upstream, engine)
    assert engine.known[:2] == [0, 0]
    assert logged(caplog)


def test_an_engine_that_hangs_is_given_up(
    upstream: Upstream, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "TIMEOUT_S", 0.05)
    engine = Engine()
    was_asked = threading.Event()

    async def metrics(exchange: Exchange) -> None:
        if was_asked.is_set():
            await engine(exchange)
        was_asked.set()
        await exchange.client_leaves()

    upstream.on("GET /metrics", metrics)
    watch(upstream, engine)
    assert "within" in logged(caplog)[0]
