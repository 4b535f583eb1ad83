"""The cases of the Open Responses compliance suite over HTTP, rebuilt; its types are the judge."""

from __future__ import annotations

import json
from typing import Any

import openresponses_types.types as open_responses
import pytest

from tests.support.proxy import Proxy
from tests.support.upstream import Exchange, Upstream, completion, frame, text_stream

USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string"}},
        "required": ["location"],
    },
}
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def user(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": text}


def answered(upstream: Upstream, **fields: Any) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(completion("Hello there, friend", usage=USAGE, **fields))

    upstream.on("or", script)


def create(proxy: Proxy, **fields: Any) -> dict[str, Any]:
    """A response, which is one of the specification's, complete and with an output."""
    reply = proxy.request("POST", "/v1/responses", {"model": "groq/or", **fields})
    assert reply.status == 200
    open_responses.ResponseResource.model_validate(reply.json)
    assert reply.json["status"] == "completed"
    assert reply.json["output"]
    return dict(reply.json)


def test_basic_text(proxy: Proxy, upstream: Upstream) -> None:
    answered(upstream)
    response = create(proxy, input=[user("Say hello in exactly 3 words.")])
    assert response["output"][0]["content"][0]["text"] == "Hello there, friend"


def test_streaming(proxy: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.stream(
            [*text_stream("1", "2")[:-1], frame(choices=[], usage=USAGE), b"data: [DONE]\n\n"]
        )

    upstream.on("or", script)
    body = {"model": "groq/or", "input": [user("Count from 1 to 5.")], "stream": True}
    reply = proxy.request("POST", "/v1/responses", body)
    blocks = reply.body.decode().removesuffix("\n\n").split("\n\n")
    events = [json.loads(block.partition("\ndata: ")[2]) for block in blocks if "data: " in block]
    assert events[-1]["type"] == "response.completed"
    open_responses.ResponseResource.model_validate(events[-1]["response"])
    assert events[-1]["response"]["output"]


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_system_prompt(proxy: Proxy, upstream: Upstream, role: str) -> None:
    answered(upstream)
    prompt = {"type": "message", "role": role, "content": "You are a pirate."}
    create(proxy, input=[prompt, user("Say hello.")])
    assert upstream.requests[-1].json["messages"][0] == {"role": "system", "content": "You are a pirate."}


def test_the_phase_of_an_assistants_message(proxy: Proxy, upstream: Upstream) -> None:
    answered(upstream)
    earlier = {
        "type": "message",
        "role": "assistant",
        "phase": "commentary",
        "content": [{"type": "output_text", "text": "I look it up."}],
    }
    response = create(proxy, input=[user("a"), earlier, user("b")])
    phases = {item.get("phase") for item in response["output"] if item["type"] == "message"}
    assert phases <= {None, "commentary", "final_answer"}


def test_calling_a_tool(proxy: Proxy, upstream: Upstream) -> None:
    async def script(exchange: Exchange) -> None:
        function = {"name": "get_weather", "arguments": '{"location":"San Francisco"}'}
        call = {"id": "call_1", "type": "function", "function": function}
        made = completion(None, usage=USAGE)
        made["choices"][0] |= {"finish_reason": "tool_calls"}
        made["choices"][0]["message"]["tool_calls"] = [call]
        await exchange.answer(made)

    upstream.on("or", script)
    response = create(proxy, input=[user("What is the weather in San Francisco?")], tools=[WEATHER])
    (item,) = response["output"]
    assert (item["type"], item["name"], item["call_id"]) == ("function_call", "get_weather", "call_1")
    assert json.loads(item["arguments"]) == {"location": "San Francisco"}


def test_an_image(proxy: Proxy, upstream: Upstream) -> None:
    answered(upstream)
    parts = [{"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": PIXEL}]
    create(proxy, input=[{"type": "message", "role": "user", "content": parts}])
    sent = upstream.requests[-1].json["messages"][0]["content"]
    assert sent[1]["image_url"]["url"] == PIXEL


def test_several_turns(proxy: Proxy, upstream: Upstream) -> None:
    answered(upstream)
    reply = {"type": "message", "role": "assistant", "content": "Hello Alice!"}
    create(proxy, input=[user("My name is Alice."), reply, user("What is my name?")])
    assert [turn["role"] for turn in upstream.requests[-1].json["messages"]] == ["user", "assistant", "user"]


def test_compaction(proxy: Proxy, upstream: Upstream) -> None:
    answered(upstream)
    body = {"model": "groq/or", "input": [user("Remember: 42."), user("And the sky is blue.")]}
    reply = proxy.request("POST", "/v1/responses/compact", body)
    assert reply.status == 200
    open_responses.CompactResource.model_validate(reply.json)
    create(proxy, input=[*reply.json["output"], user("What was the number?")])
    assert "Hello there, friend" in json.dumps(upstream.requests[-1].json["messages"])


def test_compaction_without_a_model_is_a_clear_error(proxy: Proxy) -> None:
    reply = proxy.request("POST", "/v1/responses/compact", {"input": [user("x")]})
    assert (reply.status, reply.error["param"]) == (400, "model")
