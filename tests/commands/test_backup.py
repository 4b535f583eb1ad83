"""`sanic-proxy backup`."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.support.commands import run_command


def test_a_backup_has_what_is_committed_and_replaces_no_file(tmp_path: Path) -> None:
    state = tmp_path / "state"
    settings = {"SANIC_PROXY_STATE_DIR": str(state)}
    missing = run_command(tmp_path, settings, "backup", "copy.sqlite")
    assert (missing.returncode, "there is no state store" in missing.stderr) == (1, True)
    state.mkdir()
    with closing(sqlite3.connect(state / "state.sqlite", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE note (text TEXT)")
        connection.execute("INSERT INTO note VALUES ('kept')")
        made = run_command(tmp_path, settings, "backup", "copy.sqlite")
        assert (made.returncode, made.stderr) == (0, "")
    with closing(sqlite3.connect(tmp_path / "copy.sqlite")) as copy:
        assert copy.execute("SELECT text FROM note").fetchall() == [("kept",)]
    assert (tmp_path / "copy.sqlite").stat().st_mode & 0o777 == 0o600
    again = run_command(tmp_path, settings, "backup", "copy.sqlite")
    assert (again.returncode, "cannot be made" in again.stderr) == (1, True)


def test_a_file_that_is_no_database_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite").write_bytes(b"no database, " * 1000)
    settings = {"SANIC_PROXY_STATE_DIR": str(tmp_path)}
    reply = run_command(tmp_path, settings, "backup", "copy.sqlite")
    assert (reply.returncode, "cannot be copied" in reply.stderr) == (1, True)
    assert not (tmp_path / "copy.sqlite").exists()


def test_what_is_in_postgresql_is_copied_by_its_own_tools(tmp_path: Path) -> None:
    settings = {"SANIC_PROXY_STORE": "postgresql://user@localhost/name"}
    reply = run_command(tmp_path, settings, "backup", "copy.sqlite")
    assert (reply.returncode, "pg_dump" in reply.stderr) == (1, True)
