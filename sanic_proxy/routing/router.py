"""A model name -> the provider that has it, and the provider's own name for it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Generic, TypeVar

from sanic_proxy.config.catalog import CATCH_ALL, EXAMPLE_MODEL
from sanic_proxy.config.model import ModelSettings, ProviderOff
from sanic_proxy.errors import ClientError, ModelNotFound, ProviderNotConfigured
from sanic_proxy.routing.breaker import BreakerRegistry
from sanic_proxy.routing.targets import Target, label_for

P = TypeVar("P")

MAX_MODEL_CHARS = 256
CHAT = "POST /chat/completions"

# What no model name holds: it would reach logs, and messages that people read.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Router(Generic[P]):
    """The rules of the model name.

    On: the text before the first `/` names the provider and is cut off; so does the text before a
    first `:` if it names a provider that is on. Without such a prefix the model is the default
    provider's: the catch-all one, or the only one there is. Off: all names are the catch-all provider's,
    unchanged. The catch-all provider is the one whose own names look like prefixed ones (`CATCH_ALL`).

    Before all that come the names of `models`, each of which stands for several in order.

    `providers` are those that are on, by name and alias, each with all its keys in order; `embedded`
    names those which only answer to their prefix. `registry` has the health of targets, which is
    separate for each endpoint (a method and a path, as in `CHAT`).
    """

    def __init__(  # noqa: PLR0913 - each is said once, where a worker starts
        self,
        providers: Mapping[str, Sequence[P]],
        off: Sequence[ProviderOff],
        *,
        is_on: bool,
        embedded: frozenset[str],
        models: Sequence[ModelSettings] = (),
        name_of: Callable[[P], str] = str,
        registry: BreakerRegistry | None = None,
        first_content_s: float = 0.0,
    ) -> None:
        self._providers = providers
        self._off = {name: entry for entry in off for name in (entry.name, *entry.aliases)}
        self._is_on = is_on
        self._default = _default(providers, embedded)
        self._models = {model.name: model for model in models}
        self._first_content_s = first_content_s
        self._name_of = name_of
        self._registry = registry or BreakerRegistry()
        self.resolve = lru_cache(maxsize=1024)(self._resolve)
        self.named = lru_cache(maxsize=1024)(self._named)

    def _resolve(self, model: str, endpoint: str = CHAT) -> Sequence[Target[P]]:
        """The targets of `model`, in order. Raises ModelNotFound or ProviderNotConfigured."""
        if (own := self._models.get(model)) is not None:
            return [
                target
                for provider, name in own.targets
                for target in self._targets(self._provider(provider), name, endpoint, own.first_content_s)
            ]
        return self._targets(*self._resolved(model), endpoint)

    def _targets(
        self, providers: Sequence[P], model: str, endpoint: str, first_content_s: float | None = None
    ) -> Sequence[Target[P]]:
        if first_content_s is None:
            first_content_s = self._first_content_s
        targets = []
        for number, provider in enumerate(providers):
            name = self._name_of(provider)
            label = label_for(name, model, number)
            targets.append(
                Target(
                    provider,
                    model,
                    label,
                    self._registry.target(name, number, model, endpoint, label),
                    self._registry.key(name, number, label_for(name, "", number)),
                    self._registry.rate_limit(name, number, model),
                    self._registry.budget(name),
                    first_content_s,
                )
            )
        return targets

    def _resolved(self, model: str) -> tuple[Sequence[P], str]:
        """The provider of `model`, with each of its keys, and its own name for it."""
        _check_name(model)
        if not self._is_on:
            return self._provider(CATCH_ALL.name), model
        prefix, slash, rest = model.partition("/")
        alias, colon, _ = prefix.partition(":")
        if colon and alias.lower() in self._providers:
            return self._prefixed(alias, model[len(alias) + 1 :])
        if slash:
            return self._prefixed(prefix, rest)
        if self._default is None:
            raise ProviderNotConfigured(self._no_default(model), param="model")
        return self._default, model

    def _named(self, name: str, model: str | None = None, endpoint: str = CHAT) -> Sequence[Target[P]]:
        """The targets at the provider of that name, whatever the model. Raises a ClientError for none."""
        if model is not None:
            _check_name(model)
        key = name.strip().lower()
        if key in self._providers or key in self._off:
            return self._targets(self._provider(key, "x-provider"), model or "", endpoint)
        known = ", ".join(sorted(self._providers))
        raise ClientError(
            f"There is no provider {name[:80]!r}; the ones that are on: {known}",
            param="x-provider",
            code="provider_not_found",
        )

    def _prefixed(self, prefix: str, upstream_model: str) -> tuple[Sequence[P], str]:
        name = prefix.lower()
        if name not in self._providers and name not in self._off:
            known = ", ".join(sorted(self._providers))
            raise ModelNotFound(
                f"The model's prefix {prefix[:80]!r} names no provider; the ones that are on: {known}",
                param="model",
            )
        provider = self._provider(name)
        if not upstream_model:
            raise ModelNotFound(f"The model name ends after the provider's: {name}/<model>", param="model")
        return provider, upstream_model

    def _provider(self, name: str, param: str = "model") -> Sequence[P]:
        if name in self._providers:
            return self._providers[name]
        variable = self._off[name].variable if name in self._off else CATCH_ALL.key_variable
        raise ProviderNotConfigured(f"The provider {name} is not configured: set {variable}", param=param)

    def _no_default(self, model: str) -> str:
        on = sorted(self._providers)
        example = f"{on[0]}/{model[:80]}" if on else EXAMPLE_MODEL
        return (
            "The model name has no provider's prefix and there is no single provider to fall back to: "
            f"write one ({example}), or set {CATCH_ALL.key_variable}. "
            f"Providers that are on: {', '.join(on) or 'none'}"
        )


def _check_name(model: str) -> None:
    if not model or len(model) > MAX_MODEL_CHARS or _UNPRINTABLE.search(model):
        raise ModelNotFound(
            "The model name is empty, too long or holds unprintable characters", param="model"
        )


def _default(providers: Mapping[str, Sequence[P]], embedded: frozenset[str]) -> Sequence[P] | None:
    if CATCH_ALL.name in providers:
        return providers[CATCH_ALL.name]
    candidates = {id(provider): provider for name, provider in providers.items() if name not in embedded}
    return next(iter(candidates.values())) if len(candidates) == 1 else None
