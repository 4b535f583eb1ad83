"""A client's Responses request -> a conversation."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.translation.conversation import (
    Audio,
    Conversation,
    Document,
    Image,
    Other,
    OutputFormat,
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
from sanic_proxy.translation.responses import ResponsesFormat
from sanic_proxy.translation.signatures import wrapped

Json = dict[str, Any]

FORMAT = ResponsesFormat()
# What Codex 0.171 sends, without its prose.
CODEX: Json = json.loads((Path(__file__).parent / "codex.json").read_text("utf-8"))
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}}


def read(input_: Any = "hello", **fields: Any) -> Conversation:
    return FORMAT.read_request({"model": "m", "input": input_, **fields})


def turns_of(*items: Json) -> list[Turn]:
    return read(list(items)).turns


def call(id_: str, name: str = "f", **fields: Any) -> Json:
    return {"type": "function_call", "call_id": id_, "name": name, "arguments": "{}", **fields}


def output(id_: str, value: Any = "out") -> Json:
    return {"type": "function_call_output", "call_id": id_, "output": value}


def message(role: str, text: str, **fields: Any) -> Json:
    return {"role": role, "content": text, **fields}


# Messages


def test_a_string_is_a_message_of_the_user() -> None:
    assert read("hello").turns == [Turn("user", [Text("hello")])]


def test_instructions_are_the_first_system_message() -> None:
    assert read("x", instructions="Be brief").turns[0] == Turn("system", [Text("Be brief")])


@pytest.mark.parametrize("type_", [{}, {"type": "message"}])
@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
def test_messages_keep_their_roles(role: Any, type_: Json) -> None:
    assert turns_of({"role": role, "content": "x", **type_}) == [Turn(role, [Text("x")])]


def test_all_kinds_of_parts_are_read() -> None:
    parts: list[Json] = [
        {"type": "input_text", "text": "a"},
        {"type": "input_image", "image_url": "https://x/y.png", "detail": "high"},
        {"type": "input_image", "file_id": "file_1"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,QQ==", "filename": "a.pdf"},
        {"type": "input_file", "file_data": "QQ==", "filename": "a.txt"},
        {"type": "input_file", "file_url": "https://x/y.pdf"},
        {"type": "input_file", "file_id": "file_2"},
        {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}},
        {"type": "input_hologram", "data": 1},
    ]
    (turn,) = turns_of({"role": "user", "content": parts})
    assert turn.parts == [
        Text("a"),
        Image("https://x/y.png", detail="high"),
        Image(file_id="file_1"),
        Document("data:application/pdf;base64,QQ==", name="a.pdf"),
        Document("data:text/plain;base64,QQ==", name="a.txt"),
        Document("https://x/y.pdf"),
        Document(file_id="file_2"),
        Audio("QQ==", "wav"),
        Other("input_hologram", parts[-1]),
    ]


def test_the_model_s_own_messages_are_read() -> None:
    content = [
        {"type": "output_text", "text": "a", "annotations": [{"type": "url_citation"}]},
        {"type": "refusal", "refusal": "no"},
    ]
    (turn,) = turns_of({"type": "message", "role": "assistant", "content": content, "phase": "commentary"})
    assert turn.parts == [Text("a", annotations=[{"type": "url_citation"}]), Refusal("no")]
    assert turn.phase == "commentary"


# The history of calls


def test_two_calls_at_once_are_one_turn_and_their_results_another() -> None:
    turns = turns_of(
        message("user", "x"), call("c1"), call("c2"), output("c1"), output("c2"), message("user", "y")
    )
    assert [turn.role for turn in turns] == ["user", "assistant", "tool", "user"]
    assert [part.id for part in turns[1].parts if isinstance(part, ToolCall)] == ["c1", "c2"]
    assert [part.call_id for part in turns[2].parts if isinstance(part, ToolResult)] == ["c1", "c2"]


@pytest.mark.parametrize("role", ["assistant", "user", "developer"])
def test_text_between_a_call_and_its_result_does_not_separate_them(role: str) -> None:
    turns = turns_of(call("c1"), message(role, "text"), output("c1"), message("user", "y"))
    roles = [turn.role for turn in turns]
    assert roles[roles.index("assistant") + 1] == "tool"
    assert roles.count("tool") == 1
    assert any(part == Text("text") for turn in turns for part in turn.parts)


def test_reasoning_text_and_calls_of_one_answer_are_one_turn() -> None:
    turns = turns_of(
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "s"}]},
        message("assistant", "a", phase="commentary"),
        call("c1"),
        output("c1"),
        message("assistant", "b", phase="final_answer"),
    )
    assert [turn.role for turn in turns] == ["assistant", "tool", "assistant"]
    assert turns[0].parts[0] == Reasoning("s", is_summary=True, id="rs_1")
    assert [turn.phase for turn in turns] == ["commentary", None, "final_answer"]


def test_messages_of_different_phases_are_different_turns() -> None:
    turns = turns_of(
        message("assistant", "a", phase="commentary"), message("assistant", "b", phase="final_answer")
    )
    assert [turn.phase for turn in turns] == ["commentary", "final_answer"]


def test_custom_tools_and_searches_for_tools_are_read() -> None:
    found = {"type": "function", "name": "late", "parameters": {}}
    conversation = read(
        [
            {"type": "custom_tool_call", "call_id": "c1", "name": "apply_patch", "input": "*** Begin"},
            {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"},
            {"type": "tool_search_call", "call_id": "c2", "execution": "client", "arguments": {"query": "x"}},
            {"type": "tool_search_output", "call_id": "c2", "execution": "client", "tools": [found]},
            call("c3", "late", namespace="ns"),
        ]
    )
    assert conversation.turns == [
        Turn("assistant", [ToolCall("c1", "apply_patch", "*** Begin", "custom")]),
        Turn("tool", [ToolResult("c1", [Text("done")], kind="custom")]),
        Turn("assistant", [ToolCall("c2", "tool_search", '{"query":"x"}', "tool_search")]),
        Turn(
            "tool", [ToolResult("c2", [Text(json.dumps([found], separators=(",", ":")))], kind="tool_search")]
        ),
        Turn("assistant", [ToolCall("c3", "late", "{}", namespace="ns")]),
    ]
    assert [tool.name for tool in conversation.tools] == ["late"]


def test_a_result_may_hold_images() -> None:
    (turn,) = turns_of(output("c", [{"type": "input_image", "image_url": "data:image/png;base64,QQ=="}]))
    assert turn == Turn("tool", [ToolResult("c", [Image("data:image/png;base64,QQ==")])])


def test_arguments_are_the_text_of_the_model() -> None:
    (turn,) = turns_of(call("c", arguments='{"cut'))
    assert turn.parts == [ToolCall("c", "f", '{"cut')]


# Reasoning


def test_a_signature_of_ours_names_its_origin() -> None:
    (turn,) = turns_of(
        {
            "type": "reasoning",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "raw"}],
            "encrypted_content": wrapped("anthropic", "sig"),
        }
    )
    assert turn.parts == [Reasoning("raw", "sig", "anthropic")]


def test_a_foreign_signature_belongs_to_no_provider() -> None:
    (turn,) = turns_of({"type": "reasoning", "summary": [], "encrypted_content": "gAAA"})
    (part,) = turn.parts
    assert isinstance(part, Reasoning)
    assert part.signature == "gAAA"
    assert part.origin == "responses:"


# Other items


def test_items_that_only_responses_has_are_kept_apart() -> None:
    kinds = ["web_search_call", "local_shell_call", "local_shell_call_output", "mcp_call", "future_call"]
    (user, turn) = turns_of(message("user", "x"), *({"type": kind, "id": "1"} for kind in kinds))
    assert user.role == "user"
    assert [part.type for part in turn.parts if isinstance(part, Other)] == kinds


def test_additional_tools_join_the_tools() -> None:
    namespace = {"type": "namespace", "name": "ns", "description": "d", "tools": [FUNCTION]}
    item = {"type": "additional_tools", "role": "developer", "tools": [namespace]}
    conversation = read([item, message("user", "x")], tools=[{**FUNCTION, "name": "g"}])
    assert [(tool.namespace, tool.name) for tool in conversation.tools] == [(None, "g"), ("ns", "f")]
    assert len(conversation.turns) == 1


def test_references_to_stored_items_are_refused_unless_they_can_be_missed() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read([{"type": "item_reference", "id": "msg_1"}, message("user", "x")])
    assert caught.value.param == "input.0.id"
    assert "input.item_reference" in read([{"id": "rs_1"}, message("user", "x")]).extras


# Tools


def test_all_kinds_of_tools_are_read() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /x/"}
    conversation = read(
        tools=[
            {**FUNCTION, "description": "d", "strict": False},
            {"type": "custom", "name": "c", "description": "d", "format": grammar},
            {"type": "namespace", "name": "ns", "description": "group", "tools": [FUNCTION]},
            {"type": "tool_search", "execution": "client", "description": "d", "parameters": {}},
            {"type": "tool_search", "execution": "server"},
            {"type": "web_search", "external_web_access": False},
        ]
    )
    assert conversation.tools == [
        Tool("f", "d", {"type": "object"}, strict=False),
        Tool("c", "d", kind="custom", format=grammar),
        Tool("f", None, {"type": "object"}, namespace="ns", namespace_description="group"),
        Tool("tool_search", "d", {}, kind="tool_search"),
    ]
    assert set(conversation.extras) == {"tools.web_search", "tools.tool_search"}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, None),
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ({"type": "function", "name": "f"}, ToolChoice("tool", ("f",))),
        ({"type": "custom", "name": "c"}, ToolChoice("tool", ("c",))),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
            ToolChoice("auto", ("f",)),
        ),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "namespace", "name": "ns"}]},
            ToolChoice("required", ("g",)),
        ),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "web_search"}]}, ToolChoice("none")),
        ({"type": "web_search_preview"}, None),
    ],
)
def test_the_choice_of_tools(choice: Any, expected: ToolChoice | None) -> None:
    namespace = {"type": "namespace", "name": "ns", "description": "", "tools": [{**FUNCTION, "name": "g"}]}
    assert read(tools=[FUNCTION, namespace], tool_choice=choice).tool_choice == expected


def test_a_choice_that_cannot_be_kept_is_named() -> None:
    assert "tool_choice" in read(tool_choice={"type": "file_search"}).extras


# Settings


def test_settings_are_read() -> None:
    schema = {"type": "object"}
    conversation = read(
        stream=True,
        max_output_tokens=100,
        temperature=0.5,
        top_p=1,
        top_logprobs=2,
        parallel_tool_calls=False,
        reasoning={"effort": "high", "summary": "auto"},
        text={
            "format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True},
            "verbosity": "low",
        },
        metadata={"a": "b"},
        prompt_cache_key="k",
        safety_identifier="s",
        user="u",
        service_tier="flex",
    )
    assert conversation.is_streaming
    assert conversation.max_tokens == 100
    assert conversation.temperature == 0.5
    assert conversation.top_p == 1
    assert conversation.top_logprobs == 2
    assert conversation.parallel_tool_calls is False
    assert conversation.reasoning == ReasoningOptions("high", summary="auto")
    assert conversation.output == OutputFormat("json_schema", "n", schema, True)
    assert conversation.verbosity == "low"
    assert conversation.metadata == {"a": "b"}
    assert conversation.prompt_cache_key == "k"
    assert conversation.user == "s"
    assert conversation.service_tier == "flex"
    assert conversation.extras == {}


def test_what_holds_anyway_is_not_dropped() -> None:
    conversation = read(
        store=False,
        background=False,
        truncation="disabled",
        include=["reasoning.encrypted_content"],
        previous_response_id=None,
        stream_options={"include_obfuscation": False},
    )
    assert conversation.extras == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("store", True),
        ("truncation", "auto"),
        ("include", ["message.output_text.logprobs"]),
        ("client_metadata", {"a": 1}),
        ("max_tool_calls", 3),
        ("some_new_field", [1]),
    ],
)
def test_what_has_no_counterpart_is_named(field: str, value: Any) -> None:
    assert read(**{field: value}).extras == {field: value}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("previous_response_id", "resp_1"),
        ("conversation", "conv_1"),
        ("conversation", {"id": "conv_1"}),
        ("background", True),
        ("prompt", {"id": "pmpt_1"}),
    ],
)
def test_what_needs_a_store_is_refused(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match="stored responses") as caught:
        read(**{field: value})
    assert caught.value.param == field


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"input": 1}, "input"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": ["x"]}, "input.0"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input.0.role"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input.0.content.0.text"),
        ({"input": [{"role": "user", "content": 5}]}, "input.0.content"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content.0.image_url"),
        ({"input": ["x", 1]}, "input.0"),
        ({"input": [call("c"), {**call("c"), "call_id": 5}]}, "input.1.call_id"),
        ({"input": [{**call("c"), "arguments": {}}]}, "input.0.arguments"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input.0.output"),
        ({"input": [{"type": "reasoning", "summary": [{"text": 5}]}]}, "input.0.summary.0.text"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools.0.name"),
        ({"tools": [{"type": "function", "name": "f", "parameters": []}]}, "tools.0.parameters"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": 1}]}]}, "tools.0.tools.0.type"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_output_tokens": 1.5}, "max_output_tokens"),
        ({"max_output_tokens": True}, "max_output_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"reasoning": "much"}, "reasoning"),
        ({"reasoning": {"effort": 1}}, "reasoning.effort"),
        ({"background": "yes"}, "background"),
    ],
)
def test_wrong_types_name_their_place(fields: Json, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        FORMAT.read_request({"model": "m", "input": "x", **fields})
    assert caught.value.param == param


# Codex


def test_codex_s_own_request_is_read() -> None:
    conversation = FORMAT.read_request(CODEX)
    assert [turn.role for turn in conversation.turns] == ["developer", "developer", "user", "user"]
    assert {tool.name: tool.kind for tool in conversation.tools} == {
        "exec_command": "function",
        "write_stdin": "function",
        "request_user_input": "function",
        "apply_patch": "custom",
        "view_image": "function",
        "get_goal": "function",
        "create_goal": "function",
        "update_goal": "function",
        "tool_search": "tool_search",
    }
    assert conversation.reasoning == ReasoningOptions("medium")
    assert conversation.verbosity == "low"
    assert conversation.is_streaming
    assert set(conversation.extras) == {"client_metadata", "tools.web_search"}


# Arbitrary requests


KEYS = """type role content call_id name arguments input output text image_url summary encrypted_content tools
namespace execution id phase refusal input_audio format file_data parameters description"""
WORDS = """message function_call function_call_output custom_tool_call tool_search_call tool_search_output
reasoning additional_tools compaction item_reference input_text input_image input_file input_audio refusal
function custom namespace tool_search web_search client user assistant"""
FIELDS = """instructions tools tool_choice reasoning text metadata stream store include temperature
max_output_tokens user service_tier parallel_tool_calls whatever"""

values = st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=3) | st.just([1])
leaves = st.dictionaries(st.sampled_from(KEYS.split()), values | st.sampled_from(WORDS.split()), max_size=5)
objects = st.recursive(
    leaves,
    lambda inner: st.dictionaries(
        st.sampled_from(KEYS.split()),
        inner | st.lists(inner, max_size=3) | st.sampled_from(WORDS.split()),
        max_size=5,
    ),
    max_leaves=6,
)
fields_of_requests = st.fixed_dictionaries(
    {"model": st.just("m") | values, "input": st.lists(objects, max_size=4) | values},
    optional={name: objects | st.lists(objects, max_size=3) | values for name in FIELDS.split()},
)


@given(fields_of_requests)
def test_any_json_is_read_or_refused(fields: Json) -> None:
    before = json.dumps(fields)
    with suppress(InvalidRequest):
        FORMAT.read_request(fields)
    assert json.dumps(fields) == before
