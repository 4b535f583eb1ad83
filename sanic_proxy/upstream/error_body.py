"""What a failed answer says, whatever shape its body has. Pure; `error_kinds` decides what it means.

Providers write errors in a dozen shapes: OpenAI's `error` object, the same fields without the envelope
(vLLM, Mistral, Cerebras), a bare `error`, `message`, `Message` or `msg`, FastAPI's `detail` as a text or as a
list of violations, a list of `errors`, Apigee's `fault`, `base_resp`, a list with one of these, a
text, an HTML page. All are read by one rule: descend through the known containers, inner ones first, and take
the first message, type, param and code.

Only known containers are descended into, as some errors repeat the request that they reject: a client
must not be able to write codes into it that the proxy takes for the provider's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from sanic_proxy import errors
from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import codec

MAX_MESSAGE_CHARS = 2000
MAX_BODY_TEXT_CHARS = 300
MAX_PAGE_CHARS = 500
MAX_DETAIL_CHARS = 16_000
MAX_DETAIL_TEXT_CHARS = 4000
MAX_DETAIL_NODES = 200
_MAX_DEPTH = 6
_MAX_NODES = 40
_MAX_VIOLATIONS = 5
_MAX_FIELD_CHARS = 200
_MAX_WORDS_CHARS = 8000

_CONTAINERS = ("error", "errors", "fault", "detail", "message", "base_resp")
# Where a provider that calls others repeats the error of the one that failed.
_CAUSES = ("innererror", "details", "metadata", "raw", "completions", "completion")
_MESSAGES = (
    "message",
    "Message",
    "msg",
    "detail",
    "error_description",
    "error_message",
    "errorMessage",
    "error_msg",
    "faultstring",
    "status_msg",
    "title",
    "details",
)
_CODES = ("code", "Code", "error_code", "errorCode", "errorcode", "errcode", "__type")
# Of these two the client gets nothing as `code`: they may hold a sentence.
_REASONS = ("error_type", "reason")
_STATUSES = ("status", "status_code", "statusCode", "http_status")
# An object without any of these does not describe a failure.
_DESCRIPTIONS = frozenset({*_MESSAGES, "errors"})
_STANDARD = frozenset({"message", "type", "param", "code"})
_ENVELOPE = frozenset({*_STANDARD, *_MESSAGES, "error", "object", "success", "base_resp", "fault"}) - {
    "detail"
}

_MARKUP = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<[!?a-zA-Z]")
_MARKUP_TEXT = re.compile(r"<!doctype html|<html\b", re.IGNORECASE)
_TAG = re.compile(r"<(?:script|style)\b.*?</(?:script|style)>|<[^>]{0,500}>", re.DOTALL | re.IGNORECASE)
_SPACE = re.compile(r"\s+")
_RELAYED = re.compile(r"provider returned (?:an )?error\W*", re.IGNORECASE)

# Texts that look like a credential are removed, as some providers repeat the key that they reject. The keys
# of the settings are removed exactly, when the error is rendered; this is about keys that the proxy does not
# know, so only what has the length and the randomness of one counts: names such as `hf-inference` or
# `sk_search_docs` stay.
_CANDIDATE = re.compile(
    r"(?<![A-Za-z0-9])(?:Bearer\s+|(?:sk|gsk|xai|pplx|key|hf|nvapi|csk|fw|r8|tgp)[-_]|AIza)([\w*.~+/=-]{8,512})",
    re.ASCII,
)
_MIN_KEY_CHARS = 20
# Neighbours of different kinds (upper case, lower case, digit) among all pairs: about 0.6 in random letters
# and digits, 0.47 in hexadecimal digits, below 0.25 in most names.
_MIN_CHANGES = 0.25


@dataclass(frozen=True, slots=True)
class Report:
    """What a failed answer says. Texts are safe to show: bounded, printable, without markup.

    `codes` are all codes, types and status names of the body, the most specific first; `words` is the message
    with those of its causes. `status` is an HTTP status that the body names. `is_standard` marks OpenAI's
    own shape. `page` is the text of an HTML page, which is not for clients.
    """

    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | None = None
    codes: tuple[str, ...] = ()
    words: str = ""
    status: int | None = None
    is_standard: bool = False
    page: str = ""
    details: JsonMapping = field(default_factory=dict)


def report_of(parsed: object, body: bytes = b"", media_type: str = "") -> Report:
    """Read a body. `parsed` is its JSON, or None if it is not JSON; then `body` is read as text."""
    if not isinstance(parsed, Mapping | list):
        return _text_report(body, media_type)
    objects = list(_objects(parsed))
    own = [obj for obj, is_cause in objects if not is_cause]
    message = safe_text(message_of(parsed))
    causes = [text for obj, is_cause in objects if is_cause and (text := _sentence(obj))]
    causes += [text for obj in own if (text := _raw_text(obj))]
    page = ""
    if _MARKUP_TEXT.search(message):
        message, page = "", _page_text(message)
    elif causes and (relayed := _RELAYED.fullmatch(message)):
        message = safe_text(f"{relayed[0].strip()}: {causes[0]}")
    return Report(
        message=message,
        type=_first(own, ("type",), skip="error"),
        param=_first(own, ("param",)) or _violated_param(own),
        code=_code_of(own),
        codes=tuple(_codes(objects)),
        words="\n".join([message, *causes])[:_MAX_WORDS_CHARS],
        status=next(_http_statuses(objects), None),
        is_standard=_is_standard(parsed),
        page=page,
        details=_details_of(parsed),
    )


def is_error(parsed: object) -> bool:
    """Whether a JSON value that came as a success is an error.

    An object is one with a truthy `error`, `object: "error"`, `detail` or `errors`, or with a code or
    status together with a message, unless it holds what was asked for. Codes that mean success are no errors.
    A resource (a batch, a file, a fine-tuning job) has a status and errors of its own: it is an answer.
    """
    if isinstance(parsed, list) and len(parsed) == 1:
        parsed = parsed[0]
    if not isinstance(parsed, dict):
        return False
    kind = parsed.get("object")
    if (error := parsed.get("error")) and _is_failure(error):
        return not _is_resource(kind)
    base = parsed.get("base_resp")
    if isinstance(base, dict) and _is_failure_code(base.get("status_code")):
        return True
    if parsed.get("choices"):
        return False
    if kind == "error" or parsed.get("type") == "error":
        return True
    if _DESCRIPTIONS.isdisjoint(parsed) or _is_resource(kind) or any(parsed.get(key) for key in _CONTENT):
        return False
    return _describes_failure(parsed)


def _describes_failure(parsed: JsonMapping) -> bool:
    if parsed.get("detail") or parsed.get("errors"):
        return True
    return any(isinstance(parsed.get(key), str) and parsed[key] for key in _MESSAGES) and (
        any(_is_failure_code(parsed.get(key)) for key in _CODES)
        or any(_is_failure_status(parsed.get(key)) for key in _STATUSES)
        or parsed.get("success") is False
    )


_CONTENT = ("data", "results", "output", "text", "embedding", "embeddings", "images", "content", "segments")
_SUCCESS = frozenset({"", "0", "ok", "success", "succeeded", "successful", "none", "null", "true"})
_FAILED = frozenset({"error", "fail", "failed", "failure"})


def _is_resource(kind: object) -> bool:
    is_answer = not isinstance(kind, str) or kind.startswith(
        ("chat.completion", "text_completion", "list", "error")
    )
    return not is_answer


def _is_failure(error: object) -> bool:
    """Whether a truthy `error` reports a failure: not `"success"`, nor an object with code 0 only."""
    if isinstance(error, str):
        return error.strip().lower() not in _SUCCESS
    if isinstance(error, dict) and "code" in error and not _is_failure_code(error["code"]):
        return bool(error["code"] is None or _sentence(error).lower() not in _SUCCESS)
    return True


def _is_failure_code(code: object) -> bool:
    if isinstance(code, bool) or not isinstance(code, int | str):
        return False
    text = str(code).strip().lower()
    return not (text in _SUCCESS or (len(text) == 3 and text.isdigit() and text[0] == "2"))


def _is_failure_status(status: object) -> bool:
    """As with codes, but a status in words (`queued`, `processing`) is an error only if it says so."""
    if isinstance(status, str) and not status.strip().isdigit():
        return status.strip().lower() in _FAILED
    return status is False or _is_failure_code(status)


def message_of(parsed: object) -> str:
    """The sentence in an error body of any shape, as it is; "" where there is none."""
    return _sentence(parsed).strip()


def _sentence(value: object, depth: int = _MAX_DEPTH) -> str:
    if isinstance(value, str):
        return value if value.strip() else ""
    if depth == 0:
        return ""
    if isinstance(value, list):
        found = (_sentence(item, depth - 1) for item in value[:_MAX_VIOLATIONS])
        return "; ".join(text for text in found if text)
    if not isinstance(value, Mapping):
        return ""
    if isinstance(value.get("loc"), list) and isinstance(value.get("msg"), str):
        return f"{_location(value['loc'])}: {value['msg']}".removeprefix(": ")
    error = value.get("error")
    candidates = [None if isinstance(error, str) else error, *(value.get(key) for key in _MESSAGES)]
    candidates += [
        error,
        value.get("errors"),
        value.get("fault"),
        value.get("base_resp"),
        *_completions(value),
    ]
    found = (_sentence(item, depth - 1) for item in candidates if item)
    return next((text for text in found if text), "")


def _completions(value: JsonMapping) -> list[Any]:
    """A vendor's error, nested under `completions` by model."""
    completions = value.get("completions")
    by_model = list(completions.values())[:_MAX_VIOLATIONS] if isinstance(completions, Mapping) else []
    return [*by_model, value.get("completion")]


def _location(location: list[Any]) -> str:
    return ".".join(str(part) for part in location[:10] if part != "body")[:_MAX_FIELD_CHARS]


def _objects(parsed: object) -> Iterator[tuple[JsonMapping, bool]]:
    """The objects that describe the error, inner ones first, each with whether it is a cause of it."""
    left = _MAX_NODES

    def walk(value: object, is_cause: bool, depth: int) -> Iterator[tuple[JsonMapping, bool]]:
        nonlocal left
        if isinstance(value, str) and is_cause and value.lstrip()[:1] == "{":
            value = codec.loads_tolerant(value.encode("utf-8", "replace"))
        if isinstance(value, list):
            for item in value[:_MAX_VIOLATIONS]:
                yield from walk(item, is_cause, depth - 1)
        if not isinstance(value, Mapping) or depth <= 0 or left <= 0:
            return
        left -= 1
        if "loc" in value:  # a violation may repeat the client's input
            return
        for key in _CONTAINERS:
            yield from walk(value.get(key), is_cause, depth - 1)
        yield value, is_cause
        for key in _CAUSES:
            inner = value.get(key)
            if key == "completions" and isinstance(inner, Mapping):
                inner = list(inner.values())
            yield from walk(inner, True, depth - 1)

    yield from walk(parsed, False, _MAX_DEPTH)


def _raw_text(obj: JsonMapping) -> str:
    """A cause given as plain text."""
    metadata = obj.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, Mapping) else None
    return raw if isinstance(raw, str) and raw.lstrip()[:1] not in {"", "{", "<"} else ""


def _first(objects: list[JsonMapping], keys: tuple[str, ...], skip: str = "") -> str | None:
    found = (_field(obj.get(key)) for obj in objects for key in keys)
    return next((text for text in found if text and text != skip), None)


def _field(value: object) -> str | None:
    if isinstance(value, str):
        return safe_text(value)[:_MAX_FIELD_CHARS]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _code_of(objects: list[JsonMapping]) -> str | None:
    """The provider's code, else the name of its status, else a one-word `error` beside a message."""
    named = _first(objects, _CODES)
    if named is not None:
        return named.rpartition("#")[2]
    named = _first(objects, ("status",), skip="error")
    if named is not None and not named.isdigit() and named not in _FAILED:
        return named
    outer = objects[-1] if objects else {}
    error = outer.get("error")
    is_code = isinstance(error, str) and " " not in error and _sentence(outer) != error
    return _field(error) if is_code else None


def _violated_param(objects: list[JsonMapping]) -> str | None:
    for obj in objects:
        violations = obj.get("detail")
        first = violations[0] if isinstance(violations, list) and violations else None
        if isinstance(first, Mapping) and isinstance(first.get("loc"), list):
            return _location(first["loc"]) or None
    return None


def _codes(objects: list[tuple[JsonMapping, bool]]) -> Iterator[str]:
    """Codes before status names before types; a number comes as its digits."""
    for keys in (_CODES, _REASONS, _STATUSES, ("type",)):
        for obj, _ in objects:
            for key in keys:
                value = _field(obj.get(key))
                if value:
                    yield value.rpartition("#")[2]
    for obj, _ in objects:
        error = obj.get("error")
        if isinstance(error, str) and " " not in error:
            yield error[:_MAX_FIELD_CHARS]


def _http_statuses(objects: list[tuple[JsonMapping, bool]]) -> Iterator[int]:
    """Numbers among codes and statuses that are HTTP's."""
    for obj, _ in objects:
        for key in (*_STATUSES, *_CODES, "type"):
            value = obj.get(key)
            text = str(value).strip() if isinstance(value, int | str) and not isinstance(value, bool) else ""
            if len(text) == 3 and text.isascii() and text.isdigit() and text[0] in "45":
                yield int(text)


def _is_standard(parsed: object) -> bool:
    if isinstance(parsed, list) and len(parsed) == 1:
        parsed = parsed[0]
    error = parsed.get("error") if isinstance(parsed, Mapping) else None
    return isinstance(error, Mapping) and isinstance(error.get("message"), str) and bool(error["message"])


def _details_of(parsed: object) -> Json:
    """The other fields of the provider's error object, bounded; those of a body without an envelope."""
    if isinstance(parsed, list):
        parsed = parsed[0] if parsed else None
    if not isinstance(parsed, Mapping):
        return {}
    error = parsed.get("error")
    if isinstance(error, Mapping):
        fields = {key: value for key, value in error.items() if key not in _STANDARD}
    else:
        fields = {key: value for key, value in parsed.items() if key not in _ENVELOPE}
        if isinstance(fields.get("detail"), str):
            del fields["detail"]
    return _Bounds().reduced(fields)


class _Bounds:
    """What is left of a budget of texts and values while a JSON value is copied within it."""

    def __init__(self) -> None:
        self._chars = MAX_DETAIL_CHARS
        self._nodes = MAX_DETAIL_NODES

    def reduced(self, fields: JsonMapping) -> Json:
        reduced: Json = self._value(fields, _MAX_DEPTH)
        return reduced

    def _value(self, value: Any, depth: int) -> Any:
        self._nodes -= 1
        if isinstance(value, str):
            text = redact_guesses(value[: min(MAX_DETAIL_TEXT_CHARS, self._chars)])
            self._chars -= len(text)
            return text
        if isinstance(value, Mapping):
            return self._object(value, depth - 1) if depth > 0 else {}
        if isinstance(value, list):
            return self._list(value, depth - 1) if depth > 0 else []
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
            return float(value) if abs(value) < 2**1000 else None
        return value

    def _object(self, value: JsonMapping, depth: int) -> Json:
        kept: Json = {}
        for key, inner in value.items():
            if self._nodes <= 0 or self._chars <= 0:
                break
            name = str(key)[:_MAX_FIELD_CHARS]
            self._chars -= len(name)
            kept[name] = self._value(inner, depth)
        return kept

    def _list(self, value: list[Any], depth: int) -> list[Any]:
        kept: list[Any] = []
        for inner in value:
            if self._nodes <= 0 or self._chars <= 0:
                break
            kept.append(self._value(inner, depth))
        return kept


def _text_report(body: bytes, media_type: str) -> Report:
    start = body[:16].lstrip()[:1]
    if _MARKUP.match(body) or ("html" in media_type and start not in {b"", b"{", b"["}):
        return Report(page=_page_text(body[:16_384].decode("utf-8", "replace")) or "(no text)")
    if start in {b"{", b"["}:  # JSON that was cut, or is broken
        return Report()
    text = _SPACE.sub(" ", body[:8192].decode("utf-8", "replace")).strip()
    message = safe_text(text)[:MAX_BODY_TEXT_CHARS]
    return Report(message=message, words=message)


def _page_text(markup: str) -> str:
    """The text of an HTML page in one line, for the log."""
    return safe_text(_SPACE.sub(" ", _TAG.sub(" ", markup)))[:MAX_PAGE_CHARS]


def safe_text(text: str) -> str:
    """`text` with a bounded length, without control characters and without what looks like a key."""
    printable = "".join(c if c.isprintable() or c in "\n\t" else " " for c in text[: 2 * MAX_MESSAGE_CHARS])
    return redact_guesses(printable).strip()[:MAX_MESSAGE_CHARS]


def redact_guesses(text: str) -> str:
    """`text` without what has a key's prefix, length and randomness."""
    return _CANDIDATE.sub(_judged, text)


def _judged(candidate: re.Match[str]) -> str:
    rest = candidate[1]
    is_masked = "***" in rest  # some show a key's first and last characters
    is_random = len(rest) >= _MIN_KEY_CHARS and _looks_random(rest)
    return errors.REDACTED if is_masked or is_random else candidate[0]


def _looks_random(text: str) -> bool:
    kinds = ["digit" if c.isdigit() else "upper" if c.isupper() else "lower" for c in text if c.isalnum()]
    changes = sum(one != other for one, other in pairwise(kinds))
    return "digit" in kinds and changes >= _MIN_CHANGES * len(kinds)
