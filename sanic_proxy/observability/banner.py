"""The lines printed when the proxy starts: the providers, the router, and who may call. Pure."""

from __future__ import annotations

from sanic_proxy import __version__
from sanic_proxy.config.catalog import CATCH_ALL, EXAMPLE_MODEL
from sanic_proxy.config.model import Settings
from sanic_proxy.config.variables import PREFIX


def start_lines(settings: Settings) -> list[str]:
    """A few lines for the operator. They hold no key."""
    on = ", ".join(provider.name for provider in settings.providers)
    off = len(settings.providers_off)
    return [
        f"sanic-proxy {__version__}",
        f"providers on: {on or 'none'} ({off} more are off; `sanic-proxy check` lists them)",
        router_line(settings),
        access_line(settings),
        *first_steps(settings),
        *settings.warnings,
    ]


def first_steps(settings: Settings) -> list[str]:
    """The first request and the next step, while no provider with a key is on."""
    if not settings.providers or any(provider.base_url for provider in settings.providers):
        return []
    model = "/".join([settings.providers[0].name] * 2)
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello there"}}]}}'
    return [
        "no provider's key is set: answers come from the embedded provider, which repeats the question",
        f"  try it:     curl http://{settings.host}:{settings.port}/v1/chat/completions "
        f"-H 'content-type: application/json' -d '{body}'",
        "  add a key:  GROQ_API_KEY=... sanic-proxy, or write proxy.toml and .env with `sanic-proxy init`",
    ]


def router_line(settings: Settings) -> str:
    """Which part of a model's name picks the provider."""
    if settings.router_is_on:
        name = settings.providers[0].name if settings.providers else EXAMPLE_MODEL.partition("/")[0]
        return f"router on: the model `{name}/MODEL` goes to {name} as `MODEL`"
    if not any(provider.serves_any_name for provider in settings.providers):
        return f"router off: only the {len(settings.models)} model names of the configuration file are served"
    return (
        f"router off: model names go to {CATCH_ALL.name} unchanged; "
        f"{PREFIX}ROUTER=on lets a prefix pick the provider (`{CATCH_ALL.name}/openai/gpt-4o`)"
    )


def access_line(settings: Settings) -> str:
    """Who may call."""
    if settings.is_open:
        return f"open: no client key is required; set {PREFIX}API_KEYS to require one"
    number = len(settings.api_keys) + sum(len(client.digests) for client in settings.clients)
    if number == 0:
        return "clients must present a key that was made at run time"
    return f"clients must present {'the key' if number == 1 else f'one of {number} keys'}"
