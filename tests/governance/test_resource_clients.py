"""The clients of files and batches in the store, on both databases."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sanic_proxy.governance.resource_clients import KEPT_S, MIGRATION, RENEWED_S, ResourceClients
from sanic_proxy.state_store.base import StateStore
from tests.support.stores import MakeStore, using

START_S = 2_000_000_000


def test_a_resource_is_its_creators_at_one_provider(make: MakeStore) -> None:
    async def use(store: StateStore) -> tuple[Mapping[str, str], Mapping[str, str]]:
        clients = ResourceClients(store)
        await clients.created("p", "/files/1", "ann")
        await clients.created("p", "/files/2", "ann")
        await clients.created("p", "/files/2", "bob")  # a provider that uses its ids again
        await clients.made_of("p", ["/files/1", "/files/3"], "bob")
        many = [f"/files/{number}" for number in range(1200)]
        return await clients.find("p", many), await clients.find("other", many)

    assert using(make, use, (MIGRATION,)) == (
        {"/files/1": "ann", "/files/2": "bob", "/files/3": "bob"},
        {},
    )


def test_what_is_not_used_any_more_is_dropped(make: MakeStore) -> None:
    async def use(store: StateStore) -> Mapping[str, str]:
        for now, file in ((0, "used"), (0, "unused"), (RENEWED_S + 1, "")):
            clients = ResourceClients(store, _at(now))
            if file:
                await clients.created("p", file, "ann")
            else:
                await clients.find("p", ["used"])
        clients = ResourceClients(store, _at(KEPT_S + 1))
        await clients.created("p", "new", "ann")
        return await clients.find("p", ["used", "unused", "new"])

    assert using(make, use, (MIGRATION,)) == {"used": "ann", "new": "ann"}


def _at(seconds: float) -> Callable[[], float]:
    return lambda: START_S + seconds
