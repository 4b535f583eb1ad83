"""What each worker of one main process shows to all others: a text, in memory that these share.

A worker holds the lock of its slot (byte 1 + n of the file) as long as it lives, and the kernel releases it
when it dies. So whoever finds a slot in use whose lock it can take has found a dead worker's, and frees it.
The worker alone writes its slot. It makes `sequence` odd, writes, and makes it even again; readers compare
`sequence` before and after, and a checksum.

Beside its text a worker shows how many listeners it serves. Who changes that number holds the lock of byte 0,
so that all together keep to a limit.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from typing import Literal
from zlib import crc32

from sanic_proxy.state_store.shared_map import try_lock, unlock

ListenerCount = Literal["counted", "full", "locked"]

SLOTS = 512
# Words at the beginning of a slot.
_PID, _LISTENERS, _SEQUENCE, _SIZE, _CHECKSUM, _TEXT = range(6)
_WORD = 8
_FIRST_SLOT = mmap.PAGESIZE // _WORD  # behind the number of slots that were ever used
_TRIES = 3
# After which pauses the lock is tried again, which others hold for microseconds.
_PAUSES_S = (0.000_05, 0.000_5, 0.002, 0.0)


class Snapshots:
    """See the module. `fd` is the file, which the caller closes. It is mapped when it is first used.

    `max_bytes` is the size of the longest text; all workers must agree.
    """

    def __init__(self, fd: int, max_bytes: int) -> None:
        self._fd = fd
        self._slot_words = -(-(max_bytes + _TEXT * _WORD) // mmap.PAGESIZE) * mmap.PAGESIZE // _WORD
        self.max_bytes = max_bytes
        self._map: mmap.mmap | None = None
        self._words: memoryview[int] | None = None
        self._slot: int | None = None

    def publish(self, text: bytes) -> None:
        """Show `text` in place of the one before. One that is too long is not shown, nor without a slot."""
        words = self._mapped()
        if self._slot is None or self._map is None or len(text) > self.max_bytes:
            return
        at = self._at(self._slot)
        words[at + _SEQUENCE] |= 1
        start = (at + _TEXT) * _WORD
        self._map[start : start + len(text)] = text
        words[at + _SIZE], words[at + _CHECKSUM] = len(text), crc32(text)
        words[at + _SEQUENCE] += 1

    def texts(self) -> list[bytes]:
        """The texts of all workers that live and have shown one."""
        return [text for slot in self._living() if (text := self._text(slot)) is not None]

    @property
    def listeners(self) -> int:
        """The listeners of all workers. Those of a dead one are counted until its slot is freed."""
        words = self._mapped()
        return sum(words[self._at(slot) + _LISTENERS] for slot in range(words[0]))

    def listen(self, limit: int) -> ListenerCount:
        """Count one more listener of this worker, unless there are `limit` of them on the machine.

        "locked": another process has the lock, or more than SLOTS workers share the memory.
        """
        words = self._mapped()
        if self._slot is None or not any(map(self._has_lock, _PAUSES_S)):
            return "locked"
        try:
            living = sum(words[self._at(slot) + _LISTENERS] for slot in self._living())
            if living >= limit:
                return "full"
            words[self._at(self._slot) + _LISTENERS] += 1
        finally:
            unlock(self._fd, 0)
        return "counted"

    def leave(self) -> None:
        """Count one listener less."""
        words = self._mapped()
        if self._slot is not None:
            words[self._at(self._slot) + _LISTENERS] -= 1

    def close(self) -> None:
        """Free the worker's slot and unmap."""
        if self._map is None or self._words is None:
            return
        if self._slot is not None:
            self._free(self._slot)
            unlock(self._fd, 1 + self._slot)
        self._words.release()
        self._map.close()
        self._slot = None

    def _has_lock(self, pause_s: float) -> bool:
        """Whether the lock of byte 0 is taken; else this waits."""
        if try_lock(self._fd, 0):
            return True
        time.sleep(pause_s)
        return False

    def _living(self) -> Iterator[int]:
        """The slots of workers that live; those of dead ones are freed."""
        words = self._mapped()
        for slot in range(words[0]):
            if not words[self._at(slot) + _PID]:
                continue
            if slot == self._slot or not try_lock(self._fd, 1 + slot):
                yield slot
            else:
                self._free(slot)
                unlock(self._fd, 1 + slot)

    def _text(self, slot: int) -> bytes | None:
        words, at = self._mapped(), self._at(slot)
        start = (at + _TEXT) * _WORD
        for _ in range(_TRIES):
            sequence, size = words[at + _SEQUENCE], words[at + _SIZE]
            if sequence & 1 or not 0 < size <= self.max_bytes or self._map is None:
                continue
            text = self._map[start : start + size]
            if words[at + _SEQUENCE] == sequence and crc32(text) == words[at + _CHECKSUM]:
                return text
        return None

    def _free(self, slot: int) -> None:
        words, at = self._mapped(), self._at(slot)
        for word in (_PID, _LISTENERS, _SEQUENCE, _SIZE):
            words[at + word] = 0

    def _mapped(self) -> memoryview[int]:
        if self._words is None:
            size = (_FIRST_SLOT + SLOTS * self._slot_words) * _WORD
            os.ftruncate(self._fd, size)  # to the same size in every worker; pages are made when written
            self._map = mmap.mmap(self._fd, size)
            self._words = memoryview(self._map).cast("q")
            self._take_slot(self._words)
        return self._words

    def _take_slot(self, words: memoryview[int]) -> None:
        for slot in range(SLOTS):
            if try_lock(self._fd, 1 + slot):
                at = self._at(slot)
                for word in (_LISTENERS, _SEQUENCE, _SIZE):
                    words[at + word] = 0
                words[at + _PID] = os.getpid()
                words[0] = max(words[0], slot + 1)
                self._slot = slot
                return

    def _at(self, slot: int) -> int:
        return _FIRST_SLOT + slot * self._slot_words
