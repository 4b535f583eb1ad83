"""Where a request goes that is too long for a model, or that its content filter refuses."""

from __future__ import annotations

import pytest

from sanic_proxy import errors
from sanic_proxy.config.targets import OnlyAfter, TargetSettings
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.routing.load import TargetLoad
from sanic_proxy.routing.policy import ExceededWindows, fit
from sanic_proxy.routing.targets import Limits, RetryState, Target

OBJECT: errors.ErrorObject = {"message": "no", "type": "t", "param": None, "code": None}


def too_long() -> errors.ProxyError:
    return errors.ContextLengthExceeded(OBJECT, status=400)


def filtered() -> errors.ProxyError:
    return errors.ContentFiltered(OBJECT, status=400)


def target(name: str, window: int | None = None, only_after: OnlyAfter = "", model: str = "") -> Target[str]:
    return Target(name, model or name, name, context_window=window, only_after=only_after)


def asked(
    *targets: Target[str], error: errors.ProxyError | None = None, fails: tuple[str, ...] = ("a",)
) -> str:
    """The targets that are asked while those in `fails` answer `error`."""
    state = RetryState(targets, Limits(2, 10), RequestRecord("id", "POST", "/"))
    names = ""
    while True:
        current = state.next()
        names += current.provider
        if current.provider not in fails:
            state.record_success()
            return names
        if state.record_failure(error or too_long()) is None:
            return names


@pytest.mark.parametrize(
    ("exceeded", "window", "expected"),
    [
        (ExceededWindows(), None, "yes"),
        (ExceededWindows(("x",), 8), 9, "yes"),
        (ExceededWindows(("x",), 8), 8, "no"),
        (ExceededWindows(("x",), 8), None, "perhaps"),
        (ExceededWindows(("x",), None), 9, "perhaps"),
        (ExceededWindows(("m",), 8), 9, "no"),
        (ExceededWindows(("x", "y"), 8), None, "no"),
        (ExceededWindows(("x", "y"), 8), 9, "yes"),
    ],
)
def test_whether_a_model_may_be_large_enough(
    exceeded: ExceededWindows, window: int | None, expected: str
) -> None:
    assert fit(exceeded, "m", window) == expected


def test_the_largest_known_window_counts() -> None:
    exceeded = ExceededWindows().and_of("x", None).and_of("y", 16).and_of("z", 8)
    assert exceeded == ExceededWindows(("x", "y", "z"), 16)


def test_it_goes_to_the_next_larger_model_past_those_that_are_not() -> None:
    assert asked(target("a", 8), target("b", 4), target("c"), target("d", 16)) == "ad"
    assert asked(target("a", 8), target("b", 16), target("c", 32), fails=("a", "b")) == "abc"


def test_models_of_unknown_size_are_tried_once() -> None:
    assert asked(target("a"), target("b"), target("c"), fails=("a", "b")) == "ab"
    assert asked(target("a", 8), target("b"), target("c", 8), target("d"), fails=("a", "b")) == "ab"


def test_a_model_that_is_too_small_is_not_asked_elsewhere() -> None:
    assert asked(target("a", model="m"), target("b", model="m"), target("c"), fails=("a",)) == "ac"


def test_a_target_for_long_requests_is_asked_for_nothing_else() -> None:
    long = target("c", only_after="context_length_exceeded")
    assert asked(target("a"), target("b"), long) == "ac"
    assert asked(target("a"), long, target("b"), error=errors.UpstreamTimeout("x")) == "ab"
    assert asked(target("a"), long, error=errors.UpstreamTimeout("x")) == "a"
    assert asked(long, target("b"), fails=()) == "b"


def test_a_refusal_by_a_content_filter_is_final_unless_a_target_is_kept_for_it() -> None:
    other = target("c", only_after="content_filter")
    assert asked(target("a"), target("b"), error=filtered()) == "a"
    assert asked(target("a"), target("b"), other, error=filtered()) == "ac"
    assert asked(target("a"), other, error=too_long()) == "a"


def test_no_target_is_waited_for_that_cannot_take_over() -> None:
    first = Target("a", "a", "a", first_content_s=5.0)
    record = RequestRecord("id", "POST", "/")
    state = RetryState((first, target("c", only_after="content_filter")), Limits(), record)
    state.next()
    assert state.first_content_s == 0.0


def loaded(name: str, **limits: int | None) -> tuple[Target[str], TargetLoad]:
    load = TargetLoad(TargetSettings("p", name, rpm=limits.get("rpm"), concurrent=limits.get("concurrent")))
    return Target(name, name, name, load=load), load


def test_a_target_at_its_limit_is_passed_over() -> None:
    first, _ = loaded("a", rpm=1)
    second, _ = loaded("b")
    for expected in ("a ok 0ms", "a rate_limited, b ok 0ms"):
        record = RequestRecord("id", "POST", "/")
        state = RetryState((first, second), Limits(), record, clock=lambda: 600.0)
        state.next()
        state.record_success()
        record.finish(())
        assert record.route == expected


def test_a_request_is_in_flight_until_its_answer_has_ended() -> None:
    target_, load = loaded("a", concurrent=1)
    record = RequestRecord("id", "POST", "/")
    state = RetryState((target_,), Limits(), record)
    state.next()
    assert load.in_flight == 1
    state.record_success()
    state.release()
    assert load.in_flight == 1
    with pytest.raises(errors.RateLimited, match="requests in flight"):
        RetryState((target_,), Limits(), RequestRecord("id", "POST", "/")).next()
    record.finish(())
    assert load.in_flight == 0


def test_a_request_that_fails_or_whose_client_leaves_is_not_in_flight() -> None:
    target_, load = loaded("a")
    record = RequestRecord("id", "POST", "/")
    state = RetryState((target_,), Limits(), record)
    state.next()
    state.record_failure(errors.UpstreamTimeout("x"))
    assert load.in_flight == 0
    again = RetryState((target_,), Limits(), record)
    again.next()
    again.release()
    record.finish(())
    assert load.in_flight == 0


def test_two_answers_for_one_request_count_once_each() -> None:
    target_, load = loaded("a")
    record = RequestRecord("id", "POST", "/")
    for _ in range(2):
        state = RetryState((target_,), Limits(), record)
        state.next()
        state.record_success()
        assert load.in_flight == 1
    record.finish(())
    assert load.in_flight == 0
