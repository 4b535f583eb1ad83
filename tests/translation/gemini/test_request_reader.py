"""Clients' requests."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.translation.conversation import (
    Audio,
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
from sanic_proxy.translation.gemini import GeminiFormat
from sanic_proxy.translation.gemini.thoughts import signature_of

HELLO = {"role": "user", "parts": [{"text": "Hi"}]}


def read(*contents: Any, **fields: Any) -> Conversation:
    body = {"model": "m", "stream": False, "contents": list(contents) or [HELLO], **fields}
    return GeminiFormat().read_request(body)


def model(*parts: Any) -> dict[str, Any]:
    return {"role": "model", "parts": list(parts)}


def user(*parts: Any, role: str = "user") -> dict[str, Any]:
    return {"role": role, "parts": list(parts)}


def test_texts_and_the_system_instruction() -> None:
    asked = read(HELLO, model({"text": "a"}), systemInstruction={"role": "user", "parts": [{"text": "s"}]})
    assert asked.turns == [
        Turn("system", [Text("s")]),
        Turn("user", [Text("Hi")]),
        Turn("assistant", [Text("a")]),
    ]
    assert read(systemInstruction="s").turns[0] == Turn("system", [Text("s")])
    assert read({"parts": [{"text": "no role"}]}).turns == [Turn("user", [Text("no role")])]


@pytest.mark.parametrize("role", ["user", "function"])
def test_results_find_their_calls_by_id_and_else_by_name_and_order(role: str) -> None:
    asked = read(
        HELLO,
        model(
            {"functionCall": {"name": "f", "args": {"a": 1}}},
            {"functionCall": {"name": "f"}},
            {"functionCall": {"id": "own", "name": "g", "args": {}}},
        ),
        user(
            {"functionResponse": {"id": "own", "name": "g", "response": {"output": "G"}}},
            {"functionResponse": {"name": "f", "response": {"error": "F1"}}},
            {"functionResponse": {"id": "unknown", "name": "f", "response": {"x": 1}}},
            {"functionResponse": {"name": "f", "response": {}}},
            {"text": "and?"},
            role=role,
        ),
    )
    _, calls, results, last = asked.turns
    first, second = "unnamed_1", "unnamed_2"
    assert calls.parts == [
        ToolCall(first, "f", '{"a":1}'),
        ToolCall(second, "f", "{}"),
        ToolCall("own", "g", "{}"),
    ]
    assert results.role == "tool"
    assert results.parts == [
        ToolResult("own", [Text("G")]),
        ToolResult(first, [Text("F1")], is_error=True),
        ToolResult(second, [Text('{"x":1}')]),
        ToolResult("unnamed_3", []),
    ]
    assert last == Turn("user", [Text("and?")])


def test_ids_are_the_same_in_each_request_of_a_conversation() -> None:
    history = [HELLO, model({"functionCall": {"name": "f"}})]
    longer = [*history, user({"functionResponse": {"name": "f", "response": {}}}), *history]
    assert read(*history).turns[1] == read(*longer).turns[1]


def test_files() -> None:
    text = base64.b64encode(b"text").decode()
    asked = read(
        user(
            {"inlineData": {"mimeType": "image/png", "data": "-_A="}},
            {"inline_data": {"mime_type": "application/pdf", "data": "AAAA"}},
            {"inlineData": {"mimeType": "text/plain", "data": text}},
            {"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}},
            {"fileData": {"fileUri": "https://x.example/a.jpg"}},
            {"fileData": {"mimeType": "application/pdf", "fileUri": "https://x.example/a"}},
            {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/a"}},
            {"executableCode": {"code": "1"}},
        )
    )
    parts = asked.turns[0].parts
    assert parts[:6] == [
        Image(url="data:image/png;base64,+/A="),
        Document(url="data:application/pdf;base64,AAAA"),
        Document(text="text"),
        Audio("AAAA", "wav"),
        Image(url="https://x.example/a.jpg"),
        Document(url="https://x.example/a"),
    ]
    assert [getattr(part, "type", None) for part in parts[6:]] == ["fileData", "executableCode"]


@pytest.mark.parametrize("url", ["http://[", "https://[::1/a.png", "https://x.example//[/a.png"])
def test_files_with_a_malformed_url(url: str) -> None:
    (part,) = read(user({"fileData": {"fileUri": url, "mimeType": ""}})).turns[0].parts
    assert getattr(part, "type", "") == "fileData" or part == Image(url=url)


def test_signatures_of_other_providers_carry_their_reasoning() -> None:
    pieces = [Reasoning("hm", "sig", "acme"), Reasoning("", "data", "acme", is_redacted=True)]
    signature = signature_of(pieces) or ""
    call = {"functionCall": {"name": "f"}, "thoughtSignature": signature}
    shown = {"text": "hm", "thought": True}
    assert read(HELLO, model(shown, call)).turns[1].parts[:2] == pieces
    assert read(HELLO, model(call)).turns[1].parts[:2] == pieces
    own = {"functionCall": {"name": "f"}, "thoughtSignature": "Z29vZ2xl"}
    assert read(HELLO, model(own)).turns[1].parts[0] == Reasoning("", "Z29vZ2xl", "gemini:")
    # google-genai writes bytes with the alphabet for URLs.
    sent = {**call, "thoughtSignature": signature.replace("+", "-").replace("/", "_")}
    assert read(HELLO, model(sent)).turns[1].parts[:2] == pieces


@pytest.mark.parametrize("name", ["parameters", "parametersJsonSchema"])
def test_schemas_get_the_types_of_json_schema(name: str) -> None:
    schema = {
        "type": "OBJECT",
        "properties": {
            "type": {"type": "STRING", "format": "enum", "enum": ["STRING"], "nullable": True},
            "list": {"type": "ARRAY", "items": {"type": "INTEGER"}, "minItems": "1"},
            "any": {"anyOf": [{"type": "NUMBER"}, {"type": "BOOLEAN"}], "example": 1},
        },
        "propertyOrdering": ["type"],
        "required": ["type"],
    }
    (tool,) = read(tools=[{"functionDeclarations": [{"name": "f", "description": "d", name: schema}]}]).tools
    assert tool == Tool(
        "f",
        "d",
        {
            "type": "object",
            "properties": {
                "type": {"type": ["string", "null"], "enum": ["STRING", None]},
                "list": {"type": "array", "items": {"type": "integer"}, "minItems": 1},
                "any": {"anyOf": [{"type": "number"}, {"type": "boolean"}], "examples": [1]},
            },
            "required": ["type"],
        },
    )


def nested(depth: int, leaf: dict[str, Any]) -> dict[str, Any]:
    schema = leaf
    for _ in range(depth):
        schema = {"type": "OBJECT", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    "schema",
    [nested(900, {}), {"type": "STRING", "maxLength": "9" * 5000}, nested(3, {"maxLength": "9" * 19})],
    ids=["depth", "digits", "digits-inside"],
)
def test_schemas_beyond_the_limits_are_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(tools=[{"functionDeclarations": [{"name": "f", "parameters": schema}]}])
    assert caught.value.param == "tools.0.functionDeclarations.0.parameters"
    with pytest.raises(InvalidRequest) as caught:
        read(generationConfig={"responseMimeType": "application/json", "responseSchema": schema})
    assert caught.value.param == "generationConfig.responseSchema"


def test_schemas_within_the_limits() -> None:
    schema = nested(50, {"maxLength": "9" * 18})
    (tool,) = read(tools=[{"functionDeclarations": [{"name": "f", "parameters": schema}]}]).tools
    inner: Any = tool.parameters
    for _ in range(50):
        inner = inner["properties"]["a"]
    assert inner == {"maxLength": 10**18 - 1}


@pytest.mark.parametrize(
    ("calling", "choice"),
    [
        ({"mode": "AUTO"}, ToolChoice("auto")),
        ({"mode": "any"}, ToolChoice("required")),
        ({"mode": "ANY", "allowedFunctionNames": ["f"]}, ToolChoice("tool", ("f",))),
        ({"mode": "ANY", "allowed_function_names": ["f", "g"]}, ToolChoice("required", ("f", "g"))),
        ({"mode": "NONE"}, ToolChoice("none")),
        ({"mode": "VALIDATED", "allowedFunctionNames": ["f"]}, ToolChoice("auto", ("f",))),
        ({"mode": "MODE_UNSPECIFIED"}, None),
    ],
)
def test_tool_choice(calling: dict[str, Any], choice: ToolChoice | None) -> None:
    assert read(toolConfig={"functionCallingConfig": calling}).tool_choice == choice


def test_options() -> None:
    asked = read(
        generation_config={
            "temperature": 0.5,
            "top_p": 0.9,
            "topK": 40.0,
            "maxOutputTokens": "100",
            "stopSequences": ["x"],
            "seed": 7,
            "presencePenalty": 0.1,
            "frequencyPenalty": 0.2,
            "candidateCount": 1,
            "responseModalities": ["TEXT"],
        }
    )
    assert (asked.temperature, asked.top_p, asked.top_k, asked.max_tokens) == (0.5, 0.9, 40, 100)
    assert (asked.stop, asked.seed, asked.presence_penalty, asked.frequency_penalty) == (["x"], 7, 0.1, 0.2)
    assert asked.extras == {}


@pytest.mark.parametrize(
    "value", [2**63, str(2**63), "9" * 20, -(2**63) - 1, 1e300, "1.5", "", "\u0663", True]
)
def test_a_number_is_an_integer_of_64_bits(value: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(generationConfig={"seed": value})
    assert refused.value.param == "generationConfig.seed"
    assert read(generationConfig={"seed": str(2**63 - 1)}).seed == 2**63 - 1


@pytest.mark.parametrize(
    ("thinking", "options"),
    [
        ({"thinkingLevel": "HIGH", "includeThoughts": True}, ReasoningOptions("high", summary="auto")),
        ({"thinkingBudget": -1, "includeThoughts": True}, ReasoningOptions(summary="auto")),
        ({"thinkingBudget": 0}, ReasoningOptions(mode="disabled")),
        ({"thinkingBudget": 8192}, ReasoningOptions("medium")),
        ({"thinkingBudget": 24576}, ReasoningOptions("high")),
    ],
)
def test_thinking(thinking: dict[str, Any], options: ReasoningOptions) -> None:
    assert read(generationConfig={"thinkingConfig": thinking}).reasoning == options


def test_structured_output() -> None:
    config = {"responseMimeType": "application/json", "responseJsonSchema": {"type": "OBJECT"}}
    assert read(generationConfig=config).output == OutputFormat("json_schema", schema={"type": "object"})
    config = {"responseMimeType": "application/json"}
    assert read(generationConfig=config).output == OutputFormat("json_object")


def test_what_has_no_place_is_named() -> None:
    asked = read(
        safetySettings=[{"category": "X"}],
        cachedContent="cachedContents/x",
        tools=[{"googleSearch": {}}, {"codeExecution": {}, "url_context": {}}],
        toolConfig={"retrievalConfig": {"languageCode": "en"}},
        generationConfig={"mediaResolution": "LOW", "responseLogprobs": True},
    )
    assert set(asked.extras) == {
        "safetySettings",
        "cachedContent",
        "tools.googleSearch",
        "tools.codeExecution",
        "tools.urlContext",
        "toolConfig.retrievalConfig",
        "generationConfig.mediaResolution",
        "generationConfig.responseLogprobs",
    }


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"contents": []}, "contents"),
        ({"contents": "x"}, "contents"),
        ({"contents": [1]}, "contents.0"),
        ({"contents": [{"role": "system", "parts": []}]}, "contents.0.role"),
        ({"contents": [{"parts": [{"text": 1}]}]}, "contents.0.parts.0.text"),
        ({"contents": [{"parts": [{"functionCall": {}}]}]}, "contents.0.parts.0.functionCall.name"),
        (
            {"contents": [{"parts": [{"inlineData": {"mimeType": "a/b"}}]}]},
            "contents.0.parts.0.inlineData.data",
        ),
        (
            {"contents": [{"parts": [{"text": "x", "thoughtSignature": 1}]}]},
            "contents.0.parts.0.thoughtSignature",
        ),
        ({"tools": [{"functionDeclarations": [{}]}]}, "tools.0.functionDeclarations.0.name"),
        ({"generationConfig": {"candidateCount": 2}}, "generationConfig.candidateCount"),
        ({"generationConfig": {"temperature": "hot"}}, "generationConfig.temperature"),
        ({"generationConfig": {"stopSequences": [1]}}, "generationConfig.stopSequences.0"),
        ({"toolConfig": {"functionCallingConfig": {"mode": "X"}}}, "toolConfig.functionCallingConfig.mode"),
        ({"systemInstruction": 1}, "systemInstruction"),
    ],
)
def test_a_wrong_value_is_reported_by_its_path(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(**fields)
    assert caught.value.param == param
