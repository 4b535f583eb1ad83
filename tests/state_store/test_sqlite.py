"""The store of shared state: transactions, batches, migrations, several processes on one directory."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sanic_proxy.state_store.base import Connection, Migration, StoreTooNew, StoreUnavailable
from sanic_proxy.state_store.sqlite import FILE_NAME, SQLiteStore, state_directory

FIRST = Migration("notes", ["CREATE TABLE note (text TEXT NOT NULL UNIQUE)"])
SECOND = Migration("authors", ["ALTER TABLE note ADD COLUMN author TEXT"])


def add(text: str) -> Callable[[Connection], None]:
    def work(connection: Connection) -> None:
        connection.execute("INSERT INTO note (text) VALUES (?)", (text,))

    return work


def notes(connection: Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT text FROM note ORDER BY rowid")]


def with_store(
    directory: Path,
    use: Callable[[SQLiteStore], Awaitable[Any]],
    migrations: tuple[Migration, ...] = (FIRST,),
) -> Any:
    async def work() -> Any:
        store = SQLiteStore(directory, migrations)
        try:
            return await use(store)
        finally:
            await store.aclose()

    return asyncio.run(work())


def test_an_unused_store_opens_no_file(tmp_path: Path) -> None:
    directory = tmp_path / "state"

    async def use(store: SQLiteStore) -> bool:
        await store.flush()
        return store.is_open

    assert with_store(directory, use) is False
    assert not directory.exists()


def test_the_directory_and_the_file_are_private(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "state"
    with_store(directory, lambda store: store.run(add("x")))
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / FILE_NAME).stat().st_mode) == 0o600


def test_the_event_loop_goes_on_while_another_process_holds_the_lock(tmp_path: Path) -> None:
    with_store(tmp_path, lambda store: store.run(add("x")))

    async def use(store: SQLiteStore) -> int:
        other = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.ensure_future(store.run(add("y")))
        turns = 0
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            await asyncio.sleep(0)
            turns += 1
        assert not writing.done()
        other.execute("COMMIT")
        other.close()
        await writing
        return turns

    assert with_store(tmp_path, use) > 10


# Migrations


def test_a_newer_file_is_refused_and_not_changed(tmp_path: Path) -> None:
    with_store(tmp_path, lambda store: store.run(add("new")), (FIRST, SECOND))
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(StoreTooNew, match="schema version 2, this version of the proxy knows 1"):
        with_store(tmp_path, lambda store: store.run(notes))
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_a_damaged_file_and_an_unusable_directory_are_clear_errors(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreUnavailable, match=r"state\.sqlite"):
        with_store(tmp_path, lambda store: store.run(notes))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        with_store(tmp_path / "file" / "state", lambda store: store.run(notes))


def test_a_store_that_could_not_be_opened_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")

    async def use(store: SQLiteStore) -> list[str]:
        with pytest.raises(StoreUnavailable):
            await store.run(notes)
        (tmp_path / "state").unlink()
        await store.run(add("at last"))
        return await store.run(notes)

    assert with_store(tmp_path / "state", use) == ["at last"]


# Several processes

WRITER = """
import asyncio, sys
from pathlib import Path
from sanic_proxy.state_store.base import Migration
from sanic_proxy.state_store.sqlite import SQLiteStore

async def main():
    create = "CREATE TABLE note (text TEXT NOT NULL UNIQUE)"
    store = SQLiteStore(Path(sys.argv[1]), [Migration("notes", [create])])
    for number in range(int(sys.argv[3])):
        text = f"{sys.argv[2]}-{number}"
        await store.run(lambda c: c.execute("INSERT INTO note VALUES (?)", (text,)).rowcount)
        print(number, flush=True)
    await store.aclose()

asyncio.run(main())
"""


def writer(directory: Path, name: str, number: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory), name, str(number)], stdout=subprocess.PIPE, text=True
    )


def test_processes_that_start_at_once_share_one_directory(tmp_path: Path) -> None:
    writers = [writer(tmp_path, name, 50) for name in "abc"]
    for process in writers:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert len(with_store(tmp_path, lambda store: store.run(notes))) == 150


def test_what_was_committed_survives_kill_9(tmp_path: Path) -> None:
    with writer(tmp_path, "a", 100_000) as process:
        assert process.stdout is not None
        for _ in range(20):
            process.stdout.readline()
        process.kill()
        confirmed = len(process.stdout.read().splitlines()) + 20
    assert len(with_store(tmp_path, lambda store: store.run(notes))) >= confirmed - 1


@pytest.mark.parametrize(
    ("configured", "environ", "expected"),
    [
        ("/var/x", {"STATE_DIRECTORY": "/var/lib/y"}, "/var/x"),
        ("", {"STATE_DIRECTORY": "/var/lib/y:/var/lib/z"}, "/var/lib/y"),
        ("", {"XDG_STATE_HOME": "/home/me/state"}, "/home/me/state/sanic-proxy"),
        ("", {"HOME": "/home/me"}, "/home/me/.local/state/sanic-proxy"),
    ],
)
def test_where_the_state_is_kept(configured: str, environ: dict[str, str], expected: str) -> None:
    assert state_directory(configured, environ) == Path(expected)


def test_a_file_that_was_removed_is_not_written_any_more(tmp_path: Path) -> None:
    async def use(store: SQLiteStore) -> list[str]:
        await store.run(add("lost"))
        for name in ("", "-wal", "-shm"):
            (tmp_path / f"{FILE_NAME}{name}").unlink()
        with pytest.raises(StoreUnavailable, match="removed or replaced"):
            await store.run(add("refused"))
        await store.run(add("kept"))
        return await store.run(notes)

    assert with_store(tmp_path, use) == ["kept"]
