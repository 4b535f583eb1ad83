"""Everything that can go wrong. Knows no HTTP library; a dialect gives an error its shape.

    ProxyError                       500 server_error
    ├── ClientError                  400 invalid_request_error: the client has to change the request
    │   ├── InvalidRequest           400
    │   ├── Unauthorized             401 invalid_api_key
    │   ├── Forbidden                403
    │   ├── NotFound                 404
    │   │   ├── ModelNotFound        404 model_not_found
    │   │   └── EndpointNotFound     404 endpoint_not_found
    │   ├── Conflict                 409 conflict
    │   ├── ProviderNotConfigured    400 provider_not_configured
    │   ├── BodyTooLarge             413 request_too_large
    │   ├── UnsupportedMedia         415 unsupported_media_type
    │   └── UpstreamRefusedRequest   4xx, in the words of the provider
    │       ├── ContextLengthExceeded 400 context_length_exceeded: another model may have room
    │       └── ContentFiltered      400: the provider's content filter refused the prompt
    ├── RateLimited                  429 rate_limit_exceeded
    │   ├── LimitReached             429 rate_limit_exceeded: a limit of the client's own
    │   │   └── BudgetReserved       429 budget_reserved: by requests in flight
    │   └── InsufficientQuota        429 insufficient_quota: waiting does not help
    │       └── BudgetUsedUp         429 insufficient_quota: a budget of the client's own
    ├── UpstreamError                502: the provider, or the connection to it, failed
    │   ├── UpstreamConnectFailed    502 upstream_connect_error
    │   │   ├── UpstreamDnsFailed    502 upstream_dns_error
    │   │   └── UpstreamTlsFailed    502 upstream_tls_error
    │   ├── UpstreamTimeout          504 upstream_timeout
    │   │   ├── UpstreamStalled      504 upstream_stalled
    │   │   └── UpstreamConnectTimeout   nothing has been sent yet
    │   ├── UpstreamDisconnected     502 upstream_disconnected
    │   ├── UpstreamBadResponse      502 upstream_bad_response
    │   │   ├── UpstreamBadFrame     502 upstream_bad_frame
    │   │   ├── UpstreamDiverged     502 upstream_diverged: a repeat of the request gave another text
    │   │   ├── FrameTooLarge        502 upstream_frame_too_large
    │   │   └── UpstreamRedirect     502 upstream_redirect
    │   ├── UpstreamAuthFailed       502 upstream_auth_error: our key, so never a 401 to the client
    │   │   └── UpstreamAccessDenied 502 upstream_access_denied: the key is valid, but not for this
    │   ├── UpstreamRejected         4xx that concerns the target (for example a retired model), status kept
    │   │   └── UpstreamBusy         4xx for a passing state of the target (408, 424, 498), status kept
    │   ├── UpstreamUnavailable      503 upstream_unavailable
    │   │   ├── CircuitOpen          503 upstream_circuit_open
    │   │   └── TargetOff            503 target_off: switched off by the operator
    │   └── UpstreamReportedError    the provider's own error object, inside an answer
    ├── CallerTimeout                504 client_timeout: the client waits no longer than this
    ├── Overloaded                   503 server_overloaded: this worker is at capacity
    ├── NoRoom                       503 no_room: the disk that uploads wait on is full
    ├── StoreFailed                  503 store_unavailable: what is stored cannot be read or written
    └── ShuttingDown                 503 server_shutting_down

An error is complete when it is constructed, and not modified afterwards: code that needs it without keys
(the renderer of responses, the log) takes the copy that `redacted` returns.

`retryable`: a retry by the client can succeed. Where it is false, the response carries
`x-should-retry: false`, which the OpenAI SDKs obey.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Self, TypedDict, Unpack

REDACTED = "[redacted]"

# The Retry-After beside an empty account. Agents do not repeat a request that may return in more than a
# minute (gemini-cli: five); without this figure some of them repeat a 429 whatever else it says.
EMPTY_ACCOUNT_S = 3600

# A text that was cut to its bound may end inside a key; shorter fragments of one are of no use to anybody.
_MIN_FRAGMENT_CHARS = 6


class ErrorObject(TypedDict):
    """The four standard keys of OpenAI's error object; all of them are always there."""

    message: str
    type: str
    param: str | None
    code: str | None


class Facts(TypedDict, total=False):
    """What is known of a failure besides its error object.

    `retry_after_s` is the Retry-After of our response, in whole seconds, clamped; `wait_s` is the provider's
    own figure, unclamped. `upstream_status` is the status that the provider answered with or, inside an
    answer that began as a success, would have answered with. `details` are further fields of the provider's
    error object, bounded; `headers` are those of its response headers that are returned with the error.
    `blames_target` overrides the class: whether the failure counts against the target. `log_text` is for
    the log alone: an HTML page's text, or a provider's message about the proxy's key. `body` is the
    provider's whole body, where a client of the same dialect gets it unmodified, with `upstream_status`.
    """

    retry_after_s: int | None
    wait_s: float | None
    upstream_status: int | None
    details: Mapping[str, Any]
    headers: Sequence[tuple[str, str]]
    blames_target: bool
    log_text: str
    body: bytes


class ProxyError(Exception):
    """The base: catch it to catch everything this proxy raises on purpose.

    `message` is read by the client: it has the cause and the remedy, and never contains a key, a prompt
    or a stack trace. In place of a text it may be a provider's whole error object, whose type, param and
    code are kept. `Facts` describes the other keywords.
    """

    status: int = 500
    type: str = "server_error"
    code: str | None = None
    retryable: ClassVar[bool] = True
    # Whether the failure counts against the target that was tried, and whether it ends all attempts.
    blames_target: bool = True
    is_final: bool = False

    def __init__(
        self,
        message: str | ErrorObject,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        **facts: Unpack[Facts],
    ) -> None:
        if isinstance(message, dict):
            self.type, self.code, param = message["type"], message["code"], message["param"]
            message = message["message"]
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status
        if "blames_target" in facts:
            self.blames_target = facts["blames_target"]
        self.retry_after_s = facts.get("retry_after_s")
        self.wait_s = facts.get("wait_s")
        self.upstream_status = facts.get("upstream_status")
        self.details = facts.get("details", {})
        self.headers = facts.get("headers", ())
        self.log_text = facts.get("log_text", "")
        self.body = facts.get("body", b"")

    def replaced(
        self,
        *,
        blames_target: bool | None = None,
        is_final: bool | None = None,
        body: bytes | None = None,
    ) -> Self:
        """A copy that knows more of its effect than where the error was made."""
        other = copy.copy(self)
        if blames_target is not None:
            other.blames_target = blames_target
        if is_final is not None:
            other.is_final = is_final
        if body is not None:
            other.body = body
        return other

    def redacted(self, secrets: Iterable[str]) -> Self:
        """This error without `secrets` in any of its texts: a provider may repeat the key that it rejects."""
        if not (found := tuple(secrets)):
            return self
        clean = redaction(found)
        other = copy.copy(self)
        other.message = clean(self.message)
        other.args = (other.message,)
        other.type = clean(self.type)
        other.param = self.param and clean(self.param)
        other.code = self.code and clean(self.code)
        other.log_text = clean(self.log_text)
        other.body = clean(self.body.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
        other.headers = [(name, clean(value)) for name, value in self.headers]
        other.details = _cleaned(self.details, clean)
        return other


@lru_cache(maxsize=16)
def redaction(secrets: tuple[str, ...]) -> Callable[[str], str]:
    """A function that replaces every one of `secrets` in a text, and the beginning of one at its end.

    Its time does not depend on the number of secrets: they are looked up by their first characters.
    Where several fit, the longest is taken, as one may be the beginning of another.
    """
    size = min((_MIN_FRAGMENT_CHARS, *map(len, filter(None, secrets))))
    by_start: dict[str, list[str]] = {}
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        by_start.setdefault(secret[:size], []).append(secret)

    def found_at(text: str, at: int) -> int:
        """The length of the secret, or of the beginning of one, that `text` holds at `at`; 0 for none."""
        for secret in by_start.get(text[at : at + size], ()):
            if text.startswith(secret, at):
                return len(secret)
            rest = text[at : at + len(secret)]
            if _MIN_FRAGMENT_CHARS <= len(rest) < len(secret) and secret.startswith(rest):
                return len(rest)
        return 0

    def clean(text: str) -> str:
        kept, start, at = "", 0, 0
        while at <= len(text) - size:
            if length := found_at(text, at):
                kept += text[start:at] + REDACTED
                start = at = at + length
            else:
                at += 1
        return kept + text[start:] if start else text

    return clean


def _cleaned(value: Any, clean: Callable[[str], str]) -> Any:
    """A JSON value with `clean` applied to every text in it, keys included."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(key): _cleaned(inner, clean) for key, inner in value.items()}
    if isinstance(value, list):
        return [_cleaned(inner, clean) for inner in value]
    return value


class ClientError(ProxyError):
    """The request cannot be served as it is; the same request will fail again."""

    status = 400
    type = "invalid_request_error"
    code: str | None = None
    retryable = False


class InvalidRequest(ClientError):
    """The body or a parameter is wrong."""


class Unauthorized(ClientError):
    """No key, or one that is not ours."""

    status = 401
    code = "invalid_api_key"


class Forbidden(ClientError):
    """The origin or host of the request is not allowed, or its key may not use what it names."""

    status = 403
    code = "forbidden"


class NotFound(ClientError):
    """No such route or resource."""

    status = 404
    code = "not_found"


class Conflict(ClientError):
    """What is to be made exists already."""

    status = 409
    code = "conflict"


class ModelNotFound(NotFound):
    """No provider has a model of that name."""

    code = "model_not_found"


class EndpointNotFound(NotFound):
    """The provider has no such endpoint."""

    code = "endpoint_not_found"


class ProviderNotConfigured(ClientError):
    """The provider exists, but its key or address is not set."""

    code = "provider_not_configured"


class BodyTooLarge(ClientError):
    """The body is larger than the proxy accepts."""

    status = 413
    code = "request_too_large"


class UnsupportedMedia(ClientError):
    """The body's type or encoding is not one the route reads."""

    status = 415
    code = "unsupported_media_type"


class RateLimited(ProxyError):
    """The provider's rate limit is reached."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class InsufficientQuota(RateLimited):
    """The account behind the key has nothing left to spend."""

    type = "insufficient_quota"
    code = "insufficient_quota"
    retryable = False
    least_retry_after_s: ClassVar[int] = EMPTY_ACCOUNT_S


class LimitReached(RateLimited):
    """A limit of the client, its team, a model or the whole proxy is reached."""

    blames_target = False
    is_final = True


class BudgetReserved(LimitReached):
    """What is left of a budget is reserved by requests in flight."""

    code = "budget_reserved"


class BudgetUsedUp(InsufficientQuota):
    """A budget of the client, its team, a model or the whole proxy is spent. It says itself until when."""

    least_retry_after_s = 0
    blames_target = False
    is_final = True


class UpstreamError(ProxyError):
    """The provider, or the connection to it, failed."""

    status = 502
    code: str | None = "upstream_error"


class UpstreamConnectFailed(UpstreamError):
    """No connection to the provider could be made."""

    code = "upstream_connect_error"


class UpstreamDnsFailed(UpstreamConnectFailed):
    """The provider's host name could not be resolved."""

    code = "upstream_dns_error"


class UpstreamTlsFailed(UpstreamConnectFailed):
    """The provider's certificate or TLS handshake is not acceptable."""

    code = "upstream_tls_error"
    retryable = False


class UpstreamTimeout(UpstreamError):
    """One of the four clocks (connect, first byte, idle, total) ran out."""

    status = 504
    code = "upstream_timeout"


class UpstreamStalled(UpstreamTimeout):
    """A stream makes no progress."""

    code = "upstream_stalled"


class UpstreamConnectTimeout(UpstreamTimeout):
    """No connection within its time: the request has not been sent."""


class UpstreamDisconnected(UpstreamError):
    """The connection ended before the answer did.

    `is_stale_connection`: a reused connection was closed, without a byte of an answer, so soon after the
    request was sent that the provider has very probably closed it for being idle and not seen the request.
    `is_new_connection`: the request was the first on its connection, and no byte of an answer was received.
    """

    code = "upstream_disconnected"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        is_stale_connection: bool = False,
        is_new_connection: bool = False,
        **facts: Unpack[Facts],
    ) -> None:
        super().__init__(message, param=param, **facts)
        self.is_stale_connection = is_stale_connection
        self.is_new_connection = is_new_connection


class UpstreamBadResponse(UpstreamError):
    """The provider's answer cannot be read, or has another form than requested."""

    code = "upstream_bad_response"


class UpstreamDiverged(UpstreamBadResponse):
    """A repeated request was answered with another text than the one that the client has the beginning of."""

    code = "upstream_diverged"
    blames_target = False
    is_final = True


class UpstreamBadFrame(UpstreamBadResponse):
    """A frame of the provider's stream is not valid JSON or UTF-8."""

    code = "upstream_bad_frame"


class FrameTooLarge(UpstreamBadResponse):
    """A frame of the provider's stream is larger than the proxy holds."""

    code = "upstream_frame_too_large"
    retryable = False


class UpstreamRedirect(UpstreamBadResponse):
    """The provider redirects; following it would hand our key to another host."""

    code = "upstream_redirect"
    retryable = False


class UpstreamAuthFailed(UpstreamError):
    """The provider rejects the proxy's key itself: the operator has to act, not the client."""

    code = "upstream_auth_error"
    retryable = False


class UpstreamAccessDenied(UpstreamAuthFailed):
    """The provider accepts the key, but not for this model, endpoint or region.

    The provider's message is passed on, as only it has the remedy (to verify the organization, for example).
    """

    code = "upstream_access_denied"


class UpstreamUnavailable(UpstreamError):
    """The provider reports that it is overloaded or down."""

    status = 503
    code = "upstream_unavailable"


class CircuitOpen(UpstreamUnavailable):
    """The target failed so often that no request is sent to it for a moment."""

    code = "upstream_circuit_open"


class TargetOff(UpstreamUnavailable):
    """An operator has switched the target off."""

    code = "target_off"
    retryable = False


class UpstreamReportedError(UpstreamError):
    """The provider's own error object.

    Used for errors inside an answer whose code and words have no known meaning.
    """


class UpstreamRefusedRequest(ClientError):
    """The provider rejects the client's request (a 4xx that concerns the request, not the target)."""

    code = "upstream_bad_request"


class ContextLengthExceeded(UpstreamRefusedRequest):
    """The prompt is longer than the model's context window."""

    code = "context_length_exceeded"


class ContentFiltered(UpstreamRefusedRequest):
    """The provider's content filter refused the prompt."""

    code = "content_filter"


class UpstreamRejected(UpstreamError):
    """A 4xx that is not surely the client's fault: it concerns the target, and another one may answer.

    The client gets the provider's own status and words where no target answers.
    """

    code = "upstream_rejected"
    retryable = False


class UpstreamBusy(UpstreamRejected):
    """A 4xx for a passing state of the target, such as no capacity or a time-out: a repeat may succeed."""

    retryable = True


class CallerTimeout(ProxyError):
    """The time is over that the client itself waits for an answer, as it says in its request."""

    status = 504
    code = "client_timeout"
    is_final = True


class Overloaded(ProxyError):
    """This worker is at capacity."""

    status = 503
    code = "server_overloaded"


class NoRoom(ProxyError):
    """The disk that uploads wait on is full."""

    status = 503
    code = "no_room"


class StoreFailed(ProxyError):
    """What is stored cannot be read or written now."""

    status = 503
    code = "store_unavailable"


class ShuttingDown(ProxyError):
    """This worker is stopping."""

    status = 503
    code = "server_shutting_down"
