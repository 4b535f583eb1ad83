"""Sessions and their targets: the hash, the bound of the load, and the pins."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.config.targets import TargetSettings
from sanic_proxy.errors import UpstreamError
from sanic_proxy.observability.record import Attempt, Client, RequestRecord
from sanic_proxy.routing.affinity import (
    MAX_LOAD,
    MAX_PINS,
    TRUST_S,
    Affinity,
    Candidate,
    Pin,
    always_free,
    bounded,
    ranked,
)
from sanic_proxy.routing.load import TargetLoad
from sanic_proxy.routing.selection import Choice
from sanic_proxy.routing.sessions import digest
from sanic_proxy.routing.shared_pins import SharedPins
from sanic_proxy.routing.targets import Target
from sanic_proxy.state_store.shared import SharedMemory

NOW, TTL_S = 1000.0, 300.0
CLIENT = Client("client", "client")
SESSIONS = [digest("client", "model", str(number)) for number in range(2000)]

Peers = list[tuple[Choice[str], Target[str]]]


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


@given(st.floats(0.01, 1.0), st.integers(0, 200), st.integers(0, 200))
def test_below_the_number_that_is_always_free_a_target_is_below_its_bound(
    share: float, own: int, others: int
) -> None:
    if own < always_free(share):
        assert own < math.ceil(MAX_LOAD * (1 + own + others) * share)
    else:
        assert own >= math.ceil(MAX_LOAD * (1 + own) * share)


def peers_of(count: int, weights: list[float] | None = None) -> Peers:
    made: Peers = []
    for number, weight in enumerate(weights or [1.0] * count):
        target = Target(f"t{number}", "m", f"t{number}/m", load=TargetLoad(TargetSettings(f"t{number}", "m")))
        made.append((Choice((target,), weight=weight), target))
    return made


def target_of(peers: Peers, provider: str) -> Target[str]:
    return next(target for _, target in peers if target.provider == provider)


@contextmanager
def busy(peers: Peers, provider: str, requests: int = 9) -> Iterator[None]:
    """So many requests are in flight at one of the targets."""
    target = target_of(peers, provider)
    for _ in range(requests):
        target.begin(NOW)
    yield
    for _ in range(requests):
        target.end()


@given(st.integers(2, 6), st.lists(st.integers(0, 20), max_size=60))
def test_no_target_has_more_than_its_bound_in_flight(count: int, names: list[int]) -> None:
    """Requests that do not end, of a few sessions: the worst that can come."""
    affinity, peers = Affinity[str](), peers_of(count)
    in_flight = Counter[str]()
    for place, name in enumerate(names):
        chosen = ask(affinity, peers, str(name))[0]
        target_of(peers, chosen).begin(NOW)
        in_flight[chosen] += 1
        assert in_flight[chosen] <= math.ceil(MAX_LOAD * (place + 1) / count)


# Pins


def pin_of(affinity: Affinity[str], name: str = "0", client: Client = CLIENT) -> Pin[str]:
    return affinity.pin(client, "model", name)


def arranged(
    affinity: Affinity[str], peers: Peers, name: str = "0", now: float = NOW, *, is_hard: bool = False
) -> list[str]:
    targets = pin_of(affinity, name).arranged(peers, now, ttl_s=TTL_S, is_hard=is_hard)
    return [target.provider for target in targets]


def kept(affinity: Affinity[str], peers: Peers, name: str = "0", now: float = NOW) -> list[str] | None:
    targets = pin_of(affinity, name).kept(peers, CLIENT, now)
    return None if targets is None else [target.provider for target in targets]


def ask(affinity: Affinity[str], peers: Peers, name: str = "0", now: float = NOW) -> list[str]:
    """As a router does it."""
    return kept(affinity, peers, name, now) or arranged(affinity, peers, name, now)


def served(affinity: Affinity[str], *attempts: tuple[str, str], name: str = "0") -> None:
    record = RequestRecord("id", "POST", "/")
    record.attempts = [Attempt(f"{provider}/m", outcome) for provider, outcome in attempts]
    pin_of(affinity, name).record_answer(record)


@pytest.fixture
def affinity() -> Affinity[str]:
    return Affinity()


def test_a_session_keeps_its_target(affinity: Affinity[str]) -> None:
    peers = peers_of(4)
    order = arranged(affinity, peers)
    assert order == [candidate.target.provider for candidate in ranked(candidates(4), SESSIONS[0])]
    served(affinity, (order[0], "ok"))
    assert arranged(affinity, peers, now=NOW + 60) == order


@given(
    st.lists(st.tuples(st.sampled_from([0.5, 1.0, 3.0]), st.integers(0, 6)), min_size=2, max_size=5),
    st.integers(0, 50),
)
def test_what_is_kept_is_what_would_be_arranged(loads: list[tuple[float, int]], name: int) -> None:
    affinity, session = Affinity[str](), str(name)
    peers = peers_of(len(loads), [weight for weight, _ in loads])
    for (_, target), (_, in_flight) in zip(peers, loads, strict=True):
        for _ in range(in_flight):
            target.begin(NOW)
    assert kept(affinity, peers, session) is None
    first_time, second_time = arranged(affinity, peers, session), arranged(affinity, peers, session)
    found = kept(affinity, peers, session)
    if found is None:  # its own target is at the bound
        assert second_time == first_time
    else:
        assert found[0] == second_time[0]
        assert sorted(found) == sorted(second_time)
    target_of(peers, second_time[0]).rate_limit.limit(NOW, 5.0)
    assert kept(affinity, peers, session) is None
    assert kept(affinity, peers, session, NOW + 2 * TTL_S) is None


def test_nothing_is_kept_for_another_client_or_other_targets(affinity: Affinity[str]) -> None:
    peers = peers_of(2)
    pin = pin_of(affinity)
    for _ in range(2):
        pin.arranged(peers, NOW, ttl_s=TTL_S)
    assert pin.kept(peers, CLIENT, NOW) is not None
    assert pin.kept(peers, Client("other", "other"), NOW) is None
    assert pin.kept(peers_of(2), CLIENT, NOW) is None


@pytest.mark.parametrize("which", ["circuit", "key", "limit"])
def test_a_target_that_is_not_usable_is_not_kept(affinity: Affinity[str], which: str) -> None:
    peers = peers_of(2)
    arranged(affinity, peers)
    own = target_of(peers, arranged(affinity, peers)[0])
    assert kept(affinity, peers) is not None
    if which == "limit":
        own.rate_limit.limit(NOW, 5.0)
    else:
        breaker = own.health if which == "circuit" else own.key_health
        for _ in range(5):
            breaker.record_failure(UpstreamError("down", upstream_status=503), "target", NOW, 0)
    assert kept(affinity, peers) is None
    assert arranged(affinity, peers)[0] != own.provider


def test_a_session_that_moves_is_not_kept_where_it_was(affinity: Affinity[str]) -> None:
    peers = peers_of(2)
    own, second = arranged(affinity, peers)
    arranged(affinity, peers)
    assert kept(affinity, peers) is not None
    served(affinity, (own, "upstream_error"), (second, "ok"))
    assert kept(affinity, peers) is None
    assert arranged(affinity, peers) == [second, own]
    assert kept(affinity, peers) == [second, own]


def test_an_overloaded_target_gets_its_sessions_back(affinity: Affinity[str]) -> None:
    peers = peers_of(3)
    own, second, third = arranged(affinity, peers)
    with busy(peers, own):
        assert ask(affinity, peers) == [second, third, own]
        served(affinity, (second, "ok"))
    assert ask(affinity, peers)[0] == own


def test_a_session_that_began_elsewhere_stays_there(affinity: Affinity[str]) -> None:
    peers = peers_of(3)
    own = first(ranked(candidates(3), SESSIONS[0]))
    with busy(peers, own):
        spilled = arranged(affinity, peers)[0]
    assert spilled != own
    assert arranged(affinity, peers)[0] == spilled


@pytest.mark.parametrize("outcome", ["upstream_error", "circuit_open", "rate_limited"])
def test_a_failure_moves_the_session(affinity: Affinity[str], outcome: str) -> None:
    peers = peers_of(3)
    own, second, _ = arranged(affinity, peers)
    served(affinity, (own, outcome), (second, "ok"))
    assert ask(affinity, peers)[0] == second


def test_a_faster_second_attempt_moves_nothing(affinity: Affinity[str]) -> None:
    peers = peers_of(2)
    own, second = arranged(affinity, peers)
    served(affinity, (own, "hedge_lost"), (second, "ok"))
    assert ask(affinity, peers) == [own, second]


def test_a_failure_of_all_moves_nothing(affinity: Affinity[str]) -> None:
    peers = peers_of(2)
    own, second = arranged(affinity, peers)
    served(affinity, (own, "upstream_error"), (second, "upstream_error"))
    served(affinity)
    assert ask(affinity, peers) == [own, second]


def test_a_target_that_cannot_be_asked_now_loses_the_session(affinity: Affinity[str]) -> None:
    peers = peers_of(3)
    own, second, third = arranged(affinity, peers)
    target_of(peers, own).rate_limit.limit(NOW, 5.0)
    assert ask(affinity, peers) == [second, third, own]
    assert ask(affinity, peers, now=NOW + 6)[0] == second


def test_a_session_is_forgotten_with_the_providers_cache(affinity: Affinity[str]) -> None:
    peers = peers_of(3)
    own, second, _ = arranged(affinity, peers)
    served(affinity, (own, "upstream_error"), (second, "ok"))
    assert ask(affinity, peers, now=NOW + TTL_S - 1)[0] == second  # which begins the time anew
    assert ask(affinity, peers, now=NOW + 2 * TTL_S - 2)[0] == second
    assert ask(affinity, peers, now=NOW + 3 * TTL_S)[0] == own


def test_a_session_that_is_in_use_is_not_forgotten(affinity: Affinity[str]) -> None:
    peers = peers_of(3)
    own, second, _ = arranged(affinity, peers)
    served(affinity, (own, "upstream_error"), (second, "ok"))
    for number in range(1, 1000):
        assert ask(affinity, peers, now=NOW + number)[0] == second


def test_what_only_its_target_can_read_ignores_the_load(affinity: Affinity[str]) -> None:
    peers = peers_of(3)
    own = arranged(affinity, peers, is_hard=True)[0]
    served(affinity, (own, "ok"))
    with busy(peers, own):
        assert kept(affinity, peers) is None
        assert arranged(affinity, peers, is_hard=True)[0] == own
        assert arranged(affinity, peers)[0] != own


def test_what_only_its_target_can_read_waits_for_it(affinity: Affinity[str]) -> None:
    peers = peers_of(3)
    own = arranged(affinity, peers, is_hard=True)[0]
    served(affinity, (own, "ok"))
    target_of(peers, own).rate_limit.limit(NOW, 5.0)
    assert kept(affinity, peers) is None
    assert arranged(affinity, peers, is_hard=True) == [own]


def test_the_number_of_pins_is_limited(affinity: Affinity[str]) -> None:
    peers = peers_of(2)
    own, second = arranged(affinity, peers, "used")
    served(affinity, (own, "upstream_error"), (second, "ok"), name="used")
    for number in range(3 * MAX_PINS):
        pin_of(affinity, f"other {number}")
        if number % 1000 == 0:
            assert ask(affinity, peers, "used")[0] == second
    for number in range(MAX_PINS):
        pin_of(affinity, f"another {number}")
    assert ask(affinity, peers, "used")[0] == own


def test_long_names_are_told_apart(affinity: Affinity[str]) -> None:
    long = "n" * 5000
    assert pin_of(affinity, long + "1") is pin_of(affinity, long + "1")
    assert pin_of(affinity, long + "1") is not pin_of(affinity, long + "2")


# Pins of several workers


@pytest.fixture
def workers() -> list[Affinity[str]]:
    memory = SharedMemory()
    return [Affinity(SharedPins(memory)) for _ in range(2)]


def test_a_session_stays_where_another_worker_has_begun_it(workers: list[Affinity[str]]) -> None:
    peers, (one, other) = peers_of(3), workers
    own = first(ranked(candidates(3), SESSIONS[0]))
    with busy(peers, own):
        spilled = arranged(one, peers)[0]
    assert spilled != own
    assert arranged(other, peers)[0] == spilled
    assert arranged(other, peers, "1")[0] == first(ranked(candidates(3), SESSIONS[1]))


def test_all_workers_follow_a_session_that_moves(workers: list[Affinity[str]]) -> None:
    peers, (one, other) = peers_of(3), workers
    own, second, _ = arranged(one, peers)
    for _ in range(2):
        arranged(other, peers)
    served(one, (own, "upstream_error"), (second, "ok"))
    found = kept(other, peers, now=NOW + TRUST_S / 2)
    assert found is not None
    assert found[0] == own  # its own pin is trusted for so long
    assert kept(other, peers, now=NOW + TRUST_S) is None
    assert arranged(other, peers, now=NOW + TRUST_S)[0] == second
    found = kept(other, peers, now=NOW + 3 * TRUST_S)
    assert found is not None
    assert found[0] == second


def test_a_pin_that_is_used_anywhere_is_kept_everywhere(workers: list[Affinity[str]]) -> None:
    peers, (one, other) = peers_of(3), workers
    own, second, _ = arranged(one, peers)
    served(one, (own, "upstream_error"), (second, "ok"))
    assert ask(other, peers, now=NOW + TTL_S - 1)[0] == second
    assert ask(one, peers, now=NOW + TTL_S + 1)[0] == second
    assert ask(one, peers, now=NOW + 3 * TTL_S)[0] == own


def test_all_workers_know_that_a_session_has_been_answered(workers: list[Affinity[str]]) -> None:
    peers, (one, other) = peers_of(3), workers
    own = arranged(one, peers, is_hard=True)[0]
    served(one, (own, "ok"))
    target_of(peers, own).rate_limit.limit(NOW, 5.0)
    assert arranged(other, peers, is_hard=True) == [own]


def test_a_shared_pin_to_a_target_that_a_worker_does_not_have_is_ignored(
    workers: list[Affinity[str]],
) -> None:
    one, other = workers
    peers = peers_of(3)
    own = arranged(one, peers)[0]
    rest = [peer for peer in peers if peer[1].provider != own]
    left = [candidate for candidate in candidates(3) if candidate.target.provider != own]
    assert arranged(other, rest)[0] == first(ranked(left, SESSIONS[0]))


def test_without_the_memory_each_worker_goes_by_its_own() -> None:
    memory = SharedMemory()
    alone: Affinity[str] = Affinity(SharedPins(memory))
    memory.close()
    peers = peers_of(3)
    own, second, _ = arranged(alone, peers)
    served(alone, (own, "upstream_error"), (second, "ok"))
    for seconds in (0.0, 2 * TRUST_S, TTL_S):
        assert ask(alone, peers, now=NOW + seconds)[0] == second
