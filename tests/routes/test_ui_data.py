"""What the operator's page shows besides the admin routes: models, a playground, and a client's own use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.admin import ADMIN_KEY, CLIENT_KEY, SETTINGS, bearer
from tests.support.load import wait_until
from tests.support.page import Login, logged_in
from tests.support.proxy import Proxy, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import Exchange, Upstream, completion

TOML = """
[clients.reader]
key_env = "READER_KEY"
ui = true
rpm = 100
budget = { usd = 5, per = "day" }

[clients.admin]
key_env = "NAMED_ADMIN_KEY"

[models.priced]
targets = ["groq/a"]
prices = { input = 1.0, output = 2.0 }
"""
READER_KEY = "reader-canary-0123456789"
NAMED_ADMIN_KEY = "named-admin-canary-0123456789"
CHAT = {"model": "echo/echo", "messages": [{"role": "user", "content": "Say it"}]}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream) -> Iterator[Proxy]:
    directory: Path = tmp_path_factory.mktemp("proxy")
    (directory / "proxy.toml").write_text(TOML)
    settings = {
        **provider_settings(shared_upstream),
        **SETTINGS,
        "READER_KEY": READER_KEY,
        "NAMED_ADMIN_KEY": NAMED_ADMIN_KEY,
        "SANIC_PROXY_CONFIG": str(directory / "proxy.toml"),
        "SANIC_PROXY_STATE_DIR": str(directory / "state"),
    }
    with running_proxy(settings, "--workers", "2") as started:
        yield started


@pytest.fixture(scope="module")
def admin(proxy: Proxy) -> Login:
    return logged_in(proxy)


@pytest.fixture(scope="module")
def reader(proxy: Proxy) -> Login:
    return logged_in(proxy, READER_KEY)


def test_models_are_listed_for_the_playground(proxy: Proxy, admin: Login) -> None:
    reply = proxy.request("GET", "/ui/models", headers=admin.reading)
    assert {"priced", "echo/echo"} <= {model["id"] for model in reply.json["data"]}


def test_the_playground_answers_whole_and_streamed(proxy: Proxy, admin: Login) -> None:
    whole = proxy.request("POST", "/ui/chat/completions", CHAT, admin.changing)
    assert "Say it" in whole.json["choices"][0]["message"]["content"]
    assert "client=(admin)" in proxy.log_line(whole.headers["x-request-id"])
    streamed = proxy.request("POST", "/ui/chat/completions", {**CHAT, "stream": True}, admin.changing)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    frames = [frame.removeprefix(b"data: ") for frame in streamed.body.split(b"\n\n") if frame]
    assert frames[-1] == b"[DONE]"
    assert {json.loads(frame)["object"] for frame in frames[:-1]} == {"chat.completion.chunk"}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({**CHAT, "model": "nobody/x"}, 404, "model_not_found"),
        ({}, 400, None),
        (b"{", 400, None),
    ],
)
def test_errors_of_the_playground_are_those_of_a_chat(
    proxy: Proxy, admin: Login, body: object, status: int, code: str | None
) -> None:
    reply = proxy.request("POST", "/ui/chat/completions", body, admin.changing)
    assert reply.status == status
    assert code is None or reply.error["code"] == code


def test_only_an_administrators_page_may_use_the_playground(
    proxy: Proxy, admin: Login, reader: Login
) -> None:
    without_token = {**admin.changing, "x-csrf-token": ""}
    for headers, status in (
        ({}, 401),
        (bearer(CLIENT_KEY), 401),
        (reader.changing, 401),
        (without_token, 403),
    ):
        assert proxy.request("POST", "/ui/chat/completions", CHAT, headers).status == status
    for login in ({}, reader.reading):
        assert proxy.request("GET", "/ui/models", headers=login).status == 401


async def answers(exchange: Exchange) -> None:
    await exchange.answer(completion())


def test_use_is_shown_to_its_client_and_the_administrator(
    proxy: Proxy, upstream: Upstream, admin: Login, reader: Login
) -> None:
    upstream.on("a", answers)
    assert proxy.chat("priced", headers=bearer(READER_KEY)).status == 200
    body = {**CHAT, "model": "priced"}
    assert proxy.request("POST", "/ui/chat/completions", body, admin.changing).status == 200
    for _ in range(2):
        assert proxy.chat("priced", headers=bearer(NAMED_ADMIN_KEY)).status == 200

    def days(login: Login, query: str = "") -> list[dict[str, object]]:
        reply = proxy.request("GET", f"/ui/usage{query}", headers=login.reading)
        assert reply.status == 200
        found: list[dict[str, object]] = reply.json["days"]
        return [day for day in found if day["model"] == "priced"]

    wait_until(lambda: len(days(reader)) == len(days(admin)) == len(days(admin, "?key=admin")) == 1)
    assert days(admin)[0]["attempts"] == 1
    assert days(admin, "?key=(admin)") == days(admin)
    wait_until(lambda: days(admin, "?key=admin")[0]["attempts"] == 2)
    (own,) = days(reader)
    assert (own["attempts"], float(str(own["usd"])) > 0) == (1, True)
    assert days(admin, "?key=reader") == [own]
    usage = proxy.request("GET", "/ui/usage", headers=reader.reading).json["usage"]
    assert (usage["client"], usage["limits"]["rpm"], usage["budgets"][0]["limit_usd"]) == ("reader", 100, 5.0)
    same = proxy.request("GET", "/v1/usage", headers=bearer(READER_KEY)).json
    assert same == usage
    assert days(reader, "?key=admin") == [own]  # of itself, whoever is named


def test_sums_name_the_client_by_its_id_as_well(proxy: Proxy, upstream: Upstream, admin: Login) -> None:
    upstream.on("a", answers)
    ids = []
    for _ in range(2):
        made = proxy.request("POST", "/admin/keys", {"name": "again"}, admin.changing).json
        ids.append(made["id"])
        assert proxy.chat("priced", headers=bearer(made["secret"])).status == 200
        assert proxy.request("DELETE", f"/admin/keys/{made['id']}", headers=admin.changing).status == 200

    def sums() -> list[dict[str, object]]:
        reply = proxy.request("GET", "/admin/usage?by=key", headers=admin.reading)
        return [one for one in reply.json["data"] if one["key"] == "again"]

    wait_until(lambda: sorted(str(one["client_id"]) for one in sums()) == sorted(ids))


def test_the_use_of_keys_made_at_run_time_is_shown_by_name(proxy: Proxy, admin: Login) -> None:
    made = proxy.request("POST", "/key/generate", {"key_alias": "guest"}, bearer(ADMIN_KEY)).json
    for reference in ("guest", made["key"]):
        reply = proxy.request("GET", f"/ui/usage?key={reference}", headers=admin.reading)
        assert reply.json["usage"]["client"] == "guest"
    assert proxy.request("GET", "/ui/usage?key=stranger", headers=admin.reading).status == 404


def test_todays_spend_is_that_of_all_clients(proxy: Proxy, upstream: Upstream) -> None:
    upstream.on("a", answers)
    assert proxy.chat("priced", headers=bearer(CLIENT_KEY)).status == 200

    def now() -> dict[str, object]:
        found: dict[str, object] = proxy.request("GET", "/admin/now", headers=bearer(ADMIN_KEY)).json
        return found

    wait_until(lambda: (now()["spend_today_usd"] or 0) != 0)
    assert now()["prices"]
