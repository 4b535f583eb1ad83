"""Text that lost its type on the way -> a value of the type a JSON Schema names. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sanic_proxy.providers.straico.repair import finite

_MAX_REFS = 8
_KINDS: Mapping[str, tuple[type, ...]] = {
    "number": (int, float),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}


def coerce(text: str, schema: object, root: Mapping[str, Any]) -> Any:
    """The value of a parameter written as bare text.

    Where a string may stand the text is kept to the letter, blanks included; without a type it is
    what it parses to, if that is no string. `root` is where `$ref`s point into.
    """
    schema = _resolved(schema, root)
    if (exact := _from_enum(text, schema)) is not None:
        return exact
    types = _types(schema, root)
    if "string" in types:
        return None if "null" in types and text.strip() == "null" else text
    try:
        value = json.loads(_pythonic(text.strip()), strict=False, parse_constant=_refuse, parse_float=finite)
    except (ValueError, RecursionError):
        return text
    if not types:
        return text if isinstance(value, str) else value
    return value if any(_is_a(value, kind) for kind in types) else text


def _pythonic(text: str) -> str:
    """`True` and `None` are what models write for `true` and `null`."""
    return {"True": "true", "False": "false", "None": "null"}.get(text, text)


def _refuse(name: str) -> None:
    raise ValueError(name)


def _from_enum(text: str, schema: Mapping[str, Any]) -> Any:
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    if not isinstance(values, list):
        return None
    return next((value for value in values if value is not None and _spelled(value) == text.strip()), None)


def _spelled(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _types(schema: Mapping[str, Any], root: Mapping[str, Any]) -> frozenset[str]:
    types = _named_types(schema)
    for key in ("anyOf", "oneOf", "allOf"):
        branches = schema.get(key)
        for branch in branches if isinstance(branches, list) else ():
            types |= _named_types(_resolved(branch, root))
    return types


def _named_types(schema: Mapping[str, Any]) -> frozenset[str]:
    named = schema.get("type")
    names = named if isinstance(named, list) else [named]
    types = frozenset(name for name in names if isinstance(name, str))
    return types | {"null"} if types and schema.get("nullable") is True else types


def _resolved(schema: object, root: Mapping[str, Any]) -> Mapping[str, Any]:
    for _ in range(_MAX_REFS):
        if not isinstance(schema, dict):
            return {}
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return schema
        schema = _at(root, reference[2:].split("/"))
    return {}


def _at(root: object, path: list[str]) -> object:
    for key in path:
        root = root.get(key) if isinstance(root, dict) else None
    return root


def _is_a(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, _KINDS.get(kind, ()))
