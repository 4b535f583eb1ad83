"""The models of all providers, fetched side by side and kept for a while.

A slow or failing provider never fails the list: what was known of it before stays (stale while
error), and it is asked again only after a pause.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

from sanic_proxy.errors import ProxyError, UpstreamTimeout
from sanic_proxy.openai import codec
from sanic_proxy.providers.base import ChatProvider

logger = logging.getLogger(__name__)

TTL_S = 300.0
RETRY_S = 15.0
FETCH_TIMEOUT_S = 5.0


class _Shelf:
    """What is known of one provider's models."""

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
        self._own = [codec.model_object({}, id=name, owner="sanic-proxy") for name in names]
        self._shelves = [_Shelf(provider) for provider in providers]
        self._prefixed = prefixed

    async def all(self) -> list[dict[str, Any]]:
        """OpenAI's model objects. Raises only where there is a single provider and it fails cold."""
        await asyncio.gather(*(_refresh(shelf) for shelf in self._shelves))
        only = self._shelves[0] if len(self._shelves) == 1 else None
        if only is not None and only.error is not None and not only.models and not self._own:
            raise only.error
        return self._own + [
            self._object(shelf.provider.name, entry) for shelf in self._shelves for entry in shelf.models
        ]

    async def one(self, model: str) -> dict[str, Any] | None:
        """The model object of that id, or None."""
        return next((entry for entry in await self.all() if entry["id"] == model), None)

    def _object(self, provider: str, entry: dict[str, Any]) -> dict[str, Any]:
        model = f"{provider}/{entry['id']}" if self._prefixed else entry["id"]
        return codec.model_object(entry, id=model, owner=provider)


async def _refresh(shelf: _Shelf) -> None:
    async with shelf.lock:
        if time.monotonic() < shelf.fresh_until:
            return
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                shelf.models = await shelf.provider.list_models()
        except TimeoutError:
            _failed(shelf, UpstreamTimeout("The provider's list of models did not come in time"))
        except ProxyError as exc:
            _failed(shelf, exc)
        else:
            shelf.error = None
            shelf.fresh_until = time.monotonic() + TTL_S


def _failed(shelf: _Shelf, error: ProxyError) -> None:
    shelf.error = error
    shelf.fresh_until = time.monotonic() + RETRY_S
    logger.warning("models of %s could not be listed: %s", shelf.provider.name, error)
