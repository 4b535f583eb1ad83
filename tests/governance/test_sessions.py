"""Sessions of the page: cookies that cannot be forged, logouts that hold everywhere, limited logins."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from sanic_proxy.governance.rates import Admission, RateRefusal
from sanic_proxy.governance.sessions import (
    LIFETIME_S,
    LOGINS,
    MIGRATION,
    NETWORK_LOGINS,
    SESSIONS_AT_ONCE,
    EndedSessions,
    Session,
    Sessions,
)
from sanic_proxy.state_store.shared import Layout, SharedMemory, key_of
from sanic_proxy.state_store.sqlite import SQLiteStore
from tests.support.load import eventually
from tests.support.shared_memory import peers

KEY = "admin-key-1"


def made(directory: Path, key: str = KEY, shared: SharedMemory | None = None) -> Sessions:
    return Sessions(key, shared or SharedMemory(), SQLiteStore(directory, (MIGRATION,)))


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


@pytest.mark.parametrize(("kind", "digest"), [("admin", ""), ("client", "ab" * 32)])
def test_a_cookie_holds_for_every_worker_until_it_expires(tmp_path: Path, kind: str, digest: str) -> None:
    async def scenario() -> None:
        one, other = made(tmp_path), made(tmp_path)
        session = one.begin("admin" if kind == "admin" else "client", 1000.5, digest)
        cookie = await one.cookie(session)
        assert KEY not in cookie
        assert await other.read(cookie, 1001) == session
        assert await other.csrf(session) == await one.csrf(session) != cookie.rpartition(".")[2]
        assert await other.read(cookie, 1000 + LIFETIME_S) is None
        assert await made(tmp_path, "another-key").read(cookie, 1001) is None

    run(scenario())


def test_no_changed_cookie_is_accepted(tmp_path: Path) -> None:
    async def scenario() -> None:
        sessions = made(tmp_path)
        session = sessions.begin("client", 1000, "ab" * 32)
        cookie = await sessions.cookie(session)
        token = await sessions.csrf(session)
        signature = cookie.rpartition(".")[2]
        later = Session("client", session.id, session.expires + 1, session.digest)
        forged = [
            cookie.replace("client", "admin"),
            f"{later.text}.{signature}",
            f"{session.text}.{token}",
            f"{session.text}.",
            session.text,
            cookie[:-1],
            cookie + "0",
            cookie.upper(),
            "",
            ".",
            "....",
            "admin.x.99999999999.",
            "admin.x.y..\u00e4",
            "\udce4" + cookie,
            "a" * 100_000,
            "\0" * 20,
        ]
        for text in forged:
            assert await sessions.read(text, 1001) is None, text[:80]
        assert await sessions.read(cookie, 1001) == session

    run(scenario())


def test_a_logout_holds_at_once_in_all_workers_of_the_machine(tmp_path: Path) -> None:
    async def scenario() -> None:
        memory = SharedMemory()
        one, other = made(tmp_path, shared=memory), made(tmp_path, shared=memory)
        ended, kept = one.begin("admin", time.time()), one.begin("admin", time.time())
        await one.end(ended, time.time())
        for sessions in (one, other):
            assert sessions.is_over(ended, time.time())
            assert not sessions.is_over(kept, time.time())
        assert await other.read(await one.cookie(ended), time.time()) is None

    run(scenario())


def test_a_logout_holds_while_another_process_has_locked_the_memory(tmp_path: Path) -> None:
    async def scenario() -> None:
        shared = SharedMemory(directory=tmp_path / "shared")
        one, other = made(tmp_path, shared=shared), made(tmp_path, shared=shared)
        session = one.begin("admin", time.time())
        cookie = await one.cookie(session)
        await one.end(session, time.time())
        with peers(1, tmp_path / "shared") as (peer,):
            peer.run("memory.lock.__enter__()")
            assert await other.read(cookie, time.time()) is None
        shared.close()

    run(scenario())


def test_a_logout_is_read_from_the_store_by_others_and_after_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        one, elsewhere = made(tmp_path), made(tmp_path)
        elsewhere.follow()
        session = one.begin("admin", time.time())
        assert not elsewhere.is_over(session, time.time())
        await one.end(session, time.time())
        await eventually(lambda: elsewhere.is_over(session, time.time()))
        later = made(tmp_path)
        later.follow()
        await eventually(lambda: later.is_over(session, time.time()))
        for sessions in (elsewhere, later):
            sessions.close()

    run(scenario())


def test_failed_logins_are_limited_by_address(tmp_path: Path) -> None:
    sessions = made(tmp_path)
    for _ in range(LOGINS):
        assert isinstance(sessions.attempt("192.0.2.1"), Admission)
    refused = sessions.attempt("192.0.2.1")
    assert isinstance(refused, RateRefusal)
    assert 0 < refused.wait_s <= 60
    assert isinstance(sessions.attempt("::ffff:192.0.2.1"), RateRefusal)
    assert isinstance(sessions.attempt("192.0.2.2"), Admission)


def test_addresses_of_one_ipv6_network_count_together(tmp_path: Path) -> None:
    sessions = made(tmp_path)
    answers = [sessions.attempt(f"2001:db8::{number:x}") for number in range(LOGINS + 1)]
    assert [type(answer) for answer in answers] == [Admission] * LOGINS + [RateRefusal]
    assert isinstance(sessions.attempt("2001:db8:1::1"), Admission)
    assert isinstance(sessions.attempt("not an address"), Admission)


def test_one_ipv6_network_of_48_bits_is_limited_and_locks_nobody_out(tmp_path: Path) -> None:
    sessions = made(tmp_path)
    answers = [sessions.attempt(f"2001:db8:0:{number:x}::1") for number in range(NETWORK_LOGINS + 20)]
    assert any(isinstance(answer, RateRefusal) for answer in answers)
    assert isinstance(sessions.attempt("192.0.2.1"), Admission)
    assert isinstance(sessions.attempt("2001:db8:ffff::1"), Admission)


def test_any_number_of_addresses_leaves_the_shared_memory_to_other_limits(tmp_path: Path) -> None:
    memory = SharedMemory(layout=Layout(cells=2048))
    sessions = made(tmp_path, shared=memory)
    for number in range(4000):
        sessions.attempt(f"2001:{number:x}::1")
    with memory.lock:
        now = time.monotonic()
        found = [memory.cells.find(key_of("test", str(number)), now) for number in range(500)]
    assert all(values is not None for values in found)


def test_a_bucket_depends_on_the_admin_key(tmp_path: Path) -> None:
    """So nobody can choose addresses that share the operator's bucket."""

    def refused(key: str) -> list[int]:
        sessions = made(tmp_path, key)
        for _ in range(LOGINS):
            sessions.attempt("192.0.2.1")
        answers = [sessions.attempt(f"198.{number // 256}.{number % 256}.1") for number in range(2000)]
        return [number for number, answer in enumerate(answers) if isinstance(answer, RateRefusal)]

    ours, others = refused(KEY), refused("another-key")
    assert ours
    assert others
    assert not set(ours) & set(others)


def test_the_sessions_of_a_client_are_limited_by_its_key(tmp_path: Path) -> None:
    sessions = made(tmp_path)
    answers = [sessions.admit_client("ab" * 32) for _ in range(SESSIONS_AT_ONCE + 1)]
    assert [type(answer) for answer in answers] == [Admission] * SESSIONS_AT_ONCE + [RateRefusal]
    assert isinstance(sessions.admit_client("cd" * 32), Admission)


def test_ended_sessions_are_forgotten_when_they_would_have_expired() -> None:
    ended = EndedSessions()
    ended.add({"a": 100, "b": 200}, 50)
    assert "a" in ended
    ended.add({"c": 300}, 100)
    assert len(ended) == 2
    assert "a" not in ended
    assert "b" in ended
    assert "c" in ended


def test_the_store_keeps_no_expired_sessions(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = SQLiteStore(tmp_path, (MIGRATION,))
        sessions = Sessions(KEY, SharedMemory(), store)
        for now in range(0, 10 * LIFETIME_S, LIFETIME_S):
            await sessions.end(sessions.begin("admin", now), now)
        rows = await store.run(lambda c: c.execute("SELECT id FROM session_ended", ()).fetchall())
        assert len(rows) == 1

    run(scenario())


def test_logins_that_succeed_are_not_counted(tmp_path: Path) -> None:
    sessions = made(tmp_path)
    for _ in range(3 * LOGINS):
        attempt = sessions.attempt("192.0.2.1")
        assert isinstance(attempt, Admission)
        attempt.settle(0)


def test_the_admin_key_alone_is_the_admin_key(tmp_path: Path) -> None:
    sessions = made(tmp_path)
    assert sessions.is_admin_key(KEY)
    assert not any(map(sessions.is_admin_key, ("", KEY[:-1], KEY + "x", KEY.upper(), "\udce4", "x" * 10_000)))
