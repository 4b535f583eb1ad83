"""What answers say is left of a provider's limits, and how long a request waits for more."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.routing.breaker import LOOK_AGAIN, RateLimit
from sanic_proxy.routing.quota import NAMES, Quota, names_in, quotas

NOW = 1000.0


def openai(left: str, reset: str, limit: str = "60", kind: str = "requests") -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{kind}": limit,
        f"x-ratelimit-remaining-{kind}": left,
        f"x-ratelimit-reset-{kind}": reset,
    }


def anthropic(left: str, reset: str, limit: str, kind: str = "input-tokens") -> dict[str, str]:
    return {
        f"anthropic-ratelimit-{kind}-limit": limit,
        f"anthropic-ratelimit-{kind}-remaining": left,
        f"anthropic-ratelimit-{kind}-reset": reset,
    }


def read(headers: dict[str, str]) -> list[Quota]:
    return list(quotas(headers, names_in(headers), NOW))


def date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("headers", "tokens", "wait_s"),
    [
        (openai("0", "60s"), 1, 1.0),  # full in 60 s at one a second
        (openai("0", "6m0s", "3"), 1, 120.0),
        (openai("1", "59s"), 1, 0.0),
        (openai("500", "700ms", "1000", "tokens"), 700, 0.28),
        (openai("500", "700ms", "1000", "tokens"), 500, 0.0),
        (openai("500", "700ms", "1000", "tokens"), 10**6, 0.7),  # more than there ever is
        (openai("0", "60", "0"), 1, 60.0),  # of an unknown size
        (openai("0", "", "60"), 1, 0.0),
        (openai("0", "soon", "60"), 1, 0.0),
        (openai("none", "60s", "60"), 1, 0.0),
        (openai("-1", "60s", "60"), 1, 0.0),
        (openai("0", "-5", "60"), 1, 0.0),
        (openai("0", "nan", "60"), 1, 0.0),
        (openai("0", "inf", "60"), 1, 0.0),
        (openai("0", "99h", "60"), 1, 3600.0),
        (openai("100", "60s", "1000"), 1, 0.0),  # plenty
        ({}, 1, 0.0),
    ],
)
def test_the_wait_follows_from_what_is_left(headers: dict[str, str], tokens: int, wait_s: float) -> None:
    found = read(headers)
    assert max((quota.wait_s(NOW, tokens) for quota in found), default=0.0) == pytest.approx(wait_s)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        (anthropic("0", "DATE", "1000"), 3.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-limit": "20", "x-ratelimit-reset": "EPOCH_MS"}, 30.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-limit": "20", "x-ratelimit-reset": "EPOCH_S"}, 30.0),
    ],
)
def test_points_in_time_are_read(headers: dict[str, str], wait_s: float) -> None:
    at = time.time() + 30
    for name, value in headers.items():
        shown = {"EPOCH_MS": str(int(1000 * at)), "EPOCH_S": str(int(at + 1)), "DATE": date(at)}
        headers[name] = shown.get(value, value)
    (quota,) = read(headers)
    assert quota.wait_s(NOW, 100) == pytest.approx(wait_s, rel=0.5)


def test_what_is_sent_is_spent_and_comes_back() -> None:
    (quota,) = read(openai("2", "58s"))
    for _ in range(2):
        assert quota.wait_s(NOW, 1) == 0.0
        quota.spend(1)
    assert quota.wait_s(NOW, 1) == pytest.approx(1.0)
    assert quota.wait_s(NOW + 0.5, 1) == pytest.approx(0.5)
    assert quota.wait_s(NOW + 58, 1) == 0.0


def test_a_limit_is_read_from_answers_and_gone_when_there_is_enough() -> None:
    limit = RateLimit()
    limit.observe(openai("0", "60s"), NOW)
    refusal = limit.quota_refusal(NOW, "groq/llama", 1)
    assert refusal is not None
    assert refusal.message == "Nothing is left of the rate limit of groq/llama; retry in 1 s"
    assert limit.quota_refusal(NOW + 2, "groq/llama", 1) is None
    limit.observe(openai("5000", "60s", "10000"), NOW + 2)
    assert not limit.quotas


def test_the_headers_of_a_provider_are_looked_up_again_now_and_then() -> None:
    limit = RateLimit()
    limit.observe({}, NOW)
    assert limit.unread == LOOK_AGAIN - 1
    for _ in range(LOOK_AGAIN):
        limit.observe(openai("0", "60s"), NOW)
    assert limit.quotas
    switched_off = RateLimit(is_enabled=False)
    switched_off.observe(openai("0", "60s"), NOW)
    assert not switched_off.quotas


@given(st.sampled_from(NAMES), st.text(max_size=12), st.text(max_size=12), st.text(max_size=20))
def test_no_header_breaks_it(name: str, left: str, limit: str, reset: str) -> None:
    headers = {
        name: left,
        name.replace("remaining", "limit"): limit,
        name.replace("remaining", "reset"): reset,
    }
    for quota in read(headers):
        assert 0 <= quota.wait_s(NOW, 10) <= 3600
