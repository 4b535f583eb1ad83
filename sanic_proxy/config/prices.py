"""What a model costs, as settings and the price table of `governance` state it, and what its keys accept.

```toml
prices = { input = 3, output = 15, cached_input = 0.3, cache_write = 3.75, cache_write_1h = 6,
           web_search = 0.01, batch = { input = 1.5, output = 7.5 },
           tiers = [{ above = 200000, input = 6, output = 22.5 }] }
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from typing_extensions import override

from sanic_proxy.config.tables import Number, entries, entries_schema
from sanic_proxy.config.variables import Integer, Kind, Schema

MAX_TOKENS = 10**12


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """US dollars per million tokens; None: as the text of its direction, scaled like that.

    `cached_input` is read from a cache, `cache_write` written to one for five minutes and `cache_write_1h`
    for an hour.
    """

    input: float | None = None
    output: float | None = None
    cached_input: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None
    audio_input: float | None = None
    image_input: float | None = None
    reasoning: float | None = None
    audio_output: float | None = None
    image_output: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier(Rates):
    """Rates of a whole request whose input has more than `above` tokens."""

    above: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePrices(Rates):
    """Rates of the answers of one service tier."""

    tiers: tuple[Tier, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices(Rates):
    """The rates of a model, and US dollars for each of what is billed by piece; None: not known.

    `request` is added to every request. `grounding` is a web search of the whole answer, whatever the number
    of queries. `image`, `second` (of sound that is read) and `character` (of a text that is spoken) count
    where no tokens are reported. `search_unit` is a search in up to 100 documents by a reranker. `images` are
    prices of an image by size (`1024x1024`), or by quality and size (`hd/1024x1024`). `services` are the
    rates by service tier; `regions` factors by the region that an answer reports.
    """

    tiers: tuple[Tier, ...] = ()
    services: Mapping[str, ServicePrices] = field(default_factory=dict)
    regions: Mapping[str, float] = field(default_factory=dict)
    request: float | None = None
    web_search: float | None = None
    grounding: float | None = None
    file_search: float | None = None
    code_session: float | None = None
    image: float | None = None
    second: float | None = None
    character: float | None = None
    search_unit: float | None = None
    images: Mapping[str, float] = field(default_factory=dict)


SERVICES = ("flex", "priority", "batch", "fast")
RATE_KEYS: Mapping[str, Kind[float]] = {rate.name: Number(0, 1e6) for rate in fields(Rates)}
PIECE_KEYS: Mapping[str, Kind[float]] = {
    name: Number(0, 1e6)
    for name in (
        *("request", "web_search", "grounding", "file_search", "code_session"),
        *("image", "second", "character", "search_unit"),
    )
}


class _Table(Kind[Any]):
    """A kind that is no text."""

    @override
    def parse(self, text: str) -> Any:
        raise ValueError


class TierList(_Table):
    """`[{ above = 200000, input = 6 }]`."""

    _KEYS: Mapping[str, Kind[Any]] = {"above": Integer(1, MAX_TOKENS), **RATE_KEYS}

    @property
    @override
    def expects(self) -> str:
        return "a list of tables with `above` (tokens of the input) and prices"

    @override
    def from_toml(self, value: object) -> tuple[Tier, ...]:
        if not isinstance(value, list) or not all(
            isinstance(tier, dict) and "above" in tier for tier in value
        ):
            raise ValueError
        tiers = [Tier(**entries(tier, self._KEYS, "a tier of prices")) for tier in value]
        return tuple(sorted(tiers, key=lambda tier: tier.above))

    @override
    def schema(self) -> Schema:
        table = {
            "type": "object",
            "propertyNames": {"enum": list(self._KEYS)},
            "additionalProperties": {"type": "number", "minimum": 0},
            "required": ["above"],
        }
        return {"type": "array", "items": table}


class ServiceTable(_Table):
    """`{ input = 1.25, output = 5 }`, the prices of one service tier."""

    _KEYS: Mapping[str, Kind[Any]] = {**RATE_KEYS, "tiers": TierList()}

    @property
    @override
    def expects(self) -> str:
        return f"a table of US dollars per million tokens with the keys {', '.join(self._KEYS)}"

    @override
    def from_toml(self, value: object) -> ServicePrices:
        return ServicePrices(**entries(value, self._KEYS, "a table of prices"))

    @override
    def schema(self) -> Schema:
        return {
            "type": "object",
            "propertyNames": {"enum": list(self._KEYS)},
            "additionalProperties": {"type": ["number", "array"]},
        }


@dataclass(frozen=True)
class Named(_Table):
    """Numbers by names of the operator's choice: `{ us = 1.1 }`."""

    what: str
    number: Number

    @property
    @override
    def expects(self) -> str:
        return f"a table of {self.what}"

    @override
    def from_toml(self, value: object) -> Mapping[str, float]:
        if not isinstance(value, dict):
            raise ValueError  # noqa: TRY004 - a wrong value is a ValueError, whatever its type
        return {name.lower(): self.number.from_toml(each) for name, each in value.items()}

    @override
    def schema(self) -> Schema:
        return {"type": "object", "additionalProperties": self.number.schema()}


PRICE_KEYS: Mapping[str, Kind[Any]] = {
    **RATE_KEYS,
    **PIECE_KEYS,
    "tiers": TierList(),
    **dict.fromkeys(SERVICES, ServiceTable()),
    "regions": Named("factors", Number(0, 100)),
    "images": Named("US dollars by size, such as 1024x1024 or hd/1024x1024", Number(0, 1e6)),
}


class PriceTable(_Table):
    """The table `prices` of a model or target; see the module."""

    @property
    @override
    def expects(self) -> str:
        return f"a table of US dollars per million tokens with the keys {', '.join(PRICE_KEYS)}"

    @override
    def from_toml(self, value: object) -> Prices:
        found = entries(value, PRICE_KEYS, "a table of prices")
        services = {name: found.pop(name) for name in SERVICES if name in found}
        return Prices(services=services, regions=found.pop("regions", {}), **found)

    @override
    def schema(self) -> Schema:
        return entries_schema(PRICE_KEYS)
