"""The official client, against running workers: whole, streamed, tools, errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.support.proxy import Proxy, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import (
    Exchange,
    Upstream,
    completion,
    frame,
    straico_completion,
    text_stream,
)

# As `Any`: the client types each message, tool and model of its own API.
HELLO: Any = [{"role": "user", "content": "Hello"}]
TOOLS: Any = [{"type": "function", "function": {"name": "ls", "parameters": {"type": "object"}}}]
CALL = '<tool_calls>[{"name":"ls","arguments":{"p":"/"}}]</tool_calls>'
USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}


@pytest.fixture(scope="module")
def workers(shared_upstream: Upstream) -> Iterator[Proxy]:
    with running_proxy(provider_settings(shared_upstream), "--workers", "2") as started:
        yield started


@pytest.fixture
def client(workers: Proxy) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{workers.url}/v1", api_key="unused", max_retries=0) as made:
        yield made


@pytest.fixture(params=["groq/gpt", "straico/openai/gpt", "echo/echo"])
def model(request: pytest.FixtureRequest, upstream: Upstream) -> str:
    """A model that answers Hello, of each kind of provider."""

    async def native(exchange: Exchange) -> None:
        if not exchange.seen.json.get("stream"):
            await exchange.answer(completion("Hello"))
            return
        *frames, done = text_stream("Hel", "lo")
        await exchange.stream([*frames, frame(choices=[], usage=USAGE), done])

    async def emulated(exchange: Exchange) -> None:
        await exchange.answer(straico_completion("Hello"))

    upstream.on("gpt", native)
    upstream.on("openai/gpt", emulated)
    name: str = request.param
    return name


def test_a_whole_answer(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=HELLO)
    assert answer.choices[0].message.content == "Hello"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer._request_id


def test_a_streamed_answer(client: openai.OpenAI, model: str) -> None:
    stream = client.chat.completions.create(
        model=model,
        messages=HELLO,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello"
    assert chunks[-1].usage is not None


def test_a_parsed_stream(client: openai.OpenAI, model: str) -> None:
    with client.chat.completions.stream(model=model, messages=HELLO) as stream:
        assert stream.get_final_completion().choices[0].message.content == "Hello"


def test_a_tool_round_trip_through_straico(client: openai.OpenAI, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        is_second = "/etc" in exchange.seen.body.decode()
        await exchange.answer(straico_completion("It has passwd." if is_second else CALL))

    upstream.on("tools", script)
    with client.chat.completions.stream(model="straico/tools", messages=HELLO, tools=TOOLS) as stream:
        first = stream.get_final_completion().choices[0]
    assert first.finish_reason == "tool_calls"
    assert first.message.content is None
    assert first.message.tool_calls is not None
    (call,) = first.message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "/etc"}
    past: Any = [*HELLO, first.message.model_dump(exclude_none=True), result]
    second = client.chat.completions.create(model="straico/tools", messages=past, tools=TOOLS)
    assert second.choices[0].message.content == "It has passwd."
    assert call.id in upstream.requests[-1].body.decode()


@pytest.mark.row(37)
def test_tool_deltas_pass_through(client: openai.OpenAI, upstream: Upstream) -> None:
    def delta(index: int, arguments: str, **head: str) -> bytes:
        function = {"arguments": arguments, **({"name": head["name"]} if head else {})}
        call = {
            "index": index,
            "function": function,
            **({"id": head["name"], "type": "function"} if head else {}),
        }
        return frame({"tool_calls": [call]})

    async def script(exchange: Exchange) -> None:
        calls = [
            delta(0, "", name="a"),
            delta(0, '{"x"'),
            delta(1, "", name="b"),
            delta(0, ":1}"),
            delta(1, "{}"),
        ]
        await exchange.stream([frame({"role": "assistant"}), *calls, *text_stream()[-2:]])

    upstream.on("deltas", script)
    with client.chat.completions.stream(model="groq/deltas", messages=HELLO) as stream:
        calls = stream.get_final_completion().choices[0].message.tool_calls or []
    assert [(c.function.name, c.function.arguments) for c in calls] == [("a", '{"x":1}'), ("b", "{}")]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (401, openai.InternalServerError),
        (404, openai.NotFoundError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_errors_have_their_class(
    client: openai.OpenAI, upstream: Upstream, status: int, kind: type[openai.APIStatusError], streaming: bool
) -> None:
    async def script(exchange: Exchange) -> None:
        error = {"message": "why", "type": "t", "param": None, "code": "c"}
        await exchange.answer({"error": error}, status, ("retry-after", "1"))

    upstream.on("errs", script)
    with pytest.raises(kind) as caught:
        client.chat.completions.create(model="groq/errs", messages=HELLO, stream=streaming)
    assert caught.value.request_id
    assert caught.value.type is not None


@pytest.mark.row(30)
def test_hopeless_requests_are_not_repeated(workers: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer({"error": "no"}, 401)

    upstream.on("hopeless", script)
    client = openai.OpenAI(base_url=f"{workers.url}/v1", api_key="x", max_retries=2)
    with client, pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="groq/hopeless", messages=HELLO)
    assert len(upstream.seen("hopeless")) == 1


@pytest.mark.row(9)
def test_a_cut_stream_raises(client: openai.OpenAI, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(frame({"content": "a"}) + b"data: {")
        await asyncio.sleep(0.05)
        exchange.close()

    upstream.on("cut", script)
    stream = client.chat.completions.create(model="groq/cut", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError, match="was lost before"):
        list(stream)


def test_models_are_listed_and_got(client: openai.OpenAI) -> None:
    assert "echo/echo" in [entry.id for entry in client.models.list()]
    assert client.models.retrieve("echo/slow").owned_by == "echo"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("echo/none")
