"""What is billed by piece at endpoints that pass through, as far as the request tells it. Pure.

| endpoint | unit | by |
|---|---|---|
| `/audio/speech` | a character of `input` | the request |
| `/images/generations` | an image of `quality` and `size` | the request; later the answer's images |
| `/rerank` | a search in up to 100 documents | the answer's `meta.billed_units`, else the request |

https://platform.openai.com/docs/api-reference/audio/createSpeech,
https://platform.openai.com/docs/api-reference/images/create, https://docs.cohere.com/docs/how-does-cohere-pricing-work
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sanic_proxy.governance.prices import Prices
from sanic_proxy.json_types import JsonMapping
from sanic_proxy.openai.usage import whole

DOCUMENTS_PER_SEARCH = 100
# What OpenAI's models for images write at most for one, which is billed where images have no price:
# https://platform.openai.com/docs/guides/image-generation#cost-and-latency
IMAGE_OUTPUT_TOKENS = 6240
_DEFAULT_SIZE = "1024x1024"


class Units(NamedTuple):
    """What a request asks for of one piece: `name` is the piece's in the prices of a model."""

    name: str
    number: int
    image_quality: str = ""
    image_size: str = ""

    def price(self, prices: Prices) -> int | None:
        """What they cost, in nano-dollars for a million; None where that cannot be computed.

        0 for searches that the answer reports as tokens.
        """
        price = prices.pieces.get(self.name)
        rates: Mapping[str, int] = prices.bands[-1].rates if prices.bands else {}
        if self.name == "image" and (price := prices.image(self.image_quality, self.image_size)) is None:
            token = rates.get("image_output")
            price = None if token is None else IMAGE_OUTPUT_TOKENS * token
        elif self.name == "search_unit" and price is None and rates:
            price = 0
        return None if price is None else self.number * price

    def added_to(self, usage: JsonMapping | None) -> JsonMapping | None:
        """A record's usage with these units, unless it has them; None: nothing is known.

        Images are counted in the answer. A stream of images is not read, so its usage stays unknown.
        """
        if self.name == "image":
            kind = {"image_quality": self.image_quality, "image_size": self.image_size}
            return None if usage is None else {**kind, **usage}
        return {f"{self.name}s": self.number, **(usage or {})}


def units_of(path: str, fields: JsonMapping) -> Units | None:
    """The units of a request with the JSON `fields` to an endpoint; None where it is billed by tokens."""
    if path == "/audio/speech":
        text = fields.get("input")
        return Units("character", len(text) if isinstance(text, str) else 0)
    if path == "/images/generations":
        quality, size = (
            value if isinstance(value := fields.get(name), str) else "" for name in ("quality", "size")
        )
        return Units("image", whole(fields.get("n")) or 1, quality, size or _DEFAULT_SIZE)
    if path == "/rerank":
        documents = fields.get("documents")
        number = len(documents) if isinstance(documents, list) else 1
        return Units("search_unit", max(1, -(-number // DOCUMENTS_PER_SEARCH)))
    return None
