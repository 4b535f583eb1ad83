"""Strings -> values of the types that a JSON Schema requires. Pure.

Markup such as `<parameter=days>3</parameter>` has no types, and models write numbers as strings.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping

from sanic_proxy.providers.straico.json_schema import resolve_refs, types_of
from sanic_proxy.providers.straico.tool_parser.json_repair import parse_finite

_MAX_DEPTH = 100
_MAX_VISITS = 50_000
_KINDS: Mapping[str, tuple[type, ...]] = {
    "number": (int, float),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}


def coerce_text(text: str, schema: object, root: Mapping[str, object]) -> object:
    """The value of a parameter that was written as bare text.

    If the schema allows a string, the text is kept unchanged, white space included. Without a type it is
    parsed as JSON, except as a string. `root` is the schema that `$ref`s refer to.
    """
    schema = resolve_refs(schema, root)
    if (exact := _from_enum(text, schema)) is not None:
        return exact
    types = types_of(schema, root)
    if "string" in types:
        return None if "null" in types and text.strip() == "null" else text
    try:
        value = json.loads(
            _python_literal(text.strip()),
            strict=False,
            parse_constant=_refuse_constant,
            parse_float=parse_finite,
        )
    except (ValueError, RecursionError):
        return text
    if not types:
        return text if isinstance(value, str) else value
    return value if any(_is_a(value, kind) for kind in types) else text


def coerce_strings(value: object, schema: object, root: Mapping[str, object] | None = None) -> object:
    """`value` with strings converted where the schema does not allow a string: "5" for an integer.

    Meant for values that do not match their schema. Members without a type in the schema are not changed. The
    whole value is returned unchanged if the schema has too many branches.
    """
    base = schema if root is None and isinstance(schema, dict) else root or {}
    visits = itertools.count()
    try:
        return _convert(value, schema, base, 0, visits)
    except _TooManyBranches:
        return value


class _TooManyBranches(Exception):
    """The schema has more branches than are searched."""


def _convert(
    value: object, schema: object, root: Mapping[str, object], depth: int, visits: Iterator[int]
) -> object:
    if depth > _MAX_DEPTH:
        return value
    if isinstance(value, str):
        types = types_of(resolve_refs(schema, root), root)
        coerced = coerce_text(value, schema, root) if types and "string" not in types else value
        return coerced if isinstance(coerced, str) else _convert(coerced, schema, root, depth + 1, visits)
    if isinstance(value, dict):
        return {
            key: _convert(inner, _member(schema, key, root, visits), root, depth + 1, visits)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [
            _convert(inner, _item(schema, index, root, visits), root, depth + 1, visits)
            for index, inner in enumerate(value)
        ]
    return value


def _member(schema: object, key: str, root: Mapping[str, object], visits: Iterator[int]) -> object:
    """The schema of a member, in the first branch that has one."""
    other: object = None
    for branch in _branches(schema, root, visits):
        properties = branch.get("properties")
        if isinstance(properties, dict) and key in properties:
            return properties[key]
        if other is None and isinstance(branch.get("additionalProperties"), dict):
            other = branch["additionalProperties"]
    return other


def _item(schema: object, index: int, root: Mapping[str, object], visits: Iterator[int]) -> object:
    for branch in _branches(schema, root, visits):
        for positions in (branch.get("prefixItems"), branch.get("items")):
            if isinstance(positions, list) and index < len(positions):
                return positions[index]
        if isinstance(branch.get("items"), dict):
            return branch["items"]
    return None


def _branches(
    schema: object, root: Mapping[str, object], visits: Iterator[int]
) -> Iterator[Mapping[str, object]]:
    """The schema and its `allOf`, `anyOf` and `oneOf` branches. Raises _TooManyBranches."""
    resolved = resolve_refs(schema, root)
    yield resolved
    for key in ("allOf", "anyOf", "oneOf"):
        branches = resolved.get(key)
        for branch in branches if isinstance(branches, list) else ():
            if next(visits) > _MAX_VISITS:
                raise _TooManyBranches
            yield resolve_refs(branch, root)


def _python_literal(text: str) -> str:
    """`True`, `False` and `None` as JSON: models write Python."""
    return {"True": "true", "False": "false", "None": "null"}.get(text, text)


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _from_enum(text: str, schema: Mapping[str, object]) -> object:
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    if not isinstance(values, list):
        return None
    return next((value for value in values if value is not None and _as_text(value) == text.strip()), None)


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _is_a(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, _KINDS.get(kind, ()))
