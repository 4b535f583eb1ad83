"""Clients' JSON Schemas, compiled to check what a model wrote. The only module that uses jsonschema_rs.

Remote references are never fetched. `format` is an annotation, as in JSON Schema by default. Patterns are
matched in linear time; those that cannot be (look-around, back-references) are removed from the schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from sanic_proxy.providers.straico.validation.cost import (
    DATA,
    MAX_STEPS,
    LimitExceeded,
    schema_size,
    validation_cost,
)

if TYPE_CHECKING:
    import jsonschema_rs

_MAX_PATTERN_BYTES = 64 * 1024
_MAX_MESSAGE_CHARS = 300
# Above this, building the error messages takes longer than the check did.
_MAX_ERROR_BYTES = 10_000_000


class InvalidSchema(ValueError):
    """The schema cannot be used; the message gives the reason."""


class Checker:
    """One compiled schema of one request. The total time of all its checks is bounded.

    `size` is the number of nodes of the schema.
    """

    __slots__ = ("_remaining_steps", "_schema", "_validator", "size")

    def __init__(self, schema: Mapping[str, object], validator: jsonschema_rs.Validator, size: int) -> None:
        self.size = size
        self._schema = schema
        self._validator = validator
        self._remaining_steps = 2 * MAX_STEPS

    def violation(self, value: object) -> str | None:
        """The first violation of the schema as a sentence; None if `value` is valid."""
        if self._remaining_steps < 0:
            return "the limit for checking values of this request is reached"
        try:
            cost = validation_cost(self._schema, value)
        except LimitExceeded as exc:
            self._remaining_steps -= MAX_STEPS
            return f"the value cannot be checked: {exc}"
        self._remaining_steps -= cost.steps
        try:
            if self._validator.is_valid(value):
                return None
            if cost.error_bytes > _MAX_ERROR_BYTES:
                return "it does not match the schema"
            self._validator.validate(value)
        except UnicodeError:
            return "it contains a lone surrogate"
        except ValueError as exc:
            return _message_of(exc)
        return None


def _message_of(exc: ValueError) -> str:
    found = cast("jsonschema_rs.ValidationError", exc)
    message = found.message
    if len(message) > _MAX_MESSAGE_CHARS:
        # The message begins with the value and ends with the violation.
        message = f"{message[: _MAX_MESSAGE_CHARS // 2]}...{message[-_MAX_MESSAGE_CHARS // 2 :]}"
    location = "".join(f"/{part}" for part in found.instance_path)[:_MAX_MESSAGE_CHARS]
    return f"at {location}: {message}" if location else message


def compile_schema(schema: object) -> Checker:
    """Compile a client's schema. Raises InvalidSchema."""
    if not isinstance(schema, dict):
        raise InvalidSchema("a JSON Schema must be an object")
    try:
        size = schema_size(schema)
        try:
            return Checker(schema, _compiled(schema), size)
        except ValueError as exc:
            if not _is_pattern_error(exc):
                raise
            supported = _without_unsupported_patterns(schema)
            return Checker(supported, _compiled(supported), size)
    except (ValueError, RecursionError) as exc:
        text = getattr(exc, "message", None) or str(exc)
        raise InvalidSchema(text[:_MAX_MESSAGE_CHARS]) from None


def _refuse_fetch(uri: str) -> Any:
    raise ValueError(f"{uri} is not fetched: schemas must not refer to other documents")


def _compiled(schema: dict[str, object]) -> jsonschema_rs.Validator:
    # Imported here because it takes 12 ms and 9 MiB, needed only by requests with schemas.
    import jsonschema_rs  # noqa: PLC0415

    linear = jsonschema_rs.RegexOptions(size_limit=_MAX_PATTERN_BYTES, dfa_size_limit=_MAX_PATTERN_BYTES)
    return jsonschema_rs.validator_for(
        schema, validate_formats=False, retriever=_refuse_fetch, pattern_options=linear
    )


def _is_pattern_error(exc: ValueError) -> bool:
    kind = getattr(exc, "kind", None)
    return kind is not None and kind.name == "format"


def _without_unsupported_patterns(node: object) -> Any:
    """A copy of a schema without the patterns that the linear-time engine does not support."""
    if isinstance(node, list):
        return [_without_unsupported_patterns(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    kept = {
        key: value if key in DATA else _without_unsupported_patterns(value) for key, value in node.items()
    }
    if isinstance(kept.get("pattern"), str) and not _is_supported(kept["pattern"]):
        del kept["pattern"]
    named = kept.get("patternProperties")
    if isinstance(named, dict) and not all(map(_is_supported, named)):
        kept["patternProperties"] = {key: inner for key, inner in named.items() if _is_supported(key)}
        # Without the pattern it is unknown which members are additional.
        kept.pop("additionalProperties", None)
        kept.pop("unevaluatedProperties", None)
    return kept


def _is_supported(pattern: str) -> bool:
    try:
        _compiled({"pattern": pattern})
    except ValueError:
        return False
    return True
