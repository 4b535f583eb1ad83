"""A failed answer, or an error inside a good one -> the error that our client gets. Pure.

`error_body` reads what the answer says, `error_kinds` decides what it means, `retry_hints` finds how long
to wait; this module builds the error from the three, complete, so that it is not changed later. A
provider whose texts have a meaning of their own adds rows of `Rule` and no branch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sanic_proxy import errors
from sanic_proxy.openai import codec
from sanic_proxy.upstream import error_kinds
from sanic_proxy.upstream.error_body import Report, is_error, message_of, report_of, safe_text
from sanic_proxy.upstream.response_headers import returned_headers
from sanic_proxy.upstream.retry_hints import clamped, retry_after_s, wait_s

__all__ = [
    "Rule",
    "error_from_answer",
    "error_in_band",
    "error_in_line",
    "is_error",
    "message_of",
    "retry_after_s",
    "safe_text",
]

KEY_REJECTED = "The provider rejected the proxy's API key. Ask the proxy's operator to fix it"

_DEFAULT_MESSAGES: Mapping[type[errors.ProxyError], str] = {
    errors.InsufficientQuota: "The provider's account has no credit left",
    errors.RateLimited: "The provider's rate limit is reached",
    errors.UpstreamAccessDenied: "The provider denied the proxy's account access to this model or endpoint",
    errors.UpstreamTimeout: "The provider's gateway timed out",
    errors.UpstreamUnavailable: "The provider is overloaded or down",
}
# Types for mistakes of the client, which do not fit a failure of the provider.
_CLIENT_TYPE = re.compile(
    r"invalid|bad_?request|validation|not_?found|authentication|permission", re.IGNORECASE
)
# Classes whose details concern the operator's account and not the client.
_WITHOUT_DETAILS = (errors.UpstreamAuthFailed,)
# Failures that pass by waiting. A plain 500 is repeated at once or not at all.
_WAITING = (errors.RateLimited, errors.UpstreamUnavailable, errors.UpstreamBusy)

# What an error inside an answer would have come with, where that is not the status that our client gets.
_STATUS_WITHOUT: Mapping[type[errors.ProxyError], int] = {
    errors.UpstreamAuthFailed: 401,
    errors.UpstreamAccessDenied: 403,
}

# `status_code` in a `base_resp` has numbers of its own.
_BASE_RESP_CODES: Mapping[int, str] = {
    1001: "timeout",
    1002: "rate_limit_exceeded",
    1004: "invalid_api_key",
    1008: "insufficient_balance",
    1026: "content_filter",
    1027: "content_filter",
    1039: "rate_limit_exceeded",
    1041: "rate_limit_exceeded",
    2013: "invalid_request_error",
    2049: "invalid_api_key",
    2056: "rate_limit_exceeded",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """What a text means at one provider: statuses and a pattern -> a class.

    A row with a pattern also judges errors inside answers that began as a success, whatever its statuses.
    """

    statuses: frozenset[int]
    pattern: re.Pattern[str] | None
    kind: type[errors.ProxyError]
    status: int | None = None  # the provider's is not what others use for this

    def fits(self, status: int | None, text: str) -> bool:
        if self.pattern is None:
            return status in self.statuses
        return (status is None or status in self.statuses) and bool(self.pattern.search(text))


def error_from_answer(
    status: int, headers: Mapping[str, str], body: bytes, *, rules: Sequence[Rule] = ()
) -> errors.ProxyError:
    """The error for an upstream answer with a status of 300 or more. `body` may be cut short."""
    if status < 400:
        return _unexpected(status, headers)
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    parsed = codec.loads_tolerant(body)
    report = report_of(parsed, body, media_type)
    if code := headers.get("x-amzn-errortype"):
        report = replace(report, codes=(code.partition(":")[0], *report.codes))
    return _error(status, headers, report, parsed, rules)


def error_in_band(parsed: object, *, rules: Sequence[Rule] = ()) -> errors.ProxyError:
    """The error for an error object inside an answer that began as a success.

    Its code, a number or a text, gives it the class, the status and the type that it would have as an answer
    of its own.
    """
    report = report_of(parsed if isinstance(parsed, Mapping | list) else {})
    base = parsed.get("base_resp") if isinstance(parsed, Mapping) else None
    if isinstance(base, Mapping) and (code := _BASE_RESP_CODES.get(_whole(base.get("status_code")))):
        report = replace(report, code=report.code or code, codes=(code, *report.codes))
    return _error(None, {}, report, parsed, rules)


def error_in_line(line: bytes, *, rules: Sequence[Rule] = ()) -> errors.ProxyError | None:
    """The error in a line or body that stands, without `data:`, where an event stream was to come.

    That is the JSON of an error, or `error:` with JSON or a text behind it; None for anything else.
    """
    text = line.strip().removeprefix(b"\xef\xbb\xbf")
    is_marked = text[:6].lower() == b"error:"
    if is_marked:
        text = text[6:].strip()
    parsed = codec.loads_tolerant(text) if text[:1] in {b"{", b"["} else None
    if is_marked:
        value = parsed if is_error(parsed) else {"error": parsed or text.decode("utf-8", "replace") or True}
        return error_in_band(value, rules=rules)
    return error_in_band(parsed, rules=rules) if is_error(parsed) else None


def _whole(value: object) -> int:
    is_whole = isinstance(value, int | str) and not isinstance(value, bool) and str(value).isdigit()
    return int(str(value)[:9]) if is_whole else 0


def _unexpected(status: int, headers: Mapping[str, str]) -> errors.ProxyError:
    if status < 200:
        text = f"The provider answered HTTP {status}: it switched to another protocol"
        return errors.UpstreamBadResponse(text, upstream_status=status)
    text = f"The provider answered HTTP {status}: a redirect, which is not followed"
    return errors.UpstreamRedirect(text, upstream_status=status, headers=returned_headers(headers))


def _error(
    status: int | None, headers: Mapping[str, str], report: Report, parsed: object, rules: Sequence[Rule]
) -> errors.ProxyError:
    kind, known = error_kinds.classify(status, report)
    rule = next((rule for rule in rules if rule.fits(status, report.words)), None)
    if rule is not None:
        kind, known = rule.kind, rule.status or status
    facts: errors.Facts = {"headers": returned_headers(headers), "log_text": report.page}
    if not issubclass(kind, _WITHOUT_DETAILS):
        facts["details"] = report.details
    if issubclass(kind, _WAITING):
        wait = wait_s(headers, parsed, report.words)
        facts["wait_s"] = wait
        facts["retry_after_s"] = None if wait is None else clamped(wait)
    return _built(kind, known, report, facts, is_in_band=status is None)


def _built(
    kind: type[errors.ProxyError],
    status: int | None,
    report: Report,
    facts: errors.Facts,
    *,
    is_in_band: bool,
) -> errors.ProxyError:
    """The error, complete. `status` is the provider's; None where an error inside an answer has none."""
    facts["upstream_status"] = _STATUS_WITHOUT.get(kind, kind.status) if status is None else status
    if issubclass(kind, errors.UpstreamAuthFailed):
        facts["log_text"] = report.message or report.page
        if not issubclass(kind, errors.UpstreamAccessDenied):
            return kind(KEY_REJECTED, **facts)
    if issubclass(kind, errors.ContextLengthExceeded | errors.ContentFiltered):
        facts["upstream_status"] = status or 400
        return kind(_object(kind, 400, report), status=400, **facts)
    if issubclass(kind, errors.UpstreamRefusedRequest | errors.UpstreamRejected):
        return _rejection(kind, status, report, facts)
    if issubclass(kind, errors.UpstreamReportedError):
        reported = _object(kind, 502, report)
        return kind({**reported, "message": _message(kind, None, report)}, **facts)
    code = report.code if kind is errors.UpstreamError and is_in_band and _has_name(report) else None
    return kind(_message(kind, status, report), code=code, **facts)


def _rejection(
    kind: type[errors.ProxyError], status: int | None, report: Report, facts: errors.Facts
) -> errors.ProxyError:
    """A 4xx that keeps its status; without one, or with a 5xx, it gets the one that fits its class."""
    own = status if status is not None and 400 <= status < 500 else None
    if own is None or own in {401, 403}:
        own = 404 if kind is errors.UpstreamRejected else 400
    facts["upstream_status"] = status or own
    if kind is errors.UpstreamRejected and (
        own in error_kinds.BLAMELESS_STATUSES or error_kinds.is_about_model(kind, report)
    ):
        facts["blames_target"] = False
    return kind(_object(kind, own, report), status=own, **facts)


def _object(kind: type[errors.ProxyError], status: int, report: Report) -> errors.ErrorObject:
    type_ = report.type
    if type_ is None or (status >= 500 and _CLIENT_TYPE.search(type_)):
        is_server = status >= 500 or issubclass(kind, errors.UpstreamBusy)
        type_ = "server_error" if is_server else "invalid_request_error"
    return {
        "message": _message(kind, status, report),
        "type": type_,
        "param": report.param,
        "code": _code(kind, status, report),
    }


def _code(kind: type[errors.ProxyError], status: int, report: Report) -> str | None:
    """The provider's own code; for what clients look for by its name, that name."""
    has_name = _has_name(report)
    if issubclass(kind, errors.ContextLengthExceeded):
        return kind.code
    if issubclass(kind, errors.ContentFiltered):
        return report.code if has_name else kind.code
    is_missing = error_kinds.is_about_model(kind, report) or (status == 404 and not report.is_standard)
    if kind is errors.UpstreamRejected and is_missing and not has_name:
        return "model_not_found"
    if report.code is not None or report.is_standard:
        return report.code
    return kind.code


def _has_name(report: Report) -> bool:
    return report.code is not None and not report.code.isdigit()


def _message(kind: type[errors.ProxyError], status: int | None, report: Report) -> str:
    if report.message:
        return report.message
    if report.page:
        answered = "reported an error" if status is None else f"answered HTTP {status}"
        return f"The provider {answered} with an HTML page"
    for known, text in _DEFAULT_MESSAGES.items():
        if issubclass(kind, known):
            return text
    return "The provider reported an error" if status is None else f"The provider answered HTTP {status}"
