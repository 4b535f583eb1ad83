"""Whether the soak itself gets the CPU it needs to measure anything.

The visitors, the samples and the clock are one event loop of one process. On a busy machine that loop turns
late: times come out too long, and a visitor who reads an answer in many small pieces does not come to its
end, however fast the proxy is. So the loop is watched: a task that sleeps for `STEP_S` notes how much later
it wakes.
"""

from __future__ import annotations

import asyncio

STEP_S = 0.05
# A sample in a second whose longest turn was later than this measures the soak and not the proxy.
STARVED_MS = 250.0
# The loop was late for this share of a time, or more: what was not done in it is not the proxy's fault.
STARVED_SHARE = 0.25
# With more starved samples than this, the others prove nothing either.
MOST_STARVED_SAMPLES = 0.2


class LoopLag:
    """How late the event loop has been, in all and at the worst."""

    def __init__(self) -> None:
        self.total_s = 0.0
        self._longest_s = 0.0

    async def watch(self, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            due_at = loop.time() + STEP_S
            await asyncio.sleep(STEP_S)
            self.note(loop.time() - due_at)

    def note(self, late_s: float) -> None:
        self.total_s += late_s
        self._longest_s = max(self._longest_s, late_s)

    def take_longest_ms(self) -> float:
        """The longest since the last call."""
        longest_s, self._longest_s = self._longest_s, 0.0
        return 1000 * longest_s


def is_starved(late_s: float, elapsed_s: float) -> bool:
    """Whether a loop that was late by `late_s` of `elapsed_s` explains what was not done in that time."""
    return late_s >= STARVED_SHARE * elapsed_s
