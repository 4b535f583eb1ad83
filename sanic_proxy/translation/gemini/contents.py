"""The contents of a client's request -> turns. Pure.

Calls and their results are matched by `id`. Many clients send none: such a call gets an id of its own, the
same in every request of the conversation, and a result without a known id answers the first call of its
name that has no result yet.
"""

from __future__ import annotations

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.json_types import Json
from sanic_proxy.translation import signatures
from sanic_proxy.translation.conversation import (
    Other,
    Part,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    Turn,
)
from sanic_proxy.translation.gemini import media, thoughts
from sanic_proxy.translation.gemini.fields import Fields
from sanic_proxy.translation.gemini.open_calls import OpenCalls
from sanic_proxy.translation.gemini.values import API
from sanic_proxy.translation.messages.values import arguments_of, json_text
from sanic_proxy.translation.responses.checked import wrong

# Fields of a part that are not its content.
_BESIDE_CONTENT = frozenset(
    {"mediaResolution", "partMetadata", "thought", "thoughtSignature", "videoMetadata"}
)


class ContentReader:
    """Reads the contents of one request, in order."""

    __slots__ = ("_calls", "_unnamed")

    def __init__(self) -> None:
        self._calls = OpenCalls()
        self._unnamed = 0

    def turns(self, content: Fields) -> list[Turn]:
        """The turns of one content: the results of tools first, as other APIs demand them."""
        role = content.optional_text("role") or "user"
        if role not in {"user", "model", "function"}:
            raise InvalidRequest(
                f"The parameter `{content.path}role` must be `user`, `model` or `function`",
                param=f"{content.path}role",
            )
        parts = self.parts(content)
        if role == "model":
            return [Turn("assistant", parts)] if parts else []
        results: list[Part] = [part for part in parts if isinstance(part, ToolResult)]
        own: list[Part] = [part for part in parts if not isinstance(part, ToolResult)]
        turns = (Turn("tool", results), Turn("user", own))
        return [turn for turn in turns if turn.parts]

    def parts(self, content: Fields) -> list[Part]:
        """The parts of a content. Reasoning that is carried by a signature stands before its part."""
        parts: list[Part] = []
        for fields in content.objects("parts"):
            part = self._part(fields)
            signature = fields.optional_text("thoughtSignature")
            if signature:
                self._add_signature(signature, part, parts)
            if not (isinstance(part, Text | Reasoning) and not part.text):
                parts.append(part)
        return [part for part in parts if not (isinstance(part, Reasoning) and not _is_of_use(part))]

    @staticmethod
    def _add_signature(signature: str, part: Part, parts: list[Part]) -> None:
        """Add the reasoning that `signature`, which stands at `part`, is of."""
        pieces = thoughts.pieces_of(signature)
        if isinstance(part, Reasoning):
            part.signature, part.origin = signature, signatures.native(API)
        elif pieces is None:
            parts.append(Reasoning("", signature, signatures.native(API)))
        else:
            # They have their texts with them.
            while parts and isinstance(parts[-1], Reasoning) and not parts[-1].signature:
                parts.pop()
            parts += pieces

    def _part(self, fields: Fields) -> Part:
        content = fields.fields
        if content.get("thought") is True:
            return Reasoning(fields.optional_text("text") or "", is_summary=True)
        if content.get("text") is not None:
            return Text(fields.text("text"))
        if (call := fields.inner("functionCall")) is not None:
            return self._call(call)
        if (result := fields.inner("functionResponse")) is not None:
            return self._result(result)
        return _media(fields) or _other(content)

    def _call(self, fields: Fields) -> ToolCall:
        id_ = fields.optional_text("id")
        if not id_:
            self._unnamed += 1
            id_ = f"unnamed_{self._unnamed}"
        call = ToolCall(id_, fields.text("name"), arguments_of(fields.json_object("args") or {}))
        self._calls.add(call)
        return call

    def _result(self, fields: Fields) -> ToolResult:
        name, id_ = fields.text("name"), fields.optional_text("id")
        if (call := self._calls.take(id_, name)) is not None:
            id_ = call.id
        elif not id_:
            self._unnamed += 1
            id_ = f"unnamed_{self._unnamed}"
        text, is_error = _result_text(fields.json_object("response") or {})
        content: list[Part] = [Text(text)] if text else []
        content += [_media(part) or _other(part.fields) for part in fields.objects("parts")]
        return ToolResult(id_, content, is_error)


def _is_of_use(part: Reasoning) -> bool:
    return bool(part.text or part.signature)


def _result_text(response: Json) -> tuple[str, bool]:
    """The text of a result, and whether it is an error: the key `output` or `error` has it, or all of them.

    https://ai.google.dev/api/caching#FunctionResponse
    """
    if len(response) == 1:
        name, value = next(iter(response.items()))
        if name in {"output", "error"}:
            return value if isinstance(value, str) else json_text(value), name == "error"
    return json_text(response) if response else "", False


def _media(fields: Fields) -> Part | None:
    if (data := fields.inner("inlineData")) is not None:
        return media.of_data(data.text("mimeType"), data.text("data"), data.optional_text("displayName"))
    if (file := fields.inner("fileData")) is not None:
        kind = file.optional_text("mimeType") or ""
        return media.of_file(file.text("fileUri"), kind, file.optional_text("displayName"))
    return None


def _other(content: Json) -> Part:
    names = [name for name in content if name not in _BESIDE_CONTENT]
    return Other(names[0], content) if names else Text("")


def system_parts(request: Fields) -> list[Part]:
    """The parts of the system instruction: a content or, as SDKs allow it, a string."""
    value = request.fields.get("systemInstruction")
    if isinstance(value, str):
        return [Text(value)] if value else []
    content = request.inner("systemInstruction")
    parts = [] if content is None else ContentReader().parts(content)
    if any(not isinstance(part, Text) for part in parts):
        raise wrong("systemInstruction.parts", "a list of texts")
    return parts
