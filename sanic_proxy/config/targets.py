"""The targets of a `[models.NAME]` table: what each of its keys accepts, and the objects made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from typing_extensions import override

from sanic_proxy.config.prices import Prices, PriceTable
from sanic_proxy.config.saving import Continuation, ContinuationKind
from sanic_proxy.config.tables import Number, entries, entries_schema
from sanic_proxy.config.variables import Choice, Integer, Kind, Schema, Text

Strategy = Literal["order", "weighted", "least_in_flight", "least_latency", "prefix"]
# Which requests are kept on one target: those whose client names their session; those with the same beginning
# of the conversation as well; none.
Affinity = Literal["auto", "prompt", "off"]
# Failures after which a target that is kept for them alone is tried; by the code that clients see.
OnlyAfter = Literal["", "context_length_exceeded", "content_filter"]

STRATEGIES: tuple[Strategy, ...] = ("order", "weighted", "least_in_flight", "least_latency", "prefix")
AFFINITIES: tuple[Affinity, ...] = ("auto", "prompt", "off")
MAX_COUNT = 10**12


@dataclass(frozen=True, slots=True)
class TargetSettings:
    """One provider's model that a name stands for.

    `order`: targets with a lower number are tried first; the model's strategy decides among equal ones.
    `weight` is relative to the weights of the others. `rpm` and `tpm` are requests and tokens per minute,
    `concurrent` is requests in flight, each for the whole proxy; None: no limit. `context_window` is in
    tokens. `only_after` keeps the target for requests that another target has refused with that code.
    `continues`: it can continue an answer that broke off; None: as its provider. `max_output` is the most
    tokens that the model can write; None: as the price table says. `max_image_tokens` is the most that an
    image counts as; None: as the provider's vendor documents.
    """

    provider: str
    model: str
    order: int = 1
    weight: float = 1.0
    rpm: int | None = None
    tpm: int | None = None
    concurrent: int | None = None
    context_window: int | None = None
    prices: Prices | None = None
    only_after: OnlyAfter = ""
    continues: Continuation | bool | None = None
    max_output: int | None = None
    max_image_tokens: int | None = None

    @property
    def label(self) -> str:
        """As it is written in a list of targets."""
        return f"{self.provider}/{self.model}"


Targets = tuple[TargetSettings, ...]


@dataclass(frozen=True)
class Weights(Kind[tuple[float, ...]]):
    """Numbers that are not negative, one of them above 0."""

    @property
    @override
    def expects(self) -> str:
        return "a list of numbers from 0 to 1e+06, not all of them 0"

    @override
    def parse(self, text: str) -> tuple[float, ...]:
        raise ValueError

    @override
    def from_toml(self, value: object) -> tuple[float, ...]:
        if not isinstance(value, list):
            raise ValueError  # noqa: TRY004 - a wrong value is a ValueError, whatever its type
        weights = tuple(Number(0, 1e6).from_toml(entry) for entry in value)
        if not any(weights):
            raise ValueError
        return weights

    @override
    def schema(self) -> Schema:
        return {"type": "array", "minItems": 1, "items": Number(0, 1e6).schema()}


TARGET_KEYS: Mapping[str, Kind[Any]] = {
    "provider": Text("the name of a provider"),
    "model": Text("the provider's name for the model"),
    "order": Integer(1, 1000),
    "weight": Number(0, 1e6),
    "rpm": Integer(1, MAX_COUNT),
    "tpm": Integer(1, MAX_COUNT),
    "concurrent": Integer(1, MAX_COUNT),
    "context_window": Integer(1, MAX_COUNT),
    "max_output": Integer(1, MAX_COUNT),
    "max_image_tokens": Integer(1, MAX_COUNT),
    "prices": PriceTable(),
    "only_after": Choice(("context_length_exceeded", "content_filter")),
    "continues": ContinuationKind(),
}
_REQUIRED = ("provider", "model")


@dataclass(frozen=True)
class TargetList(Kind[Targets]):
    """Targets in order: "provider/model", or tables with both."""

    @property
    @override
    def expects(self) -> str:
        return 'a list of "provider/model" or of tables with the keys provider and model'

    @override
    def parse(self, text: str) -> Targets:
        raise ValueError

    @override
    def from_toml(self, value: object) -> Targets:
        if not isinstance(value, list) or not value:
            raise ValueError
        return tuple(_target(entry) for entry in value)

    @override
    def schema(self) -> Schema:
        text = {"type": "string", "pattern": "^[^/]+/.+$"}
        table = {**entries_schema(TARGET_KEYS), "required": list(_REQUIRED)}
        return {"type": "array", "minItems": 1, "items": {"anyOf": [text, table]}}


def _target(entry: object) -> TargetSettings:
    if isinstance(entry, str):
        provider, _, model = entry.partition("/")
        values: dict[str, Any] = {"provider": provider, "model": model}
    elif isinstance(entry, dict) and all(name in entry for name in _REQUIRED):
        values = entries(entry, TARGET_KEYS, "a target")
    else:
        raise ValueError
    if not (values["provider"] and values["model"]):
        raise ValueError
    return TargetSettings(**{**values, "provider": values["provider"].lower()})


# What can be said of a model instead of each of its targets.
SHARED_KEYS = ("context_window", "max_output", "max_image_tokens", "prices")


def with_defaults(targets: Targets, model: Mapping[str, Any]) -> Targets:
    """`targets`, with what a model's table says (SHARED_KEYS) where a target says nothing of its own."""
    shared = {name: model[name] for name in SHARED_KEYS if name in model}
    return tuple(
        replace(target, **{name: getattr(target, name) or value for name, value in shared.items()})
        for target in targets
    )
