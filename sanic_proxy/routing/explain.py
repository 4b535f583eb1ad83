"""Which targets a request for a model would try, and why, without sending anything.

The steps come from the code that real requests run (`RetryState`), with targets that no request has met and
failures that are made up. A target that cannot be asked at the moment is named and left out of them; asking
for an explanation changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sanic_proxy import errors
from sanic_proxy.config.catalog import ROWS
from sanic_proxy.config.model import Settings
from sanic_proxy.json_types import Json
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.routing.breaker import PROVIDER_RETRIES, CircuitBreaker, RateLimit, RetryBudget
from sanic_proxy.routing.causes import CAUSES, DEFAULT_CAUSE
from sanic_proxy.routing.router import Route, Router
from sanic_proxy.routing.selection import ordered, shares
from sanic_proxy.routing.targets import Limits, RetryState, Target

P = TypeVar("P")

# What the draws of a strategy are replaced by: the order that is the likeliest.
_EVEN, _BEST = 0.5, 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """One target that is asked. `outcome` is "ok" or a cause; `then` says what follows."""

    target: str
    outcome: str
    then: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """`table` is the operator's own model that was meant, or ""; `targets` describe themselves, in order.

    `affinity`: which requests have a target of their own, whatever the strategy says.
    """

    model: str
    table: str
    strategy: str
    affinity: str
    targets: tuple[Json, ...]
    steps: tuple[Step, ...]

    def as_json(self) -> Json:
        return {
            "model": self.model,
            "table": self.table or None,
            "strategy": self.strategy,
            "affinity": self.affinity,
            "targets": list(self.targets),
            "steps": [{"target": s.target, "outcome": s.outcome, "then": s.then} for s in self.steps],
        }

    def as_text(self) -> str:
        """For a terminal."""
        place = f"[models.{self.table}], strategy {self.strategy}" if self.table else "no table of its own"
        sessions = "" if self.affinity == "off" else f", affinity {self.affinity}: a session keeps its target"
        lines = [f"{self.model}: {place}{sessions}", "", "targets, in the order in which they are tried:"]
        for number, target in enumerate(self.targets, 1):
            further = ", ".join(_phrase(name, value) for name, value in target.items() if name != "target")
            lines.append(f"  {number}. {target['target']}{f' ({further})' if further else ''}")
        lines += ["", "a request:"]
        lines += [f"  {step.target}: {step.outcome}; {step.then}" for step in self.steps]
        return "\n".join(lines) + "\n"


def _phrase(name: str, value: Any) -> str:
    if name == "share":
        return f"first for {100 * value:.0f} % of requests"
    return str(value) if name == "state" else f"{name.replace('_', ' ')} {value}"


def offline_router(settings: Settings) -> Router[str]:
    """A router over the names of the providers that are on."""
    embedded = {row.name for row in ROWS if row.is_embedded}
    keyed = {
        name: [provider.name] * max(1, len(provider.keys))
        for provider in settings.providers
        for name in (provider.name, *provider.aliases)
    }
    return Router(
        keyed,
        settings.providers_off,
        is_on=settings.router_is_on,
        embedded=frozenset(embedded),
        models=settings.models,
        first_content_s=settings.first_content_s,
    )


def explain(
    router: Router[P], model: str, limits: Limits, fail: Iterable[str] = (), *, now: float = 0.0
) -> Explanation:
    """The explanation for `model`, while the targets in `fail` fail: `TARGET` or `TARGET=CAUSE` each.

    A target is named by its label (`groq/llama`) or by its provider. `now` is the time by which open circuits
    and limits are judged. Raises a ClientError where the model has no target, or `fail` names none of them.
    """
    route = router.route(model)
    draw = _EVEN if route.strategy == "weighted" else _BEST
    targets = ordered(route.choices, route.strategy, lambda: draw, now)
    failing = _failing(targets, fail)
    states = [_state(target, now) for target in targets]
    usable = [target for target, state in zip(targets, states, strict=True) if state is None]
    described = _described(route, targets, states, now)
    return Explanation(
        model,
        route.name,
        route.strategy,
        route.affinity,
        tuple(described),
        tuple(_steps(usable, limits, failing)),
    )


def _failing(targets: Sequence[Target[P]], fail: Iterable[str]) -> dict[str, str]:
    """The causes by label."""
    failing: dict[str, str] = {}
    labels = [target.label for target in targets]
    for entry in fail:
        start, _, end = entry.rpartition("=")
        name, cause = (start, end) if end in CAUSES else (entry, DEFAULT_CAUSE)
        found = [label for label in labels if name in {label, label.partition("/")[0].partition("#")[0]}]
        if not found:
            raise errors.InvalidRequest(
                f"No target of the model is called {name[:80]!r}. Its targets: {', '.join(labels)}. "
                f"A cause follows a `=`: {', '.join(CAUSES)}",
                param="fail",
            )
        failing |= dict.fromkeys(found, cause)
    return failing


def _described(
    route: Route[P], targets: Sequence[Target[P]], states: Sequence[str | None], now: float
) -> list[Json]:
    by_target = {
        id(target): (choice, share)
        for choice, share in zip(route.choices, shares(route.choices, route.strategy), strict=True)
        for target in choice.targets
    }
    described = []
    for target, state in zip(targets, states, strict=True):
        choice, share = by_target[id(target)]
        in_flight = None if target.load is None else choice.in_flight_of(target)
        statistics = target.statistics if route.strategy == "least_latency" else None
        further = {
            "order": choice.order,
            "weight": choice.weight if route.strategy == "weighted" else None,
            "share": share if route.strategy == "weighted" and choice.targets[0] is target else None,
            "in_flight": in_flight,
            "waiting": None if target.queue is None else target.queue.waiting,
            "first_content_ms": None if statistics is None else statistics.expected_ms(now),
            "context_window": target.context_window,
            "only_after": target.only_after or None,
            "state": state,
        }
        described.append(
            {"target": target.label, **{name: value for name, value in further.items() if value is not None}}
        )
    return described


def _state(target: Target[P], now: float) -> str | None:
    """Why the target is not asked at the moment; None if it is."""
    if target.is_off:
        return "switched off"
    if target.load is not None and (refusal := target.load.refusal(now, target.label)) is not None:
        return refusal.message
    if now < target.rate_limit.until:
        return f"rate limited for {target.rate_limit.until - now:.0f} s"
    for circuit, name in ((target.key_health, "the key's circuit"), (target.health, "circuit")):
        if circuit.until is not None:
            return f"{name} open, next attempt in {max(0.0, circuit.until - now):.0f} s"
    return None


def _steps(targets: Sequence[Target[P]], limits: Limits, failing: Mapping[str, str]) -> list[Step]:
    untouched = [
        replace(
            target,
            health=CircuitBreaker(target.label, is_enabled=False),
            key_health=CircuitBreaker(target.label, is_enabled=False),
            rate_limit=RateLimit(is_enabled=False),
            budget=RetryBudget(PROVIDER_RETRIES),
            load=None,
            switches=None,
            statistics=None,
        )
        for target in targets
    ]
    state = RetryState(untouched, limits, RequestRecord("", "", ""), clock=lambda: 0.0)
    asked: list[tuple[str, str, bool]] = []
    try:
        goes_on = True
        while goes_on:
            label = state.next().label
            cause = failing.get(label)
            goes_on = cause is not None and state.record_failure(CAUSES[cause]) is not None
            asked.append((label, cause or "ok", goes_on))
    except errors.ProxyError:
        if not asked:
            return [Step("-", "refused", "no target is available at the moment")]
    return [_step(asked, place) for place in range(len(asked))]


def _step(asked: Sequence[tuple[str, str, bool]], place: int) -> Step:
    label, outcome, goes_on = asked[place]
    if outcome == "ok":
        then = "the answer goes to the client"
    elif not goes_on or place + 1 == len(asked):
        then = "the error goes to the client"
    elif asked[place + 1][0] == label:
        then = "retried on the same target"
    else:
        then = f"moved to {asked[place + 1][0]}"
    return Step(label, outcome, then)
