"""The last events of all workers of one main process, in one order, in memory that these share.

Each event has a number, one more than the event before it, and a place of fixed size by that number. A place
holds the number, the length and a checksum of the event before its bytes. A writer holds the lock of byte 0
of the file (POSIX, as in `shared`: the kernel releases it when the process dies) and writes the number of a
place last, so a writer that is killed leaves a place without a valid event, which readers skip. Readers take
no lock: a place that is being written has another number, or a wrong checksum.

The first number is the time in milliseconds, so a reader that was connected to the main process before does
not take new events for old ones.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Iterator, Sequence
from zlib import crc32

from sanic_proxy.state_store.shared_map import try_lock, unlock

PLACES = 1024
PLACE_BYTES = 4096
_HEAD = struct.Struct("<qII")
_NUMBER = struct.Struct("<q")
MAX_EVENT_BYTES = PLACE_BYTES - _HEAD.size
_FIRST_PLACE = mmap.PAGESIZE  # behind the number of the last event
# How often, and after which pauses, a writer tries to get the lock, which others hold for microseconds.
_PAUSES_S = (0.000_05, 0.000_2, 0.001, 0.004, 0.0)


class EventRing:
    """See the module. `fd` is the file, which the caller closes. It is mapped when it is first used."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._map: mmap.mmap | None = None

    @property
    def last(self) -> int:
        """The number of the last event; 0 before the first one."""
        number: int = _NUMBER.unpack_from(self._mapped(), 0)[0]
        return number

    def append(self, events: Sequence[bytes]) -> bool:
        """Add events, of `MAX_EVENT_BYTES` at most each.

        Returns False, with nothing added, if the lock cannot be had: the process that holds it is stopped.
        """
        memory = self._mapped()
        if not self._has_lock():
            return False
        try:
            number = self.last or int(1000 * time.time())
            for event in events:
                number += 1
                at = _place(number)
                _HEAD.pack_into(memory, at, 0, len(event), crc32(event))
                memory[at + _HEAD.size : at + _HEAD.size + len(event)] = event
                _NUMBER.pack_into(memory, at, number)
                _NUMBER.pack_into(memory, 0, number)
        finally:
            unlock(self._fd, 0)
        return True

    def after(self, number: int) -> Iterator[tuple[int, bytes]]:
        """The events after `number`, as far as they are kept, in their order."""
        last = self.last
        for one in range(max(number, last - PLACES) + 1, last + 1):
            event = self._event(one)
            if event is not None:
                yield one, event

    def before(self, number: int | None = None) -> Iterator[tuple[int, bytes]]:
        """The events before `number`, or all, the latest first."""
        last = self.last
        first = max(1, last - PLACES + 1)
        start = last if number is None else min(number - 1, last)
        for one in range(start, first - 1, -1):
            event = self._event(one)
            if event is not None:
                yield one, event

    def close(self) -> None:
        """Unmap."""
        if self._map is not None:
            self._map.close()

    def _event(self, number: int) -> bytes | None:
        memory, at = self._mapped(), _place(number)
        found, size, checksum = _HEAD.unpack_from(memory, at)
        if found != number or size > MAX_EVENT_BYTES:
            return None
        event = memory[at + _HEAD.size : at + _HEAD.size + size]
        return event if crc32(event) == checksum else None

    def _has_lock(self) -> bool:
        for pause_s in _PAUSES_S:
            if try_lock(self._fd, 0):
                return True
            time.sleep(pause_s)
        return False

    def _mapped(self) -> mmap.mmap:
        if self._map is None:
            size = _FIRST_PLACE + PLACES * PLACE_BYTES
            os.ftruncate(self._fd, size)  # to the same size in every worker
            self._map = mmap.mmap(self._fd, size)
        return self._map


def _place(number: int) -> int:
    return _FIRST_PLACE + number % PLACES * PLACE_BYTES
