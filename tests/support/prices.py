"""Prices and usages of tests of costs and estimates."""

from __future__ import annotations

from typing import Any

from sanic_proxy.config.prices import Prices, Tier
from sanic_proxy.governance.prices import RATES
from sanic_proxy.governance.usage import Usage


def text_prices(*, above: int, **more: Any) -> Prices:
    """Prices with caches, and a tier of inputs of more than `above` tokens that is dearer."""
    return Prices(
        input=3,
        output=15,
        cached_input=0.3,
        cache_write=3.75,
        cache_write_1h=6,
        tiers=(Tier(above=above, input=6, output=22.5),),
        **more,
    )


def usage_of(counts: list[int], service_tier: str = "") -> Usage:
    """A usage with so many tokens of each rate, in the order of RATES."""
    parts: dict[str, Any] = dict(zip(RATES, counts, strict=True))
    return Usage(**parts, service_tier=service_tier)
