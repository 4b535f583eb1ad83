"""Which client a key belongs to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import pytest
from typing_extensions import override

from sanic_proxy.config.loader import load
from sanic_proxy.config.rules import ClientRules, ScopeLimits
from sanic_proxy.errors import Overloaded, StoreFailed
from sanic_proxy.governance import keys
from sanic_proxy.governance.key_ring import INTERVAL_S, MAX_REMEMBERED, MAX_WAITING, KeyRing, UnknownKey
from sanic_proxy.observability.record import Client
from sanic_proxy.state_store.base import Work
from sanic_proxy.state_store.sqlite import SQLiteStore

T = TypeVar("T")


def test_a_key_is_compared_whole(tmp_path: Path) -> None:
    long = "k" * 60
    ring = KeyRing(load({"SANIC_PROXY_API_KEYS": f"{long}1,{long}2"}, tmp_path))
    first, second = ring.client_with(f"{long}1"), ring.client_with(f"{long}2")
    assert first is not None
    assert second is not None
    assert first.id != second.id
    for wrong in (long, f"{long}3", f"{long}1 ", "", "\udcff", f"{long}1{long}"):
        assert ring.client_with(wrong) is None


def test_a_clients_id_depends_on_its_key_alone(tmp_path: Path) -> None:
    one, other = (KeyRing(load({"SANIC_PROXY_API_KEYS": keys}, tmp_path)) for keys in ("a1,b2", "b2,c3"))
    client = one.client_with("b2")
    assert client == other.client_with("b2")
    assert client is not None
    assert client.id == sha256(b"b2").hexdigest()[:16]


def test_a_remembered_header_stands_for_its_client(tmp_path: Path) -> None:
    ring = KeyRing(load({"SANIC_PROXY_API_KEYS": "a1"}, tmp_path))
    client = ring.client_with("a1")
    assert client is not None
    assert ring.remembered("Bearer a1") is None
    ring.remember("Bearer a1", client)
    assert ring.remembered("Bearer a1") is client
    for count in range(2 * MAX_REMEMBERED):
        ring.remember(f"Bearer{' ' * count}a1", client)
    assert ring.remembered(f"Bearer{' ' * (2 * MAX_REMEMBERED - 1)}a1") is None


def test_a_client_of_the_settings_stays_the_same_when_its_key_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "proxy.toml").write_text(
        f"""
        [clients.app]
        key_env = "APP_KEYS"
        key_sha256 = "{sha256(b"k3").hexdigest().upper()}"
        rpm = 5
        """
    )
    environ = {"SANIC_PROXY_CONFIG": "proxy.toml", "SANIC_PROXY_API_KEYS": "other", "APP_KEYS": "k1, k2"}
    ring = KeyRing(load(environ, tmp_path))
    clients = [ring.client_with(key) for key in ("k1", "k2", "k3")]
    assert {client and client.id for client in clients} == {"app"}
    assert {client and client.rules.limits.rpm for client in clients} == {5}
    assert ring.has_many
    assert not ring.is_empty


# Keys made at run time


class CountingStore(SQLiteStore):
    """Counts its transactions."""

    runs = 0

    @override
    async def run(self, work: Work[T]) -> T:
        self.runs += 1
        return await super().run(work)


class Worker:
    """The key ring of one worker, with a store of its own in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.store = CountingStore(directory, (keys.MIGRATION,))
        self.ring = KeyRing(load({"SANIC_PROXY_REQUIRE_KEYS": "on"}, directory), self.store)

    async def client_with(self, key: str) -> Client | None:
        """The client of `key`, looked up where that is needed."""
        client = self.ring.client_with(key)
        if client is None and isinstance(refusal := self.ring.refusal(key), UnknownKey):
            await self.ring.look_up(refusal.digest)
        return self.ring.client_with(key)

    async def aclose(self) -> None:
        await self.ring.aclose()
        await self.store.aclose()


async def until(is_true: Callable[[], bool]) -> None:
    """Wait for what other threads do; pytest's time limit ends a test for which it never comes."""
    while not is_true():  # noqa: ASYNC110 - nothing announces it
        await asyncio.sleep(0.01)


def is_forgotten(worker: Worker, key: str) -> bool:
    return worker.ring.client_with(key) is None and worker.ring.remembered(f"Bearer {key}") is None


def test_a_key_works_in_every_worker_and_stops_in_every_worker(tmp_path: Path) -> None:
    async def lifetime() -> None:
        workers = [Worker(tmp_path) for _ in range(3)]
        admin = workers[0].store
        key, new = keys.new_key(), keys.new_key()
        client = keys.made(key, ClientRules(id="key_1", name="app", limits=ScopeLimits(rpm=5)), time.time())
        await admin.run(lambda connection: keys.create(connection, client))
        for worker in workers:
            found = await worker.client_with(key)
            assert found is not None
            assert (found.id, found.name, found.rules.limits.rpm) == ("key_1", "app", 5)
            worker.ring.remember(f"Bearer {key}", found)
            assert worker.ring.has_many
        rotated = partial(keys.rotate, id_="key_1", key=new, grace_s=0, now=time.time())
        await admin.run(rotated)
        workers[0].ring.changed()
        for worker in workers:
            await until(partial(is_forgotten, worker, key))
            assert await worker.client_with(key) is None
            assert await worker.client_with(new) is not None
        await admin.run(
            lambda connection: keys.update(
                connection, "key_1", lambda old: replace(old, is_blocked=True), time.time()
            )
        )
        workers[0].ring.changed()
        for worker in workers:
            await until(partial(is_forgotten, worker, new))
            assert await worker.client_with(new) is None
            assert worker.ring.refusal(new).code == "key_blocked"
            await worker.aclose()

    asyncio.run(lifetime())


def test_a_block_holds_in_every_worker_within_half_a_second(tmp_path: Path) -> None:
    async def block(number: int) -> float:
        """The seconds that it took three workers; another process blocks the key."""
        workers = [Worker(tmp_path) for _ in range(3)]
        admin = CountingStore(tmp_path, (keys.MIGRATION,))
        key, id_ = keys.new_key(), f"key_{number}"
        made = keys.made(key, ClientRules(id=id_), time.time())
        await admin.run(lambda connection: keys.create(connection, made))
        for worker in workers:
            assert await worker.client_with(key) is not None
        blocked = partial(keys.update, id_=id_, change=partial(replace, is_blocked=True), now=time.time())
        await admin.run(blocked)
        since = time.monotonic()
        for worker in workers:
            await until(partial(is_forgotten, worker, key))
        took_s = time.monotonic() - since
        for worker in workers:
            await worker.aclose()
        await admin.aclose()
        return took_s

    # The quickest of several, as the machine may be busy.
    assert min(asyncio.run(block(number)) for number in range(5)) < 0.5


def test_a_flood_of_unknown_keys_costs_few_transactions(tmp_path: Path) -> None:
    async def flood() -> None:
        worker = Worker(tmp_path)
        await worker.store.run(keys.count)
        worker.store.runs = 0
        began = time.monotonic()
        found = await asyncio.gather(*(worker.client_with(f"sk-{n}") for n in range(1500)))
        assert found == [None] * 1500
        seconds = time.monotonic() - began
        assert worker.store.runs <= 3 + seconds / INTERVAL_S
        reads = worker.store.runs
        assert await worker.client_with("sk-3") is None
        assert worker.store.runs == reads, "a key that was refused is looked up again"
        results = await asyncio.gather(
            *(worker.client_with(f"sk-more-{n}") for n in range(MAX_WAITING + 10)), return_exceptions=True
        )
        assert len([result for result in results if isinstance(result, Overloaded)]) == 10
        await worker.aclose()

    asyncio.run(flood())


def test_without_a_store_nothing_is_read_and_no_file_is_made(tmp_path: Path) -> None:
    async def lifetime() -> None:
        worker = Worker(tmp_path / "state")
        assert await worker.client_with("sk-unknown") is None
        assert not worker.ring.has_many
        assert not (tmp_path / "state").exists()
        assert not worker.store.is_open
        client = keys.made("sk-imported", ClientRules(id="key_1"), time.time())
        other = Worker(tmp_path / "state")
        await other.store.run(lambda connection: keys.create(connection, client))
        found = await worker.client_with("sk-imported")
        assert found is not None
        assert found.name == "key_1"
        await worker.aclose()
        await other.aclose()

    asyncio.run(lifetime())


def test_a_key_that_was_refused_works_soon_after_it_was_imported(tmp_path: Path) -> None:
    async def lifetime() -> None:
        worker, other = Worker(tmp_path), Worker(tmp_path)
        await other.store.run(keys.count)
        assert await worker.client_with("sk-imported") is None
        assert not isinstance(worker.ring.refusal("sk-imported"), UnknownKey)
        client = keys.made("sk-imported", ClientRules(id="key_1"), time.time())
        await other.store.run(lambda connection: keys.create(connection, client))
        await until(lambda: isinstance(worker.ring.refusal("sk-imported"), UnknownKey))
        assert await worker.client_with("sk-imported") is not None
        await worker.aclose()
        await other.aclose()

    asyncio.run(lifetime())


def test_a_former_key_expires_with_its_grace_period(tmp_path: Path) -> None:
    async def lifetime() -> None:
        worker = Worker(tmp_path)
        now = time.time()
        client = keys.made("sk-old", ClientRules(id="key_1", expires=now + 10_000), now)
        await worker.store.run(lambda connection: keys.create(connection, client))
        await worker.store.run(lambda connection: keys.rotate(connection, "key_1", "sk-new", 60, now))
        former, present = await worker.client_with("sk-old"), await worker.client_with("sk-new")
        assert former is not None
        assert present is not None
        assert (former.rules.expires, present.rules.expires) == (now + 60, now + 10_000)
        await worker.aclose()

    asyncio.run(lifetime())


def test_a_store_that_fails_is_no_wrong_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def lifetime() -> None:
        (tmp_path / "state.sqlite").write_bytes(b"no database" * 1000)
        worker = Worker(tmp_path)
        for _ in range(2):
            with pytest.raises(StoreFailed) as raised:
                await worker.client_with("sk-any")
            assert raised.value.message == "The key cannot be looked up now: retry later"
        assert [record.getMessage() for record in caplog.records if str(tmp_path) in record.getMessage()] == [
            f"keys cannot be read: The state store {tmp_path}/state.sqlite cannot be used: "
            "file is not a database"
        ]
        assert isinstance(worker.ring.refusal("sk-any"), UnknownKey)
        await worker.aclose()

    asyncio.run(lifetime())
