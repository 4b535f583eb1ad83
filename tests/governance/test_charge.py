"""How attempts are settled: by their usage, at nothing, or at their reservation."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sanic_proxy import errors
from sanic_proxy.config.prices import Prices as Declared
from sanic_proxy.governance import journal, ledger_tables
from sanic_proxy.governance.budgets import Charge as Counted
from sanic_proxy.governance.budgets import Counter
from sanic_proxy.governance.charge import Charge, Tariff, Terms
from sanic_proxy.governance.estimate import Asked, Estimator
from sanic_proxy.governance.leases import CUT, ESTIMATED, HEDGE, UNPRICED, flag_names
from sanic_proxy.governance.ledger import Ledger, LedgerError
from sanic_proxy.governance.prices import FREE, of_settings
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.state_store.sqlite import FILE_NAME, SQLiteStore

PRICES = of_settings(Declared(input=1.0, output=2.0), max_output=100)
CHEAP = Tariff("cheap", "cheap/m", lambda: PRICES)
DEAR = Tariff("dear", "dear/m", lambda: of_settings(Declared(input=1000.0, output=1000.0)))
UNKNOWN = Tariff("odd", "odd/m", lambda: None)
USAGE = {"prompt_tokens": 10, "completion_tokens": 5}
BUDGET = Counted(Counter("client", "c", "total", 0), 10**7)


def charged(
    directory: Path,
    use: Callable[[Charge], Awaitable[None]],
    *,
    budget: Counted | None = None,
    record: RequestRecord | None = None,
    is_free: bool = False,
) -> list[tuple[str, str, int, int]]:
    """The rows of what `use` does: target, outcome, cost and flags. The record ends behind it."""

    async def work() -> None:
        store = SQLiteStore(directory, ledger_tables.MIGRATIONS)
        ledger = Ledger(store, directory)
        leases = [] if budget is None else [ledger.lease(budget)]
        asked = Asked(text_bytes=400, max_tokens=50)
        memory = Estimator().memory("c", "m")
        made = Terms(ledger, memory, leases, ("c", "t", "m"), _refusal, _now_ms)
        charge = Charge(made, asked, ("r", "chat", "/chat/completions", ""))
        charge.is_free = is_free
        ended = record or RequestRecord("r", "POST", "/")
        ended.settle = charge.finish
        await use(charge)
        ended.finish(())
        await ledger.aclose()
        await store.aclose()

    asyncio.run(work())
    with sqlite3.connect(directory / FILE_NAME) as connection:
        return connection.execute(
            "SELECT target, outcome, nano, flags FROM ledger_row ORDER BY attempt"
        ).fetchall()


def _now_ms() -> int:
    return 4_000_000_000_000  # in the future: no row is old


def _refusal(error: LedgerError) -> errors.ProxyError:
    return errors.BudgetUsedUp(str(error))


async def reserved(charge: Charge, tariff: Tariff) -> None:
    if (pending := charge.reserve(tariff)) is not None:
        await pending


async def begun(charge: Charge, tariff: Tariff) -> None:
    if (pending := charge.begin(tariff)) is not None:
        await pending


def test_an_answer_costs_what_its_usage_says(tmp_path: Path) -> None:
    async def use(charge: Charge) -> None:
        await reserved(charge, CHEAP)
        await begun(charge, CHEAP)

    record = RequestRecord("r", "POST", "/", usage=USAGE)
    assert charged(tmp_path, use, record=record) == [("cheap/m", "complete", 20_000, 0)]
    assert record.cost_nano == 20_000


def test_an_answer_without_usage_costs_what_was_reserved(tmp_path: Path) -> None:
    async def use(charge: Charge) -> None:
        await begun(charge, CHEAP)

    assert charged(tmp_path, use) == [("cheap/m", "complete", 200_000, ESTIMATED)]


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        {"prompt_tokens": 0, "completion_tokens": 0, "service_tier": "flex"},
        {"queue_time": 0.1},
    ],
)
def test_a_usage_of_zeros_is_not_known(tmp_path: Path, usage: dict[str, object]) -> None:
    async def use(charge: Charge) -> None:
        await begun(charge, CHEAP)

    record = RequestRecord("r", "POST", "/", usage=usage)
    assert charged(tmp_path, use, record=record) == [("cheap/m", "complete", 200_000, ESTIMATED)]
    assert record.cost_nano is None


@pytest.mark.parametrize(
    ("usage", "nano"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 0}, 10_000),
        ({"prompt_tokens": 10}, 10_000),
        ({"seconds": 3}, 0),
        ({"images": 1}, 0),
    ],
)
def test_an_answer_without_output_costs_what_it_reports(
    tmp_path: Path, usage: dict[str, object], nano: int
) -> None:
    async def use(charge: Charge) -> None:
        await begun(charge, CHEAP)

    record = RequestRecord("r", "POST", "/", usage=usage)
    ((_, _, cost, flags),) = charged(tmp_path, use, record=record)
    assert (cost, flags & ESTIMATED) == (nano, 0)


def test_zeros_of_a_free_target_are_its_cost(tmp_path: Path) -> None:
    async def use(charge: Charge) -> None:
        await begun(charge, Tariff("free", "free/m", lambda: FREE))

    record = RequestRecord("r", "POST", "/", usage={"prompt_tokens": 0, "completion_tokens": 0})
    assert charged(tmp_path, use, record=record) == [("free/m", "complete", 0, 0)]
    assert record.cost_nano == 0


def test_a_part_of_a_usage_does_not_count(tmp_path: Path) -> None:
    async def use(charge: Charge) -> None:
        await begun(charge, CHEAP)
        charge.reports_partly = lambda: True

    record = RequestRecord("r", "POST", "/", usage=USAGE, ended="client_left")
    assert charged(tmp_path, use, record=record) == [("cheap/m", "client_left", 200_000, ESTIMATED | CUT)]
    assert record.cost_nano is None


def test_of_an_answer_that_went_on_elsewhere_the_last_usage_counts(tmp_path: Path) -> None:
    async def use(charge: Charge) -> None:
        await begun(charge, CHEAP)

    record = RequestRecord("r", "POST", "/", usage={"prompt_tokens": 999}, last_usage=USAGE)
    record.is_usage_summed = True
    assert charged(tmp_path, use, record=record)[0][2] == 20_000


@pytest.mark.parametrize(
    ("error", "cost"),
    [
        (errors.UpstreamConnectFailed("no"), 0),
        (errors.UpstreamConnectTimeout("no"), 0),
        (errors.UpstreamError("no", upstream_status=500), 0),
        (errors.UpstreamDisconnected("no", is_stale_connection=True), 0),
        (errors.InvalidRequest("no"), 0),
        (errors.UpstreamDisconnected("no"), 200_000),
        (errors.UpstreamTimeout("no"), 200_000),
    ],
)
def test_a_failed_attempt_costs_nothing_if_it_cannot_be_billed(
    tmp_path: Path, error: errors.ProxyError, cost: int
) -> None:
    async def use(charge: Charge) -> None:
        await begun(charge, CHEAP)
        charge.end(CHEAP, "failed", error)
        charge.end(CHEAP, "failed", error)

    ((_, _, nano, flags),) = charged(tmp_path, use)
    assert (nano, bool(flags & ESTIMATED)) == (cost, cost > 0)


def test_each_attempt_is_a_row(tmp_path: Path) -> None:
    async def use(charge: Charge) -> None:
        await reserved(charge, CHEAP)
        await begun(charge, DEAR)  # the first one could not be asked
        charge.end(DEAR, "upstream_timeout", errors.UpstreamTimeout("no"))
        await begun(charge, CHEAP)
        assert charge.begins(DEAR)
        charge.end(DEAR, "hedge_lost", usage=USAGE)

    rows = charged(tmp_path, use, record=RequestRecord("r", "POST", "/", usage=USAGE))
    assert [(target, outcome, flag_names(flags)) for target, outcome, _, flags in rows] == [
        ("dear/m", "upstream_timeout", ["estimated", "cut"]),
        ("cheap/m", "complete", []),
        ("dear/m", "hedge_lost", ["cut", "hedge"]),
    ]
    assert rows[2][3] & HEDGE


@pytest.mark.parametrize(("is_partial", "cost"), [(False, 20_000), (True, 200_000)])
def test_an_attempt_that_failed_costs_what_it_reported_if_that_is_all(
    tmp_path: Path, is_partial: bool, cost: int
) -> None:
    async def use(charge: Charge) -> None:
        charge.reports_partly = lambda: is_partial
        await begun(charge, CHEAP)
        charge.end(CHEAP, "upstream_disconnected", errors.UpstreamDisconnected("no"), USAGE)

    ((_, _, nano, flags),) = charged(tmp_path, use)
    assert (nano, bool(flags & ESTIMATED)) == (cost, is_partial)


def test_a_request_that_was_never_sent_is_no_row(tmp_path: Path) -> None:
    async def use(charge: Charge) -> None:
        await reserved(charge, CHEAP)

    async def make_file(charge: Charge) -> None:
        await begun(charge, CHEAP)

    charged(tmp_path, make_file)
    assert len(charged(tmp_path, use, budget=BUDGET)) == 1


def test_a_dearer_target_needs_more_and_is_refused_without_it(tmp_path: Path) -> None:
    async def use(charge: Charge) -> None:
        await reserved(charge, CHEAP)
        await begun(charge, CHEAP)
        assert not charge.begins(DEAR)
        with pytest.raises(errors.BudgetUsedUp):
            await begun(charge, DEAR)

    rows = charged(tmp_path, use, budget=BUDGET, record=RequestRecord("r", "POST", "/", usage=USAGE))
    assert rows == [("cheap/m", "complete", 20_000, 0)]


def test_a_further_attempt_is_refused_while_the_journal_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "FIRST_SLOTS", 1)
    monkeypatch.setattr(journal, "MAX_SLOTS", 1)

    async def use(charge: Charge) -> None:
        await begun(charge, CHEAP)
        assert not charge.begins(DEAR)
        with pytest.raises(errors.BudgetUsedUp):
            await begun(charge, DEAR)

    assert charged(tmp_path, use) == [("cheap/m", "complete", 200_000, ESTIMATED)]


def test_a_target_without_a_price_is_refused_to_a_budget_and_flagged_without(tmp_path: Path) -> None:
    async def use(charge: Charge) -> None:
        await begun(charge, UNKNOWN)

    async def refused(charge: Charge) -> None:
        with pytest.raises(errors.Forbidden) as caught:
            await reserved(charge, UNKNOWN)
        assert caught.value.code == "price_unknown"
        assert not charge.begins(UNKNOWN)

    assert charged(tmp_path, use) == [("odd/m", "complete", 0, ESTIMATED | UNPRICED)]
    assert len(charged(tmp_path, refused, budget=BUDGET)) == 1


def test_what_is_free_is_not_booked(tmp_path: Path) -> None:
    async def use(charge: Charge) -> None:
        await reserved(charge, CHEAP)
        await begun(charge, CHEAP)
        assert charge.begins(CHEAP)
        charge.end(CHEAP, "failed")

    async def make_file(charge: Charge) -> None:
        await begun(charge, CHEAP)

    charged(tmp_path, make_file)
    assert len(charged(tmp_path, use, is_free=True)) == 1


def test_a_price_is_looked_up_once() -> None:
    looked: list[int] = []
    tariff = Tariff("p", "p/m", lambda: looked.append(1))
    assert (tariff.prices, tariff.prices, looked) == (None, None, [1])
