"""When a second attempt begins beside a slow first one, and for how many requests. Pure: times are handed in.

Theory. A few requests take many times as long to their first content as the others, for reasons that are the
target's and of the moment: a queue, a cold replica. The same request sent elsewhere is most likely not among
the few (Dean and Barroso, The Tail at Scale, 2013), so the slowest requests gain most by a second attempt,
and a second attempt for all of them costs no more than their share of the load.

The delay is a percentile of what first attempts took lately. Two corrections keep it useful:

- An attempt that lost was closed, so its true time is unknown. It counts with the time it had taken by then;
  without it only the quick ones would be left, and the delay would shrink from one request to the next.
- The delay is at most two and a half times the median. Where more requests are slow than the percentile
  leaves out (one in twenty, and `p95`), the percentile itself is one of the slow times, and nothing would be
  gained.

The budget is a bucket that each request fills by its share and each second attempt empties by one. It is
empty at first and holds ten, so at no time have more than the share of the requests had a second attempt.
"""

from __future__ import annotations

import math
from collections import deque

from sanic_proxy.config.hedging import HedgeSettings

MAX_TIMES = 256
# So few times say nothing of a percentile.
MIN_TIMES = 20
# The delay is calculated anew after so many further times.
RECALCULATED_AFTER = 8
MAX_MEDIANS = 2.5
MAX_SAVED = 10.0
_ROUNDING = 1e-9


class Hedging:
    """The times to the first content of one model's first attempts, in seconds, and its budget."""

    __slots__ = ("_delay_s", "_saved", "_settings", "_since", "_times")

    def __init__(self, settings: HedgeSettings) -> None:
        self._settings = settings
        self._saved = 0.0
        # Whole answers take longer than the first content of a stream.
        self._times = {kind: deque[float](maxlen=MAX_TIMES) for kind in (True, False)}
        self._delay_s: dict[bool, float | None] = {True: None, False: None}
        self._since = {True: 0, False: 0}

    def count_request(self) -> None:
        """A request begins that may get a second attempt."""
        self._saved = min(MAX_SAVED, self._saved + self._settings.budget)

    def delay_s(self, *, is_streaming: bool) -> float | None:
        """How long a first attempt may be silent; None as long as too little is known."""
        return self._settings.after.seconds or self._delay_s[is_streaming]

    @property
    def has_room(self) -> bool:
        """Whether the budget allows a second attempt now."""
        return self._saved >= 1.0 - _ROUNDING

    def take(self) -> None:
        """Count a second attempt."""
        self._saved -= 1.0

    def note(self, seconds: float, *, is_streaming: bool) -> None:
        """What a first attempt took to its first content, or had taken when it lost."""
        times = self._times[is_streaming]
        times.append(seconds)
        self._since[is_streaming] += 1
        if len(times) >= MIN_TIMES and self._since[is_streaming] >= RECALCULATED_AFTER:
            self._since[is_streaming] = 0
            ordered = sorted(times)
            share = self._settings.after.percentile / 100
            self._delay_s[is_streaming] = min(_at(ordered, share), MAX_MEDIANS * _at(ordered, 0.5))


def _at(ordered: list[float], share: float) -> float:
    """The percentile by nearest rank."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
