"""Requests for providers."""

from __future__ import annotations

from typing import Any

import pytest

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.translation.conversation import (
    Conversation,
    Document,
    Image,
    OutputFormat,
    Reasoning,
    ReasoningOptions,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)
from sanic_proxy.translation.format import TargetTraits, WrittenRequest
from sanic_proxy.translation.gemini import GeminiFormat
from sanic_proxy.translation.gemini.thoughts import SKIPPED_SIGNATURE
from tests.support.gemini import judged_request

TARGET = TargetTraits("acme", "acme-1")
HELLO = Turn("user", [Text("Hi")])


def write(*turns: Turn, target: TargetTraits = TARGET, **fields: Any) -> WrittenRequest:
    written = GeminiFormat().write_request(Conversation("m", list(turns) or [HELLO], **fields), target)
    judged_request({name: value for name, value in written.fields.items() if name != "model"})
    return written


@pytest.mark.parametrize("url", ["http://[", "https://[::1/a.png"])
def test_files_with_a_malformed_url_are_dropped(url: str) -> None:
    written = write(HELLO, Turn("user", [Image(url=url)]))
    assert written.fields["contents"] == [{"role": "user", "parts": [{"text": "Hi"}]}]
    assert written.dropped == ("messages.image",)


def test_the_path_of_a_url_is_no_url() -> None:
    url = "https://x.example//[/a.png"
    (content,) = write(Turn("user", [Image(url=url)])).fields["contents"]
    assert content["parts"] == [{"fileData": {"mimeType": "image/png", "fileUri": url}}]


def test_turns() -> None:
    written = write(
        Turn("system", [Text("s")]),
        HELLO,
        Turn("user", [Image(url="data:image/png;base64,AAAA"), Document(url="https://x.example/a.pdf")]),
        Turn("developer", [Text("d")]),
        Turn("assistant", [Text("a")]),
    )
    assert written.fields == {
        "systemInstruction": {"parts": [{"text": "s"}, {"text": "d"}]},
        "contents": [
            {
                "role": "user",
                "parts": [
                    {"text": "Hi"},
                    {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
                    {"fileData": {"mimeType": "application/pdf", "fileUri": "https://x.example/a.pdf"}},
                ],
            },
            {"role": "model", "parts": [{"text": "a"}]},
        ],
    }
    assert written.dropped == ("messages.system.position",)
    assert write(Turn("assistant", [Text("a")])).fields["contents"][0] == {
        "role": "user",
        "parts": [{"text": "."}],
    }


def test_results_stand_behind_their_calls() -> None:
    image = Image(url="data:image/png;base64,AAAA")
    written = write(
        HELLO,
        Turn("assistant", [ToolCall("1", "f", '{"a": 1}'), ToolCall("2", "g", "broken")]),
        Turn("user", [Text("meanwhile")]),
        Turn("tool", [ToolResult("2", [Text("no")], is_error=True), ToolResult("1", [Text("yes"), image])]),
        Turn("tool", [ToolResult("gone", [Text("orphan")])]),
    )
    _, calls, results = written.fields["contents"]
    assert [part["functionCall"] for part in calls["parts"]] == [
        {"id": "1", "name": "f", "args": {"a": 1}},
        {"id": "2", "name": "g", "args": {"__unparsedToolInput": {"raw": "broken"}}},
    ]
    assert results["parts"] == [
        {"functionResponse": {"id": "1", "name": "f", "response": {"output": "yes"}}},
        {"functionResponse": {"id": "2", "name": "g", "response": {"error": "no"}}},
        {"text": "Content of the result of the tool call `1`:"},
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
        {"text": "meanwhile"},
        {"text": "Result of the tool call `gone`:"},
        {"text": "orphan"},
    ]
    assert written.dropped == ("messages.tool_result.call_id",)


def test_signatures_return_to_their_provider_at_the_part_behind_them() -> None:
    written = write(
        HELLO,
        Turn(
            "assistant", [Reasoning("hm", "U2ln", "acme"), ToolCall("1", "f", "{}"), ToolCall("2", "f", "{}")]
        ),
        Turn("tool", [ToolResult("1"), ToolResult("2")]),
        Turn("assistant", [Text("a"), Reasoning("", "RW5k", "acme"), Reasoning("x", "c2ln", "other")]),
    )
    _, calls, _, end = written.fields["contents"]
    assert [part.get("thoughtSignature") for part in calls["parts"]] == ["U2ln", None]
    assert end["parts"] == [{"text": "a"}, {"text": "", "thoughtSignature": "RW5k"}]
    assert written.dropped == ("messages.reasoning",)


def test_calls_of_other_models_are_marked_in_the_current_turn_only() -> None:
    call = Turn("assistant", [ToolCall("1", "f", "{}"), ToolCall("2", "f", "{}")])
    results = Turn("tool", [ToolResult("1"), ToolResult("2")])
    said = Turn("assistant", [Text("done")])
    contents = write(HELLO, call, results, said, HELLO, call, results).fields["contents"]
    signatures = [
        part.get("thoughtSignature")
        for content in contents
        if content["role"] == "model"
        for part in content["parts"]
        if "functionCall" in part
    ]
    assert signatures == [None, None, SKIPPED_SIGNATURE, None]


def test_tools() -> None:
    tools = [
        Tool("f", "d", {"type": "object", "properties": {"a": {"type": "string"}}}),
        Tool("patch", kind="custom", format={"type": "grammar", "syntax": "lark", "definition": "start: X"}),
        Tool("a b", namespace="ns"),
    ]
    written = write(tools=tools, tool_choice=ToolChoice("tool", ("a b",)))
    (declared,) = written.fields["tools"]
    first, custom, odd = declared["functionDeclarations"]
    assert first == {"name": "f", "description": "d", "parametersJsonSchema": tools[0].parameters}
    assert "start: X" in custom["description"]
    assert written.originals == {"patch": ("custom", None, "patch"), odd["name"]: ("function", "ns", "a b")}
    assert written.fields["toolConfig"]["functionCallingConfig"] == {
        "mode": "ANY",
        "allowedFunctionNames": [odd["name"]],
    }


def test_options() -> None:
    written = write(
        max_tokens=9,
        temperature=0.5,
        top_p=0.9,
        top_k=4,
        stop=["x"],
        seed=1,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        output=OutputFormat("json_schema", schema={"type": "object"}),
        reasoning=ReasoningOptions("high"),
        user="u",
        parallel_tool_calls=False,
        extras={"n": 1, "odd": 1},
    )
    assert written.fields["generationConfig"] == {
        "maxOutputTokens": 9,
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 4,
        "stopSequences": ["x"],
        "seed": 1,
        "presencePenalty": 0.1,
        "frequencyPenalty": 0.2,
        "thinkingConfig": {"thinkingLevel": "HIGH", "includeThoughts": True},
        "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "object"},
    }
    assert set(written.dropped) == {"user", "parallel_tool_calls", "odd"}
    with pytest.raises(InvalidRequest):
        write(extras={"n": 2})


@pytest.mark.parametrize(
    ("options", "thinking"),
    [
        (ReasoningOptions("low"), {"thinkingBudget": 1024, "includeThoughts": True}),
        (ReasoningOptions(mode="disabled"), {"thinkingBudget": 0}),
        (
            ReasoningOptions(budget_tokens=99, mode="enabled", display="omitted"),
            {"thinkingBudget": 99},
        ),
    ],
)
def test_thinking_by_budget(options: ReasoningOptions, thinking: dict[str, Any]) -> None:
    target = TargetTraits("acme", "acme-1", thinking="budget")
    written = write(target=target, reasoning=options)
    assert written.fields["generationConfig"]["thinkingConfig"] == thinking
