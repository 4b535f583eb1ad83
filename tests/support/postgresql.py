"""A PostgreSQL server for tests, in a temporary directory and on a Unix socket, with a database per test."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from sanic_proxy.config.secret import Secret
from sanic_proxy.state_store.postgresql import PostgreSQLStore
from tests.support.stores import MakeStore

# Debian keeps the server's programs here, with a folder per version.
_DEBIAN = Path("/usr/lib/postgresql")
_START_S = 60
_STOP_S = 30


def _program(name: str) -> str | None:
    folders = [str(path) for path in sorted(_DEBIAN.glob("*/bin"), reverse=True)]
    return shutil.which(name, path=os.pathsep.join([*folders, os.environ.get("PATH", "")]))


needs_postgresql = pytest.mark.skipif(
    _program("initdb") is None, reason="needs a PostgreSQL server (Debian's package `postgresql`)"
)


class PostgreSQL:
    """A running server."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._names = (f"test{number}" for number in count())

    @property
    def url(self) -> str:
        """The address of the server's own database."""
        return self._url("postgres")

    def new_database(self) -> str:
        """The address of an empty database."""
        import psycopg  # noqa: PLC0415 - an extra

        name = next(self._names)
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self._url(name)

    def stop(self) -> None:
        """Stop the server at once; every connection is lost."""
        self._control("stop", "-m", "immediate")

    def start(self) -> None:
        options = f"-k {self._directory} -c listen_addresses= -c fsync=off -c full_page_writes=off"
        self._control("start", "-o", options, "-l", str(self._directory / "log"))

    def _url(self, database: str) -> str:
        return f"postgresql://tester:secret-of-tests@/{database}?host={self._directory}"

    def _control(self, *arguments: str) -> None:
        command = [_program("pg_ctl") or "", "-D", str(self._directory / "data"), "-w", "-t", str(_START_S)]
        # The server keeps the streams that it gets, so they must not be pipes that somebody reads to the end.
        subprocess.run(
            [*command, *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=_START_S + _STOP_S,
            user=_owner(),
        )


def _owner() -> int | None:
    """The user that runs the server, which refuses to run as root; None: the one of the tests."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


@contextmanager
def running_postgresql() -> Iterator[PostgreSQL]:
    """A server, stopped and removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="pg-"))  # short, as the path of a Unix socket has to be
    try:
        if (owner := _owner()) is not None:
            os.chown(directory, owner, -1)
        subprocess.run(
            [
                _program("initdb") or "",
                "-D",
                str(directory / "data"),
                "-U",
                "tester",
                "-A",
                "trust",
                "--no-sync",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=_START_S,
            user=_owner(),
        )
        server = PostgreSQL(directory)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def postgresql_at(url: str) -> MakeStore:
    """Makes stores in one database."""
    return lambda migrations: PostgreSQLStore(Secret(url), migrations)
