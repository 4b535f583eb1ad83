"""What a failure means: a status and a report -> one of our classes. Tables, read from top to bottom.

A status alone decides too little: Groq answers 413 to a rate limit, OpenAI 401 to a missing scope, Google
400 to an invalid key, OpenRouter 402 to a request that asks for more tokens than there is credit for, and
an error inside an answer that began as a success has no status at all. So codes come first, as they are the
most exact; then words, each only with the statuses that it has been seen with; then the status, which for
an error without one is that of its code.

Words are read with care where an error may repeat the client's request: what closes a key for everybody (the
key is invalid, the account is empty) is taken from a 400 only if its message begins with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sanic_proxy import errors
from sanic_proxy.upstream.error_body import Report

Kind = type[errors.ProxyError]


def _plain(code: str) -> str:
    """A code without case and separators: `RateLimitExceeded` and `rate_limit_exceeded` are one."""
    return re.sub(r"[^a-z0-9]", "", code.lower())


def _names(text: str) -> frozenset[str]:
    return frozenset(map(_plain, text.split()))


MODEL_CODES = _names(
    "model_not_found model_decommissioned model_deprecated model_not_available model_not_supported"
    " model_terminated unknown_model model_unavailable model_does_not_exist no_such_model DeploymentNotFound"
    " model_not_found_error model_retired unsupported_model"
)

_CODES: tuple[tuple[Kind, frozenset[str]], ...] = (
    (
        errors.ContextLengthExceeded,
        _names(
            "context_length_exceeded exceed_context_size_error context_window_exceeded context_too_long"
            " model_context_window_exceeded string_above_max_length prompt_too_long input_too_long"
            " ContextWindowExceededError max_context_length_exceeded"
        ),
    ),
    (
        errors.ContentFiltered,
        _names(
            "content_filter content_policy_violation content_filtered ResponsibleAIPolicyViolation"
            " data_inspection_failed moderation_blocked content_moderation safety_violation"
            " prohibited_content content_blocked sensitive_content ContentPolicyViolationError"
        ),
    ),
    (
        errors.InsufficientQuota,
        _names(
            "insufficient_quota billing_hard_limit_reached insufficient_balance insufficient_credits"
            " billing_error billing_not_active credit_balance_too_low Arrearage quota_exceeded_error"
            " exceeded_current_quota_error AllocationQuota.FreeTierOnly insufficient_user_quota"
            " insufficient_funds payment_required"
        ),
    ),
    (
        errors.UpstreamAuthFailed,
        _names(
            "invalid_api_key api_key_invalid incorrect_api_key InvalidApiKey invalid_key api_key_expired"
            " account_deactivated UnrecognizedClientException ExpiredTokenException invalid_api_token"
        ),
    ),
    (
        errors.UpstreamAccessDenied,
        _names(
            "missing_scope missing_scopes insufficient_permissions access_denied AccessDeniedException"
            " unsupported_country_region_territory ip_not_authorized model_not_allowed no_access"
            " ACCESS_TOKEN_SCOPE_INSUFFICIENT SERVICE_DISABLED API_KEY_SERVICE_BLOCKED CONSUMER_SUSPENDED"
        ),
    ),
    (
        errors.RateLimited,
        _names(
            "rate_limit_exceeded RateLimitReached rate_limited too_many_requests ThrottlingException"
            " Throttling Throttling.RateQuota Throttling.AllocationQuota TooManyRequestsException"
            " policies.ratelimit.QuotaViolation policies.ratelimit.SpikeArrestViolation RATE_LIMIT_EXCEEDED"
        ),
    ),
    (errors.UpstreamRejected, MODEL_CODES),
)

# Codes and types that say no more than a status does. They count where there is no status, or a vague one.
_STATUS_OF: Mapping[str, int] = {
    _plain(name): status
    for status, names in (
        (
            400,
            "invalid_request_error INVALID_ARGUMENT BadRequestError bad_request invalid_request",
        ),
        (400, "FAILED_PRECONDITION OUT_OF_RANGE invalid_parameter invalid_value validation_error"),
        (400, "ValidationException InvalidParameter"),
        (
            401,
            "authentication_error unauthorized UNAUTHENTICATED invalid_authentication_error",
        ),
        (402, "billing_required"),
        (403, "permission_error PERMISSION_DENIED forbidden permission_denied_error PermissionDeniedError"),
        (404, "not_found_error NOT_FOUND NotFoundError resource_not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error RESOURCE_EXHAUSTED RateLimitError rate_limit_reached_error quota_exceeded"),
        (500, "server_error internal_error internal_server_error INTERNAL api_error InternalServerError"),
        (500, "InternalServerException UNKNOWN DATA_LOSS"),
        (
            503,
            "overloaded_error overloaded UNAVAILABLE service_unavailable engine_overloaded_error slow_down",
        ),
        (503, "engine_overloaded server_overloaded ServiceUnavailableException ModelNotReadyException"),
        (503, "capacity_exceeded service_unavailable_error ServiceUnavailableError over_capacity"),
        (
            504,
            "timeout timeout_error DEADLINE_EXCEEDED gateway_timeout request_timeout ModelTimeoutException",
        ),
    )
    for name in names.split()
}


@dataclass(frozen=True, slots=True)
class _Words:
    """A class, the statuses and a pattern. In-band errors without any status are tried with every row."""

    kind: Kind
    statuses: frozenset[int]
    pattern: re.Pattern[str]


def _words(kind: Kind, statuses: set[int], *patterns: str) -> _Words:
    return _Words(kind, frozenset(statuses), re.compile("|".join(patterns), re.IGNORECASE | re.DOTALL))


_MODEL_WORDS = _words(
    errors.UpstreamRejected,
    {400, 404, 410, 422},
    r"\bmodel\b(?:(?!\. |file|tool|message).){0,120}?"
    r"\b(?:does not exist|doesn't exist|not found|not available"
    r"|been (?:decommissioned|deprecated|retired|removed|disabled|discontinued|shut down)"
    r"|is (?:decommissioned|deprecated|retired|discontinued|disabled|not a valid model"
    r"|no longer (?:available|supported)))",
    r"\b(?:unknown|no such|invalid) model\b",
    r"not a valid model id",
    r"no endpoints found",
)

# OpenAI gives this the code `model_not_found`, though the organization is what has to change.
_UNVERIFIED = re.compile(r"\AYour organi[sz]ation must be verified", re.IGNORECASE)

_WORDS: tuple[_Words, ...] = (
    _words(
        errors.ContextLengthExceeded,
        {400, 413, 422, 500, 502},
        r"context[ _-]length",
        r"context window",
        r"exceeds?\b.{0,40}\bcontext (?:size|limit)",
        r"maximum (?:context|prompt|input) (?:length|tokens)",
        r"prompt is too long",
        r"input is too long for",
        r"token count\b.{0,40}\bexceeds",
        r"exceeds? the maximum number of (?:input )?tokens",
        r"exceed(?:ed|s)?\b.{0,20}\b(?:model|maximum|max)\b.{0,10}\btoken limit",
        r"exceeds?\b.{0,10}\bmodel limit",
        r"reduce the length of (?:the|your) (?:messages|prompt|input)",
        r"inputs` tokens \+ `max_new_tokens` must be",
        r"range of input length should be",
        r"too many tokens in (?:the )?(?:prompt|request|input)",
        r"prompt (?:has|contains) \d+ tokens",
    ),
    _words(
        errors.ContentFiltered,
        {400, 403, 422, 451},
        r"flagged",
        r"content (?:management|safety|usage|moderation) policy",
        r"(?:violat\w+|against|by)\b.{0,30}\b(?:content|usage|safety) polic",
        r"content[ _-]?filter",
        r"safety (?:system|filter|check)",
        r"inappropriate content|content exists risk|sensitive (?:content|words)",
        r"requires moderation",
    ),
    # It concerns this one request: the account has credit, though not for so many tokens.
    _words(errors.UpstreamRejected, {402}, r"fewer max_tokens|max_tokens.{0,40}afford|can only afford"),
    _words(
        errors.InsufficientQuota,
        {402, 403, 422, 429},
        r"insufficient (?:account )?(?:balance|credits?|funds|quota)",
        r"\bbalance is (?:insufficient|not enough|too low)",
        r"(?:out of|no (?:remaining )?|not enough|ran out of) credits?",
        r"billing (?:hard )?limit|spend(?:ing)? limit|key limit exceeded",
        r"overdue|arrears",
    ),
    _words(
        errors.InsufficientQuota,
        {400},
        r"\A(?:your credit balance is too low|insufficient (?:balance|credits?|quota))",
    ),
    _words(
        errors.RateLimited, {400, 403, 413}, r"\Arate limit (?:reached|exceeded)|tokens per minute \(TPM\)"
    ),
    _words(
        errors.UpstreamAuthFailed,
        {400},
        r"\A(?:incorrect|invalid) api[ _-]?key|\Aapi[ _-]?key (?:is )?(?:not valid|invalid|expired)",
    ),
    _words(
        errors.UpstreamAuthFailed,
        {403},
        r"(?:incorrect|invalid|expired|revoked) (?:x-)?(?:api[ _-]?)?(?:key|token|credentials)",
        r"api[ _-]?(?:key|token) (?:is |has been )?(?:not valid|invalid|expired|revoked|disabled)",
    ),
    _MODEL_WORDS,
    _words(
        errors.UpstreamBusy,
        {400, 409, 413, 422, 424},
        r"cuda (?:error|out of memory)|out of (?:gpu )?memory|over(?:loaded| capacity)",
    ),
)

# A 401 is the end of the key, unless it speaks of permissions and not of an invalid key.
_INVALID_KEY = re.compile(
    r"(?:invalid|incorrect|expired|revoked|wrong|missing|unknown)"
    r"(?: [\w-]+){0,2} (?:key|token|credentials?)\b",
    re.IGNORECASE,
)
_ACCESS = re.compile(
    r"scope|permission|organi[sz]ation|verified|not allowed|region|country|\bip\b|project|\bmodel|endpoint"
    r"|access to|not authorized to",
    re.IGNORECASE,
)
# Objects of the client's that a 404 may be about.
_RESOURCE = re.compile(
    r"\b(?:file|batch|upload|response|thread|assistant|message|item|vector[ _]store|container|image|video|run"
    r"|job|fine-tun\w+|completion)s?\b.{0,120}\b(?:not found|does not exist|not exist)|no such (?!model)\w+"
    r"|(?:can(?:not|'t)|could not|couldn't) find\b.{0,20}\b(?:file|batch|response|item)",
    re.IGNORECASE | re.DOTALL,
)

# Statuses that are surely about the client's request; every other 4xx is taken as the target's.
CLIENT_STATUSES = frozenset({400, 406, 411, 412, 413, 414, 415, 416, 422, 431, 451})
_BUSY_STATUSES = frozenset({408, 423, 424, 425, 498, 499})
# Rejections that say nothing about the target's health: an unknown name, an unsupported method.
BLAMELESS_STATUSES = frozenset({402, 404, 405, 409, 410})

_BY_STATUS: Mapping[int, Kind] = {
    402: errors.InsufficientQuota,
    403: errors.UpstreamAccessDenied,
    429: errors.RateLimited,
    503: errors.UpstreamUnavailable,
    504: errors.UpstreamTimeout,
    524: errors.UpstreamTimeout,
    529: errors.UpstreamUnavailable,
}
# What a code or an inner status may make of a status that says little.
_VAGUE_STATUSES = frozenset({400, 500, 502})
_TELLING_STATUSES = frozenset({429, 503, 504, 529})


def classify(status: int | None, report: Report) -> tuple[Kind, int | None]:
    """The class of a failure, and its status: the one given or, for None, the one that its code stands for.

    The status stays None for an error inside an answer that has no known code. Statuses below 400 are not
    judged here.
    """
    known = _known_status(status, report)
    codes = {_plain(code) for code in report.codes}
    if _UNVERIFIED.match(report.words):
        return errors.UpstreamAccessDenied, known
    for kind, names in _CODES:
        if not names.isdisjoint(codes):
            return kind, known
    for row in _WORDS:
        if (known is None or known in row.statuses) and row.pattern.search(report.words):
            has_status = known is not None or row.kind is not errors.UpstreamBusy
            return (row.kind if has_status else errors.UpstreamUnavailable), known
    if known is None:
        return errors.UpstreamReportedError, None
    return _by_status(known, report), known


def _known_status(status: int | None, report: Report) -> int | None:
    if status is not None and status not in _VAGUE_STATUSES:
        return status
    named = report.status or _status_of_codes(report)
    if status is None:
        return named
    return named if named in _TELLING_STATUSES else status


def _status_of_codes(report: Report) -> int | None:
    return next((_STATUS_OF[code] for code in map(_plain, report.codes) if code in _STATUS_OF), None)


def _by_status(status: int, report: Report) -> Kind:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status == 401:
        return _unauthorized(report)
    if status == 404:
        return errors.UpstreamRefusedRequest if _RESOURCE.search(report.words) else errors.UpstreamRejected
    if status in CLIENT_STATUSES:
        return errors.UpstreamRefusedRequest
    if status in _BUSY_STATUSES:
        return errors.UpstreamBusy
    return errors.UpstreamRejected if status < 500 else errors.UpstreamError


def is_about_model(kind: Kind, report: Report) -> bool:
    """Whether a rejection says that the target does not have, or no longer has, the model."""
    has_code = not MODEL_CODES.isdisjoint(map(_plain, report.codes))
    return kind is errors.UpstreamRejected and (has_code or bool(_MODEL_WORDS.pattern.search(report.words)))


def _unauthorized(report: Report) -> Kind:
    is_access = _ACCESS.search(report.words) and not _INVALID_KEY.search(report.words)
    return errors.UpstreamAccessDenied if is_access else errors.UpstreamAuthFailed
