"""A chat in front of a chat: the tools of the client come back as the client knows them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from sanic_proxy.errors import UpstreamBadResponse
from sanic_proxy.openai import codec
from sanic_proxy.translation.responses import ResponsesFormat
from sanic_proxy.translation.translate import Translation, translated
from tests.support.chat_translation import CHAT, TARGET, chunks_of
from tests.support.upstream import DONE, frame

INPUT = '*** Begin Patch\n"é"\\'
ARGUMENTS = json.dumps({"input": INPUT})
LONG = "mcp__files__" + "read_" * 12


def translation() -> Translation:
    fields = {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "tools": [
            {"type": "custom", "custom": {"name": "apply_patch"}},
            {"type": "function", "function": {"name": LONG}},
        ],
    }
    return translated(CHAT, fields, CHAT, TARGET)


def calls(made: Translation) -> list[dict[str, Any]]:
    """Calls of both tools, as the target makes them."""
    names = [tool["function"]["name"] for tool in made.fields["tools"]]
    return [
        {"index": 0, "id": "a", "type": "function", "function": {"name": names[0], "arguments": ARGUMENTS}},
        {"index": 1, "id": "b", "type": "function", "function": {"name": names[1], "arguments": "{}"}},
    ]


def test_the_calls_of_a_whole_answer() -> None:
    made = translation()
    message = {"role": "assistant", "content": None, "tool_calls": calls(made)}
    answer = {"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    read = json.loads(made.whole(codec.dumps(answer)))
    assert read["choices"][0]["message"]["tool_calls"] == [
        {"id": "a", "type": "custom", "custom": {"name": "apply_patch", "input": INPUT}},
        {"id": "b", "type": "function", "function": {"name": LONG, "arguments": "{}"}},
    ]


@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_the_calls_of_a_stream(size: int) -> None:
    made = translation()
    pieces = [{"index": 0, "function": {"arguments": piece}} for piece in (ARGUMENTS[:9], ARGUMENTS[9:])]
    first, second = calls(made)
    first["function"]["arguments"] = ""
    deltas = [first, pieces[0], second, pieces[1]]
    stream = b"".join(frame({"tool_calls": [delta]}) for delta in deltas) + frame(finish="tool_calls") + DONE
    translator = made.stream_filter()
    parts = [translator.feed(stream[at : at + size]) for at in range(0, len(stream), size)]
    chunks = chunks_of(b"".join([*parts, translator.end()]))
    found: dict[int, dict[str, str]] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            for delta in choice["delta"].get("tool_calls", ()):
                call = found.setdefault(delta["index"], {"name": "", "text": ""})
                body = delta.get("custom") or delta["function"]
                call["name"] += body.get("name", "")
                call["text"] += body.get("input", "") + body.get("arguments", "")
    assert found == {0: {"name": "apply_patch", "text": INPUT}, 1: {"name": LONG, "text": "{}"}}


RESPONSES = ResponsesFormat()
THOUGHTFUL = {
    "id": "x",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": None,
                "reasoning_content": "hm",
                "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            "finish_reason": "tool_calls",
        }
    ],
}


@pytest.mark.parametrize(("provider", "dropped"), [("acme", []), ("other", ["messages.reasoning"])])
def test_reasoning_returns_through_a_client_of_another_api(provider: str, dropped: list[str]) -> None:
    item = {"role": "user", "content": "hi"}
    fields = {"model": "m", "input": [item], "tools": [{"type": "function", "name": "f", "parameters": {}}]}
    answer = json.loads(translated(RESPONSES, fields, CHAT, TARGET).whole(codec.dumps(THOUGHTFUL)))
    result = {"type": "function_call_output", "call_id": "a", "output": "1"}
    fields["input"] = [item, *answer["output"], result]
    made = translated(RESPONSES, fields, CHAT, replace(TARGET, provider=provider))
    message = made.fields["messages"][1]
    assert message.get("reasoning_content") == (None if dropped else "hm")
    assert message["tool_calls"][0]["id"] == "a"
    assert made.dropped == dropped


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"choices":[]}'])
def test_an_answer_of_another_shape_is_bad(body: bytes) -> None:
    with pytest.raises(UpstreamBadResponse):
        translation().whole(body)
