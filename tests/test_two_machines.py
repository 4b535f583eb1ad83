"""Two instances with one database, as on two machines: what one is told holds at the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.load import wait_until
from tests.support.postgresql import PostgreSQL, needs_postgresql
from tests.support.proxy import Proxy, running_proxy

pytestmark = needs_postgresql
ADMIN_KEY = "sk-admin-0123456789"
ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}
# How long a change may take to hold everywhere, in seconds, and how often a busy machine may miss that.
HOLDS_S, TRIES = 2.0, 5
Machines = tuple[Proxy, Proxy]


@pytest.fixture(scope="module")
def machines(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    directory, url = tmp_path_factory.mktemp("machines"), postgresql.new_database()
    with (
        running_proxy(settings(url, directory / "a"), "--workers=2") as first,
        running_proxy(settings(url, directory / "b"), "--workers=2") as second,
    ):
        yield first, second


def settings(url: str, directory: Path) -> dict[str, str]:
    return {
        "SANIC_PROXY_STORE": url,
        "SANIC_PROXY_STATE_DIR": str(directory),
        "SANIC_PROXY_ADMIN_KEY": ADMIN_KEY,
        "SANIC_PROXY_REQUIRE_KEYS": "on",
    }


def status(proxy: Proxy, key: str, **headers: str) -> int:
    return proxy.chat("echo/echo", headers={"authorization": f"Bearer {key}", **headers}).status


def made(proxy: Proxy, **rules: object) -> str:
    reply = proxy.request("POST", "/admin/keys", rules, ADMIN)
    assert reply.status == 201, reply.body
    secret: str = reply.json["secret"]
    return secret


def test_a_key_that_is_blocked_at_one_is_refused_by_the_other(machines: Machines) -> None:
    first, second = machines
    key = made(first, name="app")
    assert status(second, key) == 200
    took_s: list[float] = []
    while not took_s or (min(took_s) >= HOLDS_S and len(took_s) < TRIES):
        if took_s:
            first.request("PATCH", "/admin/keys/app", {"blocked": False}, ADMIN)
            wait_until(lambda: status(second, key) == 200)
        assert first.request("PATCH", "/admin/keys/app", {"blocked": True}, ADMIN).status == 200
        took_s.append(wait_until(lambda: status(second, key) == 401))
    assert min(took_s) < HOLDS_S
    # In each of its workers: a further connection may meet the other one.
    wait_until(lambda: {status(second, key) for _ in range(10)} == {401})


def test_the_cap_of_a_session_counts_on_both(machines: Machines) -> None:
    key = made(machines[0], name="loop", max_requests=6)
    statuses = [status(machines[number % 2], key, **{"session-id": "s"}) for number in range(10)]
    assert (statuses.count(200), statuses.count(429)) == (6, 4)
