"""When a circuit opens and closes, what it refuses, how long rate limits last, and retry budgets."""

from __future__ import annotations

import gc
import logging
import math
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy import errors
from sanic_proxy.routing.breaker import (
    FIRST_BACKOFF_S,
    IN_A_ROW,
    LAST_RESORT_S,
    MAX_BACKOFF_S,
    MAX_CLIENTS,
    MAX_OPEN_S,
    MAX_TARGETS,
    MIN_REQUESTS,
    OPEN_S,
    PERMIT_S,
    PROVIDER_RETRIES,
    RETRY_SHARE,
    TARGET_RETRIES,
    WINDOW_S,
    BreakerRegistry,
    CircuitBreaker,
    FailingClients,
    RateLimit,
    RecentClients,
    RetryBudget,
    take_retry,
)
from sanic_proxy.routing.policy import MAX_NOT_BEFORE_S, Blame

DOWN = errors.UpstreamError("the words of another client's error")
ERRORS: dict[Blame, errors.ProxyError] = {
    "target": DOWN,
    "access": errors.UpstreamAccessDenied("Your organization must be verified"),
    "key": errors.UpstreamAuthFailed("Incorrect API key provided"),
}


def breaker(*, is_enabled: bool = True) -> CircuitBreaker:
    return CircuitBreaker("groq/llama", is_enabled=is_enabled, jitter=lambda: 0.0)


def is_open(health: CircuitBreaker) -> bool:
    """A call, so that the type checker does not take the last answer for the next one."""
    return health.is_open


def fail(
    health: CircuitBreaker, times: int, now: float = 100.0, fault: Blame = "target", client: str = ""
) -> None:
    for _ in range(times):
        assert health.admit(now, client) is None
        health.record_failure(ERRORS[fault], fault, now, health.generation, client)


def succeed(health: CircuitBreaker, now: float = 100.0, client: str = "") -> None:
    assert health.admit(now, client) is None
    health.record_success(health.generation, now, client)


def refusal_of(health: CircuitBreaker, now: float, client: str = "") -> errors.ProxyError:
    refusal = health.admit(now, client)
    assert refusal is not None
    return refusal


# Opening


@pytest.mark.parametrize("fault", ["target", "access", "key"])
def test_it_opens_after_failures_in_a_row(fault: Blame) -> None:
    health = breaker()
    fail(health, IN_A_ROW[fault] - 1, fault=fault)
    assert not is_open(health)
    fail(health, 1, fault=fault)
    assert is_open(health)
    assert health.is_denied == (fault != "target")


def test_a_success_ends_the_run_of_failures() -> None:
    health = breaker()
    for _ in range(3):
        fail(health, 4)
        succeed(health)
    assert not is_open(health)


def test_failures_of_another_kind_are_no_denials() -> None:
    health = breaker()
    fail(health, 2)
    fail(health, 2, fault="access")
    assert not is_open(health)
    fail(health, 1, fault="access")
    assert health.is_denied


def test_it_opens_when_most_of_many_fail() -> None:
    health, now, number = breaker(), 0.0, 0
    for number in range(2 * MIN_REQUESTS):
        now = 100 + number / 10
        if number % 3:
            fail(health, 1, now)
        else:
            succeed(health, now)
        if is_open(health):
            break
    assert is_open(health)
    assert number >= MIN_REQUESTS - 1
    assert "of 20 requests within 10 s" in refusal_of(health, now).message


def test_old_failures_do_not_count() -> None:
    health = breaker()
    for number in range(100):
        now = 100.0 + number * WINDOW_S
        if number % 3:
            fail(health, 1, now)
        else:
            succeed(health, now)
    assert not is_open(health)


def test_a_disabled_breaker_never_opens() -> None:
    health = breaker(is_enabled=False)
    fail(health, 100)
    assert health.admit(100) is None


# Refusals


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        ("target", errors.CircuitOpen, "Circuit open: groq/llama failed 5 times in a row; retry in 4 s"),
        (
            "access",
            errors.UpstreamAccessDenied,
            "Circuit open: groq/llama denied access 3 times in a row; retry in 4 s."
            " Contact the proxy's operator if this continues",
        ),
        (
            "key",
            errors.UpstreamAuthFailed,
            "Circuit open: groq/llama rejected the proxy's API key; retry in 4 s."
            " Contact the proxy's operator if this continues",
        ),
    ],
)
def test_a_refusal_has_a_fixed_text(fault: Blame, kind: type[errors.ProxyError], text: str) -> None:
    health = breaker()
    fail(health, IN_A_ROW[fault], fault=fault)
    refusal = refusal_of(health, 101)
    assert type(refusal) is kind
    assert (refusal.message, refusal.retry_after_s) == (text, 4)
    assert ERRORS[fault].message not in refusal.message


def test_an_empty_account_is_refused_as_such() -> None:
    health = breaker()
    for _ in range(3):
        assert health.admit(100) is None
        health.record_failure(errors.InsufficientQuota("x"), "access", 100, health.generation)
    assert isinstance(refusal_of(health, 100), errors.InsufficientQuota)


def test_the_error_that_opened_it_keeps_no_request_alive() -> None:
    class Request:
        pass

    def send(request: Request) -> None:
        raise errors.UpstreamAuthFailed("refused")

    health, request = breaker(), Request()
    alive = weakref.ref(request)
    assert health.admit(100) is None
    try:
        send(request)
    except errors.UpstreamAuthFailed as exc:
        health.record_failure(exc, "key", 100, health.generation)
    del request
    gc.collect()
    assert is_open(health)
    assert alive() is None


# Probes


def test_after_its_pause_one_probe_passes_and_closes_it() -> None:
    health = breaker()
    fail(health, 5)
    assert isinstance(refusal_of(health, 100 + OPEN_S - 0.1), errors.CircuitOpen)
    assert health.admit(100 + OPEN_S) is None
    assert refusal_of(health, 100 + OPEN_S).retry_after_s == PERMIT_S
    health.record_success(health.generation, 101 + OPEN_S)
    assert not is_open(health)
    assert health.admit(101 + OPEN_S) is None


def test_a_probe_that_fails_doubles_the_pause_up_to_twelve_seconds() -> None:
    health = breaker()
    fail(health, 5, now=0)
    now, pauses = 0.0, []
    for _ in range(6):
        wait_s = next(s / 10 for s in range(1000) if health.admit(now + s / 10) is None)
        pauses.append(wait_s)
        now += wait_s
        health.record_failure(DOWN, "target", now, health.generation)
    assert pauses == [5, 10, 12, 12, 12, 12]


@given(st.floats(0, 1), st.integers(1, 10))
def test_a_pause_is_at_most_twelve_seconds_jitter_included(jitter: float, probes: int) -> None:
    health = CircuitBreaker(jitter=lambda: jitter)
    fail(health, 5, now=0)
    now = 0.0
    for _ in range(probes):
        now += MAX_OPEN_S
        fail(health, 1, now)
    assert health.admit(now + MAX_OPEN_S) is None


def test_a_permit_comes_back_when_the_client_leaves() -> None:
    health = breaker()
    fail(health, 5)
    assert health.admit(200) is None
    health.release(health.generation)
    assert health.admit(200) is None


def test_a_slow_probe_gives_its_permit_back_and_still_counts() -> None:
    health = breaker()
    fail(health, 5)
    assert health.admit(200) is None
    slow = health.generation
    assert health.admit(200 + PERMIT_S - 0.1) is not None
    assert health.admit(200 + PERMIT_S) is None
    health.release(slow)  # not the holder any more
    assert health.admit(200 + PERMIT_S + 0.1) is not None
    health.record_success(slow, 230)
    assert not is_open(health)


def test_requests_from_before_it_opened_do_not_count() -> None:
    health = breaker()
    for _ in range(50):
        assert health.admit(100) is None
    old = health.generation
    for _ in range(50):
        health.record_failure(DOWN, "target", 101, old)
    assert health.admit(101 + OPEN_S) is None
    health.record_failure(DOWN, "target", 200, old)
    health.record_success(old, 200)
    assert is_open(health)
    health.record_success(health.generation, 200)
    assert not is_open(health)
    for _ in range(50):
        health.record_failure(DOWN, "target", 201, old)
    assert not is_open(health)


@pytest.mark.parametrize("fault", ["access", "key"])
def test_a_denial_is_tried_again_one_at_a_time_where_nothing_else_is_left(fault: Blame) -> None:
    health = breaker()
    fail(health, IN_A_ROW[fault], fault=fault)
    assert not health.admit_as_last_resort(100 + LAST_RESORT_S / 2)
    now = 100 + LAST_RESORT_S
    assert health.admit_as_last_resort(now)
    assert not health.admit_as_last_resort(now)
    health.record_failure(ERRORS[fault], fault, now, health.generation)
    assert not health.admit_as_last_resort(now + LAST_RESORT_S / 2)
    assert health.admit_as_last_resort(now + LAST_RESORT_S)
    health.record_success(health.generation, now + 2)
    assert not is_open(health)


def test_a_target_that_fails_is_no_last_resort() -> None:
    health = breaker()
    fail(health, 5)
    assert not health.admit_as_last_resort(100 + LAST_RESORT_S)


# Clients


@pytest.mark.parametrize("fault", ["target", "access", "key"])
def test_one_clients_failures_do_not_close_a_target_that_serves_another(fault: Blame) -> None:
    health = breaker()
    for number in range(60):
        now = 100 + number / 2
        if number % 16 == 0:
            succeed(health, now, "b")
        fail(health, 1, now, fault, client="a")
    assert not is_open(health)


def test_a_share_of_failures_that_is_one_clients_alone_does_not_open_it() -> None:
    health = breaker()
    for number in range(100):
        now = 100 + number / 10
        fail(health, 1, now, client="a")
        if number % 4 == 0:
            succeed(health, now, "b")
    assert not is_open(health)


def test_a_single_active_client_opens_it_for_itself() -> None:
    health = breaker()
    succeed(health, 100 - WINDOW_S - 1, "b")
    fail(health, 5, client="a")
    assert health.admit(101, "a") is not None
    succeed(health, 101, "b")
    assert not is_open(health)  # it serves: the failures were the other client's


def test_a_second_client_that_fails_closes_the_target_to_all() -> None:
    health = breaker()
    fail(health, 5, client="a")
    for _ in range(20):
        assert health.admit(100, "b") is None
    in_flight = health.generation
    for _ in range(20):
        health.record_failure(DOWN, "target", 101, in_flight, "b")
    for client in "abc":
        assert health.admit(101 + OPEN_S - 0.1, client) is not None
    assert health.admit(101 + OPEN_S, "c") is None


def test_failures_of_two_clients_open_it_though_both_were_served_before() -> None:
    health = breaker()
    for client in "ab":
        succeed(health, 99, client)
    fail(health, 4, client="a")
    fail(health, 1, client="b")
    assert not is_open(health)  # it may be an odd failure
    fail(health, 1, client="b")
    assert health.admit(101, "c") is not None


def test_failures_of_three_clients_open_it_though_all_were_served_before() -> None:
    health = breaker()
    for client in "abc":
        succeed(health, 99, client)
    for client in "abcab":
        fail(health, 1, client=client)
    assert health.admit(101, "d") is not None


def test_an_odd_failure_beside_a_client_that_always_fails_does_not_open_it() -> None:
    health = breaker()
    for number in range(300):
        now = 100 + number / 15
        fail(health, 2, now, client="poison")
        if number % 30 == 29:
            fail(health, 1, now, client="b")
        else:
            succeed(health, now, "b")
            succeed(health, now, "c")
    assert not is_open(health)


@given(st.lists(st.tuples(st.sampled_from("abcdefg"), st.booleans()), max_size=60))
def test_several_clients_fail_if_two_did_twice_or_three_once(events: list[tuple[str, bool]]) -> None:
    failing, runs = FailingClients(), dict[str, int]()
    for client, is_failure in events:
        if is_failure:
            runs[client] = runs.get(client, 0) + 1
            assert failing.note(client, 100) == runs[client]
        else:
            failing.remove(client)
            runs.pop(client, None)
    assert failing.are_several(100) == (len(runs) > 2 or sum(count > 1 for count in runs.values()) > 1)
    assert not failing.are_several(101)


def test_the_failing_clients_that_are_remembered_are_bounded() -> None:
    failing = FailingClients()
    for number in range(MAX_CLIENTS):
        assert failing.note(f"client {number}", 100) == 1
    assert failing.note("client 0", 100) == 2
    assert failing.note("one more", 100) == 1
    assert failing.note("client 0", 100) == 3
    assert failing.note("client 1", 100) == 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 5)), max_size=30), st.sampled_from("abc"))
def test_two_slots_know_whether_another_client_was_there(
    notes: list[tuple[str, float]], requester: str
) -> None:
    recent, now, last = RecentClients(), 0.0, {"": -math.inf}
    for client, pause_s in notes:
        now += pause_s
        recent.note(client, now)
        last[client] = now
    expected = max(at for client, at in last.items() if client != requester)
    assert recent.has_other(requester, expected)
    assert not recent.has_other(requester, math.nextafter(expected, math.inf))


EVENTS = st.lists(
    st.tuples(st.sampled_from(["fail", "serve", "leave", "reject"]), st.sampled_from("ab"), st.floats(0, 4)),
    max_size=80,
)


@given(EVENTS, st.floats(0, 1))
def test_no_sequence_of_events_closes_a_target_for_long(
    events: list[tuple[str, str, float]], jitter: float
) -> None:
    health = CircuitBreaker(jitter=lambda: jitter)
    now = 0.0
    in_flight: list[tuple[int, str]] = []
    for kind, client, pause_s in events:
        now += pause_s
        refusal = health.admit(now, client)
        if refusal is None:
            in_flight.append((health.generation, client))
        else:
            assert 1 <= (refusal.retry_after_s or 0) <= MAX_OPEN_S
        if in_flight:
            generation, sender = in_flight.pop(len(in_flight) // 2)
            if kind == "fail":
                health.record_failure(DOWN, "target", now, generation, sender)
            elif kind == "serve":
                health.record_success(generation, now, sender)
            elif kind == "reject":
                health.record_alive(generation, now)
            else:
                health.release(generation)
    assert health.admit(now + MAX_OPEN_S) is None
    health.record_success(health.generation, now + MAX_OPEN_S)
    assert not is_open(health)


# The log


@pytest.mark.parametrize(
    ("fault", "opened", "closed"),
    [
        (
            "target",
            "circuit opened: groq/llama POST /chat/completions, key ...6789, failed 5 times in a row"
            " (last: upstream_error); next attempt in",
            "circuit closed: groq/llama POST /chat/completions, key ...6789, answers again after 6.0 s",
        ),
        (
            "access",
            "circuit opened: groq/llama POST /chat/completions, key ...6789, denied access 3 times in a row"
            " (last: upstream_access_denied: Your organization must be verified); next attempt in",
            "circuit closed: groq/llama POST /chat/completions, key ...6789, answers again after 6.0 s",
        ),
        (
            "key",
            "API key rejected: groq/llama POST /chat/completions, key ...6789, rejected the proxy's API key"
            " (last: upstream_auth_error: Incorrect API key provided); next attempt in",
            "API key accepted: groq/llama POST /chat/completions, key ...6789, answers again after 6.0 s",
        ),
    ],
)
def test_each_transition_is_one_warning(
    fault: Blame, opened: str, closed: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry = BreakerRegistry(key_hints={"groq": ["6789"]})
    health = registry.target("groq", 0, "llama", "POST /chat/completions", "groq/llama")
    with caplog.at_level(logging.WARNING, logger="sanic_proxy"):
        fail(health, IN_A_ROW[fault], now=100, fault=fault)
        for _ in range(20):
            assert health.admit(100) is not None
        assert health.admit(106) is None
        health.record_success(health.generation, 106)
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2
    assert texts[0].startswith(opened)
    assert texts[1] == closed


def test_account_details_in_an_error_are_redacted_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    registry = BreakerRegistry(redact=lambda text: text.replace("sk-canary", "[redacted]"))
    health = registry.key("groq", 0, "groq")
    with caplog.at_level(logging.WARNING, logger="sanic_proxy"):
        health.record_failure(errors.UpstreamAuthFailed("no sk-canary"), "key", 100, health.generation)
    assert "no [redacted]" in caplog.text
    assert "canary" not in caplog.text


# Rate limits


def test_a_rate_limit_lasts_as_long_as_the_provider_states() -> None:
    limit = RateLimit()
    limit.limit(100, 432)
    assert limit.until == 532
    refusal = limit.refusal(100.5, "groq/llama")
    assert refusal.message == "The rate limit of groq/llama is reached; retry in 432 s"
    assert (refusal.status, refusal.retry_after_s) == (429, 432)


def test_without_a_figure_it_backs_off_until_a_success() -> None:
    limit, now, waits = RateLimit(), 100.0, []
    for _ in range(6):
        limit.limit(now, None)
        limit.limit(now + 0.1, None)  # one that was in flight
        waits.append(limit.until - now)
        now = limit.until
    assert waits == pytest.approx([1.1, 2.1, 4.1, 8.1, 12.1, 12.1])
    limit.record_success(now)
    limit.limit(now, None)
    assert limit.until - now == FIRST_BACKOFF_S


@given(st.lists(st.tuples(st.floats(0, 100), st.none() | st.floats(0, 1e12)), min_size=1))
def test_a_limit_is_never_shortened_and_never_absurd(limits: list[tuple[float, float | None]]) -> None:
    limit, now = RateLimit(), 0.0
    for pause_s, wait_s in limits:
        now += pause_s
        before = limit.until
        limit.limit(now, wait_s)
        assert limit.until >= before
        assert limit.until <= max(before, now + (MAX_BACKOFF_S if wait_s is None else MAX_NOT_BEFORE_S))
        assert wait_s is None or limit.until >= now + min(wait_s, MAX_NOT_BEFORE_S)


def test_a_disabled_limit_is_not_remembered() -> None:
    limit = RateLimit(is_enabled=False)
    limit.limit(100, 60)
    assert limit.until == 0


# Budgets


@pytest.mark.row(29)
def test_an_outage_is_not_multiplied() -> None:
    budget = RetryBudget(TARGET_RETRIES)
    allowed = 0
    for number in range(1000):
        now = 100 + number / 100
        budget.window.count_request(now)
        allowed += take_retry(now, budget)
    assert 150 <= allowed <= 203


def test_an_outage_is_not_multiplied_by_many_models_of_one_provider() -> None:
    registry = BreakerRegistry()
    requests = retries = 0
    for number in range(1000):
        now = 100 + number / 100
        target, provider = registry.target("groq", 0, f"m{number}", "POST /x", ""), registry.budget("groq")
        assert target.admit(now) is None
        provider.window.count_request(now)
        requests += 1
        if take_retry(now, target.budget, provider):
            provider.window.count_request(now)
            retries += 1
    assert retries <= RETRY_SHARE * (requests + retries) + PROVIDER_RETRIES


def test_a_few_retries_are_always_allowed() -> None:
    budget = RetryBudget(TARGET_RETRIES)
    assert [take_retry(100, budget) for _ in range(5)] == [True, True, True, False, False]
    assert take_retry(100 + WINDOW_S, budget)


def test_a_retry_that_one_budget_refuses_is_taken_from_none() -> None:
    empty, full = RetryBudget(0), RetryBudget(1)
    assert not take_retry(100, full, empty)
    assert take_retry(100, full)


# The registry


def test_health_is_kept_by_provider_key_model_and_endpoint() -> None:
    registry = BreakerRegistry()
    names = [
        (provider, key, model, endpoint)
        for provider in ("groq", "xai")
        for key in (0, 1)
        for model in ("a", "b")
        for endpoint in ("POST /chat/completions", "POST /embeddings")
    ]
    breakers = [registry.target(*name, "") for name in names]
    assert len({id(each) for each in breakers}) == len(names)
    assert [registry.target(*name, "") for name in names] == breakers
    assert registry.key("groq", 0, "groq") is registry.key("groq", 0, "groq")
    assert registry.key("groq", 0, "groq") is not registry.key("groq", 1, "groq#2")
    assert registry.rate_limit("groq", 0, "a") is not registry.rate_limit("groq", 0, "b")
    assert registry.budget("groq") is registry.budget("groq")


def test_only_so_many_models_are_remembered_the_latest_used() -> None:
    registry = BreakerRegistry()
    first, limit = registry.target("groq", 0, "llama", "x", ""), registry.rate_limit("groq", 0, "llama")
    lost = registry.target("groq", 0, "lost", "x", "")
    for number in range(MAX_TARGETS):
        registry.target("groq", 0, f"model-{number}", "x", "")
        registry.rate_limit("groq", 0, f"model-{number}")
        assert registry.target("groq", 0, "llama", "x", "") is first
        assert registry.rate_limit("groq", 0, "llama") is limit
    assert registry.target("groq", 0, "lost", "x", "") is not lost
