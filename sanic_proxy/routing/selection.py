"""Which of a model's targets is tried first. Pure: chance and loads are handed in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sanic_proxy.config.targets import Strategy
from sanic_proxy.routing.targets import Target

P = TypeVar("P")
# A number from 0 up to, and without, 1.
Random = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Choice(Generic[P]):
    """One target as configured: a target for each of its provider's keys, tried in this order."""

    targets: tuple[Target[P], ...]
    order: int = 1
    weight: float = 1.0

    @property
    def in_flight(self) -> int:
        load = self.targets[0].load
        return 0 if load is None else load.in_flight


def ordered(choices: Sequence[Choice[P]], strategy: Strategy, random: Random) -> list[Target[P]]:
    """The targets of one request in the order in which they are tried.

    `weighted`: the first one is drawn by weight, the next from the rest, and so on; a weight of 0 comes last.
    `least_in_flight`: by requests in flight per weight, at random among equals.
    """
    if strategy == "weighted":
        keys = [(choice.order, _draw(choice.weight, random), 0.0) for choice in choices]
    elif strategy == "least_in_flight":
        keys = [(choice.order, _load(choice), random()) for choice in choices]
    else:
        keys = [(choice.order, 0.0, 0.0) for choice in choices]
    places = sorted(range(len(choices)), key=keys.__getitem__)
    return [target for place in places for target in choices[place].targets]


def _draw(weight: float, random: Random) -> float:
    """A sample of the exponential distribution with the rate `weight`.

    Sorting by such samples draws without replacement, each time in proportion to the weights
    (Efraimidis and Spirakis, 2006).
    """
    return -math.log(1.0 - random()) / weight if weight else math.inf


def _load(choice: Choice[P]) -> float:
    return choice.in_flight / choice.weight if choice.weight else math.inf


def shares(choices: Sequence[Choice[P]], strategy: Strategy) -> list[float | None]:
    """The share of requests that each choice gets first; None where it depends on the load."""
    first = min((choice.order for choice in choices), default=0)
    among = [choice for choice in choices if choice.order == first]
    total = sum(choice.weight for choice in among)
    shown: list[float | None] = []
    for choice in choices:
        if choice.order != first:
            shown.append(0.0)
        elif strategy == "least_in_flight":
            shown.append(None)
        elif strategy == "weighted" and total:
            shown.append(choice.weight / total)
        else:
            shown.append(1.0 if choice is among[0] else 0.0)
    return shown
