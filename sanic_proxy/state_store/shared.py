"""Memory that the workers of a machine share: named cells, entries of a cache, and columns of numbers that
each worker writes.

Where it is. The main process makes it without a name and its workers inherit the descriptor; with a state
directory that the operator has set, it is the file `shared.memory` there, so that several instances share it.
A worker without a main process has private memory. It is mapped when it is first used.

Locks are byte-range locks of POSIX (`fcntl`), which the kernel releases when a process ends in whatever way:

    byte 0       the lock for short critical sections. A process that holds it may be stopped (SIGSTOP, a
                 frozen container), so the others wait for a bounded time, once: until the lock is had again,
                 later attempts do not wait. Without the lock callers decide by what they know themselves.
    byte 1 + n   slot n, held by one worker as long as it lives. A slot that is taken, but not locked, belongs
                 to a dead worker: the next process in a critical section folds it.

Such locks belong to a process and an inode: closing any descriptor of the file releases all of them. So a
process has one `SharedMemory` per file and keeps it to its end, and it is used by one thread.

Cells (`Cells`) are found by a 64-bit key and hold a few doubles, read and written in a critical section only.
A cell says how long it is needed (`KEPT_UNTIL`) and is then free for another key. A key has `WINDOW` places,
and none elsewhere, so that neither a full table nor dead entries make a search longer. A process that is
killed in a critical section may leave some doubles of a cell written and others not: users of cells
accept any combination.

Entries (`Entries`) hold one word until a time, for what may be forgotten at any time: where all places of a
key are in use, the entry that ends first gives way. They have a table of their own, so that however many
there are, they leave the cells to limits. They may be read without the lock, as a word that is being replaced
is recognised by its time.

Columns (`Gauges`, `Counters`) are found by a 64-bit key as well. Each worker has a number of its own in each
column, which it writes without a lock, as an aligned word that no other worker writes; the value of a column
is the sum over the slots. Of gauges (requests in flight) a dead worker's numbers vanish; those of counters
are added to the totals, which therefore never fall. Folding must not count a slot twice if it is interrupted:
there are two areas of totals, and the new ones are written into the area that is not in use. One word then
names that area and the folded slot, which readers leave out until it has been cleared.

Times are CLOCK_MONOTONIC: the same for all processes of a machine, and never set back. It begins anew when
the machine boots, so a file remembers the boot that it was written in and is emptied in a later one. Its
columns end with the last of the main processes that use it, its cells do not. All sizes are fixed; the file
is sparse, and what a worker writes is allocated beforehand, because a full disk would end the process
(SIGBUS). What finds no room is logged once, and is each worker's own.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from multiprocessing.connection import Connection
from pathlib import Path

from typing_extensions import override

from sanic_proxy.state_store.shared_map import (
    CELL_VALUES,
    CELL_WORDS,
    COUNTERS,
    ENTRY_WORDS,
    GAUGES,
    KEPT_UNTIL,
    REAPED_AT,
    USED_SLOTS,
    Layout,
    SharedMap,
    Unusable,
    key_of,
    try_lock,
    unlock,
)

__all__ = ["CELL_VALUES", "KEPT_UNTIL", "Layout", "SharedMemory", "key_of", "unnamed_memory"]

logger = logging.getLogger(__name__)

FILE_NAME = "shared.memory"
MAX_WAIT_S = 0.05
# How often dead workers are looked for, and how soon memory that was locked is tried again.
REAP_S = 0.25
RETRY_S = 1.0
WINDOW = 16
_FIRST_PAUSE_S = 0.000_02
_MAX_PAUSE_S = 0.001
_NO_VALUES = memoryview(bytes(8 * CELL_VALUES)).cast("d")
_NO_PLACE = memoryview(bytes(8)).cast("q")  # no key is 0


def unnamed_memory() -> Connection:
    """Memory for the workers of this process. Only the descriptor is used of the connection, which makes
    `multiprocessing` hand it to the processes that it spawns.
    """
    if hasattr(os, "memfd_create"):
        return Connection(os.memfd_create("sanic-proxy"))
    with tempfile.TemporaryFile() as file:
        return Connection(os.dup(file.fileno()))


class SharedMemory:
    """See the module. `directory` is tried first, then the descriptor `inherited`, then it is private."""

    def __init__(
        self, *, directory: Path | None = None, inherited: int | None = None, layout: Layout | None = None
    ) -> None:
        self.lock = Lock(self)
        self.cells = Cells(self)
        self.entries = Entries(self)
        self.gauges = Gauges(self)
        self.counters = Counters(self)
        self._layout = layout or Layout()
        self._directory = directory
        self._inherited = inherited
        self._map: SharedMap | None = None
        self._own_fd: int | None = None
        self._retry_at = 0.0
        self._has_timed_out = False
        self._logged: set[str] = set()

    def close(self) -> None:
        """Give the worker's slot back and unmap. The instance cannot be used afterwards."""
        self._retry_at = float("inf")
        mapped, self._map = self._map, None
        if mapped is not None:
            if mapped.fd is not None and mapped.slot is not None and self._has_lock(mapped.fd):
                mapped.finish_fold()
                mapped.fold(mapped.slot)
            mapped.close()
        if self._own_fd is not None:
            os.close(self._own_fd)

    def mapped(self) -> SharedMap | None:
        """The mapped memory; None while it is locked."""
        return self._map or self._opened()

    def acquire(self) -> SharedMap | None:
        """The mapped memory, locked; None if the lock cannot be had in time."""
        mapped = self._map or self._opened()
        if mapped is None or mapped.fd is None:
            return mapped
        if not self._has_lock(mapped.fd):
            return None
        mapped.finish_fold()
        now = time.monotonic()
        if now - mapped.doubles[REAPED_AT] >= REAP_S:
            mapped.doubles[REAPED_AT] = now
            mapped.reap()
        return mapped

    @property
    def is_private(self) -> bool:
        """Whether this worker alone uses the memory, which has been mapped."""
        return self._map is not None and self._map.fd is None

    @property
    def used_slots(self) -> int:
        """At least as many workers as use the memory."""
        mapped = self._map
        return 1 if mapped is None else mapped.words[USED_SLOTS]

    def log_once(self, message: str) -> None:
        """A warning, once in this process."""
        if message not in self._logged:
            self._logged.add(message)
            logger.warning("%s", message)

    def _has_lock(self, fd: int) -> bool:
        """Whether the lock has been taken, within `MAX_WAIT_S`."""
        pause_s = _FIRST_PAUSE_S
        until = 0.0
        while not try_lock(fd, 0):
            now = time.monotonic()
            until = until or (now if self._has_timed_out else now + MAX_WAIT_S)
            if now >= until:
                self._has_timed_out = True
                self.log_once(
                    f"another process has locked the shared memory for over {MAX_WAIT_S:g} s: "
                    "until it goes on, each worker decides for itself"
                )
                return False
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _MAX_PAUSE_S)
        self._has_timed_out = False
        return True

    def _opened(self) -> SharedMap | None:
        now = time.monotonic()
        if now < self._retry_at:
            return None
        self._retry_at = now + RETRY_S
        try:
            if self._directory is not None:
                if self._own_fd is None:
                    self._own_fd = _open_file(self._directory)
                return self._map_file(self._own_fd, is_named=True)
        except (OSError, Unusable) as exc:
            self.log_once(f"{self._directory}/{FILE_NAME} is not shared with other instances: {exc}")
            self._directory = None
        try:
            if self._inherited is not None:
                return self._map_file(self._inherited, is_named=False)
        except (OSError, Unusable) as exc:
            self.log_once(f"the workers share no memory: {exc}")
            self._inherited = None
        self._map = SharedMap(self._layout._replace(slots=1))
        return self._map

    def _map_file(self, fd: int, *, is_named: bool) -> SharedMap | None:
        if not self._has_lock(fd):
            return None
        try:
            self._map = SharedMap(self._layout, fd, is_named=is_named)
        finally:
            unlock(fd, 0)
        if self._map.slot is None:
            self.log_once(f"more than {self._layout.slots} workers share memory: further ones count alone")
        return self._map


def _open_file(directory: Path) -> int:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(directory / FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


class Lock:
    """The critical section as a context, which cannot be nested. True inside it if the lock is held."""

    __slots__ = ("_held", "_memory")

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory
        self._held: SharedMap | None = None

    def __enter__(self) -> bool:
        self._held = self._memory.acquire()
        return self._held is not None

    def __exit__(self, *_: object) -> None:
        held, self._held = self._held, None
        if held is not None and held.fd is not None:
            unlock(held.fd, 0)


class Cells:
    """Named cells of doubles."""

    __slots__ = ("_memory",)

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory

    def find(self, key: int, now: float) -> memoryview[float] | None:
        """The `CELL_VALUES` doubles of `key`, all 0 if it is new; None if its places are taken.

        To be called with the lock held, and used only until it is released. The cell stays for as long as
        its `KEPT_UNTIL` is after the monotonic time `now`.
        """
        mapped = self._memory.mapped()
        at = None if mapped is None else self._place(mapped, key, now)
        return None if mapped is None or at is None else mapped.doubles[at + 1 : at + CELL_WORDS]

    def cell(self, key: int) -> Cell:
        """The cell of `key` for many uses."""
        return Cell(self, key)

    def found(self, cell: Cell, now: float) -> bool:
        """Find the place of a cell that has none any more; False if all are taken."""
        mapped = self._memory.mapped()
        at = None if mapped is None else self._place(mapped, cell.key, now)
        if mapped is None or at is None:
            return False
        cell.place = mapped.words[at : at + 1]
        cell.doubles = mapped.doubles[at + 1 : at + CELL_WORDS]
        return True

    def _place(self, mapped: SharedMap, key: int, now: float) -> int | None:
        """Where the words of a cell begin; it is a new one if there is none."""
        words, doubles, count = mapped.words, mapped.doubles, mapped.layout.cells
        free = None
        for step in range(min(WINDOW, count)):
            at = mapped.cells + (key + step) % count * CELL_WORDS
            if words[at] == key:
                return at
            if free is None and doubles[at + 1 + KEPT_UNTIL] <= now:
                free = at
        if free is None:
            self._memory.log_once(
                f"the shared memory is full ({count} cells): what finds no room is each worker's own"
            )
            return None
        words[free] = key
        doubles[free + 1 : free + CELL_WORDS] = _NO_VALUES
        return free


class Cell:
    """One named cell, whose place is remembered until another key has taken it."""

    __slots__ = ("_cells", "doubles", "key", "place")

    def __init__(self, cells: Cells, key: int) -> None:
        self._cells = cells
        self.key = key
        self.place = _NO_PLACE
        self.doubles = _NO_VALUES

    def values(self, now: float) -> memoryview[float] | None:
        """As `Cells.find`."""
        if self.place[0] == self.key or self._cells.found(self, now):
            return self.doubles
        return None


class Entries:
    """Words by key, each until a time. All methods but `peek` are to be called with the lock held."""

    __slots__ = ("_memory",)

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory

    def peek(self, key: int, now: float) -> tuple[int, float] | None:
        """The word of `key` and the end of its time; None if it has none or another process is writing it.

        `put` sets the time to 0 before it writes anything else. So a key and a time that are the same before
        and after the word has been read belong to it.
        """
        mapped = self._memory.mapped()
        if mapped is None or not mapped.layout.entries:
            return None
        words, doubles = mapped.words, mapped.doubles
        at = mapped.entries + key % mapped.layout.entries * ENTRY_WORDS
        if words[at] != key:  # nearly every key is in its first place
            other = _entry(mapped, key)
            if other is None:
                return None
            at = other
        end, word = doubles[at + 1], words[at + 2]
        if end <= now or words[at] != key or doubles[at + 1] != end:
            return None
        return word, end

    def get(self, key: int, now: float, until: float) -> int | None:
        """The word of `key`, which is kept at least to the time `until` from now on; None if it has none."""
        mapped = self._memory.mapped()
        at = None if mapped is None else _entry(mapped, key)
        if mapped is None or at is None or (end := mapped.doubles[at + 1]) <= now:
            return None
        mapped.doubles[at + 1] = max(end, until)
        return mapped.words[at + 2]

    def put(self, key: int, value: int, until: float) -> None:
        """Set the word of `key`, 64 bits with a sign, until that time."""
        mapped = self._memory.mapped()
        if mapped is None or not mapped.layout.entries:
            return
        words, doubles = mapped.words, mapped.doubles
        at = _entry(mapped, key)
        if at is None:
            at = min(_places(mapped, key), key=lambda at: doubles[at + 1])
        doubles[at + 1] = 0.0  # so that a process that is killed here leaves no key with another one's word
        words[at], words[at + 2] = key, value
        doubles[at + 1] = until


def _places(mapped: SharedMap, key: int) -> Iterator[int]:
    """Where the entry of `key` can be."""
    count = mapped.layout.entries
    for step in range(min(WINDOW, count)):
        yield mapped.entries + (key + step) % count * ENTRY_WORDS


def _entry(mapped: SharedMap, key: int) -> int | None:
    """Where the entry of `key` is; None if there is none."""
    words = mapped.words
    for at in _places(mapped, key):
        if words[at] == key:
            return at
    return None


class _Columns:
    """Numbers of all workers by key, each of which only its worker writes."""

    __slots__ = ("_known", "_memory")

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory
        self._known: dict[int, int] = {}

    def column(self, key: int) -> int | None:
        """The number of the column of `key`, in all workers the same; None if it can be had later or never.

        Takes the lock if the column is new to this process.
        """
        column = self._known.get(key)
        return self.columns((key,))[0] if column is None else column

    def columns(self, keys: Sequence[int]) -> list[int | None]:
        """The columns of several keys, with the lock taken once at most."""
        missing = [key for key in keys if key not in self._known]
        if missing:
            with self._memory.lock as is_locked:
                mapped = self._memory.mapped() if is_locked else None
                if mapped is not None and mapped.slot is not None:
                    self._allot(mapped, missing)
        return [self._known.get(key) for key in keys]

    def _allot(self, mapped: SharedMap, keys: Iterable[int]) -> None:
        for key in keys:
            column = self._allotted(mapped, key)
            if column is None:
                self._memory.log_once(
                    "the shared memory has no room for further counts: workers keep their own"
                )
                return
            self._known[key] = column

    def own(self) -> memoryview[int] | None:
        """This worker's numbers by column, to be written without the lock; None while it has none.

        The view is valid until the memory is closed.
        """
        mapped = self._memory.mapped()
        if mapped is None or mapped.slot is None:
            return None
        first, count = self._place(mapped)
        return mapped.words[mapped.block(mapped.slot) + first :][:count]

    def _allotted(self, mapped: SharedMap, key: int) -> int | None:
        raise NotImplementedError

    def _place(self, mapped: SharedMap) -> tuple[int, int]:
        """Where the columns are in a worker's block, and how many."""
        raise NotImplementedError


def _total(words: memoryview[int], at: int, stride: int) -> int:
    """The sum of a column, whose number in slot 0 is at `at`, over all slots in use."""
    # Without a slice and `sum`, which take longer than the few reads.
    total = words[at]
    if (used := words[USED_SLOTS]) > 1:
        for _ in range(1, used):
            at += stride
            total += words[at]
    return total


class Gauge:
    """One number of each worker. `count` is this worker's; whoever changes it writes it into `cell`, at 0,
    for the others to see. `cell` is None where there are none, and valid until the memory is closed.
    """

    __slots__ = ("_first", "_stride", "_words", "cell", "count")

    def __init__(self, mapped: SharedMap | None = None, slot: int = 0, column: int = 0) -> None:
        self.count = 0
        self.cell: memoryview[int] | None = None
        if mapped is not None and mapped.fd is not None:
            self._words = mapped.words[:]
            self._first, self._stride = mapped.blocks + column, mapped.block_words
            at = mapped.block(slot) + column
            self.cell = mapped.words[at : at + 1]

    def total(self) -> int:
        """The sum over all workers. A dead one's number is in it until its slot is folded."""
        return self.count if self.cell is None else _total(self._words, self._first, self._stride)


class Gauges(_Columns):
    """Numbers that end with their worker. The sums are read without the lock."""

    __slots__ = ("_made",)

    def __init__(self, memory: SharedMemory) -> None:
        super().__init__(memory)
        self._made: dict[int, Gauge] = {}

    def gauge(self, key: int) -> Gauge | None:
        """The column of `key` for many reads and writes; None if it can be had later or never.

        All users in this process have the same one, and do not write the number in another way.
        """
        if (gauge := self._made.get(key)) is not None:
            return gauge
        column = self.column(key)
        mapped = self._memory.mapped()
        if column is None or mapped is None or mapped.slot is None:
            return None
        gauge = self._made[key] = Gauge(mapped, mapped.slot, column)
        return gauge

    def total(self, column: int) -> int:
        """The sum over all workers. A dead one's number is in it until its slot is folded."""
        mapped = self._memory.mapped()
        return 0 if mapped is None else _total(mapped.words, mapped.blocks + column, mapped.block_words)

    @override
    def _allotted(self, mapped: SharedMap, key: int) -> int | None:
        return mapped.column(GAUGES, mapped.gauge_names, mapped.layout.gauges, key)

    @override
    def _place(self, mapped: SharedMap) -> tuple[int, int]:
        return 0, mapped.layout.gauges


class Counters(_Columns):
    """Numbers that only grow, and outlive their worker."""

    __slots__ = ()

    def totals(self) -> list[int]:
        """The sums by column, dead workers included."""
        return list(chain.from_iterable(self.parts()))

    def parts(self) -> Iterator[list[int]]:
        """The same in parts, so that others have their turn in between."""
        with self._memory.lock:  # which folds dead workers; without it their slots are read as they are
            mapped = self._memory.mapped()
        return iter(()) if mapped is None else mapped.counts()

    @override
    def _allotted(self, mapped: SharedMap, key: int) -> int | None:
        return mapped.column(COUNTERS, mapped.counter_names, mapped.layout.counters, key)

    @override
    def _place(self, mapped: SharedMap) -> tuple[int, int]:
        return mapped.layout.gauges, mapped.layout.counters
