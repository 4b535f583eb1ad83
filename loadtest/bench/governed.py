"""The proxy for counting instructions: under callgrind everything but the clock is fifty times slower.

What the ledger does every so many milliseconds is done as much less often, so that a booking has as many
requests as it has at full speed.
"""

from __future__ import annotations

from sanic_proxy.app import app
from sanic_proxy.governance import ledger

__all__ = ["app"]

SLOWNESS = 50
ledger.BATCH_S *= SLOWNESS
ledger.TICK_S *= SLOWNESS
