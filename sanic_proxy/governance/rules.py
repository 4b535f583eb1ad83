"""Which rules apply to a request: scopes, and the models and endpoints of a client. Pure.

A request is in up to four scopes: its client, the client's team, the model that it names, and everything
(`[limits]`). Each scope with limits must admit it; the tightest one decides, and its error names the scope.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from typing_extensions import override

from sanic_proxy.config import patterns
from sanic_proxy.config.rules import ClientRules, ScopeLimits, TeamRules
from sanic_proxy.openai.endpoints import ROWS

ScopeKind = Literal["client", "team", "model", "all", "login", "batch input"]


@dataclass(frozen=True, slots=True)
class Scope:
    """What limits and sums belong to. `name` is the client's id, or a team's or model's name.

    `label` is the name of a client, for people.
    """

    kind: ScopeKind
    name: str = ""
    label: str = field(default="", compare=False)

    @override
    def __str__(self) -> str:
        return f"{self.kind} {self.label or self.name}" if self.name else "all clients"


ALL = Scope("all")


@dataclass(frozen=True, slots=True)
class ScopedLimits:
    """The limits of one scope."""

    scope: Scope
    limits: ScopeLimits


class Rulebook:
    """The limits of the settings, by scope; those of a client come with its rules."""

    def __init__(
        self, teams: Iterable[TeamRules], models: Mapping[str, ScopeLimits], everything: ScopeLimits
    ) -> None:
        """`models` are the limits by the names of `[models]` tables, which may be patterns."""
        self._teams = {team.name: team for team in teams}
        self._models = {name: limits for name, limits in models.items() if not limits.is_empty}
        self._patterns = patterns.most_specific_first(name for name in self._models if patterns.STAR in name)
        self._all = () if everything.is_empty else (ScopedLimits(ALL, everything),)

    @property
    def is_empty(self) -> bool:
        """Whether neither a team, nor a model, nor the whole proxy has limits."""
        return not (
            self._models or self._all or any(not team.limits.is_empty for team in self._teams.values())
        )

    @property
    def limits_models(self) -> bool:
        """Whether any model has limits."""
        return bool(self._models)

    @property
    def scopes(self) -> tuple[ScopedLimits, ...]:
        """All scopes with limits but clients."""
        teams = (ScopedLimits(Scope("team", name), team.limits) for name, team in self._teams.items())
        models = (ScopedLimits(Scope("model", name), limits) for name, limits in self._models.items())
        return (*(team for team in teams if not team.limits.is_empty), *models, *self._all)

    def limits_for(self, rules: ClientRules, model: str) -> tuple[ScopedLimits, ...]:
        """The scopes with limits that a request of the client for `model` is in."""
        found: list[ScopedLimits] = []
        if not rules.limits.is_empty:
            found.append(ScopedLimits(Scope("client", rules.id, rules.name), rules.limits))
        team = self._teams.get(rules.team)
        if team is not None and not team.limits.is_empty:
            found.append(ScopedLimits(Scope("team", team.name), team.limits))
        if self._models and (name := self._model_scope(model)) is not None:
            found.append(ScopedLimits(Scope("model", name), self._models[name]))
        return (*found, *self._all)

    def _model_scope(self, model: str) -> str | None:
        if model in self._models:
            return model
        return next((name for name in self._patterns if patterns.match(name, model) is not None), None)

    def may_use(self, rules: ClientRules, model: str) -> bool:
        """Whether the client may name `model`: its own patterns and those of its team allow it."""
        team = self._teams.get(rules.team)
        return _allows(rules.models, model) and (team is None or _allows(team.models, model))

    def may_call(self, rules: ClientRules, endpoint: str) -> bool:
        """The same for an endpoint, as `endpoint_of` names it."""
        team = self._teams.get(rules.team)
        return _allows(rules.endpoints, endpoint) and (team is None or _allows(team.endpoints, endpoint))


def lists_endpoint(rules: ClientRules, endpoint: str) -> bool:
    """Whether the client's own rules name the endpoint, instead of allowing all."""
    return bool(rules.endpoints) and _allows(rules.endpoints, endpoint)


def _allows(allowed: tuple[str, ...], name: str) -> bool:
    return not allowed or any(patterns.match(pattern, name) is not None for pattern in allowed)


# What stands before an endpoint's name: see `routes/methods.py`, Google's versions, and the page.
_BASES = ("/openai/v1/", "/openai/", "/v1beta/", "/v1alpha/", "/v1/", "/ui/")
_DEPLOYMENTS = "/deployments/"
_OF_DEPLOYMENTS = ("/chat/completions", *(row.path for row in ROWS if row.body == "json"))


@lru_cache(maxsize=256)  # of nearly all requests it is one of a few
def endpoint_of(path: str) -> str:
    """The endpoint of a path, without the base URL: `/v1/chat/completions` -> `/chat/completions`.

    The models in the paths of Azure's deployments are removed, those of Gemini's stay
    (`/models/gemini-2.5-pro:generateContent`).
    """
    base = next((base for base in _BASES if path.startswith(base)), "/")
    endpoint = path[len(base) - 1 :]
    if endpoint.startswith(_DEPLOYMENTS):
        return next((name for name in _OF_DEPLOYMENTS if endpoint.endswith(name)), endpoint)
    return endpoint
