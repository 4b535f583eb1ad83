"""What is known of one request when it ends: the one thing that log lines, and later metrics, read."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class RequestRecord:
    """Filled in on the request's way, read once at its end. Holds no content and no key.

    `client_id` tells clients apart (the same for every request with one key; empty where no keys are set).
    `waited_s` is what the proxy itself waited between its attempts, the wait under way included.
    `ended` says why it did: "complete", an error's code, or "client_left". `route` lists the targets that
    were asked, why each was left, and after how many milliseconds. `dropped_frames` counts the frames of the
    provider's stream that were neither passed on nor a keep-alive.
    """

    request_id: str
    method: str
    path: str
    client_id: str = ""
    started: float = field(default_factory=time.monotonic)
    provider: str | None = None
    model: str | None = None
    is_streaming: bool = False
    status: int = 0
    first_byte: float | None = None
    sent_bytes: int = 0
    ended: str = ""
    route: str = ""
    waited_s: float = 0.0
    usage: dict[str, Any] | None = None
    dropped_frames: int = 0
    is_logged: bool = False

    def sent(self, size_bytes: int) -> None:
        """Note bytes of the body on their way to the client."""
        if self.first_byte is None:
            self.first_byte = time.monotonic()
        self.sent_bytes += size_bytes

    def as_fields(self) -> dict[str, Any]:
        """The record as the fields of a log line; times in milliseconds."""
        usage = self.usage or {}
        fields = {
            "id": self.request_id,
            "method": self.method,
            "path": self.path,
            "provider": self.provider,
            "model": self.model,
            "stream": self.is_streaming,
            "status": self.status,
            "ms": round(1000 * (time.monotonic() - self.started), 1),
            "first_byte_ms": None
            if self.first_byte is None
            else round(1000 * (self.first_byte - self.started), 1),
            "bytes": self.sent_bytes,
            "ended": self.ended,
            "route": self.route or None,
            "prompt_tokens": usage.get("prompt_tokens"),
            "completion_tokens": usage.get("completion_tokens"),
            "dropped_frames": self.dropped_frames or None,
        }
        return {name: value for name, value in fields.items() if value is not None}
