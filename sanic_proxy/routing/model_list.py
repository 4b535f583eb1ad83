"""The models of all providers, fetched concurrently and cached.

A slow or failing provider never fails the list: its cached models stay (stale-if-error), and the next
request to it is made after a pause.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

from sanic_proxy.errors import ProxyError, UpstreamTimeout
from sanic_proxy.openai import models
from sanic_proxy.providers.base import ChatProvider

logger = logging.getLogger(__name__)

TTL_S = 300.0
RETRY_S = 15.0
FETCH_TIMEOUT_S = 5.0
# Statuses of a service without the endpoint.
_NO_LIST = frozenset({404, 405, 501})


class _Entry:
    """The known models of one provider, and until when they are fresh (monotonic seconds)."""

    __slots__ = ("error", "fresh_until", "lock", "models", "provider")

    def __init__(self, provider: ChatProvider) -> None:
        self.provider = provider
        self.models: list[dict[str, Any]] = []
        self.fresh_until = 0.0
        self.error: ProxyError | None = None
        self.lock = asyncio.Lock()


class ModelList:
    """`GET /v1/models` in memory. `prefixed` says whether ids carry the provider's name.

    `names` are those that the operator gave to targets; they come first.
    """

    def __init__(
        self, providers: Sequence[ChatProvider], *, prefixed: bool, names: Sequence[str] = ()
    ) -> None:
        self._own = [models.model_object({}, id=name, owner="sanic-proxy") for name in names]
        self._entries = [_Entry(provider) for provider in providers]
        self._prefixed = prefixed

    async def all(self) -> list[dict[str, Any]]:
        """OpenAI's model objects. Raises only where the request to a single provider fails the first time."""
        await asyncio.gather(*(_refresh(entry) for entry in self._entries))
        only = self._entries[0] if len(self._entries) == 1 else None
        if only is not None and only.error is not None and not only.models and not self._own:
            raise only.error
        return self.known()

    def known(self) -> list[dict[str, Any]]:
        """The model objects in memory, without a request to any provider."""
        listed = {entry["id"]: entry for entry in self._own}
        for known in self._entries:
            for entry in known.models:
                made = self._object(known.provider.name, entry)
                listed.setdefault(made["id"], made)
        return list(listed.values())

    async def one(self, model: str) -> dict[str, Any] | None:
        """The model object of that id, or None."""
        return next((entry for entry in await self.all() if entry["id"] == model), None)

    def _object(self, provider: str, entry: dict[str, Any]) -> dict[str, Any]:
        model = f"{provider}/{entry['id']}" if self._prefixed else entry["id"]
        return models.model_object(entry, id=model, owner=provider)


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
