"""Everything that can go wrong, as OpenAI's error object. Knows no HTTP library.

    ProxyError                       500 server_error
    ├── ClientError                  400 invalid_request_error: the client can mend it
    │   ├── InvalidRequest           400
    │   ├── Unauthorized             401 invalid_api_key
    │   ├── Forbidden                403
    │   ├── NotFound                 404
    │   │   ├── ModelNotFound        404 model_not_found
    │   │   └── EndpointNotFound     404 endpoint_not_found
    │   ├── ProviderNotConfigured    400 provider_not_configured
    │   ├── BodyTooLarge             413 request_too_large
    │   ├── UnsupportedMedia         415 unsupported_media_type
    │   └── UpstreamRefusedRequest   4xx, in the words of the provider
    │       ├── ContextLengthExceeded 400 context_length_exceeded: another model may have room
    │       └── ContentFiltered      the provider's content filter refused the prompt
    ├── RateLimited                  429 rate_limit_exceeded
    │   └── InsufficientQuota        429 insufficient_quota: waiting does not help
    ├── UpstreamError                502: the provider, or the way to it, failed
    │   ├── UpstreamConnectFailed    502 upstream_connect_error
    │   │   ├── UpstreamDnsFailed    502 upstream_dns_error
    │   │   └── UpstreamTlsFailed    502 upstream_tls_error
    │   ├── UpstreamTimeout          504 upstream_timeout
    │   │   ├── UpstreamStalled      504 upstream_stalled
    │   │   └── UpstreamConnectTimeout   nothing has been sent yet
    │   ├── UpstreamDisconnected     502 upstream_disconnected
    │   ├── UpstreamBadResponse      502 upstream_bad_response
    │   │   ├── UpstreamBadFrame     502 upstream_bad_frame
    │   │   ├── FrameTooLarge        502 upstream_frame_too_large
    │   │   └── UpstreamRedirect     502 upstream_redirect
    │   ├── UpstreamAuthFailed       502 upstream_auth_error: our key, so never a 401 to the client
    │   │   └── UpstreamAccessDenied 502 upstream_access_denied: the key is valid, but not for this
    │   ├── UpstreamRejected         4xx that concerns the target (498, 424, a retired model), status kept
    │   ├── UpstreamUnavailable      503 upstream_unavailable
    │   │   └── CircuitOpen          503 upstream_circuit_open
    │   └── UpstreamReportedError    the provider's own error object, inside an answer
    ├── Overloaded                   503 server_overloaded: this worker has enough to do
    ├── NoRoom                       503 no_room: the disk that uploads wait on is full
    └── ShuttingDown                 503 server_shutting_down

A repeat by the client mends some of them and not others: `retryable` says which, and becomes
the header `x-should-retry: false` (obeyed by the OpenAI SDKs) where it is false.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypedDict

REDACTED = "[redacted]"


class ErrorObject(TypedDict):
    """The inner object of OpenAI's error body; all four keys are always there."""

    message: str
    type: str
    param: str | None
    code: str | None


class ProxyError(Exception):
    """The base: catch it to catch everything this proxy raises on purpose.

    `message` is read by the client: it says what happened and what to do, and never holds a
    key, a prompt or a stack trace. `retry_after_s` is the Retry-After the client gets, in whole seconds,
    already clamped; `wait_s` is the provider's own figure, unclamped. `upstream_status` is the status that
    a provider answered with, where it did. `details` are further fields of the provider's error object,
    bounded and redacted; `headers` are what of its response headers comes back with the error.
    """

    status: int = 500
    type: str = "server_error"
    code: str | None = None
    retryable: ClassVar[bool] = True
    # Whether it speaks against the target that was asked, and whether it ends all attempts.
    blames_target: bool = True
    is_final: bool = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.wait_s: float | None = None
        self.upstream_status: int | None = None
        self.details: Mapping[str, Any] = {}
        self.headers: Sequence[tuple[str, str]] = ()
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status

    def redact(self, secrets: Iterable[str]) -> None:
        """Take `secrets` out of what the client reads: a provider may repeat the key that it refuses."""
        for secret in secrets:
            self.message = self.message.replace(secret, REDACTED)
            self.type = self.type.replace(secret, REDACTED)
            self.param = self.param and self.param.replace(secret, REDACTED)
            self.code = self.code and self.code.replace(secret, REDACTED)

    def as_object(self) -> ErrorObject:
        """OpenAI's error object, without the `error` key around it."""
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}


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
    """The page or host that asks is not allowed to."""

    status = 403
    code = "forbidden"


class NotFound(ClientError):
    """No such route or resource."""

    status = 404
    code = "not_found"


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
    """The provider asks us to wait."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class InsufficientQuota(RateLimited):
    """The account behind the key has nothing left to spend."""

    type = "insufficient_quota"
    code = "insufficient_quota"
    retryable = False


class UpstreamError(ProxyError):
    """The provider, or the way to it, failed."""

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
    """A stream goes on, and brings nothing."""

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
    ) -> None:
        super().__init__(message, param=param)
        self.is_stale_connection = is_stale_connection
        self.is_new_connection = is_new_connection


class UpstreamBadResponse(UpstreamError):
    """The provider answered with something that is no answer."""

    code = "upstream_bad_response"


class UpstreamBadFrame(UpstreamBadResponse):
    """A frame of the provider's stream is no JSON, or no UTF-8."""

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
    """The provider refuses our key: the operator has to act, not the client."""

    code = "upstream_auth_error"
    retryable = False


class UpstreamAccessDenied(UpstreamAuthFailed):
    """The provider accepts the key, but not for this model, endpoint or region.

    The provider's sentence reaches the client, as only it says what to do (verify the organization, say).
    """

    code = "upstream_access_denied"


class UpstreamUnavailable(UpstreamError):
    """The provider says that it is overloaded or down."""

    status = 503
    code = "upstream_unavailable"


class CircuitOpen(UpstreamUnavailable):
    """The target failed so often that no request is sent to it for a moment."""

    code = "upstream_circuit_open"


class UpstreamReportedError(UpstreamError):
    """The provider's own words: its error object, with the status it came with.

    Used where the body was already in OpenAI's shape, and for errors inside a stream.
    """

    def __init__(self, error: ErrorObject, *, status: int = 502) -> None:
        super().__init__(error["message"], param=error["param"])
        self.type = error["type"]
        self.code = error["code"]
        self.status = status


class UpstreamRefusedRequest(ClientError):
    """The provider finds the client's request wrong (a 4xx that concerns the request)."""

    def __init__(self, error: ErrorObject, *, status: int) -> None:
        super().__init__(error["message"], param=error["param"])
        self.type = error["type"]
        self.code = error["code"]
        self.status = status


class ContextLengthExceeded(UpstreamRefusedRequest):
    """The prompt is longer than the model's context window."""


class ContentFiltered(UpstreamRefusedRequest):
    """The provider's content filter refused the prompt."""


class UpstreamRejected(UpstreamError):
    """A 4xx that is not surely the client's fault: it concerns the target, and another one may answer.

    The client gets the provider's own status and words where no target answers.
    """

    retryable = False

    def __init__(self, error: ErrorObject, *, status: int) -> None:
        super().__init__(error["message"], param=error["param"])
        self.type = error["type"]
        self.code = error["code"]
        self.status = status


class Overloaded(ProxyError):
    """This worker has as much under way as it may."""

    status = 503
    code = "server_overloaded"


class NoRoom(ProxyError):
    """The disk that uploads wait on is full."""

    status = 503
    code = "no_room"


class ShuttingDown(ProxyError):
    """This worker is ending."""

    status = 503
    code = "server_shutting_down"
