"""The keys of a table that limits a scope (`[limits]`, a client, a team, a model), and what they accept."""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from typing_extensions import override

from sanic_proxy.config.rules import DEFAULT_SOFT, NANO, PERIODS, Budget, ScopeLimits
from sanic_proxy.config.tables import Key, Table, entries, entries_schema
from sanic_proxy.config.targets import MAX_COUNT
from sanic_proxy.config.variables import Choice, Flag, Integer, Kind, Schema

MAX_USD = 10**9


@dataclass(frozen=True)
class Money(Kind[int]):
    """US dollars -> integer nano-dollars. `zero`: 0 is accepted."""

    zero: bool = True

    @property
    @override
    def expects(self) -> str:
        least = "from 0" if self.zero else "above 0 and"
        return f"US dollars {least} up to {MAX_USD}, with at most 9 decimal places"

    @override
    def parse(self, text: str) -> int:
        try:
            nano = Decimal(text) * NANO
            is_good = 0 <= nano <= MAX_USD * NANO and nano == nano.to_integral_value()
        except InvalidOperation:  # no number, or NaN
            raise ValueError from None
        if not is_good:
            raise ValueError
        if not nano and not self.zero:
            raise ValueError
        return int(nano)

    @override
    def from_toml(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError  # noqa: TRY004 - a wrong value is a ValueError, also if its type is wrong
        return self.parse(repr(value))  # the decimal that was written, not the nearest binary fraction

    @override
    def schema(self) -> Schema:
        lowest = "minimum" if self.zero else "exclusiveMinimum"
        return {"type": "number", lowest: 0, "maximum": MAX_USD}


@dataclass(frozen=True)
class TimeZone(Kind[str]):
    """The name of a time zone."""

    @property
    @override
    def expects(self) -> str:
        return "the name of a time zone, such as UTC or Europe/Berlin"

    @override
    def parse(self, text: str) -> str:
        if text != "UTC":  # known without a database of time zones
            try:
                zoneinfo.ZoneInfo(text)
            except (zoneinfo.ZoneInfoNotFoundError, OSError, ValueError):
                raise ValueError from None  # without zoneinfo's own text
        return text

    @override
    def schema(self) -> Schema:
        return {"type": "string", "minLength": 1}


_BUDGET: Mapping[str, Kind[Any]] = {
    "usd": Money(),
    "per": Choice(PERIODS),
    "time_zone": TimeZone(),
    "strict": Flag(),
}


@dataclass(frozen=True)
class Budgets(Kind[tuple[Budget, ...]]):
    """`{ usd = 20, per = "month" }`, or a list of such tables."""

    @property
    @override
    def expects(self) -> str:
        return f'a table such as {{ usd = 20, per = "month" }} with {", ".join(_BUDGET)}, or a list of them'

    @override
    def parse(self, text: str) -> tuple[Budget, ...]:
        raise ValueError

    @override
    def from_toml(self, value: object) -> tuple[Budget, ...]:
        budgets = tuple(map(_budget, value if isinstance(value, list) else [value]))
        if len({(budget.per, budget.time_zone) for budget in budgets}) < len(budgets):
            raise ValueError("two budgets have the same period")
        return budgets

    @override
    def schema(self) -> Schema:
        one = {**entries_schema(_BUDGET), "required": ["usd"]}
        return {"anyOf": [one, {"type": "array", "items": one}]}


def _budget(entry: object) -> Budget:
    values = entries(entry, _BUDGET, "a budget")
    if "usd" not in values:
        raise ValueError
    return Budget(
        values["usd"], values.get("per", "total"), values.get("time_zone", "UTC"), values.get("strict", False)
    )


@dataclass(frozen=True)
class Percentages(Kind[tuple[int, ...]]):
    """Percentages in ascending order, each once."""

    @property
    @override
    def expects(self) -> str:
        return "a list of whole percentages from 1 to 100"

    @override
    def parse(self, text: str) -> tuple[int, ...]:
        raise ValueError

    @override
    def from_toml(self, value: object) -> tuple[int, ...]:
        if not isinstance(value, list):
            raise ValueError  # noqa: TRY004 - a wrong value is a ValueError, also if its type is wrong
        return tuple(sorted({_PERCENT.from_toml(entry) for entry in value}))

    @override
    def schema(self) -> Schema:
        return {"type": "array", "items": _PERCENT.schema()}


_PERCENT = Integer(1, 100)
_COUNT = Integer(1, MAX_COUNT)

BUDGET_KEYS: Table = {
    "budget": Key(
        Budgets(),
        'the most that may be spent: `{ usd = 20, per = "month" }` with `per` = `day`, `week`, `month` or '
        "`total` (default), `time_zone` (`UTC`), `strict` (`true`: requests reserve the most that they can "
        "cost, so the limit is never exceeded); or a list of them",
    ),
    "soft": Key(
        Percentages(),
        f"percentages of each budget that are announced when they are used (default {list(DEFAULT_SOFT)})",
    ),
}
LIMIT_KEYS: Table = {
    "rpm": Key(_COUNT, "requests per minute"),
    "tpm": Key(_COUNT, "tokens per minute"),
    "concurrent": Key(_COUNT, "requests in flight"),
    "burst": Key(_COUNT, "requests that may come at once, within `rpm` (default: `rpm`)"),
    **BUDGET_KEYS,
}


def scope_limits(values: Mapping[str, Any]) -> ScopeLimits:
    """The limits in the good values of a table."""
    return ScopeLimits(
        rpm=values.get("rpm"),
        tpm=values.get("tpm"),
        concurrent=values.get("concurrent"),
        burst=values.get("burst"),
        budgets=values.get("budget", ()),
        soft=values.get("soft", DEFAULT_SOFT),
    )
