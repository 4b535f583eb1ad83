"""`sanic-proxy spend` and GET /v1/usage: what the ledger says, for administrators and for clients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sanic_proxy.config.rules import NANO, format_usd
from tests.support.admin import ADMIN_KEY, bearer
from tests.support.billing import running_billing
from tests.support.commands import run_command

CLIENTS = """
[teams.red]
budget = { usd = 50, per = "month" }
[clients.app]
key_env = "APP_KEY"
budget = [{ usd = 10, per = "day" }, { usd = 20 }]
rpm = 6000
team = "red"
[clients.other]
key_env = "OTHER_KEY"
budget = { usd = 10 }
"""


def test_the_sums_are_those_of_the_provider(tmp_path: Path) -> None:
    with running_billing(tmp_path, CLIENTS, SANIC_PROXY_ADMIN_KEY=ADMIN_KEY) as billing:
        for id_ in ("one", "two"):
            billing.post("app", metadata={"id": id_}, headers={"x-request-id": id_})
        billing.post("other", metadata={"id": "three"}, headers={"x-request-id": "three"})
        for id_ in ("one", "two", "three"):
            assert billing.rows(id_)
        app, other = billing.bill("one") + billing.bill("two"), billing.bill("three")
        settings = {"SANIC_PROXY_STATE_DIR": str(billing.directory), "SANIC_PROXY_REQUIRE_KEYS": "on"}
        done = run_command(tmp_path, settings, "spend", "--by", "key,model", "--json")
        found = {entry["key"]: entry for entry in json.loads(done.stdout)}
        assert found["app"]["usd"] == app / NANO
        assert (found["app"]["model"], found["app"]["attempts"]) == ("m", 2)
        assert found["other"]["usd"] == other / NANO
        text = run_command(tmp_path, settings, "spend", "--key", "other", "--by", "day").stdout
        assert format_usd(other) in text.splitlines()[1]
        assert len(text.splitlines()) == 2

        key = {"authorization": "Bearer sk-app-0123456789abcdef"}
        usage = billing.proxy.request("GET", "/v1/usage", headers=key).json
        assert (usage["client"], usage["team"], usage["limits"]["rpm"]) == ("app", "red", 6000)
        budgets = {(each["scope"], each["per"]): each for each in usage["budgets"]}
        assert budgets.keys() == {("client", "day"), ("client", "total"), ("team", "month")}
        assert {each["used_usd"] for each in budgets.values()} == {app / NANO}
        assert budgets["client", "day"]["resets"] is not None
        assert budgets["client", "total"]["resets"] is None
        assert all(0 < each["left_usd"] < each["limit_usd"] for each in budgets.values())
        assert billing.proxy.request("GET", "/v1/usage").status == 401

        def read(path: str) -> Any:
            return billing.proxy.request("GET", path, headers=bearer(ADMIN_KEY)).json

        assert {each["key"]: each["usd"] for each in read("/admin/usage?by=key")["data"]} == {
            "app": app / NANO,
            "other": other / NANO,
        }
        (log,) = read("/spend/logs?request_id=three")
        assert (log["api_key"], log["spend"], log["model"]) == ("other", other / NANO, "m")
        assert len(read("/spend/logs?api_key=app")) == 2
        today = read("/admin/usage?by=day")["data"][0]["day"]
        (day,) = read(f"/spend/logs?start_date={today}&end_date={today}&api_key=app")
        assert (day["spend"], day["models"], day["app"]) == (app / NANO, {"m": app / NANO}, app / NANO)
        assert "must be a day" in read("/spend/logs?start_date=soon")["error"]["message"]


def test_a_word_that_is_no_group_is_refused(tmp_path: Path) -> None:
    assert run_command(tmp_path, {}, "spend", "--by", "colour").returncode == 2
    assert run_command(tmp_path, {"SANIC_PROXY_STATE_DIR": str(tmp_path)}, "spend").stdout == ""
