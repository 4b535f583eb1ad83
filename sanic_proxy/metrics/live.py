"""What the operator's page shows of all workers: the requests that have ended, and what goes on now.

A worker keeps the records of ended requests for a second at most and then writes them into the shared ring,
PACKED of them in each turn of the event loop; while somebody listens to events, in any worker, it does so
five times a second. Once a second it shows its numbers to all others, if they have changed. So a request
costs an append to a list, and a worker that is killed loses its last second. Whichever worker is asked reads
the memory of all.

Nothing here exists without an admin key.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache

from sanic_proxy.config.rules import iso_time
from sanic_proxy.json_types import Json
from sanic_proxy.metrics.recent import WINDOW_S, RecentCounts, added, percentiles_ms
from sanic_proxy.observability.in_flight import Traffic
from sanic_proxy.observability.packed_record import packed, unpacked
from sanic_proxy.observability.record import Observer, RequestRecord
from sanic_proxy.openai import codec
from sanic_proxy.state_store.ring import MAX_EVENT_BYTES, PLACES, EventRing
from sanic_proxy.state_store.shared import unnamed_memory
from sanic_proxy.state_store.snapshots import ListenerCount, Snapshots

MAX_LISTENERS = 32
# How often ended requests are written while somebody listens.
FLUSH_S = 0.2
# Requests that one turn of the event loop packs: less than a millisecond's work.
PACKED = 64
MAX_NUMBERS_BYTES = 16 * 1024
MAX_TARGETS_BYTES = 256 * 1024
# What an event that is too long keeps: so many characters of each text and so many attempts, without `_LONG`.
_CUTS = ((200, 8), (60, 4), (20, 0))
_LONG = frozenset({"attempts", "route", "usage"})
# The first byte of an event and its type. A request is packed, or JSON where it had to be cut.
_PACKED = b"p"
TYPES = {_PACKED: "request", b"r": "request", b"t": "target"}
MEMORIES = 3


class Live:
    """See the module. Outlives a reload. `inherited` are the descriptors that the main process has made.

    `is_shown` says which ended requests are events.
    """

    def __init__(
        self, inherited: Sequence[int] | None = None, is_shown: Callable[[RequestRecord], bool] = bool
    ) -> None:
        self._own = [] if inherited is not None else [unnamed_memory() for _ in range(MEMORIES)]
        ring, numbers, targets = inherited or [connection.fileno() for connection in self._own]
        self.ring = EventRing(ring)
        self._is_shown = is_shown
        self._numbers = Snapshots(numbers, MAX_NUMBERS_BYTES)
        self._targets = Snapshots(targets, MAX_TARGETS_BYTES)
        self._ended: deque[RequestRecord] = deque(maxlen=PLACES)
        self._events: deque[bytes] = deque(maxlen=PLACES)
        self._open: set[str] = set()
        self._was_busy = True
        self._listening = 0
        self._shown: dict[Snapshots, bytes] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def observer(self) -> Observer:
        """What each record is handed to when its request has ended."""
        return self._ended.append

    # This worker's part

    def note_circuits(self, now_open: Mapping[str, Json | None]) -> None:
        """Make events of the circuits that have opened or closed since the last call.

        `now_open` are those that are open, by target, with the last error of each.
        """
        for target in now_open.keys() - self._open:
            self.target_changed(target, "open", now_open[target])
        for target in self._open - now_open.keys():
            self.target_changed(target, "closed")
        self._open = set(now_open)

    def beat(
        self,
        traffic: Traffic,
        waiting: int,
        lag_s: float,
        recent: RecentCounts,
        targets: Callable[[], list[Json]],
    ) -> None:
        """To be called once a second: show what is in flight, and the `targets` if they may have changed.

        `waiting` requests wait for limits. The timer was late by `lag_s`.
        """
        is_busy = bool(self._ended or self._open or len(traffic.requests) > self._listening)
        if is_busy or self._was_busy:
            self.show_targets(targets(), recent)
        self._was_busy = is_busy
        self._flush_on()
        numbers = {
            "pid": os.getpid(),
            "in_flight": len(traffic.requests) - self._listening,
            "waiting": waiting,
            "connections": len(traffic.connections),
            "loop_lag_ms": round(1000 * max(0.0, lag_s)),
            **recent.sums(time.monotonic()),
        }
        self._show(self._numbers, numbers)
        if self._timer is None and self._numbers.listeners:
            self._flush_often()

    def flush(self) -> bool:
        """Write PACKED of the requests that have ended into the ring. Returns whether more can be written."""
        if not (self._ended or self._events):
            return False
        offset_s = time.time() - time.monotonic()
        for _ in range(min(PACKED, len(self._ended))):
            record = self._ended.popleft()
            if self._is_shown(record):
                self._events.append(_request_event(record, offset_s))
        if not self.ring.append(self._events):
            return False  # until the next second: another process has locked the ring
        self._events.clear()
        return bool(self._ended)

    def flushes(self) -> Iterator[None]:
        """The same of all requests that have ended, in steps."""
        while self.flush():
            yield

    def show_targets(self, targets: Sequence[Json], recent: RecentCounts) -> None:
        """Show the targets, those that were used last first; as many as there is room for."""
        now = time.monotonic()
        times = recent.times.sums(now)
        text = codec.dumps({"at": now, "targets": targets, "times": times})
        while len(text) > MAX_TARGETS_BYTES:
            targets = targets[: len(targets) // 2]
            text = codec.dumps({"at": now, "targets": targets, "times": {}})
        self._targets.publish(text)

    def target_changed(self, target: str, state: str, error: Json | None = None) -> None:
        """A circuit has opened or closed, or a target was switched."""
        event = {"target": target, "state": state, "error": error, "pid": os.getpid()}
        self._events.append(b"t" + _bounded({**event, "time": iso_time(time.time())}))

    def _flush_often(self) -> None:
        self._timer = None
        self._flush_on()
        if self._numbers.listeners:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._flush_often)

    def _flush_on(self) -> None:
        """Write all requests that have ended, with turns of the event loop in between."""
        if self.flush():
            asyncio.get_running_loop().call_soon(self._flush_on)

    def _show(self, where: Snapshots, value: Json) -> None:
        text = codec.dumps(value)
        if text != self._shown.get(where):
            self._shown[where] = text
            where.publish(text)

    # All workers

    def listen(self) -> ListenerCount:
        """Count a listener to events, unless there are `MAX_LISTENERS`. One that is counted must `leave`."""
        result = self._numbers.listen(MAX_LISTENERS)
        if result == "counted":
            self._listening += 1
            if self._timer is None:
                self._flush_often()
        return result

    def leave(self) -> None:
        """A listener has left."""
        self._listening -= 1
        self._numbers.leave()

    def now(self) -> Json:
        """What goes on in all workers; rates are those of the last `WINDOW_S` seconds."""
        workers = [codec.loads_exact(text) for text in self._numbers.texts()]
        errors: Counter[str] = Counter()
        for worker in workers:
            errors.update(worker["errors"])
        shown = ("pid", "in_flight", "waiting", "loop_lag_ms", "connections")
        return {
            "workers": [{name: worker[name] for name in shown} for worker in workers],
            "in_flight": sum(worker["in_flight"] for worker in workers),
            "waiting": sum(worker["waiting"] for worker in workers),
            "requests_per_s": round(sum(worker["requests"] for worker in workers) / WINDOW_S, 3),
            "tokens_per_s": round(sum(worker["tokens"] for worker in workers) / WINDOW_S, 3),
            "first_content_ms": percentiles_ms(added(worker["first_content"] for worker in workers)),
            "errors": dict(errors.most_common()),
            "window_s": WINDOW_S,
        }

    def targets(self) -> tuple[list[tuple[float, list[Json]]], Json]:
        """What all workers show of targets: how many seconds ago, and these.

        Beside it the percentiles of the times to the first content by target, of the last minutes.
        """
        now = time.monotonic()
        shown = [codec.loads_exact(text) for text in self._targets.texts()]
        labels = {label for one in shown for label in one["times"]}
        counts = {label: added(one["times"].get(label, ()) for one in shown) for label in labels}
        percentiles = {label: percentiles_ms(counts[label]) for label in labels}
        return [(max(0.0, now - one["at"]), one["targets"]) for one in shown], percentiles

    def latest_requests(self, limit: int, before: int | None = None) -> Iterator[bytes]:
        """The requests in the ring as JSON objects, the latest first, `limit` of them at most."""
        for number, event in self.ring.before(before):
            if limit <= 0:
                return
            if TYPES[event[:1]] == "request":
                limit -= 1
                yield numbered(number, event)

    def close(self) -> None:
        """Give the worker's places in the memory back."""
        if self._timer is not None:
            self._timer.cancel()
        for _ in self.flushes():
            pass
        self.ring.close()
        self._numbers.close()
        self._targets.close()
        for connection in self._own:
            connection.close()


@lru_cache(maxsize=256)  # each listener of a worker wants the same latest ones
def numbered(number: int, event: bytes) -> bytes:
    """The JSON object of an event, with its number."""
    if event.startswith(_PACKED):
        record, ended_at = unpacked(event[1:])
        return codec.dumps({"number": number, "time": iso_time(ended_at), **record.as_json()})
    return b'{"number":%d,%b' % (number, event[2:])


def _request_event(record: RequestRecord, offset_s: float) -> bytes:
    event = _PACKED + packed(record, offset_s)
    if len(event) <= MAX_EVENT_BYTES:
        return event
    ended_at = offset_s + (record.finished or record.started)
    return b"r" + _bounded({"time": iso_time(ended_at), **record.as_json()})


def _bounded(event: Json) -> bytes:
    """The event as JSON that fits into a place of the ring: texts are cut, and the last attempts left out."""
    data = codec.dumps(event)
    for max_chars, attempts in _CUTS:
        if len(data) <= MAX_EVENT_BYTES - 1:
            break
        cut = {name: _cut(value, max_chars) for name, value in event.items() if name not in _LONG}
        if attempts:
            cut["attempts"] = _cut(event.get("attempts", [])[:attempts], max_chars)
        data = codec.dumps({**cut, "is_cut": True})
    return data


def _cut(value: object, max_chars: int) -> object:
    if isinstance(value, str):
        return value[:max_chars]
    if isinstance(value, list):
        return [_cut(item, max_chars) for item in value]
    if isinstance(value, dict):
        return {name: _cut(item, max_chars) for name, item in value.items() if name not in _LONG}
    return value
