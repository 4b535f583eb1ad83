"""A model name -> the targets that have it, with each provider's own name for it. Pure, but for chance."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Generic, TypeVar

from sanic_proxy.config import patterns
from sanic_proxy.config.catalog import CATCH_ALL
from sanic_proxy.config.model import NO_OPTIONS, ModelSettings, ProviderOff, RequestOptions
from sanic_proxy.config.targets import Affinity as AffinityKind
from sanic_proxy.config.targets import Strategy, TargetSettings
from sanic_proxy.dialects.base import ParsedRequest
from sanic_proxy.errors import ClientError, ModelNotFound, ProviderNotConfigured
from sanic_proxy.governance.charge import Tariff
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.routing import sessions
from sanic_proxy.routing.affinity import Affinity, candidates_of
from sanic_proxy.routing.breaker import BreakerRegistry, LastError
from sanic_proxy.routing.engines import EngineQueue
from sanic_proxy.routing.hedging import Hedging
from sanic_proxy.routing.load import Later, TargetLoad
from sanic_proxy.routing.prefixes import MAX_REQUEST_BYTES, SharedPrefixes, block_hashes
from sanic_proxy.routing.selection import Choice, Random, by_prefix, ordered
from sanic_proxy.routing.sessions import CACHE_KEY
from sanic_proxy.routing.shared_pins import SharedPins
from sanic_proxy.routing.statistics import StatisticsRegistry
from sanic_proxy.routing.switches import TargetSwitches
from sanic_proxy.routing.targets import Target, label_for
from sanic_proxy.routing.waiting import RequestQueue
from sanic_proxy.state_store.shared import SharedMemory

P = TypeVar("P")

MAX_MODEL_CHARS = 256
MAX_LISTED_CHARS = 1000
CHAT = "POST /chat/completions"

# What no model name holds: it would reach logs, and messages that people read.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


# A target and a model that no table describes.
ANY_TARGET = TargetSettings("", "")
NO_MODEL = ModelSettings("", ())


# A provider, its own name for a model, the target's label, and the settings -> the target's prices.
TariffOf = Callable[[P, str, str, TargetSettings], Tariff]


@dataclass(frozen=True, slots=True)
class Route(Generic[P]):
    """What a model's name stands for. `name` is that of the operator's own model, `*` included, or "".

    `peers` are the targets among which a session has one of its own, each with its choice; `others` are all
    other choices. `cache_ttl_s` is how long a session is remembered. `is_fixed`: nothing is drawn, all
    requests have the targets `in_order`. `has_sessions`: `affinity` is not "off".
    """

    name: str
    strategy: Strategy
    choices: tuple[Choice[P], ...]
    in_order: tuple[Target[P], ...] = ()
    affinity: AffinityKind = "off"
    peers: tuple[tuple[Choice[P], Target[P]], ...] = ()
    others: tuple[Choice[P], ...] = ()
    cache_ttl_s: float = 0.0
    is_fixed: bool = True
    has_sessions: bool = False


class Router(Generic[P]):
    """The rules of the model name.

    On: the text before the first `/` names the provider and is removed, as is the text before a first `:`
    that names a provider that is on. A name without `/` goes to the default provider: the catch-all one
    (`CATCH_ALL`), or the only one that is on. Many providers have ids with a `/` of their own
    (`openai/gpt-oss-120b`), so with one provider only, a name whose prefix is not that provider's goes to it
    unchanged. Off: all names go to the catch-all provider unchanged.

    The names of `models`, each of which stands for several targets, take precedence; exact ones before those
    with a `*`, of which the one with the most text of its own is meant. Their strategies draw from `random`
    at the time of `clock`, and the `workers` that use the memory `shared` have their limits in common;
    `later` is the event loop's `call_later`. A request may wait for limits for `max_wait_s`. `switches` know
    which targets are off.

    `providers` are those that are on, by name and alias, each with all its keys in order. Those named in
    `embedded` do not count as the only provider while there is another. `registry` has the health of targets,
    which is separate for each endpoint (a method and a path, as in `CHAT`), as are `statistics`.
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
        options_of: Callable[[P], RequestOptions] = lambda _: NO_OPTIONS,
        key_weights_of: Callable[[P], Sequence[float]] = lambda _: (),
        cache_ttl_of: Callable[[P], float] = lambda _: 300.0,
        queue_of: Callable[[P], EngineQueue | None] = lambda _: None,
        registry: BreakerRegistry | None = None,
        first_content_s: float = 0.0,
        random: Random = random.random,
        clock: Callable[[], float] = time.monotonic,
        workers: int = 1,
        shared: SharedMemory | None = None,
        max_wait_s: float = 0.0,
        later: Later | None = None,
        switches: TargetSwitches | None = None,
        statistics: StatisticsRegistry | None = None,
        tariff_of: TariffOf[P] | None = None,
    ) -> None:
        self._providers = providers
        self._tariff_of = tariff_of
        self._off = {name: entry for entry in off for name in (entry.name, *entry.aliases)}
        self._is_on = is_on
        # To be shown in messages, those that reach a model first.
        self._on = sorted(providers, key=lambda name: (name in embedded, name))
        self._only = _only(providers, embedded)
        self._default = providers.get(CATCH_ALL.name, self._only)
        self._models = {model.name: model for model in models}
        self._patterns = patterns.most_specific_first(name for name in self._models if patterns.STAR in name)
        memory = shared or SharedMemory()
        self._loads = {model.name: _loads(model, workers, memory, later) for model in models}
        self._hedging = {model.name: Hedging(model.hedge) for model in models if model.hedge is not None}
        self._first_content_s = first_content_s
        self._max_wait_s = max_wait_s
        self._switches = switches
        self._random = random
        self._clock = clock
        self._name_of = name_of
        self._options_of = options_of
        self._key_weights_of = key_weights_of
        self._cache_ttl_of = cache_ttl_of
        self._queue_of = queue_of
        self.affinity: Affinity[P] = Affinity(SharedPins(memory))
        self._prefixes = SharedPrefixes(memory)
        self._registry = registry or BreakerRegistry()
        self._statistics = statistics or StatisticsRegistry()
        self.route = lru_cache(maxsize=1024)(self._route)
        self.named = lru_cache(maxsize=1024)(self._named)

    def resolve(self, model: str, endpoint: str = CHAT) -> Sequence[Target[P]]:
        """The targets of one request for `model`, in order. Raises ModelNotFound or ProviderNotConfigured."""
        route = self.route(model, endpoint)
        if route.is_fixed:
            return route.in_order
        return ordered(route.choices, route.strategy, self._random, self._clock())

    def resolve_conversation(
        self,
        asked: ParsedRequest,
        headers: Mapping[str, str],
        record: RequestRecord,
        header_name: sessions.HeaderName | None = None,
    ) -> Sequence[Target[P]]:
        """The same for a conversation, whose session may have a target of its own; it is put into `record`.

        `headers` are the client's, keyed by lower-case name; `header_name` is the session's name in them, if
        it is known.
        """
        route = self.route(asked.model)
        if route.is_fixed:
            return route.in_order
        own: Sequence[Target[P]] | None = None
        if route.has_sessions:
            if header_name is None:
                header_name = sessions.header_name(headers)
            name, is_first = header_name
            if not is_first and (not name or CACHE_KEY in asked.fields):
                name = sessions.session_name(header_name, asked.fields)
            # Nearly always the session has been here before, and its target can take the request.
            pin = self.affinity.latest.get(name)
            if pin is not None and (own := pin.kept(route.peers, record.client, record.started)) is not None:
                record.session = pin
            else:
                own = self._in_session(route, asked, name, record)
            if own is not None and (not route.others or len(own) < len(route.peers)):
                return own  # of the latter no other one can read the request
        now = self._clock()
        if route.strategy == "prefix":
            own = self._by_prefix(route, asked, now)
        if own is None:
            return ordered(route.choices, route.strategy, self._random, now)
        return [*own, *ordered(route.others, route.strategy, self._random, now)] if route.others else own

    def _in_session(
        self, route: Route[P], asked: ParsedRequest, name: str, record: RequestRecord
    ) -> Sequence[Target[P]] | None:
        """The peers as the session `name` has them; None if the request has no session."""
        encrypted = sessions.encrypted_name(asked.body, asked.fields)
        name = name or encrypted
        if not name and route.affinity == "prompt":
            name = sessions.conversation_name(asked.fields)
        if not name:
            return None
        now = self._clock()
        record.session = pin = self.affinity.pin(record.client, route.name, name)
        if (own := pin.kept(route.peers, record.client, now)) is not None:
            return own
        is_hard = bool(encrypted) or sessions.wants_encrypted(asked.fields)
        return pin.arranged(route.peers, now, ttl_s=route.cache_ttl_s, is_hard=is_hard)

    def _by_prefix(self, route: Route[P], asked: ParsedRequest, now: float) -> list[Target[P]]:
        """The peers by what they know of the prompt. The first one will know all of it."""
        is_small = len(asked.body) <= MAX_REQUEST_BYTES
        hashes = block_hashes(route.name, asked.fields) if is_small else []
        matched = {
            target.label: target.statistics.prefixes.matched(hashes)
            for _, target in route.peers
            if target.statistics is not None
        }
        if (shared := self._prefixes.matched(hashes, tuple(matched), now)) is not None:
            label, count = shared
            matched[label] = max(matched[label], count)
        candidates = candidates_of(route.peers)
        usable = [candidate for candidate in candidates if candidate.target.is_usable(now)]
        unusable = [candidate for candidate in candidates if candidate not in usable]
        order = [*by_prefix(usable, matched, self._random), *unusable]
        first = order[0].target if order else None
        if first is not None and first.statistics is not None:
            first.statistics.prefixes.add(hashes)
            self._prefixes.add(hashes, first.label, now, route.cache_ttl_s)
        return [candidate.target for candidate in order]

    def _route(self, model: str, endpoint: str = CHAT) -> Route[P]:
        """What `model` stands for. Raises ModelNotFound or ProviderNotConfigured."""
        own, texts = self._own(model)
        if own is None:
            targets = self._targets(*self._resolved(model), ANY_TARGET, endpoint)
            targets = _waiting_in(self._queue(NO_MODEL), targets)
            choice = Choice(targets)
            return Route("", "order", (choice,), targets, is_fixed=not choice.has_key_weights)
        queue = self._queue(own)
        choices = [
            Choice(
                _waiting_in(
                    queue,
                    self._targets(
                        self._provider(target.provider),
                        patterns.fill(target.model, texts),
                        target,
                        endpoint,
                        own,
                        load,
                    ),
                ),
                target.order,
                target.weight,
            )
            for target, load in zip(own.targets, self._loads[own.name], strict=True)
        ]
        in_order = tuple(ordered(choices, "order", self._random))
        first = min(choice.order for choice in choices)
        alike = [choice for choice in choices if choice.order == first and not choice.targets[0].only_after]
        peers = tuple((choice, target) for choice in alike for target in choice.targets)
        has_sessions = own.has_affinity and len(peers) > 1
        return Route(
            own.name,
            own.strategy,
            tuple(choices),
            in_order,
            own.affinity if has_sessions else "off",
            peers,
            tuple(choice for choice in choices if choice not in alike),
            max((self._cache_ttl_of(target.provider) for _, target in peers), default=0.0),
            own.strategy == "order" and not any(choice.has_key_weights for choice in choices),
            has_sessions,
        )

    def _queue(self, model: ModelSettings) -> RequestQueue | None:
        """Where requests for `model` wait for limits."""
        max_wait_s = self._max_wait_s if model.max_wait_s is None else model.max_wait_s
        return RequestQueue(max_wait_s) if max_wait_s else None

    def is_configured(self, model: str) -> bool:
        """Whether the operator has a table for exactly this name."""
        return model in self._models

    def open_circuits(self) -> dict[str, LastError | None]:
        """The labels of the targets and keys whose circuit is open in this worker, with their last errors."""
        return self._registry.open_circuits()

    def _own(self, model: str) -> tuple[ModelSettings | None, tuple[str, ...]]:
        """The operator's own model of that name, and the texts that its `*` stand for."""
        if (own := self._models.get(model)) is not None and patterns.STAR not in model:
            return own, ()
        for pattern in self._patterns:
            if (texts := patterns.match(pattern, model)) is not None:
                _check_name(model)
                return self._models[pattern], texts
        return None, ()

    def _targets(
        self,
        providers: Sequence[P],
        model: str,
        settings: TargetSettings,
        endpoint: str,
        own: ModelSettings = NO_MODEL,
        load: TargetLoad | None = None,
    ) -> tuple[Target[P], ...]:
        limit_s = own.first_content_s
        first_content_s = self._first_content_s if limit_s is None else limit_s
        tariff_of = self._tariff_of
        targets = []
        # What compares targets by what is known of each key.
        has_statistics = own.strategy in {"least_latency", "prefix"} or (
            own.strategy != "order" and len(providers) > 1
        )
        weights = self._key_weights_of(providers[0]) or [1.0] * len(providers)
        for number, (provider, weight) in enumerate(zip(providers, weights, strict=True)):
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
                    self._options_of(provider).merged(own.options),
                    settings.context_window,
                    settings.only_after,
                    load,
                    self._statistics.target(name, number, model, endpoint, label, is_needed=has_statistics),
                    self._queue_of(provider),
                    own.saving,
                    settings.continues,
                    self._hedging.get(own.name),
                    key_weight=weight,
                    switches=self._switches,
                    tariff=None if tariff_of is None else tariff_of(provider, model, label, settings),
                )
            )
        return tuple(targets)

    def _resolved(self, model: str) -> tuple[Sequence[P], str]:
        """The provider of `model`, with each of its keys, and its own name for it."""
        _check_name(model)
        if not self._is_on:
            return self._catch_all(model), model
        prefix, slash, rest = model.partition("/")
        alias, colon, _ = prefix.partition(":")
        if colon and alias.lower() in self._providers:
            return self._prefixed(alias, model[len(alias) + 1 :])
        if slash and self._is_prefix(prefix, rest):
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
            targets = self._targets(self._provider(key, "x-provider"), model or "", ANY_TARGET, endpoint)
            return _waiting_in(self._queue(NO_MODEL), targets)
        raise ClientError(
            f"Unknown provider {name[:80]!r} in the x-provider header or the provider parameter. "
            f"Providers that are on: {self._listed()}",
            param="x-provider",
            code="provider_not_found",
        )

    def _is_prefix(self, prefix: str, rest: str) -> bool:
        """Whether the text before a `/` has to name a provider; otherwise it belongs to the model's id."""
        return self._only is None or prefix.lower() in self._providers or not prefix or not rest

    def _prefixed(self, prefix: str, upstream_model: str) -> tuple[Sequence[P], str]:
        name = prefix.lower()
        if not upstream_model:
            raise ModelNotFound(
                f"The model name ends after its prefix {prefix[:80]!r}: write {self._example('<model>')}",
                param="model",
            )
        if name in self._providers:
            return self._providers[name], upstream_model
        advice = (
            f"If {prefix[:80]!r} is a part of the model's id, write the provider before it: "
            f"{self._example(f'{prefix}/{upstream_model}')}. Providers that are on: {self._listed()}"
        )
        if name in self._off:
            variable = self._off[name].variable
            raise ProviderNotConfigured(
                f"The provider {name} is not configured: the proxy's operator can set {variable}. {advice}",
                param="model",
            )
        raise ModelNotFound(
            f"The model's prefix {prefix[:80]!r} is not the name of a provider. {advice}", param="model"
        )

    def _provider(self, name: str, param: str = "model") -> Sequence[P]:
        if name in self._providers:
            return self._providers[name]
        variable = self._off[name].variable if name in self._off else CATCH_ALL.key_variable
        raise ProviderNotConfigured(
            f"The provider {name} is not configured: the proxy's operator can set {variable}. "
            f"Providers that are on: {self._listed()}",
            param=param,
        )

    def _catch_all(self, model: str) -> Sequence[P]:
        """With the router off."""
        if CATCH_ALL.name in self._providers or not self._on:
            return self._provider(CATCH_ALL.name)
        if self._models:
            listed = ", ".join(sorted(name for name, own in self._models.items() if not own.hidden))
            raise ModelNotFound(
                f"The model {model[:80]!r} does not exist; there are: {listed[:MAX_LISTED_CHARS] or 'none'}",
                param="model",
            )
        raise ProviderNotConfigured(
            f"The router is off, so every model name goes to {CATCH_ALL.name}, which is not configured: send "
            f"the header `x-provider: {self._on[0]}`. The proxy's operator can set {CATCH_ALL.key_variable}, "
            f"or SANIC_PROXY_ROUTER=on so that {self._example(model)} is accepted",
            param="model",
        )

    def _no_default(self, model: str) -> str:
        if not self._on:
            return "No provider is configured: the proxy's operator can set OPENAI_API_KEY or that of another"
        return (
            f"The model name {model[:80]!r} has no provider's prefix, and several providers are on "
            f"({self._listed()}): write one of them first, such as {self._example(model)}"
        )

    def _example(self, model: str) -> str:
        """How `model` is written for a provider that is on."""
        name = f"{self._on[0] if self._on else 'PROVIDER'}/{model}"
        return f"`{name}`" if len(name) <= MAX_MODEL_CHARS else "`PROVIDER/MODEL`"

    def _listed(self) -> str:
        return ", ".join(self._on) or "none"


def _loads(
    model: ModelSettings, workers: int, memory: SharedMemory, later: Later | None
) -> list[TargetLoad | None]:
    """A load for each target that has limits, or whose load may decide."""
    loads: list[TargetLoad | None] = []
    labels: list[str] = []
    for target in model.targets:
        name = ("target", model.name, target.label, str(labels.count(target.label)))
        labels.append(target.label)
        is_needed = model.strategy != "order" or target.rpm or target.tpm or target.concurrent
        loads.append(TargetLoad(target, workers, memory, name, later=later) if is_needed else None)
    return loads


def _waiting_in(queue: RequestQueue | None, targets: tuple[Target[P], ...]) -> tuple[Target[P], ...]:
    return targets if queue is None else tuple(replace(target, request_queue=queue) for target in targets)


def _check_name(model: str) -> None:
    if not model or len(model) > MAX_MODEL_CHARS or _UNPRINTABLE.search(model):
        raise ModelNotFound(
            "The model name is empty, too long or holds unprintable characters", param="model"
        )


def _only(providers: Mapping[str, Sequence[P]], embedded: frozenset[str]) -> Sequence[P] | None:
    """The one provider that is on; an embedded one counts if there is no other."""
    real = {id(provider): provider for name, provider in providers.items() if name not in embedded}
    candidates = list((real or {id(provider): provider for provider in providers.values()}).values())
    return candidates[0] if len(candidates) == 1 else None
