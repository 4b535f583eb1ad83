"""When there is a governor, and what its refusals and announcements say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sanic_proxy import errors
from sanic_proxy.config.model import ModelSettings, Settings
from sanic_proxy.config.rules import Budget, ClientRules, ScopeLimits, TeamRules
from sanic_proxy.config.secret import Secret
from sanic_proxy.governance import ledger_tables
from sanic_proxy.governance.charge import Charge, Tariff
from sanic_proxy.governance.governor import Governor, Request, governs, is_counted
from sanic_proxy.governance.prices import FREE
from sanic_proxy.observability.record import Client, RequestRecord
from sanic_proxy.state_store.shared import SharedMemory
from sanic_proxy.state_store.sqlite import SQLiteStore
from sanic_proxy.upstream.client import UpstreamClient
from tests.support.upstream import Upstream

LIMITED = ScopeLimits(rpm=5)


def test_there_is_one_where_anything_is_limited_or_a_ledger_is_wanted() -> None:
    assert not governs(Settings())
    assert governs(Settings(ledger=True))
    assert governs(Settings(limits=LIMITED))
    assert governs(Settings(teams=(TeamRules("t", LIMITED),)))
    assert governs(Settings(models=(ModelSettings("m", (), limits=LIMITED),)))


def test_some_endpoints_report_what_they_cost() -> None:
    assert is_counted("/embeddings")
    assert not is_counted("/batches")


def governed(
    directory: Path,
    use: Callable[[Governor], Awaitable[Any]],
    settings: Settings,
    client: UpstreamClient | None = None,
) -> Any:
    async def work() -> Any:
        store = SQLiteStore(directory, ledger_tables.MIGRATIONS)
        made = UpstreamClient(settings.pool, None)
        governor = Governor(settings, store, directory, SharedMemory(), made)
        try:
            return await use(governor)
        finally:
            await governor.aclose()
            await made.aclose()
            await store.aclose()

    return asyncio.run(work())


def request(rules: ClientRules, session: str = "") -> Request:
    record = RequestRecord("r", "POST", "/v1/chat/completions", Client(rules.id, rules.name, rules))
    record.model, record.dialect = "m", "chat"
    return Request(record, {"session-id": session} if session else {}, "/chat/completions")


FREE_TARIFF = Tariff("p", "p/m", lambda: FREE)
DEAR_TARIFF = Tariff("p", "p/m", lambda: replace(FREE, pieces={"request": 600 * 10**6 * 10**6}))


async def admitted(governor: Governor, asked: Request, tariff: Tariff) -> Charge:
    charge, pending = governor.admit(asked, tariff)
    if pending is not None:
        await pending
    return charge


async def sent(
    governor: Governor, rules: ClientRules, tariff: Tariff = FREE_TARIFF, session: str = ""
) -> None:
    """One request from its admission to its end."""
    asked = request(rules, session)
    charge = await admitted(governor, asked, tariff)
    if (pending := charge.begin(tariff)) is not None:
        await pending
    asked.record.usage = {"prompt_tokens": 1, "completion_tokens": 1}
    asked.record.finish(())


def test_a_session_that_has_reached_its_cap_is_told_so(tmp_path: Path) -> None:
    rules = ClientRules("c", "c", max_requests=1)

    async def use(governor: Governor) -> str:
        await sent(governor, rules, session="s")
        with pytest.raises(errors.BudgetUsedUp) as caught:
            await sent(governor, rules, session="s")
        return caught.value.message

    assert governed(tmp_path, use, Settings()) == (
        "The number of requests of this agent session is used up: 1 of 1 requests made. Begin a new session"
    )


def test_the_status_of_a_used_up_budget_can_be_set(tmp_path: Path) -> None:
    rules = ClientRules("c", "c", ScopeLimits(budgets=(Budget(10**9, "day"),)))

    async def use(governor: Governor) -> int:
        await sent(governor, rules, DEAR_TARIFF)
        with pytest.raises(errors.BudgetUsedUp) as caught:
            await sent(governor, rules, DEAR_TARIFF)
        return caught.value.status

    assert governed(tmp_path, use, Settings(budget_status=422)) == 422


def test_requests_in_flight_are_no_reason_to_stop_for_good(tmp_path: Path) -> None:
    rules = ClientRules("c", "c", ScopeLimits(budgets=(Budget(10**9, "day"),)))

    async def use(governor: Governor) -> None:
        asked = request(rules)
        await admitted(governor, asked, DEAR_TARIFF)
        with pytest.raises(errors.BudgetReserved):
            await sent(governor, rules, DEAR_TARIFF)
        asked.record.finish(())  # was never sent
        await sent(governor, rules, DEAR_TARIFF)

    governed(tmp_path, use, Settings())


def test_a_store_that_cannot_be_used_refuses_with_a_503(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_text("in the way")

    async def use(governor: Governor) -> int:
        with pytest.raises(errors.StoreFailed) as caught:
            await sent(governor, ClientRules("c", "c"))
        return caught.value.status

    assert governed(tmp_path, use, Settings()) == 503


def test_a_threshold_is_logged_and_posted_once(
    tmp_path: Path, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    limits = ScopeLimits(budgets=(Budget(1200 * 10**6, "day"),), soft=(50,))
    url = Secret(f"http://127.0.0.1:{upstream.port}/v1/embeddings")

    async def use(governor: Governor) -> None:
        for _ in range(2):
            await sent(governor, ClientRules("c", "c", limits), DEAR_TARIFF)

    governed(tmp_path, use, Settings(budget_webhook=url))
    assert caplog.text.count("50% of the budget of the client c per day is used") == 1
    bodies = [json.loads(seen.body) for seen in upstream.requests]
    upstream.problems.clear()
    (body,) = bodies
    assert (body["event"], body["percent"], body["scope"], body["name"]) == (
        "budget_threshold",
        50,
        "client",
        "c",
    )
    assert body["used_nano_usd"] >= body["limit_nano_usd"] // 2
