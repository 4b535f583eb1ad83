"""Which outbound proxy a URL is reached through: HTTPS_PROXY, HTTP_PROXY and NO_PROXY. Pure."""

from __future__ import annotations

import urllib.parse
import urllib.request
from collections.abc import Mapping

from sanic_proxy.config.secret import Secret


def outbound_proxy(url: str, variables: Mapping[str, str]) -> Secret | None:
    """The proxy for `url` as a URL, which may hold a password; None where it is reached directly."""
    parts = urllib.parse.urlsplit(url)
    proxy = _variable(f"{parts.scheme}_proxy", variables)
    if not proxy or urllib.request.proxy_bypass_environment(  # type: ignore[attr-defined]
        parts.netloc, {"no": _variable("no_proxy", variables)}
    ):
        return None
    return Secret(proxy if "://" in proxy else f"http://{proxy}")


def _variable(name: str, variables: Mapping[str, str]) -> str:
    return variables.get(name) or variables.get(name.upper()) or ""
