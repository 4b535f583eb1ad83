"""Which worker probes a target: two `Probes` on one memory are two workers."""

from __future__ import annotations

import pytest

from sanic_proxy import errors
from sanic_proxy.routing.breaker import IN_A_ROW, LAST_RESORT_S, MAX_OPEN_S, OPEN_S, PERMIT_S, CircuitBreaker
from sanic_proxy.routing.probes import ALIVE, Probes, probe_key
from sanic_proxy.state_store.shared import Layout, SharedMemory

KEY = probe_key("groq", 0, "llama", "POST /chat/completions")
OPENED = 100.0
HALF_OPEN = OPENED + OPEN_S
DOWN = errors.UpstreamError("down")
DENIED = errors.UpstreamAccessDenied("not yours")


def two(*, cells: int = 16) -> list[Probes]:
    memory = SharedMemory(layout=Layout(cells=cells))
    return [Probes(memory), Probes(memory)]


def opened(*, is_denied: bool = False, cells: int = 16) -> list[CircuitBreaker]:
    """The circuits of one target in two workers, both open since `OPENED`."""
    circuits = [
        CircuitBreaker("groq/llama", jitter=lambda: 0.0, probes=probes, probe_key=KEY)
        for probes in two(cells=cells)
    ]
    for circuit in circuits:
        for _ in range(IN_A_ROW["target"]):
            error = DENIED if is_denied else DOWN
            circuit.record_failure(error, "access" if is_denied else "target", OPENED, circuit.generation)
    return circuits


def test_a_target_that_another_worker_probes_is_not_usable() -> None:
    first, second = opened()
    assert not first.is_usable(OPENED)
    assert first.is_usable(HALF_OPEN)
    assert first.admit(HALF_OPEN) is None
    assert not first.is_usable(HALF_OPEN)
    assert second.is_usable(HALF_OPEN)  # it has not looked yet
    assert second.admit(HALF_OPEN) is not None
    assert not second.is_usable(HALF_OPEN)
    assert second.is_usable(HALF_OPEN + PERMIT_S)
    first.record_success(first.generation, HALF_OPEN + 1)
    assert first.is_usable(HALF_OPEN + 1)


def test_a_lease_keeps_other_workers_out_until_it_ends() -> None:
    first, second = two()
    assert first.take(KEY, 10.0, 5.0, 1.0) == 0.0
    assert second.take(KEY, 12.0, 5.0, 1.0) == 15.0
    assert first.take(KEY, 12.0, 5.0, 1.0) == 0.0  # its own
    assert second.take(KEY, 17.0, 5.0, 1.0) == 0.0


def test_a_lease_is_given_back_by_its_holder_only() -> None:
    first, second = two()
    assert first.take(KEY, 10.0, 5.0, 1.0) == 0.0
    second.end(KEY, 11.0)
    assert second.take(KEY, 11.0, 5.0, 1.0) == 15.0
    first.end(KEY, 11.0)
    assert second.take(KEY, 11.0, 5.0, 1.0) == 0.0


def test_targets_do_not_share_leases() -> None:
    first, second = two()
    assert first.take(KEY, 10.0, 5.0, 1.0) == 0.0
    assert second.take(probe_key("groq", 1, "llama", "POST /chat/completions"), 10.0, 5.0, 1.0) == 0.0


def test_an_answer_counts_for_workers_whose_failure_is_older() -> None:
    first, second = two()
    first.end(KEY, 10.0, has_answered=True)
    assert second.take(KEY, 12.0, 5.0, 9.0) == ALIVE
    assert second.take(KEY, 12.0, 5.0, 11.0) == 0.0


def test_one_worker_probes_and_its_success_closes_the_circuit_of_all() -> None:
    first, second = opened()
    assert first.admit(HALF_OPEN) is None
    refusal = second.admit(HALF_OPEN)
    assert refusal is not None
    assert refusal.retry_after_s == PERMIT_S
    first.record_success(first.generation, HALF_OPEN + 1)
    assert not first.is_open
    assert second.admit(HALF_OPEN + 1) is None
    assert second.admit(HALF_OPEN + 1) is None
    assert not second.is_open


def test_a_probe_that_fails_is_the_failure_of_all() -> None:
    first, second = opened()
    assert first.admit(HALF_OPEN) is None
    first.record_failure(DOWN, "target", HALF_OPEN, first.generation)
    pause_s = 2 * OPEN_S
    refusal = second.admit(HALF_OPEN)
    assert refusal is not None
    assert refusal.retry_after_s == pause_s
    assert second.admit(HALF_OPEN + pause_s - 0.1) is not None
    assert [circuit.admit(HALF_OPEN + pause_s) is None for circuit in (second, first)] == [True, False]


def test_a_worker_that_dies_with_the_lease_holds_nobody_up_for_long() -> None:
    first, second = opened()
    assert first.admit(HALF_OPEN) is None
    assert second.admit(HALF_OPEN + PERMIT_S - 0.1) is not None
    assert second.admit(HALF_OPEN + PERMIT_S) is None


def test_a_probe_whose_client_leaves_gives_the_lease_back() -> None:
    first, second = opened()
    assert first.admit(HALF_OPEN) is None
    first.release(first.generation)
    assert second.admit(HALF_OPEN) is None


def test_denied_targets_are_tried_as_a_last_resort_once_a_second_by_all_workers_together() -> None:
    circuits = opened(is_denied=True)
    tried = 0
    for step in range(100):
        now = OPENED + LAST_RESORT_S + step / 10
        for circuit in circuits:
            if circuit.admit_as_last_resort(now):
                tried += 1
                circuit.record_failure(DENIED, "access", now, circuit.generation)
    assert tried == 10
    assert MAX_OPEN_S > LAST_RESORT_S


@pytest.mark.row(84)
def test_without_room_each_worker_probes_for_itself() -> None:
    first, second = opened(cells=0)
    assert [circuit.admit(HALF_OPEN) is None for circuit in (first, second)] == [True, True]
