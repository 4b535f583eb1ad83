"""Settings of a proxy before the scripted upstream, and keys that no proxy may show."""

from __future__ import annotations

from tests.support.upstream import Upstream

GROQ_KEY = "gsk-canary-0123456789"
STRAICO_KEY = "st-canary-0123456789"

# Nothing is repeated, and no failure is remembered: a test sees what its own request meets.
ONCE = {"SANIC_PROXY_ATTEMPTS": "1", "SANIC_PROXY_BREAKER": "off"}


def provider_settings(upstream: Upstream) -> dict[str, str]:
    """A Groq-shaped and a Straico-shaped provider, both at `upstream`."""
    return {
        "GROQ_API_KEY": GROQ_KEY,
        "GROQ_BASE_URL": f"{upstream.url}/openai/v1",
        "STRAICO_API_KEY": STRAICO_KEY,
        "STRAICO_BASE_URL": upstream.url,
        "SANIC_PROXY_ROUTER": "on",
        "SANIC_PROXY_ECHO": "on",
        **ONCE,
    }
