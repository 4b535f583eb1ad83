"""Several workers with one store, each of which may die, or lose a message or a reply, at any point.

The model knows what each reservation was for and how it ended. The store, the journals and the purses must
come to the same sums, and may at no time promise more than the limits.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections import Counter as Tally
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sanic_proxy.governance import budgets, journal, ledger_tables
from sanic_proxy.governance.budgets import Charge, Counter
from sanic_proxy.governance.journal import Journal, journals
from sanic_proxy.governance.leases import (
    ESTIMATED,
    IDLE_S,
    Entry,
    Hold,
    Lease,
    Purse,
    Settlement,
    Standing,
    Waiter,
    Want,
    flag_names,
    granted,
    put_back,
    take,
    take_anyway,
)
from sanic_proxy.governance.ledger import names_for

DAY_S = 86_400
CLIENT_LIMIT, ALL_LIMIT, REQUESTS_LIMIT = 1_000, 2_500, 40
AMOUNTS = st.integers(0, 300)


def entry_for(number: int, now: float) -> Entry:
    return Entry(str(number), 1, "c", "t", "p", "p/m", "m", "chat", "/chat", "", int(1000 * now))


@dataclass
class OpenOne:
    """A reservation as the model knows it."""

    number: int
    holds: list[Hold]
    amount: int
    slot: int
    entry: Entry


@dataclass
class Worker:
    """A worker that lives."""

    purse: Purse
    journal: Journal
    open: list[OpenOne] = field(default_factory=list)
    waiting: list[tuple[Waiter, OpenOne]] = field(default_factory=list)


class Model:
    """See the module."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        for migration in ledger_tables.MIGRATIONS:
            for statement in migration.statements:
                self.connection.execute(statement)
        self.workers: list[Worker | None] = [None, None, None]
        self.made = 0
        self.now = 1_000 * DAY_S + 10.0
        # Of each request its cost, and the counters it is to be found on; of orphans what they had reserved.
        self.expected: dict[int, tuple[int, tuple[tuple[Counter, int], ...]]] = {}

    def end(self, *, is_calm: bool) -> None:
        """All workers die, or all requests end and the workers have nothing to do for a while."""
        if is_calm:
            self.calm_down()
        for number in range(3):
            self.kill(number)
        self.adopt()
        self.check_the_books()
        self.check_that_the_rest_can_be_spent()
        self.connection.close()
        shutil.rmtree(self.directory)

    # What may happen

    def reserve(self, number: int, amount: int) -> None:
        worker = self.worker(number)
        self.made += 1
        charges = self.charges()
        holds = [
            (worker.purse.lease(charge, self.now), amount if charge.is_money else 1) for charge in charges
        ]
        one = OpenOne(self.made, holds, amount, -1, entry_for(self.made, self.now))
        if worker.purse.reserve(holds):
            self.open(worker, one)
        else:
            waiter = Waiter(holds, lambda answer: self.answered(worker, one, answer))
            worker.purse.wait(waiter)
            worker.waiting.append((waiter, one))

    def settle(self, which: int, part: int) -> None:
        if not (found := self.all_open()):
            return
        worker, one = found[which % len(found)]
        worker.open.remove(one)
        cost = one.amount * part // 4
        purse = worker.purse
        purse.number += 1
        settlement = Settlement(cost, "ok", int(1000 * self.now))
        worker.journal.settle(one.slot, ledger_tables.write_settlement(purse.number, settlement))
        self.expect(one, cost)
        purse.settle(one.entry, one.holds, one.amount, settlement, one.slot)

    def talk(self, number: int, fate: str, is_tick: bool) -> None:
        worker = self.worker(number)
        here = [path.stem for path in journals(self.directory)] if is_tick else None
        message = worker.purse.message(int(1000 * self.now), here, is_tick=is_tick)
        if fate == "not sent":
            worker.purse.fail()
            return
        self.connection.execute("BEGIN IMMEDIATE")
        reply = ledger_tables.exchange(self.connection, message)
        self.connection.execute("COMMIT")
        if fate == "no reply":
            worker.purse.fail()
            return
        for slot in worker.purse.apply(message, reply, self.now):
            worker.journal.release(slot)

    def kill(self, number: int) -> None:
        worker, self.workers[number] = self.workers[number], None
        if worker is not None:
            for one in worker.open:
                self.expect(one, one.amount)
            worker.journal.close()

    def kill_while_the_store_commits(self, number: int, is_half_way: bool) -> None:
        worker = self.workers[number]
        if worker is not None:
            self.connection.execute("BEGIN IMMEDIATE")
            ledger_tables.exchange(self.connection, worker.purse.message(int(1000 * self.now)))
            self.connection.execute("ROLLBACK" if is_half_way else "COMMIT")
            self.kill(number)

    def adopt(self, dies: bool = False) -> None:
        for path in journals(self.directory):
            if (left := Journal.adopt(path)) is not None:
                self.connection.execute("BEGIN IMMEDIATE")
                ledger_tables.adopt(self.connection, left.worker, left.left(), int(1000 * self.now))
                self.connection.execute("COMMIT")
                if not dies:
                    left.remove()
                left.close()

    def leave(self, which: int) -> None:
        """A client leaves while its request waits for money."""
        if found := self.all_waiting():
            worker, waiting = found[which % len(found)]
            worker.waiting.remove(waiting)
            worker.purse.give_up(waiting[0])

    def pass_time(self, seconds: int) -> None:
        self.now += seconds

    def calm_down(self) -> None:
        while self.all_open() or self.all_waiting():
            self.settle(0, 4)
            self.leave(0)
        self.adopt()
        for _ in range(3):
            self.now += 2 * IDLE_S
            for number, worker in enumerate(self.workers):
                if worker is not None:
                    self.talk(number, "ok", is_tick=True)
        assert all(leased == 0 for _, leased in ledger_tables.sums(self.connection).values())

    # What must hold

    def check_the_limits(self) -> None:
        sums = ledger_tables.sums(self.connection)
        for key, (used, leased) in sums.items():
            limit = {"client": CLIENT_LIMIT, "all": ALL_LIMIT}.get(key.split(":")[0], REQUESTS_LIMIT)
            assert used + leased <= limit, key
        spent: Tally[Counter] = Tally()
        for _, costs in self.expected.values():
            spent.update(dict(costs))
        for _, one in self.all_open():
            spent.update({lease.charge.counter: amount for lease, amount in one.holds})
        for counter, total in spent.items():
            limit = {"client": CLIENT_LIMIT, "all": ALL_LIMIT}.get(counter.kind, REQUESTS_LIMIT)
            assert total <= limit, counter

    def check_the_books(self) -> None:
        rows = self.connection.execute("SELECT request_id, nano, flags FROM ledger_row").fetchall()
        assert sorted(int(request_id) for request_id, _, _ in rows) == sorted(self.expected)
        assert {int(request_id): nano for request_id, nano, _ in rows} == {
            number: cost for number, (cost, _) in self.expected.items()
        }
        booked: Tally[str] = Tally()
        for _, costs in self.expected.values():
            booked.update({counter.key: cost for counter, cost in costs})
        sums = ledger_tables.sums(self.connection)
        assert {key: used for key, (used, _) in sums.items() if used} == {
            k: v for k, v in booked.items() if v
        }
        assert all(leased == 0 for _, leased in sums.values())
        total = self.connection.execute("SELECT COALESCE(SUM(nano), 0) FROM ledger_day").fetchone()[0]
        assert total == sum(cost for cost, _ in self.expected.values())

    def check_that_the_rest_can_be_spent(self) -> None:
        sums = ledger_tables.sums(self.connection)
        left = min(
            charge.limit - sums.get(charge.counter.key, (0, 0))[0]
            for charge in self.charges()
            if charge.is_money
        )
        if sums.get(self.charges()[2].counter.key, (0, 0))[0] < REQUESTS_LIMIT:
            self.reserve(0, left)
            self.talk(0, "ok", False)
            assert [one.amount for one in self.worker(0).open] == [left]
            self.worker(0).journal.close()

    # Help

    def living(self) -> list[Worker]:
        return [worker for worker in self.workers if worker is not None]

    def all_open(self) -> list[tuple[Worker, OpenOne]]:
        return [(worker, one) for worker in self.living() for one in worker.open]

    def all_waiting(self) -> list[tuple[Worker, tuple[Waiter, OpenOne]]]:
        return [(worker, waiting) for worker in self.living() for waiting in worker.waiting]

    def charges(self) -> list[Charge]:
        start, end = budgets.window("day", "UTC", self.now)
        return [
            Charge(Counter("client", "c", "day", start), CLIENT_LIMIT, end, is_strict=True),
            Charge(Counter("all", "", "total", 0), ALL_LIMIT, is_strict=True),
            Charge(Counter("session requests", "c/s", "total", 0), REQUESTS_LIMIT, is_money=False),
        ]

    def worker(self, number: int) -> Worker:
        found = self.workers[number]
        if found is None:
            name = f"w{self.made}-{number}-{len(list(self.directory.iterdir()))}-{id(object())}"
            self.made += 1
            found = self.workers[number] = Worker(Purse(name), Journal.create(self.directory, name))
        return found

    def open(self, worker: Worker, one: OpenOne) -> None:
        names = names_for(one.entry, [lease for lease, _ in one.holds])
        one.slot = worker.journal.open(ledger_tables.write_reservation(one.entry, one.amount, names))
        worker.open.append(one)

    def answered(self, worker: Worker, one: OpenOne, answer: bool | None) -> None:
        worker.waiting = [(waiter, other) for waiter, other in worker.waiting if other is not one]
        if answer:
            self.open(worker, one)

    def expect(self, one: OpenOne, cost: int) -> None:
        costs = tuple(
            (lease.charge.counter, cost if lease.charge.is_money else amount) for lease, amount in one.holds
        )
        self.expected[one.number] = cost, costs


STEPS = (
    *(["reserve"] * 6),
    *(["talk"] * 6),
    *(["settle"] * 5),
    *("kill", "kill_while_the_store_commits", "adopt", "leave", "pass_time"),
)
FATES = ("ok", "ok", "ok", "not sent", "no reply")
JUMPS_S = (1, 20, 100, DAY_S // 2, DAY_S, -DAY_S // 2, -DAY_S)


def step(model: Model, name: str, which: int, amount: int) -> None:
    """One step of a history; `which` and `amount` mean what they can mean there."""
    number = which % 3
    if name == "reserve":
        model.reserve(number, amount)
    elif name == "talk":
        model.talk(number, FATES[amount % len(FATES)], amount % 2 == 1)
    elif name == "settle":
        model.settle(which, amount % 5)
    elif name == "kill":
        model.kill(number)
    elif name == "kill_while_the_store_commits":
        model.kill_while_the_store_commits(number, amount % 2 == 1)
    elif name == "adopt":
        model.adopt(amount % 3 == 1)
    elif name == "leave":
        model.leave(which)
    else:
        model.pass_time(JUMPS_S[amount % len(JUMPS_S)])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 20), AMOUNTS), min_size=60, max_size=100))
def test_workers_that_die_at_any_point_keep_the_books_and_the_limits(
    steps: list[tuple[str, int, int]],
) -> None:
    model = Model()
    for name, which, amount in steps:
        step(model, name, which, amount)
        model.check_the_limits()
    model.end(is_calm=len(steps) % 2 == 1)


@pytest.fixture(autouse=True)
def _small_journals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "FIRST_SLOTS", 8)


TOTAL = Counter("all", "", "total", 0)
MONEY = Charge(TOTAL, 1_000)


def test_a_worker_takes_a_part_of_what_is_left_and_at_the_end_what_it_needs() -> None:
    assert granted(Want(MONEY, (10,), 10), used=0, leased=0) == 10 + 990 // 16
    assert granted(Want(MONEY, (), 1), used=0, leased=0) == 62
    assert granted(Want(MONEY, (10,), 10), used=985, leased=0) == 10
    assert granted(Want(MONEY, (16,), 16), used=985, leased=0) == 0
    assert granted(Want(MONEY, (16, 10), 16), used=985, leased=0) == 10
    assert granted(Want(MONEY, (1,), 1), used=1_100, leased=0) == 0
    large = Charge(MONEY.counter, 10**15)
    assert granted(Want(large, (10,), 10), used=0, leased=0) == 10 + 256 * 10


def test_money_is_taken_of_all_leases_or_of_none() -> None:
    first, second = Lease(MONEY), Lease(MONEY)
    first.held, second.held = 10, 5
    assert not take([(first, 6), (second, 6)])
    assert (first.free, second.free) == (10, 5)
    assert take([(first, 6), (second, 5)])
    assert (first.free, second.free) == (4, 0)
    put_back([(first, 6), (second, 5)])
    take_anyway([(second, 7)])
    assert (first.free, second.free) == (10, -2)


def test_a_lease_shrinks_with_what_is_left() -> None:
    lease = Lease(MONEY)
    lease.note(Standing(used=0, leased=500, held=500))
    lease.shrink(0.0)
    assert (lease.free, lease.releasing) == (62, 438)
    lease.note(Standing(used=938, leased=62, held=62))
    lease.releasing = 0
    lease.shrink(0.0)
    assert lease.free == 0


def test_a_lease_of_a_period_that_is_over_or_that_nobody_uses_is_given_back() -> None:
    for charge, asked_at, now in ((Charge(TOTAL, 1_000, end=100), 99.0, 100.0), (MONEY, 0.0, 61.0)):
        lease = Lease(charge)
        lease.asked_at = asked_at
        lease.note(Standing(used=0, leased=10, held=10))
        lease.shrink(now)
        assert lease.free == 0


def test_a_changed_limit_takes_back_what_was_granted_under_the_other_one() -> None:
    purse = Purse("w")
    lease = purse.lease(MONEY, 0.0)
    lease.held = 50
    assert purse.lease(MONEY, 0.0) is lease
    assert lease.free == 50
    assert purse.lease(Charge(TOTAL, 10), 0.0) is lease
    assert (lease.free, lease.charge.limit) == (0, 10)
    assert purse.message(0).releases == {MONEY.counter: 50}


def test_what_is_used_shows_as_the_highest_percentage_that_it_has_reached() -> None:
    lease = Lease(Charge(TOTAL, 1_000, soft=(50, 80)))
    for used, percent in ((499, 0), (500, 50), (900, 80)):
        lease.note(Standing(used=used, leased=0, held=0))
        assert lease.percent == percent


def test_flags_have_names() -> None:
    assert flag_names(ESTIMATED | 4) == ["estimated", "cut"]


def test_a_request_does_not_overtake_those_that_wait_for_the_same_money() -> None:
    purse, answers = Purse("w"), list[Any]()
    lease = purse.lease(MONEY, 0.0)
    purse.wait(waiter := Waiter([(lease, 5)], answers.append))
    lease.held = 10
    assert not purse.reserve([(lease, 1)])
    purse.give_up(waiter)
    assert purse.reserve([(lease, 1)])
    assert answers == []


def test_those_that_wait_are_answered_when_the_store_fails() -> None:
    purse, answers = Purse("w"), list[Any]()
    lease = purse.lease(MONEY, 0.0)
    purse.wait(Waiter([(lease, 5)], answers.append))
    purse.message(0)
    purse.wait(Waiter([(lease, 6)], answers.append))
    purse.fail()
    assert answers == [None]
    assert [want.amounts for want in purse.message(0).wants] == [(6,)]
