"""What one request is charged: a reservation before each of its attempts, and a settlement after it.

The attempts loop (`routing.retry_loop`) begins and ends attempts, and the end of the request's record ends
those that are left. How an attempt is settled depends on what is known:

| known | cost |
|---|---|
| the provider's usage | by the prices of the target that was asked |
| it was not sent, or answered with an error status | 0 |
| neither: cut, cancelled, timed out, no usage reported | what was reserved, flagged `estimated` |
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from sanic_proxy import errors
from sanic_proxy.governance.cost import cost
from sanic_proxy.governance.estimate import (
    Asked,
    Estimator,
    Tokens,
    estimated_cost,
    strict_cost,
    strict_tokens,
)
from sanic_proxy.governance.leases import CUT, ESTIMATED, HEDGE, UNPRICED, Entry, Hold, Lease, Settlement
from sanic_proxy.governance.ledger import Ledger, LedgerError, Reservation
from sanic_proxy.governance.prices import FREE, Prices
from sanic_proxy.governance.rates import Admission
from sanic_proxy.governance.usage import Usage
from sanic_proxy.json_types import JsonMapping
from sanic_proxy.observability.record import RequestRecord

MAX_OUTCOME = 64
_UNSENT = (errors.UpstreamConnectFailed, errors.UpstreamConnectTimeout, errors.ClientError)


class Tariff:
    """The prices of one target. They are looked up when they are first needed.

    `provider` and `label` are the names of the provider and of the target. `max_image_tokens` is the most
    that an image counts as, for strict budgets.
    """

    __slots__ = ("_find", "_is_found", "_prices", "label", "max_image_tokens", "provider")

    def __init__(
        self, provider: str, label: str, find: Callable[[], Prices | None], max_image_tokens: int = 0
    ) -> None:
        self.provider = provider
        self.label = label
        self._find = find
        self.max_image_tokens = max_image_tokens
        self._prices: Prices | None = None
        self._is_found = False

    @property
    def prices(self) -> Prices | None:
        """None: not known."""
        if not self._is_found:
            self._is_found = True
            self._prices = self._find()
        return self._prices


class Terms(NamedTuple):
    """What is the same for all attempts of a request.

    `leases` are those of the budgets that it counts against. `is_free`: nothing that it does costs money.
    `needs_price`: with a budget, it may not be sent where its cost cannot be computed. `now_ms` is the time
    of day. `first` is an estimate that has been made, and the model's maximum of output that it is for.
    """

    ledger: Ledger
    estimator: Estimator
    leases: Sequence[Lease]
    asked: Asked
    request_id: str
    client: str
    team: str
    model: str
    dialect: str
    endpoint: str
    session: str
    is_free: bool
    needs_price: bool
    now_ms: Callable[[], int]
    first: tuple[int | None, Tokens] | None = None


class _Running(NamedTuple):
    tariff: Tariff
    reservation: Reservation
    is_hedge: bool


class Charge:
    """See the module. One per request.

    `admission` is what its rates have admitted. `refusal` makes the error for a client of what the ledger
    raises. `reports_partly` says whether a usage that has been seen may not be all of it, where the answer
    has no end.
    """

    __slots__ = (
        "_attempts",
        "_cost_nano",
        "_ready",
        "_refusal",
        "_running",
        "_terms",
        "admission",
        "reports_partly",
    )

    def __init__(
        self,
        terms: Terms,
        admission: Admission | None,
        refusal: Callable[[LedgerError], errors.ProxyError],
    ) -> None:
        self._terms = terms
        self.admission = admission
        self._refusal = refusal
        self._ready: _Running | None = None  # reserved, and not begun
        self._running: list[_Running] = []
        self._attempts = 0
        self._cost_nano: int | None = 0  # None: a part is not known
        self.reports_partly: Callable[[], bool] = bool

    @property
    def leases(self) -> Sequence[Lease]:
        """Those of the budgets that the request counts against."""
        return self._terms.leases

    # Before an attempt

    async def reserve(self, tariff: Tariff) -> None:
        """Reserve for the first attempt. Raises ProxyError if there is not enough."""
        if not self._terms.is_free:
            self._ready = await self._reserved(tariff)

    def begin(self, tariff: Tariff | None) -> Awaitable[None] | None:
        """An attempt is to be sent. Returns what has to be awaited first, if anything has.

        Either raises ProxyError for a target that cannot be paid.
        """
        if tariff is None or self._terms.is_free or self._begins_at_once(tariff):
            return None
        return self._begin(tariff)

    def begins(self, tariff: Tariff | None) -> bool:
        """A further attempt is to be sent at once. False if there is not enough for it."""
        if tariff is None or self._terms.is_free:
            return True
        try:
            return self._begins_at_once(tariff, is_hedge=bool(self._running))
        except errors.ProxyError:
            return False

    def _begins_at_once(self, tariff: Tariff, *, is_hedge: bool = False) -> bool:
        ready, self._ready = self._ready, None
        if ready is not None:
            if ready.tariff is tariff:
                self._running.append(ready)
                return True
            self._terms.ledger.cancel(ready.reservation)
        reserved, holds = self._amounts(tariff)
        reservation = self._terms.ledger.reserve(self._entry(tariff), holds, reserved)
        if reservation is not None:
            self._running.append(_Running(tariff, reservation, is_hedge))
        return reservation is not None

    async def _begin(self, tariff: Tariff) -> None:
        self._running.append(await self._reserved(tariff))

    async def _reserved(self, tariff: Tariff) -> _Running:
        ledger = self._terms.ledger
        reserved, holds = self._amounts(tariff)
        entry = self._entry(tariff)
        try:
            reservation = ledger.reserve(entry, holds, reserved)
            reservation = reservation or await ledger.acquire(entry, holds, reserved)
        except LedgerError as exc:
            raise self._refusal(exc) from exc
        return _Running(tariff, reservation, is_hedge=False)

    # After it

    def end(
        self,
        tariff: Tariff | None,
        outcome: str,
        error: errors.ProxyError | None = None,
        usage: JsonMapping | None = None,
    ) -> None:
        """An attempt has ended without being the answer; `usage` is what it has reported nevertheless."""
        for running in self._running:
            if running.tariff is tariff:
                self._running.remove(running)
                is_sent = error is None or _may_be_billed(error)
                used = Usage.of(usage) if usage and not self.reports_partly() else None
                self._settle(running, outcome, used, CUT if is_sent else 0, is_billed=is_sent)
                return

    def finish(self, record: RequestRecord) -> None:
        """The request has ended (an observer of its record). Settles what is left."""
        ready, self._ready = self._ready, None
        if ready is not None:
            self._terms.ledger.cancel(ready.reservation)
        usage = record.last_usage if record.is_usage_summed else record.usage
        is_complete = record.ended == "complete"
        if not is_complete and self.reports_partly():
            usage = None
        running, self._running = self._running, []
        if is_complete and self._terms.asked.units is not None:
            usage = {**self._terms.asked.units.as_usage(), **(usage or {})}
        used = Usage.of(usage) if usage else None
        for one in running:
            self._settle(one, record.ended, used, 0 if is_complete else CUT)
        record.cost_nano = self._cost_nano
        if self.admission is not None:
            self.admission.settle(None if used is None else used.tokens)
        if used is not None and is_complete:
            self._terms.estimator.observe(self._terms.client, self._terms.model, self._terms.asked, used)

    def _settle(
        self,
        running: _Running,
        outcome: str,
        used: Usage | None,
        flags: int = 0,
        *,
        is_billed: bool = True,
    ) -> None:
        tariff, reservation, is_hedge = running
        prices = tariff.prices
        if is_hedge or outcome == "hedge_lost":
            flags |= HEDGE
        nano = 0
        if used is not None:
            nano, is_known = cost(used, prices)
            flags |= 0 if is_known else UNPRICED
        elif is_billed:
            nano = reservation.reserved
            flags |= ESTIMATED | (0 if prices is not None else UNPRICED)
        if self._cost_nano is not None:
            self._cost_nano = None if flags & (ESTIMATED | UNPRICED) else self._cost_nano + nano
        settlement = Settlement(
            nano,
            outcome[:MAX_OUTCOME],
            self._terms.now_ms(),
            flags,
            *((0,) * 5 if used is None else _tokens(used)),
            "" if prices is None else prices.source[:MAX_OUTCOME],
        )
        self._terms.ledger.settle(reservation, settlement)

    # Amounts

    def _amounts(self, tariff: Tariff) -> tuple[int, list[Hold]]:
        """What an attempt reserves, in all and of each budget. Raises ProxyError where nobody knows."""
        terms, prices, asked = self._terms, tariff.prices, self._terms.asked
        most = None if prices is None else prices.max_output
        if terms.first is not None and terms.first[0] == most:
            tokens = terms.first[1]
        else:
            tokens = terms.estimator.tokens(terms.client, terms.model, asked, most)
        estimate = estimated_cost(tokens, asked, prices)
        leases = terms.leases
        if estimate is None:
            if terms.needs_price and any(lease.charge.is_money for lease in leases):
                raise errors.Forbidden(
                    f"The price of {tariff.label} is not known, and this key has a budget: the operator can "
                    "set `prices` for the model or target",
                    code="price_unknown",
                )
            estimate = 0
        worst = estimate
        if prices is not FREE and any(lease.charge.is_strict for lease in leases):
            window = None if prices is None else prices.max_input
            limit = strict_tokens(asked, most, tariff.max_image_tokens, window)
            worst = strict_cost(limit, asked, prices) or 0
        return worst, [(lease, _amount(lease, estimate, worst)) for lease in leases]

    def _entry(self, tariff: Tariff) -> Entry:
        self._attempts += 1
        terms = self._terms
        return Entry(
            terms.request_id,
            self._attempts,
            terms.client,
            terms.team,
            tariff.provider,
            tariff.label,
            terms.model,
            terms.dialect,
            terms.endpoint,
            terms.session,
            terms.now_ms(),
        )


def _amount(lease: Lease, estimate: int, worst: int) -> int:
    charge = lease.charge
    if not charge.is_money:
        return 1
    return worst if charge.is_strict else estimate


def _may_be_billed(error: errors.ProxyError) -> bool:
    """Whether the provider may charge for an attempt that has failed like this.

    It does not for what it has answered with an error, nor for what has not been sent.
    """
    if error.upstream_status is not None or isinstance(error, _UNSENT):
        return False
    return not (isinstance(error, errors.UpstreamDisconnected) and error.is_stale_connection)


def _tokens(used: Usage) -> tuple[int, int, int, int, int]:
    return (
        used.input_tokens,
        used.cached_input,
        used.cache_write + used.cache_write_1h,
        used.output_tokens,
        used.reasoning,
    )
