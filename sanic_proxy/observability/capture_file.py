"""The file of captured content: lines with an end of life, and the thread that writes them.

All workers write to one file. Each batch of lines is written under an exclusive lock (flock), which also
makes removing lines safe: the rest of the file is moved to its front, in place, so that neither space for a
copy is needed on a full disk, nor does what has been removed live on in another file. A line begins with its
`time`; lines are in the order of their ends, so old ones are at the front.

The queue before the thread is bounded in bytes. What finds it full, what cannot be written and what cannot be
made a line is dropped and counted; a line of the log says how much that was.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from typing import IO

logger = logging.getLogger(__name__)

# The bound of the queue: content of requests that have ended and are not written yet.
MAX_QUEUED_BYTES = 64 * 2**20
# How often old lines are looked for, and how often drops are reported.
PRUNE_S = 60.0
BATCH_LINES = 64
BATCH_BYTES = 8 * 2**20
BLOCK_BYTES = 2**20
CLOSE_S = 5.0

_TIME = re.compile(rb'\{"time":([0-9]+(?:\.[0-9]+)?)[,}]')

Job = Callable[[], bytes]


class CaptureFile:
    """See the module. The file never exceeds `max_bytes`; every operation may raise OSError."""

    def __init__(self, path: Path, *, ttl_s: float, max_bytes: int) -> None:
        self._path = path
        self._ttl_s = ttl_s
        self._max_bytes = max_bytes

    def append(self, lines: bytes) -> None:
        """Write `lines`, whole or not at all. The oldest ones go where there is no room for them.

        Raises ValueError for more than the file may hold.
        """
        if len(lines) > self._max_bytes:
            raise ValueError("The lines are larger than the file may be")
        with self._locked(create=True) as file:
            size = file.seek(0, os.SEEK_END)
            if size + len(lines) > self._max_bytes:  # down to half, so that it is not moved with each line
                size = _remove(file, self._cutoff(), min(self._max_bytes // 2, self._max_bytes - len(lines)))
            try:
                _write_all(file.fileno(), lines, size)
            except OSError:
                os.ftruncate(file.fileno(), size)
                raise

    def prune(self) -> None:
        """Remove the lines that are older than their time to live."""
        try:
            with self._locked(create=False) as file:
                _remove(file, self._cutoff(), self._max_bytes)
        except FileNotFoundError:
            pass

    def _cutoff(self) -> float:
        return time.time() - self._ttl_s

    @contextmanager
    def _locked(self, *, create: bool) -> Iterator[IO[bytes]]:
        """The open file, with the lock."""
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
        with open(os.open(self._path, flags, 0o600), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_mode & 0o077:
                os.fchmod(file.fileno(), 0o600)  # the operator may have made it
            yield file


class CaptureWriter:
    """Makes lines and writes them to `file`, in a thread of its own that starts at once."""

    def __init__(self, file: CaptureFile, *, max_queued_bytes: int = MAX_QUEUED_BYTES) -> None:
        self._file = file
        self._max_queued_bytes = max_queued_bytes
        self._queue: Queue[tuple[int, Job] | None] = Queue()
        self._queued_bytes = 0
        self._lock = threading.Lock()
        self._dropped = self._reported = 0
        self._thread = threading.Thread(target=self._run, name="capture-writer", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """How many lines have been dropped."""
        return self._dropped

    def submit(self, size_bytes: int, job: Job) -> None:
        """Have the line written that `job` makes of `size_bytes`; dropped if the queue is full."""
        with self._lock:
            if self._queued_bytes + size_bytes > self._max_queued_bytes:
                self._dropped += 1
                return
            self._queued_bytes += size_bytes
        self._queue.put((size_bytes, job))

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Write what is queued, for `timeout_s` at most."""
        self._queue.put(None)
        self._thread.join(timeout_s)

    # The thread

    def _run(self) -> None:
        # Signals are for the main thread, which waits for them.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        prune_at = time.monotonic()
        while True:
            if time.monotonic() >= prune_at:
                self._prune()
                prune_at = time.monotonic() + PRUNE_S
            try:
                item = self._queue.get(timeout=max(prune_at - time.monotonic(), 0.0))
            except Empty:
                continue
            if item is None or self._write(item):
                self._report()
                return

    def _write(self, first: tuple[int, Job]) -> bool:
        """Write the line of `first`, and those that are queued behind it. Returns whether it was the end."""
        items, is_end, size_bytes = [first], False, first[0]
        while len(items) < BATCH_LINES and size_bytes < BATCH_BYTES and not is_end:
            try:
                item = self._queue.get_nowait()
            except Empty:
                break
            if item is None:
                is_end = True
            else:
                items.append(item)
                size_bytes += item[0]
        lines = [line for _, job in items if (line := self._made(job))]
        try:
            if lines:
                self._file.append(b"".join(lines))
        except (OSError, ValueError):
            self._drop(len(lines))
        with self._lock:
            self._queued_bytes -= size_bytes
        return is_end

    def _made(self, job: Job) -> bytes:
        try:
            return job()
        except (ValueError, TypeError, RecursionError):  # nested too deeply, or no JSON
            self._drop(1)
            return b""

    def _drop(self, lines: int) -> None:
        with self._lock:
            self._dropped += lines

    def _prune(self) -> None:
        try:
            self._file.prune()
        except OSError as exc:
            logger.warning("old captures could not be removed: %s", exc.strerror)
        self._report()

    def _report(self) -> None:
        if (dropped := self._dropped) > self._reported:
            logger.warning("%d captures could not be written", dropped - self._reported)
            self._reported = dropped


def _remove(file: IO[bytes], cutoff: float, max_bytes: int) -> int:
    """Remove lines at the front that are older than `cutoff` or too much. Returns the size of the rest."""
    size = file.seek(0, os.SEEK_END)
    start = 0
    file.seek(0)
    for line in file:
        if size - start <= max_bytes and _time_of(line) >= cutoff:
            break
        start += len(line)
    if not start:
        return size
    for at in range(start, size, BLOCK_BYTES):
        _write_all(file.fileno(), os.pread(file.fileno(), BLOCK_BYTES, at), at - start)
    os.ftruncate(file.fileno(), size - start)
    return size - start


def _write_all(fd: int, data: bytes, at: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], at + done)


def _time_of(line: bytes) -> float:
    """When a line's request ended; 0 for what is no line."""
    found = _TIME.match(line)
    return 0.0 if found is None else float(found[1])
