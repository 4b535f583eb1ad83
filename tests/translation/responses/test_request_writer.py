"""A conversation -> a request to a provider that speaks Responses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import ResponseInputItem
from openai.types.responses import Tool as OpenAITool
from openresponses_types.types import CreateResponseBody
from pydantic import TypeAdapter

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
from sanic_proxy.translation.format import TargetTraits, WrittenRequest
from sanic_proxy.translation.responses import ResponsesFormat

Json = dict[str, Any]

FORMAT = ResponsesFormat()
TARGET = TargetTraits("openai", "gpt")
CODEX: Json = json.loads((Path(__file__).parent / "codex.json").read_text("utf-8"))
ITEM: TypeAdapter[Any] = TypeAdapter(ResponseInputItem)
TOOL: TypeAdapter[Any] = TypeAdapter(OpenAITool)


def write(*turns: Turn, **fields: Any) -> WrittenRequest:
    return FORMAT.write_request(Conversation("m", list(turns), **fields), TARGET)


def items_of(*turns: Turn) -> list[Json]:
    items: list[Json] = write(*turns).fields["input"]
    for item in items:
        ITEM.validate_json(json.dumps(item), strict=True)
    return items


def user(*parts: Part) -> Turn:
    return Turn("user", list(parts))


def model(*parts: Part, phase: str | None = None) -> Turn:
    return Turn("assistant", list(parts), phase=phase)


def test_the_fixed_fields() -> None:
    written = write(user(Text("x")), is_streaming=True)
    assert written.fields == {
        "model": "gpt",
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}],
        "stream": True,
        "store": False,
        "include": ["reasoning.encrypted_content"],
    }
    assert written.dropped == ()
    CreateResponseBody.model_validate(written.fields)


def test_leading_system_messages_are_the_instructions() -> None:
    fields = write(
        Turn("system", [Text("a"), Text("b")]),
        Turn("system", [Text("c")]),
        user(Text("x")),
        Turn("system", [Text("later")]),
        Turn("developer", [Text("d")]),
    ).fields
    assert fields["instructions"] == "a\n\nb\n\nc"
    assert [item["role"] for item in fields["input"]] == ["user", "system", "developer"]


def test_all_parts_of_a_user() -> None:
    (item,) = items_of(
        user(
            Text("a"),
            Image("https://x/y.png", detail="low"),
            Image(file_id="file_1"),
            Document("data:application/pdf;base64,QQ==", name="a.pdf"),
            Document("https://x/y.pdf"),
            Document(file_id="file_2"),
            Document(text="plain", name="a.txt"),
        )
    )
    assert item["content"] == [
        {"type": "input_text", "text": "a"},
        {"type": "input_image", "detail": "low", "image_url": "https://x/y.png"},
        {"type": "input_image", "detail": "auto", "file_id": "file_1"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,QQ=="},
        {"type": "input_file", "file_url": "https://x/y.pdf"},
        {"type": "input_file", "file_id": "file_2"},
        {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,cGxhaW4="},
    ]


def test_audio_is_a_part() -> None:
    fields = write(user(Audio("QQ==", "wav"))).fields
    assert fields["input"][0]["content"][0]["input_audio"] == {"data": "QQ==", "format": "wav"}


def test_the_model_s_messages_keep_their_phase_and_order() -> None:
    items = items_of(
        model(Text("a"), Refusal("no"), ToolCall("c1", "f", "{}"), Text("b"), phase="commentary"),
        Turn("tool", [ToolResult("c1", [Text("out")])]),
    )
    assert [item["type"] for item in items] == ["message", "function_call", "message", "function_call_output"]
    assert items[0]["phase"] == "commentary"
    assert items[0]["content"][1] == {"type": "refusal", "refusal": "no"}
    assert items[3] == {"type": "function_call_output", "call_id": "c1", "output": "out"}


def test_reasoning_returns_to_its_provider_only() -> None:
    turn = model(
        Reasoning("s", is_summary=True, id="rs_1"),
        Reasoning("t", "sig", "openai", is_summary=True, id="rs_1"),
        Reasoning("raw", "other", "anthropic"),
        Reasoning("unsigned"),
        Text("a"),
    )
    written = write(turn)
    assert [item["type"] for item in written.fields["input"]] == ["reasoning", "message"]
    assert written.fields["input"][0] == {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "s"}, {"type": "summary_text", "text": "t"}],
        "encrypted_content": "sig",
    }
    assert written.dropped == ("messages.reasoning",)


def test_results_with_images_are_parts() -> None:
    (item,) = items_of(Turn("tool", [ToolResult("c", [Text("a"), Image("data:image/png;base64,QQ==")])]))
    assert [part["type"] for part in item["output"]] == ["input_text", "input_image"]


def test_a_failed_result_says_so() -> None:
    text, parts = items_of(
        Turn(
            "tool",
            [
                ToolResult("c", [Text("no file")], is_error=True),
                ToolResult("d", [Text("a"), Text("b")], is_error=True),
            ],
        )
    )
    assert text["output"] == "Error: no file"
    assert parts["output"][0] == {"type": "input_text", "text": "Error:"}


def test_long_ids_of_calls_are_shortened_the_same_way() -> None:
    call, result = items_of(
        model(ToolCall("c" * 80, "f", "{}")), Turn("tool", [ToolResult("c" * 80, [Text("x")])])
    )
    assert call["call_id"] == result["call_id"]
    assert len(call["call_id"]) <= 64


def test_custom_calls_and_searches() -> None:
    items = items_of(
        model(
            ToolCall("c1", "patch", "x", "custom"), ToolCall("c2", "tool_search", '{"q":1}', "tool_search")
        ),
        Turn(
            "tool",
            [
                ToolResult("c1", [Text("done")], kind="custom"),
                ToolResult("c2", [Text('[{"type":"function","name":"f"}]')], kind="tool_search"),
            ],
        ),
    )
    assert [item["type"] for item in items] == [
        "custom_tool_call",
        "tool_search_call",
        "custom_tool_call_output",
        "tool_search_output",
    ]
    assert items[1]["arguments"] == {"q": 1}
    assert items[3]["tools"] == [{"type": "function", "name": "f"}]


def test_tools_of_all_kinds() -> None:
    grammar = {"type": "grammar", "syntax": "regex", "definition": "x"}
    tools = [
        Tool("f", "d", {"type": "object"}),
        Tool("g", strict=True),
        Tool("c", kind="custom", format=grammar),
        Tool("h", namespace="ns", namespace_description="group"),
        Tool("tool_search", "d", {"type": "object"}, kind="tool_search"),
    ]
    written = write(user(Text("x")), tools=tools).fields["tools"]
    for tool in written:
        TOOL.validate_json(json.dumps(tool), strict=True)
    assert written[0] == {
        "type": "function",
        "name": "f",
        "description": "d",
        "parameters": {"type": "object"},
        "strict": False,
    }
    assert written[1]["strict"] is True
    assert written[2] == {"type": "custom", "name": "c", "format": grammar}
    assert written[-1]["type"] == "namespace"
    assert written[-1]["description"] == "group"
    assert [tool["name"] for tool in written[-1]["tools"]] == ["h"]
    assert {"type", "execution", "description", "parameters"} == set(written[3])


def test_names_that_responses_rejects_are_replaced_everywhere() -> None:
    long = "mcp__" + "x" * 80
    written = write(
        model(ToolCall("c", long, "{}")), tools=[Tool(long)], tool_choice=ToolChoice("tool", (long,))
    )
    (name,) = written.originals
    assert len(name) <= 64
    assert written.originals[name] == ("function", None, long)
    assert written.fields["tools"][0]["name"] == name
    assert written.fields["tool_choice"] == {"type": "function", "name": name}
    assert written.fields["input"][0]["name"] == name


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (ToolChoice("auto"), "auto"),
        (ToolChoice("none"), "none"),
        (ToolChoice("required"), "required"),
        (ToolChoice("tool", ("f",)), {"type": "function", "name": "f"}),
        (ToolChoice("tool", ("c",)), {"type": "custom", "name": "c"}),
        (
            ToolChoice("required", ("f", "c")),
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "c"}],
            },
        ),
    ],
)
def test_the_choice_of_tools(choice: ToolChoice, expected: Any) -> None:
    tools = [Tool("f"), Tool("c", kind="custom")]
    assert write(user(Text("x")), tools=tools, tool_choice=choice).fields["tool_choice"] == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (ReasoningOptions("xhigh"), {"effort": "xhigh"}),
        (ReasoningOptions(budget_tokens=1024, mode="enabled"), {"effort": "low"}),
        (ReasoningOptions(budget_tokens=4096, mode="enabled"), {"effort": "medium"}),
        (ReasoningOptions(budget_tokens=32000, mode="enabled"), {"effort": "high"}),
        (ReasoningOptions(mode="adaptive", display="summarized"), {"summary": "auto"}),
        (ReasoningOptions("low", summary="detailed"), {"effort": "low", "summary": "detailed"}),
        (ReasoningOptions(mode="disabled"), None),
    ],
)
def test_the_effort(options: ReasoningOptions, expected: Json | None) -> None:
    assert write(user(Text("x")), reasoning=options).fields.get("reasoning") == expected


def test_the_format_is_flat() -> None:
    output = OutputFormat("json_schema", "n", {"type": "object"}, strict=True)
    assert write(user(Text("x")), output=output, verbosity="low").fields["text"] == {
        "format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True},
        "verbosity": "low",
    }


def test_limits_are_kept_within_what_responses_takes() -> None:
    fields = write(user(Text("x")), max_tokens=1, user="u" * 100).fields
    assert fields["max_output_tokens"] == 16
    assert len(fields["safety_identifier"]) == 64


def test_what_responses_has_no_place_for_is_named() -> None:
    written = write(
        Turn(
            "user",
            [
                Text("x", cache_control={"type": "ephemeral"}),
                Other("document.search", {}),
                Document(text="a", citations={"enabled": True}),
            ],
            name="ann",
        ),
        tools=[Tool("f", cache_control={"type": "ephemeral"})],
        stop=["x"],
        seed=1,
        top_k=2,
        presence_penalty=0.5,
        frequency_penalty=0.5,
        top_logprobs=1,
        metadata={"a": 1},
        extras={"logit_bias": {}},
    )
    assert set(written.dropped) == {
        "messages.cache_control",
        "messages.document.search",
        "messages.citations",
        "messages.name",
        "tools.cache_control",
        "stop",
        "seed",
        "top_k",
        "presence_penalty",
        "frequency_penalty",
        "top_logprobs",
        "metadata",
        "logit_bias",
    }


def test_codex_s_own_request_survives_the_middle_shape() -> None:
    written = FORMAT.write_request(FORMAT.read_request(CODEX), TARGET)
    tools = {tool["name"]: tool for tool in CODEX["tools"] if "name" in tool}
    assert {tool["name"]: tool for tool in written.fields["tools"] if "name" in tool} == tools
    contents = [item["content"] for item in CODEX["input"]]
    assert [item["content"] for item in written.fields["input"]] == contents
    for name in (
        "tool_choice",
        "parallel_tool_calls",
        "reasoning",
        "store",
        "include",
        "prompt_cache_key",
        "text",
    ):
        assert written.fields[name] == CODEX[name]
    assert set(written.dropped) == {"client_metadata", "tools.web_search"}


# Arbitrary conversations


texts = st.text("abc \né", min_size=1, max_size=6)
user_parts = st.one_of(
    st.builds(Text, texts),
    st.builds(Image, st.just("https://x/y.png"), detail=st.just("auto")),
    st.builds(Document, st.just("https://x/y.pdf")),
    st.builds(Audio, st.just("QQ=="), st.just("wav")),
)
reasoning = st.builds(
    Reasoning, texts, st.just("sig"), st.just("responses:"), is_summary=st.booleans(), id=st.none()
)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """Conversations in the form in which they are read: results behind their calls."""
    turns: list[Turn] = []
    for number in range(draw(st.integers(1, 4))):
        role: Any = draw(st.sampled_from(["user", "developer"]))
        turns.append(Turn(role, draw(st.lists(user_parts, min_size=1, max_size=3))))
        parts: list[Part] = list(draw(st.lists(reasoning, max_size=2)))
        spoken: list[Part] = draw(
            st.lists(st.builds(Text, texts, annotations=st.just([])) | st.builds(Refusal, texts), max_size=2)
        )
        calls = [
            ToolCall(
                f"c{number}.{at}",
                draw(st.sampled_from(["f", "g"])),
                draw(texts),
                draw(st.sampled_from(["function", "custom"])),
                draw(st.sampled_from([None, "ns"])),
            )
            for at in range(draw(st.integers(0, 2)))
        ]
        phase = draw(st.sampled_from([None, "commentary"])) if spoken else None
        if parts or spoken or calls:
            turns.append(Turn("assistant", [*parts, *spoken, *calls], phase=phase))
        if calls:
            results = draw(st.lists(st.builds(Text, texts), min_size=1, max_size=2))
            turns.append(Turn("tool", [ToolResult(call.id, list(results), kind=call.kind) for call in calls]))
    return Conversation("gpt", turns)


@given(conversations())
@settings(deadline=None)
def test_what_is_written_is_read_back(conversation: Conversation) -> None:
    # Unknown signatures are returned to a provider of that name, so that they can be compared.
    written = FORMAT.write_request(conversation, TargetTraits("responses:", "gpt"))
    assert written.dropped == ()
    assert FORMAT.read_request(written.fields).turns == conversation.turns


def test_several_answers_cannot_be_requested() -> None:
    conversation = Conversation("gpt", [Turn("user", [Text("hi")])], extras={"n": 2})
    with pytest.raises(InvalidRequest) as caught:
        FORMAT.write_request(conversation, TARGET)
    assert caught.value.param == "n"
