"""The tree of errors."""

from __future__ import annotations

import pytest

from sanic_proxy import errors

ALL = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ProxyError)
]
# These take the provider's error object instead of a message.
FROM_PROVIDER = (errors.UpstreamReportedError, errors.UpstreamRefusedRequest, errors.UpstreamRejected)
PLAIN = [kind for kind in ALL if not issubclass(kind, FROM_PROVIDER)]


@pytest.mark.parametrize("kind", PLAIN)
def test_every_error_is_openais_object(kind: type[errors.ProxyError]) -> None:
    made = kind("what happened", param="p").as_object()
    assert list(made) == ["message", "type", "param", "code"]
    assert made["param"] == "p"
    assert isinstance(made["type"], str)


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_in_the_drawn_tree(kind: type[errors.ProxyError]) -> None:
    assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("kind", [kind for kind in ALL if issubclass(kind, errors.ClientError)])
def test_the_same_wrong_request_is_not_worth_repeating(kind: type[errors.ProxyError]) -> None:
    assert not kind.retryable
    assert 400 <= kind.status < 500


@pytest.mark.parametrize("kind", [kind for kind in ALL if issubclass(kind, errors.UpstreamError)])
def test_a_failing_provider_is_never_the_clients_fault(kind: type[errors.ProxyError]) -> None:
    assert kind.status >= 500
