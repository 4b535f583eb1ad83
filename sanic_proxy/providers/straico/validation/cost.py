"""What checking a JSON value against a client's JSON Schema can cost, told beforehand. Pure.

Strategy: a validator visits each pair of subschema and value as often as paths lead to it, and calls
itself for each step, in code that nothing can interrupt. `cost_of` walks the same way but each pair once,
adding up what a validator would do; past a budget, or past a depth, the check is not begun. What it takes
to say what is wrong is told apart: jsonschema-rs copies the value into the error of each branch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sanic_proxy.providers.straico.json_schema import resolve_pointer

# Schemas: what is compiled at once, and how deep. OpenAI takes 10 levels and 5,000 properties.
MAX_NODES = 20_000
MAX_SCHEMA_DEPTH = 100
MAX_PATTERNS = 500
# Checks: in units of some 80 ns, so a fifth of a second; and in levels of calls.
MAX_STEPS = 2_500_000
MAX_CALLS_DEPTH = 200
MAX_PAIRS = 100_000
MAX_LOOKS = 400_000  # at pairs known or not: what the walk itself takes
# A pattern of the largest size takes this long for each character.
_STEPS_PER_MATCHED_CHAR = 40
# Keywords that ask which parts were checked before do it by checking them again.
_UNEVALUATED_FACTOR = 3

_IN_PLACE_LISTS = ("allOf", "anyOf", "oneOf")
_IN_PLACE = ("not", "if", "then", "else")
_IN_PLACE_MAPS = ("dependentSchemas", "dependencies")
_OF_ITEMS = ("items", "additionalItems", "contains", "unevaluatedItems")
_OF_MEMBERS = ("additionalProperties", "unevaluatedProperties")
_FOR_MEMBERS = frozenset({"properties", "patternProperties", "propertyNames", *_OF_MEMBERS})
# The walk is Python, and the validator is not.
_STEPS_PER_PAIR = 25
# What an error holds besides the value.
_ERROR_BYTES = 500
# What stands in these is data, whatever it looks like.
DATA = frozenset({"const", "enum", "default", "examples", "example"})


class TooMuch(ValueError):
    """The schema, or a value checked against it, is beyond the bounds. The text says which."""


def survey(schema: object) -> int:
    """How many parts a schema has, which is not compiled yet. Raises TooMuch, for foreign `$ref`s too."""
    nodes = patterns = 0
    waiting: list[tuple[object, int]] = [(schema, 0)]
    while waiting:
        node, depth = waiting.pop()
        nodes += 1
        if nodes > MAX_NODES or depth > MAX_SCHEMA_DEPTH:
            raise TooMuch(f"it has more than {MAX_NODES} parts or {MAX_SCHEMA_DEPTH} levels")
        if isinstance(node, dict):
            patterns += _patterns_at(node)
            _refuse_foreign(node, is_root=depth == 0)
            waiting += [(inner, depth + 1) for key, inner in node.items() if key not in DATA]
        elif isinstance(node, list):
            waiting += [(inner, depth + 1) for inner in node]
    if patterns > MAX_PATTERNS:
        raise TooMuch(f"it has more than {MAX_PATTERNS} patterns")
    return nodes


def _patterns_at(node: Mapping[str, Any]) -> int:
    named = node.get("patternProperties")
    return isinstance(node.get("pattern"), str) + (len(named) if isinstance(named, dict) else 0)


def _refuse_foreign(node: Mapping[str, Any], *, is_root: bool) -> None:
    """Only references into the schema itself: nothing is fetched, and `steps` can follow them."""
    for key in ("$ref", "$dynamicRef", "$recursiveRef"):
        target = node.get(key)
        if isinstance(target, str) and not (target == "#" or target.startswith("#/")):
            raise TooMuch(f"a {key} leads elsewhere than `#/...`, and nothing is fetched")
    if not is_root and isinstance(node.get("$id"), str):
        raise TooMuch("a part of it has an `$id` of its own")


class Cost(NamedTuple):
    """The most that a check takes, in steps, and what all its errors together would copy, in bytes."""

    steps: int
    error_bytes: int


def cost_of(schema: object, value: object) -> Cost:
    """The most that a validator does for `value`, this walk included. Raises TooMuch past the bounds."""
    walk = _Walk(schema)
    try:
        cost = walk.cost(schema, value, 0)
    except RecursionError:
        raise TooMuch("it is nested too deeply") from None
    return cost._replace(steps=cost.steps + _STEPS_PER_PAIR * len(walk.known))


class _Walk:
    """One walk over a schema and a value together."""

    def __init__(self, root: object) -> None:
        self._root = root
        self.looks = 0
        self.known: dict[tuple[int, int], Cost | None] = {}
        self._sizes: dict[int, int] = {}

    def cost(self, schema: object, value: object, depth: int) -> Cost:
        self._look(1)
        if not isinstance(schema, dict):
            return Cost(1, _ERROR_BYTES)
        if depth > MAX_CALLS_DEPTH:
            raise TooMuch("it is nested too deeply")
        pair = (id(schema), id(value))
        if pair in self.known:
            known = self.known[pair]
            if known is None:
                raise TooMuch("a part of the schema refers to itself without end")
            return known
        if len(self.known) > MAX_PAIRS:
            raise TooMuch("it is too large to be checked")
        self.known[pair] = None
        self.known[pair] = cost = self._sum(schema, value, depth)
        return cost

    def _sum(self, schema: Mapping[str, Any], value: object, depth: int) -> Cost:
        steps = 1 + len(schema) + _own(schema, value)
        error_bytes = _ERROR_BYTES + self._size(value)
        for inner, part in self._called(schema, value):
            called = self.cost(inner, part, depth + 1)
            steps += called.steps
            error_bytes += called.error_bytes
            if steps > MAX_STEPS:
                raise TooMuch("the schema has too many branches for it")
        if "unevaluatedProperties" in schema or "unevaluatedItems" in schema:
            steps *= _UNEVALUATED_FACTOR
        if steps > MAX_STEPS:
            raise TooMuch("the schema has too many branches for it")
        return Cost(steps, error_bytes)

    def _size(self, value: object) -> int:
        """About the length of `value` as JSON."""
        if isinstance(value, str):
            return len(value)
        if not isinstance(value, dict | list):
            return 8
        size = self._sizes.get(id(value))
        if size is None:
            members = [*value, *value.values()] if isinstance(value, dict) else value
            size = self._sizes[id(value)] = sum(map(self._size, members)) + len(members)
        return size

    def _called(self, schema: Mapping[str, Any], value: object) -> Iterator[tuple[object, object]]:
        yield from self._in_place(schema, value)
        # One look at each member, even where no keyword leads to it: the walk itself takes time as well.
        if isinstance(value, dict) and not _FOR_MEMBERS.isdisjoint(schema):
            self._look(len(value))
            yield from _of_object(schema, value)
        elif isinstance(value, list):
            self._look(len(value))
            yield from _of_list(schema, value)

    def _look(self, times: int) -> None:
        self.looks += times
        if self.looks > MAX_LOOKS:
            raise TooMuch("it is too large to be checked")

    def _in_place(self, schema: Mapping[str, Any], value: object) -> Iterator[tuple[object, object]]:
        for key in ("$ref", "$dynamicRef", "$recursiveRef"):
            if isinstance(reference := schema.get(key), str):
                yield resolve_pointer(self._root, reference), value
        for key in _IN_PLACE_LISTS:
            branches = schema.get(key)
            for branch in branches if isinstance(branches, list) else ():
                yield branch, value
        for key in _IN_PLACE:
            if key in schema:
                yield schema[key], value
        for key in _IN_PLACE_MAPS:
            named = schema.get(key)
            for branch in named.values() if isinstance(named, dict) else ():
                yield branch, value


def _of_object(schema: Mapping[str, Any], value: Mapping[str, Any]) -> Iterator[tuple[object, object]]:
    properties = schema.get("properties")
    known = properties if isinstance(properties, dict) else {}
    patterns = schema.get("patternProperties")
    for key, member in value.items():
        if key in known:
            yield known[key], member
        for inner in patterns.values() if isinstance(patterns, dict) else ():
            yield inner, member
        for name in _OF_MEMBERS:
            if isinstance(schema.get(name), dict):
                yield schema[name], member
        if isinstance(schema.get("propertyNames"), dict):
            yield schema["propertyNames"], key


def _of_list(schema: Mapping[str, Any], value: list[Any]) -> Iterator[tuple[object, object]]:
    for key in ("prefixItems", "items"):
        positions = schema.get(key)
        if isinstance(positions, list):
            yield from zip(positions, value, strict=False)
    for key in _OF_ITEMS:
        inner = schema.get(key)
        if isinstance(inner, dict):
            for item in value:
                yield inner, item


def _own(schema: Mapping[str, Any], value: object) -> int:
    """What a schema's own keywords cost, those that look further than at the type."""
    total = 0
    if isinstance(value, str) and "pattern" in schema:
        total += _STEPS_PER_MATCHED_CHAR * len(value)
    for key in ("enum", "required", "dependentRequired"):
        if key in schema:
            total += _size(schema[key])
    if isinstance(value, dict) and isinstance(patterns := schema.get("patternProperties"), dict):
        total += _STEPS_PER_MATCHED_CHAR * len(patterns) * sum(map(len, value))
    if isinstance(value, list) and "uniqueItems" in schema:
        total += 100 * len(value)
    return total


def _size(value: object) -> int:
    return 10 * len(value) if isinstance(value, list | dict) else 1
