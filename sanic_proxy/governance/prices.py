"""Which prices hold for a provider's model: exact ones, in integers. Reads a file once, else pure.

All prices are nano-dollars for a million units: a rate of 2.5 dollars per million tokens is 2.5e9, a web
search of 0.01 dollars 1e13.

A model's prices come from the first of these that has any: the settings (`prices` of a target or model), the
provider's row ("its models cost nothing"), and the table that was made when this package was built
(`scripts/prices`).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path

from sanic_proxy.config.model import ProviderSettings
from sanic_proxy.config.prices import PIECE_KEYS, Rates, Tier
from sanic_proxy.config.prices import Prices as Declared
from sanic_proxy.config.prices import PriceTable as PriceTableKind
from sanic_proxy.json_types import Json
from sanic_proxy.openai import codec

NANO = 10**9
MILLION = 10**6
PRICE_FILE = Path(__file__).with_name("prices.json")
_MAX_KNOWN = 4096

# What LiteLLM's table says of models with `supports_NAME`. Rows of ours have a bit for each, in this order.
FEATURES = (
    *("function_calling", "parallel_function_calling", "tool_choice", "response_schema", "system_messages"),
    *("vision", "pdf_input", "audio_input", "audio_output", "video_input", "reasoning", "prompt_caching"),
    *("web_search", "url_context", "computer_use", "assistant_prefill", "native_streaming"),
)
RATES = tuple(rate.name for rate in fields(Rates))
_OUTPUTS = frozenset({"output", "reasoning", "audio_output", "image_output"})
# Where a rate has no price: the one that it is a part of.
_PARENTS: Mapping[str, str] = {
    "cached_input": "input",
    "cache_write": "input",
    "cache_write_1h": "cache_write",
    "audio_input": "input",
    "image_input": "input",
    "reasoning": "output",
    "audio_output": "output",
    "image_output": "output",
}


@dataclass(frozen=True, slots=True)
class Band:
    """The rates of requests with more than `above` tokens of input that were served with tier `service`."""

    service: str
    above: int
    rates: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Prices:
    """All prices of one model, in nano-dollars per million units.

    `bands` are ordered such that the first that fits counts. `pieces` are prices of what is counted by
    piece, by the names of `config.prices.PIECE_KEYS`; `images` those of an image by size or by quality and
    size. `regions` are factors in thousandths. `unit` is the price of the provider's own unit of cost, in
    nano-dollars: its reports count where it is set. `max_output` and `max_input` are the model's limits in
    tokens, None: not known. `mode` is what the model is for ("chat", "embedding"), and `supports` what it can
    (names of FEATURES), as far as the table says it. `source` says where the prices come from.
    """

    bands: tuple[Band, ...] = ()
    pieces: Mapping[str, int] = field(default_factory=dict)
    regions: Mapping[str, int] = field(default_factory=dict)
    unit: int | None = None
    max_output: int | None = None
    max_input: int | None = None
    source: str = "settings"
    images: Mapping[str, int] = field(default_factory=dict)
    mode: str = ""
    supports: tuple[str, ...] = ()

    def band(self, input_tokens: int, service: str = "") -> Band:
        """The rates of a request; those of the standard tier where `service` has none."""
        standard = _NO_BAND
        for band in self.bands:
            if input_tokens > band.above or not band.above:
                if band.service == service:
                    return band
                if not band.service and standard is _NO_BAND:
                    standard = band
        return standard

    def image(self, quality: str, size: str) -> int | None:
        """The price of an image: of its size, else of any, else the dearest; None: images have no price."""
        for name in (f"{quality or 'standard'}/{size}", size):
            if name in self.images:
                return self.images[name]
        return self.pieces.get("image", max(self.images.values(), default=None))

    @property
    def has_rates(self) -> bool:
        """Whether a request's cost can be computed from its tokens, and so be estimated."""
        return bool(self.bands)


_NO_BAND = Band("", 0, {})
FREE = Prices(
    bands=(Band("", 0, dict.fromkeys(RATES, 0)),), pieces=dict.fromkeys(PIECE_KEYS, 0), source="free"
)


def of_settings(
    declared: Declared, *, unit: int | None = None, max_output: int | None = None, source: str = "settings"
) -> Prices:
    """The prices that settings or the table declare in dollars."""
    return Prices(
        bands=_bands(declared),
        pieces={
            name: round(price * NANO * MILLION)
            for name in PIECE_KEYS
            if (price := getattr(declared, name)) is not None
        },
        regions={name: round(factor * 1000) for name, factor in declared.regions.items()},
        images={name: round(price * NANO * MILLION) for name, price in declared.images.items()},
        unit=unit,
        max_output=max_output,
        source=source,
    )


def _nano(dollars: float) -> int:
    return round(dollars * NANO)


def _rates(declared: Rates) -> dict[str, int]:
    return {name: _nano(price) for name in RATES if (price := getattr(declared, name)) is not None}


def _bands(declared: Declared) -> tuple[Band, ...]:
    """Every combination of service and tier, complete. Long inputs are first, then those of a service."""
    base = _rates(declared)
    if not base:
        return ()
    services: dict[str, tuple[dict[str, int], tuple[Tier, ...]]] = {"": ({}, ())}
    services |= {name: (_rates(prices), prices.tiers) for name, prices in declared.services.items()}
    bounds = {tier.above for tier in declared.tiers}.union(
        *({tier.above for tier in tiers} for _, tiers in services.values())
    )
    made = []
    for above in sorted(bounds | {0}, reverse=True):
        long = _tier_rates(declared.tiers, above)
        for name, (own, tiers) in services.items():
            explicit = _tier_rates(tiers, above)
            made.append(Band(name, above, _complete(base, (own, long), explicit)))
    return tuple(made)


def _tier_rates(tiers: tuple[Tier, ...], above: int) -> dict[str, int]:
    """The rates of the highest tier that is not above `above`."""
    found = [tier for tier in tiers if tier.above <= above]
    return _rates(found[-1]) if found else {}


def _complete(
    base: Mapping[str, int], changes: tuple[Mapping[str, int], ...], explicit: Mapping[str, int]
) -> dict[str, int]:
    """All rates of one band: the explicit ones; else the base's, changed in turn as `changes` have it.

    A change that states a rate replaces it, one that states the text of the same direction alone scales
    it: half the price of input is half the price of cached input. `input` and `output` stand for the parts
    that have no price at all.
    """
    rates = {}
    for name in RATES:
        source = name
        while source not in base and source in _PARENTS and source not in explicit:
            source = _PARENTS[source]
        rate = explicit.get(source)
        if rate is None and (rate := base.get(source)) is not None:
            for change in changes:
                rate = _changed(rate, source, base, change)
        if rate is not None:
            rates[name] = rate
    if "cache_write_1h" not in base and "cache_write" in base and "input" in rates:
        # https://platform.claude.com/docs/en/build-with-claude/prompt-caching#pricing: twice the input.
        rates["cache_write_1h"] = max(rates["cache_write_1h"], 2 * rates["input"])
    return rates


def _changed(rate: int, name: str, base: Mapping[str, int], change: Mapping[str, int]) -> int:
    text = "output" if name in _OUTPUTS else "input"
    if name in change and base.get(name):
        return -(-rate * change[name] // base[name])
    if change.get(text) is not None and base.get(text):
        return -(-rate * change[text] // base[text])
    return change.get(name, rate)


# A name without its date or the mark of its newest version: gpt-4o-2024-08-06, claude-sonnet-4-5-20250929.
_DATED = re.compile(r"(?:[-@](?:20\d{6}|20\d\d-\d\d-\d\d|latest)|-\d{3}|:[a-z]+)\Z")
_FINE_TUNED = re.compile(r"(ft:[^:]+):.*")


class PriceBook:
    """The prices of all models that are known, for one set of settings.

    The file is read when the first price is looked up in it.
    """

    def __init__(self, file: Path = PRICE_FILE) -> None:
        self._file = file
        self._known: dict[tuple[str, str], Prices | None] = {}

    @cached_property
    def _table(self) -> bytes:
        # Kept as bytes, a line per model: parsed, the table would take 10 times the memory in each worker.
        return self._file.read_bytes()

    @property
    def date(self) -> str:
        """The day on which the table was made, such as `2026-11-28`."""
        found = re.search(rb'"date": *"([0-9-]+)"', self._table[:1000])
        return "" if found is None else found[1].decode()

    def age(self, today: datetime.date) -> Json:
        """When the table was made, as routes and the command show it; `age_days` at `today`."""
        made = datetime.date.fromisoformat(self.date)
        return {"date": self.date, "age_days": max(0, (today - made).days)}

    def find(
        self,
        provider: ProviderSettings,
        model: str,
        declared: Declared | None = None,
        max_output: int | None = None,
        max_input: int | None = None,
    ) -> Prices | None:
        """The prices of a provider's model; None if they are not known.

        `declared`, `max_output` and `max_input` are those of the target in the settings.
        """
        if declared is not None or max_output is not None or max_input is not None:
            found = self.find(provider, model)
            known = found or Prices()
            prices = found if declared is None else of_settings(declared)
            if prices is None or prices is FREE:
                return prices
            return replace(
                prices,
                max_output=max_output or known.max_output,
                max_input=max_input or known.max_input,
                mode=known.mode,
                supports=known.supports,
            )
        key = provider.name, model
        if key not in self._known:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[key] = self._looked_up(provider, model)
        return self._known[key]

    def _looked_up(self, provider: ProviderSettings, model: str) -> Prices | None:
        if provider.is_free:
            return FREE
        unit = None if provider.cost_unit is None else _nano(provider.cost_unit)
        for name in _names(provider, model):
            if (found := self._row(name, unit)) is not None:
                return found
        return None if unit is None else Prices(unit=unit, source="provider")

    def _row(self, name: str, unit: int | None) -> Prices | None:
        start = self._table.find(b"\n" + codec.dumps(name) + b":")
        if start < 0:
            return None
        end = self._table.index(b"\n", start + 1)
        row = codec.loads_exact(b"{" + self._table[start:end].rstrip(b",") + b"}")[name]
        limits = {limit: row.pop(limit, None) for limit in ("max_input", "max_output")}
        mode, known = row.pop("mode", "chat"), row.pop("supports", 0)
        supports = tuple(feature for bit, feature in enumerate(FEATURES) if known >> bit & 1)
        prices = of_settings(PriceTableKind().from_toml(row), unit=unit, source=f"table {self.date}")
        return replace(prices, **limits, mode=mode, supports=supports)


def _names(provider: ProviderSettings, model: str) -> Iterator[str]:
    """The names under which the table may have the model, the likeliest first.

    A provider that reports its costs sells the models of others at their prices: theirs serve as estimates.
    """
    plain = model.lower().removeprefix(provider.model_prefix.lower())
    plain = _FINE_TUNED.sub(r"\1", plain)
    vendors = [f"{provider.priced_as}/"] if provider.priced_as else []
    if provider.cost_unit is not None:
        vendors.append("")
    undated = _DATED.sub("", plain)
    for vendor in vendors:
        for name in dict.fromkeys((plain, undated, f"{undated}-latest", undated.replace(".", "-"))):
            yield vendor + name
