"""Shared state in SQLite: one file in the state directory, for the workers of one machine.

Theory. SQLite in WAL mode lets any number of processes read while one writes, and a commit survives
`kill -9`. `threaded` has the thread that its blocking calls run in. Other processes' commits are noticed by
`PRAGMA data_version`, a number that changes whenever another connection has committed.

The schema's version is `PRAGMA user_version`: the number of migrations applied. Migrations run inside one
`BEGIN IMMEDIATE` transaction, so of several processes that start at once one migrates and the others wait.
A file with a higher number than this version of the proxy knows is refused and not changed.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from typing_extensions import override

from sanic_proxy.state_store.base import Connection, Migration, StoreError, StoreTooNew, StoreUnavailable
from sanic_proxy.state_store.threaded import Session, ThreadedStore

FILE_NAME = "state.sqlite"
# How long one process waits for another's write; a transaction takes milliseconds.
BUSY_TIMEOUT_S = 10.0
RETRY_S = 0.01


class SQLiteStore(ThreadedStore):
    """See the module. `directory` is created with mode 0700 when the store is first used.

    `prepare` is called in the store's thread before the file is opened; what it raises fails the jobs.
    """

    def __init__(
        self,
        directory: Path,
        migrations: Sequence[Migration],
        file_name: str = FILE_NAME,
        *,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self._path = directory / file_name
        self._migrations = migrations
        self._prepare = prepare

    @override
    def exists(self) -> bool:
        return self._path.exists()

    @override
    def open_session(self) -> Session:
        try:
            self._prepare()
        except OSError as exc:
            raise StoreUnavailable(f"The directory of {self._path} cannot be made: {exc}") from exc
        connection = _opened(self._path, self._migrations)
        try:
            return _SQLiteSession(connection, self._path)
        except (OSError, sqlite3.Error) as exc:
            connection.close()
            raise StoreUnavailable(f"The state store {self._path} cannot be read: {exc}") from exc


class _SQLiteSession(Session):
    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._database = connection
        self._path = path
        self._file = _identity(path)
        self._data_version = self._read_data_version()

    @property
    @override
    def connection(self) -> Connection:
        return self._database

    @override
    def begin(self) -> None:
        self._check_file()
        self._database.execute("BEGIN IMMEDIATE")

    @override
    def commit(self) -> None:
        self._database.execute("COMMIT")

    @override
    def concerns_all(self, error: Exception) -> bool:
        # A damaged file is a plain DatabaseError.
        return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError

    @override
    def refusal(self, error: Exception) -> str | None:
        return str(error) if isinstance(error, sqlite3.Error) else None

    @override
    def others_changed(self) -> bool:
        self._check_file()
        known, self._data_version = self._data_version, self._read_data_version()
        return known != self._data_version

    @override
    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._database.close()

    def _check_file(self) -> None:
        """Raises OperationalError if the file is another one now: SQLite would go on with the removed one."""
        try:
            is_same = _identity(self._path) == self._file
        except OSError:
            is_same = False
        if not is_same:
            raise sqlite3.OperationalError("the file has been removed or replaced")

    def _read_data_version(self) -> int:
        version: int = self._database.execute("PRAGMA data_version").fetchone()[0]
        return version


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _opened(path: Path, migrations: Sequence[Migration]) -> sqlite3.Connection:
    """A connection to the file, with its schema up to date. Raises StoreUnavailable or StoreTooNew."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
    except (OSError, sqlite3.Error) as exc:
        raise StoreUnavailable(f"The state store {path} cannot be opened: {exc}") from exc
    try:
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        _migrate(connection, migrations, path)
    except sqlite3.Error as exc:
        connection.close()
        raise StoreUnavailable(f"The state store {path} cannot be used: {exc}") from exc
    except StoreError:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL. SQLite does not wait where another process is switching the same file; this does."""
    until = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() >= until:
                raise
            time.sleep(RETRY_S)
        else:
            return


def _migrate(connection: sqlite3.Connection, migrations: Sequence[Migration], path: Path) -> None:
    if _version(connection) == len(migrations):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for migration in migrations[_known_version(connection, len(migrations), path) :]:
            for statement in migration.statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _known_version(connection: sqlite3.Connection, known: int, path: Path) -> int:
    version = _version(connection)
    if version > known:
        raise StoreTooNew(
            f"The state store {path} has schema version {version}, this version of the proxy knows {known}. "
            "Upgrade the proxy, or set SANIC_PROXY_STATE_DIR to another directory"
        )
    return version


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def set_state_directory(configured: str, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The state directory as configured, else systemd's STATE_DIRECTORY; None if neither is set."""
    directory = configured or environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(directory) if directory else None


def state_directory(configured: str, environ: Mapping[str, str] | None = None) -> Path:
    """The state directory: the one that was set, else below XDG_STATE_HOME."""
    values = os.environ if environ is None else environ
    if (directory := set_state_directory(configured, values)) is not None:
        return directory
    home = values.get("XDG_STATE_HOME") or Path(values.get("HOME", "~")).expanduser() / ".local" / "state"
    return Path(home) / "sanic-proxy"
