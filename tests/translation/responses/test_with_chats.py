"""Clients of Responses in front of a provider of chats: what such agents depend on, from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sanic_proxy import errors
from sanic_proxy.streams.filters import ChatStreamFilter, FilterChain, StreamFilter
from sanic_proxy.streams.responses_filter import ResponsesStreamFilter
from sanic_proxy.translation.chat import ChatFormat
from sanic_proxy.translation.format import TargetTraits
from sanic_proxy.translation.responses import ResponsesFormat
from sanic_proxy.translation.translate import Translation, translated
from tests.support.responses import accumulated, events_of, judge_response, judge_stream
from tests.support.upstream import DONE, frame

Json = dict[str, Any]

RESPONSES, CHAT = ResponsesFormat(now=lambda: 1_700_000_000), ChatFormat()
TARGET = TargetTraits("acme", "upstream-model")
CODEX: Json = json.loads((Path(__file__).parent / "codex.json").read_text("utf-8"))
MCP = {
    "type": "namespace",
    "name": "mcp__github",
    "description": "GitHub",
    "tools": [{"type": "function", "name": "search_issues", "parameters": {"type": "object"}}],
}


def to_chat(*items: Json, **fields: Any) -> Translation:
    return translated(RESPONSES, {**CODEX, "input": [*CODEX["input"], *items], **fields}, CHAT, TARGET)


def call_delta(index: int, arguments: str = "", **fields: Any) -> bytes:
    function: Json = {"arguments": arguments}
    if "name" in fields:
        function["name"] = fields.pop("name")
        fields["type"] = "function"
    return frame({"tool_calls": [{"index": index, **fields, "function": function}]})


def streamed(translation: Translation, *frames: bytes) -> bytes:
    chain = FilterChain(ChatStreamFilter(), translation.stream_filter())
    return b"".join(map(chain.feed, frames))


def output_of(translation: Translation, *frames: bytes) -> list[Json]:
    made = streamed(translation, *frames)
    final = judge_stream(events_of(made))
    assert accumulated(made)["id"] == final["id"]
    output: list[Json] = final["output"]
    return output


def test_apply_patch_returns_as_a_custom_tool_call() -> None:
    translation = to_chat()
    tools = {tool["function"]["name"]: tool["function"] for tool in translation.fields["tools"]}
    assert list(tools["apply_patch"]["parameters"]["properties"]) == ["input"]
    grammar = next(tool["format"] for tool in CODEX["tools"] if tool["type"] == "custom")
    assert grammar["definition"] in tools["apply_patch"]["description"]
    (item,) = output_of(
        translation,
        call_delta(0, id="call_1", name="apply_patch"),
        call_delta(0, '{"input": "*** Begin'),
        call_delta(0, ' Patch\\n"}'),
        frame(finish="tool_calls"),
        DONE,
    )
    assert item["type"] == "custom_tool_call"
    assert item["call_id"] == "call_1"
    assert item["input"] == "*** Begin Patch\n"


def test_a_search_for_tools_returns_as_one() -> None:
    (item,) = output_of(
        to_chat(),
        call_delta(0, '{"query":"x"}', id="call_1", name="tool_search"),
        frame(finish="tool_calls"),
        DONE,
    )
    assert item["type"] == "tool_search_call"
    assert item["execution"] == "client"
    assert item["arguments"] == {"query": "x"}


def test_namespaces_are_flat_there_and_restored_here_and_in_the_history() -> None:
    history = [
        {
            "type": "function_call",
            "call_id": "c1",
            "name": "search_issues",
            "namespace": "mcp__github",
            "arguments": "{}",
        },
        {"type": "function_call_output", "call_id": "c1", "output": "none"},
    ]
    translation = to_chat(*history, tools=[MCP])
    (tool,) = translation.fields["tools"]
    flat = tool["function"]["name"]
    assert flat == "mcp__github__search_issues"
    calls = [call for message in translation.fields["messages"] for call in message.get("tool_calls", ())]
    assert [call["function"]["name"] for call in calls] == [flat]
    (item,) = output_of(
        translation, call_delta(0, "{}", id="c2", name=flat), frame(finish="tool_calls"), DONE
    )
    assert (item["namespace"], item["name"]) == ("mcp__github", "search_issues")


def test_tools_that_a_search_has_found_can_be_called() -> None:
    history: list[Json] = [
        {"type": "tool_search_call", "call_id": "c1", "execution": "client", "arguments": {"query": "x"}},
        {
            "type": "tool_search_output",
            "call_id": "c1",
            "execution": "client",
            "status": "completed",
            "tools": [MCP],
        },
    ]
    names = [tool["function"]["name"] for tool in to_chat(*history).fields["tools"]]
    assert "mcp__github__search_issues" in names


def test_hosted_tools_are_dropped_with_notice() -> None:
    assert {"tools.web_search", "client_metadata"} <= set(to_chat().dropped)


def test_allowed_tools_are_the_only_ones() -> None:
    choice = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "view_image"}],
    }
    translation = to_chat(tool_choice=choice)
    assert [tool["function"]["name"] for tool in translation.fields["tools"]] == ["view_image"]
    assert translation.fields["tool_choice"] == "required"


def test_two_calls_with_text_between_them_and_their_results() -> None:
    history = [
        {"type": "function_call", "call_id": "c1", "name": "exec_command", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "exec_command", "arguments": "{}"},
        {"role": "assistant", "content": "Both run."},
        {"type": "function_call_output", "call_id": "c1", "output": "1"},
        {"type": "function_call_output", "call_id": "c2", "output": "2"},
    ]
    model, *results = to_chat(*history).fields["messages"][-3:]
    assert [call["id"] for call in model["tool_calls"]] == ["c1", "c2"]
    assert model["content"] == "Both run."
    assert [(result["role"], result["tool_call_id"]) for result in results] == [
        ("tool", "c1"),
        ("tool", "c2"),
    ]


def test_interleaved_calls_of_a_chat() -> None:
    output = output_of(
        to_chat(),
        call_delta(0, id="c0", name="exec_command"),
        call_delta(1, id="c1", name="apply_patch"),
        call_delta(0, '{"cmd":'),
        call_delta(1, '{"input":'),
        call_delta(0, '"ls"}'),
        call_delta(1, '"x"}'),
        frame(finish="tool_calls"),
        DONE,
    )
    assert [(item["type"], item["call_id"]) for item in output] == [
        ("function_call", "c0"),
        ("custom_tool_call", "c1"),
    ]
    assert output[0]["arguments"] == '{"cmd":"ls"}'
    assert output[1]["input"] == "x"


def test_reasoning_text_and_usage_of_a_chat() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    made = streamed(
        to_chat(),
        frame({"role": "assistant", "content": ""}),
        frame({"reasoning_content": "hm"}),
        frame({"content": "Hello"}),
        frame(finish="stop"),
        frame(choices=[], usage=usage),
        DONE,
    )
    final = judge_stream(events_of(made))
    assert [item["type"] for item in final["output"]] == ["reasoning", "message"]
    assert final["usage"]["total_tokens"] == 8


def test_a_whole_answer() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "apply_patch", "arguments": '{"input":"x"}'}}
    completion = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 5,
        "model": "upstream-model",
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {"role": "assistant", "content": "I patch.", "tool_calls": [call]},
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
    }
    response = json.loads(to_chat().whole(json.dumps(completion).encode()))
    judge_response(response)
    assert [item["type"] for item in response["output"]] == ["message", "custom_tool_call"]
    assert response["id"] == "resp_1"


def test_a_stream_that_breaks_off_ends_with_its_failure() -> None:
    translation = to_chat()
    chain = FilterChain(ChatStreamFilter(), translation.stream_filter())
    made = chain.feed(frame({"content": "Hel"}))
    with pytest.raises(errors.UpstreamDisconnected) as caught:
        chain.end()
    events = events_of(made + chain.failed(caught.value))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["id"] == events[0]["response"]["id"]


def test_chat_clients_in_front_of_a_provider_of_responses() -> None:
    request = {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "hello"}],
        "stream": True,
        "max_completion_tokens": 100,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    }
    translation = translated(CHAT, request, RESPONSES, TARGET)
    assert translation.fields["instructions"] == "Be brief"
    assert translation.fields["max_output_tokens"] == 100
    chain: StreamFilter = FilterChain(ResponsesStreamFilter(), translation.stream_filter())
    answer = streamed(to_chat(), frame({"content": "Hello"}), frame(finish="stop"), DONE)
    chunks = [
        json.loads(part[6:]) for part in chain.feed(answer).split(b"\n\n") if part.startswith(b"data: {")
    ]
    texts = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
    assert "".join(texts) == "Hello"
    assert chain.is_done


def test_a_failed_response_is_the_failure_of_a_chat() -> None:
    request = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": True}
    translation = translated(CHAT, request, RESPONSES, TARGET)
    chain = FilterChain(ResponsesStreamFilter(), translation.stream_filter())
    delta = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hel"}
    error = {"code": "rate_limit_exceeded", "message": "slow"}
    failed = {"type": "response.failed", "response": {"status": "failed", "error": error}}
    for event in (delta, failed):
        chain.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
    assert isinstance(chain.failure, errors.RateLimited)
    assert not chain.is_done
