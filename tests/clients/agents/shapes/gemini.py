"""Google's Gemini: the model and the verb are in the path."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from typing_extensions import override

from tests.clients.agents.shapes import base
from tests.clients.agents.shapes.base import Call, Refusal, Round, Shape, Turn
from tests.support.gemini import frame, response
from tests.support.upstream import Exchange, Seen

MODEL = "gemini-3.1-pro"
USAGE: Mapping[str, Any] = {
    "promptTokenCount": 1900,
    "cachedContentTokenCount": 1000,
    "candidatesTokenCount": 20,
    "totalTokenCount": 1920,
}
# Accepted in place of a signature, see https://ai.google.dev/gemini-api/docs/thought-signatures
UNSIGNED = "skip_thought_signature_validator"
# https://ai.google.dev/api/generate-content
_FIELDS: base.Fields = {
    "contents": base.LIST,
    "systemInstruction": base.OBJECT,
    "tools": base.LIST,
    "toolConfig": base.OBJECT,
    "safetySettings": base.LIST,
    "generationConfig": base.OBJECT,
    "cachedContent": base.TEXT,
}
_CONTENT: base.Fields = {"role": base.TEXT, "parts": base.LIST}
_SIGNED: base.Fields = {"thought": base.FLAG, "thoughtSignature": base.TEXT}
_PARTS: Mapping[str, base.Fields] = {
    "text": {**_SIGNED, "text": base.TEXT},
    "inlineData": {**_SIGNED, "inlineData": base.OBJECT},
    "functionCall": {**_SIGNED, "functionCall": base.OBJECT},
    "functionResponse": {**_SIGNED, "functionResponse": base.OBJECT},
}
_CALL: base.Fields = {"id": base.TEXT, "name": base.TEXT, "args": base.OBJECT}
_RESPONSE: base.Fields = {"id": base.TEXT, "name": base.TEXT, "response": base.OBJECT, "parts": base.LIST}
_TOOL: base.Fields = {
    "name": base.TEXT,
    "description": base.TEXT,
    "parameters": base.OBJECT,
    "parametersJsonSchema": base.OBJECT,
}
_GENERATION: base.Fields = {
    "temperature": base.NUMBER,
    "topP": base.NUMBER,
    "topK": base.NUMBER,
    "maxOutputTokens": (int,),
    "stopSequences": base.LIST,
    "responseMimeType": base.TEXT,
    "responseJsonSchema": base.OBJECT,
    "thinkingConfig": base.OBJECT,
}
_MODEL = re.compile(r"/v1beta/models/([^:/]+):(generateContent|streamGenerateContent)")


def _error(message: str, *details: Mapping[str, Any]) -> dict[str, Any]:
    prefix = "type.googleapis.com/google.rpc."
    described = [{**detail, "@type": prefix + detail["@type"]} for detail in details]
    error = {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED", "details": described}
    return {"error": error}


class GeminiShape(Shape):
    """A thought's signature is the thought itself, as clients return the one without the other."""

    name = "gemini"
    path = f"/v1beta/models/{MODEL}:streamGenerateContent"
    whole_path = f"/v1beta/models/{MODEL}:generateContent"
    key_header = "x-goog-api-key"
    keeps_reasoning = True
    headers = frozenset(
        {
            *("host", "content-type", "content-length", "accept", "accept-encoding", "user-agent"),
            *("x-goog-api-key", "x-goog-api-client"),
        }
    )
    refusals: Mapping[str, Refusal] = {
        "busy": Refusal(
            429, _error(base.BUSY, {"@type": "RetryInfo", "retryDelay": f"{base.RETRY_AFTER_S}s"})
        ),
        "quota": Refusal(
            429,
            _error(
                base.QUOTA,
                {
                    "@type": "QuotaFailure",
                    "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}],
                },
            ),
        ),
    }

    @override
    def serves(self, path: str) -> bool:
        return _MODEL.fullmatch(path) is not None

    @override
    async def answer(self, exchange: Exchange, turn: Turn, number: int) -> None:
        parts = _parts(turn, self.tool_names(exchange.seen.json), number)
        if not self.is_streamed(exchange.seen):
            await exchange.answer(response(*parts, finish="STOP", usageMetadata=USAGE))
            return
        # Google ends some streams with a text without characters.
        *streamed, last = [*_streamed(parts), {"text": ""}]
        await exchange.stream(
            [*(frame(part) for part in streamed), frame(last, finish="STOP", usageMetadata=USAGE)]
        )

    @override
    async def break_off(self, exchange: Exchange, turn: Turn) -> None:
        await exchange.begin_stream()
        for part in _streamed(_parts(turn, [], 0))[:2]:
            await exchange.chunk(frame(part))
        await exchange.end_stream()

    @override
    def is_streamed(self, seen: Seen) -> bool:
        return ":streamGenerateContent" in seen.path

    @override
    def tool_names(self, body: Mapping[str, Any]) -> list[str]:
        return [tool["name"] for tool in _declarations(body)]

    @override
    def rounds(self, body: Mapping[str, Any]) -> list[Round]:
        rounds = []
        for content, following in zip(body["contents"], [*body["contents"][1:], {}], strict=True):
            called = [part["functionCall"] for part in content["parts"] if "functionCall" in part]
            if called:
                calls = tuple(Call(call["name"], call.get("args") or {}) for call in called)
                results = tuple(
                    json.dumps(part["functionResponse"]["response"], ensure_ascii=False)
                    for part in following.get("parts", [])
                    if "functionResponse" in part
                )
                rounds.append(Round(calls, results, _thought(content)))
        return rounds

    @override
    def violations(self, body: Mapping[str, Any]) -> Iterator[str]:
        yield from base.field_faults(body, _FIELDS, "body")
        yield from base.field_faults(body.get("generationConfig", {}), _GENERATION, "generationConfig")
        for tool in _declarations(body):
            yield from base.field_faults(tool, _TOOL, "tool")
            if "parametersJsonSchema" in tool:
                yield from base.schema_faults(tool["parametersJsonSchema"], tool.get("name"))
        yield from base.name_faults(self.tool_names(body))
        yield from _content_faults(body["contents"])


def _declarations(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [item for tool in body.get("tools") or [] for item in tool.get("functionDeclarations") or []]


def signature(thought: str) -> str:
    """The signature of a thought."""
    return base64.b64encode(thought.encode()).decode()


def _thought(content: Mapping[str, Any]) -> str:
    signed = [part["thoughtSignature"] for part in content["parts"] if "thoughtSignature" in part]
    own = [value for value in signed if value != UNSIGNED]
    return base64.b64decode(own[0]).decode() if own else ""


def _parts(turn: Turn, names: Sequence[str], number: int) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = [
        {
            "functionCall": {
                "id": base.call_id(number, index),
                "name": base.declared(call.tool, names),
                "args": {"input": call.arguments} if isinstance(call.arguments, str) else call.arguments,
            }
        }
        for index, call in enumerate(turn.calls)
    ]
    if calls and turn.thought:
        calls[0]["thoughtSignature"] = signature(turn.thought)
    return [
        *([{"text": turn.thought, "thought": True}] if turn.thought else []),
        *([{"text": turn.text}] if turn.text else []),
        *calls,
    ]


def _streamed(parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        piece
        for part in parts
        for piece in (
            [{**part, "text": text} for text in base.pieces(part["text"])] if "text" in part else [part]
        )
    ]


def _content_faults(contents: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A content that calls functions is followed by one with as many responses, in the same order."""
    called: list[object] = []
    for index, content in enumerate(contents):
        where = f"contents[{index}]"
        yield from base.field_faults(content, _CONTENT, where)
        if content.get("role") not in {"user", "model"}:
            yield f"{where} has the role {content.get('role')}"
        if not content.get("parts"):
            yield f"{where} is empty"
        for part in content["parts"]:
            yield from _part_faults(part, where)
        responses = _named(content, "functionResponse")
        if responses != called:
            yield f"{where} has the function responses {responses} to the calls {called}"
        called = _named(content, "functionCall")
        if called and content.get("role") != "model":
            yield f"{where} has calls of the user"
    if called:
        yield f"the function responses to {called} are missing"
    if contents[-1].get("role") != "user":
        yield "the last content is not the user's"


def _named(content: Mapping[str, Any], kind: str) -> list[object]:
    """Names and ids of the calls, or responses, of a content."""
    found = [part[kind] for part in content["parts"] if kind in part]
    return [(part.get("name"), part.get("id")) for part in found]


def _part_faults(part: Mapping[str, Any], where: str) -> Iterator[str]:
    kinds = [kind for kind in _PARTS if kind in part]
    if len(kinds) != 1:
        yield f"{where} has a part with {sorted(part)}"
        return
    (kind,) = kinds
    yield from base.field_faults(part, _PARTS[kind], f"{where}.{kind}")
    if kind in {"functionCall", "functionResponse"}:
        fields = _CALL if kind == "functionCall" else _RESPONSE
        yield from base.field_faults(part[kind], fields, f"{where}.{kind}")
    signed = part.get("thoughtSignature")
    if signed is not None and signed != UNSIGNED and not _is_own(signed):
        yield f"{where} has a signature that is not the upstream's"


def _is_own(signed: str) -> bool:
    try:
        return base64.b64decode(signed, validate=True).decode().endswith(".")
    except ValueError:
        return False
