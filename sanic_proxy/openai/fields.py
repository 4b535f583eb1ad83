"""Fields of a request's JSON object, checked for what is relied on. Each function raises InvalidRequest."""

from __future__ import annotations

from typing import Any

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.json_types import Json


def text_field(fields: Json, name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        problem = "is missing" if name not in fields else "must be a string"
        raise InvalidRequest(f"The parameter `{name}` {problem}", param=name)
    return value


def flag_field(fields: Json, name: str) -> bool:
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidRequest(f"The parameter `{name}` must be true or false", param=name)
    return value is True


def list_field(fields: Json, name: str) -> list[Any]:
    value = fields.get(name)
    if not isinstance(value, list) or not value:
        raise InvalidRequest(f"The parameter `{name}` must be a list that is not empty", param=name)
    return value
