"""Clients with limits and budgets at a real proxy: what is booked, and how clients are refused."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sanic_proxy.governance.leases import ESTIMATED, UNPRICED
from tests.support.admin import ADMIN_KEY, bearer
from tests.support.billing import KEY, Billing, frames_of, running_billing
from tests.support.proxy import GENEROUS_S, Proxy, Reply, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import Exchange, Upstream, straico_completion

CLIENTS = """
[clients.app]
key_env = "APP_KEY"
budget = { usd = 100, per = "day" }
[clients.tiny]
key_env = "TINY_KEY"
budget = { usd = 0.0001, per = "day", strict = true }
[clients.soft]
key_env = "SOFT_KEY"
budget = { usd = 0.01 }
soft = [1]
[clients.slow]
key_env = "SLOW_KEY"
rpm = 1
[clients.narrow]
key_env = "NARROW_KEY"
models = ["other*"]
endpoints = ["/chat/*"]
[clients.listed]
key_env = "LISTED_KEY"
budget = { usd = 100 }
endpoints = ["*"]
[clients.loop]
key_env = "LOOP_KEY"
max_requests = 2
[clients.plain]
key_env = "PLAIN_KEY"
"""


@pytest.fixture(scope="module")
def billing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Billing]:
    with running_billing(
        tmp_path_factory.mktemp("billing"), CLIENTS, SANIC_PROXY_BREAKER="off", SANIC_PROXY_ATTEMPTS="8"
    ) as started:
        yield started
    assert "Traceback" not in started.proxy.log


def test_a_whole_answer_is_booked_at_what_the_provider_bills(billing: Billing) -> None:
    reply = billing.post("app", metadata={"id": "whole"}, headers={"x-request-id": "whole"})
    assert reply.status == 200
    (row,) = billing.rows("whole")
    assert row["nano"] == billing.bill("whole") > 0
    assert (row["input"], row["output"]) == (
        reply.json["usage"]["prompt_tokens"],
        reply.json["usage"]["completion_tokens"],
    )
    assert (row["client"], row["provider"], row["target"], row["model"]) == ("app", "bill", "bill/x", "m")
    assert (row["dialect"], row["endpoint"], row["outcome"]) == ("chat", "/chat/completions", "complete")
    assert (row["flags"], row["attempt"]) == (0, 1)


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_obfuscation": False}}])
def test_a_stream_reports_its_usage_to_the_proxy_alone(billing: Billing, options: dict[str, Any]) -> None:
    id_ = f"stream{len(options)}"
    asked = {"stream": True, "metadata": {"id": id_}, "headers": {"x-request-id": id_}, **options}
    reply = billing.post("app", **asked)
    assert reply.status == 200
    assert all(frame.get("usage") is None and frame["choices"] for frame in frames_of(reply))
    (row,) = billing.rows(id_)
    assert row["nano"] == billing.bill(id_) > 0
    reply = billing.post("app", stream=True, stream_options={"include_usage": True}, metadata={"id": "own"})
    assert frames_of(reply)[-1]["usage"]["prompt_tokens"] > 0


def test_a_stream_that_breaks_off_is_booked_at_its_reservation(billing: Billing) -> None:
    billing.post("app", stream=True, metadata={"id": "cut", "fault": "cut"}, headers={"x-request-id": "cut"})
    (row,) = billing.rows("cut")
    assert row["flags"] & ESTIMATED
    assert row["nano"] == row["reserved"] > 0


def test_each_attempt_is_a_row_and_what_was_not_billed_costs_nothing(billing: Billing) -> None:
    reply = billing.post("plain", model="steps", headers={"x-request-id": "steps"}, metadata={"id": "steps"})
    assert reply.status == 200
    rows = billing.rows("steps", 3)
    assert [(row["target"], row["outcome"], row["nano"] > 0) for row in rows] == [
        ("gone/x", "upstream_connect_error", False),
        ("gone/x", "upstream_connect_error", False),
        ("bill/x", "complete", True),
    ]


def test_a_target_that_cannot_be_paid_is_passed_over(billing: Billing) -> None:
    reply = billing.post("soft", model="steps", headers={"x-request-id": "skip"})
    assert reply.status == 200
    assert "bill/x insufficient_quota, bill/y ok" in reply.headers["x-sanic-proxy-route"]
    assert [row["target"] for row in billing.rows("skip", 3)][-1] == "bill/y"


@pytest.mark.row(60)
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {}),
        ("/v1/chat/completions", {"stream": True}),
        ("/v1/responses", {"input": "Hi", "max_output_tokens": 64}),
        ("/v1/messages", {}),
        ("/v1beta/models/m:generateContent", {"contents": [{"parts": [{"text": "Hi"}]}]}),
    ],
)
def test_a_budget_that_is_used_up_is_refused_so_that_agents_stop(
    billing: Billing, path: str, fields: dict[str, object]
) -> None:
    reply = billing.post("tiny", path, **fields)
    assert reply.status == 429
    assert reply.headers["x-should-retry"] == "false"
    assert int(reply.headers["retry-after"]) > 60
    assert re.match(
        r"The budget of the client tiny per day has 0.0001 of 0.0001 USD left, and this request may cost up "
        r"to 0.[0-9]+ USD. It resets in [0-9hms]+, at [0-9-]+T00:00:00Z",
        reply.json["error"]["message"],
    )
    error = reply.json["error"]
    if path == "/v1/messages":
        assert (reply.json["type"], error["type"]) == ("error", "billing_error")
    elif path.startswith("/v1beta"):
        assert (error["code"], error["status"]) == (429, "RESOURCE_EXHAUSTED")
        assert error["details"][0]["retryDelay"] == f"{reply.headers['retry-after']}s"
    else:
        assert error["code"] == error["type"] == "insufficient_quota"


def test_a_strict_budget_needs_a_limit_of_the_output(billing: Billing) -> None:
    reply = billing.post("tiny", model="unpriced", max_tokens=None)
    assert reply.status in {400, 403}


def test_a_rate_is_refused_with_the_time_to_wait(billing: Billing) -> None:
    first, second = billing.post("slow"), billing.post("slow")
    assert first.status == 200
    assert first.headers["x-ratelimit-limit-requests"] == "1"
    assert (second.status, second.error["code"]) == (429, "rate_limit_exceeded")
    assert 0 < int(second.headers["retry-after-ms"]) <= 60_000


def test_a_key_has_its_models_and_endpoints(billing: Billing) -> None:
    reply = billing.post("narrow")
    assert (reply.status, reply.error["code"]) == (403, "model_not_allowed")
    reply = billing.post("narrow", "/v1/embeddings", input="Hi")
    assert (reply.status, reply.error["code"]) == (403, "endpoint_not_allowed")


def test_what_cannot_be_priced_is_refused_to_a_key_with_a_budget(billing: Billing) -> None:
    reply = billing.post("app", model="unpriced")
    assert (reply.status, reply.error["code"]) == (403, "price_unknown")
    form = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--b--\r\n'
    headers = {**bearer(KEY.format(name="app")), "content-type": "multipart/form-data; boundary=b"}
    reply = billing.proxy.request("POST", "/v1/audio/transcriptions", form, headers)
    assert (reply.status, reply.error["code"]) == (403, "endpoint_not_allowed")
    reply = billing.post("app", "/v1/audio/speech", input="Hi")
    assert (reply.status, reply.error["code"]) == (403, "price_unknown")
    assert billing.post("listed", "/v1/audio/speech", input="Hi").status == 200


def test_what_cannot_be_priced_is_flagged_for_a_key_without_one(billing: Billing) -> None:
    assert billing.post("plain", model="unpriced", headers={"x-request-id": "free"}).status == 200
    (row,) = billing.rows("free")
    assert (row["nano"], row["flags"]) == (0, UNPRICED)


def test_a_session_of_an_agent_has_its_own_cap(billing: Billing) -> None:
    in_session = [billing.post("loop", headers={"session-id": "s1"}).status for _ in range(3)]
    assert in_session == [200, 200, 429]
    assert billing.post("loop", headers={"session-id": "s2"}).status == 200
    assert billing.post("loop").status == 200


def test_a_client_is_told_what_it_has_used_of_its_budget(billing: Billing) -> None:
    shown = {billing.post("soft").headers.get("x-sanic-proxy-budget") for _ in range(40)}
    assert "1% of the budget of the client soft is used" in shown
    assert billing.proxy.log.count("1% of the budget of the client soft is used") == 1


def test_without_limits_and_ledger_nothing_is_opened(tmp_path: Path) -> None:
    settings = {"SANIC_PROXY_API_KEYS": "sk-plain-0123456789", "SANIC_PROXY_STATE_DIR": str(tmp_path / "s")}
    with running_proxy(settings, "--workers=1") as proxy:
        reply = proxy.chat("echo/echo", headers={"authorization": "Bearer sk-plain-0123456789"})
        assert reply.status == 200
    assert not (tmp_path / "s").exists()


PIECES = """
[models.speak]
targets = ["groq/speak"]
prices = { character = 0.001 }
[models.paint]
targets = ["groq/paint"]
prices = { image = 0.04, images = { "1024x1024" = 0.05, "hd/1024x1024" = 0.08 } }
[models.paint-tokens]
targets = ["groq/paint-tokens"]
prices = { input = 5, image_input = 10, image_output = 40 }
[models.sort]
targets = ["groq/sort"]
prices = { search_unit = 0.002 }
[models.listen]
targets = ["groq/listen"]
prices = { second = 0.0001 }
[models.coins]
targets = ["straico/openai/gpt-4o-mini"]
[providers.straico]
cost_unit = 0.0001
[models.plain]
targets = ["groq/plain"]
prices = { input = 1, output = 1 }
[clients.app]
key_env = "APP_KEY"
budget = { usd = 1 }
[clients.strict]
key_env = "STRICT_KEY"
budget = { usd = 0.1, strict = true }
[clients.listed]
key_env = "LISTED_KEY"
budget = { usd = 1 }
endpoints = ["/audio/*", "/models*"]
"""
IMAGES = {"created": 1, "data": [{"url": "http://a/1"}, {"url": "http://a/2"}]}
IMAGE_TOKENS = {
    "total_tokens": 1100,
    "input_tokens": 100,
    "output_tokens": 1000,
    "input_tokens_details": {"text_tokens": 60, "image_tokens": 40},
    "output_tokens_details": {"image_tokens": 1000, "text_tokens": 0},
}
MESSAGES = [{"role": "user", "content": "Hi"}]
RANKED = {"results": [{"index": 0, "relevance_score": 0.9}]}


class Paid:
    """A proxy whose clients pay for pieces, in front of a scripted upstream."""

    def __init__(self, proxy: Proxy, upstream: Upstream) -> None:
        self.proxy = proxy
        self.upstream = upstream

    def post(self, client: str, path: str, answer: Any = b"", kind: str = "", **fields: Any) -> Reply:
        async def script(exchange: Exchange) -> None:
            await exchange.answer(answer, 200, **({"kind": kind} if kind else {}))

        self.upstream.on(fields["model"], script)
        return self.proxy.request("POST", path, fields, bearer(KEY.format(name=client)))

    def booked(self, reply: Reply) -> tuple[float, list[str]]:
        """What the request has cost, in US dollars, and the flags of its row."""
        assert reply.status == 200, reply.body
        until = time.monotonic() + GENEROUS_S
        while True:
            path = f"/spend/logs?request_id={reply.headers['x-request-id']}"
            if found := self.proxy.request("GET", path, headers=bearer(ADMIN_KEY)).json:
                return found[0]["spend"], found[0]["metadata"]["flags"]
            assert time.monotonic() < until
            time.sleep(0.02)


@pytest.fixture(scope="module")
def paid(tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream) -> Iterator[Paid]:
    directory = tmp_path_factory.mktemp("paid")
    (directory / "proxy.toml").write_text(PIECES)
    settings = {
        **provider_settings(shared_upstream),
        **{f"{name.upper()}_KEY": KEY.format(name=name) for name in ("app", "strict", "listed")},
        "SANIC_PROXY_CONFIG": str(directory / "proxy.toml"),
        "SANIC_PROXY_STATE_DIR": str(directory),
        "SANIC_PROXY_ADMIN_KEY": ADMIN_KEY,
    }
    with running_proxy(settings, "--workers=1") as proxy:
        yield Paid(proxy, shared_upstream)


def test_spoken_text_costs_by_character(paid: Paid) -> None:
    reply = paid.post(
        "app", "/v1/audio/speech", b"ID3", "audio/mpeg", model="speak", input="Grüße", voice="a"
    )
    assert paid.booked(reply) == (0.005, [])
    refused = paid.post("strict", "/v1/audio/speech", b"ID3", "audio/mpeg", model="speak", input="x" * 101)
    assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")
    assert "may cost up to 0.101 USD" in refused.error["message"]


def test_images_cost_by_size_and_quality_or_by_tokens(paid: Paid) -> None:
    path = "/v1/images/generations"
    for fields, usd in (
        ({"n": 2, "quality": "hd", "size": "1024x1024"}, 0.16),
        ({"n": 2}, 0.1),
        ({"n": 2, "size": "512x512"}, 0.08),
    ):
        reply = paid.post("app", path, IMAGES, model="paint", prompt="x", **fields)
        assert paid.booked(reply) == (usd, [])
    answer = {**IMAGES, "usage": IMAGE_TOKENS}
    reply = paid.post("app", path, answer, model="paint-tokens", prompt="x")
    assert paid.booked(reply) == (60 * 5e-6 + 40 * 10e-6 + 1000 * 40e-6, [])
    refused = paid.post("strict", path, answer, model="paint-tokens", prompt="x")
    assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")


def test_a_stream_of_images_is_booked_at_its_reservation(paid: Paid) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream([b'event: image_generation.completed\ndata: {"b64_json": "AA=="}\n\n'])

    paid.upstream.on("paint", script)
    fields = {"model": "paint", "prompt": "x", "stream": True, "n": 2}
    headers = bearer(KEY.format(name="app"))
    reply = paid.proxy.request("POST", "/v1/images/generations", fields, headers)
    assert paid.booked(reply) == (0.1, ["estimated"])


def test_reranking_costs_by_search(paid: Paid) -> None:
    asked: dict[str, Any] = {"model": "sort", "query": "x", "documents": ["a"] * 150}
    assert paid.booked(paid.post("app", "/v1/rerank", RANKED, **asked)) == (0.004, [])
    billed = {**RANKED, "meta": {"billed_units": {"search_units": 3}}}
    assert paid.booked(paid.post("app", "/v1/rerank", billed, **asked)) == (0.006, [])
    tokens = {**RANKED, "usage": {"total_tokens": 1000}}
    assert paid.booked(paid.post("app", "/v1/rerank", tokens, **{**asked, "model": "plain"})) == (0.001, [])


def test_pieces_without_a_price_are_refused_unless_the_key_names_the_endpoint(paid: Paid) -> None:
    asked: dict[str, Any] = {"model": "plain", "input": "x", "answer": b"ID3", "kind": "audio/mpeg"}
    refused = paid.post("app", "/v1/audio/speech", **asked)
    assert (refused.status, refused.error["code"]) == (403, "price_unknown")
    assert paid.booked(paid.post("listed", "/v1/audio/speech", **asked)) == (0, ["unpriced"])


def test_transcribed_sound_costs_by_the_seconds_that_the_answer_reports(paid: Paid) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer({"text": "Hi", "usage": {"type": "duration", "seconds": 90}})

    paid.upstream.on("POST /openai/v1/audio/transcriptions", script)
    form = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nlisten\r\n--b--\r\n'
    headers = {**bearer(KEY.format(name="listed")), "content-type": "multipart/form-data; boundary=b"}
    reply = paid.proxy.request("POST", "/v1/audio/transcriptions", form, headers)
    assert paid.booked(reply) == (0.009, [])


def test_a_provider_with_a_unit_of_its_own_costs_what_it_reports(paid: Paid) -> None:
    """Straico reports coins. What the vendor's own prices say is reserved, the report is booked."""
    answer = straico_completion()

    async def script(exchange: Exchange) -> None:
        await exchange.answer(answer)

    paid.upstream.on("openai/gpt-4o-mini", script)
    reply = paid.post("app", "/v1/chat/completions", model="coins", messages=MESSAGES, max_tokens=5)
    assert paid.booked(reply) == (answer["price"]["total"] * 0.0001, [])
