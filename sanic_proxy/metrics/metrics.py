"""The metrics of one worker, and of all of them together: where the memory, the counts and the text meet."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from sanic_proxy.metrics import families as f
from sanic_proxy.metrics.exposition import Computed, exposition, in_turns
from sanic_proxy.metrics.recent import RecentCounts
from sanic_proxy.metrics.requests import RequestMetrics
from sanic_proxy.metrics.series import LAYOUT, LocalHistogram, NameLog, SeriesRegistry
from sanic_proxy.observability.in_flight import Traffic
from sanic_proxy.observability.record import Observer
from sanic_proxy.state_store.shared import SharedMemory, unnamed_memory

# How many kinds of requests a scrape adds up in one step.
STEP = 4


class Dropped(NamedTuple):
    """What could not be written or sent since the last beat."""

    traces: int = 0
    captures: int = 0
    log_lines: int = 0


_NOTHING = Dropped()


class Metrics:
    """Outlives a reload of the settings. `inherited` are the descriptors that the main process has made.

    Without a main process the memory is private. `recent` are this worker's counts of the last minute.
    """

    def __init__(self, inherited: tuple[int, int] | None = None) -> None:
        self._own = () if inherited is not None else (unnamed_memory(), unnamed_memory())
        numbers, names = inherited or (connection.fileno() for connection in self._own)
        self._memory = SharedMemory(inherited=numbers, layout=LAYOUT)
        self._series = SeriesRegistry(self._memory, NameLog(names))
        self._requests: RequestMetrics | None = None
        self.recent = RecentCounts()
        self._open_circuits: set[str] = set()

    def observer(self, is_configured: Callable[[str], bool]) -> Observer:
        """Counts requests. `is_configured`: whether a model's name is one of the operator's own.

        Requests that began with the settings before are counted as well, as long as they are in flight.
        """
        self._flush_all()
        if self._requests is None:
            self._requests = RequestMetrics(self._series, is_configured, self.recent)
        else:
            self._requests.is_configured = is_configured
        return self._requests.observe

    def beat(
        self,
        traffic: Traffic,
        open_circuits: Iterable[str],
        lag_s: float,
        dropped: Dropped = _NOTHING,
        *,
        waiting: int = 0,
    ) -> None:
        """To be called once a second: show what is in flight, and that the timer was late by `lag_s`.

        `waiting` requests wait for a limit.
        """
        self._flush_on()
        add = self._series.adder()
        if add is None:
            return
        self._series.gauge(f.WORKERS, 1)
        self._series.gauge(f.IN_FLIGHT, len(traffic.requests))
        self._series.gauge(f.WAITING, waiting)
        self._series.gauge(f.CONNECTIONS, len(traffic.connections))
        self._series.gauge(f.BODY_BYTES, traffic.body_bytes)
        lag = LocalHistogram(f.SHORT_SECONDS)
        lag.observe(lag_s)
        add.histogram(f.LOOP_LAG, lag, _worker_name())
        add.count(f.DROPPED_TRACES, dropped.traces)
        add.count(f.DROPPED_CAPTURES, dropped.captures)
        add.count(f.DROPPED_LOG_LINES, dropped.log_lines)
        now_open = set(map(self._target, open_circuits))
        for label in now_open - self._open_circuits:
            add.count(f.CIRCUIT_OPENINGS, 1, label)
        for label in self._open_circuits | now_open:
            self._series.gauge(f.OPEN_CIRCUITS, int(label in now_open), label)
        self._open_circuits = now_open

    async def text(self, aliases: Iterable[str], computed: Computed, *, is_openmetrics: bool) -> bytes:
        """The metrics of all workers, with the names of the sets `aliases` as well.

        Those of others are up to a second old. `computed` are gauges that are no worker's own.
        """
        await in_turns(self._flushes())
        return await exposition(self._series, f.aliases_of(aliases), computed, is_openmetrics=is_openmetrics)

    def close(self) -> None:
        """Give the worker's place in the memory back."""
        self._flush_all()
        self._memory.close()
        for connection in self._own:
            connection.close()

    def _target(self, label: str) -> str:
        return label if self._requests is None else self._requests.target_label(label)

    def _flush_on(self) -> None:
        """Add up what has been counted, with turns of the event loop in between."""
        if self._requests is not None and not self._requests.flush():
            asyncio.get_running_loop().call_soon(self._flush_on)

    def _flushes(self) -> Iterator[None]:
        while self._requests is not None and not self._requests.flush(STEP):
            yield

    def _flush_all(self) -> None:
        for _ in self._flushes():
            pass


def _worker_name() -> str:
    """Sanic's name of the worker, without its process: `Sanic-Server-3-0` is worker 3."""
    parts = os.environ.get("SANIC_WORKER_NAME", "").split("-")
    return parts[2] if len(parts) == 4 else "0"
