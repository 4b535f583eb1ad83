"""Which target has the longest beginning of a prompt in its cache, for the strategy `prefix`. Pure.

Engines (vLLM, SGLang, llama.cpp) keep the attention of earlier prompts and compute only what follows the
longest prefix that they know. What they know is not asked for but remembered: the text of each prompt is cut
into blocks of 512 bytes, and each block's hash covers all blocks before it, so that one look-up tells whether
the whole prefix is known. No tokenizer is needed, as equal text has equal tokens. Of each target the hashes
that were used last are remembered.

Each worker remembers all blocks of the prompts that it has sent, and of those of other workers some, by the
memory that they share (`SharedPrefixes`): every eighth block, and the first, second and fourth, with the
target that got them last. So a worker that meets a prompt for the first time finds the target that knows at
least its first half, and of a long one all but 4 KiB.

What follows from that for a request is decided in `selection`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from sanic_proxy.json_types import JsonMapping
from sanic_proxy.openai import codec
from sanic_proxy.routing.sessions import PREAMBLE, TURNS
from sanic_proxy.routing.shared_pins import session_key, word_of
from sanic_proxy.state_store.shared import SharedMemory

BLOCK_BYTES = 512
# The blocks that workers tell each other of: so many have been counted up to them.
_FIRST_SHARED = (1, 2, 4)
_SHARED_STEP = 8
DIGEST_BYTES = 8
# Longer prompts are compared by this much of them: 512 KiB, some 130,000 tokens.
MAX_BLOCKS = 1024
# A larger request holds images or files, and writing it again would take too long.
MAX_REQUEST_BYTES = 4 * 2**20
# Blocks that are remembered per target: 16 MiB of text.
MAX_KNOWN = 32_768


def block_hashes(model: str, fields: JsonMapping) -> list[bytes]:
    """The hashes of the whole blocks of a request's prompt: model, tools, system prompt and turns."""
    hasher = hashlib.blake2b(model.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES)
    hashes: list[bytes] = []
    rest = b""
    for part in _parts(fields):
        text = rest + codec.dumps(part)
        whole = len(text) - len(text) % BLOCK_BYTES
        for start in range(0, whole, BLOCK_BYTES):
            hasher.update(text[start : start + BLOCK_BYTES])
            hashes.append(hasher.digest())
            if len(hashes) == MAX_BLOCKS:
                return hashes
        rest = text[whole:]
    return hashes


def _parts(fields: JsonMapping) -> list[Any]:
    """The parts of the prompt in the order in which engines' templates have them."""
    preamble = [fields[name] for name in PREAMBLE if name in fields]
    turns = next((fields[name] for name in TURNS if fields.get(name)), None)
    return [*preamble, *turns] if isinstance(turns, list) else [*preamble, turns]


class PrefixCache:
    """The hashes of blocks that a target probably has in its cache; the least recently used are dropped."""

    __slots__ = ("_known", "_limit")

    def __init__(self, limit: int = MAX_KNOWN) -> None:
        self._limit = limit
        self._known: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._known)

    def matched(self, hashes: Sequence[bytes]) -> int:
        """How many of the first blocks are known."""
        for count, block in enumerate(hashes):
            if block not in self._known:
                return count
        return len(hashes)

    def add(self, hashes: Sequence[bytes]) -> None:
        """A prompt is sent to the target. Its last blocks are dropped first: they depend on the others."""
        known = self._known
        for block in reversed(hashes):
            known.pop(block, None)
            known[block] = None
        while len(known) > self._limit:
            del known[next(iter(known))]


class SharedPrefixes:
    """What all workers know of the blocks: the target that got them last. Times are monotonic."""

    __slots__ = ("_memory",)

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory

    def matched(self, hashes: Sequence[bytes], labels: Sequence[str], now: float) -> tuple[str, int] | None:
        """The one of `labels` whose target got most of the first blocks, and how many; None if none did."""
        words = {word_of(label): label for label in labels}
        for count in reversed(_shared_counts(len(hashes))):
            found = self._memory.entries.peek(session_key(hashes[count - 1]), now)
            if found is not None and found[0] in words:
                return words[found[0]], count
        return None

    def add(self, hashes: Sequence[bytes], label: str, now: float, ttl_s: float) -> None:
        """A prompt is sent to the target `label`, which has it in its cache for `ttl_s`."""
        entries, word = self._memory.entries, word_of(label)
        keys = [session_key(hashes[count - 1]) for count in _shared_counts(len(hashes))]
        # Those that are the target's for at least half of the time to come need not be written.
        known = [entries.peek(key, now + ttl_s / 2) for key in keys]
        missing = [key for key, found in zip(keys, known, strict=True) if found is None or found[0] != word]
        if missing:
            with self._memory.lock as is_locked:
                for key in missing if is_locked else ():
                    entries.put(key, word, now + ttl_s)


def _shared_counts(blocks: int) -> list[int]:
    """The numbers of first blocks that are shared, of a prompt with so many."""
    first = [count for count in _FIRST_SHARED if count <= blocks]
    return [*first, *range(_SHARED_STEP, blocks + 1, _SHARED_STEP)]
