"""The limits of a target, and what it has in flight."""

from __future__ import annotations

from sanic_proxy.config.targets import TargetSettings
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.routing.load import TargetLoad

START = 600.0  # a minute begins


def load(
    workers: int = 1, rpm: int | None = None, tpm: int | None = None, concurrent: int | None = None
) -> TargetLoad:
    return TargetLoad(TargetSettings("p", "m", rpm=rpm, tpm=tpm, concurrent=concurrent), workers)


def answered(load: TargetLoad, tokens: object) -> None:
    record = RequestRecord("id", "POST", "/", usage={"total_tokens": tokens})
    record.observer = load.observe
    record.finish(())


def test_requests_per_minute_are_free_again_in_the_next_minute() -> None:
    limited = load(rpm=2)
    for second in (0, 10):
        assert limited.refusal(START + second, "p/m") is None
        limited.begin(START + second)
        limited.end()
    refusal = limited.refusal(START + 45.5, "p/m")
    assert refusal is not None
    assert refusal.retry_after_s == 15
    assert "requests per minute to p/m" in refusal.message
    assert limited.refusal(START + 60, "p/m") is None


def test_tokens_count_when_the_answer_ends() -> None:
    limited = load(tpm=100)
    limited.begin(START)
    assert limited.refusal(START + 1, "p/m") is None
    answered(limited, 100)
    assert limited.in_flight == 0
    refusal = limited.refusal(START + 2, "p/m")
    assert refusal is not None
    assert "tokens per minute" in refusal.message
    assert limited.refusal(START + 61, "p/m") is None


def test_a_count_that_is_no_number_is_ignored() -> None:
    limited = load(tpm=1)
    for odd in (None, "9", True, -5, 1.5):
        limited.begin(START)
        answered(limited, odd)
    assert limited.refusal(START + 1, "p/m") is None


def test_requests_in_flight_are_limited() -> None:
    limited = load(concurrent=1)
    limited.begin(START)
    assert limited.refusal(START, "p/m") is not None
    limited.end()
    assert limited.refusal(START, "p/m") is None


def test_a_worker_keeps_to_its_share() -> None:
    limited = load(workers=4, rpm=6)
    for _ in range(2):
        assert limited.refusal(START, "p/m") is None
        limited.begin(START)
    assert limited.refusal(START, "p/m") is not None
