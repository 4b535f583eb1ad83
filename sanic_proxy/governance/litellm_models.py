"""Models as LiteLLM (its version 1.110) describes them in `/model/info`. Pure.

https://docs.litellm.ai/docs/proxy/model_management
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from sanic_proxy.governance.prices import FEATURES, MILLION, NANO, Prices
from sanic_proxy.json_types import Json

_PER_DOLLAR = NANO * MILLION
# LiteLLM's names of our rates; those of parts are shown where they differ from the whole.
_RATES: Mapping[str, tuple[str, str]] = {
    "cached_input": ("cache_read_input_token_cost", "input"),
    "cache_write": ("cache_creation_input_token_cost", "input"),
    "cache_write_1h": ("cache_creation_input_token_cost_above_1hr", "cache_write"),
    "audio_input": ("input_cost_per_audio_token", "input"),
    "image_input": ("input_cost_per_image_token", "input"),
    "reasoning": ("output_cost_per_reasoning_token", "output"),
    "audio_output": ("output_cost_per_audio_token", "output"),
    "image_output": ("output_cost_per_image_token", "output"),
}
_PIECES: Mapping[str, str] = {
    "request": "input_cost_per_request",
    "search_unit": "input_cost_per_query",
    "image": "output_cost_per_image",
    "second": "input_cost_per_second",
    "character": "input_cost_per_character",
}
_SERVICES: Mapping[str, str] = {"": "", "flex": "_flex", "priority": "_priority", "batch": "_batches"}


def model_entry(name: str, label: str, prices: Prices | None, context_window: int | None = None) -> Json:
    """One target of the model `name`. `label` is `PROVIDER/MODEL`, `context_window` that of the settings.

    Costs are US dollars per token or piece; what is not known is null.
    """
    known = prices or Prices()
    provider = label.partition("/")[0]
    info: Json = {
        "id": hashlib.sha256(f"{name}\0{label}".encode()).hexdigest(),
        "db_model": False,
        "key": label,
        "litellm_provider": provider,
        "mode": known.mode or None,
        "max_tokens": known.max_output,
        "max_input_tokens": context_window or known.max_input,
        "max_output_tokens": known.max_output,
        **_costs(known),
        # Without a mode the table does not have the model.
        **{f"supports_{each}": each in known.supports if known.mode else None for each in FEATURES},
    }
    return {"model_name": name, "litellm_params": {"model": label}, "model_info": info}


def _costs(prices: Prices) -> Json:
    standard = prices.band(1).rates
    costs: Json = {
        "input_cost_per_token": _dollars(standard.get("input")),
        "output_cost_per_token": _dollars(standard.get("output")),
    }
    for rate, (name, whole) in _RATES.items():
        if standard.get(rate) != standard.get(whole):
            costs[name] = _dollars(standard[rate])
    for band in prices.bands:
        if band.service in _SERVICES:
            above = f"_above_{band.above // 1000}k_tokens" if band.above else ""
            for rate in band.rates.keys() & {"input", "output"}:
                name = f"{rate}_cost_per_token{above}{_SERVICES[band.service]}"
                costs[name] = _dollars(band.rates[rate])
    for piece, name in _PIECES.items():
        if piece in prices.pieces:
            costs[name] = _dollars(prices.pieces[piece])
    return costs


def _dollars(nano_per_million: int | None) -> float | None:
    return None if nano_per_million is None else nano_per_million / _PER_DOLLAR
