"""The middle shape -> chat requests."""

from __future__ import annotations

from dataclasses import replace
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
from sanic_proxy.translation.format import WrittenRequest
from tests.support.chat_translation import CHAT, TARGET, conversation

USER = Turn("user", [Text("hi")])
MARK = {"type": "ephemeral"}


def written(*turns: Turn, **fields: Any) -> WrittenRequest:
    return CHAT.write_request(conversation(*(turns or [USER]), **fields), TARGET)


def messages(*turns: Turn) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = written(*turns).fields["messages"]
    return made


def result(call_id: str, *parts: Part | str, **fields: Any) -> ToolResult:
    content: list[Part] = [Text(part) if isinstance(part, str) else part for part in parts]
    return ToolResult(call_id, content, **fields)


def tool_message(call_id: str, text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


# System messages.


def test_system_messages_are_joined_into_the_first() -> None:
    made = written(
        Turn("system", [Text("a"), Text("b")]),
        USER,
        Turn("developer", [Text("c")]),
        Turn("user", [Text("d")]),
    )
    assert made.fields["messages"] == [
        {"role": "system", "content": "a\n\nb\n\nc"},
        {"role": "user", "content": "hi"},
        {"role": "user", "content": "d"},
    ]
    assert made.dropped == ["messages.system.position"]


def test_system_messages_in_front_lose_nothing() -> None:
    assert not written(Turn("system", [Text("a")]), Turn("developer", [Text("b")]), USER).dropped


def test_system_messages_stay_in_place_where_the_target_allows_it() -> None:
    wanted = conversation(Turn("developer", [Text("a")]), USER, Turn("system", [Text("b")]))
    made = CHAT.write_request(wanted, replace(TARGET, hoists_system=False))
    assert [(message["role"], message["content"]) for message in made.fields["messages"]] == [
        ("system", "a"),
        ("user", "hi"),
        ("system", "b"),
    ]
    assert not made.dropped


# Calls and results.


def test_each_result_is_a_message_behind_the_calls() -> None:
    calls: list[Part] = [ToolCall("a", "f", '{"x": 1}'), ToolCall("b", "g", "")]
    made = messages(
        USER,
        Turn("assistant", [Text("Let me see."), *calls]),
        Turn("tool", [result("b", "two"), result("a", "one", "more")]),
    )
    assert made[1:] == [
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
                {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ],
        },
        tool_message("a", "one\n\nmore"),
        tool_message("b", "two"),
    ]


def test_neighbouring_turns_of_the_model_are_one_message() -> None:
    made = messages(
        USER,
        Turn("assistant", [ToolCall("a", "f", "{}")]),
        Turn("assistant", [Text("And now")]),
        Turn("assistant", [ToolCall("b", "f", "{}")]),
        Turn("tool", [result("a", "1"), result("b", "2")]),
    )
    assert [message["role"] for message in made] == ["user", "assistant", "tool", "tool"]
    assert [call["id"] for call in made[1]["tool_calls"]] == ["a", "b"]
    assert made[1]["content"] == "And now"


def test_text_between_a_call_and_its_result_follows_the_result() -> None:
    made = messages(
        USER,
        Turn("assistant", [ToolCall("a", "f", "{}")]),
        Turn("user", [Text("quick!")]),
        Turn("tool", [result("a", "1")]),
    )
    assert [message["role"] for message in made] == ["user", "assistant", "tool", "user"]


def test_a_hoisted_system_message_does_not_part_calls() -> None:
    made = messages(
        Turn("assistant", [ToolCall("a", "f", "{}")]),
        Turn("system", [Text("s")]),
        Turn("assistant", [ToolCall("b", "f", "{}")]),
        Turn("tool", [result("a"), result("b")]),
    )
    assert [message["role"] for message in made] == ["system", "assistant", "tool", "tool"]


def test_a_call_without_a_result_gets_an_empty_one() -> None:
    made = messages(Turn("assistant", [ToolCall("a", "f", "{}")]), USER)
    assert made[1:] == [tool_message("a", ""), {"role": "user", "content": "hi"}]


def test_a_result_without_a_call_is_a_message_of_the_user() -> None:
    made = written(Turn("tool", [result("a", "1")]), USER)
    assert made.fields["messages"][0] == {"role": "user", "content": "Result of the tool call `a`:\n1"}
    assert made.dropped == ["messages.tool_result.call_id"]


def test_a_result_before_its_call_is_not_the_result_of_that_call() -> None:
    made = messages(Turn("tool", [result("a", "1")]), Turn("assistant", [ToolCall("a", "f", "{}")]))
    assert [message["role"] for message in made] == ["user", "assistant", "tool"]
    assert made[2]["content"] == ""


def test_texts_of_two_turns_of_the_model_are_paragraphs() -> None:
    assert messages(Turn("assistant", [Text("a")]), Turn("assistant", [Text("b")]))[0]["content"] == "a\n\nb"


def test_ids_that_return_in_later_turns_keep_their_results() -> None:
    turns: list[Turn] = []
    for text in ("1", "2"):
        turns += [Turn("assistant", [ToolCall("call_0", "f", "{}")]), Turn("tool", [result("call_0", text)])]
    assert [message["content"] for message in messages(*turns)] == [None, "1", None, "2"]


def test_a_long_id_is_replaced_for_the_call_and_its_result() -> None:
    long = "toolu_" + "x" * 60
    made = messages(Turn("assistant", [ToolCall(long, "f", "{}")]), Turn("tool", [result(long, "1")]))
    short = made[0]["tool_calls"][0]["id"]
    assert len(short) <= 40
    assert made[1] == tool_message(short, "1")


def test_images_of_results_follow_all_results() -> None:
    image = Image("data:image/png;base64,YQ==")
    calls: list[Part] = [ToolCall("a", "f", "{}"), ToolCall("b", "f", "{}")]
    made = messages(
        Turn("assistant", calls), Turn("tool", [result("a", image), result("b", "two", image)]), USER
    )
    part = {"type": "image_url", "image_url": {"url": image.url}}
    assert made[1:4] == [
        tool_message("a", "The content of this result is in the next message of the user."),
        tool_message("b", "two"),
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Content of the result of the tool call `a`:"},
                part,
                {"type": "text", "text": "Content of the result of the tool call `b`:"},
                part,
            ],
        },
    ]


def test_a_result_that_is_an_error_says_so() -> None:
    made = messages(
        Turn("assistant", [ToolCall("a", "f", "{}")]), Turn("tool", [result("a", "x", is_error=True)])
    )
    assert made[1] == tool_message("a", "Error: x")


def test_invalid_arguments_stay_as_they_are() -> None:
    made = messages(Turn("assistant", [ToolCall("a", "f", '{"x": ')]))
    assert made[0]["tool_calls"][0]["function"]["arguments"] == '{"x": '


# Contents.


@pytest.mark.parametrize(
    ("parts", "content", "dropped"),
    [
        ([Text("a"), Text(""), Text("b")], "a\n\nb", []),
        ([Text("a", MARK), Text("b", MARK)], "a\n\nb", ["messages.cache_control"]),
        ([Text("a", citations=[{}])], "a", ["messages.citations"]),
        ([Text("a", annotations=[{}])], "a", ["messages.annotations"]),
        (
            [Text("a"), Image("https://a/b", detail="high")],
            [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": {"url": "https://a/b", "detail": "high"}},
            ],
            [],
        ),
        (
            [Image("https://a/b", detail="original")],
            [{"type": "image_url", "image_url": {"url": "https://a/b"}}],
            ["messages.image.detail"],
        ),
        ([Text("a"), Image(file_id="file-1")], "a", ["messages.image.file_id"]),
        (
            [Audio("YQ==", "wav")],
            [{"type": "input_audio", "input_audio": {"data": "YQ==", "format": "wav"}}],
            [],
        ),
        (
            [Document("data:application/pdf;base64,YQ==", name="a.pdf", context="c")],
            [
                {
                    "type": "file",
                    "file": {"file_data": "data:application/pdf;base64,YQ==", "filename": "a.pdf"},
                }
            ],
            ["messages.document.context"],
        ),
        ([Document(file_id="file-1")], [{"type": "file", "file": {"file_id": "file-1"}}], []),
        ([Document(text="t", name="n", context="c", citations={})], "n\n\nc\n\nt", ["messages.citations"]),
        ([Document("https://a/b.pdf", name="n")], "n\n\nhttps://a/b.pdf", ["messages.document.url"]),
        ([Text("a"), Other("container_upload", {})], "a", ["messages.container_upload"]),
        ([], "", []),
    ],
)
def test_contents_of_the_user(parts: list[Part], content: Any, dropped: list[str]) -> None:
    made = written(Turn("user", parts))
    assert made.fields["messages"] == [{"role": "user", "content": content}]
    assert made.dropped == dropped


def test_texts_of_the_model_are_joined_as_they_were_divided() -> None:
    parts: list[Part] = [
        Text("It is "),
        Text("so", citations=[{}]),
        Text("."),
        ToolCall("a", "f", "{}"),
        Text("Well."),
    ]
    assert messages(Turn("assistant", parts))[0]["content"] == "It is so.\n\nWell."


def test_a_refusal_of_the_history_is_text() -> None:
    made = written(Turn("assistant", [Refusal("no")]))
    assert made.fields["messages"] == [{"role": "assistant", "content": "no"}]
    assert made.dropped == ["messages.refusal"]


def test_a_turn_of_nothing_but_dropped_parts_is_no_message() -> None:
    made = written(USER, Turn("assistant", [Reasoning("hm", "sig", "claude")], phase="commentary"), USER)
    assert [message["role"] for message in made.fields["messages"]] == ["user", "user"]
    assert made.dropped == ["messages.phase", "messages.reasoning"]


def test_names_of_messages_stay() -> None:
    assert messages(Turn("user", [Text("a")], "ann"))[0]["name"] == "ann"


def test_a_conversation_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        written(Turn("assistant", []))


# Reasoning.


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_returns_to_its_origin_by_its_name(name: str) -> None:
    made = written(
        USER,
        Turn("assistant", [Reasoning("hm", name, "acme"), ToolCall("a", "f", "{}")]),
        Turn("tool", [result("a", "1")]),
        Turn("assistant", [ToolCall("b", "f", "{}")]),
        Turn("tool", [result("b", "2")]),
    )
    _, first, _, second, _ = made.fields["messages"]
    assert first[name] == "hm"
    assert second[name] == ""  # DeepSeek demands it in every message with calls
    assert not made.dropped


def test_details_of_reasoning_return_to_their_origin() -> None:
    detail = '{"type":"reasoning.text","signature":"s","format":"anthropic-claude-v1","index":0}'
    hidden = '{"type":"reasoning.encrypted","data":"d","index":1}'
    parts: list[Part] = [
        Reasoning("hm", detail, "acme"),
        Reasoning("", hidden, "acme", is_redacted=True),
        Text("a"),
    ]
    made = messages(Turn("assistant", parts))
    assert made[0]["reasoning_details"] == [
        {
            "type": "reasoning.text",
            "signature": "s",
            "format": "anthropic-claude-v1",
            "index": 0,
            "text": "hm",
        },
        {"type": "reasoning.encrypted", "data": "d", "index": 1},
    ]


@pytest.mark.parametrize("origin", ["", "claude"])
def test_reasoning_of_another_origin_is_dropped(origin: str) -> None:
    made = written(Turn("assistant", [Reasoning("hm", "sig", origin), Text("a")]))
    assert made.fields["messages"] == [{"role": "assistant", "content": "a"}]
    assert made.dropped == ["messages.reasoning"]


# Tools.


def functions(made: WrittenRequest) -> list[dict[str, Any]]:
    return [tool["function"] for tool in made.fields["tools"]]


def test_a_function() -> None:
    made = written(tools=[Tool("f", "d", {"type": "object"}, strict=True), Tool("g", strict=False)])
    assert functions(made) == [
        {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True},
        {"name": "g", "parameters": {"type": "object", "properties": {}}},
    ]
    assert not made.originals


def test_a_custom_tool_is_a_function_with_an_input() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: X"}
    made = written(
        USER,
        Turn("assistant", [ToolCall("a", "apply", 'say "x"\n', "custom")]),
        Turn("tool", [result("a", "done", kind="custom")]),
        tools=[Tool("apply", "Patches files.", kind="custom", format=grammar)],
    )
    (function,) = functions(made)
    rule = "The string `input` must match this lark grammar:\nstart: X"
    assert function["description"] == f"Patches files.\n\n{rule}"
    assert function["parameters"]["required"] == ["input"]
    assert made.originals == {"apply": ("custom", None, "apply")}
    call = made.fields["messages"][1]["tool_calls"][0]
    assert call["function"] == {"name": "apply", "arguments": '{"input":"say \\"x\\"\\n"}'}


def test_a_search_of_tools_is_a_function() -> None:
    made = written(tools=[Tool("tool_search", "d", {"type": "object"}, kind="tool_search")])
    assert functions(made)[0]["name"] == "tool_search"
    assert made.originals == {"tool_search": ("tool_search", None, "tool_search")}


def test_tools_of_a_namespace_have_flat_names_in_the_history_too() -> None:
    made = written(
        Turn("assistant", [ToolCall("a", "read", "{}", namespace="mcp__files")]),
        tools=[Tool("read", namespace="mcp__files")],
        tool_choice=ToolChoice("tool", ("read",)),
    )
    assert functions(made)[0]["name"] == "mcp__files__read"
    assert made.originals == {"mcp__files__read": ("function", "mcp__files", "read")}
    assert made.fields["messages"][0]["tool_calls"][0]["function"]["name"] == "mcp__files__read"
    assert made.fields["tool_choice"] == {"type": "function", "function": {"name": "mcp__files__read"}}


def test_a_namespace_is_described_with_its_first_tool() -> None:
    names = ["read", "write"]
    made = written(
        tools=[
            Tool(name, "d", namespace="files", namespace_description="Files of the user.") for name in names
        ]
    )
    assert [function["description"] for function in functions(made)] == [
        "All tools `files__*`: Files of the user.\n\nd",
        "d",
    ]


def test_long_names_end_in_a_hash() -> None:
    names = ["x" * 70 + "1", "x" * 70 + "2"]
    made = written(tools=[Tool(name) for name in names])
    short = [function["name"] for function in functions(made)]
    assert len(set(short)) == 2
    assert {len(name) for name in short} == {64}
    assert made.originals == {flat: ("function", None, name) for flat, name in zip(short, names, strict=True)}


def test_other_characters_of_names_are_replaced() -> None:
    made = written(tools=[Tool("files.read")])
    assert made.originals == {"files_read_601e4eb6": ("function", None, "files.read")}


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        written(tools=[Tool("b__c", namespace="a"), Tool("c", namespace="a__b")])
    assert "`b__c` (namespace `a`)" in caught.value.message
    assert "`c` (namespace `a__b`)" in caught.value.message
    assert caught.value.param == "tools"


def test_the_same_tool_twice_is_one() -> None:
    assert len(functions(written(tools=[Tool("f"), Tool("f")]))) == 1


@pytest.mark.parametrize(
    ("choice", "names", "value"),
    [
        (None, ["f", "g"], None),
        (ToolChoice("auto"), ["f", "g"], "auto"),
        (ToolChoice("none"), ["f", "g"], "none"),
        (ToolChoice("required"), ["f", "g"], "required"),
        (ToolChoice("tool", ("g",)), ["f", "g"], {"type": "function", "function": {"name": "g"}}),
        (ToolChoice("required", ("g", "x")), ["g"], "required"),
        (ToolChoice("auto", ("f",)), ["f"], "auto"),
    ],
)
def test_choices_of_tools(choice: ToolChoice | None, names: list[str], value: Any) -> None:
    made = written(tools=[Tool("f"), Tool("g")], tool_choice=choice)
    assert [function["name"] for function in functions(made)] == names
    assert made.fields.get("tool_choice") == value


def test_a_choice_of_an_unknown_tool_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        written(tools=[Tool("f")], tool_choice=ToolChoice("tool", ("g",)))
    assert caught.value.param == "tool_choice"


def test_without_tools_there_is_no_choice_of_them() -> None:
    made = written(tool_choice=ToolChoice("auto"), parallel_tool_calls=True)
    assert made.fields.keys() == {"model", "messages"}


def test_marks_of_tools_are_dropped() -> None:
    assert written(tools=[Tool("f", cache_control=MARK)]).dropped == ["tools.cache_control"]


# Other fields.

SCHEMA = OutputFormat("json_schema", "my schema", {"type": "object"}, strict=True)
FIELDS: list[tuple[dict[str, Any], dict[str, Any], list[str]]] = [
    ({"max_tokens": 5}, {"max_tokens": 5}, []),
    ({"temperature": 0, "top_p": 0.5, "seed": 1}, {"temperature": 0, "top_p": 0.5, "seed": 1}, []),
    ({"top_k": 5}, {}, ["top_k"]),
    ({"stop": list("abcde")}, {"stop": list("abcd")}, ["stop"]),
    ({"top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}, []),
    ({"is_streaming": True}, {"stream": True, "stream_options": {"include_usage": True}}, []),
    ({"user": "ann"}, {"user": "ann"}, []),
    ({"metadata": {"a": "b"}}, {}, ["metadata"]),
    ({"metadata": {}}, {}, []),
    (
        {"prompt_cache_key": "k", "verbosity": "low", "service_tier": "flex"},
        {},
        ["prompt_cache_key", "service_tier", "verbosity"],
    ),
    ({"extras": {"container": 1, "tools.web_search": {}}}, {}, ["container", "tools.web_search"]),
    (
        {"reasoning": ReasoningOptions("xhigh", summary="auto")},
        {"reasoning_effort": "xhigh"},
        ["reasoning.summary"],
    ),
    ({"reasoning": ReasoningOptions(None, 1024, "enabled")}, {"reasoning_effort": "low"}, []),
    ({"reasoning": ReasoningOptions(None, 4096, "enabled")}, {"reasoning_effort": "medium"}, []),
    ({"reasoning": ReasoningOptions(None, 16384, "enabled")}, {"reasoning_effort": "high"}, []),
    ({"reasoning": ReasoningOptions(mode="adaptive", display="omitted")}, {}, ["reasoning.display"]),
    ({"reasoning": ReasoningOptions(mode="disabled")}, {}, ["reasoning.mode"]),
    ({"output": OutputFormat("text")}, {}, []),
    ({"output": OutputFormat("json_object")}, {"response_format": {"type": "json_object"}}, []),
    (
        {"output": SCHEMA},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "my_schema", "schema": {"type": "object"}, "strict": True},
            }
        },
        ["output.name"],
    ),
    (
        {"output": OutputFormat("json_schema", schema={})},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {}}}},
        [],
    ),
]


@pytest.mark.parametrize(("fields", "expected", "dropped"), FIELDS)
def test_fields(fields: dict[str, Any], expected: dict[str, Any], dropped: list[str]) -> None:
    made = written(**fields)
    assert made.fields == {"model": "acme-1", "messages": [{"role": "user", "content": "hi"}], **expected}
    assert made.dropped == dropped


def test_the_target_decides_on_names_and_usage() -> None:
    target = replace(
        TARGET, limit_field="max_completion_tokens", omitted_fields=frozenset({"user"}), stream_usage=False
    )
    wanted = Conversation("m", [USER], is_streaming=True, max_tokens=5, verbosity="low", user="ann")
    made = CHAT.write_request(wanted, target)
    assert made.fields.keys() == {"model", "messages", "max_completion_tokens", "verbosity", "stream"}
    assert made.dropped == ["user"]


def test_the_id_of_an_end_user_is_bounded() -> None:
    user = '{"device_id":"' + "x" * 100 + '"}'
    made = written(user=user).fields["user"]
    assert len(made) == 64
    assert made == written(user=user).fields["user"]
    assert made != written(user=user + " ").fields["user"]


def test_several_answers_are_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        written(extras={"n": 2})
    assert caught.value.param == "n"
