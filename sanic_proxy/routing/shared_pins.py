"""What the workers of a machine know together of their sessions' targets: the pins of `affinity`.

A pin is an entry of the shared memory: by the session's digest it has the hash of a target's label, and
whether the session has been answered there, until the provider's cache is over. Labels are the same in all
workers, so their hashes are; no name of a session is in the memory. It may be lost at any time (the table is
full, the lock is held by a stopped process): each worker then goes by the pins of its own.
"""

from __future__ import annotations

from functools import lru_cache

from sanic_proxy.state_store.shared import SharedMemory, key_of

# In the word of an entry the lowest bit says whether the session has been answered, the others are those of
# the target's hash.
PROVEN = 1
# So much of its time an entry may lag behind its last use.
MAX_LAG = 1 / 16


class SharedPins:
    """The pins in the shared memory, by the key of their session. Times are monotonic.

    The word of a pin is `word_of` its target's label, with the bit `PROVEN` where it is proven.
    """

    __slots__ = ("_memory",)

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory

    def read(self, key: int, now: float, until: float) -> int | None:
        """The word of a session's pin, which is now kept to the time `until`; None if there is none.

        The lock is taken where there seems to be no pin, and now and then to keep it for longer.
        """
        found = self._memory.entries.peek(key, now)
        if found is not None and until - found[1] <= MAX_LAG * (until - now):
            return found[0]
        with self._memory.lock as is_locked:
            return self._memory.entries.get(key, now, until) if is_locked else None

    def write(self, key: int, word: int, until: float) -> None:
        """A session is served at the target of `word`, for all workers."""
        with self._memory.lock as is_locked:
            if is_locked:
                self._memory.entries.put(key, word, until)


def session_key(digest: bytes) -> int:
    """The key of a session's pin."""
    return int.from_bytes(digest, "little", signed=True) or 1


@lru_cache(maxsize=4096)
def word_of(label: str) -> int:
    """The word for a target."""
    return key_of("target", label) & ~PROVEN
