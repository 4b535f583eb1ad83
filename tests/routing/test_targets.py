"""One request's way: which target is next, and what is told of it."""

from __future__ import annotations

import re

import pytest

from sanic_proxy import errors
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.routing.targets import Limits, RetryState, Target, label_for
from sanic_proxy.upstream.error_parser import error_from_answer


def tries(
    *names: str, limits: Limits | None = None
) -> tuple[RetryState[str], RequestRecord, list[Target[str]]]:
    record = RequestRecord("id", "POST", "/")
    targets = [Target(name, "m", f"{name}/m") for name in names]
    return RetryState(targets, limits or Limits(), record), record, targets


def status(code: int, retry_after: str = "") -> errors.ProxyError:
    return error_from_answer(code, {"retry-after": retry_after} if retry_after else {}, b"{}")


def way(record: RequestRecord) -> str:
    return re.sub(r"\d+ms", "Nms", record.route)


def test_a_success_is_told() -> None:
    way_on, record, (target,) = tries("a")
    assert way_on.next() is target
    way_on.record_success()
    assert way(record) == "a/m ok Nms"
    assert record.as_fields()["route"] == record.route


def test_a_failure_is_repeated_then_moved_then_told() -> None:
    way_on, record, _ = tries("a", "b")
    asked = []
    for _ in range(4):
        asked.append(way_on.next().provider)
        if len(asked) < 4:
            assert bool(way_on.record_failure(status(500))) == (len(asked) != 2)
    assert way_on.record_failure(status(500)) is None
    assert asked == ["a", "a", "b", "b"]
    assert way(record) == "a/m 500 Nms, a/m 500 Nms, b/m 500 Nms, b/m 500 Nms"


@pytest.mark.row(29)
def test_attempts_are_bounded_in_all() -> None:
    way_on, _, _ = tries("a", "b", "c", limits=Limits(per_target=2, in_all=3))
    for _ in range(2):
        way_on.next()
        way_on.record_failure(status(503))
    assert way_on.next().provider == "b"
    assert way_on.record_failure(status(503)) is None


def test_a_long_wait_moves_on_and_a_short_one_is_sat_out() -> None:
    way_on, _, _ = tries("a", "b")
    way_on.next()
    assert way_on.record_failure(status(429, "2")) == 2
    assert way_on.next().provider == "a"
    assert way_on.record_failure(status(429, "30")) == 0
    assert way_on.next().provider == "b"
    assert way_on.record_failure(status(429, "1")) == 1


def test_a_long_wait_without_another_target_is_the_clients() -> None:
    way_on, _, _ = tries("a")
    way_on.next()
    assert way_on.record_failure(status(429, "30")) is None


@pytest.mark.parametrize("code", [400, 404, 422])
def test_what_is_the_clients_fault_ends_it(code: int) -> None:
    way_on, _, _ = tries("a", "b")
    way_on.next()
    assert way_on.record_failure(status(code)) is None


def test_a_refused_key_is_out_for_every_model() -> None:
    way_on, record, (first, second) = tries("a", "b")
    way_on.next()
    assert way_on.record_failure(status(401)) == 0
    assert way_on.next() is second
    way_on.record_success()
    assert first.key_health.is_open
    assert not first.health.is_open
    assert way(record) == "a/m 401 Nms, b/m ok Nms"
    later: RetryState[str] = RetryState([first, second], Limits(), record)
    assert later.next() is second
    assert record.route.endswith("a/m circuit_open")


def test_where_all_are_left_alone_it_is_said_why() -> None:
    way_on, record, (target,) = tries("a")
    for _ in range(5):
        once: RetryState[str] = RetryState([target], Limits(1, 1), record)
        once.next()
        assert once.record_failure(status(500)) is None
    with pytest.raises(errors.CircuitOpen):
        way_on.next()


def test_a_client_that_leaves_says_nothing_of_the_target() -> None:
    way_on, record, (target,) = tries("a")
    way_on.next()
    way_on.release()
    way_on.release()
    assert way(record) == "a/m client_left Nms"
    assert not target.health.is_open


def test_an_answer_that_breaks_counts_against_its_target() -> None:
    _, record, (target,) = tries("a")
    for _ in range(5):
        way_on: RetryState[str] = RetryState([target], Limits(), record)
        way_on.next()
        way_on.record_stream_failure(errors.UpstreamDisconnected("cut"))
    assert target.health.is_open


@pytest.mark.parametrize(
    ("model", "number", "label"),
    [
        ("llama", 0, "groq/llama"),
        ("openai/gpt:free", 1, "groq#2/openai/gpt:free"),
        ('a\r\nb, c;"ü', 0, "groq/a__b__c___"),
        ("x" * 300, 0, "groq/" + "x" * 80),
        ("", 0, "groq"),
    ],
)
def test_a_label_is_safe_in_a_header(model: str, number: int, label: str) -> None:
    assert label_for("groq", model, number) == label


def test_what_a_target_has_said_is_worth_more_than_that_another_is_left_alone() -> None:
    way_on, record, (first, second) = tries("a", "b")
    for _ in range(5):
        once: RetryState[str] = RetryState([second], Limits(1, 1), record)
        once.next()
        assert once.record_failure(status(500)) is None
    assert way_on.next() is first
    way_on.record_failure(status(429, "40"))
    with pytest.raises(errors.RateLimited) as caught:
        way_on.next()
    assert caught.value.retry_after_s == 40


def test_a_named_provider_comes_back() -> None:
    _, record, (target,) = tries("a")
    now = 0.0
    once: RetryState[str] = RetryState([target], Limits(1, 1), record)
    once.next()
    assert once.record_failure(status(401)) is None
    assert target.key_health.is_open
    target.key_health._until = now  # its time is over
    again: RetryState[str] = RetryState([target], Limits(1, 1), record)
    assert again.next() is target
    again.record_success()
    assert not target.key_health.is_open
