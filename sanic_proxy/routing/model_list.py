"""The models of all providers, fetched concurrently and kept in memory.

Clients fetch the list often, some whenever a page is opened, and wait for it. So it is answered from memory,
and refreshed behind the answer. Only while a provider has never answered does a request wait, for a moment. A
slow or failing provider never fails the list: its models stay as they were (stale-if-error), and it is asked
again after a pause.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from sanic_proxy.config.model import ModelSettings
from sanic_proxy.config.patterns import STAR, fill, match
from sanic_proxy.errors import ProxyError, UpstreamTimeout
from sanic_proxy.json_types import Json
from sanic_proxy.openai import models
from sanic_proxy.providers.base import ChatProvider

logger = logging.getLogger(__name__)

TTL_S = 300.0
RETRY_S = 15.0
FETCH_TIMEOUT_S = 5.0
# How long the first requests wait for the first answers, all together.
FIRST_WAIT_S = 2.0
# Statuses of a service without the endpoint.
_NO_LIST = frozenset({404, 405, 501})


class _Entry:
    """The known models of one provider, and until when they are fresh (monotonic seconds)."""

    __slots__ = ("error", "fresh_until", "lock", "models", "provider", "was_asked")

    def __init__(self, provider: ChatProvider) -> None:
        self.provider = provider
        self.models: list[Json] = []
        self.fresh_until = 0.0
        self.error: ProxyError | None = None
        self.was_asked = False
        self.lock = asyncio.Lock()


class ModelList:
    """`GET /v1/models` in memory. `prefixed` says whether ids carry the provider's name.

    `models` are the operator's own names for targets; they come first. A name with a `*` stands for the
    models of its targets' providers. `matched` are providers whose models are listed under such names only.
    """

    def __init__(
        self,
        providers: Sequence[ChatProvider],
        *,
        prefixed: bool,
        models: Sequence[ModelSettings] = (),
        matched: Sequence[ChatProvider] = (),
    ) -> None:
        shown = [model for model in models if not model.hidden]
        self._own = [_own_object(model) for model in shown if STAR not in model.name]
        self._patterns = [model for model in shown if STAR in model.name]
        self._entries = [_Entry(provider) for provider in (*providers, *matched)]
        self._direct = len(providers)
        self._prefixed = prefixed
        self._refreshing: asyncio.Task[None] | None = None
        self._wait_until: float | None = None

    async def all(self) -> list[Json]:
        """OpenAI's model objects, after each provider was asked whose list is not fresh.

        Raises only where the request to a single provider fails and nothing is in memory.
        """
        await asyncio.gather(*(_refresh(entry) for entry in self._entries))
        return self._answer()

    async def listed(self) -> list[Json]:
        """The same from memory. Providers that have never answered are waited for, up to `FIRST_WAIT_S`."""
        now = time.monotonic()
        if self._refreshing is None and any(now >= entry.fresh_until for entry in self._entries):
            self._refreshing = asyncio.create_task(self._refresh_all())
        if self._refreshing is not None and not all(entry.was_asked for entry in self._entries):
            self._wait_until = self._wait_until or now + FIRST_WAIT_S
            await asyncio.wait({self._refreshing}, timeout=max(0.0, self._wait_until - now))
        return self._answer()

    async def _refresh_all(self) -> None:
        try:
            await asyncio.gather(*(_refresh(entry) for entry in self._entries))
        finally:
            self._refreshing = None

    def _answer(self) -> list[Json]:
        only = self._entries[0] if len(self._entries) == 1 else None
        if only is not None and only.error is not None and not only.models and not self._own:
            raise only.error
        return self.known()

    def known(self) -> list[Json]:
        """The model objects in memory, without a request to any provider."""
        listed = {entry["id"]: entry for entry in self._own}
        for place, known in enumerate(self._entries):
            name = known.provider.name
            for entry in known.models:
                ids = [_matched_id(model, name, entry["id"]) for model in self._patterns]
                if place < self._direct:
                    ids.append(f"{name}/{entry['id']}" if self._prefixed else entry["id"])
                for id_ in filter(None, ids):
                    listed.setdefault(id_, models.model_object(entry, id=id_, owner=name))
        return list(listed.values())

    async def one(self, model: str) -> Json | None:
        """The model object of that id, or None."""
        return next((entry for entry in await self.listed() if entry["id"] == model), None)

    async def aclose(self) -> None:
        """End a refresh that is under way."""
        if (refreshing := self._refreshing) is not None:
            refreshing.cancel()
            await asyncio.wait({refreshing})


def _own_object(model: ModelSettings) -> Json:
    """The operator's own model, with what is known of its first target."""
    target = model.targets[0]
    described = models.description(target.context_window, target.prices)
    return models.model_object(described, id=model.name, owner="sanic-proxy")


def _matched_id(model: ModelSettings, provider: str, upstream_model: str) -> str | None:
    """The name that stands for a provider's model by the pattern of `model`; None if there is none."""
    for target in model.targets:
        if target.provider == provider and target.model.count(STAR) == model.name.count(STAR):
            texts = match(target.model, upstream_model)
            if texts is not None:
                return fill(model.name, texts)
    return None


async def _refresh(entry: _Entry) -> None:
    async with entry.lock:
        if time.monotonic() < entry.fresh_until:
            return
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                entry.models = await entry.provider.list_models()
        except TimeoutError:
            message = f"The provider returned no model list within {FETCH_TIMEOUT_S:.0f} s"
            _record_failure(entry, UpstreamTimeout(message))
        except ProxyError as exc:
            _record_failure(entry, exc)
        else:
            entry.error = None
            entry.fresh_until = time.monotonic() + TTL_S
        entry.was_asked = True


def _record_failure(entry: _Entry, error: ProxyError) -> None:
    name = entry.provider.name
    if error.upstream_status in _NO_LIST:
        # The provider works, but lists no models: that is no failure, and asking again soon is no use.
        entry.error = None
        entry.fresh_until = time.monotonic() + TTL_S
        logger.warning(
            "%s has no model list (status %s): none of its models are listed", name, error.upstream_status
        )
        return
    entry.error = error
    entry.fresh_until = time.monotonic() + RETRY_S
    logger.warning("listing the models of %s failed: %s", name, error)
