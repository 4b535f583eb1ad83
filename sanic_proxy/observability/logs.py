"""Log lines as text or JSON, for the proxy and for Sanic alike. Each record is one line.

On a terminal the levels have colours, unless NO_COLOR (https://no-color.org) is set or TERM is `dumb`.
`log_writer` writes them: logging never waits for standard error.
"""

from __future__ import annotations

import faulthandler
import io
import logging
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import cast

from typing_extensions import override

from sanic_proxy.json_types import Json
from sanic_proxy.observability import log_writer
from sanic_proxy.observability.log_writer import LineStream, LogWriter
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.openai import codec

access_logger = logging.getLogger("sanic_proxy.access")

# The ends of a request that need no attention.
_NOT_FAILED = frozenset({"complete", "client_left", "cancelled"})
# Makes a process write the Python stacks of its threads to its log.
DUMP_SIGNAL = signal.SIGUSR2
_NAMES = ("sanic.root", "sanic.error", "sanic.server", "sanic.websockets", "sanic_proxy")


def configure(level: str, style: str, writer: LogWriter = log_writer.STDERR) -> None:
    """Send all loggers of this process to `writer` in one format."""
    handler = LogHandler(writer)
    handler.setFormatter(_JsonFormatter() if style == "json" else _TextFormatter(_levels()))
    writer.report = handler.report_line
    for name in _NAMES:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False
    # Libraries and asyncio: without a handler logging would write their warnings to standard error itself.
    root = logging.getLogger()
    root.handlers[:] = [*(other for other in root.handlers if not isinstance(other, LogHandler)), handler]


# By level: SGR parameters (ECMA-48).
_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}


def shows_colours(environ: Mapping[str, str], *, is_terminal: bool) -> bool:
    """Whether lines for standard error have colours."""
    return is_terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def _levels() -> Mapping[str, str]:
    """How the levels are written, by logging's names."""
    has_colours = shows_colours(os.environ, is_terminal=os.isatty(2))
    return {
        name.upper(): f"\x1b[{colour}m{name}\x1b[0m" if has_colours else name
        for name, colour in _COLOURS.items()
    }


def redirect_stderr() -> None:
    """Send what is written to `sys.stderr` (tracebacks, warnings) through the queue of the log.

    Stack dumps and fatal errors of the interpreter go straight to the descriptor.
    """
    stream = sys.stderr
    if isinstance(stream, io.TextIOWrapper) and stream.fileno() == 2:
        raw = LineStream(log_writer.STDERR, 2)
        sys.stderr = io.TextIOWrapper(
            cast("io.BufferedWriter", raw), stream.encoding, stream.errors, write_through=True
        )


def enable_stack_dumps() -> None:
    """Have the stacks of all threads written to standard error on DUMP_SIGNAL and on a crash."""
    faulthandler.enable(file=2)
    faulthandler.register(DUMP_SIGNAL, file=2, all_threads=True)


def fill_standard_streams() -> None:
    """Open /dev/null where standard input, output or error is closed, and leave the others unbuffered.

    Otherwise the next socket or pipe would get that number: log lines would go there, and libuv aborts when
    it closes one of those. A buffer that a full disk did not take would be written again by each flush, as
    multiprocessing does before it starts a worker.
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
        if stream is None:  # Python found the descriptor closed
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        elif isinstance(stream, io.TextIOWrapper) and isinstance(stream.buffer, io.BufferedWriter):
            with suppress(OSError):
                stream.flush()
            raw = io.FileIO(stream.fileno(), "w", closefd=False)
            plain = io.TextIOWrapper(
                cast("io.BufferedWriter", raw), stream.encoding, stream.errors, write_through=True
            )
            setattr(sys, name, plain)


def say(line: str, level: str = "") -> None:
    """Write a line that is no log record: for the operator, at the start. `level` is shown on a terminal."""
    shown = _levels().get(level.upper(), "") if os.isatty(2) else ""
    log_writer.STDERR.write(_encoded(f"{shown} {line}" if shown else line))


def flush() -> None:
    """Wait for the lines that are queued, for a second at most: the process may be about to exit at once."""
    log_writer.STDERR.flush(log_writer.EXIT_FLUSH_S)


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
        access_logger.log(level, "request", extra={"request": record})


class LogHandler(logging.Handler):
    """Formats a record and queues its line."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    @override
    def createLock(self) -> None:
        self.lock = None  # the writer has its own

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = _encoded(self.format(record))
        except Exception:  # noqa: BLE001 - a record that cannot be formatted must not fail its request
            self._writer.drop()
            return
        self._writer.write(line)

    def report_line(self, dropped: int) -> bytes:
        """The line with the number of dropped lines."""
        text = "%d log lines could not be written"
        record = logging.LogRecord(__name__, logging.WARNING, "", 0, text, (dropped,), None)
        return _encoded(self.format(record))


def _encoded(line: str) -> bytes:
    return line.encode("utf-8", "backslashreplace") + b"\n"


class _Formatter(logging.Formatter):
    """Renders the time once a second: that is a quarter of a line's cost."""

    _rendered = (-1, "")

    @override
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = "%Y-%m-%dT%H:%M:%S%z") -> str:
        second, text = self._rendered
        if int(record.created) != second:
            text = super().formatTime(record, datefmt)
            self._rendered = int(record.created), text
        return text


class _TextFormatter(_Formatter):
    def __init__(self, levels: Mapping[str, str]) -> None:
        super().__init__()
        self._levels = levels

    @override
    def format(self, record: logging.LogRecord) -> str:
        request: RequestRecord | None = getattr(record, "request", None)
        fields = {} if request is None else request.as_fields()
        parts = [
            self.formatTime(record),
            self._levels.get(record.levelname) or record.levelname.lower(),
            *([] if fields else [record.name]),
            _one_line(record.getMessage()),
            *(f"{name}={_plain(value)}" for name, value in fields.items()),
        ]
        line = " ".join(parts)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _JsonFormatter(_Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        request: RequestRecord | None = getattr(record, "request", None)
        line: Json = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **({} if request is None else request.as_json()),
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
