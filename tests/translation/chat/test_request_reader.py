"""Chat requests -> the middle shape."""

from __future__ import annotations

from typing import Any

import pytest

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.translation.conversation import (
    Audio,
    Conversation,
    Document,
    Image,
    Other,
    OutputFormat,
    Part,
    Reasoning,
    ReasoningOptions,
    Refusal,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)
from sanic_proxy.translation.signatures import wrapped
from tests.support.chat_translation import CHAT

USER = {"role": "user", "content": "hi"}


def read(*messages: Any, **fields: Any) -> Conversation:
    return CHAT.read_request({"model": "m", "messages": list(messages or [USER]), **fields})


def call(name: str = "f", arguments: str = "{}", id_: str = "call_1") -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


CONTENTS: list[tuple[Any, list[Part]]] = [
    ("hi", [Text("hi")]),
    ("", []),
    (None, []),
    ([], []),
    ([{"type": "text", "text": ""}, {"type": "text", "text": "a"}, "b"], [Text("a"), Text("b")]),
    ([{"text": "a"}], [Text("a")]),
    (
        [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}],
        [Text("a", {"type": "ephemeral"})],
    ),
    (
        [{"type": "image_url", "image_url": {"url": "https://a/b", "detail": "low"}}],
        [Image("https://a/b", detail="low")],
    ),
    ([{"type": "image_url", "image_url": "https://a/b"}], [Image("https://a/b")]),
    ([{"type": "input_audio", "input_audio": {"data": "YQ==", "format": "wav"}}], [Audio("YQ==", "wav")]),
    (
        [{"type": "file", "file": {"file_data": "data:a/b;base64,YQ==", "filename": "x"}}],
        [Document("data:a/b;base64,YQ==", name="x")],
    ),
    (
        [{"type": "file", "file": {"file_data": "YQ==", "filename": "x.txt"}}],
        [Document("data:text/plain;base64,YQ==", name="x.txt")],
    ),
    ([{"type": "file", "file": {"file_data": "YQ=="}}], [Document("data:application/pdf;base64,YQ==")]),
    ([{"type": "file", "file": {"file_id": "file-1"}}], [Document(file_id="file-1")]),
    ([{"type": "refusal", "refusal": "no"}], [Refusal("no")]),
    ([{"type": "video_url", "x": 1}], [Other("video_url", {"type": "video_url", "x": 1})]),
]


@pytest.mark.parametrize(("content", "parts"), CONTENTS)
def test_content(content: Any, parts: list[Part]) -> None:
    assert read({"role": "user", "content": content, "name": "ann"}).turns == [Turn("user", parts, "ann")]


def test_system_and_developer_messages_stay_in_place() -> None:
    roles = ["system", "user", "developer", "user"]
    assert [turn.role for turn in read(*({"role": role, "content": "x"} for role in roles)).turns] == roles


def test_calls_and_results() -> None:
    custom = {"id": "call_2", "type": "custom", "custom": {"name": "c", "input": "x\n"}}
    turns = read(
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call(), custom]},
        {"role": "tool", "tool_call_id": "call_1", "content": "one"},
        {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "two"}]},
        USER,
    ).turns
    assert turns[1:3] == [
        Turn("assistant", [ToolCall("call_1", "f", "{}"), ToolCall("call_2", "c", "x\n", "custom")]),
        Turn(
            "tool", [ToolResult("call_1", [Text("one")]), ToolResult("call_2", [Text("two")], kind="custom")]
        ),
    ]


def test_an_unknown_kind_of_call_is_another_part() -> None:
    odd = {"type": "mcp", "x": 1}
    assert read(USER, {"role": "assistant", "tool_calls": [odd]}).turns[1].parts == [Other("mcp", odd)]


def test_arguments_may_be_an_object_or_missing() -> None:
    calls = [
        {"id": "a", "function": {"name": "f", "arguments": {"x": 1}}},
        {"id": "b", "function": {"name": "f"}},
    ]
    parts = read(USER, {"role": "assistant", "tool_calls": calls}).turns[1].parts
    assert parts == [ToolCall("a", "f", '{"x":1}'), ToolCall("b", "f", "")]


def test_the_legacy_functions() -> None:
    conversation = read(
        USER,
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "one"},
        {"role": "assistant", "content": None, "function_call": {"name": "g", "arguments": "{}"}},
        {"role": "function", "name": "g", "content": "two"},
        functions=[{"name": "f", "parameters": {}}],
        function_call={"name": "f"},
    )
    first, one, second, two = (turn.parts[0] for turn in conversation.turns[1:])
    assert isinstance(first, ToolCall)
    assert isinstance(second, ToolCall)
    assert first.id != second.id
    assert one == ToolResult(first.id, [Text("one")])
    assert two == ToolResult(second.id, [Text("two")])
    assert conversation.tools == [Tool("f", parameters={})]
    assert conversation.tool_choice == ToolChoice("tool", ("f",))
    assert read(function_call="none").tool_choice == ToolChoice("none")


DETAILS = [
    {"type": "reasoning.text", "text": "hm", "signature": wrapped("claude", "sig"), "index": 0},
    {"type": "reasoning.encrypted", "data": wrapped("claude", "data"), "index": 1},
    {"type": "reasoning.summary", "summary": "short", "signature": wrapped("gpt", "enc"), "id": "rs_1"},
]


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"reasoning_content": "hm"}, [Reasoning("hm")]),
        ({"reasoning": "hm", "reasoning_content": ""}, [Reasoning("hm")]),
        (
            {"reasoning_content": "hmshort", "reasoning_details": DETAILS},
            [
                Reasoning("hm", "sig", "claude"),
                Reasoning("", "data", "claude", is_redacted=True),
                Reasoning("short", "enc", "gpt", is_summary=True, id="rs_1"),
            ],
        ),
        (
            {"reasoning_content": "hm", "reasoning_details": DETAILS[1:2]},
            [Reasoning("hm"), Reasoning("", "data", "claude", is_redacted=True)],
        ),
        (
            {"reasoning_details": [{"type": "reasoning.text", "text": "hm", "signature": "foreign"}]},
            [Reasoning("hm", '{"type":"reasoning.text","signature":"foreign"}')],
        ),
    ],
)
def test_reasoning_of_the_history(fields: dict[str, Any], parts: list[Part]) -> None:
    turns = read(USER, {"role": "assistant", "content": "x", **fields}).turns
    assert turns[1].parts == [*parts, Text("x")]


def test_audio_and_annotations_of_the_history() -> None:
    citation = {"url": "https://a", "title": "A", "start_index": 0, "end_index": 1}
    message = {
        "role": "assistant",
        "content": "x",
        "audio": {"id": "a"},
        "annotations": [{"type": "url_citation", "url_citation": citation}],
    }
    flat = {"type": "url_citation", **citation}
    assert read(USER, message).turns[1].parts == [Text("x", annotations=[flat]), Other("audio", {"id": "a"})]


def test_tools() -> None:
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: X"}}
    conversation = read(
        tools=[
            {"type": "function", "function": function, "cache_control": {"type": "ephemeral"}},
            {"type": "custom", "custom": {"name": "c", "description": "d", "format": grammar}},
            {"type": "web_search", "x": 1},
        ]
    )
    assert conversation.tools == [
        Tool("f", "d", {"type": "object"}, strict=True, cache_control={"type": "ephemeral"}),
        Tool("c", "d", kind="custom", format={"type": "grammar", "syntax": "lark", "definition": "start: X"}),
    ]
    assert conversation.extras == {"tools.web_search": {"type": "web_search", "x": 1}}


def named(name: str, kind: str = "function") -> dict[str, Any]:
    return {"type": kind, kind: {"name": name}}


@pytest.mark.parametrize(
    ("value", "choice"),
    [
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ("any", ToolChoice("required")),
        (named("f"), ToolChoice("tool", ("f",))),
        (named("c", "custom"), ToolChoice("tool", ("c",))),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [named("f"), named("c", "custom"), {"type": "x"}],
                },
            },
            ToolChoice("required", ("f", "c")),
        ),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}, ToolChoice("auto")),
    ],
)
def test_tool_choice(value: Any, choice: ToolChoice) -> None:
    assert read(tool_choice=value).tool_choice == choice


FIELDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"stream": True, "stream_options": {"include_usage": True}},
        {"is_streaming": True, "include_usage": True},
    ),
    ({}, {"is_streaming": False, "include_usage": False, "extras": {}, "tools": [], "tool_choice": None}),
    (
        {"stream_options": {"include_obfuscation": True}},
        {"extras": {"stream_options.include_obfuscation": True}},
    ),
    ({"max_tokens": 5}, {"max_tokens": 5}),
    ({"max_tokens": 5, "max_completion_tokens": 6}, {"max_tokens": 6}),
    ({"max_tokens": 5.0}, {"max_tokens": 5}),
    ({"stop": "a"}, {"stop": ["a"]}),
    ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
    ({"stop": None}, {"stop": []}),
    ({"temperature": 0, "top_p": 0.5, "top_k": 3, "seed": 1}, {"temperature": 0, "top_p": 0.5, "top_k": 3}),
    ({"presence_penalty": 1, "frequency_penalty": -1}, {"presence_penalty": 1, "frequency_penalty": -1}),
    ({"logprobs": True, "top_logprobs": 2}, {"top_logprobs": 2, "extras": {}}),
    ({"logprobs": True}, {"extras": {"logprobs": True}}),
    ({"logprobs": False}, {"extras": {}}),
    ({"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
    ({"n": 1}, {"extras": {}}),
    ({"n": 2}, {"extras": {"n": 2}}),
    ({"user": "a", "safety_identifier": "a"}, {"user": "a", "extras": {}}),
    ({"user": "a", "safety_identifier": "b"}, {"user": "a", "extras": {"safety_identifier": "b"}}),
    ({"safety_identifier": "b"}, {"user": "b", "extras": {}}),
    ({"metadata": {"a": "b"}, "service_tier": "flex"}, {"metadata": {"a": "b"}, "service_tier": "flex"}),
    ({"prompt_cache_key": "k", "verbosity": "low"}, {"prompt_cache_key": "k", "verbosity": "low"}),
    ({"reasoning_effort": "low"}, {"reasoning": ReasoningOptions("low")}),
    (
        {"reasoning": {"effort": "high", "max_tokens": 100}},
        {"reasoning": ReasoningOptions("high", 100), "extras": {}},
    ),
    ({"reasoning": {"enabled": False}}, {"reasoning": ReasoningOptions(mode="disabled")}),
    (
        {"thinking": {"type": "enabled", "budget_tokens": 9}},
        {"reasoning": ReasoningOptions(None, 9, "enabled")},
    ),
    ({"response_format": {"type": "text"}}, {"output": OutputFormat("text")}),
    ({"response_format": {"type": "json_object"}}, {"output": OutputFormat("json_object")}),
    (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {}, "strict": True},
            }
        },
        {"output": OutputFormat("json_schema", "x", {}, strict=True)},
    ),
    ({"response_format": {"type": "x"}}, {"output": None, "extras": {"response_format": {"type": "x"}}}),
    ({"store": False, "modalities": ["text"], "logit_bias": {}}, {"extras": {}}),
    (
        {"store": True, "audio": {}, "web_search_options": {}, "prediction": None, "x-new": 1},
        {"extras": {"store": True, "audio": {}, "web_search_options": {}, "x-new": 1}},
    ),
    ({"tool_choice": {"type": "web_search"}}, {"extras": {"tool_choice": {"type": "web_search"}}}),
]


@pytest.mark.parametrize(("fields", "expected"), FIELDS)
def test_fields(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    conversation = read(**fields)
    assert {name: getattr(conversation, name) for name in expected} == expected


def test_fields_of_messages_and_tools_without_a_place_are_named() -> None:
    function = {"name": "f", "defer_loading": True, "x": None}
    conversation = read({**USER, "prefix": True}, tools=[{"type": "function", "function": function}])
    assert conversation.extras == {"messages.prefix": True, "tools.defer_loading": True}
    assert conversation.turns[0].extras == {"prefix": True}
    assert conversation.tools[0].extras == {"defer_loading": True}


def tool(**fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{**call(), **fields}]}


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"model": None}, "model"),
    ({"model": 1}, "model"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": ["hi"]}, "messages.0"),
    ({"messages": [{}]}, "messages.0.role"),
    ({"messages": [{"role": "robot"}]}, "messages.0.role"),
    ({"messages": [USER, {"role": "user", "content": 1}]}, "messages.1.content"),
    ({"messages": [{"role": "user", "content": [1]}]}, "messages.0.content.0"),
    ({"messages": [{"role": "user", "content": [{}]}]}, "messages.0.content.0.type"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages.0.content.0.image_url.url",
    ),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id"),
    ({"messages": [USER, USER, tool(id=1)]}, "messages.2.tool_calls.0.id"),
    ({"messages": [USER, tool(id=None)]}, "messages.1.tool_calls.0.id"),
    ({"messages": [USER, tool(function={"name": 1})]}, "messages.1.tool_calls.0.function.name"),
    ({"messages": [USER, tool(function="f")]}, "messages.1.tool_calls.0.function"),
    ({"stream": "yes"}, "stream"),
    ({"max_tokens": "5"}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"temperature": "hot"}, "temperature"),
    ({"stop": 1}, "stop"),
    ({"stop": ["a", 1]}, "stop.1"),
    ({"n": "2"}, "n"),
    ({"tools": {}}, "tools"),
    ({"tools": [{"type": "function"}]}, "tools.0.function"),
    ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name"),
    ({"tool_choice": 1}, "tool_choice"),
    ({"tool_choice": "maybe"}, "tool_choice"),
    ({"tool_choice": {"type": "function"}}, "tool_choice.function"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"metadata": []}, "metadata"),
    ({"user": {}}, "user"),
]


@pytest.mark.parametrize(("fields", "path"), INVALID)
def test_a_wrong_type_names_the_parameter(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        CHAT.read_request({"model": "m", "messages": [USER], **fields})
    assert caught.value.param == path
    assert f"`{path}`" in caught.value.message
