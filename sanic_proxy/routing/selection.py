"""Which of a model's targets is tried first. Pure: chance, time and loads are handed in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sanic_proxy.config.targets import Strategy
from sanic_proxy.routing.affinity import Candidate, bounded
from sanic_proxy.routing.targets import Target

P = TypeVar("P")
# A number from 0 up to, and without, 1.
Random = Callable[[], float]
# An engine with more than this multiple of its share of the load, and so many requests besides, is passed
# over for one that knows less of the prompt.
MAX_PREFIX_LOAD = 1.5
PREFIX_SLACK = 4


@dataclass(frozen=True, slots=True)
class Choice(Generic[P]):
    """One target as configured: a target for each of its provider's keys."""

    targets: tuple[Target[P], ...]
    order: int = 1
    weight: float = 1.0

    @property
    def in_flight(self) -> int:
        """Requests in flight with any of the keys."""
        load = self.targets[0].load
        return 0 if load is None else load.in_flight

    @property
    def waiting(self) -> int:
        """Requests that wait in the provider's engine, whoever sent them."""
        queue = self.targets[0].queue
        return 0 if queue is None else queue.waiting

    def load_of(self, target: Target[P]) -> int:
        """What is in flight with the key of `target`, and what waits in the engine."""
        return self.in_flight_of(target) + self.waiting

    @property
    def has_key_weights(self) -> bool:
        """Whether the keys are drawn by weights."""
        return any(target.key_weight != 1.0 for target in self.targets)

    def in_flight_of(self, target: Target[P]) -> int:
        """Those with the key of `target`, one of `targets`."""
        if len(self.targets) == 1:
            return self.in_flight
        return 0 if target.statistics is None else target.statistics.in_flight


def ordered(
    choices: Sequence[Choice[P]], strategy: Strategy, random: Random, now: float = 0.0
) -> list[Target[P]]:
    """The targets of one request in the order in which they are tried.

    `weighted`: the first one is drawn by weight, the next from the rest, and so on; a weight of 0 comes last.
    `least_in_flight`: by requests in flight, and waiting in an engine, per weight, at random among equals;
    also `prefix`, where nothing is known of the prompt.
    `least_latency`: the first is the better one of two that are drawn at random, the rest follow by cost: the
    latency to be expected, times this request and those of the worker that wait for their first content, per
    weight. The draw keeps workers that
    know the same from sending all their requests to the same target (Mitzenmacher, "The power of two choices
    in randomized load balancing", 2001). Targets with an open circuit or a rate limit come last.

    In all of them a lower `order` comes first. The keys of a provider stay together; they are tried as
    configured with `order` (by draws, if they have weights), else sorted in the same way among themselves.
    """
    if strategy == "order":
        by_order = sorted(choices, key=lambda choice: choice.order)
        return [target for choice in by_order for target in _sorted_keys(choice, strategy, random, now)]
    if strategy == "weighted":
        keys = [(choice.order, _draw(choice.weight, random), 0.0) for choice in choices]
    elif strategy in {"least_in_flight", "prefix"}:
        keys = [(choice.order, _load(choice), random()) for choice in choices]
    else:
        keys = [(choice.order, _cost(choice, now), random()) for choice in choices]
    places = sorted(range(len(choices)), key=keys.__getitem__)
    if strategy == "least_latency":
        _draw_two(places, sum(key[0] == keys[places[0]][0] and key[1] < math.inf for key in keys), random)
    return [target for place in places for target in _sorted_keys(choices[place], strategy, random, now)]


def by_prefix(
    candidates: Sequence[Candidate[P]], matched: Mapping[str, int], random: Random
) -> list[Candidate[P]]:
    """The candidates by how much of the prompt they know; `matched` has the number of blocks by label.

    The one that knows most is first, unless its queue is beyond a bound: following the caches alone sends
    ever more to the engine that has most of them. Among equals, as for a new prompt, the load decides.
    """
    drawn = {id(candidate): random() for candidate in candidates}

    def load(candidate: Candidate[P]) -> tuple[float, float]:
        weight = candidate.weight
        return candidate.in_flight / weight if weight else math.inf, drawn[id(candidate)]

    known = sorted(
        candidates, key=lambda candidate: (-matched.get(candidate.target.label, 0), load(candidate))
    )
    free, full = bounded(known, MAX_PREFIX_LOAD, PREFIX_SLACK)
    return [*free, *sorted(full, key=load)]


def _draw(weight: float, random: Random) -> float:
    """A sample of the exponential distribution with the rate `weight`.

    Sorting by such samples draws without replacement, each time in proportion to the weights
    (Efraimidis and Spirakis, 2006).
    """
    return -math.log(1.0 - random()) / weight if weight else math.inf


def _load(choice: Choice[P]) -> float:
    return (choice.in_flight + choice.waiting) / choice.weight if choice.weight else math.inf


def _cost(choice: Choice[P], now: float) -> float:
    if not choice.weight:
        return math.inf
    return min(_key_cost(choice, target, now) for target in choice.targets) / choice.weight


def _key_cost(choice: Choice[P], target: Target[P], now: float) -> float:
    if target.statistics is None or not target.key_weight or not target.is_usable(now):
        return math.inf
    pending = target.statistics.pending + choice.waiting
    cost = target.statistics.slowness.cost(now, pending, is_idle=not choice.load_of(target))
    return cost / target.key_weight


def _draw_two(places: list[int], count: int, random: Random) -> None:
    """Move the better one of two of the first `count` places to the front."""
    if count > 2:
        first = int(random() * count)
        second = int(random() * (count - 1))
        second += second >= first
        places.insert(0, places.pop(min(first, second)))


def _sorted_keys(choice: Choice[P], strategy: Strategy, random: Random, now: float) -> Sequence[Target[P]]:
    if len(choice.targets) == 1:
        return choice.targets
    if strategy == "order" and not choice.has_key_weights:
        return choice.targets
    if strategy in {"order", "weighted"}:
        return sorted(choice.targets, key=lambda target: _draw(target.key_weight, random))
    if strategy in {"least_in_flight", "prefix"}:
        return sorted(choice.targets, key=lambda target: (_key_load(choice, target), random()))
    return sorted(choice.targets, key=lambda target: (_key_cost(choice, target, now), random()))


def _key_load(choice: Choice[P], target: Target[P]) -> float:
    return choice.in_flight_of(target) / target.key_weight if target.key_weight else math.inf


def shares(choices: Sequence[Choice[P]], strategy: Strategy) -> list[float | None]:
    """The share of requests that each choice gets first; None where it depends on the load."""
    first = min((choice.order for choice in choices), default=0)
    among = [choice for choice in choices if choice.order == first]
    total = sum(choice.weight for choice in among)
    shown: list[float | None] = []
    for choice in choices:
        if choice.order != first:
            shown.append(0.0)
        elif strategy == "weighted" and total:
            shown.append(choice.weight / total)
        elif strategy in {"weighted", "order"}:
            shown.append(1.0 if choice is among[0] else 0.0)
        else:
            shown.append(None)
    return shown
