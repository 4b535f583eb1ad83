"""Usage and prices -> money, in integer nano-dollars. Pure.

`cost = ceil(sum(units * price) / 1_000_000)`: one rounding, up, at the end. A provider's own report of its
cost counts instead where the provider is known to report what it bills.
"""

from __future__ import annotations

from typing import NamedTuple

from sanic_proxy.governance.prices import MILLION, NANO, RATES, Prices
from sanic_proxy.governance.usage import Usage

# Above it, no sum is a bill; it keeps sums of many requests within the 64 bits of a database.
MAX_COST_NANO = 10**15
# What an answer may have been served with that is never dearer than the standard tier.
_NEVER_DEARER = frozenset({"", "flex", "batch"})


class Cost(NamedTuple):
    """`nano` dollars. `is_known` is False where something that was used has no known price."""

    nano: int
    is_known: bool


def cost(usage: Usage, prices: Prices | None) -> Cost:
    """What a request costs that has used `usage`; `prices` None: nothing is known of them."""
    if prices is None:
        return Cost(0, is_known=False)
    if prices.unit is not None and usage.reported_cost_nano is not None:
        return Cost(min(-(-usage.reported_cost_nano * prices.unit // NANO), MAX_COST_NANO), is_known=True)
    band = prices.band(usage.input_tokens, usage.service_tier)
    is_known = band.service == usage.service_tier or usage.service_tier in _NEVER_DEARER
    total = 0
    for name in RATES:
        if tokens := getattr(usage, name):
            price = band.rates.get(name)
            is_known &= price is not None
            total += tokens * (price or 0)
    total = -(-total * prices.regions.get(usage.region, 1000) // 1000)
    for name, count in _pieces(usage, prices):
        if name == "image":
            price = prices.image(usage.image_quality, usage.image_size)
        else:
            price = prices.pieces.get(name)
        is_known &= price is not None or name == "request"
        total += count * (price or 0)
    return Cost(min(-(-total // MILLION), MAX_COST_NANO), is_known)


class PlainRates:
    """What a usage of plain text costs, where nothing but its tokens decides: in nano-dollars for a million
    tokens, and for a million requests.

    `cost` is then the same as the function `cost` of a PlainUsage, in a fifth of the time.
    """

    __slots__ = ("input", "output", "request")

    def __init__(self, input_: int, output: int, request: int) -> None:
        self.input = input_
        self.output = output
        self.request = request

    @classmethod
    def of(cls, prices: Prices | None) -> PlainRates | None:
        """None where tiers, a region of all answers, or a missing price matter."""
        standard = [] if prices is None else [band for band in prices.bands if not band.service]
        if prices is None or len(standard) != 1 or standard[0].above or "" in prices.regions:
            return None
        rates = standard[0].rates
        if "input" not in rates or "output" not in rates:
            return None
        return cls(rates["input"], rates["output"], prices.pieces.get("request", 0))

    def cost(self, given: int, made: int) -> int:
        """The cost in nano-dollars of so many tokens of input and of output."""
        nano = -(-(given * self.input + made * self.output + self.request) // MILLION)
        return nano if nano < MAX_COST_NANO else MAX_COST_NANO


def _pieces(usage: Usage, prices: Prices) -> list[tuple[str, int]]:
    """What is billed by piece. Images, sound and what is spoken are, where no tokens are reported."""
    searches = usage.web_searches
    is_grounding = searches > 0 and "grounding" in prices.pieces
    pieces = [
        ("request", 1),
        ("grounding", 1) if is_grounding else ("web_search", searches),
        ("file_search", usage.file_searches),
        ("code_session", usage.code_sessions),
    ]
    if not usage.tokens:
        pieces += [("image", usage.images), ("second", usage.seconds), ("character", usage.characters)]
    if not usage.tokens or "search_unit" in prices.pieces:
        pieces.append(("search_unit", usage.search_units))
    return [(name, count) for name, count in pieces if count]
