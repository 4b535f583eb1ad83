"""A client's JSON Schemas, ready to check what a model wrote. The only module that knows jsonschema_rs.

Nothing is fetched, whatever a `$ref` says; `format` is an annotation, as JSON Schema has it; patterns
run in linear time, and those that cannot (look-around, back-references) are not checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from sanic_proxy.providers.straico.validation.cost import DATA, MAX_STEPS, TooMuch, cost_of, survey

if TYPE_CHECKING:
    import jsonschema_rs

_MAX_PATTERN_BYTES = 64 * 1024
_MAX_FAULT_CHARS = 300
# Errors past this take longer to be told than the value took to be checked.
_MAX_ERROR_BYTES = 10_000_000


class BadSchema(ValueError):
    """The schema cannot be used; the text says why."""


class Checker:
    """One schema of one request, compiled. All its checks together are bounded in time.

    `size` is how many parts the schema has.
    """

    __slots__ = ("_left", "_schema", "_validator", "size")

    def __init__(self, schema: Mapping[str, Any], validator: jsonschema_rs.Validator, size: int) -> None:
        self.size = size
        self._schema = schema
        self._validator = validator
        self._left = 2 * MAX_STEPS

    def fault(self, value: object) -> str | None:
        """What is wrong with `value`, as a sentence; None if it fits."""
        if self._left < 0:
            return "there is too much to be checked"
        try:
            cost = cost_of(self._schema, value)
        except TooMuch as exc:
            self._left -= MAX_STEPS
            return f"the value cannot be checked: {exc}"
        self._left -= cost.steps
        try:
            if self._validator.is_valid(value):
                return None
            if cost.error_bytes > _MAX_ERROR_BYTES:
                return "it does not fit the schema"
            self._validator.validate(value)
        except UnicodeError:
            return "it holds half a surrogate pair"
        except ValueError as exc:
            return _sentence(exc)
        return None


def _sentence(exc: ValueError) -> str:
    found = cast("jsonschema_rs.ValidationError", exc)
    message = found.message
    if len(message) > _MAX_FAULT_CHARS:
        # The value comes first and what is wrong with it last.
        message = f"{message[: _MAX_FAULT_CHARS // 2]}...{message[-_MAX_FAULT_CHARS // 2 :]}"
    place = "".join(f"/{part}" for part in found.instance_path)[:_MAX_FAULT_CHARS]
    return f"at {place}: {message}" if place else message


def checker(schema: object) -> Checker:
    """Compile a schema. Raises BadSchema."""
    if not isinstance(schema, dict):
        raise BadSchema("a JSON Schema must be an object")
    try:
        size = survey(schema)
        try:
            return Checker(schema, _compiled(schema), size)
        except ValueError as exc:
            if not _is_about_a_pattern(exc):
                raise
            usable = _without_odd_patterns(schema)
            return Checker(usable, _compiled(usable), size)
    except (ValueError, RecursionError) as exc:
        text = getattr(exc, "message", None) or str(exc)
        raise BadSchema(text[:_MAX_FAULT_CHARS]) from None


def _refuse(uri: str) -> Any:
    raise ValueError(f"{uri} is not fetched")


def _compiled(schema: dict[str, Any]) -> jsonschema_rs.Validator:
    # Here, as it takes 12 ms and 9 MiB, which only those pay who ask for checked answers.
    import jsonschema_rs  # noqa: PLC0415

    linear = jsonschema_rs.RegexOptions(size_limit=_MAX_PATTERN_BYTES, dfa_size_limit=_MAX_PATTERN_BYTES)
    return jsonschema_rs.validator_for(
        schema, validate_formats=False, retriever=_refuse, pattern_options=linear
    )


def _is_about_a_pattern(exc: ValueError) -> bool:
    kind = getattr(exc, "kind", None)
    return kind is not None and kind.name == "format"


def _without_odd_patterns(node: Any) -> Any:
    """A copy of a schema without the patterns that the linear engine does not know."""
    if isinstance(node, list):
        return [_without_odd_patterns(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    kept = {key: value if key in DATA else _without_odd_patterns(value) for key, value in node.items()}
    if isinstance(kept.get("pattern"), str) and not _is_usable(kept["pattern"]):
        del kept["pattern"]
    named = kept.get("patternProperties")
    if isinstance(named, dict) and not all(map(_is_usable, named)):
        kept["patternProperties"] = {key: inner for key, inner in named.items() if _is_usable(key)}
        # Without the pattern nobody knows which members would be additional.
        kept.pop("additionalProperties", None)
        kept.pop("unevaluatedProperties", None)
    return kept


def _is_usable(pattern: str) -> bool:
    try:
        _compiled({"pattern": pattern})
    except ValueError:
        return False
    return True
