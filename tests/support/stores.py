"""Stores of shared state for tests: what each of them must do is tested once, on all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from sanic_proxy.state_store.base import Connection, Migration
from sanic_proxy.state_store.sqlite import SQLiteStore
from sanic_proxy.state_store.threaded import ThreadedStore

T = TypeVar("T")

NOTES = Migration("notes", ["CREATE TABLE note (seq INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)"])
MakeStore = Callable[[tuple[Migration, ...]], ThreadedStore]


def sqlite_in(directory: Path) -> MakeStore:
    """Makes stores in one directory."""
    return lambda migrations: SQLiteStore(directory, migrations)


def using(
    make: MakeStore,
    use: Callable[[ThreadedStore], Awaitable[T]],
    migrations: tuple[Migration, ...] = (NOTES,),
) -> T:
    """The result of `use` with a store, which is closed then."""

    async def work() -> T:
        store = make(migrations)
        try:
            return await use(store)
        finally:
            await store.aclose()

    return asyncio.run(work())


def add(text: str) -> Callable[[Connection], None]:
    """Adds a note."""

    def work(connection: Connection) -> None:
        connection.execute("INSERT INTO note (text) VALUES (?)", (text,))

    return work


def notes(connection: Connection) -> list[str]:
    """All notes, in the order in which they were added."""
    return [row[0] for row in connection.execute("SELECT text FROM note ORDER BY seq")]
