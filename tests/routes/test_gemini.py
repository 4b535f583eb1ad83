"""Gemini's API through a real proxy: passed to the same dialect, translated to all others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sanic_proxy.translation.conversation import Reasoning
from sanic_proxy.translation.gemini.thoughts import signature_of
from tests.support import messages
from tests.support.gemini import frame as google_frame
from tests.support.gemini import judged, judged_stream, parts_of, response, text_of
from tests.support.proxy import Proxy, Reply, running_proxy
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

GOOGLE_KEY = "AIza-canary-0123456789"
CLIENT_KEY = "client-canary-0123456789"
HELLO = [{"role": "user", "parts": [{"text": "Hi"}]}]
TOOLS = [
    {
        "functionDeclarations": [
            {
                "name": "run",
                "description": "Run",
                "parametersJsonSchema": {"type": "OBJECT", "properties": {"a": {"type": "INTEGER"}}},
            }
        ]
    }
]
NATIVE = google_frame({"text": "Hel"}, end="\n\n") + google_frame({"text": "lo"}, finish="STOP", end="\n\n")
CALL = {"id": "call_1", "type": "function", "function": {"name": "run", "arguments": '{"a": 1}'}}


@pytest.fixture(scope="module")
def front(shared_upstream: Upstream) -> Iterator[Proxy]:
    settings = {
        **provider_settings(shared_upstream),
        "GOOGLE_API_KEY": GOOGLE_KEY,
        "GOOGLE_BASE_URL": f"{shared_upstream.url}/v1beta/openai",
        "ANTHROPIC_API_KEY": "sk-ant-canary-0123456789",
        "ANTHROPIC_BASE_URL": f"{shared_upstream.url}/v1",
        "SANIC_PROXY_API_KEYS": CLIENT_KEY,
        "SANIC_PROXY_HEARTBEAT_INTERVAL": "0.2",
        "SANIC_PROXY_STREAM_COMMIT_DELAY": "0.5",
        "SANIC_PROXY_TIMEOUT_IDLE": "1",
    }
    with running_proxy(settings) as started:
        yield started
        log = started.log
    assert "Traceback" not in log
    assert "?" not in "".join(line for line in log.splitlines() if "path=" in line)


def on_google(upstream: Upstream, script: Script) -> None:
    """Answer native requests for the model `gemini-9`."""
    for call in ("generateContent", "streamGenerateContent?alt=sse", "countTokens"):
        upstream.on(f"POST /v1beta/models/gemini-9:{call}", script)


def ask(
    proxy: Proxy, model: str, verb: str = "generateContent", path: str = "/v1beta/models/", **fields: Any
) -> Reply:
    body = {"contents": HELLO, **fields}
    return proxy.request("POST", f"{path}{model}:{verb}", body, {"x-goog-api-key": CLIENT_KEY})


def stream(proxy: Proxy, model: str, **fields: Any) -> Reply:
    return ask(proxy, model, "streamGenerateContent?alt=sse", **fields)


# Keys


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {"x-goog-api-key": CLIENT_KEY}),
        ("", {"authorization": f"Bearer {CLIENT_KEY}"}),
        (f"?key={CLIENT_KEY}", {}),
        (f"?alt=json&key={CLIENT_KEY}", {}),
    ],
)
def test_keys(front: Proxy, query: str, headers: dict[str, str]) -> None:
    body = {"contents": HELLO}
    reply = front.request("POST", f"/v1beta/models/echo/echo:generateContent{query}", body, headers)
    assert reply.status == 200
    judged(reply.json)


@pytest.mark.parametrize("query", ["", "?key=wrong", f"?key={CLIENT_KEY}&key=x"])
@pytest.mark.parametrize("path", ["/v1beta/models/echo/echo:generateContent", "/v1beta/models"])
def test_a_missing_or_wrong_key_has_googles_shape(front: Proxy, path: str, query: str) -> None:
    reply = front.request("POST" if ":" in path else "GET", path + query, {"contents": HELLO})
    assert reply.status == 401
    assert reply.json["error"]["status"] == "UNAUTHENTICATED"


def test_the_query_holds_no_key_of_other_apis(front: Proxy) -> None:
    assert front.request("GET", f"/v1/models?key={CLIENT_KEY}").status == 401


# The same dialect


def test_the_same_dialect_passes_byte_for_byte(front: Proxy, upstream: Upstream) -> None:
    answer = (
        b'{ "candidates": [{"content": {"parts": [{"text": "\\u00fc"}]}, "finishReason": "STOP"}], "x": 1.0 }'
    )

    async def script(exchange: Exchange) -> None:
        await exchange.answer(answer)

    on_google(upstream, script)
    sent = b'{"contents":  [{"parts":[{"text":"x"}]}],"new":{"b":1.50}}'
    headers = {"x-goog-api-key": CLIENT_KEY, "x-goog-api-client": "test/1"}
    reply = front.request("POST", "/v1beta/models/google/gemini-9:generateContent", sent, headers)
    assert (reply.status, reply.body) == (200, answer)
    seen = upstream.requests[-1]
    assert (seen.path, seen.body) == ("/v1beta/models/gemini-9:generateContent", sent)
    assert seen.header("x-goog-api-key") == GOOGLE_KEY
    assert seen.header("x-goog-api-client") == "test/1"
    assert seen.header("authorization") is None


def test_a_stream_of_the_same_dialect_passes(front: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream([NATIVE[:70], NATIVE[70:].replace(b"\n", b"\r\n")])

    on_google(upstream, script)
    reply = stream(front, "google/gemini-9")
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.body == NATIVE
    assert upstream.requests[-1].path == "/v1beta/models/gemini-9:streamGenerateContent?alt=sse"


def test_a_cut_stream_ends_without_a_finish_reason(front: Proxy, upstream: Upstream) -> None:
    async def native(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(NATIVE[: NATIVE.index(b"\n\n") + 2])
        exchange.close()

    async def chat(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(frame({"content": "Hel"}))
        exchange.close()

    on_google(upstream, native)
    upstream.on("g", chat)
    for model in ("google/gemini-9", "groq/g"):
        reply = stream(front, model)
        assert reply.status == 200
        assert b"finishReason" not in reply.body
        assert b"error" not in reply.body
        assert b"Hel" in reply.body


@pytest.mark.parametrize("verb", ["generateContent", "streamGenerateContent?alt=sse"])
def test_error_bodies_of_the_same_dialect_pass_unmodified(
    front: Proxy, upstream: Upstream, verb: str
) -> None:
    body = b'{"error": {"code": 400,  "message": "odd", "status": "INVALID_ARGUMENT", "details": [1]}}'

    async def script(exchange: Exchange) -> None:
        await exchange.answer(body, 400)

    on_google(upstream, script)
    reply = ask(front, "google/gemini-9", verb)
    assert (reply.status, reply.body) == (400, body)


def test_chats_of_the_same_provider_use_its_compatible_api(front: Proxy, upstream: Upstream) -> None:
    upstream.on("gemini-9", lambda exchange: exchange.answer(completion("Hello")))
    body = {"model": "google/gemini-9", "messages": [{"role": "user", "content": "Hi"}]}
    headers = {"authorization": f"Bearer {CLIENT_KEY}"}
    assert front.request("POST", "/v1/chat/completions", body, headers).status == 200
    assert upstream.requests[-1].path == "/v1beta/openai/chat/completions"
    assert upstream.requests[-1].header("authorization") == f"Bearer {GOOGLE_KEY}"


def test_messages_in_front_of_google_keep_its_signatures(front: Proxy, upstream: Upstream) -> None:
    call = {"functionCall": {"name": "run", "args": {"a": 1}}, "thoughtSignature": "U2ln"}

    async def script(exchange: Exchange) -> None:
        await exchange.answer(response({"text": "hm", "thought": True}, call, finish="STOP"))

    on_google(upstream, script)
    headers = {"x-api-key": CLIENT_KEY, "anthropic-version": "2023-06-01"}
    turns: list[Any] = [{"role": "user", "content": "Hi"}]
    body = {"model": "google/gemini-9", "max_tokens": 100, "messages": turns}
    answer = front.request("POST", "/v1/messages", body, headers).json
    assert answer["stop_reason"] == "tool_use"
    result = {"type": "tool_result", "tool_use_id": answer["content"][-1]["id"], "content": "done"}
    turns += [
        {"role": "assistant", "content": answer["content"]},
        {"role": "user", "content": [result]},
    ]
    front.request("POST", "/v1/messages", body, headers)
    _, model, results = upstream.requests[-1].json["contents"]
    assert model["parts"][0]["thoughtSignature"] == "U2ln"
    assert results["parts"][0]["functionResponse"]["response"] == {"output": "done"}


@pytest.mark.parametrize("model", ["google/..", "google/a/../b", "google/."])
def test_a_model_cannot_leave_its_path(front: Proxy, upstream: Upstream, model: str) -> None:
    count = len(upstream.requests)
    reply = ask(front, model.replace("..", "%2e%2e"))
    assert reply.status == 404
    assert len(upstream.requests) == count


# Translated


@pytest.mark.parametrize("path", ["/v1beta/models/", "/v1/models/", "/v1beta/models/models/"])
def test_a_whole_answer_of_a_chat_is_translated(front: Proxy, upstream: Upstream, path: str) -> None:
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 4,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    upstream.on("v/g", lambda exchange: exchange.answer(completion("Hello", usage=usage)))
    reply = ask(
        front,
        "groq/v/g",
        path=path,
        tools=TOOLS,
        safetySettings=[{"category": "X", "threshold": "Y"}],
        generationConfig={"topK": 3, "maxOutputTokens": 9},
    )
    answer = judged(reply.json)
    assert text_of([answer]) == "Hello"
    assert answer["usageMetadata"] == {
        "promptTokenCount": 10,
        "cachedContentTokenCount": 3,
        "candidatesTokenCount": 3,
        "thoughtsTokenCount": 1,
        "totalTokenCount": 14,
    }
    assert set(reply.headers["x-sanic-proxy-dropped-params"].split(",")) == {"safetySettings", "top_k"}
    sent = upstream.requests[-1].json
    assert (sent["model"], sent["max_tokens"]) == ("v/g", 9)
    assert sent["tools"][0]["function"]["parameters"]["properties"] == {"a": {"type": "integer"}}


@pytest.mark.parametrize("model", ["groq/g", "straico/openai/g", "anthropic/m", "echo/echo"])
def test_a_stream_is_translated(front: Proxy, upstream: Upstream, model: str) -> None:
    upstream.on("g", lambda exchange: exchange.stream(text_stream("Hel", "lo")))
    upstream.on("openai/g", lambda exchange: exchange.answer(straico_completion("Hello")))
    native = b"".join([messages.start(), *messages.text_block(0, "Hel", "lo"), *messages.stop()])
    upstream.on("m", lambda exchange: exchange.stream([native]))
    text = text_of(judged_stream(stream(front, model).body.lstrip(b"\n")))
    assert text == "Hello" if model != "echo/echo" else "Hi" in text


def test_a_stream_without_alt_is_one_json_array(front: Proxy, upstream: Upstream) -> None:
    upstream.on("g", lambda exchange: exchange.stream(text_stream("Hel", "lo")))
    on_google(upstream, lambda exchange: exchange.stream([NATIVE]))
    for model in ("groq/g", "google/gemini-9"):
        reply = ask(front, model, "streamGenerateContent")
        assert reply.headers["content-type"].startswith("application/json")
        assert text_of([judged(element) for element in reply.json]) == "Hello"


def test_calls_and_their_results_are_translated(front: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        pieces = [
            frame({"role": "assistant", "content": None, "reasoning_content": "hm"}),
            frame({"tool_calls": [{"index": 0, **CALL}]}),
            frame(finish="tool_calls"),
            DONE,
        ]
        await exchange.stream(pieces)

    upstream.on("g", script)
    config = {"thinkingConfig": {"includeThoughts": True, "thinkingBudget": -1}}
    body = stream(front, "groq/g", tools=TOOLS, generationConfig=config).body
    thought, call = parts_of(judged_stream(body))
    assert thought == {"text": "hm", "thought": True}
    assert call["functionCall"] == {"id": "call_1", "name": "run", "args": {"a": 1}}
    # Thoughts are not returned by many clients.
    result = {"functionResponse": {"id": "call_1", "name": "run", "response": {"error": "no"}}}
    history = [*HELLO, {"role": "model", "parts": [call]}, {"role": "user", "parts": [result]}]
    stream(front, "groq/g", tools=TOOLS, contents=history)
    sent = upstream.requests[-1].json["messages"]
    assert [turn["role"] for turn in sent] == ["user", "assistant", "tool"]
    assert sent[1]["reasoning_content"] == "hm"
    assert (sent[2]["tool_call_id"], sent[2]["content"]) == ("call_1", "Error: no")


def test_a_signature_of_another_provider_does_not_reach_google(front: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream(
            [
                frame({"role": "assistant", "content": None, "reasoning_content": "hm"}),
                frame({"tool_calls": [{"index": 0, **CALL}]}),
                frame(finish="tool_calls"),
                DONE,
            ]
        )

    upstream.on("g", script)
    on_google(upstream, lambda exchange: exchange.answer(response({"text": "x"}, finish="STOP")))
    config = {"thinkingConfig": {"includeThoughts": True}}
    body = stream(front, "groq/g", tools=TOOLS, generationConfig=config).body
    parts = parts_of(judged_stream(body))
    assert "thoughtSignature" in parts[-1]
    reply = ask(front, "google/gemini-9", contents=[*HELLO, {"role": "model", "parts": parts}, *HELLO])
    assert reply.headers["x-sanic-proxy-dropped-params"] == "messages.reasoning"
    sent = upstream.requests[-1].json["contents"][1]["parts"]
    assert sent == [
        parts[0],
        {"functionCall": parts[1]["functionCall"], "thoughtSignature": "skip_thought_signature_validator"},
    ]


def test_errors_before_a_stream_have_googles_shape_and_their_status(front: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        error = {"message": "slow down", "type": "tokens", "param": None, "code": "rate_limit_exceeded"}
        await exchange.answer({"error": error}, 429, ("retry-after", "7"))

    upstream.on("g", script)
    reply = stream(front, "groq/g")
    assert reply.status == 429
    assert reply.json["error"]["status"] == "RESOURCE_EXHAUSTED"
    assert reply.json["error"]["code"] == 429
    assert reply.json["error"]["details"][0]["retryDelay"].endswith("s")


def test_an_empty_account_is_not_asked_again_soon(front: Proxy, upstream: Upstream) -> None:
    error = {"message": "quota", "type": "insufficient_quota", "param": None, "code": "insufficient_quota"}
    upstream.on("g", lambda exchange: exchange.answer({"error": error}, 429))
    reply = ask(front, "groq/g")
    assert (reply.status, reply.headers["retry-after"]) == (429, "3600")
    # gemini-cli repeats a request whose delay is at most 300 s, whatever the headers say.
    assert reply.json["error"]["details"][0]["retryDelay"] == "3600s"


def test_heartbeats_are_blank_lines(front: Proxy, upstream: Upstream) -> None:
    upstream.on("g", lambda exchange: exchange.stream(text_stream("Hel", "lo"), pause_s=0.9))
    body = stream(front, "groq/g").body
    assert body.startswith(b"\n")
    assert text_of(judged_stream(body.lstrip(b"\n").replace(b"\n\n\n", b"\n\n"))) == "Hello"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"contents": None}, "contents"),
        ({"contents": []}, "contents"),
        ({"contents": [{"parts": [{"text": 1}]}]}, "contents.0.parts.0.text"),
        ({"generationConfig": {"candidateCount": 2}}, "generationConfig.candidateCount"),
        ({"tools": "x"}, "tools"),
    ],
)
def test_a_wrong_request_is_rejected_with_its_parameter(
    front: Proxy, fields: dict[str, Any], param: str
) -> None:
    reply = ask(front, "groq/g", **fields)
    assert reply.status == 400
    assert reply.json["error"]["status"] == "INVALID_ARGUMENT"
    assert param in reply.json["error"]["message"]


@pytest.mark.parametrize("call", ["groq/g", "groq/g:embedContent", ":generateContent", "groq/g:"])
def test_other_calls_are_not_found(front: Proxy, call: str) -> None:
    reply = front.request("POST", f"/v1beta/models/{call}", {}, {"x-goog-api-key": CLIENT_KEY})
    assert reply.status == 404
    assert reply.json["error"]["status"] == "NOT_FOUND"


# Counting and models


def test_tokens_are_counted_by_the_provider(front: Proxy, upstream: Upstream) -> None:
    on_google(upstream, lambda exchange: exchange.answer({"totalTokens": 42}))
    reply = ask(front, "google/gemini-9", "countTokens")
    assert reply.json == {"totalTokens": 42}
    assert "x-sanic-proxy-estimated" not in reply.headers
    seen = upstream.requests[-1]
    assert seen.path == "/v1beta/models/gemini-9:countTokens"
    assert seen.header("x-goog-api-key") == GOOGLE_KEY
    inner = {"model": "models/google/gemini-9", "contents": HELLO}
    body = {"generateContentRequest": inner}
    path = "/v1beta/models/google/gemini-9:countTokens"
    assert front.request("POST", path, body, {"x-goog-api-key": CLIENT_KEY}).status == 200
    assert upstream.requests[-1].json["generateContentRequest"]["model"] == "models/gemini-9"


@pytest.mark.parametrize("is_inner", [False, True])
def test_signatures_of_other_providers_are_not_counted(
    front: Proxy, upstream: Upstream, *, is_inner: bool
) -> None:
    on_google(upstream, lambda exchange: exchange.answer({"totalTokens": 42}))
    foreign = signature_of([Reasoning("hm", "sig", "groq")])
    call = {"functionCall": {"name": "run", "args": {}}, "thoughtSignature": foreign}
    contents = [*HELLO, {"role": "model", "parts": [call]}]
    asked = {"generateContentRequest": {"contents": contents}} if is_inner else {"contents": contents}
    path = "/v1beta/models/google/gemini-9:countTokens"
    assert front.request("POST", path, asked, {"x-goog-api-key": CLIENT_KEY}).status == 200
    sent = upstream.requests[-1].json
    (part,) = (sent["generateContentRequest"] if is_inner else sent)["contents"][1]["parts"]
    assert part["thoughtSignature"] == "skip_thought_signature_validator"


def test_tokens_are_estimated_where_the_provider_does_not_count(front: Proxy) -> None:
    reply = ask(front, "groq/g", "countTokens", systemInstruction={"parts": [{"text": "x" * 40}]})
    assert reply.json["totalTokens"] >= 10
    assert reply.headers["x-sanic-proxy-estimated"] == "input_tokens"


@pytest.mark.parametrize("version", ["v1", "v1beta"])
def test_models_have_googles_shape(front: Proxy, version: str) -> None:
    headers = {"x-goog-api-key": CLIENT_KEY}
    path = f"/{version}/models"
    first = front.request("GET", f"{path}?pageSize=1", None, headers).json
    assert len(first["models"]) == 1
    rest = front.request("GET", f"{path}?pageToken={first['nextPageToken']}", None, headers).json
    names = [model["name"] for model in first["models"] + rest["models"]]
    assert "models/echo/echo" in names
    one = front.request("GET", f"{path}/echo/echo", None, headers).json
    assert one["name"] == "models/echo/echo"
    assert "streamGenerateContent" in one["supportedGenerationMethods"]
    assert front.request("GET", f"{path}/echo/none", None, headers).status == 404
