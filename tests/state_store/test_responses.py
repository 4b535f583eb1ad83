"""The tables of stored responses: owners, conversations, limits, leases."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sanic_proxy.state_store import responses
from sanic_proxy.state_store.base import StoreFull
from sanic_proxy.state_store.responses import (
    FIRST_OF_OUTPUT,
    ConversationTooLarge,
    NewResponse,
    PageOptions,
    ReferredItem,
    ResponseStore,
    ResponseTooLarge,
    UnknownItem,
    item_id,
)
from sanic_proxy.state_store.sqlite import SQLiteStore

SIZE = 2**20


def made(number: int, previous: int | None = None, owner: str = "", **fields: Any) -> NewResponse:
    body = {"id": f"r{number}", "status": "completed", "output": [{"text": f"out{number}"}]}
    return NewResponse(
        owner,
        f"r{number}",
        fields.pop("status", "completed"),
        json.dumps(body).encode(),
        fields.pop("input", json.dumps([{"text": f"in{number}"}]).encode()),
        "" if previous is None else f"r{previous}",
        **fields,
    )


def with_store(
    directory: Path,
    use: Callable[[ResponseStore], Awaitable[Any]],
    size_bytes: int = SIZE,
    ttl_s: float = 3600.0,
) -> Any:
    async def work() -> Any:
        database = SQLiteStore(directory, responses.MIGRATIONS, responses.FILE_NAME)
        store = ResponseStore(database, lambda: size_bytes, ttl_s)
        try:
            return await use(store)
        finally:
            await store.aclose()

    return asyncio.run(work())


def texts(pieces: list[bytes] | None) -> list[str]:
    return [item["text"] for item in json.loads(b"[" + b",".join(pieces or []) + b"]")]


def test_a_response_is_its_owners_alone(tmp_path: Path) -> None:
    async def use(store: ResponseStore) -> None:
        await store.add(made(1, owner="a"))
        found = await store.find("a", "r1")
        assert found is not None
        assert json.loads(found.body)["id"] == "r1"
        assert await store.find("b", "r1") is None
        assert await store.conversation("b", "r1", SIZE) is None
        assert not await store.delete("b", "r1")
        await store.add(made(1, owner="b"))
        assert await store.delete("b", "r1")
        assert await store.find("a", "r1") is not None

    with_store(tmp_path, use)


def test_a_conversation_is_all_items_up_to_its_last_response(tmp_path: Path) -> None:
    async def use(store: ResponseStore) -> None:
        await store.add(made(1))
        await store.add(made(2, 1))
        await store.add(made(3, 2))
        await store.add(made(4, 1, input=b"[]"))
        assert texts(await store.conversation("", "r3", SIZE)) == [
            "in1",
            "out1",
            "in2",
            "out2",
            "in3",
            "out3",
        ]
        assert texts(await store.conversation("", "r4", SIZE)) == ["in1", "out1", "out4"]
        with pytest.raises(ConversationTooLarge):
            await store.conversation("", "r3", 50)

    with_store(tmp_path, use)


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize("is_descending", [True, False])
def test_the_items_of_an_input_come_in_pages(tmp_path: Path, limit: int, *, is_descending: bool) -> None:
    """By the ids of the items, or by those that say which item it is."""

    async def use(store: ResponseStore) -> list[str]:
        first, second = (f"resp_{number:048x}" for number in range(2))
        given = json.dumps([{"text": "a"}, "no object", {"text": "b", "id": "own_b"}, {"text": "c"}]).encode()
        await store.add(replace(made(1, input=given), id=first))
        await store.add(replace(made(2, input=b'[{"text":"d"},{"text":"e"}]'), id=second, previous=first))
        found: list[str] = []
        after = None
        while True:
            page = await store.input_page("", second, PageOptions(limit, is_descending, after))
            assert page is not None
            for item in page.items:
                fields = json.loads(item.body)
                after = fields.get("id") or item_id("msg", item.response_id, item.number)
                found.append(fields["text"])
            assert len(page.items) <= limit
            if not page.has_more:
                return found

    expected = ["a", "b", "c", "out1", "d", "e"]
    assert with_store(tmp_path, use) == (expected[::-1] if is_descending else expected)


def test_items_are_found_by_their_ids(tmp_path: Path) -> None:
    async def use(store: ResponseStore) -> None:
        body = b'{"output":[{"id":"msg_1","text":"a"},{"id":"fc_1","text":"b"},{"text":"no id"}]}'
        id_ = "resp_" + "0" * 48
        await store.add(NewResponse("o", id_, "queued", b'{"output":[]}', b'[{"text":"given"}]', worker="w"))
        assert await store.items("o", ["msg_1"], SIZE) == {}
        assert await store.advance("o", id_, "completed", body)
        given, made = item_id("msg", id_, 0), item_id("item", id_, FIRST_OF_OUTPUT + 2)
        found = await store.items("o", ["fc_1", "none", "fc_1", given, made], SIZE)
        assert {key: json.loads(item.body)["text"] for key, item in found.items()} == {
            "fc_1": "b",
            given: "given",
            made: "no id",
        }
        assert await store.items("other", ["msg_1", given], SIZE) == {}
        with pytest.raises(ConversationTooLarge):
            await store.items("o", ["msg_1"], 10)
        await store.refer("o", "r2", "openai", 1, ["msg_2"])
        assert await store.items("o", ["msg_2"], SIZE) == {"msg_2": ReferredItem(b"", "openai", 1)}
        await store.delete("o", id_)
        assert await store.items("o", ["msg_1", given], SIZE) == {}

    with_store(tmp_path, use)


def test_a_page_ends_behind_a_number_of_bytes(tmp_path: Path) -> None:
    async def use(store: ResponseStore) -> None:
        items = [{"text": "x" * responses.PAGE_BYTES}, {"text": "y"}, {"text": "z"}]
        await store.add(made(1, input=json.dumps(items).encode()))
        page = await store.input_page("", "r1", PageOptions(100, is_descending=False))
        assert page is not None
        assert (len(page.items), page.has_more) == (1, True)
        page = await store.input_page("", "r1", PageOptions(100))
        assert page is not None
        assert (len(page.items), page.has_more) == (2, True)
        for unknown in ("none", item_id("msg", "resp_" + "0" * 48, 0)):
            with pytest.raises(UnknownItem):
                await store.input_page("", "r1", PageOptions(1, after=unknown))
        assert await store.input_page("", "r9", PageOptions(1)) is None

    with_store(tmp_path, use, size_bytes=8 * SIZE)


def test_a_deleted_response_stays_a_part_of_those_that_continue_it(tmp_path: Path) -> None:
    async def use(store: ResponseStore) -> list[int]:
        await store.add(made(1))
        await store.add(made(2, 1))
        assert await store.delete("", "r1")
        assert not await store.delete("", "r1")
        assert await store.find("", "r1") is None
        assert texts(await store.conversation("", "r2", SIZE)) == ["in1", "out1", "in2", "out2"]
        assert await store.delete("", "r2")
        return await store.store.run(
            lambda connection: (
                [
                    connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                    for table in ("response", "response_content")
                ]
                + [connection.execute("SELECT bytes FROM response_total").fetchone()[0]]
            )
        )

    assert with_store(tmp_path, use) == [0, 0, 0]


def test_the_oldest_make_room_and_a_conversation_without_its_beginning_is_none(tmp_path: Path) -> None:
    async def use(store: ResponseStore) -> None:
        for number in range(10):
            await store.add(made(number, number - 1 if number else None, input=b'["%b"]' % (b"x" * 1000)))
        assert await store.find("", "r0") is None
        assert await store.find("", "r9") is not None
        assert await store.conversation("", "r9", SIZE) is None
        with pytest.raises(ResponseTooLarge):
            await store.add(made(10, input=b" " * responses.MAX_ITEM_BYTES))

    with_store(tmp_path, use, size_bytes=9000)


def test_a_response_that_has_expired_is_gone(tmp_path: Path) -> None:
    async def use(store: ResponseStore) -> None:
        await store.add(made(1))
        assert await store.find("", "r1") is None

    with_store(tmp_path, use, ttl_s=-1.0)


def test_continuing_a_conversation_keeps_its_beginning(tmp_path: Path) -> None:
    async def expiry(store: ResponseStore) -> list[float]:
        return await store.store.run(
            lambda connection: [
                row[0] for row in connection.execute("SELECT expires_at FROM response ORDER BY seq")
            ]
        )

    async def use(store: ResponseStore) -> None:
        await store.add(made(1))
        await store.add(made(2, 1))
        await store.store.run(
            lambda connection: connection.execute("UPDATE response SET expires_at = expires_at - 1000")
        )
        before = await expiry(store)
        await store.conversation("", "r2", SIZE)
        assert all(after > old + 900 for old, after in zip(before, await expiry(store), strict=True))

    with_store(tmp_path, use)


def test_a_reference_says_where_a_response_is(tmp_path: Path) -> None:
    async def use(store: ResponseStore) -> None:
        await store.refer("a", "r1", "openai", 1)
        await store.refer("a", "r1", "openai", 2)
        found = await store.find("a", "r1")
        assert found is not None
        assert (found.provider, found.key_number, found.body) == ("openai", 2, b"")
        assert await store.conversation("a", "r1", SIZE) is None
        await store.add(made(2, owner="a"))
        await store.refer("a", "r2", "openai", 1)
        assert (await store.find("a", "r2") or found).provider == ""

    with_store(tmp_path, use)


@pytest.mark.parametrize("lease_s", [-0.1, responses.LEASE_S + 100])
def test_a_response_whose_worker_is_gone_has_failed(tmp_path: Path, lease_s: float) -> None:
    async def use(store: ResponseStore) -> None:
        await store.add(made(1, status="queued", worker=store.worker))
        found = await store.find("", "r1")
        assert found is not None
        assert found.status == "queued"
        assert await store.unfinished() == {"r1"}
        lease = time.monotonic() + lease_s
        await store.store.run(
            lambda connection: connection.execute("UPDATE response SET lease = ?", (lease,))
        )
        found = await store.find("", "r1")
        assert found is not None
        assert found.status == "failed"
        assert json.loads(found.body)["error"]["code"] == "server_error"
        assert not await store.advance("", "r1", "completed", b"{}")
        assert await store.unfinished() == set()

    with_store(tmp_path, use)


def test_a_renewed_lease_lasts(tmp_path: Path) -> None:
    async def use(store: ResponseStore) -> None:
        await store.add(made(1, status="in_progress", worker=store.worker))
        await store.store.run(lambda connection: connection.execute("UPDATE response SET lease = 0"))
        store.renew()
        await store.store.flush()
        found = await store.find("", "r1")
        assert found is not None
        assert found.status == "in_progress"
        assert await store.advance("", "r1", "completed", b'{"status":"completed"}')
        found = await store.find("", "r1")
        assert found is not None
        assert (found.status, found.body) == ("completed", b'{"status":"completed"}')

    with_store(tmp_path, use)


def test_responses_that_run_are_not_dropped_for_others(tmp_path: Path) -> None:
    async def use(store: ResponseStore) -> None:
        await store.add(made(1, owner="a", status="queued", worker=store.worker))
        for number in range(2, 12):
            await store.add(made(number, owner="b", input=b'["%b"]' % (b"x" * 1000)))
        assert await store.find("a", "r1") is not None
        assert await store.find("b", "r2") is None
        with pytest.raises(StoreFull):
            await store.add(made(12, owner="b", input=b'["%b"]' % (b"x" * 8500)))
        with pytest.raises(StoreFull):
            await store.advance("a", "r1", "completed", b" " * 10_000)
        assert await store.find("b", "r11") is not None, "a response that does not fit has dropped others"
        assert await store.advance("a", "r1", "failed", b'{"status":"failed"}')

    with_store(tmp_path, use, size_bytes=9000)


def test_the_owner_of_the_most_bytes_makes_room(tmp_path: Path) -> None:
    async def use(store: ResponseStore) -> None:
        for number in (1, 2):
            await store.add(made(number, owner="quiet"))
        for number in range(3, 40):
            await store.add(made(number, owner="busy", input=b'["%b"]' % (b"x" * 1000)))
        await store.add(made(40, owner="new", input=b'["%b"]' % (b"x" * 3000)))
        await store.refer("new", "r41", "openai", 0)
        for owner, number in (("quiet", 1), ("quiet", 2), ("busy", 39), ("new", 40), ("new", 41)):
            assert await store.find(owner, f"r{number}") is not None, number
        assert await store.find("busy", "r3") is None
        # An owner that has the most bytes only with what it adds drops its own.
        await store.add(made(42, owner="new", input=b'["%b"]' % (b"x" * 3000)))
        assert await store.find("new", "r40") is None
        assert await store.find("quiet", "r1") is not None

    with_store(tmp_path, use, size_bytes=9000)


def test_the_bytes_of_owners_add_up(tmp_path: Path) -> None:
    async def use(store: ResponseStore) -> list[tuple[str, int]]:
        await store.add(made(1, owner="a", status="queued", worker=store.worker))
        await store.advance("a", "r1", "completed", b'{"output":[]}' + b" " * 300)
        await store.add(made(2, owner="b"))
        await store.add(made(3, owner="c"))
        await store.delete("c", "r3")
        return await store.store.run(
            lambda connection: connection.execute(
                "SELECT owner, bytes FROM response_owner "
                "EXCEPT SELECT owner, sum(size) FROM response GROUP BY owner "
                "UNION SELECT owner, bytes FROM response_owner WHERE owner = 'c'"
            ).fetchall()
        )

    assert with_store(tmp_path, use) == []


def test_an_abandoned_response_makes_room(tmp_path: Path) -> None:
    async def use(store: ResponseStore) -> None:
        await store.add(made(1, status="queued", worker=store.worker))
        await store.store.run(lambda connection: connection.execute("UPDATE response SET lease = 1"))
        await store.add(made(2, input=b'["%b"]' % (b"x" * 8000)))
        assert await store.find("", "r1") is None

    with_store(tmp_path, use, size_bytes=9000)


def test_a_full_store_does_not_keep_a_response_from_ending(tmp_path: Path) -> None:
    async def use(store: ResponseStore) -> None:
        for number in (1, 2):
            await store.add(
                made(number, status="queued", worker=store.worker, input=b'["%b"]' % (b"x" * 3800))
            )
        error = json.dumps({"status": "failed", "error": {"message": "x" * 1000}}).encode()
        assert await store.advance("", "r1", "failed", error)
        assert await store.find("", "r2") is not None

    with_store(tmp_path, use, size_bytes=9000)


def test_a_result_that_is_too_large_drops_nothing(tmp_path: Path) -> None:
    async def use(store: ResponseStore) -> None:
        await store.add(made(1, status="in_progress", worker=store.worker))
        await store.add(made(2))
        with pytest.raises(ResponseTooLarge):
            await store.advance("", "r1", "completed", b" " * responses.MAX_ITEM_BYTES)
        assert await store.find("", "r2") is not None
        found = await store.find("", "r1")
        assert found is not None
        assert found.status == "in_progress"

    with_store(tmp_path, use, size_bytes=responses.MAX_ITEM_BYTES)
