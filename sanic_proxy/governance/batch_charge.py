"""What the creation of a batch is charged: a reservation that outlives its request, its worker and restarts.

    charge, _ = governor.admit(request, None, BatchCharge)     # by the client's rates
    ...                            # read its input
    governor.count_batch(request, charge, batch)                # in the budgets of its models
    charge.reserve(tariff)
    ...
    charge.created(seen)           # the provider has answered; without it the attempt is settled as any other
    ...
    await book.note(provider, seen)                  # whenever the provider says how a batch stands
    batch = await book.of_output(provider, file)     # when a file is fetched: is it the output of one?
    book.settle(batch, settlement)

`batch_tables` has the theory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from typing_extensions import override

from sanic_proxy.governance import batch_tables
from sanic_proxy.governance.batch_tables import OpenBatch
from sanic_proxy.governance.batches import RETENTION_S, Seen
from sanic_proxy.governance.charge import Charge, Tariff, Terms
from sanic_proxy.governance.estimate import Asked, Tokens
from sanic_proxy.governance.leases import KEPT, KEPT_STRICT, OVERDRAFT, Hold, Settlement
from sanic_proxy.governance.rates import Admission
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.state_store.base import StateStore, StoreError

logger = logging.getLogger(__name__)


class BatchCharge(Charge):
    """The charge of a request that creates a batch."""

    __slots__ = ("_batch", "_reserves")

    def __init__(
        self,
        terms: Terms,
        asked: Asked,
        request: tuple[str, str, str, str],
        admission: Admission | None,
        first: tuple[int | None, Tokens] | None,
    ) -> None:
        super().__init__(terms, asked, request, admission, first)
        self._reserves = 0
        self._batch: Seen | None = None

    def costs(self, nano: int, terms: Terms) -> None:
        """What the batch is to reserve, and of which budgets."""
        self._reserves = nano
        self._terms = terms

    def created(self, batch: Seen) -> None:
        """The batch that the provider has created. To be called before the request ends."""
        self._batch = batch

    @override
    def finish(self, record: RequestRecord) -> None:
        batch, terms = self._batch, self._terms
        if batch is None or not self._running:
            super().finish(record)
            return
        running, self._running = self._running, []
        until_ms = terms.now_ms() + int(1000 * (batch.window_s + RETENTION_S))
        for _, reservation, _ in running:
            reserved = reservation.reserved
            flags = KEPT | (KEPT_STRICT if terms.is_strict else 0)
            terms.ledger.settle(reservation, Settlement(reserved, batch.id, until_ms, flags))
        if self.admission is not None:
            self.admission.settle(None)

    @override
    def _amounts(self, tariff: Tariff) -> tuple[int, Sequence[Hold]]:
        nano = self._reserves
        return nano, [(lease, nano if lease.charge.is_money else 1) for lease in self._terms.leases]


class BatchBook:
    """The batches that are open, in the store. What fails is logged: no request fails for it."""

    def __init__(self, store: StateStore, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms
        self._settling: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Wait for what is being settled."""
        if self._settling:
            await asyncio.wait(self._settling)

    async def note(self, provider: str, seen: Sequence[Seen]) -> None:
        """What `provider` has said of batches."""
        if news := [each for each in seen if each.is_over]:
            work = partial(batch_tables.note, provider=provider, seen=news, now_ms=self._now_ms())
            try:
                await self._store.run(work)
            except StoreError as exc:
                logger.error("the state of a batch is not noted: %s", exc)  # noqa: TRY400 - no bug of ours

    async def of_output(self, provider: str, file: str) -> OpenBatch | None:
        """The open batch whose output is in that file."""
        try:
            return await self._store.run(partial(batch_tables.of_output, provider=provider, file=file))
        except StoreError as exc:
            logger.error("a file was fetched, and is not booked: %s", exc)  # noqa: TRY400
            return None

    async def waiting(self, provider: str, client: str) -> list[str]:
        """The open batches of a client whose output is not known, the oldest first."""
        try:
            return await self._store.run(partial(batch_tables.waiting, provider=provider, client=client))
        except StoreError as exc:
            logger.error("a file was fetched, and is not booked: %s", exc)  # noqa: TRY400
            return []

    def settle(self, batch: OpenBatch, settlement: Settlement) -> None:
        """Close a batch whose output has been fetched. Does not wait, as the client may leave."""
        task = asyncio.get_running_loop().create_task(self._settle(batch, settlement))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, batch: OpenBatch, settlement: Settlement) -> None:
        try:
            flags = await self._store.run(partial(batch_tables.settle, batch=batch, settlement=settlement))
        except StoreError as exc:
            logger.error("batch %s is not booked: %s", batch.batch, exc)  # noqa: TRY400
            return
        if flags is not None and flags & OVERDRAFT:
            logger.error(
                "batch %s cost %d nano-dollars and had reserved %d: a strict budget may be exceeded",
                batch.batch,
                settlement.nano,
                batch.reserved,
            )
