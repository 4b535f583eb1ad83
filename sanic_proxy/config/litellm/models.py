"""Groups of deployments and their fallbacks -> `[models.NAME]` tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sanic_proxy.config import patterns
from sanic_proxy.config.litellm.deployments import Deployment, weights
from sanic_proxy.config.litellm.upstreams import seconds
from sanic_proxy.config.targets import OnlyAfter

ANY = "*"
# Gets the name of a section of fallbacks, and a text.
Note = Callable[[str, str], None]
ByModel = Mapping[str, tuple[str, ...]]
_CAUSES: tuple[tuple[str, OnlyAfter], ...] = (
    ("context_window_fallbacks", "context_length_exceeded"),
    ("content_policy_fallbacks", "content_filter"),
)


@dataclass(frozen=True, slots=True)
class Fallbacks:
    """The names of the models that follow a model. `default` follows every one that has no other."""

    any_failure: ByModel
    context_window: ByModel
    content_policy: ByModel
    default: tuple[str, ...] = ()
    limit: int = 5

    @property
    def longest(self) -> int:
        """The largest number of models that follow one."""
        return max(map(len, (*self.any_failure.values(), self.default)), default=0)

    def after(self, name: str) -> list[str]:
        """The models that follow `name`: its own fallbacks, each with those that it has itself."""
        found: list[str] = []
        self._add(name, found, {name})
        return found[: self.limit]

    def _add(self, name: str, found: list[str], seen: set[str]) -> None:
        following = self.any_failure.get(name) or self.any_failure.get(ANY) or self.default
        for follower in following:
            if follower not in seen:
                seen.add(follower)
                found.append(follower)
                self._add(follower, found, seen)

    def after_cause(self, name: str, cause: OnlyAfter) -> tuple[str, ...]:
        """The models that follow `name` for one cause only."""
        by_model = self.context_window if cause == "context_length_exceeded" else self.content_policy
        return by_model.get(name) or by_model.get(ANY) or ()


@dataclass(frozen=True, slots=True)
class Grouping:
    """How a group's deployments are chosen from, and whether `rpm` and `tpm` are limits."""

    strategy: str
    is_limiting: bool


def model_tables(
    deployments: Sequence[Deployment],
    fallbacks: Fallbacks,
    grouping: Grouping,
    aliases: Mapping[str, tuple[str, bool]],
    *,
    note: Note,
) -> dict[str, dict[str, object]]:
    """The tables of all groups and aliases, in the file's order."""
    groups: dict[str, list[Deployment]] = {}
    for deployment in deployments:
        groups.setdefault(deployment.name, []).append(deployment)
    _note_missing(groups, fallbacks, note)
    tables = {name: _table(name, groups, fallbacks, grouping) for name in groups}
    for alias, (name, is_hidden) in aliases.items():
        if name in tables and alias not in tables:
            tables[alias] = {**tables[name], **({"hidden": True} if is_hidden else {})}
    return tables


def _table(
    name: str, groups: Mapping[str, Sequence[Deployment]], fallbacks: Fallbacks, grouping: Grouping
) -> dict[str, object]:
    targets: list[dict[str, object]] = []
    _add_tier(targets, groups[name], grouping, "")
    for follower in fallbacks.after(name):
        _add_tier(targets, _group(groups, follower), grouping, "")
    for _, cause in _CAUSES:
        for follower in fallbacks.after_cause(name, cause):
            _add_tier(targets, _group(groups, follower), grouping, cause)
    orders = [target["order"] for target in targets]
    table: dict[str, object] = {}
    if len(set(orders)) < len(orders):
        table["strategy"] = grouping.strategy
    first = groups[name][0]
    if first.stream_timeout_s:
        table["first_content"] = seconds(first.stream_timeout_s)
    if first.default_params:
        table["default_params"] = dict(first.default_params)
    if first.remove_params:
        table["remove_params"] = list(first.remove_params)
    table["targets"] = [_short(target, is_weighted=table.get("strategy") == "weighted") for target in targets]
    return table


def _group(groups: Mapping[str, Sequence[Deployment]], name: str) -> Sequence[Deployment]:
    """The deployments of `name`, which may match a name with `*`; empty where there are none."""
    if patterns.STAR not in name and name in groups:
        return groups[name]
    for pattern in patterns.most_specific_first(name for name in groups if patterns.STAR in name):
        if (texts := patterns.match(pattern, name)) is not None:
            return [replace(found, model=patterns.fill(found.model, texts)) for found in groups[pattern]]
    return ()


def _add_tier(
    targets: list[dict[str, Any]], group: Sequence[Deployment], grouping: Grouping, cause: OnlyAfter
) -> None:
    """Add a group behind the targets that are there, its own orders kept."""
    last = max((target["order"] for target in targets), default=0)
    ranks = {order: last + 1 + rank for rank, order in enumerate(sorted({d.order for d in group}))}
    for deployment, weight in zip(group, weights(group), strict=True):
        target: dict[str, object] = {
            "provider": deployment.provider,
            "model": deployment.model,
            "order": ranks[deployment.order],
            "weight": weight,
            "rpm": deployment.rpm if grouping.is_limiting else None,
            "tpm": deployment.tpm if grouping.is_limiting else None,
            "concurrent": deployment.concurrent,
            "context_window": deployment.context_window,
            "max_output": deployment.max_output,
            "prices": dict(deployment.prices) or None,
            "only_after": cause or None,
        }
        targets.append(target)


def _short(target: Mapping[str, Any], *, is_weighted: bool) -> dict[str, object] | str:
    """A target without what goes without saying; as text where that is all."""
    plain = {
        name: value
        for name, value in target.items()
        if value is not None
        and not (name == "order" and value == 1)
        and not (name == "weight" and (not is_weighted or value == 1))
    }
    if "weight" in plain:
        plain["weight"] = int(plain["weight"]) if plain["weight"] == int(plain["weight"]) else plain["weight"]
    return f"{target['provider']}/{target['model']}" if len(plain) == 2 else plain


def _note_missing(groups: Mapping[str, Sequence[Deployment]], fallbacks: Fallbacks, note: Note) -> None:
    listed = (
        ("fallbacks", fallbacks.any_failure),
        ("context_window_fallbacks", fallbacks.context_window),
        ("content_policy_fallbacks", fallbacks.content_policy),
    )
    for section, by_model in listed:
        for name, followers in by_model.items():
            for missing in [each for each in (name, *followers) if each != ANY and not _group(groups, each)]:
                note(section, f"{missing[:60]!r} is no model that can be served")
