"""What Straico's own error texts mean. Data."""

from __future__ import annotations

import re

from sanic_proxy.errors import InsufficientQuota, ModelNotFound, UpstreamUnavailable
from sanic_proxy.failures import Rule

# The catch-all for any failure of a vendor: it names moderation, context and load together, so it
# proves none of them. It has been seen without saying whether as an error or as the answer's text.
WARNING = re.compile(r"\s*\**Warning:?\**:? *It seems we couldn['’]t process your request", re.IGNORECASE)

RULES: tuple[Rule, ...] = (
    # The daily quota comes as a 422 and holds until the next day.
    Rule(
        frozenset({400, 402, 403, 422, 429}),
        re.compile(r"daily .*limit|limit .*(?:reached|exceed)", re.IGNORECASE | re.DOTALL),
        InsufficientQuota,
    ),
    Rule(
        frozenset({400, 422}),
        re.compile(r"model\b.{0,200}\bnot found", re.IGNORECASE | re.DOTALL),
        ModelNotFound,
    ),
    Rule(frozenset({500}), WARNING, UpstreamUnavailable),
    Rule(frozenset({500}), re.compile(r"Excessively l", re.IGNORECASE), UpstreamUnavailable),
)
