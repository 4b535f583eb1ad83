"""How budgets stand, for those who ask often."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from typing_extensions import override

from sanic_proxy.config.model import Settings
from sanic_proxy.config.rules import NANO, Budget, ClientRules, ScopeLimits, TeamRules
from sanic_proxy.config.secret import Secret
from sanic_proxy.governance import keys, ledger_tables
from sanic_proxy.governance.governor import rulebook_of
from sanic_proxy.governance.standings import FRESH_S, MAX_BUDGETS, BudgetStandings
from sanic_proxy.state_store.base import StoreUnavailable, Work
from sanic_proxy.state_store.sqlite import SQLiteStore
from sanic_proxy.state_store.threaded import ThreadedStore
from tests.support.stores import T, using

MIGRATIONS = (keys.MIGRATION, *ledger_tables.MIGRATIONS)
DAILY = ScopeLimits(budgets=(Budget(5 * NANO, "day"),))
SETTINGS = Settings(
    admin_key=Secret("admin"),
    teams=(TeamRules("blue", DAILY), TeamRules("red", ScopeLimits(rpm=1))),
    limits=ScopeLimits(budgets=(Budget(9 * NANO, "total"),)),
)


class CountedStore(SQLiteStore):
    """Counts its transactions, and fails where it is told to."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, MIGRATIONS)
        self.runs = 0
        self.is_down = False

    @override
    async def run(self, work: Work[T]) -> T:
        self.runs += 1
        if self.is_down:
            raise StoreUnavailable("the disk is full")
        return await super().run(work)


def standings(
    store: ThreadedStore, settings: Settings = SETTINGS, now: Callable[[], float] = float
) -> BudgetStandings:
    return BudgetStandings(settings, rulebook_of(settings), store, now)


def stored_key(number: int, limits: ScopeLimits) -> keys.StoredKey:
    rules = ClientRules(keys.new_id(), f"client {number}", limits=limits)
    return keys.made(keys.new_key(), rules, 1.0)


def test_budgets_of_the_settings_and_of_keys(tmp_path: Path) -> None:
    async def use(store: ThreadedStore) -> list[tuple[str, str, str, int]]:
        await store.run(lambda connection: keys.create(connection, stored_key(1, DAILY)))
        await store.run(lambda connection: keys.create(connection, stored_key(2, ScopeLimits(rpm=2))))
        found = await standings(store).latest()
        return [(use.scope.kind, name, use.per, use.left) for name, use in found]

    assert using(lambda migrations: CountedStore(tmp_path), use) == [
        ("team", "blue", "day", 5 * NANO),
        ("all", "", "total", 9 * NANO),
        ("client", "client 1", "day", 5 * NANO),
    ]


def test_they_are_read_every_few_seconds_only(tmp_path: Path) -> None:
    store = CountedStore(tmp_path)

    async def use(_: ThreadedStore) -> None:
        now = [100.0]
        asked = standings(store, now=lambda: now[0])
        for now[0] in (100.0, 101.0, 100.0 + FRESH_S - 0.1):
            assert len(await asked.latest()) == 2
            assert store.runs == 1
        now[0] = 100.0 + FRESH_S
        await asked.latest()
        assert store.runs == 2

    using(lambda migrations: store, use)


def test_there_are_none_while_the_store_is_down(tmp_path: Path) -> None:
    store = CountedStore(tmp_path)

    async def use(_: ThreadedStore) -> None:
        store.is_down = True
        asked = standings(store)
        assert await asked.latest() == ()
        await asked.latest()
        assert store.runs == 1  # nor is it asked more often

    using(lambda migrations: store, use)


def test_without_budgets_no_file_is_opened(tmp_path: Path) -> None:
    async def use(store: ThreadedStore) -> None:
        assert await standings(store, Settings()).latest() == ()
        assert await standings(store, Settings(admin_key=Secret("admin"))).latest() == ()

    using(lambda migrations: CountedStore(tmp_path / "new"), use)
    assert not (tmp_path / "new").exists()


def test_their_number_is_bounded(tmp_path: Path) -> None:
    teams = tuple(TeamRules(f"t{number}", DAILY) for number in range(MAX_BUDGETS + 5))

    async def use(store: ThreadedStore) -> int:
        return len(await standings(store, Settings(teams=teams)).latest())

    assert using(lambda migrations: CountedStore(tmp_path), use) == MAX_BUDGETS
