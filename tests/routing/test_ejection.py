"""At most half of a model's targets are out of use by open circuits, and never the last one."""

from __future__ import annotations

import pytest

from sanic_proxy import errors
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.routing.breaker import IN_A_ROW, CircuitBreaker
from sanic_proxy.routing.ejection import stays_in_use
from sanic_proxy.routing.policy import Blame
from sanic_proxy.routing.targets import Limits, RetryState, Target

DOWN = errors.UpstreamError("down", upstream_status=500)
NOW = 100.0


def circuit(opened_at: float | None = None, fault: Blame = "target") -> CircuitBreaker:
    made = CircuitBreaker(jitter=lambda: 0.0)
    if opened_at is not None:
        for _ in range(IN_A_ROW[fault]):
            made.record_failure(DOWN, fault, opened_at, made.generation)
    return made


def used(*opened_at: float | None, denied: tuple[int, ...] = ()) -> list[int]:
    """The places of the targets that get requests; None: its circuit is closed."""
    circuits = [
        (circuit(at, "access" if place in denied else "target"), circuit())
        for place, at in enumerate(opened_at)
    ]
    return [
        place
        for place, (health, _) in enumerate(circuits)
        if not health.is_open or stays_in_use(place, circuits)
    ]


@pytest.mark.parametrize(
    ("opened_at", "expected"),
    [
        ((1.0,), []),  # a single target
        ((None,), [0]),
        ((1.0, None), [1]),
        ((1.0, 2.0), [1]),  # the later one
        ((2.0, 1.0), [0]),
        ((1.0, 1.0), [1]),
        ((1.0, None, 2.0), [1, 2]),
        ((1.0, 2.0, 3.0), [1, 2]),
        ((4.0, 1.0, 2.0, 3.0), [0, 3]),
        ((None, 1.0, 2.0, None), [0, 3]),
    ],
)
def test_at_most_half_is_ejected(opened_at: tuple[float | None, ...], expected: list[int]) -> None:
    assert used(*opened_at) == expected


def test_a_denied_target_is_not_used_and_counts() -> None:
    assert used(1.0, 2.0, denied=(0,)) == [1]
    assert used(2.0, 1.0, denied=(0,)) == [1]
    assert used(1.0, 2.0, denied=(0, 1)) == []


def test_a_rejected_key_counts() -> None:
    circuits = [(circuit(), circuit(5.0, "key")), (circuit(1.0), circuit())]
    assert stays_in_use(1, circuits)


def test_requests_go_to_the_target_that_is_left_and_its_success_closes_it() -> None:
    targets = [
        Target(name, name, name, health=circuit(opened_at))
        for name, opened_at in (("a", NOW - 2), ("b", NOW - 1))
    ]

    def state() -> RetryState[str]:
        return RetryState(targets, Limits(), RequestRecord("id", "POST", "/"), clock=lambda: NOW)

    for _ in range(3):
        failing = state()
        assert failing.next() is targets[1]
        assert failing.record_failure(DOWN) is None
    served = state()
    assert served.next() is targets[1]
    served.record_success()
    assert not targets[1].health.is_open
    assert targets[0].health.is_open


def test_a_target_for_special_causes_is_not_one_of_the_models() -> None:
    targets = [
        Target("a", "a", "a", health=circuit(NOW - 2)),
        Target("b", "b", "b", health=circuit(NOW - 1), only_after="content_filter"),
    ]
    state = RetryState(targets, Limits(), RequestRecord("id", "POST", "/"), clock=lambda: NOW)
    with pytest.raises(errors.CircuitOpen):
        state.next()
