"""Settings -> provider objects: by protocol, never by name.

Each module of this package, and the module `provider` of each package in it, is imported when this module is:
it registers its class by `@protocol`. So a new provider needs no line here.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace

from sanic_proxy import providers as package
from sanic_proxy.config.model import Settings
from sanic_proxy.providers.base import ChatProvider, provider_class
from sanic_proxy.upstream.client import UpstreamClient

for _module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
    importlib.import_module(f"{_module.name}.provider" if _module.ispkg else _module.name)


def build_providers(settings: Settings, client: UpstreamClient) -> dict[str, tuple[ChatProvider, ...]]:
    """The providers that are on, by name and by alias, once for each key; an alias gives the same objects."""
    built: dict[str, tuple[ChatProvider, ...]] = {}
    for provider in settings.providers:
        make = provider_class(provider.protocol)
        keyed = [provider, *(replace(provider, key=key) for key in provider.spare_keys)]
        objects = tuple(make(each, settings, client) for each in keyed)
        built |= dict.fromkeys((provider.name, *provider.aliases), objects)
    return built
