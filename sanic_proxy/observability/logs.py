"""Log lines as text or JSON, for the proxy and for Sanic alike. A line stays one line."""

from __future__ import annotations

import io
import logging
import os
import sys
from contextlib import suppress
from typing import Any, cast

from typing_extensions import override

from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.openai import codec

access_logger = logging.getLogger("sanic_proxy.access")

# How a request ends that nobody has to look into.
_NOT_FAILED = frozenset({"complete", "client_left", "cancelled"})
_NAMES = ("sanic.root", "sanic.error", "sanic.server", "sanic.websockets", "sanic_proxy")


def configure(level: str, style: str) -> None:
    """Send all loggers of this process to standard error in one format."""
    handler = _Handler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if style == "json" else _TextFormatter())
    for name in _NAMES:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False


def fill_standard_streams() -> None:
    """Put /dev/null where standard input, output or error is closed, and keep nothing back in the others.

    Else the next socket or pipe gets that number: what is meant for the log would go there, and libuv
    aborts when it closes one of those. What a full disk did not take would be tried again with each flush,
    as multiprocessing does before it starts a worker.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # what Python makes of a closed one
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        elif isinstance(stream, io.TextIOWrapper) and isinstance(stream.buffer, io.BufferedWriter):
            with suppress(OSError):
                stream.flush()
            raw = io.FileIO(stream.fileno(), "w", closefd=False)
            plain = io.TextIOWrapper(
                cast("io.BufferedWriter", raw), stream.encoding, stream.errors, write_through=True
            )
            setattr(sys, name, plain)


def say(line: str) -> None:
    """A line on standard error, if it can be written."""
    with suppress(OSError, AttributeError):  # a full disk; closed from the start
        sys.stderr.write(f"{line}\n")


def log_request(record: RequestRecord) -> None:
    """One line for a finished request: names, numbers and why it ended; never content, never a key.

    A warning if it failed. Probes of health, of which there are many, are only seen while debugging.
    """
    level = logging.INFO
    if record.path.startswith("/health"):
        level = logging.DEBUG
    elif record.ended not in _NOT_FAILED:
        level = logging.WARNING
    if access_logger.isEnabledFor(level):
        access_logger.log(level, "request", extra={"fields": record.as_fields()})


class _Handler(logging.StreamHandler[Any]):
    """Lines that cannot be written (a full disk, a closed pipe) are dropped, counted, and told of later."""

    _dropped = 0

    @override
    def emit(self, record: logging.LogRecord) -> None:
        before = self._dropped
        super().emit(record)
        if before and self._dropped == before:
            self._dropped = 0
            name, text = record.name, "%d log lines could not be written"
            super().emit(logging.LogRecord(name, logging.WARNING, "", 0, text, (before,), None))

    @override
    def handleError(self, record: logging.LogRecord) -> None:
        # logging's own writes a traceback to where nothing can be written.
        self._dropped += 1


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
        return codec.dumps(line).decode()


def _plain(value: object) -> str:
    """A value that cannot break the line or pose as another field."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    is_bare = text.isascii() and text.isprintable() and text and not set(text) & set(' "=')
    return text if is_bare else codec.dumps(text).decode()


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")
