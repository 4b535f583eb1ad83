"""What the items of requests and answers of Responses have in common. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai.responses import new_response_id
from sanic_proxy.translation.conversation import Reasoning, ReasoningEnd
from sanic_proxy.translation.signatures import native, unwrapped, wrapped
from sanic_proxy.translation.tool_names import digest

# The value of `include` that asks for reasoning which can be sent back without a store.
ENCRYPTED_REASONING = "reasoning.encrypted_content"

# The origin of reasoning that a client returns with a signature which is not one of ours.
NATIVE = native("responses")

# OpenAI takes ids of up to 64 characters; an item's id adds a prefix and its index.
_MAX_ID_CHARS = 50
_ID_PREFIX = re.compile(r"(?:chatcmpl|cmpl|gen|msg|resp)[-_]")
# Marks encrypted reasoning without text among signatures, none of which has a blank.
_REDACTED = "redacted "


def response_id(upstream_id: str) -> str:
    """The id of a response, made of the one that the provider gave its answer."""
    base = re.sub(r"[^a-zA-Z0-9_-]", "_", _ID_PREFIX.sub("", upstream_id, count=1))
    if not base:
        return new_response_id()
    return f"resp_{base if len(base) <= _MAX_ID_CHARS else digest(upstream_id, _MAX_ID_CHARS)}"


def item_id(prefix: str, of_response: str, index: int) -> str:
    """The id of a response's item of that index."""
    return f"{prefix}_{of_response.removeprefix('resp_')}_{index}"


def reasoning_parts(item: JsonMapping, origin: str = "") -> list[Reasoning]:
    """A reasoning item as one part for each text in it. The last one has the signature.

    `origin` is the provider that made the item, where it is known.
    """
    id_ = item.get("id")
    parts = [Reasoning(text, is_summary=True, id=id_) for text in _texts(item.get("summary"))]
    parts += [Reasoning(text, id=id_) for text in _texts(item.get("content"))]
    parts = parts or [Reasoning(id=id_)]
    end = reasoning_end(item, origin)
    last = parts[-1]
    last.signature, last.origin, last.is_redacted = end.signature, end.origin, end.is_redacted
    return parts


def reasoning_end(item: JsonMapping, origin: str = "") -> ReasoningEnd:
    """The signature of a reasoning item. One of our own names its origin itself."""
    encrypted = item.get("encrypted_content")
    if not isinstance(encrypted, str) or not encrypted:
        return ReasoningEnd()
    if (ours := unwrapped(encrypted)) is None:
        return ReasoningEnd(encrypted, origin)
    origin, value = ours
    return ReasoningEnd(value.removeprefix(_REDACTED), origin, value.startswith(_REDACTED))


def encrypted_content(end: ReasoningEnd | Reasoning) -> str | None:
    """The `encrypted_content` for a client, from which `reasoning_end` reads the same again."""
    if end.origin in {"", NATIVE}:
        return end.signature or None
    return wrapped(end.origin, (_REDACTED if end.is_redacted else "") + end.signature)


def _texts(parts: object) -> Iterator[str]:
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, Mapping) and isinstance(text := part.get("text"), str):
            yield text


def flat_annotations(annotations: object) -> list[Any]:
    """Annotations of a text as Responses has them: chats put the fields of a citation into an object."""
    listed = annotations if isinstance(annotations, list) else []
    return [_flat(annotation) for annotation in listed if isinstance(annotation, Mapping)]


def _flat(annotation: JsonMapping) -> Json:
    kind = annotation.get("type")
    inner = annotation.get(kind) if isinstance(kind, str) else None
    return {"type": kind, **inner} if isinstance(inner, Mapping) else dict(annotation)
