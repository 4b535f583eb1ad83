"""The proxy for counting instructions: under callgrind everything but the clock is fifty times slower.

What is done every so many milliseconds is done as much less often, so that a booking of the ledger and a beat
of a worker, which adds up its metrics, have as many requests as they have at full speed.
"""

from __future__ import annotations

from sanic_proxy.app import app
from sanic_proxy.governance import ledger
from sanic_proxy.server import lifecycle

__all__ = ["app"]

SLOWNESS = 50
ledger.BATCH_S *= SLOWNESS
ledger.TICK_S *= SLOWNESS
lifecycle.BEAT_S *= SLOWNESS
