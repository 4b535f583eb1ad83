"""Every error that leaves the proxy before an answer has begun, in the shape of the path's API.

The one place where an exception becomes a response. Anything but a ProxyError or an exception of Sanic's is a
bug of ours: it is logged with its traceback, and the client gets the request id and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from sanic import HTTPResponse, Request
from sanic.exceptions import MethodNotAllowed, NotFound, SanicException
from sanic.handlers import ErrorHandler
from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.routing import policy
from sanic_proxy.server import unknown_paths
from sanic_proxy.server.request import ProxyRequest, public_url
from sanic_proxy.server.selection import route_headers
from sanic_proxy.state import AppState

logger = logging.getLogger(__name__)


class ErrorRenderer(ErrorHandler):
    """Renders every exception for which the application has no handler of its own."""

    @override
    def default(self, request: Request, exception: Exception) -> HTTPResponse:
        return render(request, exception)


_SANIC_TEXTS: Mapping[int, tuple[str, str]] = {
    400: ("The request is not valid HTTP", "bad_request"),
    404: ("No such route", "not_found"),
    405: ("The route does not support this method", "method_not_allowed"),
    408: ("The request did not arrive in time", "request_timeout"),
    413: ("The request is larger than the proxy accepts", "request_too_large"),
    417: ("Unsupported `Expect` header: only `100-continue` is supported", "expectation_failed"),
    503: ("The proxy could not answer in time", "server_timeout"),
}


def render(request: Request, exception: Exception) -> HTTPResponse:
    """The response for any exception."""
    error = to_client_error(request, _unrouted(request, exception) or exception)
    if not isinstance(exception, errors.ProxyError | SanicException):
        logger.error("request %s failed", getattr(request, "record", None), exc_info=exception)
    headers = dict(error_headers(error))
    if isinstance(request, ProxyRequest):
        request.record.ended = error.code or error.type
        headers.update(route_headers(request.record))
    if isinstance(exception, MethodNotAllowed) and error.status == 405:
        headers["allow"] = ", ".join(sorted(exception.allowed_methods or ()))
    path = getattr(request, "path", "/")
    return HTTPResponse(
        error.body or unknown_paths.error_body(path, error),
        status=error.upstream_status if error.body and error.upstream_status else error.status,
        headers=headers,
        content_type="application/json",
    )


def _unrouted(request: Request, exception: Exception) -> errors.ClientError | None:
    """The error for a path that is not offered, or not with that method; None for other failures."""
    if not isinstance(request, ProxyRequest):
        return None
    is_foreign = unknown_paths.is_foreign(request.path)
    if isinstance(exception, NotFound) or (is_foreign and isinstance(exception, MethodNotAllowed)):
        url = public_url(request.fields, request.ip)
        message = unknown_paths.advice(request.method, request.path, url)
        return errors.NotFound(message, code="not_found")
    if isinstance(exception, MethodNotAllowed):
        allowed = " or ".join(sorted(exception.allowed_methods or ()))
        return errors.ClientError(
            f"{request.path[:200]} does not support {request.method}: use {allowed}",
            status=405,
            code="method_not_allowed",
        )
    return None


def to_client_error(request: Request, exception: BaseException) -> errors.ProxyError:
    """The error for the client: one of ours, without any key of the settings."""
    error = as_proxy_error(exception)
    state: AppState | None = getattr(request.app.ctx, "state", None)
    return error if state is None else error.redacted(state.secrets)


def as_proxy_error(exception: BaseException) -> errors.ProxyError:
    """`exception` as one of ours."""
    if isinstance(exception, errors.ProxyError):
        return exception
    if isinstance(exception, SanicException):
        return _from_sanic(exception)
    return errors.ProxyError("The proxy failed; its log has the details under the request id")


def error_headers(error: errors.ProxyError) -> list[tuple[str, str]]:
    """What the client gets with an error: the provider's headers, and whether and when to repeat."""
    headers = list(error.headers)
    if (wait_s := policy.retry_after_s(error)) is not None:
        headers.append(("retry-after", str(wait_s)))
    if not policy.may_succeed_soon(error):
        headers.append(("x-should-retry", "false"))
    return headers


def _from_sanic(exception: SanicException) -> errors.ProxyError:
    status = exception.status_code or 500
    text, code = _SANIC_TEXTS.get(status, ("The request cannot be served", "bad_request"))
    kind = errors.ClientError if status < 500 else errors.ProxyError
    return kind(text, status=status, code=code)
