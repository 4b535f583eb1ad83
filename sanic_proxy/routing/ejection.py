"""How many of a model's targets open circuits may take out of use. Pure.

A model keeps at least half of its targets, and never loses the last one: when most of them fail, the cause
is likely to be elsewhere, and the few that are left would get the load of all. So the circuits that opened
first, up to half of the targets, refuse requests, and later ones do not. A denial (a rejected key) refuses in
any case, because a request that the provider denies cannot succeed. A model with a single target keeps its
circuit: there is nothing to which requests could be moved, and a quick refusal spares the client a wait.
"""

from __future__ import annotations

from collections.abc import Sequence

from sanic_proxy.routing.breaker import CircuitBreaker

MAX_EJECTED_SHARE = 0.5


def stays_in_use(place: int, circuits: Sequence[tuple[CircuitBreaker, CircuitBreaker]]) -> bool:
    """Whether a request may pass the open circuit of one of a model's targets.

    `circuits` are those of all its targets, each with the circuit of its key; `place` is the target's.
    """
    circuit = circuits[place][0]
    if circuit.is_denied or len(circuits) == 1:
        return False
    rank = circuit.opened_at, place
    ejected = sum(
        health.is_denied or key.is_denied or (health.is_open and (health.opened_at, other) < rank)
        for other, (health, key) in enumerate(circuits)
    )
    return ejected >= int(MAX_EJECTED_SHARE * len(circuits))
