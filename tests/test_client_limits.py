"""The limits of clients over the workers of a real proxy: which decides, what is announced, what changes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.admin import ADMIN_KEY, bearer
from tests.support.billing import KEY, Billing, running_billing
from tests.support.load import wait_until
from tests.support.proxy import GENEROUS_S, Reply, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import Exchange, Upstream, completion

WORKERS = 3
CLIENTS = """
[teams.red]
rpm = 3
[teams.poor]
budget = { usd = 0.0001, per = "month" }
[models.scarce]
targets = [{ provider = "bill", model = "x", prices = { input = 1, output = 1 } }]
budget = { usd = 0.000001 }
[clients.member]
key_env = "MEMBER_KEY"
rpm = 1000
team = "red"
[clients.free]
key_env = "FREE_KEY"
rpm = 1000
[clients.own]
key_env = "OWN_KEY"
rpm = 1
team = "red"
[clients.debtor]
key_env = "DEBTOR_KEY"
budget = { usd = 10, per = "day" }
team = "poor"
[clients.soft]
key_env = "SOFT_KEY"
budget = { usd = 0.01, per = "week", time_zone = "Asia/Tokyo" }
"""


@pytest.fixture(scope="module")
def billing(tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream) -> Iterator[Billing]:
    with running_billing(
        tmp_path_factory.mktemp("limits"),
        CLIENTS,
        WORKERS,
        SANIC_PROXY_ADMIN_KEY=ADMIN_KEY,
        SANIC_PROXY_BUDGET_WEBHOOK=f"{shared_upstream.url}/hook",
    ) as started:
        yield started


def replies(billing: Billing, client: str, number: int, **fields: Any) -> list[Reply]:
    """Answers on connections of their own, which the kernel spreads over the workers."""
    return [billing.post(client, **fields) for _ in range(number)]


@pytest.mark.parametrize(
    ("client", "admitted", "scope"),
    [
        ("own", 1, "client own"),
        ("member", 2, "team red"),  # of the three, its other member has used one
    ],
)
def test_the_tightest_rate_decides_and_is_named(
    billing: Billing, client: str, admitted: int, scope: str
) -> None:
    found = replies(billing, client, 3 * WORKERS)
    refused = [reply for reply in found if reply.status != 200]
    assert len(found) - len(refused) == admitted
    for reply in refused:
        message = reply.error["message"]
        assert message.startswith(f"Rate limit of {scope} reached: ")
        told = re.search(r"try again in ([0-9.]+)s", message)
        wait_ms = int(reply.headers["retry-after-ms"])
        assert told is not None
        assert 0 <= float(told[1]) - wait_ms / 1000 < 0.11
        assert int(reply.headers["retry-after"]) >= wait_ms / 1000
        assert "x-should-retry" not in reply.headers


@pytest.mark.parametrize(
    ("client", "model", "budget"),
    [
        ("debtor", "m", "of the team poor per month has 0.0001 of 0.0001 USD left"),
        ("free", "scarce", "of the model scarce has 0.000001 of 0.000001 USD left"),
    ],
)
def test_the_tightest_budget_decides_and_is_named(
    billing: Billing, client: str, model: str, budget: str
) -> None:
    reply = billing.post(client, model=model)
    assert (reply.status, reply.error["code"]) == (429, "insufficient_quota")
    assert reply.error["message"].startswith(f"The budget {budget}, and this request is estimated at 0.")


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {}),
        ("/v1/messages", {}),
        ("/v1/responses", {"input": "Hi"}),
        ("/v1beta/models/m:generateContent", {"contents": [{"parts": [{"text": "Hi"}]}]}),
    ],
)
def test_a_rate_is_refused_in_the_shape_of_each_api(
    billing: Billing, path: str, fields: dict[str, Any]
) -> None:
    replies(billing, "own", 2)
    reply = billing.post("own", path, **fields)
    assert (reply.status, int(reply.headers["retry-after"]) > 0) == (429, True)
    error = reply.json["error"]
    if path == "/v1/messages":
        assert (reply.json["type"], error["type"]) == ("error", "rate_limit_error")
        assert reply.headers["anthropic-ratelimit-requests-limit"] == "1"
    elif path.startswith("/v1beta"):
        assert (error["code"], error["status"]) == (429, "RESOURCE_EXHAUSTED")
        assert error["details"][0]["retryDelay"] == f"{reply.headers['retry-after']}s"
    else:
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert reply.headers["x-ratelimit-limit-requests"] == "1"
    assert "Please try again in" in error["message"]


def test_each_threshold_is_announced_once(billing: Billing, shared_upstream: Upstream) -> None:
    def announced() -> list[dict[str, Any]]:
        return [seen.json for seen in shared_upstream.requests if seen.path == "/hook"]

    shown = set()
    end = time.monotonic() + GENEROUS_S
    while (reply := billing.post("soft")).status == 200:
        shown.add(reply.headers.get("x-sanic-proxy-budget"))
        assert time.monotonic() < end
    assert reply.error["code"] in {"insufficient_quota", "budget_reserved"}
    assert "50% of the budget of the client soft per week is used" in shown
    wait_until(lambda: any(body["percent"] >= 80 for body in announced()))
    bodies = announced()
    percents = [body["percent"] for body in bodies]
    assert percents == sorted(set(percents))
    assert set(percents) <= {50, 80, 100}
    for percent in percents:
        assert billing.proxy.log.count(f" {percent}% of the budget of the client soft per week is used") == 1
    assert (bodies[-1]["scope"], bodies[-1]["name"], bodies[-1]["per"]) == ("client", "soft", "week")
    # Monday, midnight in Tokyo.
    assert time.strftime("%a %H:%M", time.gmtime(bodies[-1]["period_start"])) == "Sun 15:00"


def test_a_changed_limit_holds_in_every_worker(billing: Billing) -> None:
    def call(path: str, fields: dict[str, Any]) -> Any:
        return billing.proxy.request("POST", path, fields, bearer(ADMIN_KEY)).json

    def errors() -> set[tuple[str, str]]:
        """The codes and the beginnings of messages, of as many requests as reach every worker."""
        bodies = [reply.json for reply in replies(billing, "free", 4 * WORKERS, headers=headers)]
        found = [body.get("error", {"code": "", "message": ""}) for body in bodies]
        return {(error["code"], error["message"][:31]) for error in found}

    key = call("/key/generate", {"key_alias": "changed", "rpm_limit": 6000})["key"]
    headers = {"authorization": f"Bearer {key}"}
    assert errors() == {("", "")}
    call("/key/update", {"key": key, "rpm_limit": 1})
    wait_until(lambda: errors() == {("rate_limit_exceeded", "Rate limit of client changed re")})
    call("/key/update", {"key": key, "rpm_limit": None, "max_budget": 0.00001})
    wait_until(lambda: errors() == {("insufficient_quota", "The budget of the client change")})
    call("/key/update", {"key": key, "max_budget": None, "models": ["other*"]})
    wait_until(lambda: errors() == {("model_not_allowed", "This API key may not use the mo")})


def test_the_providers_limits_are_not_shown_as_the_clients(tmp_path: Path, upstream: Upstream) -> None:
    (tmp_path / "proxy.toml").write_text('[clients.app]\nkey_env = "APP_KEY"\nrpm = 5\n')
    settings = {
        **provider_settings(upstream),
        "SANIC_PROXY_CONFIG": str(tmp_path / "proxy.toml"),
        "SANIC_PROXY_STATE_DIR": str(tmp_path / "state"),
        "APP_KEY": KEY.format(name="app"),
    }

    async def script(exchange: Exchange) -> None:
        await exchange.answer(completion("Hi"), 200, ("x-ratelimit-remaining-requests", "999"))

    upstream.on("limited", script)
    with running_proxy(settings, "--workers=1") as proxy:
        reply = proxy.chat("groq/limited", headers=bearer(settings["APP_KEY"]))
        assert reply.headers["x-ratelimit-remaining-requests"] == "4"
        assert reply.headers["x-upstream-ratelimit-remaining-requests"] == "999"
