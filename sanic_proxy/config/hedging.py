"""The key `hedge` of a model: when its slow requests get a second attempt, and for how many of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from sanic_proxy.config.tables import Number, entries, entries_schema
from sanic_proxy.config.variables import Duration, Kind, Schema

DEFAULT_BUDGET = 0.03
DEFAULT_PERCENTILE = 95
_PERCENTILE = re.compile(r"p([1-9][0-9])")


@dataclass(frozen=True, slots=True)
class Delay:
    """How long the first attempt may be silent: `seconds`, or if that is 0 the `percentile` (10 to 99) of
    the model's recent times to the first content.
    """

    seconds: float = 0.0
    percentile: int = DEFAULT_PERCENTILE


@dataclass(frozen=True, slots=True)
class HedgeSettings:
    """A second attempt begins `after` the first one; for the share `budget` of the requests, at most."""

    after: Delay = Delay()
    budget: float = DEFAULT_BUDGET


@dataclass(frozen=True)
class DelayKind(Kind[Delay]):
    """`"p95"`, or a duration."""

    @property
    @override
    def expects(self) -> str:
        return f'a percentile from "p10" to "p99", or {Duration().expects}'

    @override
    def parse(self, text: str) -> Delay:
        if (found := _PERCENTILE.fullmatch(text.strip().lower())) is not None:
            return Delay(percentile=int(found[1]))
        return Delay(seconds=Duration().parse(text))

    @override
    def schema(self) -> Schema:
        return {"type": ["number", "string"], "exclusiveMinimum": 0}


HEDGE_KEYS: Mapping[str, Kind[Any]] = {"after": DelayKind(), "budget": Number(0, 1)}


@dataclass(frozen=True)
class HedgeTable(Kind[HedgeSettings | None]):
    """`{ after = "p95", budget = 0.03 }`; `true` has these values, and `false` is None."""

    @property
    @override
    def expects(self) -> str:
        return f"true, false or a table with the keys {', '.join(HEDGE_KEYS)}"

    @override
    def parse(self, text: str) -> HedgeSettings | None:
        raise ValueError

    @override
    def from_toml(self, value: object) -> HedgeSettings | None:
        if isinstance(value, bool):
            return HedgeSettings() if value else None
        return HedgeSettings(**entries(value, HEDGE_KEYS, "hedge"))

    @override
    def schema(self) -> Schema:
        return {"anyOf": [{"type": "boolean"}, entries_schema(HEDGE_KEYS)]}
