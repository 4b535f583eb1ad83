"""A conversation -> a Messages request, judged by Anthropic's types."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.translation import signatures
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
    Role,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)
from sanic_proxy.translation.format import TargetTraits, WrittenRequest
from sanic_proxy.translation.messages import MessagesFormat
from tests.support.messages import UNHURRIED, check_request

FORMAT = MessagesFormat()
TARGET = TargetTraits("anthropic", "claude")
IN_PLACE = replace(TARGET, hoists_system=False)
SAMPLING = replace(TARGET, takes_sampling=True)
BUDGET = replace(TARGET, thinking="budget", max_tokens=64_000)
USER = Turn("user", [Text("hello")])
MARK = {"type": "ephemeral"}
SCHEMA = {"type": "object", "properties": {}}


def written(conversation: Conversation, target: TargetTraits = TARGET) -> WrittenRequest:
    request = FORMAT.write_request(conversation, target)
    check_request(request.fields)
    return request


def of_turns(*turns: Turn, target: TargetTraits = TARGET, **fields: Any) -> WrittenRequest:
    return written(Conversation("asked", list(turns), **fields), target)


def messages(*turns: Turn, **fields: Any) -> Any:
    return of_turns(*turns, **fields).fields["messages"]


def turn(role: Role, *parts: Part | str) -> Turn:
    return Turn(role, [Text(part) if isinstance(part, str) else part for part in parts])


def user_blocks(*parts: Part) -> Any:
    (message,) = messages(Turn("user", list(parts)))
    return message["content"]


def test_a_plain_request() -> None:
    assert of_turns(USER).fields == {
        "model": "claude",
        "max_tokens": 8192,
        "messages": [{"role": "user", "content": "hello"}],
    }


# Roles and their order


def test_leading_system_messages_are_the_system_prompt() -> None:
    request = of_turns(turn("system", "a"), turn("developer", "b"), USER)
    assert request.fields["system"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert request.dropped == ()
    assert of_turns(turn("system", "a"), USER).fields["system"] == "a"


def test_later_system_messages_join_the_system_prompt() -> None:
    request = of_turns(turn("system", "a"), USER, turn("system", "b"))
    assert request.fields["system"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert request.dropped == ("messages.system.position",)


def test_later_system_messages_stand_where_the_api_takes_them() -> None:
    request = of_turns(
        turn("system", "a"),
        USER,
        turn("system", "b"),
        turn("developer", "c"),
        turn("assistant", "d"),
        turn("system", "e"),
        turn("user", "f"),
        target=IN_PLACE,
    )
    assert request.fields["system"] == "a"
    assert [message["role"] for message in request.fields["messages"]] == [
        "user",
        "system",
        "assistant",
        "user",
        "system",
    ]
    assert request.fields["messages"][-1] == {"role": "system", "content": "e"}
    assert request.dropped == ()


def test_a_system_message_without_a_place_joins_the_system_prompt() -> None:
    request = of_turns(USER, turn("assistant", "a"), turn("system", "b"), target=IN_PLACE)
    assert request.fields["system"] == "b"
    assert request.dropped == ("messages.system.position",)


def test_a_system_messages_own_fields_stay_with_it() -> None:
    system = Turn("system", [Text("a")], extras={"output_config": {"effort": "low"}})
    request = FORMAT.write_request(Conversation("m", [USER, system]), IN_PLACE)
    assert request.fields["messages"][1] == {
        "role": "system",
        "content": "a",
        "output_config": {"effort": "low"},
    }
    assert "messages.output_config" in of_turns(USER, system).dropped


def test_neighbours_of_one_role_are_one_message() -> None:
    assert [
        message["role"]
        for message in messages(USER, USER, turn("assistant", "a"), turn("assistant", "b"), USER)
    ] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([turn("assistant", "a"), USER], [".", "a", "hello"]),
        ([turn("system", "a")], ["a"]),
        ([], ["."]),
        ([turn("user", " ")], ["."]),
    ],
)
def test_a_conversation_begins_with_the_user(turns: list[Turn], expected: list[str]) -> None:
    assert [message["content"] for message in messages(*turns)] == expected


def test_a_prefill_is_kept_without_white_space_behind_it() -> None:
    assert messages(USER, turn("assistant", "{ \n"))[-1] == {"role": "assistant", "content": "{"}


def test_blank_texts_are_left_out() -> None:
    assert messages(turn("user", " ", "a", "\n"))[0]["content"] == "a"


# Tools in the history

CALLS = turn("assistant", ToolCall("a", "f", "{}"), ToolCall("b", "f", '{"x": 1}'))
RESULT_A = turn("tool", ToolResult("a", [Text("1")]))
RESULT_B = turn("tool", ToolResult("b", [Text("2")], is_error=True))


@pytest.mark.parametrize(
    "turns",
    [
        [CALLS, RESULT_A, RESULT_B, turn("user", "x")],
        [CALLS, turn("user", "x"), RESULT_B, RESULT_A],
        [CALLS, RESULT_A, turn("user", "x"), RESULT_B],
    ],
)
def test_results_are_together_and_first(turns: list[Turn]) -> None:
    last = messages(USER, *turns)[-1]
    assert last["role"] == "user"
    assert last["content"] == [
        {"type": "tool_result", "tool_use_id": "a", "content": "1"},
        {"type": "tool_result", "tool_use_id": "b", "content": "2", "is_error": True},
        {"type": "text", "text": "x"},
    ]


def test_a_late_result_moves_to_its_call() -> None:
    roles = [
        (message["role"], [block["type"] for block in message["content"]])
        for message in messages(
            USER,
            CALLS,
            RESULT_A,
            turn("assistant", "c", ToolCall("d", "f", "")),
            RESULT_B,
            turn("user", "x", "y"),
        )
        if isinstance(message["content"], list)
    ]
    assert roles == [
        ("assistant", ["tool_use", "tool_use"]),
        ("user", ["tool_result", "tool_result"]),
        ("assistant", ["text", "tool_use"]),
        ("user", ["text", "text"]),
    ]


def test_a_text_between_call_and_result_stays_with_the_answer() -> None:
    made = messages(USER, CALLS, turn("assistant", "wait"), RESULT_A, RESULT_B)
    assert [message["role"] for message in made] == ["user", "assistant", "user"]
    assert made[1]["content"][2] == {"type": "text", "text": "wait"}


def test_a_result_without_a_call_stays_where_it_is() -> None:
    made = messages(USER, turn("assistant", "a"), RESULT_A, turn("user", "x"))
    assert [block["type"] for block in made[-1]["content"]] == ["tool_result", "text"]


def test_arguments_become_an_object() -> None:
    odd = turn(
        "assistant", ToolCall("a", "f", '{"x": tru'), ToolCall("b", "f", "[1]"), ToolCall("c", "f", "")
    )
    inputs = [block["input"] for block in messages(USER, odd)[1]["content"]]
    assert inputs == [
        {"__unparsedToolInput": {"raw": '{"x": tru'}},
        {"__unparsedToolInput": {"raw": "[1]"}},
        {},
    ]


@pytest.mark.parametrize("id_", ["call|a.b:1/x", "call 1", "", "\u00e4", "\ud83d"])
def test_ids_that_the_api_refuses_are_rewritten_alike(id_: str) -> None:
    made = messages(USER, turn("assistant", ToolCall(id_, "f", "{}")), turn("tool", ToolResult(id_)))
    written_id = made[1]["content"][0]["id"]
    assert written_id.isascii()
    assert written_id.replace("_", "").replace("-", "").isalnum()
    assert made[2]["content"][0]["tool_use_id"] == written_id


def test_ids_that_the_api_takes_are_kept() -> None:
    made = messages(USER, turn("assistant", ToolCall("call_1-a", "f", "{}")))
    assert made[1]["content"][0]["id"] == "call_1-a"


def test_the_content_of_results() -> None:
    parts: list[Part] = [Text("1"), Image("https://x/a.png"), Text(""), Document(text="d")]
    made = messages(USER, CALLS, turn("tool", ToolResult("a", parts, cache_control=MARK)), RESULT_B)
    assert made[2]["content"][0] == {
        "type": "tool_result",
        "tool_use_id": "a",
        "content": [
            {"type": "text", "text": "1"},
            {"type": "image", "source": {"type": "url", "url": "https://x/a.png"}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}},
        ],
        "cache_control": MARK,
    }


# Other parts


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("https://x/a.png", {"type": "url", "url": "https://x/a.png"}),
        ("data:image/png;base64,QQ==", {"type": "base64", "media_type": "image/png", "data": "QQ=="}),
        ("data:image/png,A", {"type": "base64", "media_type": "image/png", "data": "QQ=="}),
    ],
)
def test_images(url: str, source: Any) -> None:
    assert user_blocks(Image(url, cache_control=MARK)) == [
        {"type": "image", "source": source, "cache_control": MARK}
    ]


@pytest.mark.parametrize("url", ["", "ftp://x", "data:", "data:;base64,QQ==", "x"])
def test_an_image_of_another_scheme_is_dropped(url: str) -> None:
    assert of_turns(turn("user", "a", Image(url))).dropped == ("messages.image",)


@pytest.mark.parametrize(
    ("document", "source"),
    [
        (
            Document("data:application/pdf;base64,QQ=="),
            {"type": "base64", "media_type": "application/pdf", "data": "QQ=="},
        ),
        (Document("data:text/csv;base64,YSxi"), {"type": "text", "media_type": "text/plain", "data": "a,b"}),
        (Document("https://x/a.pdf"), {"type": "url", "url": "https://x/a.pdf"}),
        (Document(file_id="file_1"), {"type": "file", "file_id": "file_1"}),
    ],
)
def test_documents(document: Document, source: Any) -> None:
    named = replace(document, name="n", context="c", citations={"enabled": True})
    assert user_blocks(named) == [
        {"type": "document", "source": source, "title": "n", "context": "c", "citations": {"enabled": True}}
    ]


@pytest.mark.parametrize("url", ["data:text/plain;base64,/w==", "data:text/plain;base64,a", "ftp://x"])
def test_a_document_that_cannot_be_read_is_dropped(url: str) -> None:
    assert of_turns(turn("user", "a", Document(url))).dropped == ("messages.document",)


def test_what_has_no_place_is_dropped_with_notice() -> None:
    request = of_turns(
        Turn("user", [Text("a"), Audio("QQ==", "wav"), Image("https://x", detail="high")], name="n"),
        Turn("assistant", [Text("b"), Image("https://x"), Other("web_search_call", {})], phase="commentary"),
    )
    assert request.dropped == (
        "messages.name",
        "messages.audio",
        "messages.image.detail",
        "messages.phase",
        "messages.image",
        "messages.web_search_call",
    )


def test_a_refusal_in_the_history_is_text() -> None:
    assert messages(USER, turn("assistant", Refusal("no")))[1] == {"role": "assistant", "content": "no"}


# Reasoning in the history


@pytest.mark.parametrize(
    ("reasoning", "block"),
    [
        (
            Reasoning("a", "sig", "anthropic"),
            {"type": "thinking", "thinking": "a", "signature": "sig"},
        ),
        (
            Reasoning("a", "sig", signatures.native("messages")),
            {"type": "thinking", "thinking": "a", "signature": "sig"},
        ),
        (
            Reasoning("", "data", "anthropic", is_redacted=True),
            {"type": "redacted_thinking", "data": "data"},
        ),
        (Reasoning("a", "sig", "openai"), None),
        (Reasoning("a", "sig", signatures.native("responses")), None),
        (Reasoning("a", "sig"), None),
        (Reasoning("a", "", "anthropic"), None),
        (Reasoning("", "data", "openai", is_redacted=True), None),
    ],
)
def test_reasoning_returns_to_whom_has_made_it(reasoning: Reasoning, block: Any) -> None:
    request = of_turns(USER, turn("assistant", reasoning, "b", "c"))
    texts = [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]
    assert request.fields["messages"][1]["content"] == ([block] if block else []) + texts
    assert request.dropped == (() if block else ("messages.reasoning",))


# Tools


def test_a_function() -> None:
    tool = Tool("f", "d", SCHEMA, strict=True, cache_control=MARK)
    assert of_turns(USER, tools=[tool]).fields["tools"] == [
        {"name": "f", "description": "d", "input_schema": SCHEMA, "strict": True, "cache_control": MARK}
    ]
    assert of_turns(USER, tools=[Tool("f")]).fields["tools"][0]["input_schema"] == SCHEMA


def test_tools_of_other_kinds_become_functions_with_a_way_back() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: x"}
    tools = [
        Tool("patch", "Edits", kind="custom", format=grammar),
        Tool("read", namespace="mcp", parameters=SCHEMA),
        Tool("tool_search", kind="tool_search", parameters=SCHEMA),
        Tool("f", parameters=SCHEMA),
    ]
    request = of_turns(
        USER,
        turn(
            "assistant",
            ToolCall("a", "patch", "*** x", "custom"),
            ToolCall("b", "read", "{}", namespace="mcp"),
        ),
        tools=tools,
    )
    names = [tool["name"] for tool in request.fields["tools"]]
    assert names == ["patch", "mcp__read", "tool_search", "f"]
    assert request.originals == {
        "patch": ("custom", None, "patch"),
        "mcp__read": ("function", "mcp", "read"),
        "tool_search": ("tool_search", None, "tool_search"),
    }
    patch = request.fields["tools"][0]
    assert patch["input_schema"]["required"] == ["input"]
    assert "lark" in patch["description"]
    assert "start: x" in patch["description"]
    calls = request.fields["messages"][1]["content"]
    assert [(call["name"], call["input"]) for call in calls] == [
        ("patch", {"input": "*** x"}),
        ("mcp__read", {}),
    ]


@pytest.mark.parametrize("name", ["x" * 65, "a.b", "a b", "\u00e4" * 3])
def test_names_that_the_api_refuses_are_changed_alike(name: str) -> None:
    history = turn("assistant", ToolCall("a", name, "{}"))
    request = of_turns(USER, history, tools=[Tool(name)], tool_choice=ToolChoice("tool", (name,)))
    (made,) = request.originals
    assert len(made) <= 64
    assert made.isascii()
    assert request.originals[made] == ("function", None, name)
    assert request.fields["tools"][0]["name"] == made
    assert request.fields["messages"][1]["content"][0]["name"] == made
    assert request.fields["tool_choice"]["name"] == made


def test_names_that_differ_in_what_is_cut_stay_different() -> None:
    request = of_turns(USER, tools=[Tool("x" * 65), Tool("x" * 66), Tool("a.b"), Tool("a:b")])
    assert len({tool["name"] for tool in request.fields["tools"]}) == 4


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="`mcp__read`"):
        of_turns(USER, tools=[Tool("read", namespace="mcp"), Tool("mcp__read")])


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (None, None, None),
        (None, True, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice("auto"), None, {"type": "auto"}),
        (ToolChoice("required"), False, {"type": "any", "disable_parallel_tool_use": True}),
        (ToolChoice("none"), False, {"type": "none"}),
        (ToolChoice("tool", ("f",)), True, {"type": "tool", "name": "f", "disable_parallel_tool_use": False}),
    ],
)
def test_tool_choice(choice: ToolChoice | None, parallel: bool | None, expected: Any) -> None:
    request = of_turns(USER, tools=[Tool("f")], tool_choice=choice, parallel_tool_calls=parallel)
    assert request.fields.get("tool_choice") == expected


def test_allowed_tools_are_the_only_ones() -> None:
    choice = ToolChoice("required", ("f", "g"))
    request = of_turns(USER, tools=[Tool("f"), Tool("x"), Tool("g")], tool_choice=choice)
    assert [tool["name"] for tool in request.fields["tools"]] == ["f", "g"]
    assert request.fields["tool_choice"] == {"type": "any"}


def test_a_choice_without_tools_is_not_written() -> None:
    assert of_turns(USER, tool_choice=ToolChoice("required")).dropped == ("tool_choice",)
    assert of_turns(USER, tool_choice=ToolChoice("none")).dropped == ()


# Options


def test_the_options() -> None:
    fields = of_turns(
        USER,
        is_streaming=True,
        max_tokens=5,
        temperature=0.5,
        top_p=0.9,
        top_k=4,
        stop=["END"],
        user="u",
        service_tier="default",
        target=SAMPLING,
    ).fields
    assert fields["stream"] is True
    assert (fields["max_tokens"], fields["temperature"], fields["top_p"], fields["top_k"]) == (5, 0.5, 0.9, 4)
    assert fields["stop_sequences"] == ["END"]
    assert fields["metadata"] == {"user_id": "u"}
    assert fields["service_tier"] == "standard_only"


@pytest.mark.parametrize(
    ("options", "dropped"),
    [
        ({"temperature": 0.5}, "temperature"),
        ({"top_p": 0.5}, "top_p"),
        ({"top_k": 5}, "top_k"),
        ({"stop": ["\n"]}, "stop"),
        ({"seed": 1}, "seed"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"verbosity": "low"}, "verbosity"),
        ({"prompt_cache_key": "k"}, "prompt_cache_key"),
        ({"metadata": {"a": "b"}}, "metadata"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"output": OutputFormat("json_object")}, "output"),
        ({"reasoning": ReasoningOptions("ultra")}, "reasoning.effort"),
        ({"extras": {"logit_bias": {}}}, "logit_bias"),
        ({"extras": {"context_management": []}}, "context_management"),
        ({"extras": {"tools.web_search": [{"type": "web_search_preview"}]}}, "tools.web_search"),
    ],
)
def test_what_the_api_cannot_express_is_dropped_with_notice(options: dict[str, Any], dropped: str) -> None:
    assert of_turns(USER, **options).dropped == (dropped,)


@pytest.mark.parametrize(
    "options", [{"presence_penalty": 0.0}, {"extras": {"n": 1}}, {"temperature": 1.0, "top_p": 1.0}]
)
def test_what_changes_nothing_is_left_out_without_notice(options: dict[str, Any]) -> None:
    request = of_turns(USER, **options)
    assert request.dropped == ()
    assert not {"top_p", "temperature"} & request.fields.keys()


def test_temperatures_end_at_1() -> None:
    request = of_turns(USER, temperature=1.5, target=SAMPLING)
    assert (request.fields["temperature"], request.dropped) == (1, ("temperature",))


@pytest.mark.parametrize("n", [2, "2", [1]])
def test_more_than_one_answer_is_refused(n: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        of_turns(USER, extras={"n": n})
    assert caught.value.param == "n"


def test_the_output_format() -> None:
    output = OutputFormat("json_schema", "name", {"type": "object"}, strict=True, description="d")
    request = of_turns(USER, output=output)
    schema = {"type": "object", "description": "d"}
    assert request.fields["output_config"] == {"format": {"type": "json_schema", "schema": schema}}
    assert request.dropped == ()


# Reasoning


@pytest.mark.parametrize(
    ("effort", "written_effort"),
    [
        ("minimal", "low"),
        ("low", "low"),
        ("medium", "medium"),
        ("high", "high"),
        ("xhigh", "xhigh"),
        ("max", "max"),
    ],
)
def test_an_effort_is_adaptive_thinking(effort: str, written_effort: str) -> None:
    fields = of_turns(USER, reasoning=ReasoningOptions(effort, summary="auto")).fields
    assert fields["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert fields["output_config"] == {"effort": written_effort}


@pytest.mark.parametrize("target", [TARGET, BUDGET])
def test_no_effort_disables_thinking(target: TargetTraits) -> None:
    fields = of_turns(USER, reasoning=ReasoningOptions("none"), target=target).fields
    assert fields["thinking"] == {"type": "disabled"}
    assert "output_config" not in fields


@pytest.mark.parametrize(
    ("effort", "max_tokens", "budget"),
    [
        ("minimal", 64_000, 1024),
        ("low", 64_000, 2048),
        ("medium", 64_000, 8192),
        ("high", 64_000, 16_384),
        ("xhigh", 128_000, 32_768),
        ("max", 128_000, 32_768),
        ("high", 4096, 2048),
        ("high", 1025, 1024),
        ("high", 1024, None),
    ],
)
def test_an_effort_is_a_budget_below_the_limit(effort: str, max_tokens: int, budget: int | None) -> None:
    request = of_turns(USER, reasoning=ReasoningOptions(effort), max_tokens=max_tokens, target=BUDGET)
    expected = {"type": "enabled", "budget_tokens": budget} if budget else None
    assert request.fields.get("thinking") == expected
    assert request.dropped == (() if budget else ("reasoning.effort",))


def test_a_forced_call_excludes_thinking() -> None:
    request = of_turns(
        USER, tools=[Tool("f")], tool_choice=ToolChoice("required"), reasoning=ReasoningOptions("high")
    )
    assert "thinking" not in request.fields
    assert request.dropped == ("reasoning.effort",)


def test_thinking_excludes_other_sampling() -> None:
    request = of_turns(
        USER, reasoning=ReasoningOptions("high"), temperature=0.5, top_p=0.5, top_k=3, target=SAMPLING
    )
    assert not {"temperature", "top_p", "top_k"} & request.fields.keys()
    assert request.dropped == ("temperature", "top_k", "top_p")


@pytest.mark.parametrize(("reasoning", "is_kept"), [("anthropic", True), ("openai", False)])
def test_a_budget_demands_thinking_before_the_calls(reasoning: str, is_kept: bool) -> None:
    call = turn("assistant", Reasoning("a", "sig", reasoning), ToolCall("a", "f", "{}"))
    request = of_turns(USER, call, RESULT_A, reasoning=ReasoningOptions("high"), target=BUDGET)
    assert ("thinking" in request.fields) is is_kept


def test_the_options_of_a_messages_client_are_written_as_they_are() -> None:
    options = ReasoningOptions("max", 2000, "enabled", display="omitted")
    request = of_turns(USER, reasoning=options, max_tokens=4000, temperature=0.5, target=SAMPLING)
    assert request.fields["thinking"] == {"type": "enabled", "budget_tokens": 2000, "display": "omitted"}
    assert request.fields["output_config"] == {"effort": "max"}
    assert request.fields["temperature"] == 0.5


# There and back

CLAUDE_CODE: dict[str, Any] = {
    "model": "claude",
    "max_tokens": 128_000,
    "stream": True,
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: x"},
        {"type": "text", "text": "You are Claude Code", "cache_control": MARK},
    ],
    "messages": [
        {
            "role": "user",
            "content": [{"type": "text", "text": "reminder"}, {"type": "text", "text": "say hello"}],
        },
        {
            "role": "system",
            "content": [{"type": "text", "text": "later", "cache_control": MARK}],
            "output_config": {"effort": "medium"},
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "", "signature": "sig"},
                {"type": "redacted_thinking", "data": "data"},
                {"type": "text", "text": "I look"},
                {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"q": "x"}},
                {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"path": "/a"}},
                {"type": "tool_use", "id": "toolu_2", "name": "Read", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "content": [
                        {"type": "text", "text": "a"},
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="},
                        },
                        {"type": "tool_reference", "tool_name": "Edit"},
                    ],
                },
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_2",
                    "content": "no such file",
                    "is_error": True,
                    "cache_control": MARK,
                },
            ],
        },
    ],
    "tools": [
        {"name": "Read", "description": "Reads", "input_schema": SCHEMA},
        {"name": "Edit", "description": "Edits", "input_schema": SCHEMA, "defer_loading": True},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
    ],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "metadata": {"user_id": '{"session":"x"}'},
    "thinking": {"type": "adaptive", "display": "omitted"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "medium", "format": {"type": "json_schema", "schema": SCHEMA}},
    "stop_sequences": ["END"],
    "temperature": 0.5,
    "container": "c",
    "service_tier": "auto",
}


def test_a_request_of_claude_code_returns_as_it_was() -> None:
    request = FORMAT.write_request(FORMAT.read_request(CLAUDE_CODE), replace(IN_PLACE, takes_sampling=True))
    assert request.fields == CLAUDE_CODE
    assert (request.dropped, request.originals) == ((), {})


NAMES = st.from_regex(r"[a-zA-Z0-9_-]{1,8}", fullmatch=True)
WORDS = st.sampled_from(["a", "b c", "\u00e4", "x\n"])
MARKS = st.sampled_from([{}, {"cache_control": MARK}])


def with_mark(block: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(lambda fields, mark: {**fields, **mark}, block, MARKS)


TEXTS = with_mark(st.fixed_dictionaries({"type": st.just("text"), "text": WORDS}))
SOURCES = st.sampled_from(
    [
        {"type": "url", "url": "https://x/a"},
        {"type": "base64", "media_type": "image/png", "data": "QQ=="},
        {"type": "file", "file_id": "file_1"},
    ]
)
IMAGES = with_mark(st.fixed_dictionaries({"type": st.just("image"), "source": SOURCES}))
THOUGHTS = st.sampled_from(
    [
        {"type": "thinking", "thinking": "a", "signature": "sig"},
        {"type": "redacted_thinking", "data": "x"},
    ]
)


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Requests in the form in which they are written: no neighbours of one role, results first."""
    messages_: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 3))):
        calls = messages_[-1]["content"] if messages_ else []
        results = [
            {"type": "tool_result", "tool_use_id": call["id"], "content": draw(WORDS)}
            for call in calls
            if call["type"] == "tool_use"
        ]
        own = draw(st.lists(TEXTS | IMAGES, min_size=1, max_size=2))
        messages_.append({"role": "user", "content": [*results, *own]})
        blocks = draw(st.lists(THOUGHTS | TEXTS, min_size=1, max_size=2))
        for at in range(draw(st.integers(0, 2))):
            value = draw(st.dictionaries(WORDS, st.integers(), max_size=2))
            blocks.append({"type": "tool_use", "id": f"t{number}{at}", "name": draw(NAMES), "input": value})
        messages_.append({"role": "assistant", "content": blocks})
    messages_.append({"role": "user", "content": draw(st.lists(TEXTS, min_size=2, max_size=2))})
    return {"model": "claude", "max_tokens": draw(st.integers(1, 9)), "messages": messages_}


@UNHURRIED
@given(requests())
def test_a_request_that_is_written_is_read_as_it_was(fields: dict[str, Any]) -> None:
    conversation = FORMAT.read_request(fields)
    request = written(conversation)
    assert FORMAT.read_request(request.fields) == conversation
    again = json.loads(json.dumps(request.fields))
    assert FORMAT.write_request(FORMAT.read_request(again), TARGET).fields == again


def test_integers_of_any_size_are_kept() -> None:
    call = turn("assistant", ToolCall("a", "f", '{"id": -12345678901234567890123, "x": 1e999}'))
    exact = turn("assistant", ToolCall("a", "f", '{"id": -12345678901234567890123}'))
    assert messages(USER, exact)[1]["content"][0]["input"] == {"id": -12345678901234567890123}
    assert list(messages(USER, call)[1]["content"][0]["input"]) == ["__unparsedToolInput"]


def test_citations_stand_in_answers_only() -> None:
    citation = {
        "type": "char_location",
        "cited_text": "x",
        "document_index": 0,
        "document_title": "t",
        "start_char_index": 0,
        "end_char_index": 1,
    }
    request = of_turns(
        turn("user", Text("a", citations=[citation])), turn("assistant", Text("b", citations=[citation]))
    )
    assert request.fields["messages"][0]["content"] == "a"
    assert request.fields["messages"][1]["content"] == [
        {"type": "text", "text": "b", "citations": [citation]}
    ]
    assert request.dropped == ("messages.citations",)


def test_a_wish_for_a_summary_is_adaptive_thinking() -> None:
    options = ReasoningOptions(summary="auto")
    request = of_turns(USER, reasoning=options)
    assert request.fields["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert "output_config" not in request.fields
    assert of_turns(USER, reasoning=options, target=BUDGET).dropped == ("reasoning.summary",)
