"""Captures the content of requests, for those clients and models whose settings say so.

`Captures.begin` decides about one request. Its `Capture` collects what the client is sent, with the times, up to
a limit; the event loop does no more than that. Cleaning the content and making the line happens in the thread
of `CaptureWriter`. A line of the file is a JSON object:

| field | |
|---|---|
| `time`, `id`, `client`, `dialect`, `model`, `target`, `stream`, `status`, `ended`, `ms`, `usage` | as in the log; `time` in seconds since the epoch |
| `digest` | of the conversation in the request, before anything was removed |
| `request` | the request's JSON; null where it is larger than the limit, or is no JSON |
| `body` | a whole answer as text |
| `frames` | a streamed one: pairs of milliseconds since the request began, and text |
| `cut` | whether the answer is larger than the limit, and lacks its end |
"""  # noqa: E501 - a row of the table

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from sanic_proxy.config import patterns
from sanic_proxy.config.capture import CaptureSettings
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.observability.capture_file import CaptureFile, CaptureWriter
from sanic_proxy.observability.redaction import Clean, cleaned, cleaner
from sanic_proxy.openai import codec

if TYPE_CHECKING:
    from sanic_proxy.observability.record import RequestRecord

NO_LOG_HEADER = "x-no-log"
DAY_S = 86_400.0
_OFF = frozenset({"", "0", "false", "no", "off"})
# The fields that hold the conversation, in all dialects.
_CONVERSATION = ("system", "messages", "instructions", "input", "systemInstruction", "contents")


class Capture:
    """What is captured of one request: at most `max_bytes` of its answer."""

    __slots__ = ("_max_bytes", "body", "frames", "is_cut", "is_whole", "size_bytes", "started")

    def __init__(self, body: bytes, started: float, max_bytes: int) -> None:
        """`body` is the request's, `started` its beginning in monotonic seconds."""
        self._max_bytes = max_bytes
        self.body = body if len(body) <= max_bytes else b""
        self.started = started
        self.frames: list[tuple[float, bytes]] = []
        self.is_cut = self.is_whole = False
        self.size_bytes = len(self.body)

    def add(self, data: bytes) -> None:
        """Note a part of the answer that is sent now."""
        if not data or self.is_cut:
            return
        if self.size_bytes - len(self.body) + len(data) > self._max_bytes:
            self.is_cut = True
            return
        self.size_bytes += len(data)
        self.frames.append((round(1000 * (time.monotonic() - self.started), 1), bytes(data)))

    def add_whole(self, body: bytes) -> None:
        """Note a whole answer."""
        self.is_whole = True
        self.add(body)


class Captures:
    """Decides what is captured, and has it written. One per worker and settings."""

    def __init__(
        self, settings: CaptureSettings, models: Mapping[str, float], secrets: Sequence[str]
    ) -> None:
        """`models` are the shares of requests to capture, by the names of `[models]` tables."""
        self._settings = settings
        self._clean = cleaner(secrets)
        self._models = {name: share for name, share in models.items() if share}
        self._patterns = patterns.most_specific_first(name for name in self._models if patterns.STAR in name)
        file = CaptureFile(settings.path, ttl_s=settings.days * DAY_S, max_bytes=settings.max_file_bytes)
        self._writer = CaptureWriter(file)
        self._taken = 0

    def begin(self, headers: Mapping[str, str], record: RequestRecord, body: bytes) -> Capture | None:
        """The capture of a request with that JSON body, if it is to be captured; also put into `record`."""
        share = max(record.client.rules.capture, self._share_of(record.model or ""))
        if not share or headers.get(NO_LOG_HEADER, "").strip().lower() not in _OFF:
            return None
        if share < 1 and random.random() >= share:  # noqa: S311 - a sample
            return None
        record.capture = Capture(body, record.started, self._settings.max_bytes)
        return record.capture

    def _share_of(self, model: str) -> float:
        if not self._models:
            return 0.0
        if (share := self._models.get(model)) is not None:
            return share
        named = (name for name in self._patterns if patterns.match(name, model) is not None)
        return self._models.get(next(named, ""), 0.0)

    def observe(self, record: RequestRecord) -> None:
        """Write what has been captured of a request that has ended."""
        capture, record.capture = record.capture, None
        if capture is not None:
            fields = record.as_json()
            known = {name: fields.get(name) for name in _RECORD_FIELDS}
            head = {
                "time": round(time.time(), 3),
                **known,
                "model": record.model,
                "stream": record.is_streaming,
            }
            line = partial(line_of, head, capture, self._clean, self._settings.max_field_chars)
            self._writer.submit(capture.size_bytes, line)

    def take_dropped(self) -> int:
        """How many captures could not be written since the last call."""
        dropped = self._writer.dropped
        new, self._taken = dropped - self._taken, dropped
        return new

    def close(self) -> None:
        """Write what is left. Blocks while it does."""
        self._writer.close()


_RECORD_FIELDS = ("id", "client", "dialect", "model", "target", "stream", "status", "ended", "ms", "usage")


def line_of(head: JsonMapping, capture: Capture, clean: Clean, max_field_chars: int) -> bytes:
    """The line of a capture in the file. Raises ValueError or RecursionError for what cannot be one."""
    fields = _request_fields(capture.body)
    texts = [(at_ms, clean(frame.decode("utf-8", "replace"))) for at_ms, frame in capture.frames]
    return codec.dumps(
        {
            **head,
            "digest": None if fields is None else conversation_digest(fields),
            "request": None if fields is None else cleaned(fields, clean, max_field_chars),
            "body": "".join(text for _, text in texts) if capture.is_whole else None,
            "frames": None if capture.is_whole else texts,
            "cut": capture.is_cut,
        }
    ) + b"\n"  # fmt: skip


def _request_fields(body: bytes) -> Json | None:
    try:
        fields = codec.loads_tolerant(body)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


def conversation_digest(fields: JsonMapping) -> str:
    """A digest of what a request asks, by which an equal one is recognised: SHA-256 in hexadecimal.

    "" for a conversation that is nested too deeply.
    """
    asked = {name: fields[name] for name in _CONVERSATION if name in fields}
    try:
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    except RecursionError:
        return ""
