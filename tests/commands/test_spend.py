"""`sanic-proxy spend` and GET /v1/usage: what the ledger says, for administrators and for clients."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
from pathlib import Path
from typing import Any

from sanic_proxy.config.rules import NANO, format_usd
from tests.support.admin import ADMIN_KEY, bearer
from tests.support.billing import running_billing
from tests.support.commands import run_command
from tests.support.proxy import GENEROUS_S

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


def curl(url: str, *options: str) -> Any:
    """The JSON that curl prints, called as LiteLLM's documentation has it."""
    command = ["curl", "--silent", "--show-error", url, "-H", f"Authorization: Bearer {ADMIN_KEY}", *options]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=GENEROUS_S).stdout)


def test_litellms_calls_show_what_a_key_has_spent(tmp_path: Path) -> None:
    with running_billing(tmp_path, CLIENTS, 2, SANIC_PROXY_ADMIN_KEY=ADMIN_KEY) as billing:
        url = billing.proxy.url
        json_body = ("-H", "Content-Type: application/json", "--data-raw")
        fields = (
            '{"max_budget": 10, "budget_duration": "30d", "key_alias": "a", "user_id": "ishaan@berri.ai",'
        )
        fields += '"budget_limits": [{"budget_duration": "1d", "max_budget": 5}]}'
        made = curl(f"{url}/key/generate", *json_body, fields)
        key, token = made["key"], made["token"]
        assert (made["spend"], made["budget_limits_usage"]) == (0, {"1d": {"current_spend": 0}})
        month_end = (
            f"{dt.datetime.now(dt.UTC).date().replace(day=1) + dt.timedelta(days=31):%Y-%m}-01T00:00:00Z"
        )
        assert made["budget_reset_at"] == month_end
        unlimited = curl(f"{url}/key/generate", *json_body, '{"key_alias": "b"}')
        for id_, secret in (("one", key), ("two", key), ("three", unlimited["key"])):
            headers = {"authorization": f"Bearer {secret}", "x-request-id": id_}
            assert billing.post("app", metadata={"id": id_}, headers=headers).status == 200
            assert billing.rows(id_)
        spent, other = (billing.bill("one") + billing.bill("two")) / NANO, billing.bill("three") / NANO
        assert spent > other > 0

        info = curl(f"{url}/key/info?key={token}")["info"]
        assert (info["spend"], info["max_budget"], info["budget_reset_at"]) == (spent, 10.0, month_end)
        assert info["budget_limits_usage"] == {"1d": {"current_spend": spent}}
        assert curl(f"{url}/key/info?key={unlimited['key']}")["info"]["spend"] == other
        listed = curl(
            f"{url}/key/list?return_full_object=true&page=1&size=10&sort_by=key_alias&sort_order=asc"
        )
        assert [(each["token"], each["spend"]) for each in listed["keys"]] == [
            (token, spent),
            (unlimited["token"], other),
        ]
        assert curl(f"{url}/key/list?page=2&size=1") == {
            "keys": [token],
            "total_count": 2,
            "current_page": 2,
            "total_pages": 2,
        }

        found = curl(f"{url}/spend/logs?request_id=one")
        assert [(log["api_key"], log["user"], log["metadata"]["target"]) for log in found] == [
            (token, "ishaan@berri.ai", "bill/x")
        ]
        assert found[0]["spend"] == billing.bill("one") / NANO
        assert [len(curl(f"{url}/spend/logs?api_key={each}")) for each in (key, token, "b")] == [2, 2, 1]
        assert len(curl(f"{url}/spend/logs?user_id=ishaan@berri.ai")) == 2
        assert curl(f"{url}/spend/logs?user_id=ishaan@berri.ai&api_key=b") == []
        assert len(curl(f"{url}/spend/logs")) == 3
        today = found[0]["startTime"][:10]
        days = f"{url}/spend/logs?start_date={today}&end_date={today}"
        assert curl(days) == [
            {
                "startTime": today,
                "spend": sum(billing.bill(id_) for id_ in ("one", "two", "three")) / NANO,
                "users": {"ishaan@berri.ai": spent, "": other},
                "models": {"m": sum(billing.bill(id_) for id_ in ("one", "two", "three")) / NANO},
                token: spent,
                unlimited["token"]: other,
            }
        ]
        assert curl(f"{days}&request_id=three")[0]["spend"] == other
        assert [log["request_id"] for log in curl(f"{days}&summarize=false&api_key={token}")] == [
            "two",
            "one",
        ]
        by_target = curl(f"{url}/admin/usage?by=target,key")["data"]
        assert [(each["target"], each["key"], each["usd"]) for each in by_target] == [
            ("bill/x", "a", spent),
            ("bill/x", "b", other),
        ]

        new = curl(f"{url}/key/{key}/regenerate", *json_body, "{}")
        assert (new["spend"], new["key_alias"], new["key"] != key) == (spent, "a", True)
        assert curl(f"{url}/spend/logs?request_id=one")[0]["api_key"] == new["token"]


def test_a_word_that_is_no_group_is_refused(tmp_path: Path) -> None:
    assert run_command(tmp_path, {}, "spend", "--by", "colour").returncode == 2
    assert run_command(tmp_path, {"SANIC_PROXY_STATE_DIR": str(tmp_path)}, "spend").stdout == ""
