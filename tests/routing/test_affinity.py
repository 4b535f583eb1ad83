"""Sessions and their targets: the hash, the bound of the load, and the pins."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.config.targets import TargetSettings
from sanic_proxy.observability.record import Attempt, RequestRecord
from sanic_proxy.routing.affinity import MAX_LOAD, MAX_PINS, TRUST_S, Affinity, Candidate, bounded, ranked
from sanic_proxy.routing.load import TargetLoad
from sanic_proxy.routing.selection import Choice
from sanic_proxy.routing.sessions import digest
from sanic_proxy.routing.shared_pins import SharedPins
from sanic_proxy.routing.targets import Target
from sanic_proxy.state_store.shared import SharedMemory

NOW, TTL_S = 1000.0, 300.0
SESSIONS = [digest("client", "model", str(number)) for number in range(2000)]


def candidates(count: int, in_flight: int = 0) -> list[Candidate[str]]:
    return [Candidate(Target(f"t{n}", "m", f"t{n}/m"), 1.0, in_flight) for n in range(count)]


def first(found: list[Candidate[str]]) -> str:
    return found[0].target.provider


# The hash


@given(st.integers(2, 8), st.data())
def test_a_removed_target_moves_only_its_own_sessions(count: int, data: st.DataObject) -> None:
    before = candidates(count)
    removed = data.draw(st.integers(0, count - 1))
    after = [candidate for n, candidate in enumerate(before) if n != removed]
    for session in SESSIONS[:100]:
        order = ranked(before, session)
        left = [candidate for candidate in order if candidate is not before[removed]]
        assert ranked(after, session) == left


def test_sessions_spread_by_weight() -> None:
    weighted = [Candidate(Target(n, "m", f"{n}/m"), w, 0) for n, w in (("a", 3.0), ("b", 1.0), ("c", 0.0))]
    firsts = Counter(first(ranked(weighted, session)) for session in SESSIONS)
    assert firsts["a"] / len(SESSIONS) == pytest.approx(0.75, abs=0.04)
    assert firsts["c"] == 0


def test_the_order_of_the_list_does_not_matter() -> None:
    shuffled = candidates(6)
    random.Random(1).shuffle(shuffled)
    assert all(ranked(candidates(6), session) == ranked(shuffled, session) for session in SESSIONS[:50])


# The bound


loads = st.lists(st.tuples(st.floats(0.1, 100), st.integers(0, 1000)), min_size=1, max_size=10)


@given(loads)
def test_there_is_always_a_target_below_the_bound(given_loads: list[tuple[float, int]]) -> None:
    made = [
        Candidate(Target(str(n), "m", str(n)), weight, in_flight)
        for n, (weight, in_flight) in enumerate(given_loads)
    ]
    free, full = bounded(made)
    assert free
    assert sorted(free + full, key=made.index) == made
    total, weights = sum(c.in_flight for c in made), sum(c.weight for c in made)
    for candidate in made:
        cap = math.ceil(MAX_LOAD * (total + 1) * candidate.weight / weights)
        assert (candidate in free) == (candidate.in_flight + 1 <= cap)


@given(st.integers(2, 6), st.lists(st.integers(0, 20), max_size=60))
def test_no_target_has_more_than_its_bound_in_flight(count: int, names: list[int]) -> None:
    """Requests that do not end, of a few sessions: the worst that can come."""
    affinity: Affinity[str] = Affinity()
    in_flight = Counter[str]()
    for place, name in enumerate(names):
        made = [
            Candidate(candidate.target, 1.0, in_flight[candidate.target.provider])
            for candidate in candidates(count)
        ]
        chosen = affinity.arranged(made, SESSIONS[name], NOW, ttl_s=TTL_S, is_hard=False)[0].provider
        in_flight[chosen] += 1
        assert in_flight[chosen] <= math.ceil(MAX_LOAD * (place + 1) / count)


# Pins


def arranged(
    affinity: Affinity[str],
    made: list[Candidate[str]],
    session: bytes = SESSIONS[0],
    now: float = NOW,
    *,
    is_hard: bool = False,
) -> list[str]:
    targets = affinity.arranged(made, session, now, ttl_s=TTL_S, is_hard=is_hard)
    return [target.provider for target in targets]


def served(affinity: Affinity[str], *attempts: tuple[str, str], session: bytes = SESSIONS[0]) -> None:
    record = RequestRecord("id", "POST", "/", session=session)
    record.attempts = [Attempt(f"{provider}/m", outcome) for provider, outcome in attempts]
    record.finish((affinity.observe,))


@pytest.fixture
def affinity() -> Affinity[str]:
    return Affinity()


def test_a_session_keeps_its_target(affinity: Affinity[str]) -> None:
    made = candidates(4)
    order = arranged(affinity, made)
    assert order == [candidate.target.provider for candidate in ranked(made, SESSIONS[0])]
    served(affinity, (order[0], "ok"))
    assert arranged(affinity, made, now=NOW + 60) == order


@given(
    st.lists(st.tuples(st.sampled_from([0.5, 1.0, 3.0]), st.integers(0, 6)), min_size=2, max_size=5),
    st.integers(0, 50),
)
def test_what_is_kept_is_what_would_be_arranged(loads: list[tuple[float, int]], name: int) -> None:
    affinity, session = Affinity[str](), SESSIONS[name]
    peers = []
    for number, (weight, in_flight) in enumerate(loads):
        load = TargetLoad(TargetSettings(f"t{number}", "m"))
        target = Target(f"t{number}", "m", f"t{number}/m", load=load)
        peers.append((Choice((target,), weight=weight), target))
        for _ in range(in_flight):
            load.begin(NOW)

    def again() -> list[str]:
        made = [Candidate(target, choice.weight, choice.in_flight_of(target)) for choice, target in peers]
        return arranged(affinity, made, session)

    assert affinity.kept(peers, session, NOW) is None
    first_time, second_time = again(), again()
    kept = affinity.kept(peers, session, NOW)
    if kept is None:  # its own target is at the bound
        assert second_time == first_time
    else:
        assert kept[0].provider == second_time[0]
        assert sorted(target.provider for target in kept) == sorted(second_time)
    peers[0][1].rate_limit.limit(NOW, 5.0)
    assert affinity.kept(peers, session, NOW) is None
    assert affinity.kept(peers, session, NOW + TTL_S) is None


def test_a_session_that_moves_is_not_kept_where_it_was(affinity: Affinity[str]) -> None:
    made = candidates(2)
    peers = [(Choice((c.target,)), c.target) for c in made]
    own, second = arranged(affinity, made)
    arranged(affinity, made)
    assert affinity.kept(peers, SESSIONS[0], NOW) is not None
    served(affinity, (own, "upstream_error"), (second, "ok"))
    assert affinity.kept(peers, SESSIONS[0], NOW) is None
    assert arranged(affinity, made) == [second, own]
    kept = affinity.kept(peers, SESSIONS[0], NOW)
    assert kept is not None
    assert kept[0].provider == second


def test_an_overloaded_target_gets_its_sessions_back(affinity: Affinity[str]) -> None:
    made = candidates(3)
    own, second, third = arranged(affinity, made)
    busy = [Candidate(c.target, 1.0, 9 if c.target.provider == own else 0) for c in made]
    assert arranged(affinity, busy) == [second, third, own]
    served(affinity, (second, "ok"))
    assert arranged(affinity, made)[0] == own


def test_a_session_that_began_elsewhere_stays_there(affinity: Affinity[str]) -> None:
    made = candidates(3)
    own = first(ranked(made, SESSIONS[0]))
    busy = [Candidate(c.target, 1.0, 9 if c.target.provider == own else 0) for c in made]
    spilled = arranged(affinity, busy)[0]
    assert spilled != own
    assert arranged(affinity, made)[0] == spilled


@pytest.mark.parametrize("outcome", ["upstream_error", "circuit_open", "rate_limited"])
def test_a_failure_moves_the_session(affinity: Affinity[str], outcome: str) -> None:
    made = candidates(3)
    own, second, _ = arranged(affinity, made)
    served(affinity, (own, outcome), (second, "ok"))
    assert arranged(affinity, made)[0] == second


def test_a_faster_second_attempt_moves_nothing(affinity: Affinity[str]) -> None:
    made = candidates(2)
    own, second = arranged(affinity, made)
    served(affinity, (own, "hedge_lost"), (second, "ok"))
    assert arranged(affinity, made) == [own, second]


def test_a_failure_of_all_moves_nothing(affinity: Affinity[str]) -> None:
    made = candidates(2)
    own, second = arranged(affinity, made)
    served(affinity, (own, "upstream_error"), (second, "upstream_error"))
    served(affinity)
    assert arranged(affinity, made) == [own, second]


def test_a_target_that_cannot_be_asked_now_loses_the_session(affinity: Affinity[str]) -> None:
    made = candidates(3)
    own, second, third = arranged(affinity, made)
    limited = next(c.target for c in made if c.target.provider == own)
    limited.rate_limit.limit(NOW, 5.0)
    assert arranged(affinity, made) == [second, third, own]
    assert arranged(affinity, made, now=NOW + 6)[0] == second


def test_a_session_is_forgotten_with_the_providers_cache(affinity: Affinity[str]) -> None:
    made = candidates(3)
    own, second, _ = arranged(affinity, made)
    served(affinity, (own, "upstream_error"), (second, "ok"))
    assert arranged(affinity, made, now=NOW + TTL_S - 1)[0] == second  # which begins the time anew
    assert arranged(affinity, made, now=NOW + 2 * TTL_S - 2)[0] == second
    assert arranged(affinity, made, now=NOW + 3 * TTL_S)[0] == own


def test_what_only_its_target_can_read_ignores_the_load(affinity: Affinity[str]) -> None:
    made = candidates(3)
    own = arranged(affinity, made, is_hard=True)[0]
    served(affinity, (own, "ok"))
    busy = [Candidate(c.target, 1.0, 9 if c.target.provider == own else 0) for c in made]
    assert arranged(affinity, busy, is_hard=True)[0] == own
    assert arranged(affinity, busy)[0] != own


def test_what_only_its_target_can_read_waits_for_it(affinity: Affinity[str]) -> None:
    made = candidates(3)
    own = arranged(affinity, made, is_hard=True)[0]
    served(affinity, (own, "ok"))
    next(c.target for c in made if c.target.provider == own).rate_limit.limit(NOW, 5.0)
    assert arranged(affinity, made, is_hard=True) == [own]


def test_the_number_of_pins_is_limited(affinity: Affinity[str]) -> None:
    made = candidates(2)
    names = [digest("", "", str(number)) for number in range(MAX_PINS + 1)]
    own, second = arranged(affinity, made, names[0])
    served(affinity, (own, "upstream_error"), (second, "ok"), session=names[0])
    for session in names[1:-1]:
        arranged(affinity, made, session)
    assert arranged(affinity, made, names[0]) == [second, own]
    for session in names[1:]:
        arranged(affinity, made, session)
    assert arranged(affinity, made, names[0]) == [own, second]


# Pins of several workers


@pytest.fixture
def workers() -> list[Affinity[str]]:
    memory = SharedMemory()
    return [Affinity(SharedPins(memory)) for _ in range(2)]


def test_a_session_stays_where_another_worker_has_begun_it(workers: list[Affinity[str]]) -> None:
    made, (one, other) = candidates(3), workers
    own = first(ranked(made, SESSIONS[0]))
    busy = [Candidate(c.target, 1.0, 9 if c.target.provider == own else 0) for c in made]
    spilled = arranged(one, busy)[0]
    assert spilled != own
    assert arranged(other, made)[0] == spilled
    assert arranged(other, made, SESSIONS[1])[0] == first(ranked(made, SESSIONS[1]))


def test_all_workers_follow_a_session_that_moves(workers: list[Affinity[str]]) -> None:
    made, (one, other) = candidates(3), workers
    peers = [(Choice((c.target,)), c.target) for c in made]
    own, second, _ = arranged(one, made)
    for _ in range(2):
        arranged(other, made)
    served(one, (own, "upstream_error"), (second, "ok"))
    kept = other.kept(peers, SESSIONS[0], NOW + TRUST_S / 2)
    assert kept is not None
    assert kept[0].provider == own  # its own pin is trusted for so long
    assert other.kept(peers, SESSIONS[0], NOW + TRUST_S) is None
    assert arranged(other, made, now=NOW + TRUST_S)[0] == second
    kept = other.kept(peers, SESSIONS[0], NOW + 3 * TRUST_S)
    assert kept is not None
    assert kept[0].provider == second


def test_a_pin_that_is_used_anywhere_is_kept_everywhere(workers: list[Affinity[str]]) -> None:
    made, (one, other) = candidates(3), workers
    own, second, _ = arranged(one, made)
    served(one, (own, "upstream_error"), (second, "ok"))
    assert arranged(other, made, now=NOW + TTL_S - 1)[0] == second
    assert arranged(one, made, now=NOW + TTL_S + 1)[0] == second
    assert arranged(one, made, now=NOW + 3 * TTL_S)[0] == own


def test_all_workers_know_that_a_session_has_been_answered(workers: list[Affinity[str]]) -> None:
    made, (one, other) = candidates(3), workers
    own = arranged(one, made, is_hard=True)[0]
    served(one, (own, "ok"))
    next(c.target for c in made if c.target.provider == own).rate_limit.limit(NOW, 5.0)
    assert arranged(other, made, is_hard=True) == [own]


def test_a_shared_pin_to_a_target_that_a_worker_does_not_have_is_ignored(
    workers: list[Affinity[str]],
) -> None:
    one, other = workers
    made = candidates(3)
    own = arranged(one, made)[0]
    rest = [candidate for candidate in made if candidate.target.provider != own]
    assert arranged(other, rest)[0] == first(ranked(rest, SESSIONS[0]))


def test_without_the_memory_each_worker_goes_by_its_own() -> None:
    memory = SharedMemory()
    alone: Affinity[str] = Affinity(SharedPins(memory))
    memory.close()
    made = candidates(3)
    own, second, _ = arranged(alone, made)
    served(alone, (own, "upstream_error"), (second, "ok"))
    for seconds in (0.0, 2 * TRUST_S, TTL_S):
        assert arranged(alone, made, now=NOW + seconds)[0] == second
