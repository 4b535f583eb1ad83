"""What all workers know of a target, out of what each has shown, some time ago."""

from __future__ import annotations

import json
from typing import Any

from sanic_proxy.errors import UpstreamUnavailable
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.routing.breaker import BreakerRegistry
from sanic_proxy.routing.overview import MAX_SHOWN, merged, shown_targets
from sanic_proxy.routing.statistics import StatisticsRegistry

NAME = ("groq", 0, "m", "/chat/completions")
LABEL = "groq/m"
WALL = 1_795_867_200.0  # 2026-11-28T12:00:00Z


class Worker:
    """The targets of one worker, at a time of its own."""

    def __init__(self) -> None:
        self.statistics = StatisticsRegistry(is_complete=True)
        self.registry = BreakerRegistry(random=lambda: 0.0)
        self.circuit = self.registry.target(*NAME, LABEL)
        found = self.statistics.target(*NAME, LABEL, is_needed=False)
        assert found is not None
        self.target = found

    def answer(self, now: float, elapsed_s: float = 0.1, prompt: int = 100, cached: int = 0) -> None:
        record = RequestRecord("x", "POST", "/v1/chat/completions", started=now)
        record.usage = {"prompt_tokens": prompt, "prompt_tokens_details": {"cached_tokens": cached}}
        self.target.begin()
        self.target.record_answer(elapsed_s, record, now)
        self.target.observe(record)

    def fail(self, now: float, message: str = "no") -> None:
        error = UpstreamUnavailable(message, upstream_status=503)
        self.circuit.record_failure(error, "target", now, self.circuit.generation)

    def shown(self, now: float) -> Any:
        """As another process reads it."""
        return json.loads(json.dumps(shown_targets(self.statistics, self.registry, now)))


def only(found: list[dict[str, Any]]) -> dict[str, Any]:
    (target,) = found
    return target


def test_requests_and_tokens_are_added_up() -> None:
    one, other = Worker(), Worker()
    one.answer(100, prompt=300, cached=100)
    other.answer(100)
    other.answer(101)
    other.target.begin()
    target = only(merged([(0, one.shown(102)), (5, other.shown(97))], WALL))
    assert (target["target"], target["endpoint"]) == (LABEL, "/chat/completions")
    assert (target["requests"], target["answered"], target["failures"], target["in_flight"]) == (3, 3, 0, 1)
    assert (target["prompt_tokens"], target["cached_tokens"], target["cached_share"]) == (500, 100, 0.2)
    assert target["first_content_ms"] > 0
    assert target["last_error"] is None


def test_the_worst_circuit_and_the_last_error_are_shown() -> None:
    one, other, idle = Worker(), Worker(), Worker()
    for _ in range(5):
        one.fail(100, "first")
    other.fail(103, "last")
    shown = [(0.0, one.shown(104)), (0.0, other.shown(104)), (0.0, idle.shown(104))]
    target = only(merged(shown, WALL))
    circuit = target["circuit"]
    assert (circuit["state"], circuit["open_in"], circuit["retry_in_s"]) == ("open", 1, 1.0)
    assert circuit["last_error"] == "503 upstream_unavailable: last"
    assert circuit["last_error_s_ago"] == 1.0
    assert target["last_error"] == {
        "code": "503 upstream_unavailable",
        "message": "last",
        "time": "2026-11-28T11:59:59Z",
    }


def test_times_go_on_since_they_were_shown() -> None:
    worker = Worker()
    for _ in range(5):
        worker.fail(100)
    limit = worker.registry.rate_limit("groq", 0, "m")
    limit.limit(100, 8.0)
    shown = worker.shown(101)
    states = {}
    for age_s in (0, 3, 4, 60):
        target = only(merged([(age_s, shown)], WALL))
        circuit = target["circuit"]
        states[age_s] = circuit["state"], circuit["retry_in_s"], target["rate_limit"]["retry_in_s"]
        assert circuit["last_error_s_ago"] == 1 + age_s
    assert states == {
        0: ("open", 4.0, 7.0),
        3: ("open", 1.0, 4.0),
        4: ("half_open", 0.0, 3.0),
        60: ("half_open", 0.0, None),
    }


def test_of_a_limit_the_least_that_is_left_is_shown() -> None:
    workers = [Worker(), Worker()]
    for worker, left in zip(workers, ("7", "3"), strict=True):
        headers = {
            "x-ratelimit-limit-requests": "100",
            "x-ratelimit-remaining-requests": left,
            "x-ratelimit-reset-requests": "30s",
        }
        worker.registry.rate_limit("groq", 0, "m").observe(headers, 100)
    shown = [(10.0, worker.shown(100)) for worker in workers]
    limits = only(merged(shown, WALL))["rate_limit"]
    assert limits == {
        "retry_in_s": None,
        "left": {"x-ratelimit-remaining-requests": {"left": 3, "limit": 100, "reset_in_s": 20.0}},
    }
    assert only(merged([(30.0, shown[0][1])], WALL))["rate_limit"]["left"] == {}


def test_the_targets_that_were_used_last_are_shown() -> None:
    worker = Worker()
    for number in range(2 * MAX_SHOWN):
        worker.statistics.target("groq", 0, f"m{number}", "/x", f"groq/m{number}", is_needed=False)
    shown = worker.shown(100)
    assert [one["target"] for one in shown[:2]] == [
        f"groq/m{2 * MAX_SHOWN - 1}",
        f"groq/m{2 * MAX_SHOWN - 2}",
    ]
    assert len(shown) == MAX_SHOWN
