"""Settings -> provider objects: by protocol, never by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sanic_proxy.config.model import HEARTBEATS, ProviderSettings, Settings
from sanic_proxy.providers.base import ChatProvider
from sanic_proxy.providers.echo import EchoProvider
from sanic_proxy.providers.openai_compatible import GenericProvider
from sanic_proxy.providers.straico.provider import StraicoProvider
from sanic_proxy.upstream.client import UpstreamClient

_Build = Callable[[ProviderSettings, Settings, UpstreamClient], ChatProvider]


def _generic(provider: ProviderSettings, settings: Settings, client: UpstreamClient) -> ChatProvider:
    return GenericProvider(provider, client, heartbeat_interval_s=settings.heartbeat_interval_s)


def _straico(provider: ProviderSettings, settings: Settings, client: UpstreamClient) -> ChatProvider:
    return StraicoProvider(
        provider,
        client,
        heartbeat=None if settings.heartbeat == "comment" else HEARTBEATS[settings.heartbeat],
        heartbeat_interval_s=settings.heartbeat_interval_s,
    )


def _echo(provider: ProviderSettings, settings: Settings, _client: UpstreamClient) -> ChatProvider:
    return EchoProvider(
        provider.name, provider.commit_delay_s, heartbeat_interval_s=settings.heartbeat_interval_s
    )


_BUILDERS: dict[str, _Build] = {"openai": _generic, "straico": _straico, "echo": _echo}


def build_providers(settings: Settings, client: UpstreamClient) -> dict[str, tuple[ChatProvider, ...]]:
    """The providers that are on, by name and by alias, once for each key; an alias gives the same objects."""
    providers: dict[str, tuple[ChatProvider, ...]] = {}
    for provider in settings.providers:
        keyed = [provider, *(replace(provider, key=key) for key in provider.spare_keys)]
        built = tuple(_BUILDERS[each.protocol](each, settings, client) for each in keyed)
        providers |= dict.fromkeys((provider.name, *provider.aliases), built)
    return providers
