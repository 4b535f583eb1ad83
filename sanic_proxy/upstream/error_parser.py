"""An upstream answer with a status of 400 or more -> the error our client gets. Pure.

Strategy: the provider's own rules come first (a text that one provider uses for one thing), then
a table by status, so that a provider adds knowledge as data and never as a branch here.
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sanic_proxy import errors
from sanic_proxy.openai import codec

MAX_MESSAGE_CHARS = 2000
MAX_RETRY_AFTER_S = 60

_TAG = re.compile(r"<(?:script|style)\b.*?</(?:script|style)>|<[^>]{0,500}>", re.DOTALL | re.IGNORECASE)
_NUMBER = re.compile(r"\s*\d{1,15}(?:\.\d{0,9})?\s*", re.ASCII)
_SPACE = re.compile(r"\s+")
# What looks like a credential is cut out of any text that a provider sends and a client reads:
# some providers repeat the key they refuse.
_SECRET = re.compile(
    r"\b(?:Bearer\s+\S+|(?:sk|gsk|xai|pplx|key|hf|nvapi|csk|AIza)[-_][\w*.-]{6,}|AIza[\w-]{10,})"
)

# Statuses whose meaning survives the way through a gateway: they concern the client's request.
_REQUEST_FAULTS = frozenset({400, 404, 405, 406, 408, 409, 410, 411, 413, 415, 416, 422, 424, 451})


@dataclass(frozen=True, slots=True)
class Rule:
    """One provider's way of saying something: statuses and a pattern in its text -> an error."""

    statuses: frozenset[int]
    pattern: re.Pattern[str] | None
    error: Callable[[str], errors.ProxyError]

    def fits(self, status: int, text: str) -> bool:
        return status in self.statuses and (self.pattern is None or bool(self.pattern.search(text)))


def error_from_answer(
    status: int, headers: Mapping[str, str], body: bytes, *, rules: Sequence[Rule] = ()
) -> errors.ProxyError:
    """The error for an upstream answer that failed. `body` may be cut short."""
    parsed = codec.loads_tolerant(body)
    text = safe_text(message_of(parsed) or _text_of(body))
    for rule in rules:
        if rule.fits(status, text):
            error = rule.error(text)
            break
    else:
        error = _by_status(status, parsed, text)
    if isinstance(error, errors.RateLimited) or error.status == 503:
        error.retry_after_s = retry_after_s(headers)
    error.upstream_status = status
    return error


def _by_status(status: int, parsed: object, text: str) -> errors.ProxyError:
    if status == 429:
        return _rate_limited(parsed, text)
    if status in _BY_STATUS:
        kind, message = _BY_STATUS[status]
        # The text of a refused key may repeat the key, and concerns the operator alone.
        return kind(message if kind is errors.UpstreamAuthFailed else text or message)
    if status < 200:
        return errors.UpstreamBadResponse("The provider switched to another protocol")
    if status < 400:
        return errors.UpstreamRedirect("The provider answered with a redirect, which is not followed")
    if status < 500:
        return _request_fault(status if status in _REQUEST_FAULTS else 400, parsed, text)
    return errors.UpstreamError(text or f"The provider failed with status {status}")


_KEY_REFUSED = "The provider refused the proxy's API key; the operator of the proxy has to mend it"
_BY_STATUS: Mapping[int, tuple[type[errors.ProxyError], str]] = {
    401: (errors.UpstreamAuthFailed, _KEY_REFUSED),
    402: (errors.InsufficientQuota, "The provider's account has no credit left"),
    403: (errors.UpstreamAuthFailed, _KEY_REFUSED),
    503: (errors.UpstreamUnavailable, "The provider is overloaded or down"),
    504: (errors.UpstreamTimeout, "The provider's own gateway timed out"),
    529: (errors.UpstreamUnavailable, "The provider is overloaded"),
}


def _rate_limited(parsed: object, text: str) -> errors.ProxyError:
    known = error_object(parsed)
    if known is not None and "insufficient_quota" in {known["type"], known["code"]}:
        return errors.InsufficientQuota(safe_text(known["message"]))
    return errors.RateLimited(text or "The provider's rate limit is reached")


def _request_fault(status: int, parsed: object, text: str) -> errors.ProxyError:
    known = error_object(parsed)
    if known is not None:
        known["message"] = safe_text(known["message"])
        if known["code"] == "context_length_exceeded":
            return errors.ContextLengthExceeded(known, status=status)
        return errors.UpstreamRefusedRequest(known, status=status)
    if status == 404:
        return errors.ModelNotFound(text or "The provider does not know this model or endpoint")
    fault: errors.ErrorObject = {
        "message": text or f"The provider refused the request with status {status}",
        "type": "invalid_request_error",
        "param": None,
        "code": "upstream_bad_request",
    }
    return errors.UpstreamRefusedRequest(fault, status=status)


def error_object(parsed: object) -> errors.ErrorObject | None:
    """The error object of a body already in OpenAI's shape; a list of one is unwrapped.

    Google's compatible endpoint answers with such a list.
    """
    if isinstance(parsed, list) and len(parsed) == 1:
        parsed = parsed[0]
    error = parsed.get("error") if isinstance(parsed, dict) else None
    if not isinstance(error, dict):
        return None
    message = error.get("message")
    if not isinstance(message, str) or not message:
        return None
    return {
        "message": message,
        "type": _text_or_none(error.get("type")) or "invalid_request_error",
        "param": _text_or_none(error.get("param")),
        "code": _text_or_none(error.get("code")),
    }


def message_of(parsed: object) -> str:
    """The sentence in an error body of any of the shapes providers use; "" where there is none."""
    if isinstance(parsed, list) and parsed:
        parsed = parsed[0]
    if not isinstance(parsed, dict):
        return ""
    error = parsed.get("error")
    candidates: list[Any] = [error]
    if isinstance(error, dict):
        candidates += [error.get("message"), *_completion_errors(error)]
    candidates += [parsed.get("message"), parsed.get("detail"), parsed.get("title")]
    return next((text for text in candidates if isinstance(text, str) and text.strip()), "")


def _completion_errors(error: Mapping[str, Any]) -> list[Any]:
    """Straico nests the vendor's text under `completions`, keyed by model."""
    completions = error.get("completions")
    if not isinstance(completions, dict):
        return []
    inner = [entry.get("completion") for entry in completions.values() if isinstance(entry, dict)]
    return [completion.get("error") for completion in inner if isinstance(completion, dict)]


def safe_text(text: str) -> str:
    """`text` on bounded length, without control characters and without what looks like a key."""
    printable = "".join(c if c.isprintable() or c in "\n\t" else " " for c in text[: 2 * MAX_MESSAGE_CHARS])
    return _SECRET.sub(errors.REDACTED, printable).strip()[:MAX_MESSAGE_CHARS]


def _text_of(body: bytes) -> str:
    """The readable part of a body that is no JSON object: never markup."""
    if body.lstrip()[:1] in {b"{", b"["}:
        return ""
    text = _TAG.sub(" ", body[:8192].decode("utf-8", "replace"))
    return _SPACE.sub(" ", text).strip()[:300]


def _text_or_none(value: object) -> str | None:
    if isinstance(value, str):
        return safe_text(value)[:200]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def retry_after_s(headers: Mapping[str, str]) -> int | None:
    """Seconds to wait, 1 to 60, from `retry-after-ms` or `retry-after`; None where neither helps.

    openai-node obeys any number, so a huge one is clamped (RFC 9110, 10.2.3: seconds or a date).
    """
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return _clamp(milliseconds / 1000)
    if (value := headers.get("retry-after")) is None:
        return None
    if (seconds := _number(value)) is not None:
        return _clamp(seconds)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return _clamp(when.timestamp() - time.time())


def _number(value: str | None) -> float | None:
    return None if value is None or not _NUMBER.fullmatch(value) else float(value)


def _clamp(seconds: float) -> int:
    return max(1, min(MAX_RETRY_AFTER_S, -int(-seconds // 1)))


_AUTH_CODES = frozenset({"invalid_api_key", "authentication_error", "unauthorized"})


def error_in_band(parsed: object) -> errors.ProxyError:
    """The error for an error object inside an answer that began as a success.

    Some providers (OpenRouter) put the status they would have sent into `code`.
    """
    error = _in_band(parsed)
    # What it would have been as an answer of its own: a provider that reports a failure has failed.
    error.upstream_status = error.upstream_status or error.status
    return error


def _in_band(parsed: object) -> errors.ProxyError:
    error = parsed.get("error") if isinstance(parsed, dict) else None
    inner = error if isinstance(error, dict) else {}
    for key in ("status", "status_code", "code"):
        status = inner.get(key)
        if isinstance(status, int) and 400 <= status < 600:
            told = _by_status(status, parsed, safe_text(message_of(parsed)))
            told.upstream_status = status
            return told
    known = error_object(parsed)
    if known is None:
        return errors.UpstreamError(safe_text(message_of(parsed)) or "The provider reported an error")
    if "permission_error" in {known["type"], known["code"]}:
        told = _by_status(403, parsed, "")
        told.upstream_status = 403
        return told
    if _AUTH_CODES & {known["type"], known["code"]}:
        return _by_status(401, parsed, "")
    if {known["type"], known["code"]} & {
        "rate_limit_error",
        "rate_limit_exceeded",
        "insufficient_quota",
    }:
        return _rate_limited(parsed, safe_text(known["message"]))
    known["message"] = safe_text(known["message"])
    if "type" not in inner:
        known["type"] = "server_error"
    return errors.UpstreamReportedError(known)


def checked(body: bytes) -> Any:
    """The JSON of a whole answer with a good status.

    Raises UpstreamBadResponse for what is none, and the provider's error where that is all it says.
    """
    try:
        parsed = codec.loads_exact(body)
    except ValueError:
        raise errors.UpstreamBadResponse("The provider's answer is not valid JSON") from None
    if isinstance(parsed, dict) and parsed.get("error") and "object" not in parsed:
        raise error_in_band(parsed)
    return parsed


def checked_completion(body: bytes) -> dict[str, Any]:
    """The completion in a whole answer. Raises for what is none, an error with status 200 included."""
    parsed = checked(body)
    if isinstance(parsed, dict) and parsed.get("error"):
        raise error_in_band(parsed)
    if not isinstance(parsed, dict) or not isinstance(parsed.get("choices"), list):
        raise errors.UpstreamBadResponse("The provider's answer is not a completion")
    return parsed
