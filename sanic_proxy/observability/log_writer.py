"""The writer of log lines to standard error: a bounded queue, and one thread that writes.

Why a thread: standard error may be a pipe whose reader pauses, a journal that is busy, or a disk that is
slow, and `write` then blocks for as long as that lasts. A non-blocking descriptor is no solution, because
O_NONBLOCK belongs to the open file and would change it for every process that shares it; and a look with
`poll` before each write is no guarantee, because the workers share the pipe and another one may fill it in
between.

How it works: a caller hands over a finished line as bytes. The line is formatted by the caller and not by the
thread, so that it shows the values of that moment (a record changes, an exception keeps its frames alive),
and the queue's limit can be counted in bytes. The queue is first in, first out: the lines of a process keep
their order. A line that finds the queue full is dropped and counted, and so is a line that cannot be written;
one line reports the number once writing works again.

Lines are written in batches of at most PIPE_BUF bytes: a pipe keeps those whole although several processes
write to it. When the queue is empty the thread pauses for a moment before it waits for the next line, so a
busy process pays for one wake-up of the thread per pause, not for one per line.
"""

from __future__ import annotations

import atexit
import io
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from typing_extensions import Buffer, override

# The bound of the queue while standard error is not read: some 30,000 access lines, a few seconds' worth.
MAX_LINES = 32_768
MAX_BYTES = 8 * 2**20
# How long the end of a process waits for its last lines.
EXIT_FLUSH_S = 1.0
# Between the end of one batch of lines and the next wake-up.
PAUSE_S = 0.005
# A piece of text without a line's end that is longer than this is written as it is.
MAX_PARTIAL_BYTES = 65536
POLL_S = 0.005


def _report(dropped: int) -> bytes:
    return b"%d log lines could not be written\n" % dropped


class LogWriter:
    """Writes lines to the descriptor `fd` from a thread, which is started by the first line.

    `report` makes the line with the number of dropped lines.
    """

    def __init__(self, fd: int, *, max_lines: int = MAX_LINES, max_bytes: int = MAX_BYTES) -> None:
        self.report: Callable[[int], bytes] = _report
        self._fd = fd
        self._max_lines, self._max_bytes = max_lines, max_bytes
        self._start_empty()

    def _start_empty(self) -> None:
        # Reentrant: the garbage collector may run code that logs in the middle of a call.
        self._lock = threading.RLock()
        self._queue: SimpleQueue[bytes] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        # Written under the lock, by those who log ...
        self._put_lines = self._put_bytes = self._refused = 0
        # ... and by the thread alone.
        self._taken_lines = self._taken_bytes = self._failed = self._reported = 0
        self._is_mid_line = False

    def after_fork(self) -> None:
        """In a forked child: the lines that wait are the parent's, and its thread does not exist here."""
        self._start_empty()

    def write(self, line: bytes) -> None:
        """Queue `line`, which includes its line end; drop it if the queue is full. Never blocks."""
        with self._lock:
            if self._is_closed:
                self._write_now(line)
                return
            if (
                self._put_lines - self._taken_lines >= self._max_lines
                or self._put_bytes - self._taken_bytes + len(line) > self._max_bytes
                or (self._thread is None and not self._start())
            ):
                self._refused += 1
                return
            self._put_lines += 1
            self._put_bytes += len(line)
            self._queue.put(line)

    @property
    def dropped(self) -> int:
        """How many lines have been dropped."""
        return self._refused + self._failed

    def drop(self) -> None:
        """Count a line that could not even be formatted."""
        with self._lock:
            self._refused += 1

    def flush(self, timeout_s: float) -> bool:
        """Wait until all lines queued so far have been written or dropped, but no longer than `timeout_s`."""
        until = time.monotonic() + timeout_s
        wanted = self._put_lines
        while self._taken_lines < wanted:
            if time.monotonic() >= until:
                return False
            time.sleep(POLL_S)
        return True

    def close(self, timeout_s: float = EXIT_FLUSH_S) -> None:
        """Flush. Later lines are written at once if the descriptor takes them, else dropped."""
        self.flush(timeout_s)
        with self._lock:
            self._is_closed = True

    def _start(self) -> bool:
        thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads
            return False
        self._thread = thread
        return True

    def _write_now(self, line: bytes) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        if self._taken_lines == self._put_lines and poll.poll(0):
            with suppress(OSError):
                os.write(self._fd, line[: select.PIPE_BUF])  # a pipe that is ready has room for so much

    # The thread

    def _run(self) -> None:
        # Signals are for the main thread, which waits for them.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        queue = self._queue
        while True:
            line: bytes | None = queue.get()
            while line is not None:
                line = self._write_batch(line)
            time.sleep(PAUSE_S)

    def _write_batch(self, first: bytes) -> bytes | None:
        """Write `first` and the lines that fit beside it; returns the first that did not fit."""
        batch, size, extra = [first], len(first), None
        with suppress(Empty):
            while True:
                extra = self._queue.get_nowait()
                if size + len(extra) > select.PIPE_BUF:
                    break
                batch.append(extra)
                size += len(extra)
                extra = None
        written = self._write_all(b"".join(batch))
        if written < size:
            self._failed += _unwritten(batch, written)
        if written == size and self._refused + self._failed > self._reported:
            self._report_dropped()
        self._taken_bytes += size
        self._taken_lines += len(batch)
        return extra

    def _report_dropped(self) -> None:
        dropped = self.dropped
        line = self.report(dropped - self._reported)
        if self._write_all(line) == len(line):
            self._reported = dropped

    def _write_all(self, data: bytes) -> int:
        """Write `data`, however long that takes; returns how much of it could be written."""
        if self._is_mid_line:  # the start of a line that did not fit on the disk is a line of its own
            data = b"\n" + data
        done, skipped = 0, int(self._is_mid_line)
        try:
            while done < len(data):
                try:
                    done += os.write(self._fd, data[done:] if done else data)
                except BlockingIOError:  # another process made the open file non-blocking
                    select.select([], [self._fd], [])
        except (OSError, ValueError):  # a full disk, a closed pipe
            pass
        if done:
            self._is_mid_line = data[done - 1] != 0x0A
        return max(done - skipped, 0)


def _unwritten(batch: list[bytes], written: int) -> int:
    """How many lines of `batch` are not among its first `written` bytes."""
    for number, line in enumerate(batch):
        written -= len(line)
        if written < 0:
            return len(batch) - number
    return 0


class LineStream(io.RawIOBase):
    """The raw file below a `sys.stderr` whose lines (tracebacks, warnings) go through a LogWriter."""

    def __init__(self, writer: LogWriter, fd: int) -> None:
        super().__init__()
        self._writer = writer
        self._fd = fd
        self._partial = b""

    @override
    def writable(self) -> bool:
        return True

    @override
    def fileno(self) -> int:
        return self._fd

    @override
    def write(self, data: Buffer, /) -> int:
        text = bytes(data)
        whole, end, rest = (self._partial + text).rpartition(b"\n")
        if len(rest) > MAX_PARTIAL_BYTES:
            whole, end, rest = whole + end + rest, b"", b""
        self._partial = rest
        if whole or end:
            self._writer.write(whole + end)
        return len(text)


# Standard error's, one for each process.
STDERR = LogWriter(2)
os.register_at_fork(after_in_child=STDERR.after_fork)
atexit.register(STDERR.close)
