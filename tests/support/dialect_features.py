"""The features of conversations, as data: a small request or answer for each, in each dialect that has it.

A request is added to `BASES`. `view` reads from a conversation what the feature is about: a translation has
kept it if the view of the client's request and that of the provider's request are equal. `marks` are texts of
the request: where the view differs and nothing is reported as dropped, the feature has arrived as text if all
of them stand in the provider's request.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sanic_proxy.translation.conversation import (
    Answer,
    Audio,
    Conversation,
    Document,
    Image,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)
from sanic_proxy.translation.gemini.thoughts import signature_of

Json = dict[str, Any]
PNG = "iVBORw0KGgo="
PDF = "JVBERi0xLjQ="
SCHEMA: Json = {
    "type": "object",
    "properties": {"city-mark": {"type": "string"}},
    "required": ["city-mark"],
    "additionalProperties": False,
}
GRAMMAR = {"syntax": "regex", "definition": "mark-[a-z]+"}

BASES: Mapping[str, Json] = {
    "chat": {"messages": [{"role": "user", "content": "text-mark"}]},
    "messages": {"max_tokens": 64, "messages": [{"role": "user", "content": "text-mark"}]},
    "responses": {"input": "text-mark"},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "text-mark"}]}]},
}


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature of requests; see the module. A dialect without it has no request."""

    name: str
    view: Callable[[Conversation], object]
    chat: Json | None = None
    messages: Json | None = None
    responses: Json | None = None
    gemini: Json | None = None
    marks: tuple[str, ...] = ()
    planned: tuple[str, ...] = ()

    def request(self, dialect: str, provider: str) -> Json | None:
        """The whole request in a dialect; None if it has no such feature."""
        own: Json | None = getattr(self, dialect)
        if own is None:
            return None
        fields = {"model": "PROVIDER/model-x", **BASES[dialect], **own}
        text = json.dumps(fields).replace("PROVIDER", provider)
        for origin in ("other", provider):
            pieces = [Reasoning("think-mark", "reasoning_content", origin)]
            is_native = (dialect, origin) == ("gemini", "google")
            signature = "c2ln" if is_native else signature_of(pieces) or ""
            text = text.replace(f"SIGNED({origin})", signature)
        made: Json = json.loads(text)
        return made


@dataclass(frozen=True, slots=True)
class AnswerFeature:
    """A feature of whole answers: one in each dialect that has it, and what of an answer it is about."""

    name: str
    view: Callable[[Answer], object]
    answers: Mapping[str, Json]
    asked: Mapping[str, Json] = field(default_factory=dict)  # added to the requests


# Views


def parts(conversation: Conversation) -> list[Part]:
    found: list[Part] = []
    for turn in conversation.turns:
        for part in turn.parts:
            found += [part, *part.content] if isinstance(part, ToolResult) else [part]
    return found


def of_kind(kind: type[Part], *names: str) -> Callable[[Conversation], object]:
    """The values of the fields `names` of all parts of a kind."""
    return lambda asked: [
        [getattr(part, name) for name in names] for part in parts(asked) if isinstance(part, kind)
    ]


def field_of(*names: str) -> Callable[[Conversation], object]:
    return lambda asked: [getattr(asked, name) for name in names]


def extra(*names: str) -> Callable[[Conversation], object]:
    return lambda asked: [asked.extras.get(name) for name in names]


def tool_fields(*names: str) -> Callable[[Conversation], object]:
    return lambda asked: [[getattr(tool, name) for name in names] for tool in asked.tools]


def systems(asked: Conversation) -> object:
    """Where system messages stand among the turns, and their texts."""
    return [
        (at, [part.text for part in turn.parts if isinstance(part, Text)])
        for at, turn in enumerate(asked.turns)
        if turn.role in {"system", "developer"}
    ]


def choice(asked: Conversation) -> object:
    wanted = asked.tool_choice
    return wanted and (wanted.mode, wanted.names)


def effort(asked: Conversation) -> object:
    return asked.reasoning and asked.reasoning.effort


def budget(asked: Conversation) -> object:
    """Whether there is a budget, or an effort in its place."""
    return bool(asked.reasoning and (asked.reasoning.budget_tokens or asked.reasoning.effort))


def document_texts(asked: Conversation) -> object:
    """The texts of documents, of files in base64 as well."""
    prefix = "data:text/plain;base64,"
    return [
        part.text or base64.b64decode(part.url.removeprefix(prefix)).decode()
        for part in parts(asked)
        if isinstance(part, Document) and (part.text or part.url.startswith(prefix))
    ]


def signed(asked: Conversation) -> object:
    """The reasoning that its provider can use: by its text, or by a signature that stands for it."""
    return [bool(part.text or part.signature) for part in parts(asked) if isinstance(part, Reasoning)]


def marks_of_cache(asked: Conversation) -> object:
    return [part.cache_control for part in parts(asked) if isinstance(part, Text)]


# Pieces of requests


def users(*content: Json) -> Json:
    return {"messages": [{"role": "user", "content": list(content)}]}


def inputs(*content: Json) -> Json:
    return {"input": [{"type": "message", "role": "user", "content": list(content)}]}


def functions(strict: bool | None = None, **more: Any) -> Json:
    function = {"name": "find_mark", "description": "Finds.", "parameters": SCHEMA}
    own = {} if strict is None else {"strict": strict}
    return {"tools": [{"type": "function", "function": {**function, **own}}], **more}


def anthropic_tools(**more: Any) -> Json:
    return {"tools": [{"name": "find_mark", "description": "Finds.", "input_schema": SCHEMA}], **more}


def response_tools(strict: bool = False, **more: Any) -> Json:
    tool = {"type": "function", "name": "find_mark", "description": "Finds.", "parameters": SCHEMA}
    return {"tools": [{**tool, "strict": strict}], **more}


def gemini_parts(*given: Json) -> Json:
    return {"contents": [{"role": "user", "parts": list(given)}]}


def config(**options: Any) -> Json:
    return {"generationConfig": options}


def gemini_tools(**calling: Any) -> Json:
    tool = {"name": "find_mark", "description": "Finds.", "parametersJsonSchema": SCHEMA}
    chosen = {"toolConfig": {"functionCallingConfig": calling}} if calling else {}
    return {"tools": [{"functionDeclarations": [tool]}], **chosen}


ASK = {"role": "user", "content": "text-mark"}
_ASKED = {"role": "user", "parts": [{"text": "text-mark"}]}
_GEMINI_CALL = {"id": "call_1", "name": "find_mark", "args": {"a": 1}}
_CALL = {"id": "call_1", "type": "function", "function": {"name": "find_mark", "arguments": '{"a":1}'}}
_USE = {"type": "tool_use", "id": "call_1", "name": "find_mark", "input": {"a": 1}}
_ITEM = {"type": "function_call", "call_id": "call_1", "name": "find_mark", "arguments": '{"a":1}'}


def chat_results(content: Any) -> Json:
    called = {"role": "assistant", "content": None, "tool_calls": [_CALL]}
    result = {"role": "tool", "tool_call_id": "call_1", "content": content}
    return functions(messages=[ASK, called, result])


def message_results(**result: Any) -> Json:
    block = {"type": "tool_result", "tool_use_id": "call_1", **result}
    turns = [ASK, {"role": "assistant", "content": [_USE]}, {"role": "user", "content": [block]}]
    return anthropic_tools(messages=turns)


def gemini_results(**response: Any) -> Json:
    called = {"functionCall": _GEMINI_CALL}
    result = {"functionResponse": {"id": "call_1", "name": "find_mark", "response": response}}
    turns = [_ASKED, {"role": "model", "parts": [called]}, {"role": "user", "parts": [result]}]
    return {**gemini_tools(), "contents": turns}


def gemini_history(*given: Json) -> Json:
    """A conversation with an answer of these parts."""
    return {"contents": [_ASKED, {"role": "model", "parts": list(given)}, _ASKED]}


def response_results(output: Any) -> Json:
    result = {"type": "function_call_output", "call_id": "call_1", "output": output}
    return response_tools(input=[ASK, _ITEM, result])


_IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
_IMAGE_URL = f"data:image/png;base64,{PNG}"
_LINK = "https://example.com/mark.png"
_PDF_URL = f"data:application/pdf;base64,{PDF}"
_PDF_LINK = "https://example.com/mark.pdf"
_CACHE = {"type": "ephemeral"}
# A signature of the provider's own: the name of the field in which a chat returns reasoning.
_MARKED = "sp1.PROVIDER.cmVhc29uaW5nX2NvbnRlbnQ="

FEATURES: Sequence[Feature] = (
    Feature(
        "text",
        of_kind(Text, "text"),
        {},
        {},
        {},
        marks=("text-mark",),
        gemini={},
    ),
    Feature(
        "stream",
        field_of("is_streaming"),
        {"stream": True},
        {"stream": True},
        {"stream": True},
        marks=('"stream": true',),
        gemini={"stream": True},
    ),
    Feature(
        "usage in streams",
        field_of("include_usage"),
        {"stream": True, "stream_options": {"include_usage": True}},
        {"stream": True},
        {"stream": True},
        marks=('"stream": true',),
        gemini={"stream": True},
    ),
    Feature(
        "system prompt",
        systems,
        {"messages": [{"role": "system", "content": "sys-mark"}, ASK]},
        {"system": "sys-mark"},
        {"instructions": "sys-mark"},
        marks=("sys-mark",),
        gemini={"systemInstruction": {"parts": [{"text": "sys-mark"}]}},
    ),
    Feature(
        "system message in mid-conversation",
        systems,
        {"messages": [ASK, {"role": "system", "content": "sys-mark"}, ASK]},
        {
            "messages": [
                ASK,
                {"role": "system", "content": "sys-mark"},
                {"role": "assistant", "content": "ok"},
                ASK,
            ]
        },
        {"input": [ASK, {"role": "system", "content": "sys-mark"}, ASK]},
        marks=("sys-mark",),
    ),
    Feature(
        "participant's name",
        lambda asked: [turn.name for turn in asked.turns],
        {"messages": [{**ASK, "name": "name-mark"}]},
        marks=("name-mark",),
    ),
    Feature(
        "tools",
        tool_fields("name", "description", "parameters"),
        functions(),
        anthropic_tools(),
        response_tools(),
        marks=("find_mark", "city-mark"),
        gemini=gemini_tools(),
    ),
    Feature(
        "strict tools",
        tool_fields("strict"),
        functions(strict=True),
        {"tools": [{"name": "find_mark", "input_schema": SCHEMA, "strict": True}]},
        response_tools(strict=True),
        marks=("find_mark", "strict"),
    ),
    Feature(
        "no parallel calls",
        field_of("parallel_tool_calls"),
        functions(parallel_tool_calls=False),
        anthropic_tools(tool_choice={"type": "auto", "disable_parallel_tool_use": True}),
        response_tools(parallel_tool_calls=False),
        marks=('"parallel": false',),
    ),
    Feature(
        "forced tool",
        choice,
        functions(tool_choice={"type": "function", "function": {"name": "find_mark"}}),
        anthropic_tools(tool_choice={"type": "tool", "name": "find_mark"}),
        response_tools(tool_choice={"type": "function", "name": "find_mark"}),
        marks=("find_mark",),
        gemini=gemini_tools(mode="ANY", allowedFunctionNames=["find_mark"]),
    ),
    Feature(
        "any tool demanded",
        choice,
        functions(tool_choice="required"),
        anthropic_tools(tool_choice={"type": "any"}),
        response_tools(tool_choice="required"),
        marks=("find_mark",),
        gemini=gemini_tools(mode="ANY"),
    ),
    Feature(
        "calls and results in the history",
        lambda asked: [of_kind(ToolCall, "name", "arguments")(asked), of_kind(Text, "text")(asked)],
        chat_results("result-mark"),
        message_results(content="result-mark"),
        response_results("result-mark"),
        marks=("find_mark", "result-mark"),
        gemini=gemini_results(output="result-mark"),
    ),
    Feature(
        "failed tool results",
        of_kind(ToolResult, "is_error"),
        messages=message_results(content="result-mark", is_error=True),
        marks=("rror", "result-mark"),
        gemini=gemini_results(error="result-mark"),
    ),
    Feature(
        "images in tool results",
        lambda asked: [
            [part.url for part in result.content if isinstance(part, Image)]
            for result in parts(asked)
            if isinstance(result, ToolResult)
        ],
        messages=message_results(content=[_IMAGE]),
        responses=response_results([{"type": "input_image", "image_url": _IMAGE_URL}]),
        marks=(PNG,),
        planned=("[image 1]",),
    ),
    Feature(
        "images",
        of_kind(Image, "url"),
        users({"type": "image_url", "image_url": {"url": _IMAGE_URL}}),
        users(_IMAGE),
        inputs({"type": "input_image", "image_url": _IMAGE_URL}),
        marks=(PNG,),
        planned=("[image 1]",),
        gemini=gemini_parts({"inlineData": {"mimeType": "image/png", "data": PNG}}),
    ),
    Feature(
        "images by URL",
        of_kind(Image, "url"),
        users({"type": "image_url", "image_url": {"url": _LINK}}),
        users({"type": "image", "source": {"type": "url", "url": _LINK}}),
        inputs({"type": "input_image", "image_url": _LINK}),
        marks=(_LINK,),
        gemini=gemini_parts({"fileData": {"mimeType": "image/png", "fileUri": _LINK}}),
    ),
    Feature(
        "detail of images",
        of_kind(Image, "detail"),
        users({"type": "image_url", "image_url": {"url": _LINK, "detail": "high"}}),
        responses=inputs({"type": "input_image", "image_url": _LINK, "detail": "high"}),
        marks=("high",),
    ),
    Feature(
        "documents",
        of_kind(Document, "url"),
        users({"type": "file", "file": {"file_data": _PDF_URL, "filename": "a.pdf"}}),
        users(
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}}
        ),
        inputs({"type": "input_file", "file_data": _PDF_URL, "filename": "a.pdf"}),
        marks=(PDF,),
        gemini=gemini_parts({"inlineData": {"mimeType": "application/pdf", "data": PDF}}),
    ),
    Feature(
        "documents by URL",
        of_kind(Document, "url"),
        messages=users({"type": "document", "source": {"type": "url", "url": _PDF_LINK}}),
        responses=inputs({"type": "input_file", "file_url": _PDF_LINK}),
        marks=(_PDF_LINK,),
        gemini=gemini_parts({"fileData": {"mimeType": "application/pdf", "fileUri": _PDF_LINK}}),
    ),
    Feature(
        "documents as text",
        document_texts,
        messages=users(
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "doc-mark"}}
        ),
        marks=("doc-mark",),
        gemini=gemini_parts({"inlineData": {"mimeType": "text/plain", "data": "ZG9jLW1hcms="}}),
    ),
    Feature(
        "audio",
        of_kind(Audio, "data"),
        users({"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}}),
        marks=(PNG,),
        gemini=gemini_parts({"inlineData": {"mimeType": "audio/wav", "data": PNG}}),
    ),
    Feature(
        "JSON mode",
        lambda asked: asked.output and asked.output.type,
        {"response_format": {"type": "json_object"}},
        responses={"text": {"format": {"type": "json_object"}}},
        marks=("json_object",),
        planned=("JSON object", '"schema": null'),
        gemini=config(responseMimeType="application/json"),
    ),
    Feature(
        "structured output",
        lambda asked: asked.output and asked.output.schema,
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}},
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        {"text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}},
        marks=("city-mark",),
        gemini=config(responseMimeType="application/json", responseJsonSchema=SCHEMA),
    ),
    Feature(
        "effort of reasoning",
        effort,
        {"reasoning_effort": "low"},
        {"output_config": {"effort": "low"}},
        {"reasoning": {"effort": "low"}},
        marks=('"low"',),
        gemini=config(thinkingConfig={"thinkingLevel": "LOW"}),
    ),
    Feature(
        "budget of reasoning",
        budget,
        messages={"max_tokens": 4096, "thinking": {"type": "enabled", "budget_tokens": 2000}},
        gemini=config(thinkingConfig={"thinkingBudget": 2000}),
    ),
    Feature(
        "summaries of reasoning",
        lambda asked: asked.reasoning and bool(asked.reasoning.summary or asked.reasoning.display),
        messages={"thinking": {"type": "adaptive", "display": "summarized"}},
        responses={"reasoning": {"effort": "low", "summary": "auto"}},
        gemini=config(thinkingConfig={"thinkingLevel": "LOW", "includeThoughts": True}),
    ),
    Feature(
        "stop sequences",
        field_of("stop"),
        {"stop": ["stop-mark"]},
        {"stop_sequences": ["stop-mark"]},
        marks=("stop-mark",),
        gemini=config(stopSequences=["stop-mark"]),
    ),
    Feature(
        "limit of tokens",
        field_of("max_tokens"),
        {"max_completion_tokens": 77},
        {"max_tokens": 77},
        {"max_output_tokens": 77},
        marks=("77",),
        gemini=config(maxOutputTokens=77),
    ),
    Feature(
        "temperature",
        field_of("temperature"),
        {"temperature": 0.25},
        {"temperature": 0.25},
        {"temperature": 0.25},
        marks=("0.25",),
        gemini=config(temperature=0.25),
    ),
    Feature(
        "top_p",
        field_of("top_p"),
        {"top_p": 0.75},
        {"top_p": 0.75},
        {"top_p": 0.75},
        marks=("0.75",),
        gemini=config(topP=0.75),
    ),
    Feature(
        "top_k",
        field_of("top_k"),
        {"top_k": 33},
        {"top_k": 33},
        marks=("33",),
        gemini=config(topK=33),
    ),
    Feature(
        "seed",
        field_of("seed"),
        {"seed": 4711},
        marks=("4711",),
        gemini=config(seed=4711),
    ),
    Feature(
        "penalties",
        field_of("presence_penalty", "frequency_penalty"),
        {"presence_penalty": 0.3, "frequency_penalty": 0.6},
        marks=("0.3", "0.6"),
        gemini=config(presencePenalty=0.3, frequencyPenalty=0.6),
    ),
    Feature("logit_bias", extra("logit_bias"), {"logit_bias": {"50256": -100}}, marks=("50256",)),
    Feature(
        "logprobs",
        lambda asked: asked.top_logprobs or asked.extras.get("generationConfig.responseLogprobs"),
        {"logprobs": True, "top_logprobs": 3},
        responses={"top_logprobs": 3},
        marks=("logprobs",),
        gemini=config(responseLogprobs=True, logprobs=3),
    ),
    Feature(
        "several answers (n)",
        extra("n"),
        {"n": 2},
        marks=('"n"',),
        gemini=config(candidateCount=2),
    ),
    Feature(
        "verbosity", field_of("verbosity"), {"verbosity": "low"}, responses={"text": {"verbosity": "low"}}
    ),
    Feature(
        "end user's id",
        field_of("user"),
        {"user": "user-mark"},
        {"metadata": {"user_id": "user-mark"}},
        {"safety_identifier": "user-mark"},
        marks=("user-mark",),
    ),
    Feature(
        "metadata",
        field_of("metadata"),
        {"metadata": {"team": "meta-mark"}},
        responses={"metadata": {"team": "meta-mark"}},
        marks=("meta-mark",),
    ),
    Feature(
        "service tier",
        field_of("service_tier"),
        {"service_tier": "flex"},
        {"service_tier": "standard_only"},
        {"service_tier": "flex"},
        marks=('"flex"',),
    ),
    Feature(
        "cache marks",
        marks_of_cache,
        users({"type": "text", "text": "text-mark", "cache_control": _CACHE}),
        users({"type": "text", "text": "text-mark", "cache_control": _CACHE}),
        marks=("ephemeral",),
    ),
    Feature(
        "cache key",
        field_of("prompt_cache_key"),
        {"prompt_cache_key": "cache-mark"},
        responses={"prompt_cache_key": "cache-mark"},
        marks=("cache-mark",),
    ),
    Feature(
        "custom tools",
        tool_fields("name", "kind", "format"),
        {
            "tools": [
                {
                    "type": "custom",
                    "custom": {"name": "find_mark", "format": {"type": "grammar", "grammar": GRAMMAR}},
                }
            ]
        },
        responses={
            "tools": [{"type": "custom", "name": "find_mark", "format": {"type": "grammar", **GRAMMAR}}]
        },
        marks=("find_mark", "mark-[a-z]+"),
    ),
    Feature(
        "namespaces of tools",
        tool_fields("name", "namespace"),
        responses={
            "tools": [
                {"type": "namespace", "name": "crm", "description": "d", "tools": response_tools()["tools"]}
            ]
        },
        marks=("crm__find_mark",),
    ),
    Feature(
        "hosted tools",
        lambda asked: [name for name in asked.extras if name.startswith("tools.")],
        {"web_search_options": {}},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"tools": [{"type": "web_search"}]},
        marks=("web_search",),
        gemini={"tools": [{"googleSearch": {}}]},
    ),
    Feature(
        "prefilled answers",
        lambda asked: asked.turns[-1].role,
        {"messages": [ASK, {"role": "assistant", "content": "fill-mark"}]},
        {"messages": [ASK, {"role": "assistant", "content": "fill-mark"}]},
        {"input": [ASK, {"role": "assistant", "content": "fill-mark"}]},
        marks=("fill-mark",),
        gemini={"contents": [_ASKED, {"role": "model", "parts": [{"text": "fill-mark"}]}]},
    ),
    Feature(
        "refusals in the history",
        of_kind(Refusal, "text"),
        {"messages": [ASK, {"role": "assistant", "refusal": "no-mark"}, ASK]},
        responses={
            "input": [
                ASK,
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "refusal", "refusal": "no-mark"}],
                },
                ASK,
            ]
        },
        marks=("no-mark",),
    ),
    Feature(
        "reasoning of another provider in the history",
        of_kind(Reasoning, "text"),
        {"messages": [ASK, {"role": "assistant", "content": "ok", "reasoning_content": "think-mark"}, ASK]},
        {
            "messages": [
                ASK,
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "think-mark", "signature": "sp1.other.c2ln"},
                        {"type": "text", "text": "ok"},
                    ],
                },
                ASK,
            ]
        },
        marks=("think-mark",),
        gemini=gemini_history({"text": "ok", "thoughtSignature": "SIGNED(other)"}),
    ),
    Feature(
        "reasoning of the same provider in the history",
        signed,
        {
            "messages": [
                ASK,
                {
                    "role": "assistant",
                    "content": "ok",
                    "reasoning_details": [
                        {"type": "reasoning.text", "text": "think-mark", "signature": _MARKED, "index": 0}
                    ],
                },
                ASK,
            ]
        },
        {
            "messages": [
                ASK,
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "think-mark", "signature": _MARKED},
                        {"type": "text", "text": "ok"},
                    ],
                },
                ASK,
            ]
        },
        {
            "input": [
                ASK,
                {
                    "type": "reasoning",
                    "id": "rs_1",
                    "summary": [{"type": "summary_text", "text": "think-mark"}],
                    "encrypted_content": _MARKED,
                },
                {"role": "assistant", "content": "ok"},
                ASK,
            ]
        },
        marks=("think-mark",),
        gemini=gemini_history({"text": "ok", "thoughtSignature": "SIGNED(PROVIDER)"}),
    ),
    Feature(
        "calls that match their schemas",
        extra("toolConfig.functionCallingConfig.mode"),
        gemini=gemini_tools(mode="VALIDATED"),
    ),
    Feature(
        "safety settings",
        extra("safetySettings"),
        gemini={"safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]},
    ),
    Feature("cached content", extra("cachedContent"), gemini={"cachedContent": "cachedContents/a"}),
    Feature(
        "modalities of the answer",
        extra("generationConfig.responseModalities"),
        gemini=config(responseModalities=["AUDIO"]),
    ),
    Feature(
        "resolution of media",
        extra("generationConfig.mediaResolution"),
        gemini=config(mediaResolution="MEDIA_RESOLUTION_LOW"),
    ),
    Feature("storing", extra("store"), {"store": True}, marks=("store",)),
)


# Answers

_USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 20,
    "total_tokens": 50,
    "prompt_tokens_details": {"cached_tokens": 7},
    "completion_tokens_details": {"reasoning_tokens": 5},
}


def chat_answer(finish: str = "stop", *, stop_reason: str | None = None, **message: Any) -> Json:
    made = {"role": "assistant", "content": "text-mark", **message}
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": "m", "usage": _USAGE,
        "choices": [{"index": 0, "message": made, "finish_reason": finish, "stop_reason": stop_reason}],
    }  # fmt: skip


def message_answer(*content: Json, stop_reason: str = "end_turn", **more: Any) -> Json:
    usage = {"input_tokens": 23, "cache_read_input_tokens": 7, "output_tokens": 20}
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": stop_reason,
        "content": list(content) or [{"type": "text", "text": "text-mark"}], "stop_sequence": None,
        "usage": usage, **more,
    }  # fmt: skip


def response_answer(*output: Json, **more: Any) -> Json:
    usage = {"input_tokens": 30, "input_tokens_details": {"cached_tokens": 7}, "output_tokens": 20,
             "output_tokens_details": {"reasoning_tokens": 5}, "total_tokens": 50}  # fmt: skip
    return {
        "id": "resp_1", "object": "response", "created_at": 1700000000, "model": "m", "status": "completed",
        "output": list(output) or [said("text-mark")], "usage": usage, **more,
    }  # fmt: skip


def gemini_answer(*given: Json, finish: str = "STOP", **candidate: Any) -> Json:
    content = {"role": "model", "parts": list(given) or [{"text": "text-mark"}]}
    usage = {
        "promptTokenCount": 30, "candidatesTokenCount": 15, "thoughtsTokenCount": 5, "totalTokenCount": 50,
        "cachedContentTokenCount": 7,
    }  # fmt: skip
    return {
        "candidates": [{"content": content, "finishReason": finish, "index": 0, **candidate}],
        "usageMetadata": usage, "modelVersion": "m", "responseId": "r1",
    }  # fmt: skip


def said(text: str, annotations: Sequence[Json] = ()) -> Json:
    part = {"type": "output_text", "text": text, "annotations": list(annotations)}
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}


def answered(kind: type[Part], *names: str) -> Callable[[Answer], object]:
    return lambda answer: [
        [getattr(part, name) for name in names] for part in answer.parts if isinstance(part, kind)
    ]


_PLAIN: Mapping[str, Json] = {
    "chat": chat_answer(),
    "messages": message_answer(),
    "responses": response_answer(),
    "gemini": gemini_answer(),
}
_PAGE = {"url": "https://example.com", "title": "t", "start_index": 0, "end_index": 4}
_SIGNED: Mapping[str, Json] = {
    "chat": chat_answer(
        reasoning_details=[{"type": "reasoning.text", "text": "think-mark", "signature": "sig", "index": 0}]
    ),
    "messages": message_answer(
        {"type": "thinking", "thinking": "think-mark", "signature": "sig"}, {"type": "text", "text": "ok"}
    ),
    "responses": response_answer(
        {
            "type": "reasoning", "id": "rs_1", "encrypted_content": "sig",
            "summary": [{"type": "summary_text", "text": "think-mark"}],
        },
        said("ok"),
    ),
    "gemini": gemini_answer(
        {"text": "think-mark", "thought": True}, {"text": "ok", "thoughtSignature": "c2ln"}
    ),
}  # fmt: skip
_SHOWN = {"gemini": config(thinkingConfig={"includeThoughts": True})}

ANSWERS: Sequence[AnswerFeature] = (
    AnswerFeature(
        "text",
        answered(Text, "text"),
        _PLAIN,
    ),
    AnswerFeature(
        "several calls",
        answered(ToolCall, "id", "name", "arguments"),
        {
            "chat": chat_answer("tool_calls", content=None, tool_calls=[_CALL, {**_CALL, "id": "call_2"}]),
            "messages": message_answer(_USE, {**_USE, "id": "call_2"}, stop_reason="tool_use"),
            "responses": response_answer(_ITEM, {**_ITEM, "call_id": "call_2"}),
            "gemini": gemini_answer(*({"functionCall": {**_GEMINI_CALL, "id": f"call_{n}"}} for n in (1, 2))),
        },
        {
            "chat": functions(),
            "messages": anthropic_tools(),
            "responses": response_tools(),
            "gemini": gemini_tools(),
        },
    ),
    AnswerFeature("reasoning shown", answered(Reasoning, "text"), _SIGNED, _SHOWN),
    AnswerFeature(
        "reasoning that can be returned (signature)",
        lambda answer: any(part.signature for part in answer.parts if isinstance(part, Reasoning)),
        _SIGNED,
        _SHOWN,
    ),
    AnswerFeature(
        "which stop sequence was hit",
        lambda answer: (answer.finish, answer.stop_sequence),
        {
            "chat": chat_answer(stop_reason="stop-mark"),
            "messages": message_answer(stop_reason="stop_sequence", stop_sequence="stop-mark"),
        },
    ),
    AnswerFeature(
        "end at the limit of tokens",
        lambda answer: answer.finish,
        {
            "chat": chat_answer("length"),
            "messages": message_answer(stop_reason="max_tokens"),
            "gemini": gemini_answer(finish="MAX_TOKENS"),
            "responses": response_answer(
                status="incomplete", incomplete_details={"reason": "max_output_tokens"}
            ),
        },
    ),
    AnswerFeature(
        "refusals",
        lambda answer: answer.finish in {"refusal", "content_filter"}
        or any(isinstance(part, Refusal) for part in answer.parts),
        {
            "chat": chat_answer(content=None, refusal="no-mark"),
            "messages": message_answer(stop_reason="refusal"),
            "gemini": gemini_answer(finish="SAFETY"),
            "responses": response_answer(
                {**said(""), "content": [{"type": "refusal", "refusal": "no-mark"}]},
            ),
        },
    ),
    AnswerFeature(
        "usage",
        lambda answer: answer.usage and (answer.usage.input, answer.usage.output),
        _PLAIN,
    ),
    AnswerFeature(
        "cached tokens",
        lambda answer: answer.usage and answer.usage.cached,
        _PLAIN,
    ),
    AnswerFeature(
        "citations of web pages",
        lambda answer: [len(part.annotations or part.citations or ()) for part in answer.parts
                        if isinstance(part, Text)],
        {
            "chat": chat_answer(annotations=[{"type": "url_citation", "url_citation": _PAGE}]),
            "messages": message_answer(
                {
                    "type": "text", "text": "text-mark",
                    "citations": [{"type": "web_search_result_location", "url": "https://example.com",
                                   "title": "t", "cited_text": "c", "encrypted_index": "e"}],
                }
            ),
            "responses": response_answer(said("text-mark", [{"type": "url_citation", **_PAGE}])),
        },
    ),
)  # fmt: skip
