"""A client's Messages request -> a conversation."""

from __future__ import annotations

from typing import Any

import pytest

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.translation import signatures
from sanic_proxy.translation.conversation import (
    Conversation,
    Document,
    Image,
    Other,
    OutputFormat,
    Part,
    Reasoning,
    ReasoningOptions,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)
from sanic_proxy.translation.messages import MessagesFormat

FORMAT = MessagesFormat()
MARK = {"type": "ephemeral"}
USER = {"role": "user", "content": "hello"}
NATIVE = signatures.native("messages")


def read(**fields: Any) -> Conversation:
    return FORMAT.read_request({"model": "m", "max_tokens": 9, "messages": [USER], **fields})


def parts(*blocks: dict[str, Any], role: str = "user") -> list[Part]:
    return [
        part for turn in read(messages=[{"role": role, "content": list(blocks)}]).turns for part in turn.parts
    ]


def test_a_plain_request() -> None:
    assert read() == Conversation("m", [Turn("user", [Text("hello")])], max_tokens=9)


def test_the_options() -> None:
    read_ = read(
        stream=True,
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        stop_sequences=["END"],
        metadata={"user_id": "u", "x": 1},
        service_tier="standard_only",
    )
    assert read_.is_streaming
    assert (read_.temperature, read_.top_p, read_.top_k, read_.stop) == (0.5, 0.9, 5, ["END"])
    assert (read_.user, read_.metadata, read_.service_tier) == ("u", {"x": 1}, "default")


# System messages


def test_a_system_prompt_is_a_string_or_blocks() -> None:
    assert read(system="a").turns[0] == Turn("system", [Text("a")])
    blocks = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": MARK}]
    assert read(system=blocks).turns[0] == Turn("system", [Text("a"), Text("b", cache_control=MARK)])
    assert read(system="").turns[0].role == "user"


def test_a_system_message_in_the_middle_keeps_its_place_and_its_fields() -> None:
    config = {"effort": "high"}
    read_ = read(messages=[USER, {"role": "system", "content": "a", "output_config": config}])
    assert read_.turns[1] == Turn("system", [Text("a")], extras={"output_config": config})
    assert read_.extras == {"messages.output_config": config}


def test_the_last_system_message_sets_the_effort() -> None:
    system = {"role": "system", "output_config": {"effort": "low"}}
    assert read(messages=[USER, system], output_config={"effort": "max"}).reasoning == ReasoningOptions("low")
    answered = [USER, system, {"role": "assistant", "content": "a"}, USER]
    assert read(messages=answered, output_config={"effort": "max"}).reasoning == ReasoningOptions("max")


# Blocks


def test_results_of_tools_are_a_turn_of_their_own_before_the_users_words() -> None:
    results = [
        {"type": "tool_result", "tool_use_id": "a", "content": "1"},
        {"type": "tool_result", "tool_use_id": "b", "is_error": True, "cache_control": MARK},
    ]
    turns = read(messages=[{"role": "user", "content": [{"type": "text", "text": "x"}, *results]}]).turns
    assert turns == [
        Turn("tool", [ToolResult("a", [Text("1")]), ToolResult("b", is_error=True, cache_control=MARK)]),
        Turn("user", [Text("x")]),
    ]


def test_the_content_of_a_result() -> None:
    reference = {"type": "tool_reference", "tool_name": "f"}
    image = {"type": "image", "source": {"type": "url", "url": "https://x/a.png"}}
    nested = {"type": "tool_result", "tool_use_id": "a"}
    (result,) = parts({"type": "tool_result", "tool_use_id": "a", "content": [image, reference, nested]})
    assert isinstance(result, ToolResult)
    assert result.content == [
        Image("https://x/a.png"),
        Other("tool_reference", reference),
        Other("tool_result", nested),
    ]


@pytest.mark.parametrize(
    ("source", "image"),
    [
        ({"type": "base64", "media_type": "image/png", "data": "QQ=="}, Image("data:image/png;base64,QQ==")),
        ({"type": "url", "url": "https://x/a"}, Image("https://x/a")),
        ({"type": "file", "file_id": "file_1"}, Image(file_id="file_1")),
    ],
)
def test_images(source: dict[str, str], image: Image) -> None:
    assert parts({"type": "image", "source": source}) == [image]


@pytest.mark.parametrize(
    ("source", "fields"),
    [
        (
            {"type": "base64", "media_type": "application/pdf", "data": "QQ=="},
            {"url": "data:application/pdf;base64,QQ=="},
        ),
        ({"type": "url", "url": "https://x/a"}, {"url": "https://x/a"}),
        ({"type": "text", "media_type": "text/plain", "data": "a"}, {"text": "a"}),
        ({"type": "file", "file_id": "file_1"}, {"file_id": "file_1"}),
    ],
)
def test_documents(source: dict[str, str], fields: dict[str, Any]) -> None:
    block = {
        "type": "document",
        "source": source,
        "title": "t",
        "context": "c",
        "citations": {"enabled": True},
    }
    assert parts(block) == [Document(name="t", context="c", citations={"enabled": True}, **fields)]


def test_calls() -> None:
    call = {"type": "tool_use", "id": "a", "name": "f", "input": {"x": "\u00e4"}, "cache_control": MARK}
    assert parts(call, role="assistant") == [ToolCall("a", "f", '{"x":"\u00e4"}', cache_control=MARK)]


def test_arguments_that_claude_code_could_not_parse_are_the_models_text_again() -> None:
    kept = {"__unparsedToolInput": {"raw": '{"x": tru'}}
    call = {"type": "tool_use", "id": "a", "name": "f", "input": kept}
    assert parts(call, role="assistant") == [ToolCall("a", "f", '{"x": tru')]


def test_reasoning_has_the_origin_that_its_signature_names() -> None:
    blocks = [
        {"type": "thinking", "thinking": "a", "signature": "sig"},
        {"type": "thinking", "thinking": "b", "signature": signatures.wrapped("p", "sig")},
        {"type": "thinking", "thinking": "c", "signature": ""},
        {"type": "redacted_thinking", "data": signatures.wrapped("p", "data")},
        {"type": "redacted_thinking", "data": "data"},
    ]
    assert parts(*blocks, role="assistant") == [
        Reasoning("a", "sig", NATIVE),
        Reasoning("b", "sig", "p"),
        Reasoning("c"),
        Reasoning("", "data", "p", is_redacted=True),
        Reasoning("", "data", NATIVE, is_redacted=True),
    ]


@pytest.mark.parametrize("type_", ["server_tool_use", "web_search_tool_result", "search_result", "new_block"])
def test_other_blocks_are_kept_as_they_are(type_: str) -> None:
    block = {"type": type_, "x": [1]}
    assert parts(block, role="assistant") == [Other(type_, block)]


@pytest.mark.parametrize("source", [{"type": "content", "content": "x"}, {"type": "new"}])
def test_documents_of_other_sources_are_kept_as_they_are(source: dict[str, str]) -> None:
    block = {"type": "document", "source": source}
    assert parts(block) == [Other("document", block)]


def test_texts_without_characters_are_left_out() -> None:
    assert parts({"type": "text", "text": ""}, {"type": "text", "text": "a"}) == [Text("a")]


# Tools


def test_tools_of_the_client() -> None:
    schema = {"type": "object"}
    tools = [
        {"name": "f", "description": "d", "input_schema": schema, "cache_control": MARK, "strict": True},
        {"type": "custom", "name": "g", "input_schema": schema, "defer_loading": True},
    ]
    read_ = read(tools=tools)
    assert read_.tools == [
        Tool("f", "d", schema, strict=True, cache_control=MARK),
        Tool("g", None, schema, extras={"defer_loading": True}),
    ]
    assert read_.extras == {"tools.defer_loading": True}


def test_tools_of_the_server_are_extras() -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}
    read_ = read(tools=[search])
    assert (read_.tools, read_.extras) == ([], {"tools.web_search_20250305": [search]})


@pytest.mark.parametrize(
    ("choice", "expected", "parallel"),
    [
        ({"type": "auto"}, ToolChoice("auto"), None),
        ({"type": "any", "disable_parallel_tool_use": True}, ToolChoice("required"), False),
        ({"type": "none"}, ToolChoice("none"), None),
        ({"type": "tool", "name": "f", "disable_parallel_tool_use": False}, ToolChoice("tool", ("f",)), True),
    ],
)
def test_tool_choice(choice: dict[str, Any], expected: ToolChoice, parallel: bool | None) -> None:
    read_ = read(tool_choice=choice)
    assert (read_.tool_choice, read_.parallel_tool_calls) == (expected, parallel)


# Reasoning and format


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"thinking": {"type": "disabled"}}, ReasoningOptions(mode="disabled")),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2000, "display": "summarized"}},
            ReasoningOptions(mode="enabled", budget_tokens=2000, display="summarized"),
        ),
        (
            {"thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "max"}},
            ReasoningOptions("max", mode="adaptive", display="omitted"),
        ),
        ({"output_config": {"effort": "low"}}, ReasoningOptions("low")),
        ({}, None),
    ],
)
def test_reasoning_options(fields: dict[str, Any], expected: ReasoningOptions | None) -> None:
    assert read(**fields).reasoning == expected


def test_the_output_format() -> None:
    shape = {"type": "json_schema", "schema": {"type": "object"}}
    expected = OutputFormat("json_schema", schema={"type": "object"})
    assert read(output_config={"format": shape}).output == expected
    assert read(output_format=shape).output == expected


# Open lists


@pytest.mark.row(53)
def test_unknown_fields_and_values_are_extras() -> None:
    fields = {
        "context_management": {"edits": []},
        "container": "c",
        "mcp_servers": [{"type": "url"}],
        "cache_control": MARK,
        "new_field": 1,
        "thinking": {"type": "between_tools"},
        "service_tier": "new",
    }
    read_ = read(**fields, output_config={"task_budget": {"total": 1}}, new_null=None)
    assert read_.extras == {**fields, "output_config.task_budget": {"total": 1}}


# Wrong types


@pytest.mark.row(52)
@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"model": None}, "model", "is missing"),
        ({"max_tokens": None}, "max_tokens", "is missing"),
        ({"max_tokens": "9"}, "max_tokens", "must be a whole number"),
        ({"max_tokens": True}, "max_tokens", "must be a whole number"),
        ({"max_tokens": 0}, "max_tokens", "must be at least 1"),
        ({"messages": None}, "messages", "is missing"),
        ({"messages": []}, "messages", "must have at least one message"),
        ({"messages": {}}, "messages", "must be a list"),
        ({"messages": ["x"]}, "messages.0", "must be an object"),
        ({"messages": [{"content": "x"}]}, "messages.0.role", "is missing"),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "messages.0.role",
            "must be `user`, `assistant` or `system`",
        ),
        ({"messages": [USER, {"role": "user"}]}, "messages.1.content", "is missing"),
        (
            {"messages": [{"role": "user", "content": 1}]},
            "messages.0.content",
            "must be a string or a list of content blocks",
        ),
        ({"messages": [{"role": "system"}]}, "messages.0.content", "is missing"),
        ({"system": 1}, "system", "must be a string or a list of content blocks"),
        ({"system": [{"type": "text"}]}, "system.0.text", "is missing"),
        ({"stream": "yes"}, "stream", "must be true or false"),
        ({"temperature": "hot"}, "temperature", "must be a number"),
        ({"stop_sequences": "END"}, "stop_sequences", "must be a list"),
        ({"stop_sequences": ["a", 1]}, "stop_sequences.1", "must be a string"),
        ({"tools": {}}, "tools", "must be a list"),
        ({"tools": [{"input_schema": {}}]}, "tools.0.name", "is missing"),
        ({"tools": [{"name": "f"}]}, "tools.0.input_schema", "is missing"),
        ({"tools": [{"name": "f", "input_schema": []}]}, "tools.0.input_schema", "must be an object"),
        ({"tool_choice": "auto"}, "tool_choice", "must be an object"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name", "is missing"),
        (
            {"tool_choice": {"type": "x"}},
            "tool_choice.type",
            "must be `auto`, `any`, `tool` or `none`",
        ),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens", "is missing"),
        ({"thinking": True}, "thinking", "must be an object"),
        ({"output_config": []}, "output_config", "must be an object"),
        ({"output_config": {"format": {}}}, "output_config.format.type", "is missing"),
        ({"metadata": "x"}, "metadata", "must be an object"),
    ],
)
def test_wrong_types_are_named_by_their_paths(fields: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(**fields)
    assert caught.value.param == param
    assert caught.value.message == f"The parameter `{param}` {message}"


@pytest.mark.row(52)
@pytest.mark.parametrize(
    ("block", "field"),
    [
        ("x", ""),
        ({}, ".type"),
        ({"type": 1}, ".type"),
        ({"type": "text", "text": 1}, ".text"),
        ({"type": "tool_use", "id": "a", "name": "f", "input": "{}"}, ".input"),
        ({"type": "tool_use", "name": "f", "input": {}}, ".id"),
        ({"type": "tool_use", "id": "a", "input": {}}, ".name"),
        ({"type": "tool_result"}, ".tool_use_id"),
        ({"type": "tool_result", "tool_use_id": "a", "content": 1}, ".content"),
        ({"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text"}]}, ".content.0.text"),
        ({"type": "tool_result", "tool_use_id": "a", "is_error": "yes"}, ".is_error"),
        ({"type": "image"}, ".source"),
        ({"type": "image", "source": {"type": "base64", "data": "x"}}, ".source.media_type"),
        ({"type": "document", "source": {"type": "url"}}, ".source.url"),
        ({"type": "thinking", "thinking": 1}, ".thinking"),
        ({"type": "redacted_thinking"}, ".data"),
    ],
)
def test_wrong_blocks_are_named_by_their_paths(block: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(messages=[USER, {"role": "user", "content": [block]}])
    assert caught.value.param == f"messages.1.content.0{field}"
