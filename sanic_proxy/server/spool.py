"""Buffers upload bytes until their target is known: in memory, then in an unnamed temporary file."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from typing import IO

from sanic_proxy.errors import NoRoom

MAX_MEMORY_BYTES = 1024 * 1024
READ_BYTES = 256 * 1024


class Spool:
    """Written once, read once. The owner must close it; the file disappears with it or with the process."""

    __slots__ = ("_file", "_pieces", "_size_bytes")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size_bytes = 0
        self._file: IO[bytes] | None = None

    async def write(self, data: bytes) -> None:
        """Append `data`. Raises NoRoom if the disk is full."""
        self._pieces.append(data)
        self._size_bytes += len(data)
        if self._size_bytes > MAX_MEMORY_BYTES:
            pieces, self._pieces, self._size_bytes = self._pieces, [], 0
            # In a thread, as a slow disk would block the event loop.
            await asyncio.get_running_loop().run_in_executor(None, self._to_file, pieces)

    def _to_file(self, pieces: list[bytes]) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="sanic-proxy-", buffering=0)  # noqa: SIM115 - `close` closes it
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    view = view[self._file.write(view) :]
        except OSError as exc:
            raise NoRoom(
                "The proxy's disk has no room to buffer the upload until its provider is known: send the "
                "field `model` before the file, or name the provider in the x-provider header"
            ) from exc

    async def read(self) -> AsyncIterator[bytes]:
        """All that was written, in order."""
        if self._file is not None:
            loop = asyncio.get_running_loop()
            self._file.seek(0)
            while piece := await loop.run_in_executor(None, self._file.read, READ_BYTES):
                yield piece
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            yield piece

    def close(self) -> None:
        """Release memory and file. Safe to call twice."""
        self._pieces.clear()
        if self._file is not None:
            self._file.close()
