"""What one worker may spend without asking the store, and the messages in which it asks. Pure.

Theory. Each budget has one sum in the store: `used`. A worker takes a part of what is left, its lease, and
spends it without asking. So at every instant

    used + the leases of all workers <= limit        (the store grants no more)
    open + unbooked <= lease, in each worker         (`Lease.take` takes no more)

where `open` is what requests in flight have reserved and `unbooked` what ended requests have cost and the
store has not booked yet. Booking moves an amount from the lease to `used`, which changes neither sum. Hence
what is settled and what is open never exceed the limit together, unless a request costs more than it
reserved.

A lease is at most 1/PART of what is left, so leases shrink as the limit comes near: at the end each request
is granted exactly what it needs, and the last nano-dollar can be spent by any worker. What a worker holds
beyond that it gives back.

A worker and the store talk in turns: a `Message`, its `Reply`, the next message. Each message has a number
that grows, and the store keeps the last one that it has applied. A message whose reply got lost is sent
again as it was, and is then not applied a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from sanic_proxy.governance.budgets import Charge, Counter

# The part of what is left of a budget that one worker takes in advance.
PART = 16
# At most for so many requests like the one that it is taken for.
MAX_AHEAD = 256
# A lease that no request has asked for so long is given back whole, and forgotten.
IDLE_S = 60.0


class Entry(NamedTuple):
    """What a reservation is for: one attempt of a request. `started_ms` is since the epoch."""

    request_id: str
    attempt: int
    client: str
    team: str
    provider: str
    target: str
    model: str
    dialect: str
    endpoint: str
    session: str
    started_ms: int


class Settlement(NamedTuple):
    """How an attempt ended. `nano` is its cost in nano-dollars, `price` the version of the prices.

    The units are tokens; `input` includes `cached` and `cache_write`, and `output` includes `reasoning`.
    """

    nano: int
    outcome: str
    ended_ms: int
    flags: int = 0
    input: int = 0
    cached: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    price: str = ""


# Flags of a settlement.
ESTIMATED = 1  # nobody has seen the usage
OVERDRAFT = 2  # it cost more than was reserved
CUT = 4  # the answer broke off, or its client left
HEDGE = 8  # sent beside another attempt of the same request
UNPRICED = 16  # no price is known
UNRESERVED = 32  # it was let pass while the store could not be used
ORPHANED = 64  # its worker died
# Of a batch that has been created: no row, but one of `ledger_batch`, which ends the reservation later. The
# outcome is the batch's id, `ended_ms` is when its output is not expected any more.
KEPT = 128
KEPT_STRICT = 256  # likewise, and a strict budget is concerned
FLAG_NAMES: Mapping[int, str] = {
    ESTIMATED: "estimated",
    OVERDRAFT: "overdraft",
    CUT: "cut",
    HEDGE: "hedge",
    UNPRICED: "unpriced",
    UNRESERVED: "unreserved",
    ORPHANED: "orphaned",
}


def flag_names(flags: int) -> list[str]:
    """The names of the flags that are set."""
    return [name for flag, name in FLAG_NAMES.items() if flags & flag]


# A row of the ledger: the fields of an Entry, those of a Settlement, and what was reserved.
Row = tuple[Any, ...]


class Booking(NamedTuple):
    """An attempt that has ended, by itself: what it has cost on each counter."""

    number: int
    entry: Entry
    settlement: Settlement
    reserved: int
    costs: tuple[tuple[Counter, int], ...]

    @property
    def row(self) -> Row:
        """Its row in the ledger."""
        return *self.entry, *self.settlement, self.reserved


class Want(NamedTuple):
    """Money that a worker asks for: `amounts` that requests wait for, and some more like `ahead`."""

    charge: Charge
    amounts: tuple[int, ...]
    ahead: int


class Standing(NamedTuple):
    """What a counter says: what is used and booked, and what all workers have leased; `held` by this one."""

    used: int
    leased: int
    held: int


class Notice(NamedTuple):
    """A threshold of a budget that has been passed, for the first time in its period."""

    charge: Charge
    percent: int
    used: int


@dataclass(slots=True)
class Message:
    """What a worker tells the store in one transaction: attempts that have ended as rows, and what they have
    cost in all on each counter. `kept` are those whose reservations go on, which have costs of their own.
    `releases` are parts of leases that it gives back.

    `is_tick`: all its leases are to be reported. `here` are the workers of this machine, whose leases never
    end by time; None: no lease ends.
    """

    worker: str
    number: int
    now_ms: int
    rows: Sequence[Row] = ()
    costs: Mapping[Counter, int] = field(default_factory=dict)
    kept: Sequence[Booking] = ()
    releases: Mapping[Counter, int] = field(default_factory=dict)
    wants: Sequence[Want] = ()
    charges: Mapping[Counter, Charge] = field(default_factory=dict)
    is_tick: bool = False
    here: Sequence[str] | None = None


@dataclass(slots=True)
class Reply:
    """The counters that a message was about, or all that the worker has leases of."""

    standings: dict[Counter, Standing] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)


class Lease:
    """What this worker may spend of one counter."""

    __slots__ = (
        "ahead",
        "asked_at",
        "charge",
        "held",
        "new",
        "open",
        "percent",
        "releasing",
        "standing",
        "unbooked",
        "waiting",
    )

    def __init__(self, charge: Charge) -> None:
        self.charge = charge
        self.held = 0  # as the store has said last
        self.open = 0
        self.unbooked = 0
        self.new = 0  # the part of it that no message has named yet
        self.releasing = 0
        self.waiting = 0  # requests that wait for more
        self.ahead = 0  # an amount like which more is to be taken in advance
        self.standing: Standing | None = None
        self.percent = 0  # the highest announced percentage that is used
        self.asked_at = 0.0

    @property
    def free(self) -> int:
        """What a new reservation may take."""
        return self.held - self.open - self.unbooked - self.releasing

    def give_back(self, amount: int) -> None:
        """Give back a part with the next message."""
        if amount > 0:
            self.releasing += amount

    def is_idle(self, now: float) -> bool:
        """Whether no request has asked for a while, by whichever way the clock has gone."""
        return abs(now - self.asked_at) > IDLE_S

    def shrink(self, now: float) -> None:
        """Give back what is more than a worker may hold now."""
        charge, standing = self.charge, self.standing
        if standing is None or self.waiting:
            return
        left = charge.limit - standing.used - standing.leased
        is_over = charge.end <= now or self.is_idle(now)
        self.give_back(self.free - (0 if is_over else 2 * max(0, left // PART)))

    def note(self, standing: Standing) -> None:
        """What the store says."""
        self.standing = standing
        self.held = standing.held
        charge, used = self.charge, standing.used + self.unbooked
        self.percent = max((p for p in charge.soft if 100 * used >= p * charge.limit), default=0)


Hold = tuple[Lease, int]


def take(holds: Sequence[Hold]) -> bool:
    """Reserve an amount of each lease: of all, or of none if one has too little."""
    # `free` is computed here as well, as this is done for each request.
    for lease, amount in holds:
        if lease.held - lease.open - lease.unbooked - lease.releasing < amount:
            return False
    take_anyway(holds)
    return True


def take_anyway(holds: Sequence[Hold]) -> None:
    """Reserve an amount of each lease, whether it has as much or not."""
    for lease, amount in holds:
        lease.open += amount
        if lease.held - lease.open - lease.unbooked - lease.releasing < amount:
            lease.ahead = amount


def put_back(holds: Sequence[Hold]) -> None:
    """Undo `take`."""
    for lease, amount in holds:
        lease.open -= amount


class Waiter:
    """A request that waits for money.

    `answer` is called once: True, it has been taken; False, there is too little; None, the store has failed.
    """

    __slots__ = ("answer", "holds")

    def __init__(self, holds: Sequence[Hold], answer: Callable[[bool | None], None]) -> None:
        self.holds = holds
        self.answer = answer


class Purse:
    """The leases of one worker, and its part of the talk with the store. `now` is the time of day in seconds.

    `slot` is the caller's number for where a settlement has been kept, -1: nowhere; `apply` returns those
    that are booked.
    """

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self.number = 0
        self._leases: dict[Counter, Lease] = {}
        self._rows: list[Row] = []
        self._kept: list[Booking] = []
        self._slots: list[int] = []
        self._sent: tuple[Message, list[int]] | None = None
        self._waiters: list[Waiter] = []
        self._asked: list[Waiter] = []  # those of them whose wants are in the message under way

    def lease(self, charge: Charge, now: float) -> Lease:
        """The lease for a charge, with the limit as it is now. It may be kept for half of IDLE_S."""
        lease = self._leases.get(charge.counter)
        if lease is None:
            lease = self._leases[charge.counter] = Lease(charge)
        elif lease.charge != charge:
            lease.charge = charge
            lease.give_back(lease.free)  # it was granted under another limit
        lease.asked_at = now
        return lease

    def reserve(self, holds: Sequence[Hold]) -> bool:
        """Take `holds` at once. False if a lease has too little, or others wait for it."""
        for lease, _ in holds:
            if lease.waiting:
                return False
        return take(holds)

    def wait(self, waiter: Waiter) -> None:
        """Have the waiter answered with the reply to the next message."""
        self._waiters.append(waiter)
        for lease, _ in waiter.holds:
            lease.waiting += 1

    def give_up(self, waiter: Waiter) -> None:
        """Nobody waits for the answer any more. Nothing happens if it has been given."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)
            for lease, _ in waiter.holds:
                lease.waiting -= 1

    def settle(
        self, entry: Entry, holds: Sequence[Hold], reserved: int, settlement: Settlement, slot: int
    ) -> None:
        """End what `holds` have been taken for, at the cost of `settlement`."""
        is_kept = settlement[3] & KEPT
        costs = []
        for lease, amount in holds:
            cost = settlement[0] if lease.charge.is_money else amount
            lease.open -= amount
            if cost and not lease.new:
                lease = self._leases.setdefault(lease.charge.counter, lease)  # noqa: PLW2901 - see `_forget`
            lease.unbooked += cost
            if is_kept:
                costs.append((lease.charge.counter, cost))
            else:
                lease.new += cost
        self._slots.append(slot)
        if is_kept:
            self._kept.append(Booking(self.number, entry, settlement, reserved, tuple(costs)))
        else:
            self._rows.append((*entry, *settlement, reserved))

    @property
    def unbooked(self) -> int:
        """How many settlements the store has not booked yet."""
        return len(self._slots) + (0 if self._sent is None else len(self._sent[1]))

    @property
    def has_news(self) -> bool:
        """Whether there is something for the store: settlements, or money that is given back."""
        return (
            bool(self._slots)
            or self._sent is not None
            or any(lease.releasing for lease in self._leases.values())
        )

    @property
    def has_leases(self) -> bool:
        """Whether the store may have granted this worker something, or has booked something of it."""
        return self.number > 0

    def message(self, now_ms: int, here: Sequence[str] | None = None, *, is_tick: bool = False) -> Message:
        """The next message: that whose reply has not come, or what is new. Its wants are always new."""
        if self._sent is None:
            self._sent = self._news()
        self._asked = list(self._waiters)
        return replace(self._sent[0], now_ms=now_ms, wants=self._wants(), is_tick=is_tick, here=here)

    def apply(self, message: Message, reply: Reply, now: float) -> list[int]:
        """The reply to `message`, the last one. Answers those that waited for it."""
        _, slots = self._sent or (None, [])
        self._sent = None
        own = (cost for booking in message.kept for cost in booking.costs)
        for counter, cost in (*message.costs.items(), *own):
            if (lease := self._leases.get(counter)) is not None:
                lease.unbooked -= cost
        for counter, amount in message.releases.items():
            self._leases[counter].releasing -= amount
        known = [(self._leases[c], standing) for c, standing in reply.standings.items() if c in self._leases]
        for lease, standing in known:
            lease.note(standing)
        for waiter in list(self._waiters):
            if (is_granted := take(waiter.holds)) or waiter in self._asked:
                self.give_up(waiter)
                waiter.answer(is_granted)
        for lease, _ in known:
            lease.shrink(now)
        if message.is_tick:
            self._forget(reply, now)
        return slots

    @property
    def sent(self) -> Sequence[Row]:
        """The rows of the message under way."""
        return () if self._sent is None else self._sent[0].rows

    def drop(self, rows: Collection[Row]) -> None:
        """Leave rows out of the message under way. What they have cost is booked on the counters."""
        if self._sent is not None:
            message, slots = self._sent
            self._sent = replace(message, rows=[row for row in message.rows if row not in rows]), slots

    def fail(self) -> None:
        """No reply has come: the message is sent again. Those that wait for it are answered."""
        for waiter in self._asked:
            if waiter in self._waiters:
                self.give_up(waiter)
                waiter.answer(None)

    def _news(self) -> tuple[Message, list[int]]:
        self.number += 1
        rows, self._rows = self._rows, []
        slots, self._slots = self._slots, []
        kept, self._kept = self._kept, []
        releases, costs, charges = {}, {}, {}
        for counter, lease in self._leases.items():
            if lease.releasing:
                releases[counter] = lease.releasing
            if lease.new:
                costs[counter], lease.new = lease.new, 0
                charges[counter] = lease.charge
        for booking in kept:
            charges |= {counter: self._leases[counter].charge for counter, _ in booking.costs}
        message = Message(self.worker, self.number, 0, rows, costs, kept, releases, charges=charges)
        return message, slots

    def _wants(self) -> list[Want]:
        asked: dict[Lease, list[int]] = {}
        for waiter in self._waiters:
            for lease, amount in waiter.holds:
                asked.setdefault(lease, []).append(amount)
        wants = []
        for lease in self._leases.values():
            amounts = asked.get(lease, [])
            ahead, lease.ahead = max(lease.ahead, *amounts, 0), 0
            if ahead:
                wants.append(Want(lease.charge, tuple(_missing(amounts, lease.free)), ahead))
        return wants

    def _forget(self, reply: Reply, now: float) -> None:
        """After a tick: leases that the store does not have any more, and those that nobody has asked for.

        A request of which nothing was reserved may still be in flight: its cost brings the lease back.
        """
        for counter, lease in list(self._leases.items()):
            if counter not in reply.standings:
                lease.held = 0
            is_empty = lease.held == lease.open == lease.unbooked == lease.releasing == 0
            if is_empty and lease.is_idle(now):
                del self._leases[counter]


def _missing(amounts: Iterable[int], free: int) -> Iterable[int]:
    """What of `amounts` is missing, where `free` is there for those that came first."""
    for amount in amounts:
        if amount > free:
            yield amount - max(0, free)
            free = 0
        else:
            free -= amount


def granted(want: Want, used: int, leased: int) -> int:
    """What the store adds to a worker's lease: each amount that fits, and a part of the rest in advance."""
    left = want.charge.limit - used - leased
    given = 0
    for amount in want.amounts:
        if given + amount <= left:
            given += amount
    return given + max(0, min((left - given) // PART, MAX_AHEAD * want.ahead))
