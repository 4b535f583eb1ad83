"""An upper bound for the cost of validating a JSON value against a client's JSON Schema. Pure.

jsonschema-rs cannot be interrupted, recurses once per step, and visits each pair of subschema and value as
often as there are paths to it: `anyOf` in `anyOf` takes exponential time. `validation_cost` therefore walks
schema and value first. It visits each pair once, remembers its cost, and adds up what the validator would do
(dynamic programming over the pairs). Beyond a budget of steps, or a depth, validation is not started.

The cost of an error message is a separate number, because jsonschema-rs copies the value into the error of
each branch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sanic_proxy.providers.straico.json_schema import resolve_pointer

# Limits of a schema. OpenAI allows 10 levels and 5,000 properties.
MAX_NODES = 20_000
MAX_SCHEMA_DEPTH = 100
MAX_PATTERNS = 500
# Limits of one validation. A step takes about 80 ns, so the budget is a fifth of a second.
MAX_STEPS = 2_500_000
MAX_RECURSION = 200
MAX_PAIRS = 100_000
MAX_VISITS = 400_000  # of pairs, known or not: the cost of this walk itself
# The cost of the largest allowed pattern per character.
_STEPS_PER_MATCHED_CHAR = 40
# `unevaluated...` keywords find out what was evaluated by evaluating it again.
_UNEVALUATED_FACTOR = 3

_IN_PLACE_LISTS = ("allOf", "anyOf", "oneOf")
_IN_PLACE = ("not", "if", "then", "else")
_IN_PLACE_MAPS = ("dependentSchemas", "dependencies")
_ITEM_KEYWORDS = ("items", "additionalItems", "contains", "unevaluatedItems")
_MEMBER_KEYWORDS = ("additionalProperties", "unevaluatedProperties")
_OBJECT_KEYWORDS = frozenset({"properties", "patternProperties", "propertyNames", *_MEMBER_KEYWORDS})
# The walk itself is Python: a pair costs it as much as so many steps of the validator.
_STEPS_PER_PAIR = 25
# The size of an error without the value.
_ERROR_BYTES = 500
# The contents of these keywords are data, not schemas.
DATA = frozenset({"const", "enum", "default", "examples", "example"})


class LimitExceeded(ValueError):
    """A schema, or a value to be validated, exceeds a limit; the message names it."""


def schema_size(schema: object) -> int:
    """The number of nodes of a schema. Raises LimitExceeded, also for references to other documents."""
    nodes = patterns = 0
    waiting: list[tuple[object, int]] = [(schema, 0)]
    while waiting:
        node, depth = waiting.pop()
        nodes += 1
        if nodes > MAX_NODES or depth > MAX_SCHEMA_DEPTH:
            raise LimitExceeded(f"it has more than {MAX_NODES} nodes or {MAX_SCHEMA_DEPTH} levels")
        if isinstance(node, dict):
            patterns += _patterns_at(node)
            _refuse_remote_refs(node, is_root=depth == 0)
            waiting += [(inner, depth + 1) for key, inner in node.items() if key not in DATA]
        elif isinstance(node, list):
            waiting += [(inner, depth + 1) for inner in node]
    if patterns > MAX_PATTERNS:
        raise LimitExceeded(f"it has more than {MAX_PATTERNS} patterns")
    return nodes


def _patterns_at(node: Mapping[str, object]) -> int:
    named = node.get("patternProperties")
    return isinstance(node.get("pattern"), str) + (len(named) if isinstance(named, dict) else 0)


def _refuse_remote_refs(node: Mapping[str, object], *, is_root: bool) -> None:
    """Allow references within the schema only: nothing is fetched, and the walk can follow them."""
    for key in ("$ref", "$dynamicRef", "$recursiveRef"):
        target = node.get(key)
        if isinstance(target, str) and not (target == "#" or target.startswith("#/")):
            raise LimitExceeded(f"`{key}` must begin with `#/`: other documents are not fetched")
    if not is_root and isinstance(node.get("$id"), str):
        raise LimitExceeded("only its root may have an `$id`")


class Cost(NamedTuple):
    """Upper bounds: the steps of a validation, and the bytes that all its errors together would copy."""

    steps: int
    error_bytes: int


def validation_cost(schema: object, value: object) -> Cost:
    """The cost of validating `value`, this walk included. Raises LimitExceeded."""
    walk = _CostWalk(schema)
    try:
        cost = walk.cost(schema, value, 0)
    except RecursionError:
        raise LimitExceeded("it is nested too deeply") from None
    return cost._replace(steps=cost.steps + _STEPS_PER_PAIR * len(walk.known))


class _CostWalk:
    """One walk over a schema and a value; `known` is None for a pair whose cost is being computed."""

    def __init__(self, root: object) -> None:
        self._root = root
        self.visits = 0
        self.known: dict[tuple[int, int], Cost | None] = {}
        self._sizes: dict[int, int] = {}

    def cost(self, schema: object, value: object, depth: int) -> Cost:
        self._visit(1)
        if not isinstance(schema, dict):
            return Cost(1, _ERROR_BYTES)
        if depth > MAX_RECURSION:
            raise LimitExceeded("it is nested too deeply")
        pair = (id(schema), id(value))
        if pair in self.known:
            known = self.known[pair]
            if known is None:
                raise LimitExceeded("a part of the schema refers to itself without progress")
            return known
        if len(self.known) > MAX_PAIRS:
            raise LimitExceeded("it is too large to be validated")
        self.known[pair] = None
        self.known[pair] = cost = self._sum(schema, value, depth)
        return cost

    def _sum(self, schema: Mapping[str, object], value: object, depth: int) -> Cost:
        steps = 1 + len(schema) + _own_cost(schema, value)
        error_bytes = _ERROR_BYTES + self._size(value)
        for inner, part in self._subchecks(schema, value):
            called = self.cost(inner, part, depth + 1)
            steps += called.steps
            error_bytes += called.error_bytes
            if steps > MAX_STEPS:
                raise LimitExceeded("the schema has too many branches for it")
        if "unevaluatedProperties" in schema or "unevaluatedItems" in schema:
            steps *= _UNEVALUATED_FACTOR
        if steps > MAX_STEPS:
            raise LimitExceeded("the schema has too many branches for it")
        return Cost(steps, error_bytes)

    def _size(self, value: object) -> int:
        """The approximate length of `value` as JSON."""
        if isinstance(value, str):
            return len(value)
        if not isinstance(value, dict | list):
            return 8
        size = self._sizes.get(id(value))
        if size is None:
            members = [*value, *value.values()] if isinstance(value, dict) else value
            size = self._sizes[id(value)] = sum(map(self._size, members)) + len(members)
        return size

    def _subchecks(self, schema: Mapping[str, object], value: object) -> Iterator[tuple[object, object]]:
        yield from self._in_place(schema, value)
        # Each member is a visit, even if no keyword applies to it, because iterating takes time as well.
        if isinstance(value, dict) and not _OBJECT_KEYWORDS.isdisjoint(schema):
            self._visit(len(value))
            yield from _of_object(schema, value)
        elif isinstance(value, list):
            self._visit(len(value))
            yield from _of_list(schema, value)

    def _visit(self, times: int) -> None:
        self.visits += times
        if self.visits > MAX_VISITS:
            raise LimitExceeded("it is too large to be validated")

    def _in_place(self, schema: Mapping[str, object], value: object) -> Iterator[tuple[object, object]]:
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


def _of_object(schema: Mapping[str, object], value: Mapping[str, object]) -> Iterator[tuple[object, object]]:
    properties = schema.get("properties")
    known = properties if isinstance(properties, dict) else {}
    patterns = schema.get("patternProperties")
    for key, member in value.items():
        if key in known:
            yield known[key], member
        for inner in patterns.values() if isinstance(patterns, dict) else ():
            yield inner, member
        for name in _MEMBER_KEYWORDS:
            if isinstance(schema.get(name), dict):
                yield schema[name], member
        if isinstance(schema.get("propertyNames"), dict):
            yield schema["propertyNames"], key


def _of_list(schema: Mapping[str, object], value: list[object]) -> Iterator[tuple[object, object]]:
    for key in ("prefixItems", "items"):
        positions = schema.get(key)
        if isinstance(positions, list):
            yield from zip(positions, value, strict=False)
    for key in _ITEM_KEYWORDS:
        inner = schema.get(key)
        if isinstance(inner, dict):
            for item in value:
                yield inner, item


def _own_cost(schema: Mapping[str, object], value: object) -> int:
    """The cost of a schema's own keywords, without subschemas."""
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
