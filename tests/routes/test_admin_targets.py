"""/admin/targets: what is known of targets, and switching them off."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.support.admin import ADMIN_KEY, CLIENT_KEY, SETTINGS, bearer
from tests.support.load import wait_until
from tests.support.page import listening
from tests.support.proxy import Proxy, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import Exchange, Upstream, completion

VENDOR_KEY = "sk-proj-4fT7xQ2mZ8cVb1LwN5dR"
TOML = """
[models.fast]
targets = ["groq/a", "groq/b"]
"""


def settings(upstream: Upstream, directory: Path) -> dict[str, str]:
    (directory / "proxy.toml").write_text(TOML)
    return {
        **provider_settings(upstream),
        **SETTINGS,
        "SANIC_PROXY_BREAKER": "on",
        "SANIC_PROXY_CONFIG": str(directory / "proxy.toml"),
        "SANIC_PROXY_STATE_DIR": str(directory / "state"),
    }


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("proxy")


@pytest.fixture(scope="module")
def proxy(shared_upstream: Upstream, directory: Path) -> Iterator[Proxy]:
    with running_proxy(settings(shared_upstream, directory), "--workers", "2") as started:
        yield started


async def answers(exchange: Exchange) -> None:
    await exchange.answer(
        completion(),
        200,
        ("x-ratelimit-limit-requests", "100"),
        ("x-ratelimit-remaining-requests", "40"),
        ("x-ratelimit-reset-requests", "30s"),
    )


async def fails(exchange: Exchange) -> None:
    await exchange.answer({"error": {"message": f"it is broken for {VENDOR_KEY}", "code": "broken"}}, 500)


def shown(proxy: Proxy) -> dict[str, Any]:
    reply = proxy.request("GET", "/admin/targets", headers=bearer(ADMIN_KEY))
    assert reply.status == 200
    body: dict[str, Any] = reply.json
    return body


def switch(proxy: Proxy, name: str, to: str) -> int:
    return proxy.request("POST", f"/admin/targets/{name}/{to}", headers=bearer(ADMIN_KEY)).status


def statuses(proxy: Proxy, model: str = "groq/a") -> set[int]:
    return {proxy.chat(model, headers=bearer(CLIENT_KEY)).status for _ in range(12)}


def test_targets_are_shown_with_circuits_limits_and_errors(proxy: Proxy, upstream: Upstream) -> None:
    upstream.on("a", fails)
    upstream.on("b", answers)
    statuses(proxy, "fast")
    statuses(proxy, "groq/b")

    found: dict[str, Any] = {}

    def are_both_known() -> bool:
        found.update({target["target"]: target for target in shown(proxy)["targets"]})
        return bool(found["groq/a"]["failed"] and found["groq/b"]["answered"])

    wait_until(are_both_known)
    failing, served = found["groq/a"], found["groq/b"]
    assert failing["circuit"]["last_error"].startswith("500 upstream_error: ")
    assert failing["last_error"]["code"] == "500 upstream_error"
    assert "it is broken" in failing["last_error"]["message"]
    assert "sk-" not in str(failing)
    assert failing["last_error"]["time"].startswith("20")
    assert failing["circuit"]["last_error_s_ago"] >= 0
    assert served["circuit"]["state"] == "closed"
    left = served["rate_limit"]["left"]["x-ratelimit-remaining-requests"]
    assert (left["left"] <= 40, left["limit"]) == (True, 100)
    assert served["key_circuit"]["state"] == "closed"


def target(proxy: Proxy, name: str) -> dict[str, Any]:
    """What is shown of a target at `/chat/completions`; no requests where it is not known yet."""
    found = [one for one in shown(proxy)["targets"] if one["target"] == name]
    return next((one for one in found if one["endpoint"].endswith("chat/completions")), {"requests": 0})


def test_requests_of_all_workers_are_added_up_whichever_answers(proxy: Proxy, upstream: Upstream) -> None:
    upstream.on("sum", answers)
    for _ in range(12):
        assert proxy.chat("groq/sum", headers=bearer(CLIENT_KEY)).status == 200
    for _ in range(6):
        wait_until(lambda: target(proxy, "groq/sum")["requests"] == 12)
    assert target(proxy, "groq/sum")["in_flight"] == 0


def test_what_a_killed_worker_has_shown_vanishes(
    shared_upstream: Upstream, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.on("sum", answers)
    with running_proxy(settings(shared_upstream, tmp_path), "--workers", "2") as own:
        assert own.chat("groq/sum", headers=bearer(CLIENT_KEY)).status == 200
        wait_until(lambda: target(own, "groq/sum")["requests"] == 1)
        for pid in own.worker_pids():
            os.kill(pid, signal.SIGKILL)
        own.wait_for_log("Worker ready", times=4)
        wait_until(lambda: {one["target"] for one in shown(own)["targets"]} == {"groq/a", "groq/b"})


def test_circuits_and_switches_are_events(proxy: Proxy, upstream: Upstream) -> None:
    upstream.on("broken", fails)
    with listening(proxy, bearer(ADMIN_KEY), "?types=target") as listener:
        for _ in range(12):
            proxy.chat("groq/broken", headers=bearer(CLIENT_KEY))
        opened = next(event for event in listener.events() if event.type == "target")
        assert (opened.data["target"], opened.data["state"]) == ("groq/broken", "open")
        assert opened.data["error"]["code"] == "500 upstream_error"
        assert "it is broken" in opened.data["error"]["message"]
        assert VENDOR_KEY not in str(opened.data)
        assert switch(proxy, "groq%233", "off") == switch(proxy, "groq%233", "on") == 200
        found = (event.data for event in listener.events() if event.type == "target")
        switched = list(islice((one for one in found if one["target"] == "groq#3"), 2))
        assert [one["state"] for one in switched] == ["off", "on"]


def test_configured_targets_are_shown_before_their_first_request(proxy: Proxy) -> None:
    body = shown(proxy)
    assert {target["target"] for target in body["targets"]} >= {"groq/a", "groq/b"}
    assert body["worker"]["pid"] in proxy.worker_pids()


@pytest.mark.parametrize(
    ("path", "status"),
    [("nobody/off", 400), ("groq/a", 404), ("groq/a/maybe", 404), ("", 404), ("groq%232/off", 200)],
)
def test_only_targets_can_be_switched(proxy: Proxy, path: str, status: int) -> None:
    reply = proxy.request("POST", f"/admin/targets/{path}", headers=bearer(ADMIN_KEY))
    assert reply.status == status
    assert switch(proxy, "groq%232", "on") == 200


def test_the_admin_key_is_needed(proxy: Proxy) -> None:
    for method, path in (("GET", "/admin/targets"), ("POST", "/admin/targets/groq/off")):
        assert proxy.request(method, path, headers=bearer(CLIENT_KEY)).status == 401


def test_a_target_stays_off_in_all_workers_and_in_later_ones(
    proxy: Proxy, upstream: Upstream, shared_upstream: Upstream, directory: Path
) -> None:
    upstream.on("a", answers)
    upstream.on("b", answers)
    wait_until(lambda: statuses(proxy) == {200})  # its circuit may be open
    assert switch(proxy, "groq/a", "off") == 200
    wait_until(lambda: statuses(proxy) == {503})
    refused = proxy.chat("groq/a", headers=bearer(CLIENT_KEY))
    assert refused.error["code"] == "target_off"
    assert refused.headers["x-should-retry"] == "false"
    assert "groq/a off, groq/b ok" in proxy.chat("fast", headers=bearer(CLIENT_KEY)).headers[
        "x-sanic-proxy-route"
    ].replace("  ", " ")
    assert set(shown(proxy)["off"]) == {"groq/a"}
    with running_proxy(settings(shared_upstream, directory)) as later:
        wait_until(lambda: statuses(later) == {503})
        assert switch(later, "groq/a", "on") == 200
        assert statuses(later) == {200}
