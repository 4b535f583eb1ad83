"""The refusals of limits and budgets in every dialect, and what the official SDKs make of them."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import anthropic
import openai
import pytest
from typing_extensions import override

from sanic_proxy.dialects.base import Dialect
from sanic_proxy.dialects.chat import CHAT
from sanic_proxy.dialects.gemini import GEMINI
from sanic_proxy.dialects.messages import MESSAGES
from sanic_proxy.dialects.responses import RESPONSES
from sanic_proxy.errors import BudgetUsedUp, ProxyError
from sanic_proxy.governance.budgets import Charge, Counter
from sanic_proxy.governance.rates import RateRefusal, Standing
from sanic_proxy.governance.refusals import (
    budget_reserved,
    budget_used_up,
    duration,
    limit_headers,
    rate_limited,
    renamed,
)
from sanic_proxy.governance.rules import ALL, Scope
from sanic_proxy.server.error_responses import error_headers

TEAM = Scope("team", "red")
DOLLAR = 10**9
NOW = datetime.datetime(2026, 11, 28, 12, tzinfo=datetime.UTC)
MONTH_END = int(datetime.datetime(2026, 12, 1, tzinfo=datetime.UTC).timestamp())


def budget(end: int = MONTH_END, *, is_strict: bool = False) -> Charge:
    return Charge(Counter("team", "red", "month", 0), 20 * DOLLAR, end, is_strict=is_strict)


BUDGET = budget()


def used_up(
    charge: Charge = BUDGET, used: int = 20 * DOLLAR, needed: int = DOLLAR // 20, status: int = 429
) -> BudgetUsedUp:
    return budget_used_up(charge, used, needed, now=NOW.timestamp(), status=status)


USED_UP = used_up()
RESERVED = budget_reserved(BUDGET, 19_990_000_000, 5_000_000)
LIMITED = rate_limited(RateRefusal(ALL, "requests", 60, 1.16))


def test_a_budget_that_is_used_up_names_its_scope_sums_and_end() -> None:
    assert USED_UP.message == (
        "The budget of the team red per month is used up: 20.00 of 20.00 USD spent. "
        "It resets in 60h0m0s, at 2026-12-01T00:00:00Z"
    )
    assert dict(error_headers(USED_UP)) == {"retry-after": "216000", "x-should-retry": "false"}
    assert USED_UP.status == 429


@pytest.mark.parametrize(("is_strict", "amount"), [(True, "may cost up to"), (False, "is estimated at")])
def test_a_request_that_is_too_dear_for_what_is_left_is_told_so(is_strict: bool, amount: str) -> None:
    assert used_up(budget(is_strict=is_strict), 19_990_000_000).message == (
        "The budget of the team red per month has 0.01 of 20.00 USD left, and this request "
        f"{amount} 0.05 USD. It resets in 60h0m0s, at 2026-12-01T00:00:00Z"
    )


@pytest.mark.parametrize(
    ("charge", "retry_after", "end"),
    [
        (budget(int(NOW.timestamp()) + 5), "61", "It resets in 5s, at 2026-11-28T12:00:05Z"),
        (budget(int(NOW.timestamp()) + 62), "62", "It resets in 1m2s, at 2026-11-28T12:01:02Z"),
        (Charge(Counter("all", "", "total", 0), DOLLAR), "3600", "1.00 USD spent. It does not reset"),
        (
            Charge(Counter("session", "c/s", "total", 0), DOLLAR),
            "3600",
            "The budget of this agent session is used up: 1.00 of 1.00 USD spent. Begin a new session",
        ),
        (
            Charge(Counter("session requests", "c/s", "total", 0), 2, is_money=False),
            "3600",
            "requests of this agent session is used up: 2 of 2 requests made. Begin a new session",
        ),
    ],
    ids=["5s", "62s", "total", "cost", "requests"],
)
def test_when_a_budget_can_be_used_again(charge: Charge, retry_after: str, end: str) -> None:
    error = used_up(charge, charge.limit, status=402)
    assert error.message.endswith(end)
    assert (error.status, dict(error_headers(error))["retry-after"]) == (402, retry_after)
    assert json.loads(GEMINI.error_body(error))["error"]["details"][0]["retryDelay"] == f"{retry_after}s"


def test_a_budget_that_is_reserved_says_when_to_come_again() -> None:
    assert RESERVED.message == (
        "What is left of the budget of the team red per month is reserved by requests in flight: "
        "19.99 of 20.00 USD spent, 0.005 USD reserved. Please try again in 2s"
    )
    assert error_headers(RESERVED) == [("retry-after", "2")]
    assert (RESERVED.status, RESERVED.code) == (429, "budget_reserved")


def test_a_rate_says_exactly_when_to_come_again() -> None:
    assert LIMITED.message == (
        "Rate limit of all clients reached: 60 requests per minute. Please try again in 1.2s"
    )
    assert dict(error_headers(LIMITED)) == {"retry-after": "2", "retry-after-ms": "1160"}
    assert (LIMITED.status, LIMITED.type, LIMITED.code) == (429, "rate_limit_error", "rate_limit_exceeded")


@pytest.mark.parametrize("error", [USED_UP, RESERVED, LIMITED], ids=["used-up", "reserved", "limited"])
def test_a_refusal_blames_no_target_and_ends_all_attempts(error: ProxyError) -> None:
    assert not error.blames_target
    assert error.is_final


@pytest.mark.parametrize(
    ("dialect", "error", "body"),
    [
        (CHAT, USED_UP, {"type": "insufficient_quota", "code": "insufficient_quota", "param": None}),
        (RESPONSES, USED_UP, {"type": "insufficient_quota", "code": "insufficient_quota", "param": None}),
        (CHAT, RESERVED, {"type": "rate_limit_error", "code": "budget_reserved", "param": None}),
        (CHAT, LIMITED, {"type": "rate_limit_error", "code": "rate_limit_exceeded", "param": None}),
        (MESSAGES, USED_UP, {"type": "billing_error"}),
        (MESSAGES, RESERVED, {"type": "rate_limit_error"}),
        (MESSAGES, LIMITED, {"type": "rate_limit_error"}),
    ],
)
def test_bodies(dialect: Dialect, error: ProxyError, body: dict[str, Any]) -> None:
    assert json.loads(dialect.error_body(error))["error"] == {"message": error.message, **body}


def test_bodies_of_gemini() -> None:
    found = json.loads(GEMINI.error_body(USED_UP))["error"]
    assert (found["code"], found["status"], found["message"]) == (429, "RESOURCE_EXHAUSTED", USED_UP.message)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (USED_UP, "insufficient_quota"),
        (RESERVED, "rate_limit_exceeded"),
        (LIMITED, "rate_limit_exceeded"),
    ],
)
def test_a_stream_of_responses_that_has_begun_fails_with_a_code_that_agents_know(
    error: ProxyError, code: str
) -> None:
    last = RESPONSES.error_event(error).rstrip().rsplit(b"data: ", 1)[1]
    event = json.loads(last)
    assert event["type"] == "response.failed"
    assert event["response"]["error"] == {"code": code, "message": error.message}


def test_headers_of_limits() -> None:
    requests, tokens = Standing(ALL, 60, 12, 48.0), Standing(TEAM, 1000, 0, 90.2)
    assert limit_headers(requests, tokens, dialect="chat", now=NOW.timestamp()) == [
        ("x-ratelimit-limit-requests", "60"),
        ("x-ratelimit-remaining-requests", "12"),
        ("x-ratelimit-reset-requests", "48s"),
        ("x-ratelimit-limit-tokens", "1000"),
        ("x-ratelimit-remaining-tokens", "0"),
        ("x-ratelimit-reset-tokens", "1m31s"),
    ]
    assert limit_headers(requests, None, dialect="messages", now=NOW.timestamp()) == [
        ("anthropic-ratelimit-requests-limit", "60"),
        ("anthropic-ratelimit-requests-remaining", "12"),
        ("anthropic-ratelimit-requests-reset", "2026-11-28T12:00:48Z"),
    ]
    assert limit_headers(None, None, dialect="chat", now=NOW.timestamp()) == []


def test_a_providers_own_limits_get_another_name() -> None:
    headers = [("x-ratelimit-limit-requests", "9"), ("openai-processing-ms", "5")]
    assert renamed(headers) == [("x-upstream-ratelimit-limit-requests", "9"), ("openai-processing-ms", "5")]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0121, "13ms"), (1.16, "1.2s"), (59.91, "60s"), (60, "1m0s"), (3661, "1h1m1s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


class Refusing:
    """A server that answers every request with `error`, and counts them. Its base URL is `url`."""

    def __init__(self) -> None:
        self.error: ProxyError = USED_UP
        self.requests = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.requests += 1
                dialect: Dialect = MESSAGES if self.path.startswith("/v1/messages") else CHAT
                body = dialect.error_body(outer.error)
                self.send_response(outer.error.status)
                for name, value in error_headers(outer.error):
                    self.send_header(name, value)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            @override
            def log_message(self, *_: object) -> None:
                """Not on standard error."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = Thread(target=self.server.serve_forever)


@pytest.fixture
def server() -> Iterator[Refusing]:
    made = Refusing()
    made.thread.start()
    yield made
    made.server.shutdown()
    made.thread.join()
    made.server.server_close()


def ask_openai(url: str) -> None:
    with openai.OpenAI(api_key="k", base_url=f"{url}/v1") as client:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])


def ask_responses(url: str) -> None:
    with openai.OpenAI(api_key="k", base_url=f"{url}/v1") as client:
        client.responses.create(model="m", input="hi")


def ask_anthropic(url: str) -> None:
    with anthropic.Anthropic(api_key="k", base_url=url) as client:
        client.messages.create(model="m", max_tokens=5, messages=[{"role": "user", "content": "hi"}])


@pytest.mark.parametrize("status", [429, 402, 422])
@pytest.mark.parametrize("ask", [ask_openai, ask_responses, ask_anthropic])
def test_sdks_take_a_used_up_budget_after_one_request(
    server: Refusing, ask: Callable[[str], None], status: int
) -> None:
    server.error = used_up(status=status)
    with pytest.raises(
        (openai.APIStatusError, anthropic.APIStatusError), match="team red per month is used up"
    ):
        ask(server.url)
    assert server.requests == 1


@pytest.mark.parametrize("ask", [ask_openai, ask_anthropic])
def test_sdks_repeat_a_request_that_a_rate_refused(server: Refusing, ask: Callable[[str], None]) -> None:
    server.error = rate_limited(RateRefusal(ALL, "tokens", 60, 0.001))
    with pytest.raises((openai.RateLimitError, anthropic.RateLimitError), match="Rate limit of all clients"):
        ask(server.url)
    assert server.requests == 3
