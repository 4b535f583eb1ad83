"""What one worker holds, from `before_server_start` to `after_server_stop`; the one reader of app.ctx."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from sanic_proxy.config.catalog import CATCH_ALL
from sanic_proxy.config.model import Settings
from sanic_proxy.config.targets import TargetSettings
from sanic_proxy.errors import redaction
from sanic_proxy.governance import keys, ledger_tables, resource_clients, sessions
from sanic_proxy.governance.charge import Tariff
from sanic_proxy.governance.governor import Governor, governs
from sanic_proxy.governance.key_ring import KeyRing
from sanic_proxy.governance.prices import PriceBook, Prices
from sanic_proxy.governance.resource_clients import ResourceClients
from sanic_proxy.governance.rules import Rulebook
from sanic_proxy.governance.sessions import Sessions
from sanic_proxy.governance.standings import BudgetStandings
from sanic_proxy.governance.todays_spend import TodaysSpend
from sanic_proxy.metrics.live import Live
from sanic_proxy.metrics.metrics import Metrics
from sanic_proxy.observability import logs
from sanic_proxy.observability.capture import Captures
from sanic_proxy.observability.in_flight import Traffic
from sanic_proxy.observability.record import Observer
from sanic_proxy.observability.redaction import cleaner
from sanic_proxy.observability.tracing import Tracer
from sanic_proxy.providers.base import ChatProvider
from sanic_proxy.providers.registry import build_providers
from sanic_proxy.routing import switches
from sanic_proxy.routing.breaker import BreakerRegistry
from sanic_proxy.routing.engines import EngineMonitor
from sanic_proxy.routing.model_list import ModelList
from sanic_proxy.routing.ownership import ResourceOwners
from sanic_proxy.routing.probes import Probes
from sanic_proxy.routing.router import Router
from sanic_proxy.routing.statistics import StatisticsRegistry
from sanic_proxy.routing.switches import TargetSwitches
from sanic_proxy.routing.targets import Limits
from sanic_proxy.state_store import responses
from sanic_proxy.state_store.background import BackgroundResponses
from sanic_proxy.state_store.base import Migration, StateStore
from sanic_proxy.state_store.postgresql import PostgreSQLStore
from sanic_proxy.state_store.responses import ResponseStore
from sanic_proxy.state_store.runtime_directory import RuntimeDirectory, new_name
from sanic_proxy.state_store.shared import SharedMemory
from sanic_proxy.state_store.sqlite import SQLiteStore, state_directory
from sanic_proxy.upstream.client import UpstreamClient

if TYPE_CHECKING:
    from typing import Any

    from sanic import Sanic

# How long the last handlers, cancelled when the drain time was over, have for their `finally`.
LAST_HANDLERS_S = 5.0
# How often a state that has been replaced looks whether it is still in use.
RETIRED_STEP_S = 0.5
# The schema of the shared state, in the order in which it grew.
MIGRATIONS: tuple[Migration, ...] = (
    keys.MIGRATION,
    switches.MIGRATION,
    *ledger_tables.MIGRATIONS,
    sessions.MIGRATION,
    resource_clients.MIGRATION,
)
# How many bytes stored responses may take, and for how many seconds each is kept.
MEMORY_LIMITS = responses.Limits(256 * 2**20, 3600.0)
SQLITE_LIMITS = responses.Limits(2**30, 30 * 86_400.0)
# How much of a provider's key the log shows, and how long a key has to be for that.
HINT_CHARS = 4
MIN_HINTED_CHARS = 12


class AppState:
    """Built in a running loop; `aclose` waits for the handlers that still use it.

    `traffic` is that of the state which this one replaces; None in a new worker. `runtime` is the directory
    in memory that the workers share, `shared` their memory, `metrics` their counts, `live` what they show on
    the operator's page; its own by default.
    """

    def __init__(
        self,
        settings: Settings,
        traffic: Traffic | None = None,
        runtime: RuntimeDirectory | None = None,
        shared: SharedMemory | None = None,
        metrics: Metrics | None = None,
        live: Live | None = None,
    ) -> None:
        self.settings = settings
        self.shared = shared or SharedMemory()
        self.metrics = metrics or Metrics()
        self.live = live or Live()
        self.secrets = settings.secrets
        self.traffic = traffic or Traffic()
        self.traffic.limit(settings.capacity)
        self.client = UpstreamClient(settings.pool, settings.ssl_cert_file)
        # The providers that are on, by name and alias, each with one object per key.
        self.keyed = keyed = build_providers(settings, self.client)
        self.providers = {name: providers[0] for name, providers in keyed.items()}
        self.engines = EngineMonitor(settings.providers, self.client)
        self.engines.start()
        # Of all targets where an operator can read them, else of those that a strategy compares.
        self.statistics = StatisticsRegistry(is_complete=settings.admin_key is not None)
        # Opened by its first use: a proxy without a feature that shares state opens no file.
        self.store = state_store(settings)
        self.switches: TargetSwitches | None = None
        self.sessions: Sessions | None = None
        if settings.admin_key is not None:
            self.switches = TargetSwitches(self.store)
            self.switches.follow()
            admin_key = settings.admin_key.reveal()
            self.sessions = Sessions(admin_key, self.shared, self.store, settings.worker_count)
            self.sessions.follow()
        self.registry = BreakerRegistry(
            is_enabled=settings.breaker,
            key_hints=_key_hints(settings),
            redact=_redactor(settings.secrets),
            probes=Probes(self.shared),
        )
        self.router: Router[ChatProvider] = Router(
            keyed,
            settings.providers_off,
            is_on=settings.router_is_on,
            embedded=frozenset(p.name for p in self.providers.values() if p.provider_kind == "embedded"),
            models=settings.models,
            name_of=lambda provider: provider.name,
            options_of=lambda provider: provider.settings.options,
            key_weights_of=lambda provider: provider.settings.key_weights,
            cache_ttl_of=lambda provider: provider.settings.cache_ttl_s,
            queue_of=lambda provider: self.engines.queue(provider.name),
            registry=self.registry,
            first_content_s=settings.first_content_s,
            workers=settings.worker_count,
            shared=self.shared,
            max_wait_s=settings.max_wait_s,
            later=asyncio.get_running_loop().call_later,
            switches=self.switches,
            statistics=self.statistics,
            tariff_of=self._tariff,
        )
        self.prices = PriceBook()
        self.todays_spend = TodaysSpend(self.store, time.time)
        self.owners: ResourceOwners[ChatProvider] = ResourceOwners()
        self.limits = Limits(settings.attempts_per_target, settings.attempts)
        self.rulebook = Rulebook(
            settings.teams, {model.name: model.limits for model in settings.models}, settings.limits
        )
        self.models = ModelList(
            self._listed(),
            prefixed=settings.router_is_on,
            models=settings.models,
            matched=self._matched(),
        )
        self.tracer = Tracer(settings) if settings.tracing.endpoint else None
        self.captures = _captures(settings)
        self.observers = tuple(self._observers())
        self.budgets = BudgetStandings(settings, self.rulebook, self.store)
        # None while nothing is limited: see `govern`.
        self.governor: Governor | None = None
        self.keys = KeyRing(settings, self.store, self.govern)
        if governs(settings):
            self.govern()
        self.responses = _response_store(settings, runtime or RuntimeDirectory(new_name()))
        self.background = (
            None
            if self.responses is None
            else BackgroundResponses(self.responses, self.traffic, settings.background_responses)
        )

    def _observers(self) -> Iterator[Observer]:
        settings = self.settings
        if self.captures is not None:
            yield self.captures.observe
        if self.tracer is not None:
            yield self.tracer.observe
        if settings.admin_key is not None:
            yield self.live.observer
        if settings.has_metrics:
            yield self.metrics.observer(self.router.is_configured)
        if settings.access_log:
            yield logs.log_request

    @property
    def resource_clients(self) -> ResourceClients:
        """Which client made which of a provider's files and batches."""
        return ResourceClients(self.store)

    def govern(self) -> None:
        """From now on requests are checked, limited and booked: there are rules for some."""
        if self.governor is None:
            settings = self.settings
            directory = state_directory(settings.state_dir)
            self.governor = Governor(settings, self.store, directory, self.shared, self.client)

    def _tariff(self, provider: ChatProvider, model: str, label: str, target: TargetSettings) -> Tariff:
        settings, own = provider.settings, (target.prices, target.max_output, target.context_window)
        image = target.max_image_tokens or settings.max_image_tokens
        return Tariff(provider.name, label, lambda: self.prices.find(settings, model, *own), image)

    def batch_prices(self, provider: ChatProvider, model: str) -> Prices | None:
        """The prices of a provider's model that a batch names: those of a target, where there is one."""
        targets = (target for each in self.settings.models for target in each.targets)
        own = next((each for each in targets if (each.provider, each.model) == (provider.name, model)), None)
        if own is None:
            return self.prices.find(provider.settings, model)
        return self.prices.find(provider.settings, model, own.prices, own.max_output, own.context_window)

    def _listed(self) -> list[ChatProvider]:
        """With the router off only the catch-all provider can be called, so only its models are listed."""
        if self.settings.router_is_on:
            return self._distinct()
        return [provider for provider in self._distinct() if provider.name == CATCH_ALL.name]

    def _matched(self) -> list[ChatProvider]:
        """Further providers whose models are listed under the operator's names with a `*`."""
        models = [model for model in self.settings.models if "*" in model.name]
        named = {target.provider for model in models for target in model.targets}
        listed = self._listed()
        return [
            provider for provider in self._distinct() if provider.name in named and provider not in listed
        ]

    def _distinct(self) -> list[ChatProvider]:
        return list({id(provider): provider for provider in self.providers.values()}.values())

    async def aclose(self) -> None:
        """Close the pools after the last handler. Sanic cancels handlers, and does not wait for them.

        Background responses have as long as requests: Sanic knows nothing of them.
        """
        if self.background is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(
                    self.background.aclose(), self.settings.ending.drain_s + LAST_HANDLERS_S
                )
        with suppress(TimeoutError):
            await asyncio.wait_for(self.traffic.emptied(), LAST_HANDLERS_S)
        await self._close()

    async def retire(self) -> None:
        """Close the pools when the requests that began before now have ended: a newer state has the rest."""
        left = set(self.traffic.requests)
        while left:
            await asyncio.sleep(RETIRED_STEP_S)
            left &= self.traffic.requests
        await self._close()

    async def _close(self) -> None:
        if self.tracer is not None:
            await self.tracer.aclose()
        await self.engines.aclose()
        await self.keys.aclose()  # which may make a governor
        if self.governor is not None:
            await self.governor.aclose()
        await self.models.aclose()
        await self.client.aclose()
        if self.switches is not None:
            self.switches.close()
        if self.sessions is not None:
            self.sessions.close()
        await self.budgets.aclose()
        await self.store.aclose()
        if self.responses is not None:
            await self.responses.aclose()
        if self.captures is not None:
            await asyncio.to_thread(self.captures.close)


def _redactor(secrets: tuple[str, ...]) -> Callable[[str], str]:
    """What removes secrets, the beginning of one at the end of a text, and whatever looks like a key."""
    without_secrets, clean = redaction(secrets), cleaner(secrets)
    return lambda text: clean(without_secrets(text))


def _captures(settings: Settings) -> Captures | None:
    """What captures content; None without a file for it."""
    if not settings.capture.file:
        return None
    models = {model.name: model.capture for model in settings.models}
    return Captures(settings.capture, models, settings.secrets)


def state_store(settings: Settings) -> StateStore:
    """The store of all state but responses, which opens its file or connection when it is first used."""
    if settings.store is None:
        return SQLiteStore(state_directory(settings.state_dir), MIGRATIONS)
    return PostgreSQLStore(settings.store, MIGRATIONS)


def _response_store(settings: Settings, runtime: RuntimeDirectory) -> ResponseStore | None:
    """The store of responses, which opens its file when it is first used; None where it is off.

    It has a file and a thread of its own: a response may have megabytes, for which no other writer waits.
    """
    if settings.response_store == "off":
        return None
    if settings.response_store == "sqlite":
        store = SQLiteStore(state_directory(settings.state_dir), responses.MIGRATIONS, responses.FILE_NAME)
        return ResponseStore(store, lambda: SQLITE_LIMITS.size_bytes, SQLITE_LIMITS.ttl_s)
    store = SQLiteStore(runtime.path, responses.MIGRATIONS, responses.FILE_NAME, prepare=runtime.prepare)
    return ResponseStore(store, lambda: runtime.size_limit(MEMORY_LIMITS.size_bytes), MEMORY_LIMITS.ttl_s)


def _key_hints(settings: Settings) -> dict[str, list[str]]:
    """The last characters of each provider's keys, for the log; nothing of a key too short to be shown."""
    return {
        provider.name: [
            key.reveal()[-HINT_CHARS:] if key is not None and len(key.reveal()) >= MIN_HINTED_CHARS else ""
            for key in (provider.key, *provider.spare_keys)
        ]
        for provider in settings.providers
    }


def state_of(app: Sanic[Any, Any]) -> AppState:
    """The worker's state, which Sanic types as anything."""
    state: AppState = app.ctx.state
    return state
