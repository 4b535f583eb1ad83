"""Log lines as text or JSON, for the proxy and for Sanic alike. A line stays one line."""

from __future__ import annotations

import logging
import sys
from typing import Any

from typing_extensions import override

from sanic_proxy import wire
from sanic_proxy.record import RequestRecord

access_logger = logging.getLogger("sanic_proxy.access")

_NAMES = ("sanic.root", "sanic.error", "sanic.server", "sanic.websockets", "sanic_proxy")


def configure(level: str, style: str) -> None:
    """Send all loggers of this process to standard error in one format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if style == "json" else _TextFormatter())
    for name in _NAMES:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False


def log_request(record: RequestRecord) -> None:
    """One line for a finished request: names, numbers and why it ended; never content, never a key."""
    if access_logger.isEnabledFor(logging.INFO):
        access_logger.info("request", extra={"fields": record.as_fields()})


class _TextFormatter(logging.Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", {})
        parts = [
            self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            record.levelname.lower(),
            *([] if fields else [record.name]),
            _one_line(record.getMessage()),
            *(f"{name}={_plain(value)}" for name, value in fields.items()),
        ]
        line = " ".join(parts)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _JsonFormatter(logging.Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return wire.dumps(line).decode()


def _plain(value: object) -> str:
    """A value that cannot break the line or pose as another field."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    is_bare = text.isascii() and text.isprintable() and text and not set(text) & set(' "=')
    return text if is_bare else wire.dumps(text).decode()


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")
