"""LiteLLM's names for costs -> our table of prices. Pure.

LiteLLM states dollars per token, in a flat name for each combination:
`input_cost_per_token_above_200k_tokens_priority`. `scripts/prices` reads its price table with this, and
`deployments.py` what a configuration states of its own models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

from sanic_proxy.json_types import Json, JsonMapping

_RATES: Mapping[str, str] = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cached_input",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "input_cost_per_audio_token": "audio_input",
    "input_cost_per_image_token": "image_input",
    "output_cost_per_reasoning_token": "reasoning",
    "output_cost_per_audio_token": "audio_output",
    "output_cost_per_image_token": "image_output",
}
# Several names for one piece: the first that has a price counts.
_PIECES: Mapping[str, str] = {
    "output_cost_per_image": "image",
    "input_cost_per_image": "image",
    "input_cost_per_second": "second",
    "output_cost_per_second": "second",
    "input_cost_per_query": "request",
    "input_cost_per_request": "request",
    "input_cost_per_character": "character",
    "code_interpreter_cost_per_session": "code_session",
}
_TIERS = ("", "_flex", "_priority", "_batches")
_SERVICE = {"flex": "flex", "priority": "priority", "batches": "batch"}
_NAME = re.compile(r"(?P<rate>.+?)(?:_above_(?P<above>\d+)k_tokens)?(?:_(?P<service>flex|priority|batches))?")
_SEARCH = "search_context_cost_per_query"
_BOUNDS = ("", *(f"_above_{bound}k_tokens" for bound in (128, 200, 256, 272)))
# The names that a report of a configuration knows: prices of other tiers are read as well.
NAMES = (
    *(f"{rate}{bound}{tier}" for rate in _RATES for bound in _BOUNDS for tier in _TIERS),
    *(*_PIECES, _SEARCH, "file_search_cost_per_1k_calls", "tiered_pricing"),
)
COMMON_NAMES = ("input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost")


def prices_of(costs: JsonMapping) -> Json:
    """The table `prices` for LiteLLM's description of a model. Values that are no prices are left out."""
    prices: Json = {}
    tiers: dict[tuple[str, int], Json] = {}
    for name, value in costs.items():
        found = _NAME.fullmatch(name)
        rate = _RATES.get(found["rate"]) if found else None
        if found is None or rate is None or (price := _per_million(value)) is None:
            continue
        service, above = _SERVICE.get(found["service"] or "", ""), int(found["above"] or 0) * 1000
        tiers.setdefault((service, above), {})[rate] = price
    for name, piece in _PIECES.items():
        if (price := _dollars(costs.get(name))) is not None:
            prices.setdefault(piece, price)
    if costs.get("mode") == "rerank" and "request" in prices:
        prices["search_unit"] = prices.pop("request")
    prices |= _tools(costs)
    for start, rates in _ranges(costs.get("tiered_pricing")).items():
        tiers.setdefault(("", start), {}).update(rates)
    prices |= tiers.pop(("", 0), {})
    for (service, above), rates in sorted(tiers.items()):
        holder = prices.setdefault(service, {}) if service else prices
        if above:
            holder.setdefault("tiers", []).append({"above": above, **rates})
        else:
            holder.update(rates)
    return prices | _factors(costs.get("provider_specific_entry"), prices)


def _tools(costs: JsonMapping) -> Json:
    """What calls of tools cost, of the medium size of context where it depends on one."""
    found: Json = {}
    sizes = costs.get(_SEARCH)
    medium = sizes.get("search_context_size_medium") if isinstance(sizes, Mapping) else None
    if (price := _dollars(medium)) is not None:
        is_whole = costs.get("litellm_provider") == "gemini" and "web_search_billing_unit" not in costs
        found["grounding" if is_whole else "web_search"] = price
    if (price := _dollars(costs.get("file_search_cost_per_1k_calls"))) is not None:
        found["file_search"] = float(Decimal(str(price)) / 1000)
    return found


def _ranges(entries: object) -> dict[int, Json]:
    """The rates of `tiered_pricing` by the number of tokens above which they hold."""
    found: dict[int, Json] = {}
    for entry in entries if isinstance(entries, list) else ():
        bounds = entry.get("range") if isinstance(entry, Mapping) else None
        if isinstance(bounds, list) and bounds and isinstance(bounds[0], int | float):
            named = ((rate, _per_million(entry.get(name))) for name, rate in _RATES.items())
            found[int(bounds[0])] = {rate: price for rate, price in named if price is not None}
    return found


def _factors(entry: object, prices: JsonMapping) -> Json:
    """Factors of regions, and of Anthropic's fast mode, which is a tier here."""
    found = entry if isinstance(entry, Mapping) else {}
    made: Json = {}
    if (factor := _dollars(found.get("us"))) is not None:
        made["regions"] = {"us": factor}
    if (factor := _dollars(found.get("fast"))) is not None:
        made["fast"] = {
            name: float(Decimal(str(price)) * Decimal(str(factor)))
            for name, price in prices.items()
            if name in _RATES.values()
        }
    return made


def _dollars(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return round(number, 15) if 0 <= number <= 1e6 else None


def _per_million(value: object) -> float | None:
    """Dollars per token -> per million, with the digits that were written."""
    number = _dollars(value)
    return None if number is None or number > 1 else round(float(Decimal(str(number)) * 1_000_000), 9)
