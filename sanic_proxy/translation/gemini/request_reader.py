"""A client's request to generate content -> a conversation. Pure.

What the translation relies on is checked, and reported by its path as `contents.0.parts.1.text`. Everything
else is an open list: it goes to `extras` or `Other`, and never fails.

| Gemini | conversation |
|---|---|
| `functionDeclarations` | tools; built-in ones (`googleSearch`, ...) are extras |
| mode `ANY` of `functionCallingConfig` | "required", or "tool" where one name is allowed |
| mode `VALIDATED` | "auto": that calls match their schemas is what the proxy cannot ask for; an extra |
| `thinkingLevel` | effort |
| `thinkingBudget` | effort, by the table of `_EFFORTS`; 0: disabled; -1: the model's own choice |
| `includeThoughts` | a summary of the reasoning; without it, the answer has no thoughts |
| `responseMimeType` with a schema, or without | format `json_schema`, `json_object` |
"""

from __future__ import annotations

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.translation.conversation import (
    Conversation,
    OutputFormat,
    ReasoningOptions,
    Tool,
    ToolChoice,
    Turn,
)
from sanic_proxy.translation.gemini.contents import ContentReader, system_parts
from sanic_proxy.translation.gemini.fields import Fields
from sanic_proxy.translation.gemini.schemas import json_schema

_READ = frozenset(
    {"contents", "generationConfig", "model", "stream", "systemInstruction", "toolConfig", "tools"}
)
_READ_CONFIG = frozenset(
    {
        "candidateCount",
        "frequencyPenalty",
        "logprobs",
        "maxOutputTokens",
        "presencePenalty",
        "responseJsonSchema",
        "_responseJsonSchema",
        "responseLogprobs",
        "responseMimeType",
        "responseSchema",
        "seed",
        "stopSequences",
        "temperature",
        "thinkingConfig",
        "topK",
        "topP",
    }
)
# Values of further fields that ask for what holds anyway.
_WITHOUT_EFFECT: JsonMapping = {"responseModalities": ["TEXT"]}
# The effort in place of a budget of tokens, by the first budget that is too large for it.
# https://ai.google.dev/gemini-api/docs/openai#thinking has the same figures.
_EFFORTS = ((4096, "low"), (16384, "medium"))


def read(fields: JsonMapping) -> Conversation:
    """See `Format.read_request`. `model` and `stream` stand beside the client's fields."""
    request = Fields(dict(fields))
    reader = ContentReader()
    turns = [Turn("system", parts)] if (parts := system_parts(request)) else []
    count = len(turns)
    for content in request.objects("contents"):
        turns += reader.turns(content)
    if len(turns) == count:
        raise InvalidRequest("The parameter `contents` is missing or empty", param="contents")
    conversation = Conversation(
        model=request.text("model"), turns=turns, is_streaming=request.flag("stream") is True
    )
    conversation.extras.update(
        {name: value for name, value in request.fields.items() if name not in _READ and value is not None}
    )
    _read_tools(request, conversation)
    config = request.inner("generationConfig")
    if config is not None:
        _read_config(config, conversation)
    return conversation


def _read_tools(request: Fields, conversation: Conversation) -> None:
    for tool in request.objects("tools"):
        for declaration in tool.objects("functionDeclarations"):
            conversation.tools.append(_tool(declaration))
        for name, value in tool.fields.items():
            if name != "functionDeclarations" and value is not None:
                conversation.extras[f"tools.{name}"] = value
    config = request.inner("toolConfig")
    if config is None:
        return
    for name, value in config.fields.items():
        if name != "functionCallingConfig" and value is not None:
            conversation.extras[f"toolConfig.{name}"] = value
    if (calling := config.inner("functionCallingConfig")) is not None:
        conversation.tool_choice = _choice(calling)
        if calling.word("mode") == "VALIDATED":
            conversation.extras[f"{calling.path}mode"] = "VALIDATED"


def _tool(declaration: Fields) -> Tool:
    return Tool(
        name=declaration.text("name"),
        description=declaration.optional_text("description"),
        parameters=_schema(declaration, "parametersJsonSchema", "parameters"),
    )


def _schema(fields: Fields, *names: str) -> Json | None:
    """The schema in the first of these fields that has one that is not empty; else {} or None."""
    schema: Json | None = None
    for name in names:
        if schema := fields.json_object(name):
            return json_schema(schema, f"{fields.path}{name}")
    return schema


def _choice(calling: Fields) -> ToolChoice | None:
    names = tuple(calling.texts("allowedFunctionNames"))
    match calling.word("mode"):
        case "ANY" if len(names) == 1:
            return ToolChoice("tool", names)
        case "ANY":
            return ToolChoice("required", names)
        case "NONE":
            return ToolChoice("none")
        case "":
            return None
        case "AUTO" | "VALIDATED":
            return ToolChoice("auto", names)
        case _:
            path = f"{calling.path}mode"
            raise InvalidRequest(
                f"The parameter `{path}` must be `AUTO`, `ANY`, `NONE` or `VALIDATED`", param=path
            )


def _read_config(config: Fields, conversation: Conversation) -> None:
    if (config.whole_number("candidateCount") or 1) != 1:
        path = f"{config.path}candidateCount"
        raise InvalidRequest(
            f"This model gives one answer at a time: the parameter `{path}` must be 1", param=path
        )
    conversation.max_tokens = config.whole_number("maxOutputTokens")
    conversation.temperature = config.number("temperature")
    conversation.top_p = config.number("topP")
    conversation.top_k = config.whole_number("topK")
    conversation.stop = config.texts("stopSequences")
    conversation.seed = config.whole_number("seed")
    conversation.presence_penalty = config.number("presencePenalty")
    conversation.frequency_penalty = config.number("frequencyPenalty")
    if config.flag("responseLogprobs"):
        # Other APIs have them in places that Gemini's answers lack.
        conversation.extras["generationConfig.responseLogprobs"] = True
    _read_output(config, conversation)
    if (thinking := config.inner("thinkingConfig")) is not None:
        conversation.reasoning = _reasoning(thinking)
    for name, value in config.fields.items():
        if name not in _READ_CONFIG and value is not None and value != _WITHOUT_EFFECT.get(name):
            conversation.extras[f"generationConfig.{name}"] = value


def _read_output(config: Fields, conversation: Conversation) -> None:
    kind = config.optional_text("responseMimeType") or "text/plain"
    schema = _schema(config, "responseJsonSchema", "_responseJsonSchema", "responseSchema")
    if kind == "application/json" and schema:
        conversation.output = OutputFormat("json_schema", schema=schema)
    elif kind == "application/json":
        conversation.output = OutputFormat("json_object")
    elif kind != "text/plain":
        conversation.extras["generationConfig.responseMimeType"] = kind


def _reasoning(thinking: Fields) -> ReasoningOptions:
    effort = thinking.word("thinkingLevel").lower() or None
    budget = thinking.whole_number("thinkingBudget")
    if effort is None and budget is not None and budget > 0:
        effort = next((name for limit, name in _EFFORTS if budget < limit), "high")
    return ReasoningOptions(
        effort=effort,
        mode="disabled" if effort is None and budget == 0 else None,
        summary="auto" if thinking.flag("includeThoughts") is True else None,
    )
