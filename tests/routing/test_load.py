"""The limits of a target, and what it has in flight."""

from __future__ import annotations

import pytest

from sanic_proxy.config.targets import TargetSettings
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.routing.load import MAX_RETRY_S, TargetLoad
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
