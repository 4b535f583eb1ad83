"""Rates of clients: every scope must admit, over all workers, through killed and stopped ones."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.config.rules import ScopeLimits
from sanic_proxy.governance.rates import PART, SLICE_S, Admission, RateRefusal, Rates
from sanic_proxy.governance.rules import ALL, Scope, ScopedLimits
from sanic_proxy.state_store.shared import Layout, SharedMemory
from tests.support.load import wait_until
from tests.support.shared_memory import Peer, peers

ONE = Scope("client", "one")
TEAM = Scope("team", "red")
_SETUP = (
    "from sanic_proxy.governance.rates import *; from sanic_proxy.governance.rules import *; "
    "from sanic_proxy.config.rules import ScopeLimits; rates = Rates(memory); kept = []"
)


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[SharedMemory]:
    made = SharedMemory(directory=tmp_path)
    yield made
    made.close()


def limits(scope: Scope = ONE, **values: Any) -> ScopedLimits:
    return ScopedLimits(scope, ScopeLimits(**values))


def admitted(result: Admission | RateRefusal) -> Admission:
    assert isinstance(result, Admission)
    return result


def admit(rates: Rates, scopes: list[ScopedLimits], tokens: int) -> Admission | RateRefusal:
    return rates.admit(rates.limits_of(scopes), tokens)


def refused(result: Admission | RateRefusal) -> RateRefusal:
    assert isinstance(result, RateRefusal)
    return result


def test_requests_per_minute_with_the_exact_time_to_wait(memory: SharedMemory) -> None:
    clock = Clock()
    rates = Rates(memory, clock=clock)
    minute = [limits(rpm=60, burst=3)]
    left = [admitted(admit(rates, minute, 0)).requests for _ in range(3)]
    assert [standing.remaining for standing in left if standing] == [2, 1, 0]
    refusal = refused(admit(rates, minute, 0))
    assert (refusal.scope, refusal.kind, refusal.limit) == (ONE, "requests", 60)
    assert refusal.wait_s == pytest.approx(1.0)
    clock.now += refusal.wait_s
    admitted(admit(rates, minute, 0))
    clock.now -= 500  # a clock that is set back refills nothing
    assert refused(admit(rates, minute, 0)).wait_s == pytest.approx(1.0)


def test_tokens_are_reserved_and_settled(memory: SharedMemory) -> None:
    rates = Rates(memory, clock=Clock())
    minute = [limits(tpm=1000)]
    first = admitted(admit(rates, minute, 900))
    assert first.tokens is not None
    assert (first.tokens.limit, first.tokens.remaining) == (1000, 100)
    assert first.tokens.reset_s == pytest.approx(54)
    assert refused(admit(rates, minute, 200)).kind == "tokens"
    first.settle(100)
    first.settle(0)  # settling twice does nothing
    second = admitted(admit(rates, minute, 900))
    second.settle(None)
    assert refused(admit(rates, minute, 1)).wait_s == pytest.approx(0.06)
    third = admitted(admit(Rates(memory, clock=Clock(2000.0)), minute, 10))
    third.settle(500)
    left = admitted(admit(Rates(memory, clock=Clock(2000.0)), minute, 0)).tokens
    assert left is not None
    assert left.remaining == 500


def test_all_scopes_admit_or_none_is_used(memory: SharedMemory) -> None:
    rates = Rates(memory, clock=Clock())
    scopes = [limits(ONE, rpm=10), limits(TEAM, rpm=100, tpm=50), limits(ALL, concurrent=1)]
    first = admitted(admit(rates, scopes, 40))
    assert first.requests is not None
    assert first.requests.scope == ONE
    refusal = refused(admit(rates, scopes, 40))
    # The longest wait decides: of the team's tokens.
    assert (refusal.scope, refusal.kind, refusal.limit) == (TEAM, "tokens", 50)
    assert refusal.requests is not None
    first.settle(40)
    second = admitted(admit(rates, scopes[::2], 40))
    assert second.requests is not None
    assert second.requests.remaining == 8
    assert refused(admit(rates, scopes[2:], 0)).kind == "concurrent"
    second.settle(None)
    admitted(admit(rates, scopes[2:], 0)).settle(0)


def test_nothing_is_limited_without_limits(memory: SharedMemory) -> None:
    found = admitted(admit(Rates(memory), [limits()], 10**9))
    assert (found.requests, found.tokens) == (None, None)
    found.settle(1)


def test_what_was_used_stays_used_when_a_limit_changes(memory: SharedMemory) -> None:
    rates = Rates(memory, clock=Clock())
    for _ in range(30):
        admitted(admit(rates, [limits(rpm=60)], 0))
    changed = admitted(admit(rates, [limits(rpm=120)], 0))
    assert changed.requests is not None
    assert changed.requests.remaining == 120 - 31


def test_a_full_memory_leaves_each_worker_its_share(caplog: pytest.LogCaptureFixture) -> None:
    carrier = SharedMemory(layout=Layout(cells=1, gauges=1, counters=1, slots=1))
    rates = Rates(carrier, workers=4, clock=Clock())
    admitted(admit(rates, [limits(ALL, rpm=1, concurrent=1)], 0))
    own = [limits(ONE, rpm=40, concurrent=8)]
    taken = [admitted(admit(rates, own, 0)) for _ in range(2)]
    assert refused(admit(rates, own, 0)).kind == "concurrent"
    for one in taken:
        one.settle(0)
    for _ in range(8):
        admitted(admit(rates, own, 0)).settle(0)
    refusal = refused(admit(rates, own, 0))
    assert (refusal.kind, refusal.limit) == ("requests", 40)
    assert caplog.text.count("the shared memory") == 2
    carrier.close()


def test_a_limit_that_is_far_away_is_taken_in_slices_that_shrink(memory: SharedMemory) -> None:
    clock = Clock()
    first, second = Rates(memory, clock=clock), Rates(memory, clock=clock)
    minute = [limits(rpm=1000, tpm=100_000)]
    found = [admitted(admit(rates, minute, 90)) for rates in (first, first, second, second) for _ in range(5)]
    left = [one.requests.remaining for one in found[:10] if one.requests]
    assert left == [990] * 10  # all were read now
    for one in found:
        one.settle(80)
    rest = 0
    while isinstance(admit(first, minute, 0), Admission):
        rest += 1
    assert 1000 - 20 - 1000 / PART <= rest <= 1000 - 20
    while isinstance(admit(second, minute, 0), Admission):
        rest += 1
    assert rest == 1000 - 20


def test_what_is_left_of_slices_is_given_back(memory: SharedMemory) -> None:
    clock = Clock()
    waiting: list[tuple[float, Any]] = []
    first = Rates(memory, clock=clock, later=lambda after_s, call: waiting.append((after_s, call)))
    second = Rates(memory, clock=clock)
    minute = [limits(rpm=1000, tpm=100_000)]
    for _ in range(3):
        admitted(admit(first, minute, 100)).settle(50)
    ((after_s, give_back),) = waiting
    assert after_s == SLICE_S
    give_back()
    seen = admitted(admit(second, minute, 100))
    assert seen.requests is not None
    assert seen.tokens is not None
    assert (seen.requests.remaining, seen.tokens.remaining) == (996, 100_000 - 3 * 50 - 100)
    admitted(admit(first, minute, 100))
    assert len(waiting) == 2


def test_slices_outlive_a_change_of_the_limit(memory: SharedMemory) -> None:
    rates = Rates(memory, clock=Clock())
    admitted(admit(rates, [limits(rpm=1000)], 0))
    changed = admitted(admit(rates, [limits(rpm=2000)], 0))
    assert changed.requests is not None
    assert changed.requests.remaining == 1998


def peer_admits(peer: Peer, limit: str) -> bool:
    scope = f"ScopedLimits(Scope('client', 'one'), ScopeLimits({limit}))"
    peer.run(f"result = rates.admit(rates.limits_of([{scope}]), 0)")
    return peer.run("isinstance(result, Admission) and (kept.append(result) or True)") == "True"


def test_limits_hold_over_all_workers(tmp_path: Path) -> None:
    with peers(3, tmp_path) as workers:
        for worker in workers:
            worker.run(_SETUP)
        results = [peer_admits(workers[number % 3], "rpm=1, burst=7") for number in range(30)]
        assert results.count(True) == 7
        assert [peer_admits(worker, "concurrent=2") for worker in workers] == [True, True, False]
        workers[0].run("kept[-1].settle(0)")
        assert peer_admits(workers[2], "concurrent=2")


def test_workers_that_decide_at_the_same_moment_keep_to_the_requests_in_flight(tmp_path: Path) -> None:
    loop = (
        "for _ in range(20_000):",
        "    found = rates.admit(limits, 0)",
        "    if isinstance(found, Admission):",
        "        over += gauge.total() > 1",
        "        found.settle(0)",
    )
    with peers(2, tmp_path) as workers:
        for worker in workers:
            worker.run(_SETUP)
            worker.run("limits = rates.limits_of([ScopedLimits(Scope('all'), ScopeLimits(concurrent=1))])")
            worker.run("gauge, over = memory.gauges.gauge(limits[0].key), 0")
        for worker in workers:
            worker.send(" ;; ".join(loop))
        assert [worker.receive() for worker in workers] == ["None"] * 2
        assert [worker.run("over") for worker in workers] == ["0", "0"]


def test_requests_in_flight_vanish_with_a_killed_worker(tmp_path: Path) -> None:
    with peers(2, tmp_path) as (first, second):
        first.run(_SETUP)
        second.run(_SETUP)
        assert [peer_admits(first, "concurrent=3") for _ in range(3)] == [True] * 3
        assert not peer_admits(second, "concurrent=3")
        first.kill()
        wait_until(lambda: peer_admits(second, "concurrent=3"))


def test_a_stopped_worker_in_its_critical_section_stops_no_other(tmp_path: Path) -> None:
    with peers(2, tmp_path) as (first, second):
        first.run(_SETUP)
        second.run(_SETUP)
        assert peer_admits(first, "rpm=1, burst=3")
        assert peer_admits(second, "rpm=1, burst=3")
        first.run("memory.lock.__enter__()")
        first.signal(signal.SIGSTOP)
        # Its own view of the limit: as if nothing had been used.
        assert [peer_admits(second, "rpm=1, burst=3") for _ in range(4)] == [True, True, True, False]
        first.signal(signal.SIGCONT)
        first.run("memory.lock.__exit__()")
        assert [peer_admits(second, "rpm=1, burst=3") for _ in range(2)] == [True, False]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 20_000),  # milliseconds between requests
            st.integers(0, 300),  # tokens that it reserves
            st.none() | st.integers(0, 600),  # tokens that it uses
            st.booleans(),  # of which worker
        ),
        max_size=30,
    ),
    st.sampled_from([300, 3000]),
)
def test_reserved_and_settled_tokens_stay_within_the_limit(
    requests: list[tuple[int, int, int | None, bool]], limit: int
) -> None:
    """In total at most the burst and what came since, and what settlements used above their reservation."""
    memory = SharedMemory()
    clock = Clock(0.0)
    workers = Rates(memory, clock=clock), Rates(memory, clock=clock)
    used = excess = 0
    for step_ms, reserved, actual, is_second in requests:
        clock.now += step_ms / 1000
        result = admit(workers[is_second], [limits(tpm=limit)], reserved)
        if isinstance(result, Admission):
            result.settle(actual)
            used += reserved if actual is None else actual
            excess += 0 if actual is None else max(0, actual - reserved)
        assert used <= limit + clock.now * limit / 60 + excess + 1e-6
    memory.close()
