"""Parts of a conversation -> content blocks for a Messages target. Pure."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

from sanic_proxy.json_types import Json
from sanic_proxy.translation import signatures
from sanic_proxy.translation.conversation import (
    Document,
    Image,
    Other,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)
from sanic_proxy.translation.messages import values
from sanic_proxy.translation.messages.placement import simple_content
from sanic_proxy.translation.messages.tools import tool_id
from sanic_proxy.translation.tool_names import Functions


class BlockWriter:
    """The blocks of one request. `drop` is called with the name of each part that cannot be written."""

    __slots__ = ("_drop", "_provider", "_tools")

    def __init__(self, provider: str, tools: Functions, drop: Callable[[str], None]) -> None:
        self._provider = provider
        self._tools = tools
        self._drop = drop

    def blocks(self, parts: Iterable[Part], role: str) -> Iterator[Json]:
        for part in parts:
            if (block := self._block(part, role)) is not None:
                yield block

    def _block(self, part: Part, role: str) -> Json | None:
        match part:
            case Text() | Refusal():
                return self._text(part, role)
            case Image() | Document() if role == "user":
                return self._image(part) if isinstance(part, Image) else self._document(part)
            case Reasoning() if role == "assistant":
                return self._reasoning(part)
            case ToolCall() if role == "assistant":
                return self._call(part)
            case ToolResult() if role == "user":
                return self._result(part)
            case Other(kind, value) if kind in values.OWN_BLOCKS and (role == "user" or kind != "document"):
                return value
            case _:
                kind = part.type if isinstance(part, Other) else type(part).__name__.lower()
                self._drop(f"messages.{kind}")
                return None

    def _text(self, part: Text | Refusal, role: str) -> Json | None:
        """None for a blank text, which the API refuses."""
        if not part.text.strip():
            return None
        if isinstance(part, Refusal):
            return text_block(part.text)
        if part.citations and role != "assistant":
            self._drop("messages.citations")
            return text_block(part.text, part.cache_control)
        return text_block(part.text, part.cache_control, part.citations)

    def _image(self, image: Image) -> Json | None:
        source = _source(image.url, image.file_id)
        if source is None:
            self._drop("messages.image")
            return None
        if image.detail not in {None, "auto"}:
            self._drop("messages.image.detail")
        return _marked({"type": "image", "source": source}, image.cache_control)

    def _document(self, document: Document) -> Json | None:
        source: Json | None = {"type": "text", "media_type": "text/plain", "data": document.text}
        if not document.text:
            source = _document_source(document)
        if source is None:
            self._drop("messages.document")
            return None
        block: Json = {"type": "document", "source": source}
        fields = (("title", document.name), ("context", document.context), ("citations", document.citations))
        block.update({name: value for name, value in fields if value})
        return _marked(block, document.cache_control)

    def _reasoning(self, reasoning: Reasoning) -> Json | None:
        is_theirs = reasoning.origin in {self._provider, signatures.native(values.API)}
        if not reasoning.signature or not is_theirs:
            self._drop("messages.reasoning")
            return None
        if reasoning.is_redacted:
            return {"type": "redacted_thinking", "data": reasoning.signature}
        return {"type": "thinking", "thinking": reasoning.text, "signature": reasoning.signature}

    def _call(self, call: ToolCall) -> Json:
        block = {
            "type": "tool_use",
            "id": tool_id(call.id),
            "name": self._tools.add(call.kind, call.name, call.namespace),
            "input": values.tool_input(call),
        }
        return _marked(block, call.cache_control)

    def _result(self, result: ToolResult) -> Json:
        block: Json = {"type": "tool_result", "tool_use_id": tool_id(result.call_id)}
        if content := list(self.blocks(result.content, "user")):
            block["content"] = simple_content(content)
        if result.is_error:
            block["is_error"] = True
        return _marked(block, result.cache_control)


def text_block(text: str, cache_control: Json | None = None, citations: list[Any] | None = None) -> Json:
    block: Json = {"type": "text", "text": text}
    if citations:
        block["citations"] = citations
    return _marked(block, cache_control)


def _marked(block: Json, cache_control: Json | None) -> Json:
    if cache_control:
        block["cache_control"] = cache_control
    return block


def _source(url: str, file_id: str) -> Json | None:
    """The `source` of an image or document; None for a URL of another scheme."""
    if file_id:
        return {"type": "file", "file_id": file_id}
    if (parts := _data_url(url)) is not None:
        media_type, data = parts
        return {"type": "base64", "media_type": media_type, "data": data}
    return {"type": "url", "url": url} if url[:8].lower().startswith(("https://", "http://")) else None


def _document_source(document: Document) -> Json | None:
    source = _source(document.url, document.file_id)
    if source is None or source["type"] != "base64" or not source["media_type"].startswith("text/"):
        return source
    try:
        text = base64.b64decode(source["data"]).decode()
    except ValueError:
        return None
    return {"type": "text", "media_type": "text/plain", "data": text}


def _data_url(url: str) -> tuple[str, str] | None:
    """The media type and the base64 of a data URL; None for any other."""
    if url[:5].lower() != "data:":
        return None
    head, comma, data = url[5:].partition(",")
    media_type, *attributes = head.split(";")
    if not comma or not media_type:
        return None
    if "base64" not in attributes:
        data = base64.b64encode(unquote_to_bytes(data)).decode()
    return media_type, data
