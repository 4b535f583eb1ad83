"""Annotations of a text, citations of web pages: nested in chats, flat in the middle shape. Pure."""

from __future__ import annotations

from typing import Any

from sanic_proxy.json_types import JsonMapping

_TYPE = "url_citation"


def read(message: JsonMapping) -> list[Any] | None:
    """The annotations of a chat's message, flat; None if it has none."""
    found = message.get("annotations")
    if not isinstance(found, list) or not found:
        return None
    return [_flat(annotation) for annotation in found]


def _flat(annotation: Any) -> Any:
    if isinstance(annotation, dict) and isinstance(nested := annotation.get(_TYPE), dict):
        return {"type": _TYPE, **nested}
    return annotation


def written(annotations: list[Any]) -> list[Any]:
    """The `annotations` that a chat can have: citations of pages."""
    return [
        {"type": _TYPE, _TYPE: {key: value for key, value in annotation.items() if key != "type"}}
        for annotation in annotations
        if isinstance(annotation, dict) and annotation.get("type") == _TYPE
    ]
