"""What every store of shared state does: transactions, batches, migrations, news of other processes."""

from __future__ import annotations

import asyncio
import threading

import pytest
from typing_extensions import override

from sanic_proxy.state_store.base import Connection, Migration, StoreError, StoreTooNew, StoreUnavailable
from sanic_proxy.state_store.threaded import Session, ThreadedStore
from tests.support.stores import NOTES, MakeStore, add, notes, using

AUTHORS = Migration("authors", ["ALTER TABLE note ADD COLUMN author TEXT"])


def test_a_transaction_returns_its_result_and_an_error_rolls_it_back(make: MakeStore) -> None:
    async def use(store: ThreadedStore) -> list[str]:
        await store.run(add("kept"))

        def failing(connection: Connection) -> None:
            add("lost")(connection)
            raise KeyError("of the caller")

        with pytest.raises(KeyError):
            await store.run(failing)
        return await store.run(notes)

    assert using(make, use) == ["kept"]


def test_refused_statements_and_values_are_errors_of_the_store(make: MakeStore) -> None:
    async def use(store: ThreadedStore) -> list[str]:
        await store.run(add("kept"))
        for refused in ("kept", "lone \ud83d surrogate"):
            with pytest.raises(StoreError):
                await store.run(add(refused))
        with pytest.raises(StoreError):
            await store.run(
                lambda connection: connection.execute("INSERT INTO note (seq) VALUES (?)", (2**70,))
            )
        return await store.run(notes)

    assert using(make, use) == ["kept"]


def test_parameters_have_places_or_names_and_text_is_not_searched_for_them(make: MakeStore) -> None:
    async def use(store: ThreadedStore) -> list[str]:
        await store.run(add("100 % :sure?"))

        def named(connection: Connection) -> list[str]:
            found = connection.execute("SELECT text FROM note WHERE text LIKE :some", {"some": "100 %"})
            return [row[0] for row in found]

        return await store.run(named)

    assert using(make, use) == ["100 % :sure?"]


def test_batched_writes_are_in_order_and_one_that_fails_takes_no_other_with_it(
    make: MakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(store: ThreadedStore) -> list[str]:
        for text in ("a", "b", "a", "c"):
            store.write(add(text))
        await store.flush()
        return await store.run(notes)

    assert using(make, use) == ["a", "b", "c"]
    assert "unique" in caplog.text.lower()


def test_queued_writes_are_committed_before_the_store_closes(make: MakeStore) -> None:
    async def use(store: ThreadedStore) -> None:
        for number in range(1000):
            store.write(add(str(number)))

    using(make, use)
    assert len(using(make, lambda store: store.run(notes))) == 1000


def test_transactions_of_two_stores_exclude_each_other(make: MakeStore) -> None:
    def count(connection: Connection) -> None:
        (number,) = connection.execute("SELECT count(*) FROM note").fetchone()
        connection.execute("INSERT INTO note (text) VALUES (?)", (str(number),))

    async def use(store: ThreadedStore) -> None:
        await asyncio.gather(*(store.run(count) for _ in range(10)))

    async def both() -> None:
        stores = [make((NOTES,)), make((NOTES,))]
        await asyncio.gather(*map(use, stores))
        for store in stores:
            await store.aclose()

    asyncio.run(both())
    assert using(make, lambda store: store.run(notes)) == [str(number) for number in range(20)]


def test_cancelled_callers_leave_the_store_usable(make: MakeStore) -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        begun.set()
        goes_on.wait()
        add("begun")(connection)

    async def use(store: ThreadedStore) -> list[str]:
        running = asyncio.create_task(store.run(slow))
        await asyncio.to_thread(begun.wait)
        queued = asyncio.create_task(store.run(add("queued")))
        await asyncio.sleep(0)
        running.cancel()
        queued.cancel()
        outcomes = await asyncio.gather(running, queued, return_exceptions=True)
        goes_on.set()  # not before the queued call has been cancelled in the store, too
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
        return await asyncio.wait_for(store.run(notes), 10)

    assert using(make, use) == ["begun"]


def test_an_unexpected_error_at_the_opening_fails_the_call_and_not_the_thread() -> None:
    class Broken(ThreadedStore):
        @override
        def open_session(self) -> Session:
            raise LookupError("no such file system")

    async def use() -> None:
        store = Broken()
        try:
            for _ in range(2):
                with pytest.raises(LookupError):
                    await asyncio.wait_for(store.run(notes), 10)
        finally:
            await store.aclose()

    asyncio.run(use())


def test_migrations_are_applied_once_and_in_order(make: MakeStore) -> None:
    using(make, lambda store: store.run(add("old")))

    def authors(connection: Connection) -> list[object]:
        return [tuple(row) for row in connection.execute("SELECT text, author FROM note")]

    for _ in range(2):
        assert using(make, lambda store: store.run(authors), (NOTES, AUTHORS)) == [("old", None)]


def test_a_migration_that_fails_changes_nothing(make: MakeStore) -> None:
    using(make, lambda store: store.run(add("old")))
    broken = Migration("broken", ["CREATE TABLE other (x TEXT)", "NO SQL"])
    with pytest.raises(StoreUnavailable):
        using(make, lambda store: store.run(notes), (NOTES, broken))
    assert using(make, lambda store: store.run(notes)) == ["old"]


def test_a_newer_schema_is_refused(make: MakeStore) -> None:
    using(make, lambda store: store.run(add("new")), (NOTES, AUTHORS))
    with pytest.raises(StoreTooNew, match="schema version 2, this version of the proxy knows 1"):
        using(make, lambda store: store.run(notes))


def test_a_change_of_another_store_is_noticed_and_one_of_its_own_is_not(make: MakeStore) -> None:
    async def use(store: ThreadedStore) -> None:
        await store.run(notes)
        changed = asyncio.Event()
        unsubscribe = store.subscribe(changed.set)
        await store.run(add("of our own"))
        await asyncio.sleep(0.5)
        assert not changed.is_set()
        other = make((NOTES,))
        await other.run(add("of another"))
        await other.aclose()
        await asyncio.wait_for(changed.wait(), 10)
        unsubscribe()

    using(make, use)


def test_a_closed_store_refuses_work(make: MakeStore) -> None:
    async def use() -> None:
        store = make((NOTES,))
        await store.aclose()
        await store.aclose()
        with pytest.raises(StoreError):
            await store.run(notes)

    asyncio.run(use())
