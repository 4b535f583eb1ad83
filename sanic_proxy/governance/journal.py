"""What a worker has reserved and settled, in memory that outlives its process.

Theory. A worker spends leased money without asking the store, and its settlements reach the store some
milliseconds later, many in one commit. A worker that is killed must not take either with it. So both are
written to a mapped file first: the kernel keeps its pages whatever happens to the process, and a write to it
is no system call that a slow disk could delay. (A power failure may lose the last ones, as it may lose the
last commits of SQLite with `synchronous=NORMAL`.)

The file consists of slots of SLOT_BYTES, one for each open reservation. A slot has a byte for its state, a
place for a settlement and one for a reservation. It goes through three states:

    FREE      nothing
    OPEN      holds the reservation: what it is for, and what it is counted against
    SETTLED   holds the settlement as well, with a number that grows from settlement to settlement

The state is the slot's first byte and is written last, so a process that dies half-way through leaves the
slot as it was before. A slot is FREE again when the store has booked its settlement.

A journal belongs to the process that holds the lock on its file. The kernel releases the lock with the
process, so whoever gets the lock knows that the owner is dead: there is no process id to be reused, and no
clock. What the owner has left is then booked by the one who has the lock, and the file is removed.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

FREE, OPEN, SETTLED = 0, 1, 2
SLOT_BYTES = 4096
FIRST_SLOTS = 512
MAX_SLOTS = 32_768
SUFFIX = ".journal"

# Each text has its length in front of it.
_LENGTH = struct.Struct("<H")
SETTLEMENT_BYTES = 608
# Where in a slot the texts begin, behind the state.
_SETTLEMENT = 2
_RESERVATION = _SETTLEMENT + _LENGTH.size + SETTLEMENT_BYTES
MAX_RESERVATION_BYTES = SLOT_BYTES - _RESERVATION - _LENGTH.size


class JournalFull(Exception):
    """There is no room: too many reservations are open, or the disk is full."""


class Left(NamedTuple):
    """What a dead worker has left in one slot; `settlement` is empty where it was still open."""

    reservation: bytes
    settlement: bytes


class Journal:
    """See the module. Made by `create`, or by `adopt` for one whose owner is dead."""

    __slots__ = ("_descriptor", "_free", "_map", "path", "worker")

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.worker = path.name.removesuffix(SUFFIX)
        self._descriptor = descriptor
        self._map = mmap.mmap(descriptor, 0)
        count = len(self._map) // SLOT_BYTES
        self._free = [number for number in reversed(range(count)) if self._map[number * SLOT_BYTES] == FREE]

    @classmethod
    def create(cls, directory: Path, worker: str) -> Self:
        """A new journal of this process. Raises OSError, for a full disk as well."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = directory / f"{worker}{SUFFIX}"
        # Under another name until it is locked, or another process might adopt it.
        draft = directory / f"{worker}.new"
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A hole in the file would end the process with SIGBUS if the disk were full when it is written.
            os.posix_fallocate(descriptor, 0, FIRST_SLOTS * SLOT_BYTES)
            draft.rename(path)
            return cls(path, descriptor)
        except BaseException:
            draft.unlink(missing_ok=True)
            os.close(descriptor)
            raise

    @classmethod
    def adopt(cls, path: Path) -> Self | None:
        """The journal of a dead worker, now this process's; None while its owner lives or has closed it."""
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(descriptor)
            if found.st_nlink and found.st_size:
                return cls(path, descriptor)
            if found.st_nlink:  # its owner died before it had a size
                path.unlink()
        except BlockingIOError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def open(self, reservation: bytes) -> int:
        """Write a reservation. Returns its slot. Raises JournalFull."""
        size = len(reservation)
        if size > MAX_RESERVATION_BYTES:
            raise JournalFull(f"A reservation of {size} bytes does not fit into the ledger")
        if not self._free:
            self._grow()
        slot = self._free.pop()
        at = slot * SLOT_BYTES
        mapped = self._map
        mapped[at + _RESERVATION : at + _RESERVATION + 2 + size] = _LENGTH.pack(size) + reservation
        mapped[at] = OPEN
        return slot

    def settle(self, slot: int, settlement: bytes) -> None:
        """Write the settlement of an open slot, of SETTLEMENT_BYTES at most."""
        at = slot * SLOT_BYTES
        mapped = self._map
        size = len(settlement)
        mapped[at + _SETTLEMENT : at + _SETTLEMENT + 2 + size] = _LENGTH.pack(size) + settlement
        mapped[at] = SETTLED

    def release(self, slot: int) -> None:
        """Free a slot: the store has its settlement."""
        self._map[slot * SLOT_BYTES] = FREE
        self._free.append(slot)

    def left(self) -> Iterator[Left]:
        """What is in the slots, for the one who has adopted the journal."""
        for at in range(0, len(self._map), SLOT_BYTES):
            state = self._map[at]
            if state in {OPEN, SETTLED}:
                settlement = self._text(at + _SETTLEMENT) if state == SETTLED else b""
                yield Left(self._text(at + _RESERVATION), settlement)

    def _text(self, at: int) -> bytes:
        (size,) = _LENGTH.unpack_from(self._map, at)
        return self._map[at + _LENGTH.size : at + _LENGTH.size + size]

    def set_aside(self) -> Path:
        """Rename a journal that cannot be read, so that nobody adopts it again. Returns its path."""
        return self.path.rename(self.path.with_suffix(".damaged"))

    @property
    def is_empty(self) -> bool:
        """Whether nothing is open or waits to be booked."""
        return len(self._free) * SLOT_BYTES == len(self._map)

    def remove(self) -> None:
        """Delete the file: all in it has been booked. Safe to call twice."""
        with suppress(FileNotFoundError):
            self.path.unlink()
        self.close()

    def close(self) -> None:
        """Close the file, which stays. Safe to call twice."""
        if self._descriptor >= 0:
            self._map.close()
            os.close(self._descriptor)
            self._descriptor = -1

    def _grow(self) -> None:
        count = len(self._map) // SLOT_BYTES
        if count >= MAX_SLOTS:
            raise JournalFull(f"More than {MAX_SLOTS} requests of one worker are open or not booked yet")
        try:
            os.posix_fallocate(self._descriptor, 0, 2 * count * SLOT_BYTES)
        except OSError as exc:
            raise JournalFull(f"The ledger's journal cannot grow: {exc}") from exc
        self._map.resize(2 * count * SLOT_BYTES)
        self._free.extend(reversed(range(count, 2 * count)))


def journals(directory: Path) -> list[Path]:
    """The journals in a directory."""
    with suppress(FileNotFoundError):
        return sorted(directory.glob(f"*{SUFFIX}"))
    return []
