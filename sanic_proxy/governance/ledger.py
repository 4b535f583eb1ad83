"""The ledger of one worker: what requests reserve before they are sent, and what they have cost in the end.

    holds = [(ledger.lease(charge), amount), ...]
    reservation = ledger.reserve(entry, holds, reserved)           # at once, while the leases suffice
    reservation = await ledger.acquire(entry, holds, reserved)     # else: asks the store first
    ...
    ledger.settle(reservation, settlement)                         # once; a second time does nothing

`leases` has the theory of what may be spent without asking, `journal` that of what outlives a killed worker,
and `ledger_tables` the transactions. This module runs them: it talks to the store every BATCH_S while
attempts end, at once if a request waits for money, and every TICK_S otherwise, to renew its leases, give back
what it does not need, and take over the journals of dead workers.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from sanic_proxy.governance import batch_tables, ledger_tables
from sanic_proxy.governance.budgets import Charge
from sanic_proxy.governance.journal import Journal, JournalFull, journals
from sanic_proxy.governance.leases import (
    OVERDRAFT,
    UNRESERVED,
    Entry,
    Hold,
    Lease,
    Notice,
    Purse,
    Row,
    Settlement,
    Standing,
    Waiter,
    put_back,
    take_anyway,
)
from sanic_proxy.state_store.base import StateStore, StoreError, StoreRefused, StoreUnavailable

logger = logging.getLogger(__name__)

BATCH_S = 0.05
TICK_S = 1.0
CLEAN_S = 3600.0
# How long a request waits for the store before it is refused, or let pass.
STORE_WAIT_S = 2.0
# While other requests' reservations are in the way: they may end, and other workers give back spare money.
PAUSES_S = (0.2, 0.4, 0.6)
# Settlements that are kept while the store is down and the journal cannot be written either.
MAX_UNWRITTEN = 100_000
FOLDER = "ledger"
# Files with attempts that the store does not take, a line of JSON each.
REFUSED_SUFFIX = ".refused"


class LedgerError(Exception):
    """No money can be reserved."""


class LedgerDown(LedgerError):
    """The store, or the journal, cannot be used now."""


class BudgetSpent(LedgerError):
    """What is left of a budget is less than the request may cost. `used` is what has been spent of it."""

    def __init__(self, charge: Charge, used: int, amount: int) -> None:
        super().__init__(f"The {charge.describe()} is spent")
        self.charge = charge
        self.used = used
        self.amount = amount


class BudgetReserved(LedgerError):
    """What is left of a budget is reserved for requests in flight: `reserved`, beside what is `used`."""

    def __init__(self, charge: Charge, used: int, reserved: int) -> None:
        super().__init__(f"What is left of the {charge.describe()} is reserved for requests in flight")
        self.charge = charge
        self.used = used
        self.reserved = reserved


class Reservation:
    """Money that is set aside for one attempt, until it is settled. `slot` is its place in the journal."""

    __slots__ = ("entry", "flags", "holds", "is_settled", "reserved", "slot")

    def __init__(self, entry: Entry, holds: Sequence[Hold], reserved: int, slot: int, flags: int = 0) -> None:
        self.entry = entry
        self.holds = holds
        self.reserved = reserved
        self.slot = slot
        self.flags = flags
        self.is_settled = False


class Ledger:
    """See the module. Made in a running loop; nothing is opened before the first reservation or `start`.

    `announce` is called with each threshold that a budget has passed, once over all workers. `wall` is the
    time of day in seconds. With `passes` requests pass while the store is down, and are flagged.
    """

    def __init__(
        self,
        store: StateStore,
        directory: Path,
        *,
        days: int = 90,
        passes: bool = False,
        announce: Callable[[Notice], None] = lambda notice: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._directory = directory / FOLDER
        self._days = days
        self._passes = passes
        self._announce = announce
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._purse = Purse(secrets.token_hex(8))
        self._journal: Journal | None = None
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._tick_at = self._clean_at = 0.0
        self._is_closing = False
        self.is_down = False

    def start(self) -> None:
        """Take over what dead workers have left, and go on doing so. The first reservation does it, too."""
        if self._task is None and not self._is_closing:
            self._task = self._loop.create_task(self._serve())

    def lease(self, charge: Charge) -> Lease:
        """What this worker has of a budget. To be kept for half of IDLE_S at most."""
        return self._purse.lease(charge, self._wall())

    def reserve(
        self, entry: Entry, holds: Sequence[Hold], reserved: int, names: bytes = b""
    ) -> Reservation | None:
        """Reserve, if the leases suffice; None where the store has to be asked. Raises LedgerDown.

        `names` is what `names_for` returns, where the caller has kept it from an earlier request.
        """
        return self._written(entry, holds, reserved, names) if self._purse.reserve(holds) else None

    async def acquire(
        self, entry: Entry, holds: Sequence[Hold], reserved: int, names: bytes = b""
    ) -> Reservation:
        """Reserve, and ask the store where the leases do not suffice.

        Raises BudgetSpent, BudgetReserved or LedgerDown.
        """
        try:
            for pause_s in (0.0, *PAUSES_S):
                if pause_s:
                    await asyncio.sleep(pause_s)
                if self._purse.reserve(holds) or await self._granted(holds):
                    return self._written(entry, holds, reserved, names)
                _raise_if_spent(holds)
        except LedgerDown:
            if not self._passes:
                raise
            take_anyway(holds)
            return self._written(entry, holds, reserved, names, UNRESERVED)
        lease = next((held for held, amount in holds if held.free < amount), holds[0][0])
        standing = lease.standing or Standing(0, 0, 0)
        raise BudgetReserved(lease.charge, standing.used, standing.leased)

    def settle(self, reservation: Reservation, settlement: Settlement) -> None:
        """End a reservation with what the attempt has cost. A second time does nothing."""
        if reservation.is_settled:
            return
        reservation.is_settled = True
        purse, holds, slot = self._purse, reservation.holds, reservation.slot
        flags = reservation.flags
        if settlement[0] > reservation.reserved and any(lease.charge.is_strict for lease, _ in holds):
            flags |= OVERDRAFT
            logger.error(
                "request %s cost %d nano-dollars and had reserved %d: a strict budget may be exceeded",
                reservation.entry.request_id,
                settlement.nano,
                reservation.reserved,
            )
        if flags:
            settlement = settlement._replace(flags=settlement.flags | flags)
        purse.number += 1
        if slot >= 0 and self._journal is not None:
            self._journal.settle(slot, ledger_tables.write_settlement(purse.number, settlement))
        elif purse.unbooked >= MAX_UNWRITTEN:
            logger.error("request %s is not in the ledger: the store is down", reservation.entry.request_id)
            put_back(holds)
            return
        purse.settle(reservation.entry, holds, reservation.reserved, settlement, slot)
        if self._timer is None:
            self._timer = self._loop.call_later(BATCH_S, self._strike)

    def cancel(self, reservation: Reservation) -> None:
        """End a reservation whose attempt was not made: nothing is booked."""
        if not reservation.is_settled:
            reservation.is_settled = True
            put_back(reservation.holds)
            if reservation.slot >= 0 and self._journal is not None:
                self._journal.release(reservation.slot)

    async def aclose(self) -> None:
        """Book what is pending, and end this worker's leases. What is still open stays in the journal.

        What cannot be booked now is booked by the next worker that finds the journal.
        """
        self._is_closing = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._wake.set()
            await self._task
            self._task = None
        journal = self._journal
        try:
            while self._purse.has_news:
                await self._talk(is_tick=False)
            if self._purse.has_leases and (journal is None or journal.is_empty):
                await self._store.run(partial(ledger_tables.end, worker=self._purse.worker))
            if journal is not None and journal.is_empty:
                journal.remove()
        except StoreError as exc:
            logger.error("the ledger will be completed at the next start: %s", exc)  # noqa: TRY400 - no bug
        if journal is not None:
            journal.close()

    # Money

    async def _granted(self, holds: Sequence[Hold]) -> bool:
        """Whether `holds` have been taken, after the store has been asked. Raises LedgerDown."""
        answered: asyncio.Future[bool | None] = self._loop.create_future()
        waiter = Waiter(holds, lambda answer: None if answered.done() else answered.set_result(answer))
        self._purse.wait(waiter)
        self.start()
        self._wake.set()
        try:
            async with asyncio.timeout(STORE_WAIT_S):
                answer = await answered
        except TimeoutError:
            raise LedgerDown("The state store did not answer in time") from None
        except asyncio.CancelledError:
            if answered.done() and not answered.cancelled() and answered.result():
                put_back(holds)
            raise
        finally:
            self._purse.give_up(waiter)
        if answer is None:
            raise LedgerDown("The state store cannot be used")
        return answer

    def _written(
        self, entry: Entry, holds: Sequence[Hold], reserved: int, names: bytes, flags: int = 0
    ) -> Reservation:
        """A reservation whose money has been taken. Puts it back where the journal cannot be written."""
        try:
            journal = self._journal or self._opened()
            names = names or names_for(entry, [lease for lease, _ in holds])
            slot = journal.open(ledger_tables.write_reservation(entry, reserved, names))
        except (OSError, JournalFull) as exc:
            if not self._passes:
                put_back(holds)
                raise LedgerDown(f"The ledger cannot be written: {exc}") from exc
            slot, flags = -1, UNRESERVED
        except BaseException:
            put_back(holds)
            raise
        return Reservation(entry, holds, reserved, slot, flags)

    def _opened(self) -> Journal:
        journal = self._journal = Journal.create(self._directory, self._purse.worker)
        self.start()
        return journal

    # The talk with the store

    def _strike(self) -> None:
        self._timer = None
        self._wake.set()

    async def _serve(self) -> None:
        while not self._is_closing:
            self._wake.clear()
            now = self._loop.time()
            is_tick = now >= self._tick_at
            try:
                if is_tick:
                    self._tick_at = now + TICK_S
                    await self._adopt_orphans()
                await self._talk(is_tick=is_tick)
                if now >= self._clean_at:
                    self._clean_at = now + CLEAN_S
                    now_ms = int(1000 * self._wall())
                    await self._store.run(partial(ledger_tables.clean, now_ms=now_ms, days=self._days))
                    if late := await self._store.run(partial(batch_tables.expire, now_ms=now_ms)):
                        logger.warning("%d batches were not fetched, and cost what they had reserved", late)
            except (StoreError, OSError) as exc:
                self._purse.fail()
                if not self.is_down:
                    self.is_down = True
                    logger.error("the ledger cannot be written: %s", exc)  # noqa: TRY400 - no bug of ours
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._tick_at):
                    await self._wake.wait()

    async def _talk(self, *, is_tick: bool) -> None:
        """Send one message and apply its reply. Raises StoreError; the message is then sent again."""
        here = [path.stem for path in journals(self._directory)] if is_tick else None
        message = self._purse.message(int(1000 * self._wall()), here, is_tick=is_tick)
        try:
            reply = await self._store.run(partial(ledger_tables.exchange, message=message))
        except StoreRefused as exc:
            await self._set_aside(exc)
            await self._talk(is_tick=is_tick)
            return
        if self.is_down:
            self.is_down = False
            logger.warning("the ledger can be written again")
        slots = self._purse.apply(message, reply, self._wall())
        if self._journal is not None:
            for slot in slots:
                if slot >= 0:
                    self._journal.release(slot)
        for notice in reply.notices:
            self._announce(notice)
        if self._purse.has_news and self._timer is None and not self._is_closing:
            self._timer = self._loop.call_later(BATCH_S, self._strike)

    async def _set_aside(self, error: StoreRefused) -> None:
        """Keep in a file what the store does not take, so that the rest can be booked.

        Raises StoreError or OSError, also `error` where the reason is not in what is booked.
        """
        refused: list[Row] = []
        for row in self._purse.sent:
            try:
                await self._store.run(partial(ledger_tables.attempt, row=row))
            except StoreRefused:
                refused.append(row)
            except ledger_tables.Tried:
                pass
        if not refused:
            raise error
        file = self._directory / f"{self._purse.worker}{REFUSED_SUFFIX}"
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with file.open("ab") as kept:
            kept.writelines(ledger_tables.row_text(row) + b"\n" for row in refused)
        self._purse.drop(refused)
        logger.error("the store does not take %d attempts, see %s: %s", len(refused), file, error)

    async def _adopt_orphans(self) -> None:
        """Take over the journals of dead workers. Raises StoreError, or OSError."""
        for path in journals(self._directory):
            if path.stem == self._purse.worker or (left := Journal.adopt(path)) is None:
                continue
            try:
                now_ms, all_left = int(1000 * self._wall()), tuple(left.left())
                found = await self._store.run(
                    partial(ledger_tables.adopt, worker=left.worker, left=all_left, now_ms=now_ms)
                )
                left.remove()
            except StoreUnavailable:
                raise
            except (StoreError, ValueError) as exc:
                aside = left.set_aside()
                logger.error("a dead worker's journal cannot be read, see %s: %s", aside, exc)  # noqa: TRY400
                continue
            finally:
                left.close()
            if found.open or found.settled:
                logger.warning(
                    "a worker died: %d attempts in flight are booked at their reservation, %d at their cost",
                    found.open,
                    found.settled,
                )


def names_for(entry: Entry, leases: Iterable[Lease]) -> bytes:
    """What the journal keeps of a reservation that is the same for all that have its names and leases."""
    return ledger_tables.kept_names(
        entry, [(lease.charge.counter, lease.charge.is_money) for lease in leases]
    )


def _raise_if_spent(holds: Sequence[Hold]) -> None:
    for lease, amount in holds:
        if lease.standing is not None and lease.free < amount:
            used = lease.standing.used + lease.unbooked
            if used + amount > lease.charge.limit:
                raise BudgetSpent(lease.charge, used, amount)
