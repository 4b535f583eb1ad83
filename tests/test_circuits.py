"""Circuits, rate limits and retries as clients and operators of a real proxy see them."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.proxy import Proxy, running_proxy
from tests.support.upstream import Exchange, Script, Upstream, completion

KEYS = ("gsk-canary-first-1111", "gsk-canary-second-2222")


def fails(status: int, *headers: tuple[str, str], code: str | None = None, message: str = "no") -> Script:
    async def script(exchange: Exchange) -> None:
        error = {"message": message, "type": "t", "param": None, "code": code}
        await exchange.answer({"error": error}, status, *headers)

    return script


async def closes(exchange: Exchange) -> None:
    exchange.close()


async def answers(exchange: Exchange) -> None:
    await exchange.answer(completion("Hello"))


@pytest.fixture
def proxy(shared_upstream: Upstream, upstream: Upstream) -> Iterator[Proxy]:
    """One attempt each; a provider with one key, and one with two."""
    settings = {
        "GROQ_API_KEY": KEYS[0],
        "GROQ_BASE_URL": f"{shared_upstream.url}/v1",
        "XAI_API_KEY": ", ".join(KEYS),
        "XAI_BASE_URL": f"{shared_upstream.url}/v1",
        "SANIC_PROXY_ATTEMPTS_PER_TARGET": "1",
        "SANIC_PROXY_ROUTER": "on",
    }
    with running_proxy(settings) as started:
        yield started


@pytest.fixture
def repeating(shared_upstream: Upstream, upstream: Upstream, tmp_path: Path) -> Iterator[Proxy]:
    """The default attempts, and a model with a fallback."""
    config = tmp_path / "proxy.toml"
    config.write_text('[models.fast]\ntargets = ["groq/first", "xai/second"]\n')
    settings = {
        "GROQ_API_KEY": KEYS[0],
        "GROQ_BASE_URL": f"{shared_upstream.url}/v1",
        "XAI_API_KEY": KEYS[1],
        "XAI_BASE_URL": f"{shared_upstream.url}/v1",
        "SANIC_PROXY_CONFIG": str(config),
    }
    with running_proxy(settings) as started:
        yield started


def route(headers: str) -> str:
    return re.sub(r" \d+ms", "", headers)


# Rate limits


def test_a_rate_limited_target_gets_one_request_and_clients_a_retry_after(
    proxy: Proxy, upstream: Upstream
) -> None:
    upstream.on("m", fails(429, ("retry-after", "30")))
    replies = [proxy.chat("groq/m") for _ in range(10)]
    assert [reply.status for reply in replies] == [429] * 10
    assert len(upstream.seen("m")) == 1
    waits = [int(reply.headers["retry-after"]) for reply in replies]
    assert all(0 < wait <= 30 for wait in waits)
    assert waits == sorted(waits, reverse=True)
    assert replies[-1].headers["x-sanic-proxy-route"] == "groq/m rate_limited"
    assert all("x-should-retry" not in reply.headers for reply in replies)


def test_a_rate_limited_key_is_passed_over_for_the_next(proxy: Proxy, upstream: Upstream) -> None:
    async def by_key(exchange: Exchange) -> None:
        is_first = exchange.seen.header("authorization") == f"Bearer {KEYS[0]}"
        await (fails(429, ("retry-after", "30")) if is_first else answers)(exchange)

    upstream.on("m", by_key)
    replies = [proxy.chat("xai/m") for _ in range(3)]
    assert [reply.status for reply in replies] == [200] * 3
    assert route(replies[0].headers["x-sanic-proxy-route"]) == "xai/m 429, xai#2/m ok"
    assert route(replies[2].headers["x-sanic-proxy-route"]) == "xai/m rate_limited, xai#2/m ok"
    assert len(upstream.seen("m")) == 4


# Failures


@pytest.mark.row(29)
def test_repeats_of_a_failing_request_meet_the_circuit(repeating: Proxy, upstream: Upstream) -> None:
    upstream.on("m", fails(500, message="the words of the client that broke it"))
    replies = [repeating.chat("groq/m") for _ in range(12)]
    assert len(upstream.seen("m")) == 5
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in replies)
    assert all("x-should-retry" not in reply.headers for reply in replies)
    last = replies[-1]
    assert (last.status, last.error["code"]) == (503, "upstream_circuit_open")
    wait_s = last.headers["retry-after"]
    assert last.error["message"] == f"Circuit open: groq/m failed 5 times in a row; retry in {wait_s} s"


def test_a_connection_that_closes_without_an_answer_is_retried_then_moved(
    repeating: Proxy, upstream: Upstream
) -> None:
    upstream.on("first", closes)
    upstream.on("second", answers)
    reply = repeating.chat("fast")
    assert reply.status == 200
    assert route(reply.headers["x-sanic-proxy-route"]) == (
        "groq/first upstream_disconnected, groq/first upstream_disconnected, xai/second ok"
    )


@pytest.mark.row(35)
def test_a_stale_connection_is_replaced_by_a_counted_attempt(repeating: Proxy, upstream: Upstream) -> None:
    scripts = [answers, closes, answers]

    async def in_turn(exchange: Exchange) -> None:
        await scripts.pop(0)(exchange)

    upstream.on("m", in_turn)
    assert repeating.chat("groq/m").status == 200
    reply = repeating.chat("groq/m")
    assert (reply.status, route(reply.headers["x-sanic-proxy-route"])) == (
        200,
        "groq/m upstream_disconnected, groq/m ok",
    )


def test_endpoints_do_not_share_health(proxy: Proxy, upstream: Upstream) -> None:
    async def embeds(exchange: Exchange) -> None:
        await exchange.answer({"object": "list", "data": []})

    upstream.on("GET /v1/files/f/content", fails(302))
    upstream.on("m", embeds)
    to_groq = {"x-provider": "groq"}
    replies = [proxy.request("GET", "/v1/files/f/content", headers=to_groq) for _ in range(7)]
    assert replies[-1].headers["x-sanic-proxy-route"] == "groq circuit_open"
    assert proxy.request("POST", "/v1/embeddings", {"model": "m"}, to_groq).status == 200


def test_models_of_a_provider_that_is_named_by_a_header_do_not_share_health(
    proxy: Proxy, upstream: Upstream
) -> None:
    async def embeds(exchange: Exchange) -> None:
        await exchange.answer({"object": "list", "data": []})

    upstream.on("m", fails(429, ("retry-after", "30")))
    upstream.on("other", embeds)
    to_groq = {"x-provider": "groq"}
    replies = [proxy.request("POST", "/v1/embeddings", {"model": "m"}, to_groq) for _ in range(2)]
    assert route(replies[1].headers["x-sanic-proxy-route"]) == "groq/m rate_limited"
    assert proxy.request("POST", "/v1/embeddings", {"model": "other"}, to_groq).status == 200


def test_a_slow_upload_does_not_block_probes(proxy: Proxy, upstream: Upstream) -> None:
    async def made(exchange: Exchange) -> None:
        await exchange.answer({"object": "file", "id": "f"})

    boundary, target = "b", {"x-provider": "groq", "content-type": "multipart/form-data; boundary=b"}
    form = (
        f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\nx\r\n'
        f"--{boundary}--\r\n"
    ).encode()
    upstream.on("POST /v1/files", fails(500))
    for _ in range(5):
        assert proxy.request("POST", "/v1/files", form, target).status == 502
    reply = proxy.request("POST", "/v1/files", form, target)
    assert reply.error["code"] == "upstream_circuit_open"
    upstream.on("POST /v1/files", made)
    time.sleep(int(reply.headers["retry-after"]))
    head = (
        f"POST /v1/files HTTP/1.1\r\nhost: localhost\r\nx-provider: groq\r\n"
        f"content-type: {target['content-type']}\r\ncontent-length: {len(form) + 100}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as slow:
        slow.sendall(head.encode())
        for number in range(3):
            time.sleep(0.8)
            slow.sendall(form[number : number + 1])
        time.sleep(0.2)
        assert proxy.request("POST", "/v1/files", form, target).status == 200


# The log


def test_the_log_names_circuits_keys_and_failed_requests(proxy: Proxy, upstream: Upstream) -> None:
    upstream.on("m", fails(500))
    upstream.on("k", fails(401, code="invalid_api_key"))
    replies = [proxy.chat("groq/m") for _ in range(8)]
    proxy.chat("groq/k")
    assert proxy.request("GET", "/health").status == 200
    proxy.wait_for_log("API key rejected: groq, key ...1111, rejected the proxy's API key (last: 401 ")
    lines = proxy.log.splitlines()
    (opened,) = [line for line in lines if "circuit opened" in line]
    assert " warning " in opened
    assert (
        "circuit opened: groq/m POST /chat/completions, key ...1111, failed 5 times in a row"
        " (last: 500 upstream_error); next attempt in " in opened
    )
    assert not [line for line in lines if "path=/health" in line]
    assert " warning request " in proxy.log_line(replies[0].headers["x-request-id"])
    upstream.on("m", answers)
    until = time.monotonic() + 60
    while (reply := proxy.chat("groq/m")).status != 200 and time.monotonic() < until:
        time.sleep(0.2)
    assert " info request " in proxy.log_line(reply.headers["x-request-id"])
    proxy.wait_for_log("circuit closed: groq/m POST /chat/completions, key ...1111, answers again after ")


def test_json_logs_have_the_levels_too(shared_upstream: Upstream, upstream: Upstream) -> None:
    upstream.on("m", fails(500))
    settings = {
        "GROQ_API_KEY": KEYS[0],
        "GROQ_BASE_URL": f"{shared_upstream.url}/v1",
        "SANIC_PROXY_LOG_FORMAT": "json",
        "SANIC_PROXY_ATTEMPTS": "1",
    }
    with running_proxy(settings) as proxy:
        proxy.chat("groq/m")
        proxy.wait_for_log('"request"')
        lines = [json.loads(line) for line in proxy.log.splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line["message"] == "request"]
    assert (line["level"], line["ended"]) == ("warning", "upstream_error")


# Clients


def test_one_clients_failing_prompt_does_not_refuse_another_client(
    shared_upstream: Upstream, upstream: Upstream
) -> None:
    async def poisoned(exchange: Exchange) -> None:
        await (fails(500, message="poison") if b"poison" in exchange.seen.body else answers)(exchange)

    upstream.on("m", poisoned)
    settings = {
        "GROQ_API_KEY": KEYS[0],
        "GROQ_BASE_URL": f"{shared_upstream.url}/v1",
        "SANIC_PROXY_API_KEYS": "client-key-one, client-key-two",
        "SANIC_PROXY_ATTEMPTS": "1",
    }
    first, second = ({"authorization": f"Bearer client-key-{number}"} for number in ("one", "two"))
    with running_proxy(settings) as proxy:
        # Alone, the client with the poisoned prompt meets its own circuit.
        statuses = [proxy.chat("groq/m", headers=first, user="poison").status for _ in range(8)]
        assert statuses == [502] * 5 + [503] * 3
        # Beside it, another client is served each time, and the circuit closes.
        for _ in range(5):
            assert proxy.chat("groq/m", headers=second).status == 200
            failed = [proxy.chat("groq/m", headers=first, user="poison") for _ in range(8)]
            assert {reply.status for reply in failed} == {502}
