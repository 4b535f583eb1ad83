"""What is said when the proxy starts: the providers, the router, and who may call. Pure."""

from __future__ import annotations

from sanic_proxy import __version__
from sanic_proxy.config.model import PREFIX, Settings


def start_lines(settings: Settings, address: str) -> list[str]:
    """A few lines for the operator. No key is in them."""
    on = ", ".join(provider.name for provider in settings.providers)
    off = ", ".join(f"{entry.name} ({entry.variable})" for entry in settings.providers_off)
    return [
        f"sanic-proxy {__version__} on {address}",
        f"providers on: {on or 'none'}",
        f"providers off, and what turns each on: {off or 'none'}",
        _router_line(settings),
        _access_line(settings),
        *settings.warnings,
    ]


def _router_line(settings: Settings) -> str:
    if settings.router_is_on:
        return (
            "router on: `groq/llama-3.3-70b-versatile` goes to groq as `llama-3.3-70b-versatile`; "
            f"{PREFIX}ROUTER=off would send every model name to Straico unchanged"
        )
    return (
        "router off: every model name goes to Straico unchanged; "
        f"{PREFIX}ROUTER=on would let the text before the first `/` pick the provider (straico/openai/gpt-4o)"
    )


def _access_line(settings: Settings) -> str:
    if settings.is_open:
        return f"open: whoever can connect may call; {PREFIX}API_KEYS demands a key"
    return f"clients must present one of {len(settings.api_keys)} key(s)"
