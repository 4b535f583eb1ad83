"""A private directory in memory that the workers of one main process share, and that ends with it.

The main process gives it a random name and removes it when it ends; the first worker that needs it creates
it. A main process that is killed removes nothing, and memory would be lost with each such directory. So every
process that uses one holds a shared lock on a file in it, which the kernel releases however the process ends,
and whoever creates a directory removes those that nobody locks.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

_PREFIX = "sanic-proxy"
_LOCK = "lock"
# A younger directory may be about to be locked by the process that has just created it.
_NEW_S = 60.0
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the directory in it has a random name and mode 0700


def new_name() -> str:
    """A name that nobody can guess, so that no other user can create the directory first."""
    return f"{_PREFIX}-{os.getuid()}-{secrets.token_hex(8)}"


class RuntimeDirectory:
    """See the module. `base` is by default the file system in memory, else the one for temporary files."""

    def __init__(self, name: str, base: Path | None = None) -> None:
        if base is None:
            is_usable = os.access(_SHARED_MEMORY, os.W_OK | os.X_OK)
            base = _SHARED_MEMORY if is_usable else Path(tempfile.gettempdir())
        self.path = base / name
        self._lock: int | None = None

    def prepare(self) -> None:
        """Create the directory unless another worker has, and hold it. Raises OSError."""
        if self._lock is not None:
            return
        self._remove_abandoned()
        self.path.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_SH)
        self._lock = lock

    def size_limit(self, wanted_bytes: int) -> int:
        """`wanted_bytes`, or half of the file system where that is less: `/dev/shm` may have 64 MiB."""
        try:
            found = os.statvfs(self.path if self.path.exists() else self.path.parent)
        except OSError:
            return wanted_bytes
        return min(wanted_bytes, found.f_frsize * found.f_blocks // 2)

    def release(self) -> None:
        """Stop using the directory."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def remove(self) -> None:
        """Delete the directory, if it was ever created."""
        self.release()
        shutil.rmtree(self.path, ignore_errors=True)

    def _remove_abandoned(self) -> None:
        for other in self.path.parent.glob(f"{_PREFIX}-{os.getuid()}-*"):
            if other != self.path and _is_abandoned(other):
                shutil.rmtree(other, ignore_errors=True)


def _is_abandoned(directory: Path) -> bool:
    with suppress(OSError):
        found = directory.lstat()
        if found.st_uid != os.getuid() or time.time() - found.st_mtime < _NEW_S:
            return False
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(lock)
        return True
    return False
