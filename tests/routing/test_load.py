"""The limits of a target, and what it has in flight."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.config.targets import TargetSettings
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.routing.load import LEASE_S, MAX_RETRY_S, TargetLoad
from sanic_proxy.state_store.shared import Layout, SharedMemory

START = 600.0


def load(
    workers: int = 1, rpm: int | None = None, tpm: int | None = None, concurrent: int | None = None
) -> TargetLoad:
    settings = TargetSettings("p", "m", rpm=rpm, tpm=tpm, concurrent=concurrent)
    return TargetLoad(settings, workers, clock=lambda: START + 1)


def answered(load: TargetLoad, tokens: object) -> None:
    record = RequestRecord("id", "POST", "/", usage={"total_tokens": tokens})
    record.observer = load.observe
    record.finish(())


def test_requests_per_minute_are_free_again_a_minute_later() -> None:
    limited = load(rpm=2)
    for second in (0, 10):
        assert limited.take(START + second, "p/m") is None
        limited.end()
    refusal = limited.take(START + 45.5, "p/m")
    assert refusal is not None
    assert (refusal.wait_s, refusal.retry_after_s) == (19.5, 20)
    assert refusal.message == (
        "The proxy's own limit of requests per minute to p/m is reached; retry in 20 s"
    )
    assert limited.take(START + 65, "p/m") is None
    assert limited.take(START + 65, "p/m") is not None


def test_a_refusal_allows_for_those_that_wait() -> None:
    limited = load(rpm=2)
    for second in (0, 10):
        assert limited.refusal(START + second, "p/m") is None
        assert limited.take(START + second, "p/m") is None
    waits = [limited.refusal(START + 20, "p/m", ahead) for ahead in range(3)]
    assert [refusal and refusal.wait_s for refusal in waits] == [45.0, 55.0, MAX_RETRY_S]


def test_tokens_count_when_the_answer_ends() -> None:
    limited = load(tpm=100)
    assert limited.take(START, "p/m") is None
    assert limited.refusal(START + 1, "p/m") is None
    answered(limited, 100)
    assert limited.in_flight == 0
    refusal = limited.refusal(START + 2, "p/m")
    assert refusal is not None
    assert "tokens per minute" in refusal.message
    assert limited.refusal(START + 66, "p/m") is None


def test_a_count_that_is_no_number_is_ignored() -> None:
    limited = load(tpm=1)
    for odd in (None, "9", True, -5, 1.5):
        limited.begin(START)
        answered(limited, odd)
    assert limited.refusal(START + 1, "p/m") is None


def test_a_count_beyond_all_numbers_blocks_the_target_for_no_more_than_its_minute() -> None:
    limited = load(tpm=1)
    limited.begin(START)
    answered(limited, 10**400)
    assert limited.in_flight == 0
    assert limited.take(START + 1, "p/m") is not None
    assert limited.take(START + 66, "p/m") is None


def test_requests_in_flight_are_limited() -> None:
    limited = load(concurrent=1)
    assert limited.take(START, "p/m") is None
    assert limited.take(START, "p/m") is not None
    limited.end()
    assert limited.take(START, "p/m") is None


def test_a_request_that_is_sent_in_any_case_counts() -> None:
    limited = load(rpm=1, concurrent=5)
    limited.begin(START)
    assert limited.in_flight == 1
    assert limited.refusal(START, "p/m") is not None


def two(
    layout: Layout | None = None, rpm: int | None = None, concurrent: int | None = None
) -> list[TargetLoad]:
    """The loads of one target in two workers."""
    memory = SharedMemory(layout=layout)
    settings = TargetSettings("p", "m", rpm=rpm, concurrent=concurrent)
    return [TargetLoad(settings, 2, memory, ("target", "a")) for _ in range(2)]


def test_limits_count_over_all_workers() -> None:
    first, second = two(rpm=3)
    taken = [worker.take(START, "p/m") is None for worker in (first, first, first, second)]
    assert taken == [True, True, True, False]
    first, second = two(concurrent=1)
    assert first.take(START, "p/m") is None
    assert second.take(START, "p/m") is not None
    assert second.in_flight == 1
    first.end()
    assert second.take(START, "p/m") is None


def test_targets_with_other_names_have_limits_of_their_own() -> None:
    memory = SharedMemory()
    settings = TargetSettings("p", "m", rpm=1, concurrent=1)
    for name in ("a", "b"):
        assert TargetLoad(settings, 2, memory, ("target", name)).take(START, "p/m") is None


def test_an_old_state_and_a_new_one_count_together() -> None:
    old, new = two()
    assert old.take(START, "p/m") is None
    assert new.take(START, "p/m") is None
    assert (old.in_flight, new.in_flight) == (2, 2)
    old.end()
    assert new.in_flight == 1


@pytest.mark.row(84)
def test_without_room_a_worker_keeps_to_its_share() -> None:
    none = Layout(cells=0, gauges=0)
    first, second = two(none, rpm=3)
    for worker in (first, second):
        assert [worker.take(START, "p/m") is None for _ in range(3)] == [True, True, False]
    first, second = two(none, concurrent=1)
    assert [worker.take(START, "p/m") is None for worker in (first, second, first)] == [True, True, False]
    assert first.in_flight == 1


# Leases


class Workers:
    """The loads of one target in several workers, and the timers that they have set."""

    def __init__(
        self, count: int, *, rpm: int | None = None, tpm: int | None = None, concurrent: int | None = None
    ) -> None:
        self.now = START
        self.timers: list[tuple[float, Callable[[], None]]] = []
        memory = SharedMemory()
        settings = TargetSettings("p", "m", rpm=rpm, tpm=tpm, concurrent=concurrent)
        self.loads = [
            TargetLoad(settings, count, memory, ("t",), lambda: self.now, self.later) for _ in range(count)
        ]

    def later(self, delay_s: float, callback: Callable[[], None]) -> None:
        self.timers.append((self.now + delay_s, callback))

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if timer[0] <= self.now]
        self.timers = [timer for timer in self.timers if timer not in due]
        for _, callback in due:
            callback()

    def take(self, worker: int) -> bool:
        return self.loads[worker].take(self.now, "p/m") is None


def test_what_one_worker_has_leased_and_not_used_is_there_for_the_others() -> None:
    workers = Workers(2, rpm=1000)
    assert workers.take(0)
    first = sum(workers.take(1) for _ in range(2000))
    assert first < 999  # the rest is leased to the other one
    workers.pass_time(LEASE_S)
    assert first + sum(workers.take(1) for _ in range(2000)) == 999
    assert not workers.take(0)


@given(
    st.integers(1, 3),
    st.integers(1, 400),
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 90), st.floats(0, 9)), max_size=40),
)
def test_no_minute_has_more_than_the_limit_of_all_workers(
    count: int, rpm: int, steps: list[tuple[int, int, float]]
) -> None:
    workers = Workers(count, rpm=rpm)
    taken: list[float] = []
    for worker, attempts, pause_s in steps:
        taken += [workers.now for _ in range(attempts) if workers.take(worker % count)]
        workers.pass_time(pause_s)
    for began in taken:
        assert sum(began <= at < began + 60 for at in taken) <= rpm
    workers.pass_time(70)
    assert sum(workers.take(0) for _ in range(rpm + 5)) == rpm


@given(
    st.integers(1, 3), st.integers(1, 40), st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=200)
)
def test_no_more_are_in_flight_than_the_limit(
    count: int, concurrent: int, steps: list[tuple[int, bool]]
) -> None:
    workers = Workers(count, concurrent=concurrent)
    held = [0] * count
    for chosen, is_new in steps:
        worker = chosen % count
        if is_new:
            is_free = sum(held) < concurrent
            assert workers.take(worker) is is_free
            held[worker] += is_free
        elif held[worker]:
            workers.loads[worker].end()
            held[worker] -= 1
    assert workers.loads[0].in_flight == sum(held)


def test_tokens_that_were_used_within_a_lease_count_when_it_ends() -> None:
    workers = Workers(2, tpm=1000)
    for _ in range(4):
        assert workers.take(0)
        answered(workers.loads[0], 10)
    workers.pass_time(LEASE_S)
    assert workers.take(1)
    answered(workers.loads[1], 955)
    assert workers.take(0)
    answered(workers.loads[0], 5)
    workers.pass_time(LEASE_S)
    assert not workers.take(1)
    assert not workers.take(0)
