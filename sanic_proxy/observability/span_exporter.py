"""Sends spans to an OTLP/HTTP receiver from a thread of its own.

Why a thread: encoding the spans of a request costs more than passing its answer on, and the receiver may be
slow or gone. The event loop only appends to a queue. If the queue is full, what comes is dropped and counted.
Nothing wakes the thread for one request: it looks once per `pause_s`, and sooner when a batch is complete.

Why not one long piece of work: the thread holds the interpreter's lock while it encodes, and gives it up only
after 5 ms if another thread waits for it. So it sleeps for a moment after every few items.

A batch that the receiver does not take is sent again a few times if its answer allows it (429, 502, 503, 504,
opentelemetry.io/docs/specs/otlp/#failures-1), or if there is none; then it is dropped and counted.
"""

from __future__ import annotations

import base64
import http.client
import logging
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, TypeVar
from urllib.parse import unquote, urlsplit

from sanic_proxy.json_types import Json
from sanic_proxy.openai import codec

T = TypeVar("T")
logger = logging.getLogger(__name__)

MAX_QUEUED = 4096
MAX_BATCH = 256
PAUSE_S = 1.0
ATTEMPTS = 3
# The longest time between two of them.
MAX_WAIT_S = 10.0
FLUSH_S = 2.0
# How often dropped spans are logged.
REPORT_S = 60.0
# Items that are encoded without a pause for the event loop.
STEP = 8
STEP_PAUSE_S = 0.0005
MAX_ANSWER_BYTES = 65536
HTTPS_PORT = 443
PROXY_PORT = 80
_RETRYABLE = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class Receiver:
    """An OTLP/HTTP receiver at `url`. `headers` may hold a key. `ca_file` replaces the system's CAs.

    `timeout_s` is for the connection, and for each read of the answer; `wait_s` is between two attempts to
    send a batch, doubled each time, unless the receiver says longer. `proxy` is the URL of the outbound proxy
    through which it is reached (http; with user and password if it needs them); empty: directly.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: str | None = None
    timeout_s: float = 10.0
    wait_s: float = 1.0
    proxy: str = field(default="", repr=False)

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    def post(self, body: bytes) -> tuple[int, float]:
        """The status of the answer, 0 without one, and the seconds after which to send again, or 0."""
        headers = {**self.headers, "content-type": "application/json", "connection": "close"}
        target = urlsplit(self.url).path or "/"
        if self.proxy and not self.url.startswith("https:"):
            target, headers = self.url, {**headers, **self._proxy_headers}
        try:
            with closing(self._connection()) as connection:
                connection.request("POST", target, body, headers)
                answer = connection.getresponse()
                _drain(answer, time.monotonic() + self.timeout_s)
                return answer.status, _seconds(answer.getheader("retry-after"))
        except (OSError, http.client.HTTPException, ValueError) as exc:
            logger.debug("the OTLP receiver cannot be reached: %s", type(exc).__name__)
            return 0, 0.0

    def _connection(self) -> http.client.HTTPConnection:
        own = urlsplit(self.url)
        asked = urlsplit(self.proxy or self.url)
        host, port = asked.hostname or "", asked.port or (PROXY_PORT if self.proxy else None)
        if own.scheme != "https":
            return http.client.HTTPConnection(host, port, timeout=self.timeout_s)
        connection = http.client.HTTPSConnection(host, port, timeout=self.timeout_s, context=self._context)
        if self.proxy:
            connection.set_tunnel(self.host, own.port or HTTPS_PORT, self._proxy_headers)
        return connection

    @cached_property
    def _proxy_headers(self) -> dict[str, str]:
        parts = urlsplit(self.proxy)
        if parts.username is None:
            return {}
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        return {"proxy-authorization": f"Basic {base64.b64encode(user).decode()}"}

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca_file)


class SpanExporter(Generic[T]):
    """Sends batches of items to a receiver.

    `encode` makes the spans of an item, and `wrap` a request of the spans of a batch; both are called in the
    thread. An item counts as one in `dropped`, whatever the number of its spans.
    """

    def __init__(
        self,
        receiver: Receiver,
        encode: Callable[[T], list[Json]],
        wrap: Callable[[list[Json]], Json],
        *,
        max_queued: int = MAX_QUEUED,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._receiver = receiver
        self._encode = encode
        self._wrap = wrap
        self._max_queued = max_queued
        self._pause_s = pause_s
        self._queue: deque[T] = deque()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        # Written by those who put, and by the thread alone.
        self._refused = self._lost = 0
        self._reported = 0
        self._report_at = 0.0

    @property
    def dropped(self) -> int:
        """Items that found the queue full, or that the receiver did not take."""
        return self._refused + self._lost

    def put(self, item: T) -> None:
        """Queue `item`; drop it if the queue is full. Never blocks."""
        queue = self._queue
        if len(queue) >= self._max_queued or self._stop.is_set() or not (self._thread or self._start()):
            self._refused += 1
            return
        queue.append(item)
        if len(queue) == MAX_BATCH:
            self._wake.set()

    def close(self, timeout_s: float = FLUSH_S) -> None:
        """Send what is queued, for `timeout_s` at most. Blocks; later items are dropped."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        self._lost += len(self._queue)
        self._report(0.0)

    def _start(self) -> bool:
        self._thread = threading.Thread(target=self._run, name="span-exporter", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no thread can be started now
            self._thread = None
        return self._thread is not None

    def _run(self) -> None:
        while not (self._stop.is_set() and not self._queue):
            self._wake.wait(self._pause_s)
            self._wake.clear()
            while self._queue:
                self._send(self._batch())
            self._report(time.monotonic())

    def _batch(self) -> list[T]:
        return [self._queue.popleft() for _ in range(min(MAX_BATCH, len(self._queue)))]

    def _send(self, batch: Sequence[T]) -> None:
        """Send one batch, or drop it."""
        spans: list[Json] = []
        for number, item in enumerate(batch):
            spans += self._encode(item)
            if number % STEP == STEP - 1:
                time.sleep(STEP_PAUSE_S)
        body = codec.dumps(self._wrap(spans))
        status = 0
        for attempt in range(ATTEMPTS):
            status, retry_after_s = self._receiver.post(body)
            if 200 <= status < 300:
                return
            is_last = attempt == ATTEMPTS - 1 or self._stop.is_set()
            if is_last or (status and status not in _RETRYABLE):
                break
            self._stop.wait(min(max(self._receiver.wait_s * 2**attempt, retry_after_s), MAX_WAIT_S))
        logger.debug("spans were not taken: status %d", status)
        self._lost += len(batch)

    def _report(self, now: float) -> None:
        """Log how many have been dropped since the last report, at most once per REPORT_S; 0.0: now."""
        dropped = self.dropped
        if dropped > self._reported and (not now or now >= self._report_at):
            logger.warning(
                "traces of %d requests were dropped: the OTLP receiver %s does not take them",
                dropped - self._reported,
                self._receiver.host,
            )
            self._reported = dropped
            self._report_at = now + REPORT_S


def _drain(answer: http.client.HTTPResponse, until: float) -> None:
    """Read an answer, so that the receiver can finish it: not too much, and not for long."""
    left = MAX_ANSWER_BYTES
    while left > 0 and time.monotonic() < until and (piece := answer.read1(left)):
        left -= len(piece)


def _seconds(text: str | None) -> float:
    """A Retry-After in seconds; 0 for none, and for a date."""
    return float(text) if text and text.isascii() and text.isdigit() and len(text) <= 6 else 0.0
