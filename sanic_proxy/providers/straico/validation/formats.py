"""`response_format`: what is said of it to the model, and the JSON found in its answer. Pure.

Strategy: the text itself if it is JSON; else what stands in fences; else what can be decoded from an
opening bracket on; and only then what repairs make of these. Of several the longest that fits counts.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.providers.straico.tool_parser.coercion import mended
from sanic_proxy.providers.straico.tool_parser.json_repair import decode_values, strict_value, value_at
from sanic_proxy.providers.straico.tools import compact, pretty
from sanic_proxy.providers.straico.validation.schemas import BadSchema, Checker, checker

_FENCED = re.compile(r"```[ \t]*[A-Za-z0-9_+-]*[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_FENCE_OPENING = re.compile(r"\A```[ \t]*[A-Za-z0-9_+-]*[ \t]*(?:\n|(?=[{\[])|\Z)")
_BRACKET = re.compile(r"[{\[]")
# JSON begins like this; a bracket of prose does not.
_BEGINNING = re.compile(r"\{\s*+[\"}]|\[\s*+(?:[\[{\"\]\d-]|true|false|null)")
# A model's answer has one value; past these bounds it is not searched any further.
_MAX_FENCES = 50
_MAX_VALUES = 200
_MAX_CHECKED = 20
_MAX_UNQUOTED = 2


@dataclass(frozen=True, slots=True)
class Format:
    """The JSON that was asked for; without a schema it is any object."""

    schema: Mapping[str, Any] | None
    about: str
    checker: Checker | None


class Found(NamedTuple):
    """The JSON text of an answer, or what is wrong with it."""

    text: str | None
    fault: str | None


def format_of(fields: Mapping[str, Any]) -> Format | None:
    """What `response_format` asks for; None where that is text. Raises InvalidRequest."""
    wanted = fields.get("response_format")
    if wanted is None:
        return None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return Format(None, "", None)
    if kind != "json_schema":
        raise InvalidRequest(
            "`response_format` must have the type text, json_object or json_schema", param="response_format"
        )
    named = wanted.get("json_schema")
    schema = named.get("schema") if isinstance(named, dict) else None
    try:
        compiled = checker(schema)
    except BadSchema as exc:
        message = f"The schema of `response_format` cannot be used: {exc}"
        raise InvalidRequest(message, param="response_format") from None
    parts = [named[key] for key in ("name", "description") if isinstance(named.get(key), str)]
    return Format(schema, ": ".join(part for part in parts if part), compiled)


def instructions(wanted: Format, *, may_call: bool) -> str:
    """The text that stands for `response_format`."""
    unless = "Unless you call a function, answer" if may_call else "Answer"
    told = [
        "# Format of the answer",
        "",
        f"{unless} with one JSON {'object' if wanted.schema is None else 'value'} and nothing else: no text "
        "before it or after it, no code fence, no comments.",
    ]
    if wanted.schema is not None:
        about = f" ({wanted.about})" if wanted.about else ""
        told += [f"It must be valid against this JSON Schema{about}:", "<schema>", pretty(wanted.schema)]
        told += ["</schema>", "Write a value of that schema, never the schema itself."]
    return "\n".join(told)


def json_in(text: str, visible: str, wanted: Format, *, is_cut: bool = False) -> Found:
    """The JSON in an answer. `visible` is `text` without what a model thought in the midst of it.

    Of an answer that is cut nothing is completed, and no part is taken for the whole.
    """
    fault: str | None = None
    for made in itertools.islice(_readings(text, visible), 2 if is_cut else None):
        found = _best(made, wanted)
        if found.text is not None:
            return found
        fault = fault or found.fault
    return Found(None, fault or "it holds no JSON")


def cut_json(visible: str) -> str:
    """The text of an answer that was cut, without the opening of a code fence around it."""
    return _FENCE_OPENING.sub("", visible.strip())


class _Candidate(NamedTuple):
    text: str
    value: Any


def _readings(text: str, visible: str) -> Iterator[list[_Candidate]]:
    """All ways to find JSON, the strictest first; each gives its candidates."""
    whole = text.strip()
    yield _exact(whole)
    yield [candidate for inner in _fenced(visible) for candidate in _exact(inner.strip())]
    yield list(_embedded(visible))
    regions = [visible.strip(), *(inner.strip() for inner in _fenced(visible)), _bracketed(visible)]
    yield [candidate for region in regions for candidate in _repaired(region)]


def _exact(text: str) -> list[_Candidate]:
    """`text` as one value, and what it holds if that is JSON written into a string."""
    candidates: list[_Candidate] = []
    for _ in range(_MAX_UNQUOTED + 1):
        try:
            value = strict_value(text)
        except ValueError:
            break
        candidates.append(_Candidate(text, value))
        if not isinstance(value, str):
            break
        text = value.strip()
    return candidates


def _fenced(text: str) -> list[str]:
    inner: list[str] = []
    for match in _FENCED.finditer(text):
        inner.append(match[1])
        if len(inner) == _MAX_FENCES:
            break
    return inner


def _embedded(text: str) -> Iterator[_Candidate]:
    """Objects and arrays with prose around them, outermost only: what is inside a broken one is no answer."""
    position = 0
    for _ in range(_MAX_VALUES):
        bracket = _BRACKET.search(text, position)
        if bracket is None:
            return
        found = value_at(text, bracket.start())
        if found is not None:
            position = found.end
            yield _Candidate(text[bracket.start() : found.end], found.values[0])
        elif _BEGINNING.match(text, bracket.start()):
            return
        else:
            position = bracket.end()


def _bracketed(text: str) -> str:
    """From the first opening bracket to the last closing one."""
    first = _BRACKET.search(text)
    last = max(text.rfind("}"), text.rfind("]"))
    return text[first.start() : last + 1] if first and last > first.start() else ""


def _repaired(text: str) -> list[_Candidate]:
    if not text.startswith(("{", "[", "\\", "`")):
        return []
    decoded = decode_values(text, 0, may_repair=True, is_closed=True)
    if decoded is None or decoded.unread or len(decoded.values) != 1 or decoded.end < len(text):
        return []
    value = decoded.values[0]
    try:
        return [_Candidate(compact(value), value)]
    except RecursionError:
        return []


def _best(candidates: list[_Candidate], wanted: Format) -> Found:
    fault: str | None = None
    for candidate in sorted(candidates, key=lambda one: -len(one.text))[:_MAX_CHECKED]:
        wrong = _fault(candidate.value, wanted)
        if wrong is None:
            return Found(candidate.text, None)
        made = mended(candidate.value, wanted.schema) if wanted.schema is not None else candidate.value
        if made != candidate.value and _fault(made, wanted) is None:
            return Found(compact(made), None)
        fault = fault or wrong
    return Found(None, fault)


def _fault(value: Any, wanted: Format) -> str | None:
    if wanted.checker is not None:
        return wanted.checker.fault(value)
    return None if isinstance(value, dict) else "it is no JSON object"
