"""Clients' JSON Schemas as data: references, types, and example values. Pure; nothing is validated here.

Schemas come from clients and may be malformed anywhere, so every lookup accepts any JSON value. References
may form cycles: following them is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

_MAX_REFS = 8
_MAX_EXAMPLE_DEPTH = 3
_MAX_EXAMPLE_MEMBERS = 8
_MAX_EXAMPLE_CHARS = 60


def resolve_pointer(root: object, reference: str) -> object:
    """The value that a `#/...` reference names (RFC 6901); None if there is no such value."""
    node = root
    for token in unquote(reference[1:]).split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict):
            node = node.get(key)
        elif isinstance(node, list) and key.isascii() and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        else:
            return None
    return node


def resolve_refs(schema: object, root: object) -> Mapping[str, object]:
    """`schema` with its `$ref` followed; empty for what is not an object, or a cycle."""
    for _ in range(_MAX_REFS):
        if not isinstance(schema, dict):
            return {}
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return schema
        schema = resolve_pointer(root, reference)
    return {}


def types_of(schema: Mapping[str, object], root: object) -> frozenset[str]:
    """The types that a schema names, in itself and one level down in its branches."""
    types = _named_types(schema)
    for key in ("anyOf", "oneOf", "allOf"):
        for branch in _list(schema.get(key)):
            types |= _named_types(resolve_refs(branch, root))
    return types


def _named_types(schema: Mapping[str, object]) -> frozenset[str]:
    named = schema.get("type")
    names = named if isinstance(named, list) else [named]
    types = frozenset(name for name in names if isinstance(name, str))
    return types | {"null"} if types and schema.get("nullable") is True else types


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def example_object(schema: Mapping[str, object], *, optional_count: int = 2) -> dict[str, object]:
    """An object with the required properties of a schema, or if none are required the first few."""
    return _example_members(schema, schema, 0, optional_count)


def _example_members(
    schema: Mapping[str, object], root: object, depth: int, optional_count: int = 1
) -> dict[str, object]:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {}
    required = frozenset(name for name in _list(schema.get("required")) if isinstance(name, str))
    names = [name for name in properties if name in required][:_MAX_EXAMPLE_MEMBERS]
    names = names or list(properties)[:optional_count]
    return {name: example_value(properties[name], root, depth + 1) for name in names}


def example_value(schema: object, root: object, depth: int = 0) -> object:
    """A value of the type that a schema names: a number for an integer, "..." for a string or any type."""
    resolved = resolve_refs(schema, root)
    for value in _given_examples(resolved):
        if _is_short_scalar(value):
            return value
    for branch in _branches(resolved):
        if _type_of(resolve_refs(branch, root)) != "null" and depth < _MAX_EXAMPLE_DEPTH:
            return example_value(branch, root, depth + 1)
    return _example_of_type(_type_of(resolved), resolved, root, depth)


def _example_of_type(kind: str | None, schema: Mapping[str, object], root: object, depth: int) -> object:
    if kind == "object":
        return _example_members(schema, root, depth) if depth < _MAX_EXAMPLE_DEPTH else {}
    if kind == "array":
        items = schema.get("items")
        return [example_value(items, root, depth + 1)] if depth < _MAX_EXAMPLE_DEPTH else []
    if kind in ("integer", "number"):
        return _example_number(schema)
    return {"boolean": True, "null": None}.get(kind or "", "...")


def _example_number(schema: Mapping[str, object]) -> int | float:
    least = schema.get("minimum")
    return least if isinstance(least, int | float) and not isinstance(least, bool) else 1


def _given_examples(schema: Mapping[str, object]) -> Iterator[object]:
    """The values that a schema itself gives, those first that are surely valid."""
    if "const" in schema:
        yield schema["const"]
    yield from _list(schema.get("enum"))[:1]
    yield from _list(schema.get("examples"))[:1]
    if schema.get("default") is not None:
        yield schema["default"]


def _is_short_scalar(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _MAX_EXAMPLE_CHARS
    return value is None or isinstance(value, int | float)


def _branches(schema: Mapping[str, object]) -> list[Any]:
    """The alternatives of a schema without a type of its own."""
    if _type_of(schema) is not None:
        return []
    return next((_list(schema[key]) for key in ("anyOf", "oneOf", "allOf") if schema.get(key)), [])


def _type_of(schema: Mapping[str, object]) -> str | None:
    """The first type that a schema names, null last."""
    named = schema.get("type")
    names = [name for name in (named if isinstance(named, list) else [named]) if isinstance(name, str)]
    if not names:
        return "object" if "properties" in schema else "array" if "items" in schema else None
    return next((name for name in names if name != "null"), "null")
