"""The requests of a session meet the target that has its prompt in the cache. Pure: times are handed in.

Rendezvous hashing gives each session its own order of the targets: each one has a score, the hash of session
and target, and the highest one wins (Thaler and Ravishankar, 1998). All workers come to the same order
without talking to each other, and when a target is removed only its own sessions move. Scores are weighted
such that shares are in proportion to the weights.

Hashing alone sends a popular session's target more than it can serve. So a target gets no new request while
it has more than its share of 1.25 times of what all have in flight (Mirrokni, Thorup and Zadimoghaddam,
"Consistent hashing with bounded loads", 2018); the request goes to the session's next target.

A pin remembers where a session is served, so where its cache is. It matters where that is not the first by
hash, as another one was overloaded or failed when the session began. It is moved when the target has failed a
request, and forgotten when the provider's cache is.

Each worker has pins of its own, and trusts one for a second without a look at those that the workers share
(`shared_pins`). After that, or without a pin, it takes over the shared one, and where there is none it shares
its own. So workers that know different things of the targets serve a session at the same one, and
requests that follow each other closely cost no lock.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.routing.shared_pins import SharedPins
from sanic_proxy.routing.targets import Target

if TYPE_CHECKING:
    from sanic_proxy.routing.selection import Choice

P = TypeVar("P")

# The most that a target may have in flight, as a multiple of its share of all.
MAX_LOAD = 1.25
MAX_PINS = 16_384
# How long a worker goes by a pin of its own before it looks where other workers have the session.
TRUST_S = 1.0
# As many as a float holds exactly, with a half added.
_BITS = 52


@dataclass(frozen=True, slots=True)
class Candidate(Generic[P]):
    """One of several targets. `weight` is its share in relation to the others' weights."""

    target: Target[P]
    weight: float
    in_flight: int


def ranked(candidates: Iterable[Candidate[P]], session: bytes) -> list[Candidate[P]]:
    """The candidates in the session's own order. Those with a weight of 0 are last."""
    return sorted(
        candidates,
        key=lambda candidate: _score(candidate.target.label, candidate.weight, session),
        reverse=True,
    )


def _score(label: str, weight: float, session: bytes) -> float:
    """The score of weighted rendezvous hashing: `-weight / ln(h)` with h in (0, 1)."""
    hashed = hashlib.blake2b(label.encode(), digest_size=8, key=session).digest()
    return -weight / math.log((int.from_bytes(hashed) % 2**_BITS + 0.5) / 2**_BITS)


def bounded(
    candidates: Sequence[Candidate[P]], max_load: float = MAX_LOAD, slack: float = 0.0
) -> tuple[list[Candidate[P]], list[Candidate[P]]]:
    """The candidates that may get one more request, and those that are at the bound; both keep their order.

    There is always one that may, unless all weights are 0.
    """
    weights = sum(candidate.weight for candidate in candidates)
    load = max_load * (1 + sum(candidate.in_flight for candidate in candidates))
    free: list[Candidate[P]] = []
    full: list[Candidate[P]] = []
    for candidate in candidates:
        weight = candidate.weight
        is_free = weight > 0 and candidate.in_flight < math.ceil(load * weight / weights) + slack
        (free if is_free else full).append(candidate)
    return free, full


@dataclass(slots=True)
class Pin:
    """Where a session is served. `is_proven`: it has got an answer there.

    `places` are those of the candidates in the session's order, its own target first; empty until a request
    has found that target usable. Until `trusted_until` no other worker needs to be asked.
    """

    label: str
    ttl_s: float
    until: float
    is_proven: bool = False
    places: tuple[int, ...] = ()
    trusted_until: float = 0.0


class Affinity(Generic[P]):
    """The pins of one worker, the least recently used of which are forgotten, and those of all (`shared`)."""

    __slots__ = ("_pins", "_shared")

    def __init__(self, shared: SharedPins | None = None) -> None:
        self._pins: OrderedDict[bytes, Pin] = OrderedDict()
        self._shared = shared

    def kept(
        self, peers: Sequence[tuple[Choice[P], Target[P]]], session: bytes, now: float
    ) -> list[Target[P]] | None:
        """The targets of one request as `arranged` gives them, where all are usable and the session's own one
        is below its bound: a fraction of the work. None where `arranged` has to find out.

        `peers` are the candidates, each with its choice. Targets behind the first are in the session's order,
        whatever they have in flight.
        """
        pin = self._pins.get(session)
        if pin is None or not pin.places:
            return None
        if now >= pin.trusted_until:
            pin = self._looked_up(session, [target.label for _, target in peers], now, pin.ttl_s)
            if pin is None or not pin.places:
                return None
        in_flight = weights = 0.0
        for choice, target in peers:
            if not target.is_usable(now):
                return None
            in_flight += choice.in_flight_of(target)
            weights += choice.weight / len(choice.targets)
        choice, own = peers[pin.places[0]]
        if own.label != pin.label or not weights:
            return None
        share = choice.weight / len(choice.targets) / weights
        if choice.in_flight_of(own) >= math.ceil(MAX_LOAD * (1 + in_flight) * share):
            return None
        pin.until = now + pin.ttl_s
        self._pins.move_to_end(session)
        return [peers[place][1] for place in pin.places]

    def arranged(
        self, candidates: Sequence[Candidate[P]], session: bytes, now: float, *, ttl_s: float, is_hard: bool
    ) -> list[Target[P]]:
        """The targets of one request of `session`, in the order in which they are tried; the first is pinned.

        The bound of the load does not count for a request that `is_hard`: it can probably be served only
        where the session was served before. Targets with an open circuit or a rate limit are last; a hard
        request waits for its own.
        """
        order = ranked(candidates, session)
        pin = self._pins.get(session)
        if pin is None or now >= pin.trusted_until:
            labels = [candidate.target.label for candidate in candidates]
            pin = self._looked_up(session, labels, now, ttl_s)
        if pin is not None:
            order.sort(key=lambda candidate: candidate.target.label != pin.label)
        usable = [candidate for candidate in order if candidate.target.is_usable(now)]
        is_pinned = pin is not None and order[0].target.label == pin.label
        if is_hard and is_pinned and pin is not None and pin.is_proven and order[0] not in usable:
            return [order[0].target]
        free, full = (usable, []) if is_hard and is_pinned else bounded(usable)
        unusable = [candidate for candidate in order if candidate not in usable]
        targets = [candidate.target for candidate in (*free, *full, *unusable)]
        if pin is None or not is_pinned or order[0] in unusable:
            self._keep(session, Pin(targets[0].label, ttl_s, now + ttl_s, trusted_until=now + TRUST_S))
            self._share(session)
        else:
            pin.until = now + pin.ttl_s
            self._pins.move_to_end(session)
            if not unusable:
                pin.places = tuple(candidates.index(candidate) for candidate in order)
        return targets

    def observe(self, record: RequestRecord) -> None:
        """A request has ended (an observer of its record): the pin goes to the target that answered.

        Unless it was another one only because the session's own had too much to do.
        """
        session = record.session
        if not session or (pin := self._pins.get(session)) is None:
            return
        # An attempt that lost to a faster one says nothing of its target, where the cache may still be.
        tried = [attempt.target for attempt in record.attempts if attempt.outcome != "hedge_lost"]
        if not tried or record.attempts[-1].outcome != "ok":
            return
        if tried[-1] == pin.label:
            if pin.is_proven:
                return
            pin.is_proven = True
        elif pin.label in tried:
            pin.label, pin.is_proven, pin.places = tried[-1], True, ()
        else:
            return
        self._share(session)

    def _looked_up(self, session: bytes, labels: Sequence[str], now: float, ttl_s: float) -> Pin | None:
        """The pin of a session by what all workers know, to be trusted again; None if there is none.

        Where the shared one cannot be read, or names a target that is not among `labels` (as while workers
        reload their settings one after the other), the worker's own counts.
        """
        pin = self._pins.get(session)
        if pin is not None and now >= pin.until:
            pin = None
        shared = None if self._shared is None else self._shared.read(session, now, now + ttl_s)
        label = None if shared is None else shared.label_among(labels)
        if shared is not None and label is not None:
            if pin is None or pin.label != label:
                pin = Pin(label, ttl_s, now + ttl_s)
                self._keep(session, pin)
            pin.is_proven = pin.is_proven or shared.is_proven
        elif pin is not None:
            self._share(session)
        if pin is not None:
            pin.trusted_until = min(now + TRUST_S, pin.until)
        return pin

    def _share(self, session: bytes) -> None:
        """Make the worker's pin of a session that of all workers."""
        if self._shared is not None:
            pin = self._pins[session]
            self._shared.write(session, pin.label, pin.until, is_proven=pin.is_proven)

    def _keep(self, session: bytes, pin: Pin) -> None:
        self._pins[session] = pin
        self._pins.move_to_end(session)
        if len(self._pins) > MAX_PINS:
            self._pins.popitem(last=False)
