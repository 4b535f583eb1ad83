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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from typing_extensions import override

from sanic_proxy.observability.record import Client, RequestRecord, Session
from sanic_proxy.routing import sessions
from sanic_proxy.routing.load import TargetLoad
from sanic_proxy.routing.shared_pins import PROVEN, SharedPins, session_key, word_of
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
_ROUNDING = 1e-9

# The client's id, the model, and the client's name for the session.
SessionName: TypeAlias = tuple[str, str, str]
# The targets among which a session has one of its own, each with its choice.
Peers: TypeAlias = "Sequence[tuple[Choice[P], Target[P]]]"


@dataclass(frozen=True, slots=True)
class Candidate(Generic[P]):
    """One of several targets. `weight` is its share in relation to the others' weights."""

    target: Target[P]
    weight: float
    in_flight: int


def candidates_of(peers: Peers[P]) -> list[Candidate[P]]:
    """The peers of a route as candidates, each key with its share of its choice's weight."""
    return [
        Candidate(target, choice.weight / len(choice.targets), choice.load_of(target))
        for choice, target in peers
    ]


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


def always_free(share: float, max_load: float = MAX_LOAD) -> float:
    """The number of requests in flight below which a target with that share of the weights is below its
    bound, whatever the others have in flight.

    The bound is `ceil(max_load * share * (1 + all))`, and `all` is at least the target's own number n. So n
    is below it as long as `n < a * (1 + n)` with `a = max_load * share`: up to `a / (1 - a)`.
    """
    allowed = max_load * share
    return math.inf if allowed >= 1 else math.ceil(allowed / (1 - allowed) - _ROUNDING)


class Pin(Session, Generic[P]):
    """Where a session is served: at the target `label`, until the monotonic time `until`; "": nowhere yet.

    `client` is its client, as the last request had it. Until `trusted_until` no other worker needs to be
    asked. `_targets` are those of `_peers` in the session's order, its own target first, which is `_own`;
    empty until a request has found all of them usable. While fewer requests than `_bound` are in flight at
    `_own`, which are counted by `_load`, its load is below the bound whatever the others have. `_load` is
    None where other numbers count. `_key` and `_word` are those of the shared pin.
    """

    __slots__ = (
        "_affinity",
        "_bound",
        "_key",
        "_load",
        "_own",
        "_peers",
        "_targets",
        "_word",
        "client",
        "label",
        "trusted_until",
        "ttl_s",
        "until",
    )

    def __init__(self, digest: bytes, client: Client, affinity: Affinity[P]) -> None:
        super().__init__(digest)
        self._affinity = affinity
        self.client = client
        self.label = ""
        self._key, self._word = session_key(digest), 0
        self.ttl_s = 0.0
        self.until = self.trusted_until = -math.inf
        self._peers: Peers[P] = ()
        self._targets: tuple[Target[P], ...] = ()
        self._own: Target[P] | None = None
        self._load: TargetLoad | None = None
        self._bound = 0.0

    def kept(self, peers: Peers[P], client: Client, now: float) -> tuple[Target[P], ...] | None:
        """The targets of one request as `arranged` gives them, where the session's own one is usable and
        below its bound: a fraction of the work. None where `arranged` has to find out, and for other clients.
        `now` may be as old as the request.

        Targets behind the first are in the session's order, whatever they have in flight.
        """
        own = self._own
        if own is None or peers is not self._peers or client is not self.client:
            return None
        if now >= self.trusted_until and not self._is_valid(now):
            return None
        if now < own.rate_limit.until or not (own.health.until is own.key_health.until is None):
            return None
        if own.switches is not None and own.is_off:
            return None
        if (load := self._load) is not None:
            gauge = load.gauge
            if (gauge.count if gauge.cell is None else gauge.total()) < self._bound:
                return self._targets
        return self._targets if self._is_below_bound() else None

    def arranged(
        self, peers: Peers[P], now: float, *, ttl_s: float, is_hard: bool = False
    ) -> list[Target[P]]:
        """The targets of one request, in the order in which they are tried; the first is pinned.

        The bound of the load does not count for a request that `is_hard`: it can probably be served only
        where the session was served before. Targets with an open circuit or a rate limit are last; a hard
        request waits for its own.
        """
        candidates = candidates_of(peers)
        order = ranked(candidates, self.digest)
        self.ttl_s = ttl_s
        if now >= self.trusted_until:
            self._look_up([candidate.target.label for candidate in candidates], now)
        if self.label:
            order.sort(key=lambda candidate: candidate.target.label != self.label)
        usable = [candidate for candidate in order if candidate.target.is_usable(now)]
        is_pinned = order[0].target.label == self.label
        if is_hard and is_pinned and self.is_proven and order[0] not in usable:
            return [order[0].target]
        free, full = (usable, []) if is_hard and is_pinned else bounded(usable)
        unusable = [candidate for candidate in order if candidate not in usable]
        targets = [candidate.target for candidate in (*free, *full, *unusable)]
        self.until = now + ttl_s
        if not is_pinned or order[0] in unusable:
            self._move(targets[0].label)
            self._trust(now, self.until)
            self._share()
        elif not unusable:
            self._settle(peers, order)
        return targets

    @override
    def record_answer(self, record: RequestRecord) -> None:
        """The pin goes to the target that has answered, unless it was another one only because the session's
        own had too much to do.
        """
        # An attempt that lost to a faster one says nothing of its target, where the cache may still be.
        tried = [attempt.target for attempt in record.attempts if attempt.outcome != "hedge_lost"]
        if not tried or record.attempts[-1].outcome != "ok":
            return
        if tried[-1] == self.label:
            if self.is_proven:
                return
        elif self.label in tried:
            self._move(tried[-1])
        else:
            return
        self.is_proven = True
        self._share()

    def _settle(self, peers: Peers[P], order: Sequence[Candidate[P]]) -> None:
        """Remember the session's order of its targets."""
        own = order[0]
        choice = next(choice for choice, target in peers if target is own.target)
        share = own.weight / sum(candidate.weight for candidate in order) if own.weight else 0.0
        self._peers, self._own = peers, own.target
        self._targets = tuple(candidate.target for candidate in order)
        self._load = own.target.load if len(choice.targets) == 1 else None
        self._bound = always_free(share)

    def _is_below_bound(self) -> bool:
        """Whether the session's own target may get one more request."""
        in_flight = weights = own_in_flight = own_weight = 0.0
        for choice, target in self._peers:
            number, weight = choice.in_flight_of(target), choice.weight / len(choice.targets)
            in_flight += number
            weights += weight
            if target is self._own:
                own_in_flight, own_weight = number, weight
        if not weights:
            return False
        return own_in_flight < math.ceil(MAX_LOAD * (1 + in_flight) * own_weight / weights)

    def _is_valid(self, now: float) -> bool:
        """Whether the session is still served at its own target, by what all workers know."""
        shared_pins, until = self._affinity.shared, now + self.ttl_s
        if shared_pins is not None and now < self.until:
            word = shared_pins.read(self._key, now, until)
            if word is not None and word | PROVEN == self._word | PROVEN:
                self.is_proven = self.is_proven or word & PROVEN != 0
                self._trust(now, until)
                return True
        self._look_up([target.label for _, target in self._peers], now)
        return self._own is not None

    def _look_up(self, labels: Sequence[str], now: float) -> None:
        """Where the session is served by what all workers know; that is trusted again.

        Where the shared pin cannot be read, or names a target that is not among `labels` (as while workers
        reload their settings one after the other), the worker's own counts.
        """
        if now >= self.until:
            self._move("")
        shared_pins, until = self._affinity.shared, now + self.ttl_s
        word = None if shared_pins is None else shared_pins.read(self._key, now, until)
        label = None
        if word is not None:
            label = next((label for label in labels if word_of(label) == word & ~PROVEN), None)
        if word is not None and label is not None:
            if label != self.label:
                self._move(label)
            self.is_proven = self.is_proven or word & PROVEN != 0
        elif self.label:
            self._share()
        if self.label:
            self._trust(now, until)

    def _trust(self, now: float, until: float) -> None:
        self.until = until
        trusted_until = now + TRUST_S
        self.trusted_until = trusted_until if trusted_until < until else until

    def _move(self, label: str) -> None:
        """Serve the session at another target."""
        self.label, self.is_proven = label, False
        self._word = word_of(label)
        self._targets, self._own = (), None

    def _share(self) -> None:
        """Make this pin that of all workers."""
        if self._affinity.shared is not None:
            word = self._word | PROVEN if self.is_proven else self._word
            self._affinity.shared.write(self._key, word, self.until)


class Affinity(Generic[P]):
    """The pins of one worker, of which those that were not used lately are forgotten, and those of all
    workers (`shared`).

    `_recent` has the pins that were used since it was made. When it is full it becomes `_older`, whose
    entries come back when they are used: that costs a request nothing, unlike an order by last use. `latest`
    has the pin that was used last under each name, of whichever client and model: nearly always the one that
    is wanted, and found with less work.
    """

    __slots__ = ("_older", "_recent", "latest", "shared")

    def __init__(self, shared: SharedPins | None = None) -> None:
        self._recent: dict[SessionName, Pin[P]] = {}
        self._older: dict[SessionName, Pin[P]] = {}
        self.latest: dict[str, Pin[P]] = {}
        self.shared = shared

    def pin(self, client: Client, model: str, name: str) -> Pin[P]:
        """The pin of a client's session with a model, made if it is new."""
        name = sessions.shortened(name)
        full_name = (client.id, model, name)
        pin = self._recent.get(full_name)
        if pin is None:
            pin = self._older.pop(full_name, None) or Pin(sessions.digest(*full_name), client, self)
            if len(self._recent) >= MAX_PINS // 2:
                self._older, self._recent = self._recent, {}
                self.latest.clear()
            self._recent[full_name] = pin
        pin.client = client
        self.latest[name] = pin
        return pin
