"""What one request is charged: a reservation before each of its attempts, and a settlement after it.

The attempts loop (`routing.retry_loop`) begins and ends attempts, and the end of the request's record ends
those that are left. How an attempt is settled depends on what is known:

| known | cost |
|---|---|
| the provider's usage | by the prices of the target that was asked |
| it was not sent, or answered with an error status | 0 |
| neither: cut, cancelled, timed out, no usage or one of zeros | what was reserved, flagged `estimated` |
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from typing import NamedTuple

from sanic_proxy import errors
from sanic_proxy.governance.cost import PlainRates, cost
from sanic_proxy.governance.estimate import (
    Asked,
    Memory,
    Tokens,
    estimated_cost,
    strict_cost,
    strict_tokens,
)
from sanic_proxy.governance.leases import CUT, ESTIMATED, HEDGE, UNPRICED, Entry, Hold, Lease, Settlement
from sanic_proxy.governance.ledger import Ledger, LedgerError, Reservation, names_for
from sanic_proxy.governance.prices import FREE, Prices
from sanic_proxy.governance.rates import Admission
from sanic_proxy.governance.usage import PlainUsage, Usage
from sanic_proxy.json_types import JsonMapping
from sanic_proxy.observability.record import RequestRecord

MAX_OUTCOME = 64
MAX_PLACES = 64
_UNSENT = (errors.UpstreamConnectFailed, errors.UpstreamConnectTimeout, errors.ClientError)


class Tariff:
    """The prices of one target. They are looked up when they are first needed.

    `provider` and `label` are the names of the provider and of the target. `max_image_tokens` is the most
    that an image counts as, for strict budgets.
    """

    def __init__(
        self, provider: str, label: str, find: Callable[[], Prices | None], max_image_tokens: int = 0
    ) -> None:
        self.provider = provider
        self.label = label
        self._find = find
        self.max_image_tokens = max_image_tokens

    @cached_property
    def prices(self) -> Prices | None:
        """None: not known."""
        return self._find()

    @cached_property
    def plain_rates(self) -> PlainRates | None:
        """What plain text costs, where nothing but its tokens decides."""
        return PlainRates.of(self.prices)

    @cached_property
    def max_output(self) -> int | None:
        """The model's maximum of output, in tokens."""
        return None if self.prices is None else self.prices.max_output

    @cached_property
    def source(self) -> str:
        """Where the prices come from, as the ledger has it."""
        return "" if self.prices is None else self.prices.source[:MAX_OUTCOME]


# The names in the rows of attempts, from `Entry.client` to `Entry.session`.
_Names = tuple[str, str, str, str, str, str, str, str]


class _Place(NamedTuple):
    """What an attempt has in common with others at the same target: names of its row, and in the journal."""

    names: _Names
    text: bytes


class Terms:
    """What is the same for all requests of a client for a model, for as long as its periods last.

    `leases` are those of the budgets that they count against. `refusal` makes the error for a client of what
    the ledger raises. `now_ms` is the time of day.
    """

    __slots__ = (
        "_places",
        "client",
        "has_money",
        "is_plain",
        "is_strict",
        "leases",
        "ledger",
        "memory",
        "model",
        "now_ms",
        "refusal",
        "team",
    )

    def __init__(
        self,
        ledger: Ledger,
        memory: Memory,
        leases: Sequence[Lease],
        names: tuple[str, str, str],
        refusal: Callable[[LedgerError], errors.ProxyError],
        now_ms: Callable[[], int],
    ) -> None:
        """`names` are the client, its team and the model."""
        self.ledger = ledger
        self.memory = memory
        self.leases = leases
        self.client, self.team, self.model = names
        self.refusal = refusal
        self.now_ms = now_ms
        self.has_money = any(lease.charge.is_money for lease in leases)
        self.is_strict = any(lease.charge.is_strict for lease in leases)
        # Whether all leases reserve the same, what an attempt will probably cost.
        self.is_plain = not self.is_strict and all(lease.charge.is_money for lease in leases)
        self._places: dict[tuple[Tariff, str, str, str], _Place] = {}

    def place(self, tariff: Tariff, dialect: str, endpoint: str, session: str) -> _Place:
        """What attempts of this kind have in common."""
        key = tariff, dialect, endpoint, session
        found = self._places.get(key)
        if found is None:
            if len(self._places) >= MAX_PLACES:
                self._places.clear()
            names = (
                *(self.client, self.team, tariff.provider, tariff.label),
                *(self.model, dialect, endpoint, session),
            )
            text = names_for(Entry("", 0, *names, 0), self.leases)
            found = self._places[key] = _Place(names, text)
        return found


_Running = tuple[Tariff, Reservation, bool]  # whether it is a hedge
# A tuple's own constructor: that of a NamedTuple is a function in Python, which costs twice as much again.
_new = tuple.__new__


class Charge:
    """See the module. One per request.

    `request` are its id, dialect, endpoint and session. `admission` is what its rates have admitted, `first`
    an estimate that has been made, and the model's maximum of output that it is for. `is_free`: nothing that
    it does costs money. `needs_price`: with a budget, it may not be sent where its cost cannot be computed.
    `reports_partly` says whether a usage that has been seen may not be all of it, where the answer has no
    end.
    """

    __slots__ = (
        "_asked",
        "_attempts",
        "_cost_nano",
        "_first",
        "_is_unpriced",
        "_ready",
        "_request",
        "_running",
        "_terms",
        "admission",
        "is_free",
        "needs_price",
        "reports_partly",
    )

    def __init__(
        self,
        terms: Terms,
        asked: Asked,
        request: tuple[str, str, str, str],
        admission: Admission | None = None,
        first: tuple[int | None, Tokens] | None = None,
    ) -> None:
        self._terms = terms
        self._asked = asked
        self._request = request
        self.admission = admission
        self._first = first
        self.is_free = False
        self.needs_price = True
        self._ready: _Running | None = None  # reserved, and not begun
        self._running: list[_Running] = []
        self._attempts = 0
        self._cost_nano: int | None = 0  # None: a part is not known
        self._is_unpriced = False
        self.reports_partly: Callable[[], bool] = bool

    @property
    def leases(self) -> Sequence[Lease]:
        """Those of the budgets that the request counts against."""
        return self._terms.leases

    # Before an attempt

    def reserve(self, tariff: Tariff) -> Awaitable[None] | None:
        """Reserve for the first attempt. Returns what has to be awaited first, if anything has.

        Either raises ProxyError if there is not enough.
        """
        if self.is_free:
            return None
        entry, holds, reserved, names = self._wanted(tariff)
        try:
            reservation = self._terms.ledger.reserve(entry, holds, reserved, names)
        except LedgerError as exc:
            raise self._terms.refusal(exc) from exc
        if reservation is None:
            return self._reserve(tariff, entry, holds, reserved, names)
        self._ready = tariff, reservation, False
        return None

    async def _reserve(
        self, tariff: Tariff, entry: Entry, holds: Sequence[Hold], reserved: int, names: bytes
    ) -> None:
        self._ready = tariff, await self._acquired(entry, holds, reserved, names), False

    def begin(self, tariff: Tariff | None) -> Awaitable[None] | None:
        """An attempt is to be sent. Returns what has to be awaited first, if anything has.

        Either raises ProxyError for a target that cannot be paid.
        """
        if tariff is None or self.is_free or self._begins_at_once(tariff):
            return None
        return self._begin(tariff)

    def begins(self, tariff: Tariff | None) -> bool:
        """A further attempt is to be sent at once. False if there is not enough for it."""
        if tariff is None or self.is_free:
            return True
        try:
            return self._begins_at_once(tariff, is_hedge=bool(self._running))
        except errors.ProxyError:
            return False

    def _begins_at_once(self, tariff: Tariff, *, is_hedge: bool = False) -> bool:
        ready, self._ready = self._ready, None
        if ready is not None:
            if ready[0] is tariff:
                self._running.append(ready)
                return True
            self._terms.ledger.cancel(ready[1])
        wanted = self._wanted(tariff)
        try:
            reservation = self._terms.ledger.reserve(*wanted)
        except LedgerError as exc:
            raise self._terms.refusal(exc) from exc
        if reservation is not None:
            self._running.append((tariff, reservation, is_hedge))
        return reservation is not None

    async def _begin(self, tariff: Tariff) -> None:
        self._running.append((tariff, await self._acquired(*self._wanted(tariff)), False))

    async def _acquired(
        self, entry: Entry, holds: Sequence[Hold], reserved: int, names: bytes
    ) -> Reservation:
        ledger = self._terms.ledger
        try:
            reservation = ledger.reserve(entry, holds, reserved, names)
            return reservation or await ledger.acquire(entry, holds, reserved, names)
        except LedgerError as exc:
            raise self._terms.refusal(exc) from exc

    # After it

    def end(
        self,
        tariff: Tariff | None,
        outcome: str,
        error: errors.ProxyError | None = None,
        usage: JsonMapping | None = None,
    ) -> int:
        """An attempt has ended without being the answer; `usage` is what it has reported nevertheless.

        Returns what it is booked at, in nano-dollars.
        """
        for running in self._running:
            if running[0] is tariff:
                self._running.remove(running)
                is_sent = error is None or _may_be_billed(error)
                used = Usage.of(usage) if usage and not self.reports_partly() else None
                return self._settle(running, outcome, used, CUT if is_sent else 0, is_billed=is_sent)
        return 0

    def finish(self, record: RequestRecord) -> None:
        """The request has ended (an observer of its record). Settles what is left."""
        if self._ready is not None:
            self._terms.ledger.cancel(self._ready[1])
            self._ready = None
        usage = record.last_usage if record.is_usage_summed else record.usage
        is_complete = record.ended == "complete"
        if not is_complete and self.reports_partly():
            usage = None
        running, self._running = self._running, []
        if is_complete and self._asked.units is not None:
            usage = self._asked.units.added_to(usage)
        used = Usage.of(usage) if usage else None
        # Servers that do not count report zeros, or an object without tokens.
        if used is not None and not used[6] and used.is_empty:
            used = None
        for one in running:
            record.spent_nano += self._settle(one, record.ended, used, 0 if is_complete else CUT)
        record.cost_nano, record.is_unpriced = self._cost_nano, self._is_unpriced
        admission = self.admission
        if used is None:
            self._settle_unknown()
            return
        if type(used) is PlainUsage:
            given, made = used[0], used[6]
        else:
            given, made = used.input_tokens, used.output_tokens
        if admission is not None:
            admission.settle(given + made)
        if is_complete:
            self._terms.memory.observe(self._asked, given, made)

    def _settle_unknown(self) -> None:
        if self.admission is not None:
            self.admission.settle(None)

    def _settle(
        self,
        running: _Running,
        outcome: str,
        used: Usage | None,
        flags: int = 0,
        *,
        is_billed: bool = True,
    ) -> int:
        tariff, reservation, is_hedge = running
        if is_hedge or outcome == "hedge_lost":
            flags |= HEDGE
        given = cached = written = made = reasoning = nano = 0
        if used is None:
            if is_billed:
                nano = reservation.reserved
                if tariff.prices is not FREE:
                    flags |= ESTIMATED | (0 if tariff.prices is not None else UNPRICED)
        elif type(used) is PlainUsage and tariff.plain_rates is not None:
            given, made = used[0], used[6]
            nano = tariff.plain_rates.cost(given, made)
        else:
            nano, is_known = cost(used, tariff.prices)
            flags |= 0 if is_known else UNPRICED
            given, made, cached, reasoning = used.input_tokens, used.output_tokens, used[1], used[7]
            written = used.cache_write + used.cache_write_1h
        if flags & UNPRICED:
            self._is_unpriced = True
        if self._cost_nano is not None:
            self._cost_nano = None if flags & (ESTIMATED | UNPRICED) else self._cost_nano + nano
        terms = self._terms
        ended_ms, text = terms.now_ms(), outcome[:MAX_OUTCOME]
        fields = nano, text, ended_ms, flags, given, cached, written, made, reasoning, tariff.source
        terms.ledger.settle(reservation, _new(Settlement, fields))
        return nano

    # Amounts

    def _wanted(self, tariff: Tariff) -> tuple[Entry, Sequence[Hold], int, bytes]:
        """An attempt, what it reserves of each budget and in all, and its names in the journal.

        Raises ProxyError where nobody knows what it may cost.
        """
        reserved, holds = self._amounts(tariff)
        self._attempts += 1
        id_, dialect, endpoint, session = self._request
        terms = self._terms
        names, text = terms.place(tariff, dialect, endpoint, session)
        entry = _new(Entry, (id_, self._attempts, *names, terms.now_ms()))
        return entry, holds, reserved, text

    def _amounts(self, tariff: Tariff) -> tuple[int, Sequence[Hold]]:
        """What an attempt reserves, in all and of each budget."""
        terms, asked = self._terms, self._asked
        most = tariff.max_output
        if self._first is not None and self._first[0] == most:
            tokens = self._first[1]
        else:
            tokens = terms.memory.tokens(asked, most)
        rates = tariff.plain_rates
        if rates is not None and terms.is_plain and not asked.service_tier and asked.units is None:
            estimate = rates.cost(*tokens)
            return estimate, [(lease, estimate) for lease in terms.leases]
        prices, leases = tariff.prices, terms.leases
        known = estimated_cost(tokens, asked, prices)
        if known is None and self.needs_price and terms.has_money:
            raise errors.Forbidden(
                f"The price of {tariff.label} is not known, and this key has a budget: the operator can "
                "set `prices` for the model or target",
                code="price_unknown",
            )
        estimate = worst = known or 0
        if prices is not FREE and terms.is_strict:
            window = None if prices is None else prices.max_input
            limit = strict_tokens(asked, most, tariff.max_image_tokens, window)
            worst = strict_cost(limit, asked, prices) or 0
        return worst, [(lease, _amount(lease, estimate, worst)) for lease in leases]


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
