"""The mapped memory of `shared`: its layout in words, its locks, and the slots of workers."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import time
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from operator import add
from pathlib import Path
from typing import NamedTuple

KEPT_UNTIL = 0  # the double of a cell that says until when it is needed
CELL_VALUES = 16  # doubles in a cell, KEPT_UNTIL included
CELL_WORDS = 1 + CELL_VALUES  # behind the key
ENTRY_WORDS = 3  # key, time of its end, value

_WORD = 8
_PAGE_WORDS = 512
_FORMAT = 1
# How many numbers are added up at once: half a millisecond's work.
PART = 10_000
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# The words of the header. OWNER: the main process of the worker that opened it last. FOLD: the area of totals
# in use, and in the bits above the folded slot + 1.
_MAGIC, _BOOT, _OWNER, REAPED_AT, _FOLD, USED_SLOTS, GAUGES, COUNTERS = range(8)
_AREA_BITS = 8


class Layout(NamedTuple):
    """How much there is of each kind. All workers that share a file must agree."""

    cells: int = 16_384
    gauges: int = 1024
    counters: int = 8192
    slots: int = 512
    entries: int = 32_768


class Unusable(Exception):
    """The file is in use by others that do not agree about it; the message says which."""


def key_of(*parts: str) -> int:
    """The key of a cell or column by the parts of its name: 64 bits with a sign, never 0."""
    text = "\0".join(parts).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=_WORD).digest(), "little", signed=True) or 1


def try_lock(fd: int, first: int, count: int = 1) -> bool:
    """Lock bytes of a file, unless another process holds one of them."""
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, count, first)
    except (BlockingIOError, PermissionError):
        return False
    return True


def unlock(fd: int, first: int, count: int = 1) -> None:
    """Unlock bytes of a file."""
    fcntl.lockf(fd, fcntl.LOCK_UN, count, first)


class SharedMap:
    """Mapped memory. Without `fd` it is private, else byte 0 of the file must be locked by the caller.

    `is_named`: it is a file that outlives the main process. `slot` is this worker's; None: all are taken.
    Raises OSError, and Unusable where other processes use the file with another layout or boot.
    """

    def __init__(self, layout: Layout, fd: int | None = None, *, is_named: bool = False) -> None:
        self.layout = layout
        self.fd = fd
        self._is_named = is_named
        self._pids = _PAGE_WORDS
        self.cells = _paged(self._pids + layout.slots)
        self.entries = self.cells + layout.cells * CELL_WORDS
        self.gauge_names = self.entries + layout.entries * ENTRY_WORDS
        self.counter_names = self.gauge_names + layout.gauges
        self._totals = self.counter_names + layout.counters
        self.blocks = _paged(self._totals + 2 * layout.counters)
        self.block_words = _paged(layout.gauges + layout.counters)
        size = _WORD * (self.blocks + layout.slots * self.block_words)
        if fd is not None:
            self._prepare(fd, size)
        self._buffer = mmap.mmap(-1 if fd is None else fd, size)
        self.words = memoryview(self._buffer).cast("q")
        self.doubles = memoryview(self._buffer).cast("d")
        self.slot: int | None = None
        self._columns: dict[int, dict[int, int]] = {}  # the lists of names that this process has read
        if fd is None:
            self.slot = 0
            self.words[USED_SLOTS] = 1
        else:
            self._forget_other_owner(fd)
            self.take_slot()

    def _prepare(self, fd: int, size: int) -> None:
        expected = [key_of(str(_FORMAT), *map(str, self.layout)), key_of(_boot_id())]
        header = b"".join(word.to_bytes(_WORD, "little", signed=True) for word in expected)
        if os.pread(fd, len(header), 0) != header:
            if self._is_used(fd):
                raise Unusable("another version of the proxy, or another machine, uses it")
            os.ftruncate(fd, 0)
            os.ftruncate(fd, size)
            self._allocate(fd, 0, self.blocks)
            os.pwrite(fd, header, 0)

    def _allocate(self, fd: int, first: int, count: int) -> None:
        """Have the disk hold what will be written: a write to memory that finds it full ends the process."""
        if self._is_named and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, _WORD * first, _WORD * count)

    def _is_used(self, fd: int) -> bool:
        """Whether another process has a slot."""
        if not try_lock(fd, 1, self.layout.slots):
            return True
        unlock(fd, 1, self.layout.slots)
        return False

    def _forget_other_owner(self, fd: int) -> None:
        """Clear the columns if they are those of a main process that has ended."""
        owner = os.getppid()
        if self._is_named and self.words[_OWNER] != owner and not self._is_used(fd):
            self.reap()
            self._zero(_FOLD, COUNTERS + 1 - _FOLD)
            self._zero(self.gauge_names, self.blocks - self.gauge_names)
        self.words[_OWNER] = owner

    def take_slot(self) -> None:
        """Give this process the first free slot; there may be none."""
        for slot in range(self.layout.slots):
            if self.fd is None or self.words[self._pids + slot] or not try_lock(self.fd, 1 + slot):
                continue
            self._allocate(self.fd, self.block(slot), self.block_words)
            self.slot = slot
            self.words[self._pids + slot] = os.getpid()
            self.words[USED_SLOTS] = max(self.words[USED_SLOTS], slot + 1)
            return

    def block(self, slot: int) -> int:
        """Where the numbers of a slot begin: the gauges, then the counters."""
        return self.blocks + slot * self.block_words

    def column(self, counted: int, names: int, limit: int, key: int) -> int | None:
        """The column of `key` in one of the lists of names, which only grow; None if it is full."""
        count = self.words[counted]
        known = self._columns.setdefault(counted, {})
        for column in range(len(known), count):
            known[self.words[names + column]] = column
        if key in known:
            return known[key]
        if count >= limit:
            return None
        self.words[names + count] = key
        self.words[counted] = count + 1
        return count

    def reap(self) -> None:
        """Fold the slots of dead workers."""
        self.finish_fold()
        pids = self.words[self._pids : self._pids + self.words[USED_SLOTS]].tolist()
        for slot, pid in enumerate(pids):
            if pid and slot != self.slot and self.fd is not None and try_lock(self.fd, 1 + slot):
                self.fold(slot)
                unlock(self.fd, 1 + slot)

    def fold(self, slot: int) -> None:
        """Add the counters of a slot to the totals, and free it."""
        area = 1 - (self.words[_FOLD] & 1)
        start, count = self._totals + area * self.layout.counters, self.words[COUNTERS]
        sums = array("q", self._sums(1 - area, (slot,), 0, count))
        self.words[start : start + count] = memoryview(sums)
        self.words[_FOLD] = area | (slot + 1) << _AREA_BITS
        self.finish_fold()

    def finish_fold(self) -> None:
        """Clear the slot that has been added to the totals."""
        fold = self.words[_FOLD]
        if slot := fold >> _AREA_BITS:
            self._zero(self.block(slot - 1), self.block_words)
            self.words[self._pids + slot - 1] = 0
            self.words[_FOLD] = fold & 1

    def counts(self) -> Iterator[list[int]]:
        """The sums of all counters by column, in parts of `PART` numbers that are read. Needs no lock."""
        step = max(1, PART // (1 + self.words[USED_SLOTS]))
        for first in range(0, self.words[COUNTERS], step):
            yield self._part(first, min(step, self.words[COUNTERS] - first))

    def _part(self, first: int, count: int) -> list[int]:
        while True:
            fold = self.words[_FOLD]
            folded = (fold >> _AREA_BITS) - 1
            slots = (slot for slot in range(self.words[USED_SLOTS]) if slot != folded)
            sums = self._sums(fold & 1, slots, first, count)
            if self.words[_FOLD] == fold:
                return sums

    def _sums(self, area: int, slots: Iterable[int], first: int, count: int) -> list[int]:
        at = self._totals + area * self.layout.counters + first
        sums = self.words[at : at + count].tolist()
        for slot in slots:
            at = self._counters(slot) + first
            sums = list(map(add, sums, self.words[at : at + count].tolist()))
        return sums

    def _counters(self, slot: int) -> int:
        return self.block(slot) + self.layout.gauges

    def _zero(self, first: int, count: int) -> None:
        self._buffer[_WORD * first : _WORD * (first + count)] = bytes(_WORD * count)

    def close(self) -> None:
        """Unmap, and release all locks. The numbers of a slot that has not been folded remain."""
        self.words.release()
        self.doubles.release()
        with suppress(BufferError):  # a counter's view is still in use
            self._buffer.close()
        if self.fd is not None:
            unlock(self.fd, 0, 0)


def _paged(words: int) -> int:
    return -(-words // _PAGE_WORDS) * _PAGE_WORDS


def _boot_id() -> str:
    """What names this boot of the machine; where the system has no such name, its time to within some hours.

    A boot that is not recognised leaves limits that are over within minutes.
    """
    with suppress(OSError):
        return _BOOT_ID.read_text("ascii").strip()
    return str(round((time.time() - time.monotonic()) / 10_000))
