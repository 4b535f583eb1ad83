"""The tables of clients, teams and limits."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from sanic_proxy.config.loader import load
from sanic_proxy.config.model import Settings, SettingsError
from sanic_proxy.config.rules import NO_LIMITS, Budget, ScopeLimits, format_usd

KEY = "sk-client-canary-0123456789"
ENVIRONMENT = {"SANIC_PROXY_CONFIG": "proxy.toml", "APP_KEY": KEY}


def settings(directory: Path, toml: str, environ: dict[str, str] | None = None) -> Settings:
    (directory / "proxy.toml").write_text(toml)
    return load({**ENVIRONMENT, **(environ or {})}, directory)


def problems(directory: Path, toml: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        settings(directory, toml, environ)
    return caught.value.problems


def test_a_client_with_everything(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        f"""
        [teams.red]
        models = ["groq/*"]
        budget = {{ usd = 100 }}

        [limits]
        concurrent = 500

        [models.fast]
        targets = ["echo/x"]
        budget = {{ usd = 0.000000001, per = "day" }}

        [clients.app]
        key_env = "APP_KEY"
        key_sha256 = ["{sha256(b"old").hexdigest()}"]
        models = ["fast", "groq/*"]
        endpoints = ["/v1/chat/completions", "files*", "*"]
        rpm = 60
        tpm = 100_000
        concurrent = 4
        burst = 10
        budget = [
            {{ usd = 1.1, per = "day", time_zone = "Europe/Berlin", strict = true }},
            {{ usd = 20, per = "month" }},
        ]
        soft = [90, 50]
        max_requests = 200
        max_cost = 2.5
        expires = 2027-01-31
        team = "red"
        metadata = {{ model = "any value", owner = ["a"] }}
        ui = true
        """,
    )
    (client,) = found.clients
    assert client.digests == (sha256(KEY.encode()).hexdigest(), sha256(b"old").hexdigest())
    assert KEY in found.secrets
    rules = client.rules
    assert (rules.id, rules.name, rules.team) == ("app", "app", "red")
    assert rules.limits == ScopeLimits(
        60,
        100_000,
        4,
        10,
        (
            Budget(1_100_000_000, "day", "Europe/Berlin", strict=True),
            Budget(20_000_000_000, "month"),
        ),
        (50, 90),
    )
    assert rules.models == ("fast", "groq/*")
    assert rules.endpoints == ("/chat/completions", "/files*", "*")
    assert (rules.max_requests, rules.max_cost_nano) == (200, 2_500_000_000)
    assert rules.expires == 1_801_353_600
    assert rules.metadata == {"model": "any value", "owner": ["a"]}
    assert rules.ui is True
    assert found.teams[0].limits.budgets == (Budget(100 * 10**9),)
    assert found.limits == ScopeLimits(concurrent=500)
    assert found.models[0].limits.budgets == (Budget(1, "day"),)
    assert not found.is_open


def test_without_tables_nothing_is_limited(tmp_path: Path) -> None:
    found = settings(tmp_path, "")
    assert found.limits is not None
    assert found.limits == NO_LIMITS
    assert found.limits.is_empty
    assert found.is_open


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("2027-01-31", 1_801_353_600),
        ("2027-01-31T01:00:00+01:00", 1_801_353_600),
        ("'2027-01-31T00:00:00Z'", 1_801_353_600),
        ("2027-01-31T00:00:01", 1_801_353_601),
    ],
)
def test_a_key_expires_at_a_date_or_time(tmp_path: Path, written: str, seconds: int) -> None:
    found = settings(tmp_path, f"[clients.a]\nkey_env = 'APP_KEY'\nexpires = {written}")
    assert found.clients[0].rules.expires == seconds


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[clients.a]", "[clients.a]: needs key_env or key_sha256"),
        ("[clients.a]\nkey_env = 'GONE'", "[clients.a] key_env: the variable GONE is not set"),
        ("[clients.a]\nkey_sha256 = 'abc'", "key_sha256: expected the SHA-256 digest of a key in 64"),
        ("[clients.a]\nkey_sha256 = []", "key_sha256: expected"),
        ("[clients.a]\nkey_env = 'APP_KEY'\nmodel = []", "model: is not a setting of this table; did you"),
        ("[clients.a]\nkey_env = 'APP_KEY'\nrpm = 0", "rpm: expected a whole number from 1"),
        ("[clients.a]\nkey_env = 'APP_KEY'\nexpires = 'soon'", "expires: expected a date or time such as"),
        ("[clients.a]\nkey_env = 'APP_KEY'\nexpires = 12", "expires: expected a date or time such as"),
        (
            "[clients.a]\nkey_env = 'APP_KEY'\nexpires = 9999-12-31T23:59:59-14:00",
            "expires: expected a date or time such as",
        ),
        (
            "[clients.a]\nkey_env = 'APP_KEY'\nexpires = 0001-01-01",
            "expires: expected a date or time such as",
        ),
        (
            "[clients.a]\nkey_env = 'APP_KEY'\nteam = 'redd'\n[teams.red]",
            "[teams.redd]; did you mean 'red'?",
        ),
        ("[clients.a]\nkey_env = 'APP_KEY'\nsoft = [120]", "soft: expected a list of whole percentages"),
        ("[clients.a]\nkey_env = 'APP_KEY'\nmax_cost = 0", "max_cost: expected US dollars above 0"),
        ("[clients.a]\nkey_env = 'APP_KEY'\nmax_cost = true", "max_cost: expected US dollars"),
        ("[clients.a]\nkey_env = 'APP_KEY'\nmetadata = {d = 2027-01-31}", "metadata: expected a table of"),
        ("[clients.'a b']\nkey_env = 'APP_KEY'", "[clients.a b]: a name is up to 63 letters"),
        (
            "[clients.a]\nkey_env = 'APP_KEY'\n[clients.b]\nkey_env = 'APP_KEY'",
            "[clients.b]: its key is also in [clients.a]",
        ),
        ("[limits]\nbudgets = 5", "budgets: is not a setting of this table; did you mean 'budget'?"),
        ("limits = 5", "[limits] must be a table"),
        ("[limits]\nbudget = 5", "budget: expected a table such as { usd = 20"),
        ("[limits]\nbudget = {per = 'day'}", "budget: expected a table such as { usd = 20"),
        ("[limits]\nbudget = {usd = -1}", "budget: usd: expected US dollars from 0"),
        ("[limits]\nbudget = {usd = nan}", "budget: usd: expected US dollars from 0"),
        ("[limits]\nbudget = {usd = 1e-10}", "at most 9 decimal places"),
        ("[limits]\nbudget = {usd = 1, per = 'year'}", "per: expected one of day, week, month, total"),
        ("[limits]\nbudget = {usd = 1, time_zone = '../etc'}", "time_zone: expected the name of a time zone"),
        ("[limits]\nbudget = [{usd = 1}, {usd = 2}]", "two budgets have the same period"),
    ],
)
def test_a_problem_names_the_key_and_what_is_expected(tmp_path: Path, toml: str, message: str) -> None:
    assert message in "\n".join(problems(tmp_path, toml))


def test_one_key_belongs_to_one_client(tmp_path: Path) -> None:
    found = problems(tmp_path, "[clients.a]\nkey_env = 'APP_KEY'", {"SANIC_PROXY_API_KEYS": KEY})
    assert found == ["[clients.a]: its key is also in SANIC_PROXY_API_KEYS"]
    assert KEY not in str(found)


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "0.00"),
        (1, "0.000000001"),
        (1_500_000_000, "1.50"),
        (-(10**9), "-1.00"),
        (123_456_000_000, "123.456"),
    ],
)
def test_money_is_shown_exactly(nano: int, text: str) -> None:
    assert format_usd(nano) == text
