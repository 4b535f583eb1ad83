"""Repeats and fallbacks through a real proxy."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.load import wait_until
from tests.support.proxy import Proxy, Reply, free_port, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import (
    DONE,
    Exchange,
    Script,
    Upstream,
    completion,
    frame,
    straico_completion,
    text_stream,
)

# Each test has providers of its own, so that none meets what another has left behind.
COUNT = 120
CONFIG = """
[providers.a{n}]
base_url = "{url}/a/v1"
[providers.b{n}]
base_url = "{url}/b/v1"
api_key_env = "B_KEYS"
[providers.dead{n}]
base_url = "http://127.0.0.1:{port}/v1"
[models.fast{n}]
targets = ["a{n}/first", {{ provider = "b{n}", model = "second" }}]
[models.mixed{n}]
targets = ["straico/s{n}", "b{n}/second"]
[models.again{n}]
targets = ["straico/s{n}", "straico/t{n}"]
[models.away{n}]
targets = ["dead{n}/first", "b{n}/second"]
[models.quick{n}]
targets = ["a{n}/first", "b{n}/second"]
first_content = 0.4
[models.patient{n}]
targets = ["a{n}/first", "b{n}/second"]
first_content = 0
[models.collected{n}]
targets = ["a{n}/first", "b{n}/second"]
first_content = 0.4
collect = true
[models.hedged{n}]
targets = ["a{n}/first", "b{n}/second"]
hedge = {{ after = "300ms", budget = 1 }}
"""
_numbers = itertools.count()


@pytest.fixture(scope="module")
def fallback(shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    config: Path = tmp_path_factory.mktemp("config") / "proxy.toml"
    dead = free_port()
    tables = [CONFIG.format(n=n, url=shared_upstream.url, port=dead) for n in range(COUNT)]
    config.write_text("".join(tables))
    settings = {
        "B_KEYS": "b-one, b-two",
        "STRAICO_API_KEY": "straico-key",
        "STRAICO_BASE_URL": shared_upstream.url,
        "SANIC_PROXY_ROUTER": "on",
        "SANIC_PROXY_CONFIG": str(config),
        "SANIC_PROXY_HEARTBEAT_INTERVAL": "0.1",
        "SANIC_PROXY_STREAM_COMMIT_DELAY": "1",
        "SANIC_PROXY_TIMEOUT_FIRST_BYTE": "2",
    }
    with running_proxy(settings) as started:
        yield started


@pytest.fixture
def n() -> int:
    return next(_numbers)


def fails(status: int, *headers: tuple[str, str]) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(
            {"error": {"message": "no", "type": "t", "param": None, "code": None}}, status, *headers
        )

    return script


async def answers(exchange: Exchange) -> None:
    if exchange.seen.json.get("stream"):
        await exchange.stream(text_stream("Hello"))
    else:
        await exchange.answer(completion("Hello"))


def in_turn(*scripts: Script) -> Script:
    """Each request has its own script; the last one stays."""
    left = list(scripts)

    async def script(exchange: Exchange) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(exchange)

    return script


def route(reply: Reply) -> str:
    return plain(reply.headers["x-sanic-proxy-route"])


def plain(text: str) -> str:
    """A route or log line, without numbers that differ between tests."""
    return re.sub(r" \d+ms", "", re.sub(r"\b(a|b|dead)\d+\b", r"\1", text))


Send = Callable[..., tuple[Reply, str]]


@pytest.fixture(params=["whole", "streamed"])
def send(request: pytest.FixtureRequest, fallback: Proxy) -> Send:
    """Send a chat request, whole or streamed; the reply and its text."""

    def send_chat(model: str, **fields: Any) -> tuple[Reply, str]:
        if request.param == "whole":
            reply = fallback.chat(model, **fields)
            return reply, reply.json["choices"][0]["message"]["content"] if reply.status == 200 else ""
        reply, frames = fallback.stream(model, **fields)
        if reply.status != 200:
            return reply, ""
        assert frames[-1] == DONE
        chunks = [json.loads(frame.partition(b"data: ")[2]) for frame in frames[:-1]]
        return reply, "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)

    return send_chat


@pytest.mark.row(28)
@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_one_failure_is_repeated_silently(send: Send, upstream: Upstream, n: int, status: int) -> None:
    upstream.on("m", in_turn(fails(status), answers))
    reply, text = send(f"a{n}/m")
    assert (reply.status, text) == (200, "Hello")
    assert route(reply) == f"a/m {status}, a/m ok"
    first, second = upstream.seen("m")
    assert first.body == second.body


@pytest.mark.row(30)
@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_client_error_is_not_retried(send: Send, upstream: Upstream, n: int, status: int) -> None:
    upstream.on("m", fails(status))
    reply, _ = send(f"a{n}/m")
    assert reply.status == status
    assert route(reply) == f"a/m {status}"
    assert len(upstream.seen("m")) == 1


def test_an_answer_that_broke_off_is_not_repeated(send: Send, upstream: Upstream, n: int) -> None:
    upstream.on("cut", cut_behind_the_head)
    assert send(f"a{n}/cut")[0].status == 502
    assert len(upstream.seen("cut")) == 1


ROLE = frame({"role": "assistant", "content": ""})


async def silent(exchange: Exchange) -> None:
    await exchange.client_leaves()


async def silent_behind_its_head(exchange: Exchange) -> None:
    """As vLLM and OpenRouter do: the status at once, then prefill."""
    await exchange.begin_stream()
    await exchange.client_leaves()


async def reset(exchange: Exchange) -> None:
    exchange.reset()


async def cut_in_the_head(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 2")
    exchange.close()


async def cut_behind_the_head(exchange: Exchange) -> None:
    await exchange.begin_stream()
    await exchange.chunk(ROLE if exchange.seen.json.get("stream") else b'{"choices": [')
    exchange.close()


async def garbage(exchange: Exchange) -> None:
    await exchange.answer(b"<html>no gateway</html>", kind="text/html")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (silent, "upstream_timeout"),
        (silent_behind_its_head, "upstream_timeout"),
        (reset, "upstream_disconnected"),
        (cut_in_the_head, "upstream_disconnected"),
        (cut_behind_the_head, "upstream_disconnected"),
        (garbage, "upstream_bad_response"),
    ],
)
def test_a_fault_before_anything_was_shown_moves_to_the_next_target(
    send: Send, fallback: Proxy, upstream: Upstream, n: int, fault: Script, reason: str
) -> None:
    upstream.on("first", fault)
    upstream.on("second", answers)
    reply, text = send(f"fast{n}")
    assert (reply.status, text) == (200, "Hello")
    line = plain(fallback.log_line(reply.headers["x-request-id"]))
    assert re.search(rf'route="(a/first {reason}, )+b/second ok"', line)


@pytest.mark.parametrize("is_streaming", [False, True], ids=["whole", "streamed"])
def test_without_another_target_a_timeout_is_the_answer(
    fallback: Proxy, upstream: Upstream, n: int, is_streaming: bool
) -> None:
    upstream.on("m", silent)
    reply = fallback.chat(f"a{n}/m", stream=is_streaming)
    assert b'"upstream_timeout"' in reply.body
    assert len(upstream.seen("m")) == 1


def content_after(delay_s: float, *before: bytes) -> Script:
    """Repeats `before` until the content comes."""

    async def script(exchange: Exchange) -> None:
        if not exchange.seen.json.get("stream"):
            await asyncio.sleep(delay_s)
            await exchange.answer(completion("Slow"))
            return
        await exchange.begin_stream()
        until = time.monotonic() + delay_s
        while (now := time.monotonic()) < until:
            for piece in before:
                await exchange.chunk(piece)
            await asyncio.sleep(min(0.05, until - now))
        for piece in text_stream("Slow"):
            await exchange.chunk(piece)
        await exchange.end_stream()

    return script


@pytest.mark.parametrize(
    "before", [(), (b": processing\n\n",), (ROLE, frame({}))], ids=["silence", "comments", "empty deltas"]
)
def test_a_stream_without_content_in_time_moves_while_another_target_is_left(
    fallback: Proxy, upstream: Upstream, n: int, before: tuple[bytes, ...]
) -> None:
    upstream.on("first", content_after(1.5, *before))
    upstream.on("second", answers)
    reply, frames = fallback.stream(f"quick{n}")
    assert (reply.status, route(reply)) == (200, "a/first upstream_timeout, b/second ok")
    assert b"Slow" not in reply.body
    assert frames == text_stream("Hello")


@pytest.mark.parametrize(
    ("model", "is_streaming"),
    [
        ("a{n}/first", True),  # no other target
        ("patient{n}", True),  # switched off
        ("quick{n}", False),  # the first byte of a whole answer comes when all of it is there
    ],
)
def test_content_is_waited_for_where_the_limit_is_not_in_force(
    fallback: Proxy, upstream: Upstream, n: int, model: str, is_streaming: bool
) -> None:
    upstream.on("first", content_after(0.8))
    reply = fallback.chat(model.format(n=n), stream=is_streaming)
    assert b"Slow" in reply.body
    assert route(reply) == "a/first ok"


def test_a_collected_answer_without_content_in_time_moves(
    fallback: Proxy, upstream: Upstream, n: int
) -> None:
    upstream.on("first", content_after(1.5))
    upstream.on("second", answers)
    reply = fallback.chat(f"collected{n}", temperature=0)
    assert (reply.status, route(reply)) == (200, "a/first upstream_timeout, b/second ok")
    assert reply.json["choices"][0]["message"]["content"] == "Hello"
    assert reply.headers["content-type"] == "application/json"
    sent = upstream.seen("second")[-1].json
    assert (sent["stream"], sent["stream_options"], sent["temperature"]) == (True, {"include_usage": True}, 0)


def test_a_collected_answer_that_breaks_off_moves(fallback: Proxy, upstream: Upstream, n: int) -> None:
    async def cut(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(frame({"content": "Half of"}))
        exchange.close()

    upstream.on("first", cut)
    upstream.on("second", answers)
    reply = fallback.chat(f"collected{n}")
    assert reply.json["choices"][0]["message"]["content"] == "Hello"
    assert route(reply) == "a/first upstream_disconnected, b/second ok"


def test_a_spoken_answer_is_not_collected(fallback: Proxy, upstream: Upstream, n: int) -> None:
    upstream.on("first", answers)
    reply = fallback.chat(f"collected{n}", modalities=["text", "audio"], audio={"voice": "ash"})
    assert reply.json == completion("Hello")
    assert "stream" not in upstream.seen("first")[-1].json


def test_the_last_target_left_has_all_the_time(fallback: Proxy, upstream: Upstream, n: int) -> None:
    upstream.on("first", fails(401))
    upstream.on("second", in_turn(fails(401), content_after(0.8)))
    reply = fallback.chat(f"quick{n}", stream=True)
    assert route(reply) == "a/first 401, b/second 401, b#2/second ok"
    assert b"Slow" in reply.body


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/completions", "a{n}/m"),
        ("/v1/chat/completions", "a{n}/m"),
        ("/v1/chat/completions", "straico/m{n}"),
    ],
)
def test_the_proxys_own_wait_does_not_commit_the_status(
    fallback: Proxy, upstream: Upstream, n: int, path: str, model: str
) -> None:
    """The waits add up to twice the commit delay; the provider answers at once."""
    name = model.format(n=n)
    upstream.on(name.partition("/")[2], fails(429, ("retry-after", "2")))
    body = {"model": name, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    reply = fallback.request("POST", path, body)
    assert reply.status == 429
    assert reply.headers["retry-after"] == "2"
    assert reply.error["code"] == "rate_limit_exceeded"


def test_a_second_attempt_wins_and_the_first_ones_connection_is_closed(
    send: Send, fallback: Proxy, upstream: Upstream, n: int
) -> None:
    closed = threading.Event()

    async def silent(exchange: Exchange) -> None:
        if exchange.seen.json.get("stream"):
            await exchange.begin_stream()
        await exchange.client_leaves()
        exchange.is_closing = True
        closed.set()

    upstream.on("first", silent)
    upstream.on("second", answers)
    reply, text = send(f"hedged{n}")
    assert (reply.status, text) == (200, "Hello")
    assert route(reply) == "a/first hedge_lost, b/second ok"
    line = plain(fallback.log_line(reply.headers["x-request-id"]))
    assert f"provider=b{n}" in fallback.log_line(reply.headers["x-request-id"])
    assert 'route="a/first hedge_lost, b/second ok"' in line
    assert closed.wait(60)


@pytest.mark.parametrize("model", ["a{n}/m", "straico/m{n}"])
def test_the_answer_after_a_wait_has_its_own_status(
    fallback: Proxy, upstream: Upstream, n: int, model: str
) -> None:
    name = model.format(n=n)
    upstream.on(name.partition("/")[2], in_turn(fails(429, ("retry-after", "2")), fails(400)))
    reply, _ = fallback.stream(name)
    assert reply.status == 400


@pytest.mark.row(1, 28)
@pytest.mark.parametrize("status", [401, 402, 403, 429, 500, 503])
def test_the_next_target_answers(
    send: Send, fallback: Proxy, upstream: Upstream, n: int, status: int
) -> None:
    upstream.on("first", fails(status, ("retry-after", "30")))
    upstream.on("second", answers)
    reply, text = send(f"fast{n}")
    assert (reply.status, text) == (200, "Hello")
    assert route(reply).endswith(", b/second ok")
    assert reply.headers["x-sanic-proxy-provider"] == f"b{n}"
    assert len(upstream.seen("first")) == (2 if status == 500 else 1)
    line = plain(fallback.log_line(reply.headers["x-request-id"]))
    assert f'route="a/first {status}' in line
    assert "provider=b " in line


def test_a_target_that_cannot_be_reached_is_passed_over(send: Send, upstream: Upstream, n: int) -> None:
    upstream.on("second", answers)
    reply, text = send(f"away{n}")
    assert text == "Hello"
    assert route(reply) == "dead/first upstream_connect_error, dead/first upstream_connect_error, b/second ok"


def test_the_second_key_is_used_when_the_first_is_refused(send: Send, upstream: Upstream, n: int) -> None:
    async def by_key(exchange: Exchange) -> None:
        script = answers if exchange.seen.header("authorization") == "Bearer b-two" else fails(401)
        await script(exchange)

    upstream.on("m", by_key)
    reply, text = send(f"b{n}/m")
    assert text == "Hello"
    assert route(reply) == "b/m 401, b#2/m ok"


@pytest.mark.row(29)
def test_when_all_targets_fail_the_client_gets_the_last_failure(
    send: Send, upstream: Upstream, n: int
) -> None:
    upstream.on("first", fails(500))
    upstream.on("second", fails(503, ("retry-after", "7")))
    reply, _ = send(f"fast{n}")
    assert (reply.status, reply.error["code"]) == (503, "upstream_unavailable")
    assert reply.headers["retry-after"] == "7"
    assert route(reply) == "a/first 500, a/first 500, b/second 503, b#2/second 503"


def test_an_error_inside_a_success_is_a_failure_while_nothing_was_seen(
    send: Send, upstream: Upstream, n: int
) -> None:
    async def in_band(exchange: Exchange) -> None:
        error = {"error": {"message": "overloaded", "code": 503}}
        if exchange.seen.json.get("stream"):
            await exchange.stream([b"data: " + json.dumps(error).encode() + b"\n\n"])
        else:
            await exchange.answer(error)

    upstream.on("m", in_turn(in_band, answers))
    reply, text = send(f"a{n}/m")
    assert text == "Hello"
    assert route(reply) == "a/m 503, a/m ok"


def test_after_the_first_frame_nothing_is_repeated(fallback: Proxy, upstream: Upstream, n: int) -> None:
    async def cut(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(frame({"content": "Hel"}))
        await asyncio.sleep(0.05)
        exchange.close()

    upstream.on("first", cut)
    upstream.on("second", answers)
    _, frames = fallback.stream(f"fast{n}")
    assert b"Hel" in frames[0]
    assert b"upstream_disconnected" in frames[-1]
    assert not upstream.seen("second")


def test_a_stream_of_heartbeats_alone_is_still_moved(fallback: Proxy, upstream: Upstream, n: int) -> None:
    async def slowly_no(exchange: Exchange) -> None:
        await asyncio.sleep(1.2)
        await fails(500)(exchange)

    upstream.on("first", slowly_no)
    upstream.on("second", answers)
    reply, frames = fallback.stream(f"fast{n}")
    body = reply.body
    assert body.startswith(b": ping\n")
    assert frames[-1] == DONE
    assert b"Hello" in body
    assert "x-sanic-proxy-route" not in reply.headers  # the head was gone before anything had failed
    line = plain(fallback.log_line(reply.headers["x-request-id"]))
    assert 'route="a/first 500, a/first 500, b/second ok"' in line


@pytest.mark.parametrize("after_s", [0.0, 1.2], ids=["before the head", "behind heartbeats"])
@pytest.mark.parametrize("name", ["mixed", "again"])
def test_an_emulated_stream_that_moves_has_one_beginning(
    fallback: Proxy, upstream: Upstream, n: int, name: str, after_s: float
) -> None:
    async def no(exchange: Exchange) -> None:
        await asyncio.sleep(after_s)
        await fails(503, ("retry-after", "60"))(exchange)

    upstream.on(f"s{n}", no)
    upstream.on("second", answers)
    upstream.on(f"t{n}", answers)
    reply, frames = fallback.stream(f"{name}{n}")
    assert frames[-1] == DONE
    chunks = [json.loads(frame[6:]) for frame in frames[:-1] if frame.startswith(b"data: ")]
    own = [chunk for chunk in chunks if chunk["id"] != "chatcmpl-upstream"]
    # What an emulated provider would have begun with is not sent if it fails before the head goes out.
    beginnings = 0 if name == "mixed" and not after_s else 1
    assert len({(chunk["id"], chunk["created"]) for chunk in own}) == beginnings
    assert [chunk["choices"][0]["delta"].get("role") for chunk in own].count("assistant") == beginnings
    assert "Hello" in "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert reply.headers["x-sanic-proxy-provider"] in {"straico", f"b{n}"}


def test_a_client_that_leaves_during_a_wait_ends_it(fallback: Proxy, upstream: Upstream, n: int) -> None:
    upstream.on("m", fails(429, ("retry-after", "4")))
    with fallback.open_stream(f"a{n}/m"):
        wait_until(lambda: bool(upstream.seen("m")))
    time.sleep(0.05)
    assert len(upstream.seen("m")) == 1


def test_the_names_are_listed_as_models(fallback: Proxy) -> None:
    listed = fallback.request("GET", "/v1/models").json["data"]
    (fast,) = [entry for entry in listed if entry["id"] == "fast0"]
    assert fast == {"id": "fast0", "object": "model", "created": 0, "owned_by": "sanic-proxy"}
    assert fallback.request("GET", "/v1/models/fast0").json == fast


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/completions"])
def test_other_endpoints_are_repeated_and_moved_too(
    fallback: Proxy, upstream: Upstream, n: int, path: str
) -> None:
    async def done(exchange: Exchange) -> None:
        choice = {"index": 0, "text": "Hello", "finish_reason": "stop"}
        await exchange.answer({"object": "list", "choices": [choice]})

    upstream.on("first", fails(500))
    upstream.on("second", done)
    reply = fallback.request("POST", path, {"model": f"fast{n}"})
    assert (reply.status, route(reply)) == (200, "a/first 500, a/first 500, b/second ok")


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/batches"), ("DELETE", "/files/f"), ("POST", "/batches/b/cancel")]
)
def test_what_must_not_be_done_twice_is_not(
    fallback: Proxy, upstream: Upstream, n: int, method: str, path: str
) -> None:
    upstream.on(f"{method} /a/v1{path}", fails(502))
    body: dict[str, str] | None = {} if path == "/batches" else None
    reply = fallback.request(method, f"/v1{path}", body, {"x-provider": f"a{n}"})
    assert (reply.status, route(reply)) == (502, "a 502")


def test_what_must_not_be_done_twice_goes_out_on_a_new_connection(
    fallback: Proxy, upstream: Upstream, n: int
) -> None:
    async def dies(exchange: Exchange) -> None:
        exchange.close()

    async def made(exchange: Exchange) -> None:
        await exchange.answer({"id": "b", "object": "batch"})

    upstream.on("POST /a/v1/batches", in_turn(made, dies))
    selects = {"x-provider": f"a{n}"}
    assert fallback.request("POST", "/v1/batches", {}, selects).status == 200
    assert fallback.request("POST", "/v1/batches", {}, selects).error["code"] == "upstream_disconnected"
    assert len(upstream.requests) == 2


def test_an_answer_counts_when_it_has_been_read(fallback: Proxy, upstream: Upstream, n: int) -> None:
    async def cut(exchange: Exchange) -> None:
        await exchange.head(200, ("content-length", "100"))
        await exchange.send(b"{")
        exchange.close()

    async def in_band(exchange: Exchange) -> None:
        await exchange.answer({"error": {"message": "overloaded", "code": 503}})

    async def good(exchange: Exchange) -> None:
        await exchange.answer({"object": "list"})

    upstream.on("m", cut)
    reply = fallback.request("POST", "/v1/embeddings", {"model": f"a{n}/m"})
    assert (reply.status, route(reply)) == (502, "a/m upstream_disconnected")
    upstream.on("o", in_turn(in_band, good))
    reply = fallback.request("POST", "/v1/embeddings", {"model": f"a{n}/o"})
    assert (reply.status, route(reply)) == (200, "a/o 503, a/o ok")


class Accounts:
    """The accounts of two keys, each with its files; a key in `limited` gets a 429."""

    def __init__(self, upstream: Upstream, **files: str) -> None:
        self.owners = files
        self.limited: set[str] = set()
        self.calls: list[str] = []
        for file in ("f", "out", "unknown"):
            for call in (f"GET /b/v1/files/{file}", f"DELETE /b/v1/files/{file}"):
                upstream.on(call, self._script(file))
            upstream.on(f"GET /b/v1/files/{file}/content", self._script(file))
        upstream.on("GET /b/v1/files", self._script(None))
        upstream.on("POST /b/v1/batches", self._script("f"))
        upstream.on("GET /b/v1/batches/batch", self._script("f"))
        upstream.on("POST /b/v1/batches/batch/cancel", self._script("f"))

    def _script(self, file: str | None) -> Script:
        async def script(exchange: Exchange) -> None:
            seen = exchange.seen
            key = (seen.header("authorization") or "").removeprefix("Bearer b-")
            path = seen.path.removeprefix("/b/v1")
            self.calls.append(f"{key} {seen.method} {path}")
            if key in self.limited:
                await fails(429, ("retry-after", "30"))(exchange)
            elif file is not None and self.owners.get(file) != key:
                await fails(404)(exchange)
            elif path.startswith("/batches"):
                batch = {"id": "batch", "object": "batch", "output_file_id": "out"}
                await exchange.answer(batch)
            else:
                await exchange.answer({"id": file, "object": "file"})

        return script


def send_call(proxy: Proxy, n: int, call: str) -> Reply:
    method, path = call.split()
    body = {"input_file_id": "f"} if call == "POST /batches" else None
    return proxy.request(method, f"/v1{path}", body, {"x-provider": f"b{n}"})


@pytest.mark.parametrize(
    "call", ["GET /files/f", "GET /files/f/content", "DELETE /files/f", "GET /files", "POST /batches"]
)
def test_a_rate_limit_of_the_first_key_is_not_evaded_with_another_account(
    fallback: Proxy, upstream: Upstream, n: int, call: str
) -> None:
    accounts = Accounts(upstream, f="one")
    accounts.limited.add("one")
    reply = send_call(fallback, n, call)
    assert (reply.status, reply.headers["retry-after"]) == (429, "30")
    assert {call.split()[0] for call in accounts.calls} == {"one"}


def test_a_missing_resource_is_looked_for_with_all_keys_and_the_owner_remembered(
    fallback: Proxy, upstream: Upstream, n: int
) -> None:
    accounts = Accounts(upstream, f="two")
    assert send_call(fallback, n, "GET /files/f").json["id"] == "f"
    assert send_call(fallback, n, "GET /files/f/content").status == 200
    get = "GET /files/f"
    assert accounts.calls == [f"one {get}", f"two {get}", f"two {get}/content"]


def test_the_owners_rate_limit_is_the_answer(fallback: Proxy, upstream: Upstream, n: int) -> None:
    accounts = Accounts(upstream, f="two")
    assert send_call(fallback, n, "GET /files/f").status == 200
    accounts.limited.add("two")
    accounts.calls.clear()
    assert send_call(fallback, n, "GET /files/f").status == 429
    assert accounts.calls == ["two GET /files/f"]


def test_a_resource_that_no_key_has_is_a_404(fallback: Proxy, upstream: Upstream, n: int) -> None:
    accounts = Accounts(upstream)
    assert send_call(fallback, n, "GET /files/unknown").status == 404
    assert accounts.calls == ["one GET /files/unknown", "two GET /files/unknown"]


@pytest.mark.parametrize("owner", ["one", "two"])
@pytest.mark.parametrize(
    ("call", "look"),
    [
        ("DELETE /files/f", "GET /files/f"),
        ("POST /batches", "GET /files/f"),
        ("POST /batches/batch/cancel", "GET /batches/batch"),
    ],
)
def test_only_the_owner_gets_write_requests(
    fallback: Proxy, upstream: Upstream, n: int, owner: str, call: str, look: str
) -> None:
    accounts = Accounts(upstream, f=owner)
    assert send_call(fallback, n, call).status == 200
    looks = [f"one {look}"] if owner == "one" else [f"one {look}", f"two {look}"]
    assert accounts.calls == [*looks, f"{owner} {call}"]


def test_a_write_whose_owner_no_key_knows_goes_to_the_first(
    fallback: Proxy, upstream: Upstream, n: int
) -> None:
    accounts = Accounts(upstream)
    assert send_call(fallback, n, "DELETE /files/unknown").status == 404
    assert [call for call in accounts.calls if "DELETE" in call] == ["one DELETE /files/unknown"]


def test_what_an_answer_names_belongs_to_the_same_key(fallback: Proxy, upstream: Upstream, n: int) -> None:
    accounts = Accounts(upstream, f="two", out="two")
    assert send_call(fallback, n, "POST /batches").status == 200
    accounts.calls.clear()
    for call in ("GET /batches/batch", "GET /files/out/content"):
        assert send_call(fallback, n, call).status == 200
    assert accounts.calls == ["two GET /batches/batch", "two GET /files/out/content"]


@pytest.mark.parametrize(
    ("path", "fields"),
    [("/images/generations", {}), ("/embeddings", {"background": True})],
)
def test_what_creates_something_is_not_moved_once_it_may_have_been_worked_on(
    fallback: Proxy, upstream: Upstream, n: int, path: str, fields: dict[str, Any]
) -> None:
    upstream.on("first", reset)
    upstream.on("second", answers)
    reply = fallback.request("POST", f"/v1{path}", {"model": f"fast{n}", **fields})
    assert (reply.status, route(reply)) == (502, "a/first upstream_disconnected")


@pytest.fixture
def breaking(shared_upstream: Upstream) -> Iterator[Proxy]:
    settings = {**provider_settings(shared_upstream), "SANIC_PROXY_BREAKER": "on"}
    with running_proxy(settings) as started:
        yield started


@pytest.mark.row(29)
def test_repeated_failures_open_the_circuit_of_a_target(breaking: Proxy, upstream: Upstream) -> None:
    upstream.on("m", fails(500))
    upstream.on("other", answers)
    replies = [breaking.chat("groq/m") for _ in range(8)]
    assert [reply.status for reply in replies] == [502] * 5 + [503] * 3
    assert replies[-1].error["code"] == "upstream_circuit_open"
    assert 1 <= int(replies[-1].headers["retry-after"]) <= 5
    assert route(replies[-1]) == "groq/m circuit_open"
    assert len(upstream.seen("m")) == 5
    assert breaking.chat("groq/other").status == 200


def test_a_refused_key_opens_its_circuit_for_every_model(breaking: Proxy, upstream: Upstream) -> None:
    upstream.on("m", fails(401))
    upstream.on("other", answers)
    assert breaking.chat("groq/m").error["code"] == "upstream_auth_error"
    assert breaking.chat("groq/other").error["code"] == "upstream_auth_error"
    assert not upstream.seen("other")


def test_a_clients_own_header_does_not_take_the_key_out(
    shared_upstream: Upstream, upstream: Upstream
) -> None:
    async def script(exchange: Exchange) -> None:
        await (fails(401) if exchange.seen.header("openai-organization") else answers)(exchange)

    upstream.on("m", script)
    settings = {"OPENAI_API_KEY": "o", "OPENAI_BASE_URL": f"{shared_upstream.url}/v1"}
    with running_proxy(settings) as proxy:
        assert proxy.chat("openai/m", headers={"openai-organization": "org-x"}).status == 502
        assert proxy.chat("openai/m").status == 200


def test_what_a_client_demands_in_vain_is_not_held_against_the_model(
    breaking: Proxy, upstream: Upstream
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(straico_completion("Hello"))

    upstream.on("m", script)
    for _ in range(6):
        reply = breaking.chat("straico/m", response_format={"type": "json_object"})
        assert reply.error["code"] == "upstream_invalid_json"
    assert breaking.chat("straico/m").status == 200


def test_a_failed_retry_prompt_is_not_sent_again(shared_upstream: Upstream, upstream: Upstream) -> None:
    async def no_json(exchange: Exchange) -> None:
        await exchange.answer(straico_completion("no json"))

    upstream.on("m", in_turn(no_json, fails(500), no_json))
    with running_proxy({**provider_settings(shared_upstream), "SANIC_PROXY_ATTEMPTS": "4"}) as proxy:
        reply = proxy.chat("straico/m", response_format={"type": "json_object"})
    assert reply.status == 502
    assert len(upstream.seen("m")) == 2
