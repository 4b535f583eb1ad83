"""What the workers of a machine know together of their sessions' targets: the pins of `affinity`.

A pin is an entry of the shared memory: by the session's digest it has the hash of a target's label, and
whether the session has been answered there, until the provider's cache is over. Labels are the same in all
workers, so their hashes are; no name of a session is in the memory. It may be lost at any time (the table is
full, the lock is held by a stopped process): each worker then goes by the pins of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from sanic_proxy.state_store.shared import SharedMemory, key_of

# In the word of an entry the lowest bit is `is_proven`, the others are those of the target's hash.
_PROVEN = 1


@dataclass(frozen=True, slots=True)
class SharedPin:
    """Where a session is served, as one of the workers has found."""

    target: int
    is_proven: bool

    def label_among(self, labels: Iterable[str]) -> str | None:
        """The label of the target; None if it is none of those that this worker knows."""
        return next((label for label in labels if _hash_of(label) == self.target), None)


class SharedPins:
    """The pins in the shared memory. Times are monotonic."""

    __slots__ = ("_memory",)

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory

    def read(self, session: bytes, now: float, until: float) -> SharedPin | None:
        """The pin of a session, which is now kept to the time `until`; None if there is none."""
        with self._memory.lock as is_locked:
            word = self._memory.entries.get(_key_of(session), now, until) if is_locked else None
        return None if word is None else SharedPin(word & ~_PROVEN, bool(word & _PROVEN))

    def write(self, session: bytes, label: str, until: float, *, is_proven: bool) -> None:
        """A session is served at the target `label`, for all workers."""
        with self._memory.lock as is_locked:
            if is_locked:
                self._memory.entries.put(_key_of(session), _hash_of(label) | is_proven, until)


def _key_of(session: bytes) -> int:
    return int.from_bytes(session, "little", signed=True) or 1


@lru_cache(maxsize=4096)
def _hash_of(label: str) -> int:
    return key_of("target", label) & ~_PROVEN
