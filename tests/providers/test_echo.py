"""The embedded provider, for people who try their clients."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from sanic_proxy.providers.echo import example_of, last_user_text
from tests.support.proxy import Proxy, running_proxy
from tests.support.upstream import DONE

TOOLS = [
    {
        "type": "function",
        "function": {"name": "ls", "parameters": {"type": "object", "properties": {"p": {"type": "string"}}}},
    },
    {
        "type": "function",
        "function": {"name": "add", "parameters": {"properties": {"a": {"type": "integer"}}}},
    },
]


def message(proxy: Proxy, **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = proxy.chat("echo/echo", **fields).json["choices"][0]["message"]
    return made


def test_it_answers_with_the_last_user_message(proxy: Proxy) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "text", "text": "b c"}]}]
    reply = proxy.chat("echo/echo", messages=[*turns, {"role": "assistant", "content": "x"}]).json
    assert reply["choices"][0]["message"]["content"] == "b c"
    assert reply["usage"]["completion_tokens"] == 2


def test_it_streams_word_by_word(proxy: Proxy) -> None:
    text = "one  two\nthree"
    _, frames = proxy.stream("echo/echo", messages=[{"role": "user", "content": text}])
    deltas = [json.loads(frame[6:])["choices"][0]["delta"] for frame in frames[:-1]]
    words = [delta["content"] for delta in deltas if delta.get("content")]
    assert words == ["one  ", "two\n", "three"]
    assert frames[-1] == DONE


def test_it_calls_a_tool_when_it_must(proxy: Proxy) -> None:
    (call,) = message(proxy, tools=TOOLS, tool_choice="required")["tool_calls"]
    assert call["function"] == {"name": "ls", "arguments": '{"p":"Hi"}'}
    named = {"type": "function", "function": {"name": "add"}}
    (call,) = message(proxy, tools=TOOLS, tool_choice=named)["tool_calls"]
    assert call["function"] == {"name": "add", "arguments": '{"a":1}'}
    assert message(proxy, tools=TOOLS)["content"] == "Hi"


def test_it_answers_json_on_request(proxy: Proxy) -> None:
    assert message(proxy, response_format={"type": "json_object"})["content"] == '{"echo":"Hi"}'
    schema = {
        "type": "object",
        "properties": {"n": {"type": "number"}, "s": {"enum": ["x"]}, "l": {"type": "array"}},
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    assert message(proxy, response_format=wanted)["content"] == '{"n":1,"s":"x","l":["Hi"]}'


@pytest.mark.parametrize(
    ("model", "status"), [("echo/error-429", 429), ("echo/error-500", 500), ("echo/nope", 404)]
)
@pytest.mark.parametrize("streaming", [False, True])
def test_it_fails_on_request(proxy: Proxy, model: str, status: int, streaming: bool) -> None:
    reply = proxy.chat(model, stream=streaming)
    assert reply.status == status
    assert reply.error["message"]
    assert reply.headers.get("retry-after") == (None if status == 404 else "1")


@pytest.mark.parametrize("streaming", [False, True])
def test_a_model_of_another_provider_is_answered_with_one_that_works(streaming: bool) -> None:
    with running_proxy({}) as alone:
        reply = alone.chat("gpt-4o", stream=streaming)
        assert (reply.status, reply.error["code"]) == (404, "model_not_found")
        advised = re.findall(r"echo/[\w-]+", reply.error["message"])
        assert alone.chat(advised[0], stream=streaming).status == 200
        assert "OPENAI_API_KEY" in reply.error["message"]


def test_it_breaks_off_on_request(proxy: Proxy) -> None:
    turns = [{"role": "user", "content": "one two three four"}]
    reply, frames = proxy.stream("echo/cut", messages=turns)
    assert b"one" in reply.body
    assert b"four" not in reply.body
    assert json.loads(frames[-1][6:])["error"]["code"] == "upstream_disconnected"
    assert proxy.chat("echo/cut").status == 502


def test_it_is_slow_on_request(proxy: Proxy) -> None:
    started = time.monotonic()
    reply, _ = proxy.stream("echo/slow", messages=[{"role": "user", "content": "a b"}])
    assert time.monotonic() - started > 1.4
    assert b": ping\n" in reply.body


@pytest.mark.parametrize("messages", [None, "x", [], ["x"], [{"role": "user", "content": 7}]])
def test_odd_messages_have_no_text(messages: object) -> None:
    assert last_user_text(messages) == ""


@pytest.mark.parametrize(
    ("schema", "example"),
    [
        (None, {}),
        ({"type": "string"}, "t"),
        ({"type": ["integer", "null"], "minimum": 5}, 5),
        ({"anyOf": [{"type": "boolean"}]}, True),
        ({"const": 3}, 3),
        ({"type": "null"}, None),
    ],
)
def test_an_example_fits_its_schema(schema: object, example: object) -> None:
    assert example_of(schema, "t") == example
