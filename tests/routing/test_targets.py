"""One request's attempts: the next target, the route header, and the effect on other requests."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy import errors
from sanic_proxy.config.targets import TargetSettings
from sanic_proxy.observability.record import Client, RequestRecord
from sanic_proxy.routing.breaker import (
    IN_A_ROW,
    LAST_RESORT_S,
    OPEN_S,
    PERMIT_S,
    PROVIDER_RETRIES,
    BreakerRegistry,
)
from sanic_proxy.routing.load import TargetLoad
from sanic_proxy.routing.policy import MAX_WAIT_S
from sanic_proxy.routing.router import CHAT
from sanic_proxy.routing.targets import Limits, RetryState, Target, label_for
from sanic_proxy.upstream.error_parser import error_from_answer

ONCE = Limits(1, 1)
OBJECT: errors.ErrorObject = {"message": "no", "type": "t", "param": None, "code": None}


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@dataclass
class Site:
    """Targets that share what is known of them, as those of one router do."""

    clock: Clock
    registry: BreakerRegistry = field(default_factory=BreakerRegistry)

    def target(self, name: str, key: int = 0, endpoint: str = CHAT) -> Target[str]:
        provider, _, model = name.partition("/")
        label = label_for(provider, model, key)
        return Target(
            label,
            model,
            label,
            self.registry.target(provider, key, model, endpoint, label),
            self.registry.key(provider, key, label_for(provider, "", key)),
            self.registry.rate_limit(provider, key, model),
            self.registry.budget(provider),
        )

    def state(self, *targets: Target[str], limits: Limits | None = None, client: str = "") -> RetryState[str]:
        record = RequestRecord("id", "POST", "/", client=Client(client, client))
        return RetryState(targets, limits or Limits(), record, clock=self.clock)

    def attempt(self, target: Target[str], error: errors.ProxyError | None, client: str = "") -> bool:
        """Send one request to one target; whether it was admitted."""
        state = self.state(target, limits=ONCE, client=client)
        try:
            state.next()
        except errors.ProxyError:
            return False
        if error is None:
            state.record_success()
        else:
            state.record_failure(error)
        return True


@pytest.fixture
def site(clock: Clock) -> Site:
    return Site(clock)


def made(
    *names: str, limits: Limits | None = None, may_repeat: bool = True
) -> tuple[RetryState[str], RequestRecord, list[Target[str]]]:
    record = RequestRecord("id", "POST", "/")
    targets = [Target(name, name, f"{name}/m") for name in names]
    return RetryState(targets, limits or Limits(), record, may_repeat=may_repeat), record, targets


def status(code: int, retry_after: str = "", wait_s: float | None = None) -> errors.ProxyError:
    error = error_from_answer(code, {"retry-after": retry_after} if retry_after else {}, b"{}")
    error.wait_s = wait_s
    return error


def context() -> errors.ProxyError:
    return errors.ContextLengthExceeded(OBJECT, status=400)


def send(state: RetryState[str], error: errors.ProxyError) -> int:
    """Send a request that always fails with `error`; how often it was sent."""
    sent = 0
    with suppress(errors.CircuitOpen):
        state.next()
        sent = 1
        while state.record_failure(error) is not None:
            state.next()
            sent += 1
    return sent


def route(record: RequestRecord) -> str:
    return re.sub(r"\d+ms", "Nms", record.route)


def test_a_success_is_in_the_route() -> None:
    state, record, (target,) = made("a")
    assert state.next() is target
    state.record_success()
    assert route(record) == "a/m ok Nms"
    assert record.as_fields()["route"] == record.route


def test_a_failure_is_repeated_then_moved_then_final() -> None:
    state, record, _ = made("a", "b")
    tried = []
    for _ in range(4):
        tried.append(state.next().provider)
        if len(tried) < 4:
            assert bool(state.record_failure(status(500))) == (len(tried) != 2)
    assert state.record_failure(status(500)) is None
    assert tried == ["a", "a", "b", "b"]
    assert route(record) == "a/m 500 Nms, a/m 500 Nms, b/m 500 Nms, b/m 500 Nms"


@pytest.mark.row(29)
def test_attempts_are_bounded_in_all() -> None:
    state, _, _ = made("a", "b", "c", limits=Limits(per_target=2, in_all=3))
    for _ in range(2):
        state.next()
        state.record_failure(status(503))
    assert state.next().provider == "b"
    assert state.record_failure(status(503)) is None


@pytest.mark.parametrize(
    "error",
    [
        errors.UpstreamTimeout("x"),
        errors.UpstreamDisconnected("x"),
        errors.UpstreamBadResponse("x"),
        errors.UpstreamRejected(OBJECT, status=498),
        errors.UpstreamAccessDenied("x"),
    ],
)
def test_a_failure_of_unknown_effect_moves_and_is_never_repeated(error: errors.ProxyError) -> None:
    state, _, _ = made("a", "b")
    assert state.next().provider == "a"
    assert state.record_failure(error) == 0
    assert state.next().provider == "b"
    assert state.record_failure(error) is None


def test_what_creates_something_stays_where_it_may_have_been_made() -> None:
    state, _, _ = made("a", "b", may_repeat=False)
    state.next()
    assert state.record_failure(errors.UpstreamTimeout("x")) is None


def test_a_stale_connection_is_replaced_at_once_outside_the_budget() -> None:
    stale = errors.UpstreamDisconnected("x", is_stale_connection=True)
    (target,) = made("a")[2]
    for _ in range(20):
        record = RequestRecord("id", "POST", "/")
        state = RetryState([target], Limits(), record)
        state.next()
        assert state.record_failure(stale) == 0
        assert state.next() is target
        state.record_success()
        assert route(record) == "a/m upstream_disconnected Nms, a/m ok Nms"


def test_a_stale_connection_is_no_free_attempt() -> None:
    stale = errors.UpstreamDisconnected("x", is_stale_connection=True)
    state, _, _ = made("a", limits=ONCE)
    state.next()
    assert state.record_failure(stale) is None


@pytest.mark.parametrize("code", [400, 422])
def test_a_clients_mistake_is_final(code: int) -> None:
    state, _, _ = made("a", "b")
    state.next()
    assert state.record_failure(status(code)) is None


# Context length


def test_a_long_prompt_moves_once_to_a_different_model(site: Site) -> None:
    small, spare, large = site.target("a/small"), site.target("a/small", 1), site.target("b/large")
    state = site.state(small, spare, large)
    assert state.next() is small
    assert state.record_failure(context()) == 0
    assert state.next() is large
    assert state.record_failure(context()) is None


def test_a_long_prompt_does_not_come_back_to_the_model_that_has_no_room(site: Site) -> None:
    state = site.state(
        site.target("a/small"), site.target("b/large"), site.target("c/small"), limits=Limits(1, 9)
    )
    state.next()
    assert state.record_failure(context()) == 0
    assert state.next().upstream_model == "large"
    assert state.record_failure(status(503)) is None


def test_a_long_prompt_without_a_different_model_is_final(site: Site) -> None:
    state = site.state(site.target("a/small"), site.target("a/small", 1))
    state.next()
    assert state.record_failure(context()) is None


# Rate limits


def test_a_long_wait_moves_on_and_a_short_one_is_waited_for(site: Site, clock: Clock) -> None:
    state = site.state(site.target("a/m"), site.target("b/m"))
    state.next()
    assert state.record_failure(status(429, wait_s=2)) == 2
    clock.now += 2
    assert state.next().provider == "a/m"
    assert state.record_failure(status(429, wait_s=30)) == 0
    assert state.next().provider == "b/m"


def test_a_rate_limited_target_gets_one_request(site: Site, clock: Clock) -> None:
    target = site.target("a/m")
    assert site.attempt(target, status(429, "60", wait_s=3600))
    for number in range(10):
        clock.now += 1
        with pytest.raises(errors.RateLimited) as caught:
            site.state(target).next()
        assert caught.value.retry_after_s == 3599 - number
    clock.now += 3600
    assert site.attempt(target, None)


def test_while_it_is_limited_the_next_key_and_other_models_serve(site: Site, clock: Clock) -> None:
    first, second = site.target("a/m"), site.target("a/m", 1)
    site.attempt(first, status(429, wait_s=60))
    record = RequestRecord("id", "POST", "/")
    assert RetryState([first, second], Limits(), record, clock=clock).next() is second
    assert record.route == "a/m rate_limited"
    assert not site.attempt(site.target("a/m", endpoint="POST /embeddings"), None)
    assert site.attempt(site.target("a/other"), None)


def test_a_rate_limit_is_no_failure_of_health(site: Site, clock: Clock) -> None:
    target = site.target("a/m")
    for _ in range(20):
        assert site.attempt(target, status(429, wait_s=1))
        clock.now += 1
    assert not target.health.is_open


def test_only_the_request_that_met_a_limit_waits_for_it(site: Site, clock: Clock) -> None:
    target = site.target("a/m")
    waiting, later = site.state(target), site.state(target)
    waiting.next()
    wait_s = waiting.record_failure(status(429))
    assert wait_s is not None
    clock.now += wait_s
    with pytest.raises(errors.RateLimited):
        later.next()
    assert waiting.next() is target


def test_a_limit_that_was_extended_meanwhile_ends_the_wait(site: Site, clock: Clock) -> None:
    target = site.target("a/m")
    first, second = site.state(target), site.state(target)
    for state in (first, second):
        state.next()
    assert first.record_failure(status(429, wait_s=MAX_WAIT_S)) == MAX_WAIT_S
    second.record_failure(status(429, wait_s=60))
    clock.now += MAX_WAIT_S
    with pytest.raises(errors.RateLimited):
        first.next()


def test_a_request_too_large_for_the_limit_does_not_limit_others(site: Site, clock: Clock) -> None:
    error = errors.RateLimited("too many tokens")
    error.upstream_status = 413
    site.attempt(site.target("a/m"), error)
    assert site.attempt(site.target("a/m"), None)


def test_of_several_refusals_the_soonest_over_is_the_answer(site: Site, clock: Clock) -> None:
    first, second = site.target("a/m"), site.target("b/m")
    site.attempt(first, status(429, wait_s=50))
    site.attempt(second, status(429, wait_s=20))
    with pytest.raises(errors.RateLimited) as caught:
        site.state(first, second).next()
    assert caught.value.retry_after_s == 20


# Keys and access


def test_an_invalid_key_is_out_for_every_model(site: Site) -> None:
    first, second = site.target("a/m"), site.target("b/m")
    state = site.state(first, second)
    state.next()
    assert state.record_failure(errors.UpstreamAuthFailed("x")) == 0
    assert state.next() is second
    assert first.key_health.is_open
    assert not first.health.is_open
    assert site.state(site.target("a/other"), second).next() is second


@pytest.mark.parametrize("error", [errors.UpstreamAccessDenied("x"), errors.InsufficientQuota("x")])
def test_denied_access_closes_one_model_at_one_endpoint(site: Site, error: errors.ProxyError) -> None:
    target = site.target("a/m")
    for _ in range(IN_A_ROW["access"]):
        assert not target.health.is_open
        site.attempt(target, error)
    assert target.health.is_open
    assert not target.key_health.is_open
    assert site.attempt(site.target("a/m", endpoint="POST /embeddings"), None)
    assert site.attempt(site.target("a/other"), None)


def test_the_only_key_is_tried_one_request_at_a_time_although_it_was_rejected(
    site: Site, clock: Clock
) -> None:
    target = site.target("a/m")
    site.attempt(target, errors.UpstreamAuthFailed("x"))
    assert not site.attempt(target, None)
    clock.now += LAST_RESORT_S
    probe = site.state(target)
    assert probe.next() is target
    assert not site.attempt(target, None)
    probe.record_success()
    assert not target.key_health.is_open
    assert site.attempt(target, None)


def test_a_rejected_key_is_tried_last(site: Site, clock: Clock) -> None:
    first, second = site.target("a/m"), site.target("b/m")
    site.attempt(first, errors.UpstreamAuthFailed("x"))
    clock.now += LAST_RESORT_S
    state = site.state(first, second)
    assert state.next() is second
    assert state.record_failure(errors.UpstreamTimeout("x")) == 0
    assert state.next() is first
    assert state.record_failure(errors.UpstreamTimeout("x")) is None


# Circuits


def test_where_all_circuits_are_open_the_client_learns_why(site: Site, clock: Clock) -> None:
    target = site.target("a/m")
    for _ in range(5):
        site.attempt(target, status(500))
    with pytest.raises(errors.CircuitOpen, match="a/m failed 5 times in a row"):
        site.state(target).next()


def test_a_target_whose_circuit_opens_is_not_waited_for(site: Site, clock: Clock) -> None:
    target, other = site.target("a/m"), site.target("b/m")
    for _ in range(4):
        site.attempt(target, status(500))
    state = site.state(target, other)
    state.next()
    assert state.record_failure(status(500)) == 0
    assert state.next() is other


def test_one_clients_failures_leave_the_target_to_others(site: Site, clock: Clock) -> None:
    target = site.target("a/m")
    for _ in range(40):
        clock.now += 0.5
        site.attempt(target, status(500), client="poison")
        assert site.attempt(target, None, client="other")


def test_endpoints_do_not_share_health(site: Site, clock: Clock) -> None:
    for _ in range(5):
        site.attempt(site.target("a/", endpoint="GET /files/<id>"), status(302))
    assert not site.attempt(site.target("a/", endpoint="GET /files/<id>"), None)
    assert site.attempt(site.target("a/", endpoint="GET /files"), None)
    assert site.attempt(site.target("a/", endpoint="POST /embeddings"), None)


def test_a_slow_probe_lets_others_in_after_five_seconds(site: Site, clock: Clock) -> None:
    target = site.target("a/m")
    for _ in range(5):
        site.attempt(target, status(500))
    clock.now += OPEN_S
    slow = site.state(target)
    slow.next()
    assert not site.attempt(target, None)
    clock.now += PERMIT_S
    assert site.attempt(target, None)


def test_a_probe_with_a_slow_client_blocks_no_other_request(site: Site, clock: Clock) -> None:
    target = site.target("a/m")
    for _ in range(5):
        site.attempt(target, status(500))
    clock.now += OPEN_S
    slow = site.state(target)
    slow.next()
    slow.release_probe()
    assert site.attempt(target, None)


def test_repeats_of_a_failing_request_stop_reaching_the_target(site: Site, clock: Clock) -> None:
    target, sent = site.target("a/m"), 0
    for _ in range(30):
        clock.now += 0.05
        sent += send(site.state(target), status(500))
    assert sent == IN_A_ROW["target"]


def test_retries_are_bounded_for_a_provider_of_many_models(site: Site, clock: Clock) -> None:
    sent = 0
    for number in range(1000):
        clock.now += 0.01
        sent += send(site.state(site.target(f"a/m{number}")), status(500))
    assert sent <= 1.2 * 1000 + PROVIDER_RETRIES


def test_keys_of_one_failing_provider_share_its_budget(site: Site, clock: Clock) -> None:
    sent = 0
    for number in range(200):
        state = site.state(*(site.target(f"a/m{number}", key) for key in range(4)), limits=Limits(1, 4))
        sent += send(state, errors.UpstreamTimeout("x"))
    assert sent <= 1.2 * 200 + PROVIDER_RETRIES


@given(st.floats(0, 4), st.integers(1, 4))
def test_a_target_that_flaps_serves_again_soon_after_its_outage(offset_s: float, per_target: int) -> None:
    clock = Clock()
    site = Site(clock)
    primary, fallback = site.target("a/m"), site.target("b/m")
    outage_ends = clock.now + 60
    clock.now += offset_s
    back_after_s: list[float] = []
    for _ in range(20):
        began, state = clock.now, site.state(primary, fallback, limits=Limits(per_target, 8))
        while (target := state.next()) is primary and clock.now < outage_ends:
            wait_s = state.record_failure(status(503))
            assert wait_s is not None
            clock.now += wait_s
        state.record_success()
        if target is primary:
            back_after_s.append(clock.now - outage_ends)
        clock.now = max(clock.now, began + 4)
    assert back_after_s
    assert back_after_s[0] <= 16


def test_a_disconnected_client_is_no_failure_of_the_target() -> None:
    state, record, (target,) = made("a")
    state.next()
    state.release()
    state.release()
    assert route(record) == "a/m client_left Nms"
    assert not target.health.is_open


def test_an_answer_that_breaks_counts_against_its_target(site: Site) -> None:
    target = site.target("a/m")
    for _ in range(5):
        state = site.state(target)
        state.next()
        state.record_stream_failure(errors.UpstreamDisconnected("cut"))
    assert target.health.is_open


def test_the_answer_of_a_target_takes_precedence_over_an_open_circuit(site: Site, clock: Clock) -> None:
    first, second = site.target("a/m"), site.target("b/m")
    for _ in range(5):
        site.attempt(second, status(500))
    state = site.state(first, second)
    assert state.next() is first
    state.record_failure(status(429, "40"))
    with pytest.raises(errors.RateLimited) as caught:
        state.next()
    assert caught.value.retry_after_s == 40


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


LIMIT_S = 30.0


@pytest.mark.parametrize(
    ("names", "limits", "may_repeat", "expected"),
    [
        (("a", "b"), Limits(), True, LIMIT_S),
        (("a",), Limits(), True, 0.0),  # no other target
        (("a", "b"), Limits(in_all=1), True, 0.0),  # no attempt left
        (("a", "b"), Limits(), False, 0.0),  # the request creates something
    ],
)
def test_the_first_content_is_limited_while_another_target_could_take_over(
    names: tuple[str, ...], limits: Limits, may_repeat: bool, expected: float
) -> None:
    targets = [Target(name, name, f"{name}/m", first_content_s=LIMIT_S) for name in names]
    state = RetryState(targets, limits, RequestRecord("id", "POST", "/"), may_repeat=may_repeat)
    state.next()
    assert state.first_content_s == expected


@pytest.mark.parametrize("reason", ["circuit open", "rate limited"])
def test_a_target_that_may_not_be_tried_cannot_take_over(site: Site, clock: Clock, reason: str) -> None:
    first, second = site.target("a"), site.target("b")
    first = replace(first, first_content_s=LIMIT_S)
    if reason == "circuit open":
        while not second.health.is_open:
            site.attempt(second, errors.UpstreamTimeout("x"))
    else:
        second.rate_limit.limit(clock(), 60)
    state = site.state(first, second)
    state.next()
    assert state.first_content_s == 0.0


# A stream that breaks off, and what goes on behind it

CUT = errors.UpstreamDisconnected("cut")


def began(*names: str, limits: Limits | None = None) -> tuple[RetryState[str], RequestRecord]:
    """An answer of the first target that has begun."""
    state, record, _ = made(*names, limits=limits)
    state.next()
    state.record_success()
    return state, record


def test_another_target_goes_on_behind_a_cut() -> None:
    state, record = began("a", "b")
    assert state.record_cut(CUT, 24) == 0.0
    assert state.next().provider == "b"
    state.record_success()
    assert route(record) == "a/m upstream_disconnected Nms, b/m ok Nms from 24"
    assert [attempt.resumed_at for attempt in record.attempts] == [None, 24]


def test_a_later_attempt_may_be_cut_too() -> None:
    state, record = began("a", "b", "c")
    state.record_cut(CUT, 24)
    state.next()
    state.record_success()
    assert state.record_cut(errors.UpstreamBadFrame("bad"), 30) == 0.0
    assert state.next().provider == "c"
    state.record_success()
    assert route(record) == (
        "a/m upstream_disconnected Nms, b/m upstream_bad_frame Nms from 24, c/m ok Nms from 30"
    )


def test_the_same_target_goes_on_where_no_other_one_is_left() -> None:
    state, record = began("a")
    assert state.record_cut(CUT, 24) is not None
    assert state.next().provider == "a"
    state.record_success()
    assert state.record_cut(CUT, 25) is None  # that was its second attempt
    assert route(record) == "a/m upstream_disconnected Nms, a/m upstream_disconnected Nms from 24"


@pytest.mark.parametrize(
    "error",
    [
        errors.ContentFiltered("filtered", status=400),
        errors.InvalidRequest("no"),
        errors.ContextLengthExceeded("long", status=400),
        CUT.replaced(is_final=True),
    ],
)
def test_no_other_target_goes_on_behind_a_failure_that_is_the_answer(error: errors.ProxyError) -> None:
    state, record = began("a", "b")
    assert state.record_cut(error, 24) is None
    assert route(record) == f"a/m {error.code or error.type} Nms"


def test_a_target_that_failed_has_room_for_the_rest() -> None:
    load = TargetLoad(TargetSettings("a", "m", concurrent=1))
    target = Target("a", "m", "a/m", load=load)
    record = RequestRecord("id", "POST", "/")
    state = RetryState([target], Limits(), record)
    state.next()
    state.record_success()
    assert load.in_flight == 1
    state.record_cut(CUT, 24)
    assert load.in_flight == 0
    assert state.next() is target
    assert state.record_refusal(errors.UpstreamRefusedRequest("no prefill", status=400))
    assert load.in_flight == 1
    state.record_success()
    record.finish(())
    assert load.in_flight == 0


def test_attempts_for_the_rest_are_limited_like_others() -> None:
    state, _ = began("a", "b", limits=ONCE)
    assert state.record_cut(CUT, 24) is None


def test_a_target_that_rejects_the_form_of_a_request_is_asked_again() -> None:
    state, record = began("a", "b")
    state.record_cut(CUT, 24)
    target = state.next()
    assert state.record_refusal(errors.UpstreamRefusedRequest("no prefill", status=400, upstream_status=400))
    state.record_success()
    assert route(record) == "a/m upstream_disconnected Nms, b/m 400 Nms from 24, b/m ok Nms from 24"
    assert target.provider == "b"


def test_a_rejected_form_is_an_attempt() -> None:
    state, record = began("a", "b", limits=Limits(2, 2))
    state.record_cut(CUT, 24)
    state.next()
    error = errors.UpstreamRefusedRequest("no prefill", status=400, upstream_status=400)
    assert not state.record_refusal(error)
    assert state.record_failure(error) is None
    assert route(record) == "a/m upstream_disconnected Nms, b/m 400 Nms from 24"


def test_the_time_that_a_client_waits_says_nothing_about_a_target(site: Site) -> None:
    target = site.target("a/m")
    for _ in range(3 * IN_A_ROW["target"]):
        assert site.attempt(target, errors.CallerTimeout("waits for 1 s"))
    assert not target.health.is_open


FOREIGN = (
    b'{"error": {"type": "invalid_request_error", "code": "invalid_encrypted_content", "message": "no"}}'
)


def foreign() -> errors.ProxyError:
    return error_from_answer(400, {"content-type": "application/json"}, FOREIGN)


def test_reasoning_of_another_account_is_sent_to_the_next_target() -> None:
    state, record, (_, second) = made("a", "b")
    state.next()
    assert state.record_failure(foreign()) == 0.0
    assert state.next() is second
    state.record_success()
    assert route(record) == "a/m 400 Nms, b/m ok Nms"


def test_the_failure_of_the_target_that_could_read_it_is_the_answer() -> None:
    state, _, _ = made("a", "b", limits=Limits(1, 4))
    state.next()
    failure = status(503)
    assert state.record_failure(failure) is not None
    state.next()
    assert state.record_failure(foreign()) is not None
    with pytest.raises(errors.UpstreamError) as raised:
        state.next()
    assert raised.value is failure


def test_a_single_target_answers_for_itself() -> None:
    state, _, _ = made("a")
    state.next()
    assert state.record_failure(foreign()) is None


def test_no_limit_is_read_from_the_headers_of_an_attempt_that_lost() -> None:
    """Both attempts write the headers into the same record."""
    first, second = Target("p", "m", "p/m"), Target("q", "m", "q/m")
    record = RequestRecord("id", "POST", "/")
    state = RetryState([first, second], Limits(), record, clock=lambda: 100.0)
    assert state.next() is first
    assert state.hedge() is second
    record.upstream_headers = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-reset-requests": "6m0s",
    }
    state.record_lost(second)
    state.record_success()
    assert first.rate_limit.quota_refusal(100.0, "p/m", 1) is None
