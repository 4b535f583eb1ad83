"""A small disk of its own for a test, which can be filled and emptied while something runs on it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_FILLER = ".filler"
_PIECE = b"x" * 4096


class Disk:
    """A file system in memory, mounted at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self) -> None:
        """Leave no room for a further page."""
        with (self.path / _FILLER).open("ab", buffering=0) as filler:
            try:
                while filler.write(_PIECE):
                    pass
            except OSError:
                return

    def empty(self) -> None:
        """Make room again."""
        (self.path / _FILLER).unlink()


@contextmanager
def small_disk(path: Path, size_mib: int) -> Iterator[Disk]:
    """A disk of that size at `path`. The test is skipped where it may not be mounted: that needs root."""
    path.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=0700", "tmpfs", str(path)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs to mount a file system, as root")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
