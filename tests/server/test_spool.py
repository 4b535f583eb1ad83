"""What waits is read back as it was written, from memory or disk, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest

from sanic_proxy.errors import NoRoom
from sanic_proxy.server.spool import MAX_MEMORY_BYTES, Spool


async def through(*pieces: bytes) -> bytes:
    spool = Spool()
    try:
        for piece in pieces:
            await spool.write(piece)
        return b"".join([piece async for piece in spool.read()])
    finally:
        spool.close()
        spool.close()


@pytest.mark.parametrize(
    "sizes", [(), (1,), (MAX_MEMORY_BYTES,), (MAX_MEMORY_BYTES, 1), (1, 3_000_000, 5, 2_000_000, 7)]
)
def test_it_gives_back_what_it_got(sizes: tuple[int, ...]) -> None:
    pieces = [bytes([65 + index]) * size for index, size in enumerate(sizes)]
    assert asyncio.run(through(*pieces)) == b"".join(pieces)


def test_its_file_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    spool = Spool()
    asyncio.run(spool.write(b"x" * (MAX_MEMORY_BYTES + 1)))
    assert list(tmp_path.iterdir()) == []
    spool.close()


@pytest.mark.row(68)
def test_no_room_is_an_error_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(NoRoom) as caught:
        asyncio.run(through(b"x" * (MAX_MEMORY_BYTES + 1)))
    assert (caught.value.status, caught.value.code) == (503, "no_room")
