"""Which target has the longest beginning of a prompt in its cache, for the strategy `prefix`. Pure.

Engines (vLLM, SGLang, llama.cpp) keep the attention of earlier prompts and compute only what follows the
longest prefix that they know. What they know is not asked for but remembered: the text of each prompt is cut
into blocks of 512 bytes, and each block's hash covers all blocks before it, so that one look-up tells whether
the whole prefix is known. No tokenizer is needed, as equal text has equal tokens. Of each target the hashes
that were used last are remembered.

What follows from that for a request is decided in `selection`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from sanic_proxy.json_types import JsonMapping
from sanic_proxy.openai import codec
from sanic_proxy.routing.sessions import PREAMBLE, TURNS

BLOCK_BYTES = 512
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
