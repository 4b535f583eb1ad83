"""The JSON body of a request, checked for what is relied on and no further."""

from __future__ import annotations

from typing import Any

from sanic_proxy.errors import InvalidRequest, UnsupportedMedia
from sanic_proxy.openai import codec
from sanic_proxy.server.request import ProxyRequest

_REFUSED_TYPES = ("text/", "application/x-www-form-urlencoded", "multipart/")


def json_object(request: ProxyRequest) -> dict[str, Any]:
    """The body's object. Raises UnsupportedMedia or InvalidRequest.

    A missing content type is taken for JSON, as plain HTTP clients leave it out. Types that a web
    page may send without asking first (text, forms) are refused.
    """
    content_type = request.fields.get("content-type", "")
    if content_type != "application/json":
        _check_type(content_type.lower())
    check_encoding(request)
    parsed = codec.loads_strict(request.body)
    if not isinstance(parsed, dict):
        raise InvalidRequest("The JSON body must be an object")
    return parsed


def check_encoding(request: ProxyRequest) -> None:
    """Raises UnsupportedMedia for a body that is compressed."""
    if request.fields.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMedia("A compressed body is not accepted: send it without content-encoding")


def _check_type(content_type: str) -> None:
    kind, _, parameters = content_type.partition(";")
    charset = parameters.replace(" ", "").replace('"', "")
    if kind.strip().startswith(_REFUSED_TYPES) or "charset=utf-16" in charset:
        raise UnsupportedMedia("The body must be JSON in UTF-8: send `content-type: application/json`")


def text_field(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        said = "is missing" if name not in fields else "must be a string"
        raise InvalidRequest(f"The parameter `{name}` {said}", param=name)
    return value


def flag_field(fields: dict[str, Any], name: str) -> bool:
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidRequest(f"The parameter `{name}` must be true or false", param=name)
    return value is True


def list_field(fields: dict[str, Any], name: str) -> list[Any]:
    value = fields.get(name)
    if not isinstance(value, list) or not value:
        raise InvalidRequest(f"The parameter `{name}` must be a list that is not empty", param=name)
    return value
