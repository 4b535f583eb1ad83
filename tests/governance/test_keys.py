"""Keys made at run time, in the store."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from sanic_proxy.config.clients import digest_of
from sanic_proxy.config.rules import Budget, ClientRules, ScopeLimits
from sanic_proxy.governance import keys
from sanic_proxy.governance.keys import KeyConflict, KeyFilter, StoredKey
from sanic_proxy.state_store.base import Connection
from tests.support.postgresql import PostgreSQL, needs_postgresql, postgresql_at
from tests.support.stores import sqlite_in, using

T = TypeVar("T")
Run = Callable[[Callable[[Connection], T]], T]
NOW = 1_800_000_000.0


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=needs_postgresql)])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run[object]:
    """Run a function in a transaction of a store of its own."""
    if request.param == "sqlite":
        make = sqlite_in(tmp_path)
    else:
        server: PostgreSQL = request.getfixturevalue("postgresql")
        make = postgresql_at(server.new_database())

    def transaction(work: Callable[[Connection], object]) -> object:
        return using(make, lambda store: store.run(work), (keys.MIGRATION,))

    return transaction


def made(
    name: str = "", key: str | None = None, *, team: str = "", expires: float | None = None
) -> StoredKey:
    rules = ClientRules(id=keys.new_id(), name=name, team=team, expires=expires)
    return keys.made(key or keys.new_key(), rules, NOW)


def test_a_key_is_32_random_bytes_in_base62() -> None:
    found = {keys.new_key() for _ in range(100)}
    assert len(found) == 100
    assert all(re.fullmatch(r"sk-[0-9A-Za-z]{43}", key) for key in found)
    assert {keys.new_id()[:4] for _ in range(3)} == {"key_"}


def test_rules_are_read_as_they_were_written() -> None:
    rules = ClientRules(
        id="key_1",
        name="app",
        limits=ScopeLimits(1, 2, 3, 4, (Budget(5, "day", "Europe/Berlin", strict=True), Budget(6)), (90,)),
        models=("a", "b/*"),
        endpoints=("/files*",),
        expires=NOW,
        team="red",
        max_requests=7,
        max_cost_nano=8,
        metadata={"a": [1, {"b": None}]},
        ui=True,
    )
    assert keys.rules_from(keys.rules_text(rules), "key_1", "app", "red") == rules
    plain = ClientRules(id="key_1")
    assert keys.rules_text(plain) == "{}"
    assert keys.rules_from("{}", "key_1", "", "") == plain


def test_a_key_is_found_by_its_digest_and_in_four_ways_by_administrators(run: Run[object]) -> None:
    key = keys.new_key()
    new = made("app", key)

    def work(connection: Connection) -> None:
        keys.create(connection, new)
        found = keys.look_up(connection, [digest_of(key), digest_of("other")], NOW)
        assert {digest: entry.key for digest, entry in found.items()} == {digest_of(key): new}
        for reference in (new.id, "app", key, digest_of(key), digest_of(key).upper()):
            assert keys.find(connection, reference) == new
        assert keys.find(connection, "") is None
        stored = connection.execute("SELECT * FROM client_key JOIN client_key_digest ON client = id")
        assert key not in str(stored.fetchall())
        assert new.hint == f"sk-{key[3]}...{key[-4:]}"

    run(work)


def test_names_and_keys_are_unique_among_those_that_exist(run: Run[object]) -> None:
    key = keys.new_key()
    first = made("app", key)

    def work(connection: Connection) -> None:
        keys.create(connection, first)
        keys.create(connection, made())
        keys.create(connection, made())  # nameless ones do not collide
        with pytest.raises(KeyConflict, match="name 'app'"):
            keys.create(connection, made("app"))
        with pytest.raises(KeyConflict, match="key exists"):
            keys.create(connection, made("other", key))
        other = keys.create(connection, made("third"))
        with pytest.raises(KeyConflict, match="name 'app'"):
            keys.update(connection, other.id, lambda old: replace(old, rules=first.rules), NOW)
        assert keys.delete(connection, first.id, NOW + 1).deleted == NOW + 1
        again = keys.create(connection, made("app", key))
        assert keys.find(connection, "app") == again
        assert keys.find(connection, digest_of(key)) == again
        assert keys.find(connection, first.id) == replace(first, deleted=NOW + 1)
        assert keys.names(connection)[first.id] == "app"

    run(work)


def test_a_former_key_is_valid_for_the_grace_period_alone(run: Run[object]) -> None:
    first, second, third, fourth = (keys.new_key() for _ in range(4))
    digests = [digest_of(key) for key in (first, second, third, fourth)]
    client = made("app", first)

    def valid(connection: Connection, now: float) -> list[bool]:
        found = keys.look_up(connection, digests, now)
        assert {entry.key.id for entry in found.values()} <= {client.id}
        return [digest in found for digest in digests]

    def work(connection: Connection) -> None:
        keys.create(connection, client)
        rotated = keys.rotate(connection, client.id, second, 60, NOW)
        assert (rotated.id, rotated.digest) == (client.id, digest_of(second))
        assert valid(connection, NOW + 59) == [True, True, False, False]
        assert valid(connection, NOW + 60) == [False, True, False, False]
        keys.rotate(connection, client.id, third, 1000, NOW + 10)
        assert valid(connection, NOW + 11) == [False, True, True, False]
        keys.rotate(connection, client.id, fourth, 0, NOW + 20)
        assert valid(connection, NOW + 21) == [False, False, False, True]
        with pytest.raises(KeyConflict):
            keys.rotate(connection, client.id, fourth, 60, NOW + 22)
        with pytest.raises(KeyError):
            keys.rotate(connection, "key_none", keys.new_key(), 0, NOW)

    run(work)


def test_changes_are_numbered(run: Run[object]) -> None:
    one, two = made("one"), made("two")

    def work(connection: Connection) -> None:
        start, _ = keys.changed_since(connection, None)
        keys.create(connection, one)
        keys.create(connection, two)
        later, changed = keys.changed_since(connection, start)
        assert sorted(changed) == sorted([one.id, two.id])
        assert keys.changed_since(connection, later) == (later, [])
        keys.update(connection, two.id, lambda old: replace(old, is_blocked=True), NOW)
        assert keys.changed_since(connection, later)[1] == [two.id]
        keys.rotate(connection, one.id, keys.new_key(), 0, NOW)
        keys.delete(connection, two.id, NOW)
        assert sorted(keys.changed_since(connection, later)[1]) == sorted([one.id, two.id])
        assert keys.count(connection) == 1

    run(work)


def test_clients_are_listed_by_pages_and_filters(run: Run[object]) -> None:
    expired, blocked = made("old 100%", expires=NOW - 1), made("blocked")
    active = [replace(made(f"n{n}", team="red"), created=NOW + n) for n in range(5)]

    def names(connection: Connection, wanted: KeyFilter, limit: int = 10, offset: int = 0) -> list[str]:
        total, page = keys.select(connection, wanted, NOW, limit, offset)
        assert total >= len(page)
        return [key.rules.name for key in page]

    def work(connection: Connection) -> None:
        for key in (expired, blocked, *active):
            keys.create(connection, key)
        keys.update(connection, blocked.id, lambda old: replace(old, is_blocked=True), NOW)
        keys.delete(connection, active[0].id, NOW)
        assert names(connection, KeyFilter(), 3) == ["n4", "n3", "n2"]
        assert names(connection, KeyFilter(team="red"), 3, 3) == ["n1"]
        assert names(connection, KeyFilter(status="expired")) == ["old 100%"]
        assert names(connection, KeyFilter(status="revoked")) == ["blocked"]
        assert names(connection, KeyFilter(status="deleted")) == ["n0"]
        assert names(connection, KeyFilter(status="active")) == ["n4", "n3", "n2", "n1"]
        assert names(connection, KeyFilter(name="n2")) == ["n2"]
        assert names(connection, KeyFilter(part_of_name="OLD 100%")) == ["old 100%"]
        assert names(connection, KeyFilter(part_of_name="n_")) == []
        assert names(connection, KeyFilter(digest=active[1].digest)) == ["n1"]
        assert expired.status(NOW) == "expired"
        assert expired.status(NOW - 2) == "active"

    run(work)
