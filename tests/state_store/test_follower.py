"""Following a store: from the moment that it exists, and after each change."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from sanic_proxy.state_store.base import Connection, Migration, StoreUnavailable
from sanic_proxy.state_store.follower import Follower
from sanic_proxy.state_store.sqlite import SQLiteStore
from tests.support.load import eventually

MIGRATION = Migration("words", ("CREATE TABLE word (text TEXT NOT NULL)",))


def store(directory: Path) -> SQLiteStore:
    return SQLiteStore(directory, (MIGRATION,))


def words(connection: Connection) -> list[str]:
    return [text for (text,) in connection.execute("SELECT text FROM word")]


def test_a_store_is_read_when_it_exists_and_after_changes(tmp_path: Path) -> None:
    async def scenario() -> None:
        readings: list[list[str]] = []

        async def read() -> None:
            readings.append(await own.run(words))

        async def write(word: str) -> None:
            await other.run(lambda connection: connection.execute("INSERT INTO word VALUES (?)", (word,)))

        own, other = store(tmp_path), store(tmp_path)
        follower = Follower(own, read, "the words")
        follower.start()
        assert not own.exists()  # nothing was opened
        await write("a")
        await eventually(lambda: ["a"] in readings)
        await write("b")
        await eventually(lambda: ["a", "b"] in readings)
        follower.close()
        await own.aclose()
        await other.aclose()

    asyncio.run(scenario())


def test_a_reading_that_fails_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async def read() -> None:
            raise StoreUnavailable("the disk is full")

        own = store(tmp_path)
        await own.run(lambda connection: None)
        follower = Follower(own, read, "the words")
        follower.start()
        await eventually(lambda: "the words could not be read: the disk is full" in caplog.text)
        follower.close()
        await own.aclose()

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
