"""The failures that an explanation of a route can make up. The command line names them without a router."""

from __future__ import annotations

from collections.abc import Mapping

from sanic_proxy import errors

_REFUSED: errors.ErrorObject = {"message": "", "type": "invalid_request_error", "param": None, "code": None}
# Made-up failures by name, as `--fail TARGET=CAUSE` takes them.
CAUSES: Mapping[str, errors.ProxyError] = {
    "error": errors.UpstreamError("", upstream_status=500),
    "rate_limit": errors.RateLimited("", upstream_status=429),
    "timeout": errors.UpstreamTimeout(""),
    "unreachable": errors.UpstreamConnectFailed(""),
    "key_rejected": errors.UpstreamAuthFailed("", upstream_status=401),
    "bad_request": errors.UpstreamRefusedRequest(_REFUSED, upstream_status=400),
    "context_length": errors.ContextLengthExceeded(_REFUSED, upstream_status=400),
    "content_filter": errors.ContentFiltered(_REFUSED, upstream_status=400),
}
DEFAULT_CAUSE = "error"
