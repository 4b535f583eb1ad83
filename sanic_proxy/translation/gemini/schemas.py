"""Gemini's schemas -> JSON Schema. Pure.

`parameters` and `responseSchema` hold a schema of OpenAPI 3.0 with types in upper case, numbers as strings
and fields of its own; `parametersJsonSchema` and `responseJsonSchema` a JSON Schema, in which gemini-cli
writes types in upper case as well. Both are read alike.
https://ai.google.dev/api/caching#Schema
"""

from __future__ import annotations

from typing import Any

from sanic_proxy.json_types import Json
from sanic_proxy.translation.gemini.values import camel
from sanic_proxy.translation.responses.checked import wrong

_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
# Fields whose values are schemas: one, a list of them, or an object of them by name.
_OF_ONE = frozenset(
    {"additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then"}
)
_OF_LIST = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_OF_NAMES = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
_COUNTS = frozenset({"maxItems", "maxLength", "maxProperties", "minItems", "minLength", "minProperties"})
# An order for the output, which JSON Schema does not know.
_IGNORED = frozenset({"propertyOrdering"})
# Levels of schemas within schemas; each takes several frames of the stack.
_MAX_DEPTH = 100
_MAX_DIGITS = 18  # of an integer with 64 bits, which JSON encoders can write


def json_schema(schema: Json, path: str, depth: int = _MAX_DEPTH) -> Json:
    """`schema` with the types, names and numbers of JSON Schema.

    `path` is the parameter that has the whole schema. Raises InvalidRequest for one of over `depth` levels,
    and for counts of over 18 digits.
    """
    if depth == 0:
        raise wrong(path, f"a schema of at most {_MAX_DEPTH} levels")
    written: Json = {}
    for field, value in schema.items():
        name = camel(field)
        if name == "type":
            written |= _type(value)
        elif name in _COUNTS and isinstance(value, str) and value.isdecimal():
            if len(value) > _MAX_DIGITS:
                raise wrong(path, f"a schema whose `{name}` has at most {_MAX_DIGITS} digits")
            written[name] = int(value)
        elif name == "example":
            written["examples"] = [value]
        elif name == "format" and value == "enum":
            continue
        elif name not in _IGNORED and name != "nullable":
            written[name] = _value(name, value, path, depth - 1)
    return _nullable(written) if schema.get("nullable") is True else written


def _value(name: str, value: Any, path: str, depth: int) -> Any:
    if name in _OF_ONE and isinstance(value, dict):
        return json_schema(value, path, depth)
    if (name in _OF_LIST or name == "items") and isinstance(value, list):
        return [_item(item, path, depth) for item in value]
    if name in _OF_NAMES and isinstance(value, dict):
        return {key: _item(item, path, depth) for key, item in value.items()}
    return value


def _item(value: Any, path: str, depth: int) -> Any:
    return json_schema(value, path, depth) if isinstance(value, dict) else value


def _type(value: Any) -> Json:
    if isinstance(value, list):
        return {"type": [_lower(item) for item in value]}
    return {} if value == "TYPE_UNSPECIFIED" else {"type": _lower(value)}


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) and value.lower() in _TYPES else value


def _nullable(schema: Json) -> Json:
    kind = schema.get("type")
    if not isinstance(kind, str):
        return {"anyOf": [schema, {"type": "null"}]}
    nullable = {**schema, "type": [kind, "null"]}
    if isinstance(values := schema.get("enum"), list) and None not in values:
        nullable["enum"] = [*values, None]
    return nullable
