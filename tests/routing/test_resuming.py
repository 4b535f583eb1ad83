"""Streams that break off behind their first content, through a real proxy."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.proxy import Proxy, running_proxy
from tests.support.upstream import DONE, Exchange, Script, Upstream, completion, frame

# Each test has providers of its own, so that none meets what another has left behind.
COUNT = 80
CONFIG = """
[providers.plain{n}]
base_url = "{url}/plain/v1"
[providers.able{n}]
base_url = "{url}/able/v1"
continues = true
[providers.mark{n}]
base_url = "{url}/mark/v1"
continues = "prefix"
[models.error{n}]
targets = ["plain{n}/first", "able{n}/second"]
[models.continue{n}]
targets = ["plain{n}/first", "able{n}/second"]
on_cut = "continue"
[models.restart{n}]
targets = ["plain{n}/first", "able{n}/second"]
on_cut = "restart"
[models.marked{n}]
targets = ["plain{n}/first", "mark{n}/second"]
on_cut = "continue"
[models.unable{n}]
targets = ["able{n}/first", "plain{n}/second"]
on_cut = "continue"
[models.alone{n}]
targets = ["able{n}/first"]
on_cut = "continue"
[models.frames{n}]
targets = ["plain{n}/first", "able{n}/second"]
hold_back = "6 frames"
[models.seconds{n}]
targets = ["plain{n}/first", "able{n}/second"]
hold_back = 60
[models.all{n}]
targets = ["plain{n}/first", "able{n}/second"]
hold_back = "all"
on_cut = "continue"
[providers.other{n}]
base_url = "{url}/other/v1"
dialects = ["messages"]
[models.target{n}]
targets = ["able{n}/first", {{ provider = "plain{n}", model = "second", continues = true }}]
on_cut = "continue"
[models.across{n}]
targets = ["plain{n}/first", "other{n}/second"]
on_cut = "restart"
[models.skips{n}]
targets = ["plain{n}/first", "able{n}/second"]
skip_malformed = true
"""
MODES = pytest.mark.parametrize("mode", ["continue", "restart"])
_numbers = itertools.count()

WORDS = [f" word{number}" for number in range(8)]
TEXT = "".join(WORDS)
USAGE = {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
ANSWERED = {"include_usage": True}


@pytest.fixture(scope="module")
def saving(shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    config: Path = tmp_path_factory.mktemp("config") / "proxy.toml"
    config.write_text("".join(CONFIG.format(n=n, url=shared_upstream.url) for n in range(COUNT)))
    settings = {"SANIC_PROXY_CONFIG": str(config), "SANIC_PROXY_TIMEOUT_FIRST_BYTE": "30"}
    with running_proxy(settings) as started:
        yield started


@pytest.fixture
def n() -> int:
    return next(_numbers)


def head_of(name: str) -> dict[str, Any]:
    return {"id": f"id-{name}", "created": len(name), "model": name}


def words(name: str, texts: list[str]) -> list[bytes]:
    """The frames of a stream's text, under the head of `name`."""
    opening = frame({"role": "assistant", "content": ""}, **head_of(name))
    return [opening, *(frame({"content": text}, **head_of(name)) for text in texts)]


def cut(*frames: bytes) -> Script:
    """Send these frames and close the connection inside the body."""

    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        for piece in frames:
            await exchange.chunk(piece)
        exchange.close()

    return script


def whole(name: str, texts: list[str]) -> Script:
    """A complete stream with usage."""
    usage = b"data: " + json.dumps({**head_of(name), "choices": [], "usage": USAGE}).encode() + b"\n\n"

    async def script(exchange: Exchange) -> None:
        await exchange.stream([*words(name, texts), frame(finish="stop", **head_of(name)), usage, DONE])

    return script


def continuing(name: str, texts: list[str]) -> Script:
    """The rest of the answer for a request that ends with its beginning, else all of it."""

    async def script(exchange: Exchange) -> None:
        last = exchange.seen.json["messages"][-1]
        begun = last["content"] if last["role"] == "assistant" else ""
        assert TEXT.startswith(begun)
        left = TEXT[len(begun) :]
        await whole(name, re.findall(r" \w+", left))(exchange)

    return script


def data_of(body: bytes) -> list[dict[str, Any]]:
    """The chunks of a stream."""
    payloads = re.findall(rb"(?m)^data: (.*)$", body)
    return [json.loads(payload) for payload in payloads if payload != b"[DONE]"]


def text_of(body: bytes) -> str:
    deltas = [choice["delta"] for chunk in data_of(body) for choice in chunk.get("choices", ())]
    return "".join(delta.get("content") or "" for delta in deltas)


def route_of(proxy: Proxy, request_id: str) -> str:
    """The attempts of a finished request, from its log line."""
    found = re.search(r'route="([^"]*)"|route=(\S+)', proxy.log_line(request_id))
    assert found is not None
    return re.sub(r" \d+ms", "", re.sub(r"\b(plain|able|mark)\d+\b", r"\1", found[1] or found[2]))


def ask(proxy: Proxy, model: str, **fields: Any) -> tuple[bytes, str]:
    """A stream's bytes, and its route at the end."""
    reply = proxy.chat(model, stream=True, stream_options=ANSWERED, **fields)
    assert reply.status == 200, reply.body
    return reply.body, route_of(proxy, reply.headers["x-request-id"])


def is_error(body: bytes) -> bool:
    """Whether a stream ended with an error event, and does not look complete."""
    return "error" in data_of(body)[-1] and DONE not in body


CUT = cut(*words("first", WORDS[:4]))


@pytest.mark.row(8)
def test_the_next_target_continues_the_text(saving: Proxy, upstream: Upstream, n: int) -> None:
    upstream.on("first", CUT)
    upstream.on("second", continuing("second", WORDS))
    body, route = ask(saving, f"continue{n}", max_tokens=100)
    assert text_of(body) == TEXT
    assert body.endswith(DONE)
    assert {(chunk["id"], chunk["created"], chunk["model"]) for chunk in data_of(body)} == {
        ("id-first", 5, "first")
    }
    assert [chunk["usage"] for chunk in data_of(body) if chunk.get("usage")] == [
        {"prompt_tokens": 7, "completion_tokens": 8, "total_tokens": 15}
    ]
    comment = b": stream continued at character 24 by able%d/second\n" % n
    assert body.count(comment) == 1
    assert body.index(comment) > body.index(b"word3")
    (asked,) = upstream.seen("second")
    assert asked.json["messages"][-1] == {"role": "assistant", "content": TEXT[:24]}
    assert asked.json["max_tokens"] == 96
    assert route == "plain/first upstream_disconnected, able/second ok from 24"
    assert b"role" not in body[body.index(b"word3") :]


@pytest.mark.parametrize(("model", "mark"), [("marked", {"prefix": True}), ("target", {})])
def test_the_request_is_as_the_provider_or_the_target_needs_it(
    saving: Proxy, upstream: Upstream, n: int, model: str, mark: dict[str, Any]
) -> None:
    upstream.on("first", CUT)
    upstream.on("second", continuing("second", WORDS))
    body, _ = ask(saving, f"{model}{n}")
    assert text_of(body) == TEXT
    (asked,) = upstream.seen("second")
    assert asked.json["messages"][-1] == {"role": "assistant", "content": TEXT[:24], **mark}


def test_the_log_counts_the_tokens_of_both_attempts(saving: Proxy, upstream: Upstream, n: int) -> None:
    upstream.on("first", CUT)
    upstream.on("second", continuing("second", WORDS))
    reply = saving.chat(f"continue{n}", stream=True)
    line = saving.log_line(reply.headers["x-request-id"])
    assert "prompt_tokens=7 completion_tokens=8" in line
    assert "ended=complete" in line


@pytest.mark.row(8)
@pytest.mark.parametrize("model", ["restart", "unable"])
def test_a_target_that_cannot_continue_begins_anew(
    saving: Proxy, upstream: Upstream, n: int, model: str
) -> None:
    upstream.on("first", CUT)
    upstream.on("second", continuing("second", WORDS))
    body, route = ask(saving, f"{model}{n}")
    assert text_of(body) == TEXT
    assert body.endswith(DONE)
    assert {chunk["id"] for chunk in data_of(body)} == {"id-first"}
    assert data_of(body)[-1]["usage"]["completion_tokens"] == 8
    first, second = upstream.seen("first")[0].json, upstream.seen("second")[0].json
    assert {**first, "model": ""} == {**second, "model": ""}
    assert re.sub(r"plain|able", "x", route) == "x/first upstream_disconnected, x/second ok from 24"


@pytest.mark.row(78)
def test_a_repeat_that_differs_ends_with_the_error(saving: Proxy, upstream: Upstream, n: int) -> None:
    upstream.on("first", CUT)
    upstream.on("second", whole("second", [*WORDS[:3], " other", *WORDS[4:]]))
    body, route = ask(saving, f"restart{n}")
    assert text_of(body) == TEXT[:24]
    assert is_error(body)
    assert data_of(body)[-1]["error"]["code"] == "upstream_disconnected"
    assert b"other" not in body
    assert route == "plain/first upstream_disconnected, able/second upstream_diverged from 24"


def test_a_target_that_rejects_the_beginning_begins_anew(saving: Proxy, upstream: Upstream, n: int) -> None:
    async def second(exchange: Exchange) -> None:
        if exchange.seen.json["messages"][-1]["role"] == "assistant":
            error = {"message": "no prefill", "type": "invalid_request_error", "param": "messages"}
            await exchange.answer({"error": {**error, "code": "invalid_prefill"}}, 400)
        else:
            await whole("second", WORDS)(exchange)

    upstream.on("first", CUT)
    upstream.on("second", second)
    body, route = ask(saving, f"continue{n}")
    assert text_of(body) == TEXT
    assert body.endswith(DONE)
    assert route == "plain/first upstream_disconnected, able/second 400 from 24, able/second ok from 24"


def test_the_only_target_continues_its_own_text(saving: Proxy, upstream: Upstream, n: int) -> None:
    async def first(exchange: Exchange) -> None:
        is_first = exchange.seen.json["messages"][-1]["role"] == "user"
        await (CUT if is_first else continuing("again", WORDS))(exchange)

    upstream.on("first", first)
    body, route = ask(saving, f"alone{n}")
    assert text_of(body) == TEXT
    assert route == "able/first upstream_disconnected, able/first ok from 24"


def test_the_attempts_of_a_stream_are_limited(saving: Proxy, upstream: Upstream, n: int) -> None:
    upstream.on("first", CUT)
    upstream.on("second", cut(*words("second", [" and"])))
    body, route = ask(saving, f"continue{n}")
    assert is_error(body)
    assert text_of(body) == TEXT[:24] + " and and"
    assert len(upstream.seen("first")) + len(upstream.seen("second")) <= 4
    assert route.startswith("plain/first upstream_disconnected, able/second upstream_disconnected from 24")


@MODES
@pytest.mark.row(16)
def test_a_malformed_event_is_a_cut(saving: Proxy, upstream: Upstream, n: int, mode: str) -> None:
    upstream.on("first", cut(*words("first", WORDS[:4]), b'data: {"choices": [{"delta": \n\n', *WORDS_LEFT))
    upstream.on("second", continuing("second", WORDS))
    body, route = ask(saving, f"{mode}{n}")
    assert text_of(body) == TEXT
    assert route == "plain/first upstream_bad_frame, able/second ok from 24"


@pytest.mark.row(16)
def test_by_default_a_malformed_event_is_an_error(saving: Proxy, upstream: Upstream, n: int) -> None:
    upstream.on("first", cut(*words("first", WORDS[:4]), b'data: {"choices": [{"delta": \n\n', *WORDS_LEFT))
    body, _ = ask(saving, f"error{n}")
    assert is_error(body)
    assert data_of(body)[-1]["error"]["code"] == "upstream_bad_frame"
    assert text_of(body) == TEXT[:24]
    assert upstream.seen("second") == []


def test_no_malformed_event_is_skipped_inside_a_tool_call(saving: Proxy, upstream: Upstream, n: int) -> None:
    upstream.on(
        "first", cut(frame(CALL, **head_of("first")), b'data: {"choices": [{"delta": \n\n', *WORDS_LEFT)
    )
    body, _ = ask(saving, f"skips{n}")
    assert is_error(body)
    assert data_of(body)[-1]["error"]["code"] == "upstream_bad_frame"


WORDS_LEFT = words("first", WORDS[4:])[1:]


def test_malformed_events_can_be_skipped(saving: Proxy, upstream: Upstream, n: int) -> None:
    frames = [*words("first", WORDS[:4]), b'data: {"choices": [{"delta": \n\n', *WORDS_LEFT]
    upstream.on("first", cut(*frames, frame(finish="stop", **head_of("first")), DONE))
    reply = saving.chat(f"skips{n}", stream=True)
    assert text_of(reply.body) == TEXT
    assert reply.body.endswith(DONE)
    assert "dropped_frames=1" in saving.log_line(reply.headers["x-request-id"])
    assert upstream.seen("second") == []


def test_by_default_a_cut_is_an_error(saving: Proxy, upstream: Upstream, n: int) -> None:
    upstream.on("first", CUT)
    body, route = ask(saving, f"error{n}")
    assert is_error(body)
    assert route == "plain/first ok"
    assert upstream.seen("second") == []


@pytest.mark.parametrize("model", ["frames", "seconds", "all"])
@pytest.mark.parametrize(
    "fault",
    [CUT, cut(*words("first", WORDS[:4]), b'data: {"choices": [{"delta": \n\n')],
    ids=["cut", "malformed"],
)
def test_a_failure_that_is_held_back_is_not_seen(
    saving: Proxy, upstream: Upstream, n: int, model: str, fault: Script
) -> None:
    upstream.on("first", fault)
    upstream.on("second", whole("second", WORDS))
    reply = saving.chat(f"{model}{n}", stream=True, stream_options=ANSWERED)
    assert text_of(reply.body) == TEXT
    assert {chunk["id"] for chunk in data_of(reply.body)} == {"id-second"}
    assert data_of(reply.body)[-1]["usage"] == USAGE
    assert b"continued" not in reply.body
    assert reply.headers["x-sanic-proxy-route"].endswith("ms")
    assert len(upstream.seen("second")) == 1
    assert upstream.seen("second")[0].json["messages"][-1]["role"] == "user"


def test_behind_the_hold_back_a_cut_is_what_the_model_says(saving: Proxy, upstream: Upstream, n: int) -> None:
    upstream.on("first", cut(*words("first", WORDS[:7])))
    body, _ = ask(saving, f"frames{n}")
    assert is_error(body)
    assert upstream.seen("second") == []


# Never

FUNCTION = {"name": "f", "arguments": "{"}
CALL = {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": FUNCTION}]}
SIGNED = {"reasoning_details": [{"type": "reasoning.text", "text": "Hm", "signature": "s"}]}


@MODES
@pytest.mark.parametrize(
    "last",
    [
        CALL,
        {"function_call": FUNCTION},
        SIGNED,
    ],
    ids=["tool call", "function call", "signed reasoning"],
)
def test_never_inside_or_behind(
    saving: Proxy, upstream: Upstream, n: int, mode: str, last: dict[str, Any]
) -> None:
    upstream.on("first", cut(*words("first", WORDS[:4]), frame(last, **head_of("first"))))
    upstream.on("second", continuing("second", WORDS))
    body, route = ask(saving, f"{mode}{n}")
    assert is_error(body)
    assert upstream.seen("second") == []
    assert route == "plain/first ok"


@MODES
@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"logprobs": True},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}},
    ],
    ids=["n", "logprobs", "json", "schema"],
)
def test_never_for_a_request_with(
    saving: Proxy, upstream: Upstream, n: int, mode: str, fields: dict[str, Any]
) -> None:
    upstream.on("first", CUT)
    upstream.on("second", continuing("second", WORDS))
    body, _ = ask(saving, f"{mode}{n}", **fields)
    assert is_error(body)
    assert upstream.seen("second") == []


@MODES
def test_never_behind_the_finish_reason(saving: Proxy, upstream: Upstream, n: int, mode: str) -> None:
    finished = [*words("first", WORDS), frame(finish="stop", **head_of("first"))]
    upstream.on("first", cut(*finished))
    upstream.on("second", continuing("second", WORDS))
    body, _ = ask(saving, f"{mode}{n}")
    assert text_of(body) == TEXT
    assert upstream.seen("second") == []


# The client's own time


async def silent(exchange: Exchange) -> None:
    await exchange.client_leaves()


@pytest.mark.row(79)
@pytest.mark.parametrize("is_streaming", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("header", ["x-stainless-timeout", "x-stainless-read-timeout"])
def test_no_attempt_lasts_longer_than_the_client_waits(
    saving: Proxy, upstream: Upstream, n: int, header: str, is_streaming: bool
) -> None:
    upstream.on("first", silent)
    reply = saving.chat(f"error{n}", stream=is_streaming, headers={header: "0.5"})
    assert (reply.status, reply.error["code"]) == (504, "client_timeout")
    assert "0.5 s" in reply.error["message"]
    assert header in reply.error["message"]
    assert upstream.seen("second") == []


def test_a_stream_that_has_begun_may_last_longer(saving: Proxy, upstream: Upstream, n: int) -> None:
    async def slow(exchange: Exchange) -> None:
        await exchange.stream([*words("first", WORDS), frame(finish="stop"), DONE], pause_s=0.1)

    upstream.on("first", slow)
    reply = saving.chat(f"error{n}", stream=True, headers={"x-stainless-read-timeout": "0.6"})
    assert text_of(reply.body) == TEXT
    assert reply.body.endswith(DONE)


def test_other_calls_end_with_the_clients_time_as_well(saving: Proxy, upstream: Upstream, n: int) -> None:
    upstream.on("e", silent)
    reply = saving.request(
        "POST", "/v1/embeddings", {"model": f"plain{n}/e", "input": "x"}, {"x-stainless-timeout": "0.5"}
    )
    assert (reply.status, reply.error["code"]) == (504, "client_timeout")


def test_a_client_that_waits_long_enough_gets_its_answer(saving: Proxy, upstream: Upstream, n: int) -> None:
    async def first(exchange: Exchange) -> None:
        await exchange.answer(completion("Hello"))

    upstream.on("first", first)
    assert saving.chat(f"error{n}", headers={"x-stainless-timeout": "600"}).status == 200


# Other dialects


def messages(proxy: Proxy, model: str) -> tuple[bytes, str]:
    """A stream of Messages, and its route at the end."""
    body = {"model": model, "max_tokens": 100, "stream": True}
    asked = {**body, "messages": [{"role": "user", "content": "Hi"}]}
    reply = proxy.request("POST", "/v1/messages", asked, {"anthropic-version": "2023-06-01"})
    assert reply.status == 200, reply.body
    return reply.body, route_of(proxy, reply.headers["x-request-id"])


@MODES
def test_a_translated_stream_goes_on_below_its_translation(
    saving: Proxy, upstream: Upstream, n: int, mode: str
) -> None:
    upstream.on("first", CUT)
    upstream.on("second", continuing("second", WORDS))
    body, route = messages(saving, f"{mode}{n}")
    events = data_of(body)
    assert "".join(event["delta"].get("text", "") for event in events if "delta" in event) == TEXT
    names = [event["type"] for event in events]
    assert [names.count(name) for name in ("message_start", "message_stop", "error")] == [1, 1, 0]
    assert events[-2]["usage"]["output_tokens"] == 8
    assert b": stream continued at character 24" in body
    assert upstream.seen("second")[0].json["messages"][-1]["role"] == (
        "assistant" if mode == "continue" else "user"
    )
    assert route == "plain/first upstream_disconnected, able/second ok from 24"


@MODES
def test_a_stream_of_responses_goes_on_below_its_translation(
    saving: Proxy, upstream: Upstream, n: int, mode: str
) -> None:
    upstream.on("first", CUT)
    upstream.on("second", continuing("second", WORDS))
    asked = {"model": f"{mode}{n}", "input": "Hi", "stream": True}
    reply = saving.request("POST", "/v1/responses", asked)
    events = data_of(reply.body)
    texts = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(texts) == TEXT
    assert events[-1]["type"] == "response.completed"
    assert events[-1]["response"]["usage"]["output_tokens"] == 8
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    route = route_of(saving, reply.headers["x-request-id"])
    assert route == "plain/first upstream_disconnected, able/second ok from 24"


def test_a_translated_stream_that_cannot_go_on_ends_with_its_own_error(
    saving: Proxy, upstream: Upstream, n: int
) -> None:
    upstream.on("first", CUT)
    upstream.on("second", whole("second", [" other"]))
    body, _ = messages(saving, f"restart{n}")
    assert data_of(body)[-1]["type"] == "error"
    assert b"message_stop" not in body


def event(value: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (value["type"].encode(), json.dumps(value).encode())


async def as_messages(exchange: Exchange) -> None:
    """The answer as a stream of Messages."""
    usage = {"input_tokens": 7, "output_tokens": 1}
    message = {"id": "msg", "type": "message", "role": "assistant", "model": "second", "content": []}
    block = {"type": "text", "text": ""}
    await exchange.stream(
        [
            event({"type": "message_start", "message": {**message, "usage": usage}}),
            event({"type": "content_block_start", "index": 0, "content_block": block}),
            *(
                event(
                    {
                        "type": "content_block_delta",
                        "index": 0,
                        "delta": {"type": "text_delta", "text": text},
                    }
                )
                for text in WORDS
            ),
            event({"type": "content_block_stop", "index": 0}),
            event(
                {
                    "type": "message_delta",
                    "delta": {"stop_reason": "end_turn"},
                    "usage": {"output_tokens": 8},
                }
            ),
            event({"type": "message_stop"}),
        ]
    )


def test_a_chat_goes_on_with_a_target_of_another_dialect(saving: Proxy, upstream: Upstream, n: int) -> None:
    upstream.on("first", CUT)
    upstream.on("second", as_messages)
    body, route = ask(saving, f"across{n}")
    assert text_of(body) == TEXT
    assert body.endswith(DONE)
    assert {chunk["id"] for chunk in data_of(body)} == {"id-first"}
    assert route == f"plain/first upstream_disconnected, other{n}/second ok from 24"


def test_messages_do_not_go_on_with_a_target_that_needs_no_translation(
    saving: Proxy, upstream: Upstream, n: int
) -> None:
    upstream.on("first", CUT)
    upstream.on("second", as_messages)
    body, _ = messages(saving, f"across{n}")
    assert data_of(body)[-1]["type"] == "error"
    assert upstream.seen("second") == []
