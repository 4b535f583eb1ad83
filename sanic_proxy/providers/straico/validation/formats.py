"""`response_format`: the instructions for the model, and the JSON in its answer. Pure.

Models wrap JSON in prose, code fences and thinking, and damage it. Four sources of candidates are tried, the
strictest first: the whole text; the contents of code fences; values decoded from an opening bracket on; and
repaired versions of all of these. Within one source the longest candidate that fits the schema wins. A later
source is used only if no candidate of the earlier ones fits, so that a repair never changes valid JSON.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.json_types import JsonMapping
from sanic_proxy.providers.straico.tool_parser.coercion import coerce_strings
from sanic_proxy.providers.straico.tool_parser.json_repair import decode_value, decode_values, parse_strict
from sanic_proxy.providers.straico.tools import compact, indented
from sanic_proxy.providers.straico.validation.schemas import Checker, InvalidSchema, compile_schema

_FENCED = re.compile(r"```[ \t]*[A-Za-z0-9_+-]*[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_FENCE_OPENING = re.compile(r"\A```[ \t]*[A-Za-z0-9_+-]*[ \t]*(?:\n|(?=[{\[])|\Z)")
_BRACKET = re.compile(r"[{\[]")
# The beginning of a JSON value, as opposed to a bracket in prose.
_JSON_START = re.compile(r"\{\s*+[\"}]|\[\s*+(?:[\[{\"\]\d-]|true|false|null)")
# An answer has one value. These bounds limit the search in answers that look like many.
_MAX_FENCES = 50
_MAX_VALUES = 200
_MAX_CHECKED = 20
_MAX_NESTED_STRINGS = 2


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The JSON that the client requested. Without a schema it is any object.

    `description` is the name and description of the schema, for the model.
    """

    schema: Mapping[str, object] | None
    description: str
    checker: Checker | None


class Extracted(NamedTuple):
    """The JSON text of an answer, or the reason why there is none."""

    text: str | None
    violation: str | None


def parse_response_format(fields: JsonMapping) -> ResponseFormat | None:
    """Parse `response_format`; None for plain text. Raises InvalidRequest."""
    response_format = fields.get("response_format")
    if response_format is None:
        return None
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return ResponseFormat(None, "", None)
    if kind != "json_schema":
        raise InvalidRequest(
            "`response_format.type` must be text, json_object or json_schema",
            param="response_format",
        )
    named = response_format.get("json_schema")
    schema = named.get("schema") if isinstance(named, dict) else None
    try:
        compiled = compile_schema(schema)
    except InvalidSchema as exc:
        message = f"The schema of `response_format` cannot be used: {exc}"
        raise InvalidRequest(message, param="response_format") from None
    parts = [named[key] for key in ("name", "description") if isinstance(named.get(key), str)]
    return ResponseFormat(schema, ": ".join(part for part in parts if part), compiled)


def instructions(response_format: ResponseFormat, *, may_call: bool) -> str:
    """The text that tells the model what `response_format` requires."""
    unless = "Unless you call a function, answer" if may_call else "Answer"
    lines = [
        "# Format of the answer",
        "",
        f"{unless} with one JSON {'object' if response_format.schema is None else 'value'} and nothing else: "
        "no text before it or after it, no code fence, no comments.",
    ]
    if response_format.schema is not None:
        description = f" ({response_format.description})" if response_format.description else ""
        lines += [
            f"It must be valid against this JSON Schema{description}:",
            "<schema>",
            indented(response_format.schema),
        ]
        lines += ["</schema>", "Write a value of that schema, never the schema itself."]
    return "\n".join(lines)


def extract_json(
    text: str, visible: str, response_format: ResponseFormat, *, is_cut: bool = False
) -> Extracted:
    """Find the JSON in an answer. `visible` is `text` without its thinking.

    A truncated answer (`is_cut`) is not repaired, and no embedded part of it is taken for the whole.
    """
    violation: str | None = None
    for candidates in itertools.islice(_candidate_sources(text, visible), 2 if is_cut else None):
        found = _best_candidate(candidates, response_format)
        if found.text is not None:
            return found
        violation = violation or found.violation
    return Extracted(None, violation or "it contains no JSON")


def cut_json(visible: str) -> str:
    """The text of an answer that was cut, without the opening of a code fence around it."""
    return _FENCE_OPENING.sub("", visible.strip())


class _Candidate(NamedTuple):
    text: str
    value: object


def _candidate_sources(text: str, visible: str) -> Iterator[list[_Candidate]]:
    """The candidates of each source, the strictest source first."""
    whole = text.strip()
    yield _exact_candidates(whole)
    yield [candidate for inner in _fence_contents(visible) for candidate in _exact_candidates(inner.strip())]
    yield list(_embedded_candidates(visible))
    regions = [
        visible.strip(),
        *(inner.strip() for inner in _fence_contents(visible)),
        _outermost_brackets(visible),
    ]
    yield [candidate for region in regions for candidate in _repaired_candidates(region)]


def _exact_candidates(text: str) -> list[_Candidate]:
    """`text` as one JSON value and, if that is a string with JSON in it, the inner value."""
    candidates: list[_Candidate] = []
    for _ in range(_MAX_NESTED_STRINGS + 1):
        try:
            value = parse_strict(text)
        except ValueError:
            break
        candidates.append(_Candidate(text, value))
        if not isinstance(value, str):
            break
        text = value.strip()
    return candidates


def _fence_contents(text: str) -> list[str]:
    inner: list[str] = []
    for match in _FENCED.finditer(text):
        inner.append(match[1])
        if len(inner) == _MAX_FENCES:
            break
    return inner


def _embedded_candidates(text: str) -> Iterator[_Candidate]:
    """Outermost objects and arrays in prose. The parts of a damaged value are not candidates."""
    position = 0
    for _ in range(_MAX_VALUES):
        bracket = _BRACKET.search(text, position)
        if bracket is None:
            return
        found = decode_value(text, bracket.start())
        if found is not None:
            position = found.end
            yield _Candidate(text[bracket.start() : found.end], found.values[0])
        elif _JSON_START.match(text, bracket.start()):
            return
        else:
            position = bracket.end()


def _outermost_brackets(text: str) -> str:
    """From the first opening bracket to the last closing one."""
    first = _BRACKET.search(text)
    last = max(text.rfind("}"), text.rfind("]"))
    return text[first.start() : last + 1] if first and last > first.start() else ""


def _repaired_candidates(text: str) -> list[_Candidate]:
    if not text.startswith(("{", "[", "\\", "`")):
        return []
    decoded = decode_values(text, 0, repair=True, is_closed=True)
    if decoded is None or decoded.unparsed or len(decoded.values) != 1 or decoded.end < len(text):
        return []
    value = decoded.values[0]
    try:
        return [_Candidate(compact(value), value)]
    except RecursionError:
        return []


def _best_candidate(candidates: list[_Candidate], response_format: ResponseFormat) -> Extracted:
    first_violation: str | None = None
    for candidate in sorted(candidates, key=lambda one: -len(one.text))[:_MAX_CHECKED]:
        violation = _violation(candidate.value, response_format)
        if violation is None:
            return Extracted(candidate.text, None)
        coerced = (
            coerce_strings(candidate.value, response_format.schema)
            if response_format.schema is not None
            else candidate.value
        )
        if coerced != candidate.value and _violation(coerced, response_format) is None:
            return Extracted(compact(coerced), None)
        first_violation = first_violation or violation
    return Extracted(None, first_violation)


def _violation(value: object, response_format: ResponseFormat) -> str | None:
    if response_format.checker is not None:
        return response_format.checker.violation(value)
    return None if isinstance(value, dict) else "it is not a JSON object"
